/* One queue of "not now, but before the loop sleeps again": completions, notices to watchers, ends.
 * Whatever would have to call its caller back goes here. Run once per loop turn, in the order of
 * adding; what is added while it runs is run in the next turn. Items are embedded by their owners
 * and may be cancelled. */
#ifndef LATER_H
#define LATER_H

#include "list.h"

#include <uv.h>

struct later_item {
    struct list_node link;
    void (*run)(struct later_item *item);
    bool queued;
};

struct later {
    uv_check_t check;
    uv_idle_t idle; /* active while something is queued: the loop does not sleep then */
    struct list_node items;
    unsigned open_handles;
    void (*closed)(struct later *l);
};

void later_init(struct later *l, uv_loop_t *loop);
void later_close(struct later *l, void (*cb)(struct later *l)); /* the queue must be empty */
void later_item_init(struct later_item *item, void (*run)(struct later_item *item));
void later_add(struct later *l, struct later_item *item); /* queued already: stays where it is */
void later_cancel(struct later *l, struct later_item *item);

#endif
