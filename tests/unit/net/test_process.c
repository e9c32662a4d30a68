/* A child from its start to its end: how it ended is told exactly, its output is drained whatever
 * it does, and nobody of it outlives its end or ours. The guard is this very program. */
#include "loop_fixture.h"
#include "proc_table.h"
#include "process.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct child {
    struct loop_fixture f;
    struct process *p;
    bool printed, exited, freed, group_gone;
    bool free_on_line, free_on_exit;
    int code, signal;
    unsigned lines, excess, freed_at_lines;
    const char *awaited; /* `printed` is set by a line that begins so */
    struct buf out;      /* lines, '|' behind each */
};

static void set_flag(void *ctx)
{
    *(bool *)ctx = true;
}

static void on_line(struct process *p, struct slice line)
{
    struct child *c = process_ctx(p);
    assert_false(c->exited);
    assert_true(line.len <= PROCESS_LINE_MAX);
    c->lines++;
    if (c->out.len < 65536) {
        buf_add(&c->out, line);
        buf_adds(&c->out, "|");
    }
    if (c->awaited == NULL || slice_starts(line, slice_of(c->awaited)))
        c->printed = true;
    if (c->free_on_line && c->printed) {
        c->free_on_line = false;
        c->freed_at_lines = c->lines;
        process_free(p, set_flag, &c->freed);
    }
}

static void on_excess(struct process *p, struct slice line)
{
    struct child *c = process_ctx(p);
    (void)line;
    c->excess++;
}

static void on_exit_(struct process *p, int code, int signum, bool group_gone)
{
    struct child *c = process_ctx(p);
    assert_false(c->exited);
    assert_int_equal(process_pid(p), 0);
    c->exited = true;
    c->code = code;
    c->signal = signum;
    c->group_gone = group_gone;
    if (c->free_on_exit)
        process_free(p, set_flag, &c->freed);
}

static void child_new(struct child *c, char *const *argv, char *const *env)
{
    struct process_options options = {.argv = argv,
                                      .env = env,
                                      .on_line = on_line,
                                      .on_excess = on_excess,
                                      .on_exit = on_exit_,
                                      .ctx = c};
    *c = (struct child){.awaited = NULL};
    buf_init(&c->out, SIZE_MAX);
    loop_fixture_open(&c->f);
    c->p = process_new(&c->f.loop, &options);
}

static void child_start(struct child *c, const char *script)
{
    char sh[] = "/bin/sh", option[] = "-c", *text = xstrdup(script);
    char *argv[] = {sh, option, text, NULL};
    child_new(c, argv, NULL);
    assert_int_equal(process_start(c->p, NULL), ERR_OK);
    free(text);
}

static void child_end(struct child *c)
{
    if (!c->free_on_exit && !c->freed)
        process_free(c->p, set_flag, &c->freed);
    loop_run_until(&c->f, &c->freed, "the process to be freed");
    loop_fixture_close(&c->f);
    buf_done(&c->out);
}

static void child_run(struct child *c, const char *script)
{
    child_start(c, script);
    loop_run_until(&c->f, &c->exited, script);
}

static bool is_living_pid(const struct proc_entry *entry, void *ctx)
{
    int *pid = ctx;
    if (entry->pid == *pid && !entry->is_dead)
        *pid = 0; /* found */
    return *pid != 0;
}

/* A zombie is not: how soon init waits for it is not ours to say. */
static bool is_alive(int pid)
{
    proc_table_walk(is_living_pid, &pid);
    return pid == 0;
}

static bool exists(int pid)
{
    return kill(pid, 0) == 0;
}

/* A pid that the child printed with its last line, when that line has come. */
static int pid_in(const struct child *c)
{
    const char *at = strstr(c->out.ptr, "pid ");
    assert_non_null(at);
    return (int)strtol(at + 4, NULL, 10);
}

static void wait_until_dead(int pid)
{
    uint64_t end = clock_mono_ms() + 20000;
    while (is_alive(pid) && clock_mono_ms() < end)
        (void)usleep(1000);
    assert_false(is_alive(pid));
}

/* --- how it ended ---------------------------------------------------------------------------- */

static void each_code_is_told(void **state)
{
    (void)state;
    static const int codes[] = {0, 1, 2, 63, 64, 126, 127, 128, 137, 254, 255};
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        struct child c;
        char script[32];
        (void)snprintf(script, sizeof(script), "exit %d", codes[i]);
        child_run(&c, script);
        assert_int_equal(c.code, codes[i]);
        assert_int_equal(c.signal, 0);
        assert_true(c.group_gone);
        child_end(&c);
    }
}

