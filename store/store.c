/* The core: what all backends would otherwise do in four ways. Operations are in store_flight.c,
 * live documents in store_live.c; here is who goes first, for how long, and how it ends.
 *
 * Everything starts in one place, the turn, run by `later` whenever something has changed and by
 * the timer whenever something is due. A turn answers what is past its deadline, fills the
 * backend's places (operations first, then live documents, unless one is starved; a list has a
 * place of its own), and sets the timer to the nearest moment at which there will be something to
 * do.
 */
#include "log.h"
#include "store_private.h"
#include "store_url.h"

#include <stdlib.h>

static const struct store_ops *const store_backends[] = {
    &store_file_ops,  &store_mem_ops,
#ifdef STORE_REDIS
    &store_redis_ops,
#endif
#ifdef STORE_MYSQL
    &store_mysql_ops,
#endif
    &store_ots_ops,
};
static const char *const store_scheme_list = "file mem"
#ifdef STORE_REDIS
                                             " redis"
#endif
#ifdef STORE_MYSQL
                                             " mysql"
#endif
                                             " ots";

/* --- health ---------------------------------------------------------------------------------- */

static bool store_op_stores(const struct store_op *op)
{
    for (unsigned i = 0; i < op->n; i++)
        if (op->doc[i].verb == STORE_PUT || op->doc[i].verb == STORE_CREATE)
            return true;
    return false;
}

/* On a full disk reads succeed: a write that failed is believed until one succeeds. */
static void store_note_good(struct store *s, const struct store_op *op)
{
    if (s->healthy || (s->cannot_write && !store_op_stores(op)))
        return;
    s->healthy = true;
    s->cannot_write = false;
    log_info("store", "%s: works again", s->ops->scheme);
}

static void store_note_bad(struct store *s, const struct store_op *op, const struct err *why)
{
    s->why = *why;
    s->probe_at = clock_mono_ms() + STORE_PROBE_MS;
    s->cannot_write = s->cannot_write || store_op_stores(op);
    if (s->healthy)
        log_warn("store", "%s: %s", s->ops->scheme, why->msg);
    s->healthy = false;
}

void store_note_timeout(struct store *s, const struct store_op *op, bool begun,
                        const struct err *why)
{
    s->stats.timeouts++;
    s->stats.failures++;
    if (begun && op->page == NULL)
        store_note_bad(s, op, why);
}

/* What says nothing about the backend changes nothing: a value too large, a corrupt document, a
 * list that took too long (it may be long), what waited in vain for another (which will tell). What
 * was given up has been counted; that it failed is no news if others have succeeded since, and else
 * perhaps a better reason. */
void store_note_end(struct store *s, const struct store_op *op, enum err_code outcome,
                    bool given_up)
{
    for (unsigned i = 0; i < op->n; i++) {
        enum err_code result = op->doc[i].result;
        if (op->doc[i].verb == STORE_GET)
            s->stats.docs_read += result == ERR_OK;
        else
            s->stats.docs_written += result == ERR_OK;
    }
    if (outcome == ERR_OK || outcome == ERR_EXISTS) {
        store_note_good(s, op);
        return;
    }
    if (given_up && s->healthy)
        return;
    s->stats.failures += !given_up;
    if (outcome == ERR_UNAVAILABLE || outcome == ERR_IO ||
        (outcome == ERR_TIMEOUT && op->page == NULL))
        store_note_bad(s, op, &op->err);
}

bool store_healthy(const struct store *s, struct err *ret_why)
{
    if (!s->healthy && ret_why != NULL)
        *ret_why = s->why;
    return s->healthy;
}

/* Who is not believed to work is perhaps asked for nothing (a load balancer looks elsewhere), so
 * the core asks. The key is an id's, but of a suffix that no document has. */
static void store_on_probed(struct store_op *op)
{
    struct store *s = op->ctx;
    s->probing = false;
    store_wake(s);
}

