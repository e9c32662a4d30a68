/* Notices that the program did not run for a while: a function instance is frozen between requests,
 * SIGSTOP, a starved machine. Nobody had that time to answer in, so nothing is over because of it:
 *
 * - every timer of the loop is put off by the gap, as if the clock had stood still too. What was
 * due in the meantime does not come in one burst, and what has lasted 3 s of its 10 has 7 left;
 * - then `thawed` tells the owner, who puts off what it reckons by clocks of its own and drops what
 *   has aged for real: sockets that wait unused in pools.
 *
 * Noticed after the loop has slept, before any timer runs. How long it meant to sleep is known;
 * what is longer by PAUSE_LEAST_MS is a gap. A wall clock that leaps ahead of the monotonic one is
 * a gap too, of length 0: a machine that was put to sleep. */
#ifndef PAUSE_H
#define PAUSE_H

#include "base.h"

#include <uv.h>

enum { PAUSE_LEAST_MS = 1000, PAUSE_BEAT_MS = 1000 };

struct pause {
    uv_prepare_t before; /* the loop sleeps between these two */
    uv_check_t after;
    uv_timer_t beat; /* no sleep is endless, so none can hide a gap */
    unsigned open_handles;
    uint64_t least_ms;
    uint64_t looked_at, looked_wall; /* ms, at the end of the last look */
    uint64_t may_take_ms;            /* from then to the next look */
    void (*thawed)(struct pause *p, uint64_t gap_ms);
    void (*closed)(struct pause *p);
};

/* From the loop's next turn on. The loop is kept alive until pause_close(). */
void pause_start(struct pause *p, uv_loop_t *loop, uint64_t least_ms,
                 void (*thawed)(struct pause *p, uint64_t gap_ms));
/* `closed` (NULL allowed) comes from the loop. */
void pause_close(struct pause *p, void (*closed)(struct pause *p));

#endif
