/* Delays and the budget of exits, by a clock of its own. */
#include "backoff.h"
#include "unit.h"

static struct backoff begin(unsigned exits_max, uint64_t window_ms)
{
    struct backoff b = {
        .min_ms = 1000, .max_ms = 30000, .window_ms = window_ms, .exits_max = exits_max};
    backoff_init(&b);
    return b;
}

static uint64_t delay(struct backoff *b, enum backoff_life life, uint64_t ready_ms)
{
    return backoff_after_exit(b, 1, life, ready_ms).delay_ms;
}

static void a_single_crash_costs_no_wait(void **state)
{
    (void)state;
    struct backoff b = begin(1000, 1);
    assert_int_equal(delay(&b, BACKOFF_WAS_READY, 5), 0);
    assert_int_equal(delay(&b, BACKOFF_WAS_READY, 60000), 0);
    assert_int_equal(delay(&b, BACKOFF_WAS_READY, 60000), 0);
    backoff_done(&b);
}

static void exits_in_a_row_wait_longer_and_longer(void **state)
{
    (void)state;
    static const uint64_t delays[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000};
    struct backoff b = begin(1000, 1);
    for (size_t i = 0; i < ARRAY_LEN(delays); i++)
        assert_int_equal(delay(&b, BACKOFF_NEVER_READY, 0), delays[i]);
    assert_int_equal(delay(&b, BACKOFF_WAS_READY, 59999), 30000); /* too short a life */
    assert_int_equal(delay(&b, BACKOFF_WAS_READY, 60000), 0);
    for (size_t i = 0; i < ARRAY_LEN(delays); i++)
        assert_int_equal(delay(&b, BACKOFF_WAS_READY, 59999), delays[i]);
    backoff_done(&b);
}

static void a_verdict_costs_no_wait(void **state)
{
    (void)state;
    struct backoff b = begin(1000, 1);
    assert_int_equal(delay(&b, BACKOFF_NEVER_READY, 0), 1000);
    assert_int_equal(delay(&b, BACKOFF_CONDEMNED, 10), 0);
    assert_int_equal(delay(&b, BACKOFF_WAS_READY, 10), 2000); /* and ends no row */
    backoff_done(&b);
}

static void the_budget_counts_what_is_in_the_window(void **state)
{
    (void)state;
    struct backoff b = begin(2, 100);
    assert_false(backoff_after_exit(&b, 10, BACKOFF_WAS_READY, 0).too_many);
    assert_false(backoff_after_exit(&b, 50, BACKOFF_CONDEMNED, 0).too_many);
    assert_false(backoff_after_exit(&b, 110, BACKOFF_WAS_READY, 0).too_many); /* 10 is out of it */
    assert_false(backoff_after_exit(&b, 150, BACKOFF_WAS_READY, 0).too_many);
    assert_true(backoff_after_exit(&b, 209, BACKOFF_NEVER_READY, 0).too_many);
    backoff_done(&b);
    b = begin(0, 100);
    assert_true(backoff_after_exit(&b, 10, BACKOFF_WAS_READY, 1000000).too_many);
    backoff_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_single_crash_costs_no_wait),
        cmocka_unit_test(exits_in_a_row_wait_longer_and_longer),
        cmocka_unit_test(a_verdict_costs_no_wait),
        cmocka_unit_test(the_budget_counts_what_is_in_the_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
