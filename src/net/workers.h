/* Threads for work that may hang (a dead NAS), of one owner, apart from libuv's pool. The only
 * mutex of the program lives here. A job gets a struct that holds copies only. */
#ifndef WORKERS_H
#define WORKERS_H

#include "list.h"

#include <uv.h>

struct workers;
struct work {
    struct list_node link;
    void (*run)(struct work *w);  /* on a worker thread */
    void (*done)(struct work *w); /* on the loop thread, exactly once */
    /* On the loop thread instead of both, when the close came before its turn. May be NULL. */
    void (*dropped)(struct work *w);
};

/* Threads are started on demand, at most `threads` (1..8), with all signals blocked. */
struct workers *workers_new(uv_loop_t *loop, unsigned threads);
void workers_add(struct workers *ws, struct work *w);
/* Before any job: what a thread does when there is no further one; only then is the loop told of
 * the last. */
void workers_on_rest(struct workers *ws, void (*rest)(void));
unsigned workers_pending(const struct workers *ws); /* added and not yet done */
/* Waits for running and queued jobs at most wait_ms; threads that are stuck beyond are abandoned
 * (the process ends without them): their jobs' done() is never called, and `stuck` says how many
 * jobs were left, with the dropped ones. */
void workers_close(struct workers *ws, uint64_t wait_ms, void (*closed)(void *ctx, unsigned stuck),
                   void *ctx);

#endif
