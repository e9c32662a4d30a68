#include "deadline.h"

#include "base.h"

static void deadlines_on_timer(uv_timer_t *timer);

static void deadlines_arm(struct deadlines *ds, uint64_t at)
{
    uint64_t now = uv_now(ds->timer.loop);
    if (ds->fires_at != 0 && ds->fires_at <= at)
        return;
    ds->fires_at = at;
    ASSERT(uv_timer_start(&ds->timer, deadlines_on_timer, at > now ? at - now : 1, 0) == 0);
}

struct deadline *deadlines_first(struct deadlines *ds, unsigned class)
{
    struct list_node *waiting = &ds->classes[class].waiting;
    return list_is_empty(waiting) ? NULL : CONTAINER_OF(waiting->next, struct deadline, link);
}

static void deadlines_end_due(struct deadlines *ds, unsigned class, uint64_t now)
{
    struct deadline *d;
    while ((d = deadlines_first(ds, class)) != NULL && d->at <= now) {
        deadline_clear(d);
        ds->classes[class].over(d); /* may set and clear any */
    }
}

static void deadlines_begin_anew(struct deadlines *ds, uint64_t now)
{
    for (unsigned i = 0; i < ds->count; i++)
        LIST_FOREACH (node, &ds->classes[i].waiting)
            CONTAINER_OF(node, struct deadline, link)->at = now + ds->classes[i].ms;
}

static void deadlines_on_timer(uv_timer_t *timer)
{
    struct deadlines *ds = CONTAINER_OF(timer, struct deadlines, timer);
    uint64_t now = uv_now(timer->loop);
    bool late = now > ds->fires_at + DEADLINE_LATE_MS;
    ds->fires_at = 0;
    if (late)
        deadlines_begin_anew(ds, now);
    for (unsigned i = 0; i < ds->count; i++)
        deadlines_end_due(ds, i, now);
    if (uv_is_closing((uv_handle_t *)timer))
        return;
    for (unsigned i = 0; i < ds->count; i++) {
        const struct deadline *first = deadlines_first(ds, i);
        if (first != NULL)
            deadlines_arm(ds, first->at);
    }
}

void deadlines_init(struct deadlines *ds, uv_loop_t *loop, struct deadline_class *classes,
                    unsigned count)
{
    *ds = (struct deadlines){.classes = classes, .count = count};
    for (unsigned i = 0; i < count; i++) {
        ASSERT(classes[i].ms > 0); /* else one that sets itself again would never let go */
        list_init(&classes[i].waiting);
    }
    ASSERT(uv_timer_init(loop, &ds->timer) == 0);
}

static void deadlines_on_closed(uv_handle_t *h)
{
    struct deadlines *ds = CONTAINER_OF(h, struct deadlines, timer);
    ds->closed(ds);
}

void deadlines_close(struct deadlines *ds, void (*closed)(struct deadlines *ds))
{
    ds->closed = closed;
    uv_close((uv_handle_t *)&ds->timer, deadlines_on_closed);
}

void deadline_init(struct deadline *d)
{
    list_init(&d->link);
}

void deadline_set(struct deadlines *ds, unsigned class, struct deadline *d)
{
    ASSERT(class < ds->count);
    d->at = uv_now(ds->timer.loop) + ds->classes[class].ms;
    list_remove(&d->link);
    list_add(&ds->classes[class].waiting, &d->link);
    deadlines_arm(ds, d->at);
}

void deadline_clear(struct deadline *d)
{
    list_remove(&d->link);
}