static void store_probe(struct store *s)
{
    static const char key[] = "_~probe";
    s->probing = true;
    s->probe_at = clock_mono_ms() + STORE_PROBE_MS;
    s->probe = (struct store_op){.n = 2, .done = store_on_probed, .ctx = s};
    s->probe.doc[0].verb = STORE_PUT;
    s->probe.doc[0].value = blob_new(SLICE("1"));
    s->probe.doc[1].verb = STORE_REMOVE;
    for (unsigned i = 0; i < s->probe.n; i++)
        memcpy(s->probe.doc[i].key, key, sizeof(key));
    store_run(s, &s->probe);
}

/* --- the turn -------------------------------------------------------------------------------- */

static void store_fill(struct store *s, uint64_t now)
{
    if (!s->listing && !list_is_empty(&s->lists))
        flight_start(CONTAINER_OF(s->lists.next, struct flight, op.link));
    while (s->running < s->parallel) {
        struct store_live *live = live_next(s, now);
        bool starved = live != NULL && now > live->not_before_ms + STORE_STARVED_MS;
        if (!list_is_empty(&s->ready) && !starved)
            flight_start(CONTAINER_OF(s->ready.next, struct flight, op.link));
        else if (live != NULL)
            live_write(live, now);
        else
            return;
    }
}

static void store_on_timer(uv_timer_t *timer)
{
    store_wake(timer->data);
}

static void store_arm(struct store *s, uint64_t now)
{
    uint64_t next = flight_next_deadline(s);
    uint64_t live = live_next_time(s, now);
    next = live < next ? live : next;
    if (!s->healthy && !s->probing && !s->closing && s->probe_at < next)
        next = s->probe_at;
    if (s->closing && s->close_at < next)
        next = s->close_at;
    if (next == UINT64_MAX)
        (void)uv_timer_stop(&s->timer);
    else
        ASSERT(uv_timer_start(&s->timer, store_on_timer, next > now ? next - now : 1, 0) == 0);
}

static void store_close_step(struct store *s, uint64_t now);

static void store_on_turn(struct later_item *item)
{
    struct store *s = CONTAINER_OF(item, struct store, turn);
    uint64_t now = clock_mono_ms();
    live_tell_ended(s);
    if (!s->gave_up) {
        flight_expire(s, now);
        if (!s->healthy && !s->probing && !s->closing && s->probe_at <= now)
            store_probe(s);
        store_fill(s, now);
        if (s->closing)
            store_close_step(s, now);
    }
    if (!s->gave_up)
        store_arm(s, now);
    closer_release(&s->closer);
}

void store_wake(struct store *s)
{
    if (s->turn.queued)
        return;
    closer_hold(&s->closer);
    later_add(s->later, &s->turn);
}

void store_run(struct store *s, struct store_op *op)
{
    struct flight *f = flight_new(s, op);
    if (s->closing)
        flight_refuse(f, ERR_UNAVAILABLE, "the store is being closed");
    else if (s->flights > STORE_OPS_MAX || (s->bytes > STORE_BYTES_MAX && s->bytes > f->bytes))
        flight_refuse(f, ERR_BUSY, "too much waits for the store already");
    else
        flight_queue(f);
    store_wake(s);
}

/* --- opening --------------------------------------------------------------------------------- */

static struct store *store_new(const struct store_ops *ops, struct store_backend *backend,
                               uv_loop_t *loop, struct later *later)
{
    struct store *s = xcalloc(1, sizeof(*s));
    s->loop = loop;
    s->later = later;
    s->ops = ops;
    s->backend = backend;
    s->parallel = backend->parallel != 0 ? backend->parallel : ops->parallel;
    s->healthy = true;
    list_init(&s->blocked);
    list_init(&s->ready);
    list_init(&s->lists);
    list_init(&s->flying);
    list_init(&s->all);
    list_init(&s->dirty);
    list_init(&s->ended);
    for (unsigned i = 0; i < STORE_BUCKETS; i++)
        list_init(&s->row[i]);
    later_item_init(&s->turn, store_on_turn);
    closer_init(&s->closer, loop);
    ASSERT(uv_timer_init(loop, &s->timer) == 0);
    s->timer.data = s;
    closer_hold(&s->closer);
    return s;
}

static void store_on_unwanted_closed(void *ctx)
{
    (void)ctx;
}

