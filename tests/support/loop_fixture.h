/* A loop for one test: run it until something holds, with a cap, and at the end require that
 * nothing was left open. */
#ifndef LOOP_FIXTURE_H
#define LOOP_FIXTURE_H

#include "base.h"
#include "later.h"

struct loop_fixture {
    uv_loop_t loop;
    struct later later;
};

void loop_fixture_open(struct loop_fixture *f);
/* Closes `later`, runs the loop empty and aborts with a list of handles if one is left. */
void loop_fixture_close(struct loop_fixture *f);
/* Turns the loop until *flag is not 0; aborts with `what` after 10 s (times 5 under sanitizers). */
void loop_run_until(struct loop_fixture *f, const bool *flag, const char *what);
/* Turns the loop for so long. Only for "nothing happens": everything else is awaited. */
void loop_run_for(struct loop_fixture *f, uint64_t ms);

#endif
