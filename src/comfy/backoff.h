/* How long to wait before the next start, and when to give up. Pure.
 *
 * The end of one that served costs no wait, so that a single crash is as short as it can be; so
 * does a verdict of the owner's. Exits in a row, which come soon after READY or before it, wait
 * from min_ms, doubling to max_ms. Who was READY for twice max_ms has lived well and begins no row.
 * More than exits_max exits of any kind within window_ms are too many. */
#ifndef BACKOFF_H
#define BACKOFF_H

#include "base.h"

struct backoff {
    uint64_t min_ms, max_ms, window_ms;
    unsigned exits_max;
    uint64_t *exits; /* when they happened, the newest exits_max + 1: a ring */
    uint64_t exit_count;
    uint64_t next_ms; /* 0: no row has begun */
};

enum backoff_life {
    BACKOFF_NEVER_READY,
    BACKOFF_WAS_READY,
    BACKOFF_CONDEMNED, /* by the owner */
};

struct backoff_verdict {
    bool too_many;
    uint64_t delay_ms;
};

void backoff_init(struct backoff *b); /* the four settings are set before */
void backoff_done(struct backoff *b);
struct backoff_verdict backoff_after_exit(struct backoff *b, uint64_t now_ms,
                                          enum backoff_life life, uint64_t ready_ms);

#endif
