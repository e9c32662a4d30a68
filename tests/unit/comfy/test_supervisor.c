/* The supervisor with real processes: this very program plays the guard and ComfyUI. What takes
 * time is awaited; a delay that must not happen is set so long that the test would end first. */
#include "loop_fixture.h"
#include "process.h"
#include "supervisor.h"
#include "unit.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NEVER_MS = 100000 };

/* --- ComfyUI, played ------------------------------------------------------------------------- */

static int listen_on(unsigned port)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 64) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

static void answer(int fd, const char *status)
{
    static const char body[] = "{\"system\": {\"comfyui_version\": \"0.3.40\", \"ram\": NaN}}";
    char text[2048];
    ssize_t n = recv(fd, text, sizeof(text), 0);
    if (n > 0) {
        int len = snprintf(text, sizeof(text),
                           "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                           status, strlen(body), body);
        n = send(fd, text, (size_t)len, MSG_NOSIGNAL);
    }
    (void)close(fd);
}

static void serve(unsigned port, const char *status, uint64_t ms)
{
    int fd = listen_on(port);
    uint64_t end = clock_mono_ms() + ms;
    if (fd < 0)
        _exit(98);
    (void)fprintf(stderr, "listening %llu\n", (unsigned long long)clock_mono_ms());
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    while (clock_mono_ms() < end) {
        if (poll(&wait, 1, 5) > 0)
            answer(accept(fd, NULL, NULL), status);
    }
    (void)close(fd);
}

/* "fake" PORT and what to do, word by word. */
static void play_comfyui(int argc, char **argv)
{
    if (argc < 3 || strcmp(argv[1], "fake") != 0)
        return;
    unsigned port = (unsigned)strtoul(argv[2], NULL, 10);
    for (int i = 3; i < argc; i++) {
        char *word = argv[i], *colon = strchr(word, ':');
        unsigned long n = colon != NULL ? strtoul(colon + 1, NULL, 10) : NEVER_MS;
        if (strncmp(word, "print", 5) == 0)
            (void)fprintf(stderr, "%s\n", colon + 1);
        else if (strncmp(word, "sleep", 5) == 0)
            (void)usleep((useconds_t)n * 1000);
        else if (strncmp(word, "serve", 5) == 0)
            serve(port, "200 OK", n);
        else if (strncmp(word, "busy", 4) == 0)
            serve(port, "503 Service Unavailable", n);
        else if (strcmp(word, "deaf") == 0)
            (void)signal(SIGINT, SIG_IGN), (void)signal(SIGTERM, SIG_IGN);
        else if (strncmp(word, "exit", 4) == 0)
            _exit((int)n);
    }
    _exit(0);
}

/* --- one supervisor -------------------------------------------------------------------------- */

struct owner {
    struct loop_fixture f;
    struct supervisor *s;
    char port_text[8];
    char *argv[12];
    enum supervisor_state told; /* by on_state */
    struct buf story;           /* the states told, in order */
    unsigned awaited_generation;
    enum supervisor_state awaited;
    bool there, freed, condemn_dead_worker, condemned;
    unsigned workers_dead;
    uint64_t told_at;
};

static void look(struct owner *o)
{
    o->there = o->told == o->awaited && supervisor_generation(o->s) >= o->awaited_generation;
}

static void on_state(struct supervisor *s, enum supervisor_state now, enum supervisor_state before)
{
    struct owner *o = supervisor_ctx(s);
    assert_int_equal(before, o->told);
    o->told = now;
    o->told_at = clock_mono_ms();
    buf_addf(&o->story, "%s ", supervisor_state_name(now));
    look(o);
}

static void on_worker_dead(struct supervisor *s)
{
    struct owner *o = supervisor_ctx(s);
    o->workers_dead++;
    if (!o->condemn_dead_worker)
        return;
    o->condemn_dead_worker = false;
    o->condemned = true;
    supervisor_condemn(s, "its worker is dead");
    assert_int_equal(supervisor_state(s), SUPERVISOR_BACKOFF);
}

/* Below the range that the kernel gives to those who connect. */
static unsigned free_port(void)
{
    static unsigned next;
    if (next == 0)
        next = (unsigned)getpid() % 10000;
    for (;;) {
        unsigned port = 20000 + next++ % 10000;
        int fd = listen_on(port);
        if (fd < 0)
            continue;
        (void)close(fd);
        return port;
    }
}

/* Words are separated by spaces; a '~' in one stands for one. NULL: attach. */
static struct supervisor_options owner_prepare(struct owner *o, char *words)
{
    static char self[] = "/proc/self/exe", fake[] = "fake";
    unsigned port = free_port();
    *o = (struct owner){.argv = {self, fake, o->port_text}};
    (void)snprintf(o->port_text, sizeof(o->port_text), "%u", port);
    size_t n = 3;
    for (char *word = words; word != NULL && *word != '\0'; n++) {
        o->argv[n] = word;
        size_t len = strcspn(word, " ");
        word += len + (word[len] != '\0' ? 1 : 0);
        o->argv[n][len] = '\0';
        for (char *at = o->argv[n]; *at != '\0'; at++)
            *at = *at == '~' ? ' ' : *at;
    }
    buf_init(&o->story, SIZE_MAX);
    buf_adds(&o->story, "");
    loop_fixture_open(&o->f);
    struct supervisor_options options = {SUPERVISOR_DEFAULTS,
                                         .argv = words != NULL ? o->argv : NULL,
                                         .host = "127.0.0.1",
                                         .port = port,
                                         .on_state = on_state,
                                         .on_worker_dead = on_worker_dead,
                                         .ctx = o};
    return options;
}

static void owner_start(struct owner *o, const struct supervisor_options *options)
{
    o->s = supervisor_new(&o->f.loop, &o->f.later, options);
    supervisor_start(o->s);
    assert_int_equal(supervisor_state(o->s), SUPERVISOR_STARTING);
    assert_int_equal(o->told, SUPERVISOR_STOPPED); /* nothing is told from inside a call */
}

static void owner_await(struct owner *o, enum supervisor_state state, unsigned generation)
{
    o->awaited = state;
    o->awaited_generation = generation;
    look(o);
    loop_run_until(&o->f, &o->there, supervisor_state_name(state));
}

/* It may serve before its guard's word of which process it is has been read. 0 would be all of us.
 */
static int owner_pid(struct owner *o)
{
    for (unsigned ms = 0; ms < 10000 && supervisor_pid(o->s) == 0; ms++)
        loop_run_for(&o->f, 1);
    assert_true(supervisor_pid(o->s) > 0);
    return supervisor_pid(o->s);
}

static void owner_on_freed(void *ctx)
{
    struct owner *o = ctx;
    o->freed = true;
}

static void owner_end(struct owner *o)
{
    supervisor_stop(o->s);
    supervisor_stop(o->s);
    if (supervisor_state(o->s) != SUPERVISOR_GAVE_UP)
        owner_await(o, SUPERVISOR_STOPPED, 0);
    assert_int_equal(supervisor_pid(o->s), 0);
    supervisor_free(o->s, owner_on_freed, o);
    loop_run_until(&o->f, &o->freed, "the supervisor to be freed");
    loop_fixture_close(&o->f);
    buf_done(&o->story);
}

static const struct supervisor_exit *last_exit(const struct owner *o)
{
    return supervisor_last_exit(o->s);
}

static bool tail_has(const struct owner *o, const char *what)
{
    struct slice tail = last_exit(o)->log_tail;
    return memmem(tail.ptr, tail.len, what, strlen(what)) != NULL;
}

/* --- life ------------------------------------------------------------------------------------ */

static void it_starts_serves_and_stops(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "print:hello serve";
    struct supervisor_options options = owner_prepare(&o, words);
    owner_start(&o, &options);
    assert_string_equal(supervisor_version(o.s), "");
    supervisor_start(o.s); /* once is enough */
    owner_await(&o, SUPERVISOR_READY, 1);
    assert_string_equal(supervisor_version(o.s), "0.3.40");
    assert_false(last_exit(&o)->happened);
    (void)owner_pid(&o);
    supervisor_stop(o.s);
    owner_await(&o, SUPERVISOR_STOPPED, 1);
    assert_string_equal(o.story.ptr, "starting ready stopping stopped ");
    assert_int_equal(last_exit(&o)->signal, SIGINT);
    assert_string_equal(last_exit(&o)->reason, "ComfyUI was stopped");
    assert_true(tail_has(&o, "hello\nlistening"));
    assert_int_equal(supervisor_restarts(o.s), 0);
    owner_end(&o);
}

static void it_can_be_stopped_at_any_moment(void **state)
{
    (void)state;
    struct owner o;
    for (size_t i = 0; i < 3; i++) {
        char words[] = "sleep:100000";
        struct supervisor_options options = owner_prepare(&o, words);
        owner_start(&o, &options);
        loop_run_for(&o.f, 15 * i); /* the port is looked at; later it runs */
        supervisor_stop(o.s);
        owner_await(&o, SUPERVISOR_STOPPED, 0);
        assert_string_equal(o.story.ptr, "starting stopping stopped ");
        owner_end(&o);
    }
    char words[] = "exit:1";
    struct supervisor_options options = owner_prepare(&o, words);
    options.backoff_min_ms = NEVER_MS;
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_BACKOFF, 0);
    owner_end(&o);

    char none[] = "exit:1";
    options = owner_prepare(&o, none);
    o.s = supervisor_new(&o.f.loop, &o.f.later, &options);
    assert_int_equal(supervisor_state(o.s), SUPERVISOR_STOPPED);
    owner_end(&o); /* never started */
}

