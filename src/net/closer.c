#include "closer.h"

static void closer_on_last(uv_handle_t *h)
{
    struct closer *c = CONTAINER_OF(h, struct closer, last);
    c->cb(c); /* may free what c lives in */
}

void closer_init(struct closer *c, uv_loop_t *loop)
{
    c->held = 0;
    c->closing = false;
    c->cb = NULL;
    ASSERT(uv_idle_init(loop, &c->last) == 0);
}

void closer_hold(struct closer *c)
{
    c->held++;
}

void closer_release(struct closer *c)
{
    ASSERT(c->held > 0);
    if (--c->held == 0 && c->closing)
        uv_close((uv_handle_t *)&c->last, closer_on_last);
}

void closer_begin(struct closer *c, void (*cb)(struct closer *c))
{
    ASSERT(!c->closing);
    c->closing = true;
    c->cb = cb;
    if (c->held == 0)
        uv_close((uv_handle_t *)&c->last, closer_on_last);
}
