/* Live documents: written again and again, the newest value wins.
 *
 * Nothing is queued but the wish. A write is rendered when it really starts: when it has its turn,
 * a place in the backend and its key for itself. So however slow the backend is, one value per
 * document is in memory, and it is the newest. A failed write is a wish again, after a pause. */
#include "log.h"
#include "store_private.h"

#include <stdio.h>
#include <stdlib.h>

void store_live_init(struct store_live *live, struct store *s, const char *key)
{
    ASSERT(store_key_ok(slice_of(key)));
    *live = (struct store_live){.store = s, .key = key};
    list_init(&live->link);
}

static void live_want(struct store_live *live, uint64_t now)
{
    struct store *s = live->store;
    if (live->not_before_ms < now)
        live->not_before_ms = now; /* how late it is counts from here */
    list_add(&s->dirty, &live->link);
    store_wake(s);
}

void store_touch(struct store_live *live)
{
    if (live->dirty || live->ended)
        return;
    live->dirty = true;
    if (!live->writing)
        live_want(live, clock_mono_ms());
}

/* --- writing --------------------------------------------------------------------------------- */

static bool live_is_due(const struct store_live *live, uint64_t now)
{
    /* A flush waits for no interval, but does not hammer a backend that fails. */
    return live->not_before_ms <= now || (live->store->closing && live->failures == 0);
}

struct store_live *live_next(struct store *s, uint64_t now)
{
    LIST_FOREACH (node, &s->dirty) {
        struct store_live *live = CONTAINER_OF(node, struct store_live, link);
        if (live_is_due(live, now) && !flight_key_busy(s, live->key))
            return live;
    }
    return NULL;
}

static uint64_t live_backoff_ms(unsigned failures)
{
    uint64_t ms = STORE_BACKOFF_MS;
    for (unsigned i = 1; i < failures && ms < STORE_BACKOFF_MAX_MS; i++)
        ms *= 2;
    return ms < STORE_BACKOFF_MAX_MS ? ms : STORE_BACKOFF_MAX_MS;
}

static void live_tell_end(struct store_live *live)
{
    struct store *s = live->store;
    live->end_done(live); /* live is the caller's again */
    closer_release(&s->closer);
}

static void live_on_written(struct store_op *op)
{
    struct store_live *live = op->ctx;
    uint64_t now = clock_mono_ms();
    enum err_code code = op->doc[0].result;
    live->writing = false;
    if (code == ERR_OK) {
        live->failures = 0;
        live->wrote_at = op->started_ms;
    } else if (code == ERR_TOO_LARGE || code == ERR_INVALID) {
        /* The same value would fail again; the next one may not. */
        log_warn("store", "a live document is not kept: %s", op->err.msg);
    } else {
        uint64_t again = now + live_backoff_ms(++live->failures);
        if (live->not_before_ms < again)
            live->not_before_ms = again;
        live->dirty = true;
    }
    free(op);
    if (live->ended)
        live_tell_end(live);
    else if (live->dirty)
        live_want(live, now);
}

void live_write(struct store_live *live, uint64_t now)
{
    struct store *s = live->store;
    struct store_op *op = xmalloc(sizeof(*op)); /* most documents are not being written */
    list_remove(&live->link);
    live->dirty = false;
    live->writing = true;
    live->not_before_ms = now + s->ops->interval_ms;
    *op = (struct store_op){
        .n = 1, .not_after_ms = live->not_after_ms, .done = live_on_written, .ctx = live};
    op->doc[0].verb = STORE_PUT;
    (void)snprintf(op->doc[0].key, sizeof(op->doc[0].key), "%s", live->key);
    op->doc[0].value = live->render(live, &op->doc[0].order);
    ASSERT(op->doc[0].value != NULL);
    struct flight *f = flight_new(s, op);
    flight_queue(f);
    if (f->state == FLIGHT_READY) /* else it was refused for its size */
        flight_start(f);
}

/* --- the end --------------------------------------------------------------------------------- */

/* A write that has been answered at its deadline may still run: it holds its key, so what the
 * caller writes next waits for it. */
void store_live_end(struct store_live *live, void (*done)(struct store_live *live))
{
    struct store *s = live->store;
    ASSERT(!live->ended);
    live->ended = true;
    live->dirty = false;
    live->end_done = done;
    list_remove(&live->link);
    closer_hold(&s->closer);
    if (live->writing)
        return;
    list_add(&s->ended, &live->link);
    store_wake(s);
}

void live_tell_ended(struct store *s)
{
    struct list_node ended;
    list_take(&ended, &s->ended);
    while (!list_is_empty(&ended)) {
        struct store_live *live = CONTAINER_OF(ended.next, struct store_live, link);
        list_remove(&live->link);
        live_tell_end(live);
    }
}

uint64_t live_next_time(const struct store *s, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    LIST_FOREACH (node, &s->dirty) {
        const struct store_live *live = CONTAINER_OF(node, struct store_live, link);
        /* What is due already waits for an end, not for a time. */
        if (live->not_before_ms > now && live->not_before_ms < next)
            next = live->not_before_ms;
    }
    return next;
}
