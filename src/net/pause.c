#include "pause.h"

/* libuv offers no way to put a timer off by what has been missed: uv_timer_get_due_in() says 0 of
 * all that are overdue. Its `timeout` (when it is due, on the loop's clock) and `timer_cb` are in
 * the public struct of every libuv 1.x. */
static void pause_put_off(uv_handle_t *handle, void *ctx)
{
    uint64_t gap_ms = *(const uint64_t *)ctx;
    uv_timer_t *timer = (uv_timer_t *)handle;
    if (handle->type != UV_TIMER || !uv_is_active(handle))
        return;
    uint64_t due = timer->timeout + gap_ms;
    uint64_t now = uv_now(handle->loop);
    ASSERT(uv_timer_start(timer, timer->timer_cb, due > now ? due - now : 0,
                          uv_timer_get_repeat(timer)) == 0);
}

static void pause_look(struct pause *p)
{
    uint64_t now = clock_mono_ms();
    uint64_t wall = clock_wall_ms();
    uint64_t took = now - p->looked_at;
    uint64_t gap_ms = took > p->may_take_ms ? took - p->may_take_ms : 0;
    bool leapt = wall > p->looked_wall + took + p->least_ms;
    p->looked_at = now;
    p->looked_wall = wall;
    if (gap_ms < p->least_ms && !leapt)
        return;
    if (gap_ms < p->least_ms)
        gap_ms = 0;
    uv_update_time(p->beat.loop); /* the gap may have been before the loop slept */
    uv_walk(p->beat.loop, pause_put_off, &gap_ms);
    p->thawed(p, gap_ms);
}

/* How long the loop is about to sleep is not to be had: uv_backend_timeout() says 0 whenever a
 * descriptor was added in this turn. It will not be longer than until the beat. */
static void pause_before(uv_prepare_t *handle)
{
    struct pause *p = CONTAINER_OF(handle, struct pause, before);
    pause_look(p);
    p->may_take_ms = uv_timer_get_due_in(&p->beat);
}

static void pause_after(uv_check_t *handle)
{
    struct pause *p = CONTAINER_OF(handle, struct pause, after);
    pause_look(p);
    p->may_take_ms = 0; /* the callbacks of timers take no time to speak of */
}

static void pause_on_beat(uv_timer_t *timer)
{
    (void)timer;
}

void pause_start(struct pause *p, uv_loop_t *loop, uint64_t least_ms,
                 void (*thawed)(struct pause *p, uint64_t gap_ms))
{
    *p = (struct pause){.least_ms = least_ms, .thawed = thawed, .open_handles = 3};
    p->looked_at = clock_mono_ms();
    p->looked_wall = clock_wall_ms();
    p->may_take_ms = UINT64_MAX; /* what came before the loop is no gap */
    ASSERT(uv_prepare_init(loop, &p->before) == 0);
    ASSERT(uv_check_init(loop, &p->after) == 0);
    ASSERT(uv_timer_init(loop, &p->beat) == 0);
    ASSERT(uv_timer_start(&p->beat, pause_on_beat, PAUSE_BEAT_MS, PAUSE_BEAT_MS) == 0);
    ASSERT(uv_prepare_start(&p->before, pause_before) == 0);
    ASSERT(uv_check_start(&p->after, pause_after) == 0);
}

static void pause_on_closed(struct pause *p)
{
    if (--p->open_handles == 0 && p->closed != NULL)
        p->closed(p);
}

static void pause_on_before_closed(uv_handle_t *handle)
{
    pause_on_closed(CONTAINER_OF(handle, struct pause, before));
}

static void pause_on_after_closed(uv_handle_t *handle)
{
    pause_on_closed(CONTAINER_OF(handle, struct pause, after));
}

static void pause_on_beat_closed(uv_handle_t *handle)
{
    pause_on_closed(CONTAINER_OF(handle, struct pause, beat));
}

void pause_close(struct pause *p, void (*closed)(struct pause *p))
{
    p->closed = closed;
    uv_close((uv_handle_t *)&p->before, pause_on_before_closed);
    uv_close((uv_handle_t *)&p->after, pause_on_after_closed);
    uv_close((uv_handle_t *)&p->beat, pause_on_beat_closed);
}