static void each_signal_is_told(void **state)
{
    (void)state;
    static const int signums[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGILL,  SIGABRT, SIGBUS, SIGFPE,
                                  SIGKILL, SIGUSR1, SIGSEGV, SIGPIPE, SIGALRM, SIGTERM};
    for (size_t i = 0; i < ARRAY_LEN(signums); i++) {
        struct child c;
        char script[48];
        (void)snprintf(script, sizeof(script), "ulimit -c 0; kill -%d $$; sleep 30", signums[i]);
        child_run(&c, script);
        assert_int_equal(c.signal, signums[i]);
        assert_int_equal(c.code, 0);
        child_end(&c);
    }
}

static void a_signal_of_ours_reaches_it(void **state)
{
    (void)state;
    struct child c;
    child_start(&c, "echo up; sleep 30");
    loop_run_until(&c.f, &c.printed, "the child to be up");
    for (unsigned ms = 0; ms < 10000 && process_pid(c.p) == 0; ms++)
        loop_run_for(&c.f, 1); /* its guard's word may come behind its own */
    assert_true(process_pid(c.p) > 0);
    assert_int_equal(getpgid(process_pid(c.p)), process_pid(c.p));
    assert_int_equal(getsid(process_pid(c.p)), process_pid(c.p));
    process_signal(c.p, SIGTERM);
    loop_run_until(&c.f, &c.exited, "the child to be terminated");
    assert_int_equal(c.signal, SIGTERM);
    process_signal(c.p, SIGTERM); /* nobody's */
    child_end(&c);
}

static void a_signal_right_after_the_start_is_not_lost(void **state)
{
    (void)state;
    struct child c;
    child_start(&c, "sleep 30");
    process_signal(c.p, SIGKILL);
    loop_run_until(&c.f, &c.exited, "the child to be killed");
    assert_int_equal(c.signal, SIGKILL);
    child_end(&c);
}

static void a_stopped_child_hears_term(void **state)
{
    (void)state;
    struct child c;
    child_start(&c, "trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done");
    loop_run_until(&c.f, &c.printed, "the child to be up");
    process_signal(c.p, SIGSTOP);
    loop_run_for(&c.f, 20);
    process_signal(c.p, SIGTERM);
    loop_run_until(&c.f, &c.exited, "the stopped child to end");
    assert_int_equal(c.code, 7);
    child_end(&c);
}

static void what_cannot_be_executed_ends_as_in_a_shell(void **state)
{
    (void)state;
    char missing[] = "/nonexistent/program", directory[] = "/tmp";
    char *const argvs[][2] = {{missing, NULL}, {directory, NULL}};
    static const int codes[] = {127, 126};
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        struct child c;
        child_new(&c, argvs[i], NULL);
        assert_int_equal(process_start(c.p, NULL), ERR_OK);
        loop_run_until(&c.f, &c.exited, "the failed execution");
        assert_int_equal(c.code, codes[i]);
        assert_non_null(strstr(c.out.ptr, "cannot execute"));
        child_end(&c);
    }
}

static void a_guard_that_cannot_be_started_is_an_error(void **state)
{
    (void)state;
    struct child c;
    struct err err;
    char *big = xmalloc(8u << 20); /* more than any exec takes */
    char sh[] = "/bin/sh";
    memset(big, 'x', (8u << 20) - 1);
    big[(8u << 20) - 1] = '\0';
    char *argv[] = {sh, big, NULL};
    child_new(&c, argv, NULL);
    assert_int_equal(process_start(c.p, &err), ERR_IO);
    assert_non_null(strstr(err.msg, "cannot be started"));
    child_end(&c);
    free(big);
}

/* --- what it is given ------------------------------------------------------------------------ */

static void arguments_and_environment_are_untouched(void **state)
{
    (void)state;
    struct child c;
    char sh[] = "sh", option[] = "-c", text[] = "echo \"$0,$1,$2,$ONLY,${HOME-none}\"";
    char first[] = "a b", second[] = "", third[] = "--guard-of-a-child";
    char only[] = "ONLY=x=y z", path[] = "PATH=/usr/bin:/bin";
    char *argv[] = {sh, option, text, first, second, third, NULL};
    char *env[] = {only, path, NULL};
    child_new(&c, argv, env);
    assert_int_equal(process_start(c.p, NULL), ERR_OK);
    loop_run_until(&c.f, &c.exited, "the child to end");
    assert_string_equal(c.out.ptr, "a b,,--guard-of-a-child,x=y z,none|");
    child_end(&c);
}