static enum err_code store_open_url(struct store **ret, const struct store_ops *ops,
                                    uv_loop_t *loop, struct later *later, struct store_url *url,
                                    struct err *err)
{
    struct store_backend *backend = NULL;
    enum err_code code = ops->open(&backend, loop, later, url, err);
    if (code != ERR_OK)
        return code;
    code = store_url_check_rest(url, err);
    if (code != ERR_OK) {
        ops->close(backend, 0, store_on_unwanted_closed, NULL);
        return code;
    }
    *ret = store_new(ops, backend, loop, later);
    return ERR_OK;
}

enum err_code store_open_with(struct store **ret, const struct store_ops *ops, uv_loop_t *loop,
                              struct later *later, const char *url, struct err *err)
{
    struct store_url parts;
    enum err_code code = store_url_parse(&parts, url, err);
    if (code != ERR_OK)
        return code;
    code = store_open_url(ret, ops, loop, later, &parts, err);
    store_url_done(&parts);
    return code;
}

enum err_code store_open(struct store **ret, uv_loop_t *loop, struct later *later, const char *url,
                         struct err *err)
{
    struct slice scheme = {url, strcspn(url, ":")};
    for (size_t i = 0; i < ARRAY_LEN(store_backends); i++)
        if (slice_is(scheme, store_backends[i]->scheme))
            return store_open_with(ret, store_backends[i], loop, later, url, err);
    return err_set(err, ERR_INVALID, "store URL: the scheme must be one of: %s", store_scheme_list);
}

/* --- closing --------------------------------------------------------------------------------- */

static void store_on_closed(struct closer *closer)
{
    struct store *s = CONTAINER_OF(closer, struct store, closer);
    void (*closed)(void *ctx) = s->closed;
    void *ctx = s->closed_ctx;
    while (!list_is_empty(&s->dirty)) /* not written in time; the nodes are the callers' */
        list_remove(s->dirty.next);
    free(s);
    if (closed != NULL)
        closed(ctx);
}

static void store_on_backend_closed(void *ctx)
{
    struct store *s = ctx;
    closer_release(&s->closer);
}

static void store_on_timer_closed(uv_handle_t *handle)
{
    struct store *s = handle->data;
    closer_release(&s->closer);
}

/* All is written, or the time for it is over. A list that runs has been answered. */
static void store_close_step(struct store *s, uint64_t now)
{
    flight_cancel_lists(s, "closing");
    bool idle = s->flights == s->listing && list_is_empty(&s->dirty);
    if (!idle && now < s->close_at)
        return;
    if (!idle)
        log_warn("store", "closing with %u operations not done", s->flights);
    s->gave_up = true;
    flight_give_up(s);
    uv_close((uv_handle_t *)&s->timer, store_on_timer_closed);
    closer_hold(&s->closer);
    s->ops->close(s->backend, s->close_at > now ? s->close_at - now : 0, store_on_backend_closed,
                  s);
    closer_begin(&s->closer, store_on_closed);
}

void store_close(struct store *s, uint64_t wait_ms, void (*closed)(void *ctx), void *ctx)
{
    ASSERT(!s->closing);
    s->closing = true;
    s->close_at = clock_mono_ms() + wait_ms;
    s->closed = closed;
    s->closed_ctx = ctx;
    store_wake(s);
}

void store_thaw(struct store *s, uint64_t gap_ms)
{
    flight_put_off(s, gap_ms);
    if (s->closing)
        s->close_at += gap_ms;
    if (!s->gave_up)
        store_wake(s);
}

void store_credentials(struct store *s, const struct store_credentials *credentials)
{
    if (s->ops->credentials != NULL && !s->gave_up)
        s->ops->credentials(s->backend, credentials);
}

/* --- questions ------------------------------------------------------------------------------- */

void store_on_write(struct store *s, void (*on_write)(void *ctx, const char *key), void *ctx)
{
    s->on_write = on_write;
    s->on_write_ctx = ctx;
}

struct store_stats store_stats(const struct store *s)
{
    struct store_stats stats = s->stats;
    stats.in_flight = s->flights;
    return stats;
}

const char *store_scheme(const struct store *s)
{
    return s->ops->scheme;
}

const char *store_schemes(void)
{
    return store_scheme_list;
}
