/* Inside the hub: task_hub.c has the lists and what callers ask for, task_hub_news.c what happens
 * to the tasks in them. */
#ifndef TASK_HUB_PRIVATE_H
#define TASK_HUB_PRIVATE_H

#include "task_private.h"

struct left;

enum {
    HUB_BUCKETS = 1024,
    PLACES = PLACE_STORING + 1,
};

struct task_hub {
    struct task_hub_options options;
    uv_loop_t *loop;
    struct later *later;
    struct closer closer;
    uv_timer_t tick; /* runs while something waits for ComfyUI or for the store */
    void (*closed)(void *ctx);
    void *closed_ctx;

    struct list_node list[PLACES];
    unsigned count[PLACES];
    struct list_node buckets[HUB_BUCKETS];
    uint64_t hash_seed;
    struct task *last;            /* the task of the last event: most follow each other */
    struct silent_classes silent; /* of the ComfyUI that the link leads to */
    struct left *left;
    bool left_hurried; /* at the end, once */
    struct buf draft;  /* texts are written here, so that each takes what it needs */

    bool draining;
    bool drained_told;
    void (*drained)(void *ctx);
    void *drained_ctx;
    struct later_item drained_item;
    unsigned mirrors;            /* of those in PLACE_CLAIMING: they follow others' tasks */
    struct later_item pump_item; /* so that no list changes under whoever walks it */

    unsigned unknown_link; /* the link under which a prompt was left whose id we do not know */
    uint64_t closed_at;    /* the link is not open since then; 0: it is */
    uint64_t ready_at;     /* the supervisor said so; 0: not yet */
    uint64_t idle_at; /* the last one left PLACE_ACTIVE, or an attached ComfyUI with what was left;
                         0: never */
    uint64_t stored_again_at;
    struct task_hub_stats stats;
};

/* Something waits for ComfyUI or for the store: time is looked at again. */
void task_hub_want_tick(struct task_hub *h);
/* Each task of the list gets a failure of its own to end by, if nothing better is known. */
void task_hub_tell_fate(struct task_hub *h, struct list_node *list,
                        struct failure *(*make)(const struct task_hub *h));

#endif