static void it_can_be_started_again_after_a_stop(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "serve";
    struct supervisor_options options = owner_prepare(&o, words);
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_READY, 1);
    supervisor_stop(o.s);
    owner_await(&o, SUPERVISOR_STOPPED, 1);
    supervisor_start(o.s);
    owner_await(&o, SUPERVISOR_READY, 2);
    owner_end(&o);
}

static void a_stop_goes_as_far_as_it_must(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "deaf serve";
    struct supervisor_options options = owner_prepare(&o, words);
    options.stop_int_ms = options.stop_term_ms = 10;
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_READY, 1);
    supervisor_stop(o.s);
    owner_await(&o, SUPERVISOR_STOPPED, 1);
    assert_int_equal(last_exit(&o)->signal, SIGKILL);
    assert_string_equal(last_exit(&o)->reason, "ComfyUI was stopped");
    owner_end(&o);
}

/* The machine may be busy: one start that was seen in time shows that they can be. */
static void readiness_is_seen_within_10_ms(void **state)
{
    (void)state;
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 20 && best > 10; i++) {
        struct owner o;
        char words[] = "sleep:30 serve";
        struct supervisor_options options = owner_prepare(&o, words);
        owner_start(&o, &options);
        owner_await(&o, SUPERVISOR_READY, 1);
        uint64_t seen = o.told_at;
        supervisor_stop(o.s);
        owner_await(&o, SUPERVISOR_STOPPED, 1);
        struct slice tail = last_exit(&o)->log_tail;
        const char *at = memmem(tail.ptr, tail.len, "listening ", 10);
        assert_non_null(at);
        uint64_t since = strtoull(at + 10, NULL, 10);
        best = seen - since < best ? seen - since : best;
        owner_end(&o);
    }
    assert_true(best <= 10);
}

