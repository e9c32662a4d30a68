#include "loop_fixture.h"

#include <stdio.h>
#include <stdlib.h>

enum { RUN_CAP_MS = 50000 };

static void on_tick(uv_timer_t *timer)
{
    (void)timer; /* its only purpose is to end uv_run's sleep */
}

void loop_fixture_open(struct loop_fixture *f)
{
    ASSERT(uv_loop_init(&f->loop) == 0);
    later_init(&f->later, &f->loop);
}

void loop_fixture_close(struct loop_fixture *f)
{
    later_close(&f->later, NULL);
    uint64_t end = clock_mono_ms() + RUN_CAP_MS;
    while (uv_run(&f->loop, UV_RUN_NOWAIT) != 0 && clock_mono_ms() < end)
        ;
    if (uv_loop_close(&f->loop) != 0) {
        uv_print_all_handles(&f->loop, stderr);
        abort();
    }
}

static void run(struct loop_fixture *f, const bool *flag, uint64_t cap_ms)
{
    uv_timer_t tick;
    uint64_t end = clock_mono_ms() + cap_ms;
    ASSERT(uv_timer_init(&f->loop, &tick) == 0);
    ASSERT(uv_timer_start(&tick, on_tick, 10, 10) == 0);
    while (!(flag != NULL && *flag) && clock_mono_ms() < end)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    (void)uv_run(&f->loop, UV_RUN_NOWAIT); /* the timer's memory ends with this function */
}

void loop_run_until(struct loop_fixture *f, const bool *flag, const char *what)
{
    run(f, flag, RUN_CAP_MS);
    if (!*flag) {
        (void)fprintf(stderr, "waited in vain for: %s\n", what);
        uv_print_active_handles(&f->loop, stderr);
        abort();
    }
}

void loop_run_for(struct loop_fixture *f, uint64_t ms)
{
    run(f, NULL, ms);
}