static void it_gets_three_descriptors_and_no_more(void **state)
{
    (void)state;
    struct child c;
    int leak = open("/dev/null", O_RDONLY); /* without O_CLOEXEC, as others do */
    /* ls itself opens the directory: that is its fourth */
    child_run(&c, "exec ls -l /proc/self/fd | sed -n 's/.* \\([0-9]*\\) -> /\\1 /p'");
    assert_non_null(strstr(c.out.ptr, "0 /dev/null|"));
    assert_non_null(strstr(c.out.ptr, "2 pipe:"));
    assert_int_equal(c.lines, 4);
    child_end(&c);
    (void)close(leak);
}

/* --- output ---------------------------------------------------------------------------------- */

static void last_words_come_before_the_exit(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        struct child c;
        child_run(&c, "echo out; echo err >&2; printf 'no end'; exit 3");
        assert_int_equal(c.lines, 3);
        assert_non_null(strstr(c.out.ptr, "err|"));
        assert_non_null(strstr(c.out.ptr, "no end|"));
        child_end(&c);
    }
}

static void both_outputs_are_read_and_progress_rows_do_no_harm(void **state)
{
    (void)state;
    struct child c;
    child_run(&c, "for i in 1 2 3 4 5 6 7 8 9; do printf '\\r%s0%%' $i >&2; done; echo >&2");
    assert_true(c.lines <= 2); /* two if the machine stood still for long */
    assert_non_null(strstr(c.out.ptr, "90%|"));
    child_end(&c);
}

static void a_row_is_handed_on_while_the_bar_stands(void **state)
{
    (void)state;
    struct child c;
    child_start(&c, "printf '40%%\\r'; sleep 30");
    c.awaited = "40%";
    loop_run_until(&c.f, &c.printed, "the row");
    assert_false(c.exited);
    child_end(&c);
}

static void a_flood_is_drained_bounded_and_counted(void **state)
{
    (void)state;
    struct child c;
    unsigned dropped = 0;
    uint64_t begin = clock_mono_ms();
    child_run(&c, "seq 200000; echo last >&2");
    uint64_t windows = (clock_mono_ms() - begin) / 1000 + 2;
    assert_int_equal(c.code, 0);
    assert_true(c.excess > 0);
    assert_true(c.lines <= windows * (PROCESS_LINES_PER_S + 1));
    const char *at = c.out.ptr;
    while ((at = strstr(at, "|(")) != NULL)
        dropped += (unsigned)strtoul(at + 2, NULL, 10), at++;
    assert_int_equal(dropped, c.excess);
    /* 200,001 lines were printed; lines about lines come on top */
    assert_true(c.lines + c.excess >= 200002);
    assert_true(c.lines + c.excess <= 200001 + windows);
    child_end(&c);
}

static void a_line_without_end_fills_nothing(void **state)
{
    (void)state;
    struct child c;
    child_run(&c, "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo after");
    assert_int_equal(c.lines, 2);
    assert_int_equal(c.out.len, PROCESS_LINE_MAX + strlen("|after|"));
    child_end(&c);
}

static void closed_output_is_no_exit(void **state)
{
    (void)state;
    struct child c;
    child_start(&c, "echo up; exec >&- 2>&-; sleep 0.05; exit 9");
    loop_run_until(&c.f, &c.exited, "the exit");
    assert_int_equal(c.code, 9);
    child_end(&c);
}

/* --- descendants ----------------------------------------------------------------------------- */

static void a_grandchild_with_the_pipe_does_not_delay_the_exit(void **state)
{
    (void)state;
    struct child c;
    uint64_t begin = clock_mono_ms();
    child_run(&c, "sleep 60 & echo pid $!; exit 5");
    assert_int_equal(c.code, 5);
    assert_true(c.group_gone);
    assert_false(is_alive(pid_in(&c)));
    assert_true(clock_mono_ms() - begin < PROCESS_GONE_MS);
    child_end(&c);
}

static void whoever_left_the_group_is_killed_too(void **state)
{
    (void)state;
    struct child c;
    child_run(&c, "setsid sh -c 'trap \"\" HUP TERM INT; echo pid $$; exec sleep 60' & sleep 0.05");
    assert_true(c.group_gone);
    assert_false(is_alive(pid_in(&c)));
    child_end(&c);
}

