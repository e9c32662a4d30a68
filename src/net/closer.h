/* "May this memory be freed?" One hold per open handle and per request in flight; when closing has
 * begun and the last hold is gone, the callback runs, later, from the loop, exactly once. */
#ifndef CLOSER_H
#define CLOSER_H

#include "base.h"

#include <uv.h>

struct closer {
    uv_idle_t last; /* never started: its close callback is the object's last event */
    unsigned held;
    bool closing;
    void (*cb)(struct closer *c);
};

void closer_init(struct closer *c, uv_loop_t *loop);
void closer_hold(struct closer *c);    /* after uv_*_init, uv_write, … succeeded */
void closer_release(struct closer *c); /* last line of each close callback and completion */
void closer_begin(struct closer *c, void (*cb)(struct closer *c));

#endif
