/* Gaps: seen, told with their length, and no timer feels them. */
#include "loop_fixture.h"
#include "pause.h"
#include "unit.h"

#include <time.h>

enum { LEAST_MS = 100, GAP_MS = PAUSE_BEAT_MS + 300, TIMER_MS = 150 };

static struct loop_fixture f;
static struct pause p;
static bool thawed, fired, closed;
static unsigned thaws;
static uint64_t told_gap_ms, fired_at;
static uv_timer_t timer;

static void on_thawed(struct pause *which, uint64_t gap_ms)
{
    assert_ptr_equal(which, &p);
    assert_false(fired);
    thawed = true;
    thaws++;
    told_gap_ms = gap_ms;
}

static void on_fired(uv_timer_t *which)
{
    (void)which;
    fired = true;
    fired_at = clock_mono_ms();
}

static void on_closed(struct pause *which)
{
    (void)which;
    closed = true;
}

static int open_all(void **state)
{
    (void)state;
    loop_fixture_open(&f);
    thawed = fired = closed = false;
    thaws = 0;
    pause_start(&p, &f.loop, LEAST_MS, on_thawed);
    assert_int_equal(uv_timer_init(&f.loop, &timer), 0);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    uv_close((uv_handle_t *)&timer, NULL);
    pause_close(&p, on_closed);
    assert_false(closed);
    loop_run_until(&f, &closed, "the pause's end");
    loop_fixture_close(&f);
    return 0;
}

static void freeze(void)
{
    const struct timespec gap = {GAP_MS / 1000, GAP_MS % 1000 * 1000000L};
    (void)nanosleep(&gap, NULL);
}

/* Before the loop sleeps and, later in the same turn, when it has slept. */
static void on_prepare(uv_prepare_t *prepare)
{
    (void)uv_prepare_stop(prepare);
    freeze();
}

static void on_check(uv_check_t *check)
{
    (void)uv_check_stop(check);
    freeze();
}

static void a_gap_is_told_and_puts_timers_off(void **state)
{
    (void)state;
    static uv_prepare_t prepare; /* until the loop has closed it */
    loop_run_for(&f, 1);
    assert_int_equal(uv_prepare_init(&f.loop, &prepare), 0);
    assert_int_equal(uv_prepare_start(&prepare, on_prepare), 0);
    assert_int_equal(uv_timer_start(&timer, on_fired, TIMER_MS, 0), 0);
    uint64_t began = clock_mono_ms();
    loop_run_until(&f, &thawed, "the thaw");
    assert_in_range(told_gap_ms, GAP_MS - 5, 20 * GAP_MS);
    loop_run_until(&f, &fired, "the timer");
    assert_true(fired_at - began >= TIMER_MS + told_gap_ms - 5);
    uv_close((uv_handle_t *)&prepare, NULL);
}

/* The last started is the first to be called: the gap is behind "how long may I sleep" and before
 * the look that follows. */
static void a_gap_while_asleep_does_not_count_the_sleep(void **state)
{
    (void)state;
    static uv_check_t check;
    loop_run_for(&f, 1);
    assert_int_equal(uv_check_init(&f.loop, &check), 0);
    assert_int_equal(uv_check_start(&check, on_check), 0);
    assert_int_equal(uv_timer_start(&timer, on_fired, TIMER_MS, 0), 0);
    uint64_t began = clock_mono_ms();
    loop_run_until(&f, &thawed, "the thaw");
    assert_in_range(told_gap_ms, LEAST_MS, 20 * GAP_MS);
    loop_run_until(&f, &fired, "the timer");
    assert_true(fired_at - began >= TIMER_MS + told_gap_ms - 5);
    uv_close((uv_handle_t *)&check, NULL);
}

static void a_gap_in_a_callback_counts_too(void **state)
{
    (void)state;
    loop_run_for(&f, 1);
    freeze();
    loop_run_until(&f, &thawed, "the thaw");
    assert_in_range(told_gap_ms, LEAST_MS, 20 * GAP_MS);
}

static void what_came_before_the_loop_is_no_gap(void **state)
{
    (void)state;
    assert_int_equal(uv_timer_start(&timer, on_fired, 1, 0), 0);
    freeze();
    loop_run_until(&f, &fired, "the timer");
    assert_false(thawed);
}

static void sleep_is_no_gap(void **state)
{
    (void)state;
    assert_int_equal(uv_timer_start(&timer, on_fired, 2 * LEAST_MS, 0), 0);
    while (!fired && thaws == 0) /* the fixture's own loop never sleeps for long */
        (void)uv_run(&f.loop, UV_RUN_ONCE);
    assert_int_equal(thaws, 0);
}

/* The machine slept, and the monotonic clock with it. */
static void a_leap_of_the_wall_clock_is_a_gap_of_nothing(void **state)
{
    (void)state;
    loop_run_for(&f, 1);
    p.looked_wall -= 3600000;
    loop_run_until(&f, &thawed, "the thaw");
    assert_int_equal(told_gap_ms, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_gap_is_told_and_puts_timers_off, open_all, close_all),
        cmocka_unit_test_setup_teardown(a_gap_while_asleep_does_not_count_the_sleep, open_all,
                                        close_all),
        cmocka_unit_test_setup_teardown(a_gap_in_a_callback_counts_too, open_all, close_all),
        cmocka_unit_test_setup_teardown(what_came_before_the_loop_is_no_gap, open_all, close_all),
        cmocka_unit_test_setup_teardown(sleep_is_no_gap, open_all, close_all),
        cmocka_unit_test_setup_teardown(a_leap_of_the_wall_clock_is_a_gap_of_nothing, open_all,
                                        close_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