static void orphans_of_a_living_child_are_reaped(void **state)
{
    (void)state;
    struct child c;
    child_start(&c, "(sh -c 'echo pid $$' &); sleep 0.05; echo up; sleep 30");
    c.awaited = "up";
    loop_run_until(&c.f, &c.printed, "the child to be up");
    uint64_t end = clock_mono_ms() + 20000;
    while (exists(pid_in(&c)) && clock_mono_ms() < end)
        (void)usleep(1000);
    assert_false(exists(pid_in(&c)));
    child_end(&c);
}

static void a_killed_guard_takes_the_group_with_it(void **state)
{
    (void)state;
    struct child c;
    child_start(&c, "sleep 60 & echo pid $! guard $PPID; sleep 60");
    loop_run_until(&c.f, &c.printed, "the child to be up");
    int guard = (int)strtol(strstr(c.out.ptr, "guard ") + 6, NULL, 10);
    assert_int_equal(kill(guard, SIGKILL), 0);
    loop_run_until(&c.f, &c.exited, "the end without a guard");
    assert_int_equal(c.signal, SIGKILL);
    assert_true(c.group_gone);
    assert_false(is_alive(pid_in(&c)));
    child_end(&c);
}

/* --- our own death --------------------------------------------------------------------------- */

/* In a fork: starts a child with grandchildren, prints the pids, and waits to be killed. */
static void run_doomed_owner(int out, bool at_once)
{
    struct child c;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody either */
    child_start(&c, "setsid sleep 60 & A=$!; sleep 60 & echo pid $PPID $$ $! $A; "
                    "trap '' TERM INT HUP; wait; wait");
    if (at_once) /* the guard may not even have begun */
        (void)raise(SIGKILL);
    loop_run_until(&c.f, &c.printed, "the child to be up");
    if (write(out, c.out.ptr, c.out.len) < 0)
        _exit(1);
    loop_run_for(&c.f, 60000);
    _exit(1);
}

struct doomed {
    pid_t owner;
    int guard, command, grandchild, escapee;
};

static struct doomed doomed_start(void)
{
    int fds[2];
    char text[128] = "";
    struct doomed d;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    d.owner = fork();
    if (d.owner == 0)
        run_doomed_owner(fds[1], false);
    assert_true(read(fds[0], text, sizeof(text) - 1) > 0);
    assert_int_equal(
        sscanf(text, "pid %d %d %d %d", &d.guard, &d.command, &d.grandchild, &d.escapee), 4);
    assert_true(is_alive(d.guard) && is_alive(d.command) && is_alive(d.grandchild));
    (void)close(fds[0]);
    (void)close(fds[1]);
    return d;
}

static void no_orphan_outlives_us(void **state)
{
    (void)state;
    struct doomed d = doomed_start();
    assert_int_equal(kill(d.owner, SIGKILL), 0);
    assert_int_equal(waitpid(d.owner, NULL, 0), d.owner);
    wait_until_dead(d.command);
    wait_until_dead(d.grandchild);
    wait_until_dead(d.escapee);
    wait_until_dead(d.guard);
}

/* Killed together with its program, the guard cannot see to anything any more, and a program that
 * stands still neither: the command has its own death signal. */
static void the_command_does_not_outlive_its_guard(void **state)
{
    (void)state;
    struct doomed d = doomed_start();
    assert_int_equal(kill(d.owner, SIGSTOP), 0);
    assert_int_equal(kill(d.guard, SIGKILL), 0);
    wait_until_dead(d.command);
    assert_int_equal(kill(d.owner, SIGKILL), 0);
    assert_int_equal(waitpid(d.owner, NULL, 0), d.owner);
    assert_int_equal(kill(d.grandchild, SIGKILL), 0);
    assert_int_equal(kill(d.escapee, SIGKILL), 0);
}

