/* What is told of an exit. */
#include "ending.h"
#include "unit.h"

#include <signal.h>
#include <stdio.h>

static void the_reason_is_a_sentence(void **state)
{
    (void)state;
    static const struct {
        int code, signal;
        bool was_ready;
        const char *line, *reason;
        bool out_of_memory;
    } cases[] = {
        {1, 0, true, "bye", "ComfyUI exited with code 1", false},
        {0, 0, false, "bye", "ComfyUI exited with code 0 before it had answered", false},
        {0, SIGKILL, true, "", "ComfyUI was killed by signal 9 (often out of memory)", false},
        {0, SIGSEGV, true, "", "ComfyUI was killed by signal 11 (Segmentation fault)", false},
        {0, 34, true, "", "ComfyUI was killed by signal 34", false},
        {127, 0, true, "", "ComfyUI exited with code 127 (its command cannot be executed)", false},
        {1, 0, true, "torch.OutOfMemoryError: CUDA out of memory.",
         "ComfyUI exited with code 1 (out of memory)", true},
        {0, SIGABRT, true, "MemoryError", "ComfyUI was killed by signal 6 (out of memory)", true},
        {0, 0, true, "MemoryError", "ComfyUI exited with code 0", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct ending e;
        ending_init(&e);
        assert_false(e.exit.happened);
        ending_begin(&e);
        ending_add_line(&e, slice_of(cases[i].line));
        ending_seen(&e, cases[i].code, cases[i].signal, ENDING_BY_ITSELF, cases[i].was_ready);
        assert_true(e.exit.happened);
        assert_false(e.exit.condemned);
        assert_string_equal(e.exit.reason, cases[i].reason);
        assert_int_equal(e.exit.out_of_memory, cases[i].out_of_memory);
        assert_int_equal(e.exit.code, cases[i].code);
        assert_int_equal(e.exit.signal, cases[i].signal);
        assert_true(slice_is(e.exit.log_tail, cases[i].line));
        ending_done(&e);
    }
}

static void a_verdict_is_the_reason_whatever_it_died_of(void **state)
{
    (void)state;
    struct ending e;
    ending_init(&e);
    ending_begin(&e);
    ending_add_line(&e, SLICE("CUDA out of memory"));
    ending_condemn(&e, "it stood still");
    assert_true(e.exit.happened && e.exit.condemned);
    assert_int_equal(e.exit.signal, SIGTERM);
    ending_add_line(&e, SLICE("Stopped server"));
    ending_seen(&e, 0, SIGKILL, ENDING_BY_ITSELF, true);
    assert_true(e.exit.condemned);
    assert_false(e.exit.out_of_memory);
    assert_int_equal(e.exit.signal, SIGKILL);
    assert_string_equal(e.exit.reason, "ComfyUI was killed to be started again: it stood still");
    assert_true(slice_is(e.exit.log_tail, "CUDA out of memory\nStopped server"));
    ending_begin(&e); /* the next one's end is no verdict's, and has its own last words */
    ending_seen(&e, 2, 0, ENDING_BY_US, true);
    assert_false(e.exit.condemned);
    assert_string_equal(e.exit.reason, "ComfyUI was stopped");
    assert_int_equal(e.exit.log_tail.len, 0);
    ending_done(&e);
}

static void the_last_lines_are_kept_and_bounded(void **state)
{
    (void)state;
    struct ending e;
    static char big[2 * ENDING_LINE_MAX];
    char text[16];
    ending_init(&e);
    ending_begin(&e);
    for (int i = 0; i < 100; i++) {
        (void)snprintf(text, sizeof(text), "line %d", i);
        ending_add_line(&e, slice_of(text));
    }
    memset(big, 'x', sizeof(big));
    ending_add_line(&e, (struct slice){big, sizeof(big)});
    ending_seen(&e, 1, 0, ENDING_BY_ITSELF, true);
    assert_true(slice_starts(e.exit.log_tail, SLICE("line 81\nline 82\n")));
    assert_int_equal(e.exit.log_tail.len, 19 * strlen("line 81\n") + ENDING_LINE_MAX);
    ending_done(&e);
}

static void the_kernels_count_is_read(void **state)
{
    (void)state;
    assert_int_equal(
        ending_oom_kills(SLICE("low 0\nhigh 0\nmax 7\noom 4\noom_kill 3\noom_group_kill 0\n")), 3);
    assert_int_equal(ending_oom_kills(SLICE("oom_kill_disable 0\nunder_oom 0\noom_kill 12")), 12);
    assert_int_equal(ending_oom_kills(SLICE("oom 4\noom_kill x\n")), 0);
    assert_int_equal(ending_oom_kills(SLICE_EMPTY), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reason_is_a_sentence),
        cmocka_unit_test(a_verdict_is_the_reason_whatever_it_died_of),
        cmocka_unit_test(the_last_lines_are_kept_and_bounded),
        cmocka_unit_test(the_kernels_count_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