static void an_answer_that_is_not_200_is_not_ready(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "busy:60 print:over serve";
    struct supervisor_options options = owner_prepare(&o, words);
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_READY, 1);
    supervisor_stop(o.s);
    owner_await(&o, SUPERVISOR_STOPPED, 1);
    assert_true(tail_has(&o, "over"));
    owner_end(&o);
}

/* --- exits ----------------------------------------------------------------------------------- */

static void the_successor_of_a_crash_comes_at_once(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "serve";
    struct supervisor_options options = owner_prepare(&o, words);
    options.backoff_min_ms = options.backoff_max_ms = NEVER_MS;
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_READY, 1);
    assert_int_equal(kill(owner_pid(&o), SIGKILL), 0);
    owner_await(&o, SUPERVISOR_READY, 2);
    assert_string_equal(o.story.ptr, "starting ready backoff starting ready ");
    assert_int_equal(supervisor_restarts(o.s), 1);
    assert_int_equal(last_exit(&o)->signal, SIGKILL);
    assert_false(last_exit(&o)->condemned);
    assert_string_equal(last_exit(&o)->reason,
                        "ComfyUI was killed by signal 9 (often out of memory)");
    assert_int_equal(kill(owner_pid(&o), SIGSEGV), 0);
    owner_await(&o, SUPERVISOR_BACKOFF, 2); /* and stays there: it is one of a row now */
    loop_run_for(&o.f, 30);
    assert_int_equal(supervisor_state(o.s), SUPERVISOR_BACKOFF);
    owner_end(&o);
}

