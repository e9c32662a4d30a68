/* One queue of "not now, but before the loop sleeps again": completions, notices to watchers, ends.
 * Whatever would have to call its caller back goes here. Run in the order of adding, and so is what
 * is added meanwhile, LATER_ROUNDS times in a turn of the loop at most: one thing leads to another,
 * but sockets have their turn, too. What gathers what the others do (output of connections) comes
 * behind all of them. Items are embedded by their owners and may be cancelled. */
#ifndef LATER_H
#define LATER_H

#include "list.h"

#include <uv.h>

/* With two most polls of a run found nothing: the loop went round only to get to the next item. */
enum { LATER_ROUNDS = 8 };

struct later_item {
    struct list_node link;
    void (*run)(struct later_item *item);
    bool queued;
};

struct later {
    uv_check_t check;
    uv_idle_t idle; /* active while something is queued: the loop does not sleep then */
    struct list_node items, last;
    unsigned open_handles;
    void (*closed)(struct later *l);
};

void later_init(struct later *l, uv_loop_t *loop);
void later_close(struct later *l, void (*cb)(struct later *l)); /* the queue must be empty */
void later_item_init(struct later_item *item, void (*run)(struct later_item *item));
void later_add(struct later *l, struct later_item *item); /* queued already: stays where it is */
void later_add_last(struct later *l, struct later_item *item); /* behind the turn's other items */
void later_cancel(struct later *l, struct later_item *item);

#endif
