/* Facts (something changed, the task has ended, the time) and feed_step(), which looks at them.
 *
 * An end is handed on at once: it comes last, and who takes it sees to his own pace. A preview is
 * handed on when the reader is ready and no snapshot waits for it, else dropped. */
#include "feed.h"

#include <stdlib.h>

struct feed {
    struct feed_reader reader;
    struct task_watch watch;
    struct task *task;
    uv_timer_t timer;
    struct later_item start;
    struct later *later;
    bool changed; /* since the last snapshot */
    bool ended, freed;
    uint64_t said_at; /* anything */
    uint64_t next_at; /* no snapshot before */
    uint64_t newest;  /* hash of the one that was handed on last */
    uint64_t seed;
};

static uint64_t feed_now(const struct feed *f)
{
    return uv_now(f->timer.loop);
}

static void feed_on_timer(uv_timer_t *timer);

static void feed_wake_at(struct feed *f, uint64_t at)
{
    uint64_t now = feed_now(f);
    ASSERT(uv_timer_start(&f->timer, feed_on_timer, at > now ? at - now : 1, 0) == 0);
}

/* False: the reader has it already. */
static bool feed_say(struct feed *f)
{
    struct blob *nodes = task_nodes(f->task);
    uint64_t hash = hash_bytes(f->seed, blob_slice(nodes).ptr, blob_slice(nodes).len);
    f->changed = false;
    if (f->newest == hash)
        return false;
    f->newest = hash;
    f->said_at = feed_now(f);
    f->next_at = f->said_at + FEED_MS;
    f->reader.on_snapshot(f->reader.ctx, nodes);
    return true;
}

static bool feed_is_due(const struct feed *f)
{
    return f->changed && feed_now(f) >= f->next_at;
}

static void feed_step(struct feed *f)
{
    bool ready = f->reader.is_ready(f->reader.ctx);
    if (feed_is_due(f) && ready && feed_say(f) && f->freed)
        return;
    bool silent = f->reader.on_silence != NULL;
    uint64_t silence_at = f->said_at + f->reader.silence_ms;
    if (silent && ready && feed_now(f) >= silence_at) {
        f->said_at = feed_now(f);
        silence_at = f->said_at + f->reader.silence_ms;
        f->reader.on_silence(f->reader.ctx);
        if (f->freed)
            return;
    }
    if (f->changed) /* too early, or the reader is not ready */
        feed_wake_at(f, feed_is_due(f) ? feed_now(f) + FEED_MS : f->next_at);
    else if (silent)
        feed_wake_at(f, ready ? silence_at : feed_now(f) + f->reader.silence_ms);
}

static void feed_on_timer(uv_timer_t *timer)
{
    feed_step(timer->data);
}

static void feed_on_change(struct task_watch *w)
{
    struct feed *f = w->ctx;
    bool news = !f->changed;
    f->changed = true;
    if (news)
        feed_step(f);
}

static void feed_on_end(struct task_watch *w)
{
    struct feed *f = w->ctx;
    later_cancel(f->later, &f->start);
    (void)uv_timer_stop(&f->timer);
    f->ended = true;
    f->reader.on_end(f->reader.ctx);
}

static void feed_on_preview(struct task_watch *w, const struct task_preview *p)
{
    struct feed *f = w->ctx;
    if (!f->ended && !feed_is_due(f) && f->reader.is_ready(f->reader.ctx))
        f->reader.on_preview(f->reader.ctx, p);
}

/* What is known already is news to a new reader. */
static void feed_on_start(struct later_item *item)
{
    struct feed *f = CONTAINER_OF(item, struct feed, start);
    if (task_is_known(f->task))
        feed_on_change(&f->watch);
    else
        feed_step(f);
}

struct feed *feed_new(struct api *api, struct task *t, const struct feed_reader *reader)
{
    struct feed *f = xcalloc(1, sizeof(*f));
    f->reader = *reader;
    f->task = task_ref(t);
    f->later = api->later;
    ASSERT(uv_timer_init(api->loop, &f->timer) == 0);
    f->timer.data = f;
    f->said_at = feed_now(f);
    random_bytes(&f->seed, sizeof(f->seed));
    f->watch = (struct task_watch){
        .on_change = feed_on_change,
        .on_end = feed_on_end,
        .on_preview = reader->on_preview != NULL ? feed_on_preview : NULL,
        .ctx = f,
        .is_caller = reader->is_caller,
    };
    task_watch_start(&f->watch, t);
    later_item_init(&f->start, feed_on_start);
    later_add(f->later, &f->start);
    return f;
}

static void feed_on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void feed_free(struct feed *f)
{
    ASSERT(!f->freed);
    f->freed = true;
    task_watch_stop(&f->watch);
    later_cancel(f->later, &f->start);
    task_unref(f->task);
    uv_close((uv_handle_t *)&f->timer, feed_on_timer_closed);
}

struct task *feed_task(const struct feed *f)
{
    return f->task;
}