static void too_many_exits_are_given_up(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "print:No~module~named~torch exit:3";
    struct supervisor_options options = owner_prepare(&o, words);
    options.backoff_min_ms = 1;
    options.exits_max = 2;
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_GAVE_UP, 0);
    assert_string_equal(o.story.ptr, "starting backoff starting backoff starting gave_up ");
    assert_int_equal(supervisor_restarts(o.s), 2);
    assert_int_equal(last_exit(&o)->code, 3);
    assert_string_equal(last_exit(&o)->reason, "ComfyUI exited with code 3 before it had answered");
    assert_true(slice_is(last_exit(&o)->log_tail, "No module named torch"));
    supervisor_condemn(o.s, "nobody is there");
    supervisor_start(o.s);
    assert_int_equal(supervisor_state(o.s), SUPERVISOR_GAVE_UP);
    owner_end(&o);
}

static void a_command_that_cannot_be_executed_is_told(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "serve", missing[] = "/nonexistent/python3";
    struct supervisor_options options = owner_prepare(&o, words);
    o.argv[0] = missing;
    options.exits_max = 0;
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_GAVE_UP, 0);
    assert_int_equal(last_exit(&o)->code, 127);
    assert_true(tail_has(&o, "cannot execute /nonexistent/python3"));
    owner_end(&o);
}

static void a_start_that_fails_counts_as_an_exit(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "serve";
    struct supervisor_options options = owner_prepare(&o, words);
    char *big = xmalloc(8u << 20); /* more than any exec takes */
    memset(big, 'x', (8u << 20) - 1);
    big[(8u << 20) - 1] = '\0';
    o.argv[3] = big;
    options.backoff_min_ms = 1;
    options.exits_max = 1;
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_GAVE_UP, 0);
    assert_string_equal(o.story.ptr, "starting backoff starting gave_up ");
    assert_non_null(strstr(last_exit(&o)->reason, "could not be started"));
    owner_end(&o);
    free(big);
}

static void one_that_does_not_answer_in_time_is_killed(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "deaf sleep:100000";
    struct supervisor_options options = owner_prepare(&o, words);
    options.startup_ms = 30;
    options.stop_term_ms = 10;
    options.exits_max = 0;
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_GAVE_UP, 0);
    assert_string_equal(o.story.ptr, "starting backoff gave_up ");
    assert_true(last_exit(&o)->condemned);
    assert_non_null(strstr(last_exit(&o)->reason, "did not answer within"));
    owner_end(&o);
}

static void an_own_end_for_want_of_memory_is_told(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "print:DefaultCPUAllocator:~can't~allocate~memory exit:1";
    struct supervisor_options options = owner_prepare(&o, words);
    options.exits_max = 0;
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_GAVE_UP, 0);
    assert_true(last_exit(&o)->out_of_memory);
    owner_end(&o);
}

/* --- alive, but ------------------------------------------------------------------------------ */