/* We are the subreaper here, so that we see whoever is left. */
static void no_orphan_outlives_us_at_any_moment(void **state)
{
    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    for (int i = 0; i < 5; i++) {
        pid_t owner = fork();
        if (owner == 0)
            run_doomed_owner(-1, true);
        assert_int_equal(waitpid(owner, NULL, 0), owner);
    }
    uint64_t end = clock_mono_ms() + 20000;
    while (waitpid(-1, NULL, WNOHANG) >= 0 && clock_mono_ms() < end)
        (void)usleep(1000);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

/* --- life ------------------------------------------------------------------------------------ */

static void it_can_be_freed_before_and_during_its_life(void **state)
{
    (void)state;
    struct child c;
    char no[] = "/bin/false", *argv[] = {no, NULL};
    child_new(&c, argv, NULL);
    child_end(&c);

    child_start(&c, "sleep 60");
    child_end(&c);
    assert_false(c.exited);

    child_start(&c, "sleep 60 & echo pid $!; sleep 60");
    loop_run_until(&c.f, &c.printed, "the child to be up");
    int pid = pid_in(&c);
    child_end(&c);
    assert_false(c.exited);
    wait_until_dead(pid);
}

static void it_can_be_freed_in_each_callback(void **state)
{
    (void)state;
    struct child c;
    child_start(&c, "echo 1; echo 2; echo 3; sleep 60");
    c.free_on_line = true;
    loop_run_until(&c.f, &c.freed, "the end that on_line began");
    assert_int_equal(c.lines, c.freed_at_lines);
    assert_false(c.exited);
    child_end(&c);

    child_start(&c, "echo 1; echo last");
    c.awaited = "last"; /* may be read when the exit is known already */
    c.free_on_line = true;
    loop_run_until(&c.f, &c.freed, "the end that the last line began");
    assert_int_equal(c.lines, c.freed_at_lines);
    child_end(&c);

    child_start(&c, "exit 4");
    c.free_on_exit = true;
    loop_run_until(&c.f, &c.exited, "the exit");
    child_end(&c);
}

/* --- orphans that are not of any child of ours ----------------------------------------------- */

static void orphans_are_reaped_and_libuvs_children_are_not(void **state)
{
    (void)state;
    struct child c;
    bool stopped = false;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    child_start(&c, "sleep 0.03; exit 6");
    process_reap_start(&c.f.loop);
    pid_t orphans[20];
    for (size_t i = 0; i < ARRAY_LEN(orphans); i++) {
        orphans[i] = fork();
        if (orphans[i] == 0) {
            (void)usleep((useconds_t)i * 2000);
            _exit(0);
        }
    }
    loop_run_until(&c.f, &c.exited, "the exit that is libuv's to see");
    assert_int_equal(c.code, 6);
    assert_true(c.group_gone);
    uint64_t end = clock_mono_ms() + 20000;
    for (size_t i = 0; i < ARRAY_LEN(orphans); i++) {
        while (exists(orphans[i]) && clock_mono_ms() < end)
            loop_run_for(&c.f, 5);
        assert_false(exists(orphans[i]));
    }
    process_reap_stop(set_flag, &stopped);
    loop_run_until(&c.f, &stopped, "the reaper to stop");
    child_end(&c);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

int main(int argc, char **argv)
{
    process_guard_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_code_is_told),
        cmocka_unit_test(each_signal_is_told),
        cmocka_unit_test(a_signal_of_ours_reaches_it),
        cmocka_unit_test(a_signal_right_after_the_start_is_not_lost),
        cmocka_unit_test(a_stopped_child_hears_term),
        cmocka_unit_test(what_cannot_be_executed_ends_as_in_a_shell),
        cmocka_unit_test(a_guard_that_cannot_be_started_is_an_error),
        cmocka_unit_test(arguments_and_environment_are_untouched),
        cmocka_unit_test(it_gets_three_descriptors_and_no_more),
        cmocka_unit_test(last_words_come_before_the_exit),
        cmocka_unit_test(both_outputs_are_read_and_progress_rows_do_no_harm),
        cmocka_unit_test(a_row_is_handed_on_while_the_bar_stands),
        cmocka_unit_test(a_flood_is_drained_bounded_and_counted),
        cmocka_unit_test(a_line_without_end_fills_nothing),
        cmocka_unit_test(closed_output_is_no_exit),
        cmocka_unit_test(a_grandchild_with_the_pipe_does_not_delay_the_exit),
        cmocka_unit_test(whoever_left_the_group_is_killed_too),
        cmocka_unit_test(orphans_of_a_living_child_are_reaped),
        cmocka_unit_test(a_killed_guard_takes_the_group_with_it),
        cmocka_unit_test(no_orphan_outlives_us),
        cmocka_unit_test(the_command_does_not_outlive_its_guard),
        cmocka_unit_test(no_orphan_outlives_us_at_any_moment),
        cmocka_unit_test(it_can_be_freed_before_and_during_its_life),
        cmocka_unit_test(it_can_be_freed_in_each_callback),
        cmocka_unit_test(orphans_are_reaped_and_libuvs_children_are_not),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