static void silence_is_no_reason_to_act(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "serve";
    struct supervisor_options options = owner_prepare(&o, words);
    options.watch_ms = 1;
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_READY, 1);
    int pid = owner_pid(&o);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    loop_run_for(&o.f, 100);
    assert_int_equal(supervisor_state(o.s), SUPERVISOR_READY);
    assert_int_equal(kill(pid, SIGCONT), 0);
    loop_run_for(&o.f, 20);
    assert_int_equal(supervisor_state(o.s), SUPERVISOR_READY);
    assert_int_equal(supervisor_pid(o.s), pid);
    owner_end(&o);
}

static void bad_answers_are_none_either(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "serve:30 busy";
    struct supervisor_options options = owner_prepare(&o, words);
    options.watch_ms = 1;
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_READY, 1);
    loop_run_for(&o.f, 150);
    assert_string_equal(o.story.ptr, "starting ready ");
    owner_end(&o);
}

static void a_port_that_is_closed_for_good_is_one(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "serve:50 sleep:100000";
    struct supervisor_options options = owner_prepare(&o, words);
    options.watch_ms = 10;
    options.exits_max = 0;
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_GAVE_UP, 1);
    assert_string_equal(o.story.ptr, "starting ready backoff gave_up ");
    assert_non_null(strstr(last_exit(&o)->reason, "refuses connections"));
    owner_end(&o);
}

static void a_dead_worker_is_told_once(void **state)
{
    (void)state;
    struct owner o;
    char other[] = "print:Exception~in~thread~Thread-9~(other): serve";
    struct supervisor_options options = owner_prepare(&o, other);
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_READY, 1);
    loop_run_for(&o.f, 20);
    assert_int_equal(o.workers_dead, 0);
    owner_end(&o);

    char words[] = "print:Exception~in~thread~Thread-1~(prompt_worker): "
                   "print:Exception~in~thread~Thread-1~(prompt_worker): serve";
    options = owner_prepare(&o, words);
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_READY, 1);
    loop_run_for(&o.f, 20);
    assert_int_equal(o.workers_dead, 1);
    assert_int_equal(supervisor_state(o.s), SUPERVISOR_READY); /* it is the owner who decides */
    o.condemn_dead_worker = true;
    assert_int_equal(kill(owner_pid(&o), SIGKILL), 0);
    loop_run_until(&o.f, &o.condemned, "the next one's worker to die");
    assert_int_equal(o.workers_dead, 2);
    owner_end(&o);
}

static void a_condemned_one_is_replaced_at_once(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "serve";
    struct supervisor_options options = owner_prepare(&o, words);
    options.backoff_min_ms = options.backoff_max_ms = NEVER_MS;
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_READY, 1);
    supervisor_condemn(o.s, "a prompt stood still");
    assert_int_equal(supervisor_state(o.s), SUPERVISOR_BACKOFF); /* nobody gives it work */
    assert_int_equal(o.told, SUPERVISOR_READY);
    assert_true(last_exit(&o)->condemned);
    supervisor_condemn(o.s, "another reason");
    owner_await(&o, SUPERVISOR_READY, 2);
    assert_string_equal(o.story.ptr, "starting ready backoff starting ready ");
    assert_string_equal(last_exit(&o)->reason,
                        "ComfyUI was killed to be started again: a prompt stood still");
    assert_int_equal(last_exit(&o)->signal, SIGTERM);
    supervisor_condemn(o.s, "again");
    supervisor_stop(o.s); /* while it dies */
    owner_await(&o, SUPERVISOR_STOPPED, 2);
    owner_end(&o);
}

static void a_condemned_one_that_is_deaf_is_killed(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "deaf serve";
    struct supervisor_options options = owner_prepare(&o, words);
    options.stop_int_ms = options.stop_term_ms = 10;
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_READY, 1);
    supervisor_condemn(o.s, "of no use");
    owner_await(&o, SUPERVISOR_READY, 2);
    assert_int_equal(last_exit(&o)->signal, SIGKILL);
    owner_end(&o);
}

/* --- not ours -------------------------------------------------------------------------------- */

static pid_t start_other(const struct supervisor_options *options)
{
    pid_t other = fork();
    if (other == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody */
        serve(options->port, "200 OK", NEVER_MS);
    }
    return other;
}

static void stop_other(pid_t other)
{
    assert_int_equal(kill(other, SIGKILL), 0);
    assert_int_equal(waitpid(other, NULL, 0), other);
}

static void somebody_else_on_the_port_is_not_taken_for_ours(void **state)
{
    (void)state;
    struct owner o;
    char words[] = "serve";
    struct supervisor_options options = owner_prepare(&o, words);
    pid_t other = start_other(&options);
    int fd;
    while ((fd = listen_on(options.port)) >= 0) { /* until the other has the port */
        (void)close(fd);
        (void)usleep(1000);
    }
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_BACKOFF, 0);
    loop_run_for(&o.f, 20);
    assert_string_equal(o.story.ptr, "starting backoff ");
    assert_int_equal(supervisor_pid(o.s), 0);
    stop_other(other);
    owner_await(&o, SUPERVISOR_READY, 1);
    assert_string_equal(o.story.ptr, "starting backoff starting ready ");
    owner_end(&o);
}

static void attached_all_follows_from_probes(void **state)
{
    (void)state;
    struct owner o;
    struct supervisor_options options = owner_prepare(&o, NULL);
    options.watch_ms = 5;
    options.startup_ms = 20;
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_BACKOFF, 0);
    for (unsigned i = 1; i <= 2; i++) {
        pid_t other = start_other(&options);
        owner_await(&o, SUPERVISOR_READY, i);
        assert_string_equal(supervisor_version(o.s), "0.3.40");
        stop_other(other);
        owner_await(&o, SUPERVISOR_BACKOFF, i);
    }
    assert_false(last_exit(&o)->happened);
    assert_int_equal(supervisor_restarts(o.s), 0);
    owner_end(&o);
    assert_int_equal(o.told, SUPERVISOR_STOPPED);
}

static void attached_a_verdict_changes_the_state_only(void **state)
{
    (void)state;
    struct owner o;
    struct supervisor_options options = owner_prepare(&o, NULL);
    pid_t other = start_other(&options);
    owner_start(&o, &options);
    owner_await(&o, SUPERVISOR_READY, 1);
    supervisor_condemn(o.s, "of no use");
    owner_await(&o, SUPERVISOR_READY, 2);
    assert_string_equal(o.story.ptr, "starting ready backoff ready ");
    assert_int_equal(waitpid(other, NULL, WNOHANG), 0);
    owner_end(&o);
    stop_other(other);
}

int main(int argc, char **argv)
{
    process_guard_main(argc, argv);
    play_comfyui(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_starts_serves_and_stops),
        cmocka_unit_test(it_can_be_stopped_at_any_moment),
        cmocka_unit_test(it_can_be_started_again_after_a_stop),
        cmocka_unit_test(a_stop_goes_as_far_as_it_must),
        cmocka_unit_test(readiness_is_seen_within_10_ms),
        cmocka_unit_test(an_answer_that_is_not_200_is_not_ready),
        cmocka_unit_test(the_successor_of_a_crash_comes_at_once),
        cmocka_unit_test(too_many_exits_are_given_up),
        cmocka_unit_test(a_command_that_cannot_be_executed_is_told),
        cmocka_unit_test(a_start_that_fails_counts_as_an_exit),
        cmocka_unit_test(one_that_does_not_answer_in_time_is_killed),
        cmocka_unit_test(an_own_end_for_want_of_memory_is_told),
        cmocka_unit_test(silence_is_no_reason_to_act),
        cmocka_unit_test(bad_answers_are_none_either),
        cmocka_unit_test(a_port_that_is_closed_for_good_is_one),
        cmocka_unit_test(a_dead_worker_is_told_once),
        cmocka_unit_test(a_condemned_one_is_replaced_at_once),
        cmocka_unit_test(a_condemned_one_that_is_deaf_is_killed),
        cmocka_unit_test(somebody_else_on_the_port_is_not_taken_for_ours),
        cmocka_unit_test(attached_all_follows_from_probes),
        cmocka_unit_test(attached_a_verdict_changes_the_state_only),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
