/* Several processes on one store: who creates first, what a reader sees meanwhile, and what a
 * writer leaves behind that is killed in mid-sentence. `test_store_processes <row> [reads]`; 100000
 * reads are the long form. The parent has neither loop nor threads while it forks. */
#include "backends.h"
#include "store_ask.h"
#include "unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    LONG_MS = 60000,
    CREATORS = 8,
    KEYS = 10,
    KILLS = 40,
    READS_DEFAULT = 300,
    ROUNDS = 15,
    SOON_MS = 1000,
    VALUE_LEN = 20000,
    SKIPPED = 77
};

static const struct backend_row *row;
static char url[BACKEND_URL_MAX];
static unsigned reads = READS_DEFAULT;

static int set_up(void **state)
{
    (void)state;
    assert_true(row->start(url));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    row->stop();
    return 0;
}

struct room {
    struct loop_fixture f;
    struct store *s;
};

static void room_open(struct room *r)
{
    loop_fixture_open(&r->f);
    ASSERT(store_open(&r->s, &r->f.loop, &r->f.later, url, NULL) == ERR_OK);
}

static void room_close(struct room *r)
{
    ask_close(&r->f, r->s, LONG_MS);
    loop_fixture_close(&r->f);
}

/* A document that tells when it is not whole: its number, again and again. */
static void make_value(char value[VALUE_LEN + 1], unsigned number)
{
    for (unsigned i = 0; i < VALUE_LEN; i += 10)
        (void)snprintf(value + i, 11, "%09u,", number);
}

static bool is_whole(struct slice value, unsigned *ret_number)
{
    char expected[VALUE_LEN + 1];
    if (value.len != VALUE_LEN || sscanf(value.ptr, "%9u,", ret_number) != 1)
        return false;
    make_value(expected, *ret_number);
    return slice_is(value, expected);
}

/* --- one key, eight creators ----------------------------------------------------------------- */

static void creator(int go, int tell)
{
    struct room r;
    char text[16];
    char key[16];
    unsigned char won[KEYS];
    room_open(&r);
    (void)snprintf(text, sizeof(text), "%d", (int)getpid());
    ASSERT(read(go, key, 1) == 0); /* end of file is the start */
    for (unsigned i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof(key), "k~run.%u", i);
        enum err_code code = ask_create(&r.f, r.s, key, text);
        ASSERT(code == ERR_OK || code == ERR_EXISTS);
        won[i] = code == ERR_OK;
    }
    ASSERT(write(tell, won, sizeof(won)) == (ssize_t)sizeof(won));
    room_close(&r);
    _exit(0);
}

static void of_eight_creators_one_wins(void **state)
{
    (void)state;
    int go[2], tell[2];
    unsigned wins[KEYS] = {0};
    unsigned char won[KEYS];
    assert_int_equal(pipe(go), 0);
    assert_int_equal(pipe(tell), 0);
    for (unsigned i = 0; i < CREATORS; i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            (void)close(go[1]);
            creator(go[0], tell[1]);
        }
    }
    (void)close(go[0]);
    (void)close(go[1]);
    (void)close(tell[1]);
    for (unsigned i = 0; i < CREATORS; i++) {
        assert_int_equal(read(tell[0], won, sizeof(won)), sizeof(won));
        for (unsigned k = 0; k < KEYS; k++)
            wins[k] += won[k];
    }
    (void)close(tell[0]);
    for (unsigned i = 0; i < CREATORS; i++) {
        int status = 0;
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    for (unsigned k = 0; k < KEYS; k++)
        assert_int_equal(wins[k], 1);
}

/* --- kill -9 --------------------------------------------------------------------------------- */

/* Tells through `tell` when the first document is there, and goes on. */
static void writer(int tell)
{
    struct room r;
    char value[VALUE_LEN + 1];
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    room_open(&r);
    for (unsigned i = 1;; i++) {
        struct ask a = {.done = false};
        make_value(value, i);
        ask_add(&a, STORE_PUT, "k", value);
        a.op.doc[0].durable = i % 8 == 0;
        ask_start(&a, r.s);
        ask_wait(&a, &r.f);
        ask_done(&a);
        if (i == 1)
            ASSERT(write(tell, "1", 1) == 1);
    }
}

static pid_t start(void (*process)(int tell))
{
    int tell[2];
    char one;
    assert_int_equal(pipe(tell), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        process(tell[1]);
    assert_int_equal(read(tell[0], &one, 1), 1);
    (void)close(tell[0]);
    (void)close(tell[1]);
    return pid;
}

static pid_t start_writer(void)
{
    return start(writer);
}

static void kill_writer(pid_t pid)
{
    int status = 0;
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void a_killed_writer_leaves_a_whole_document(void **state)
{
    (void)state;
    srand(1);
    for (unsigned i = 0; i < KILLS; i++) {
        struct room r;
        struct blob *value = NULL;
        unsigned number;
        pid_t pid = start_writer();
        (void)usleep((unsigned)rand() % 10000);
        kill_writer(pid);
        room_open(&r);
        assert_int_equal(ask_get(&r.f, r.s, "k", &value), ERR_OK);
        assert_true(is_whole(blob_slice(value), &number));
        blob_unref(value);
        room_close(&r);
    }
    if (row->leftovers != NULL) /* at most one a writer */
        assert_true(row->leftovers() <= KILLS);
}

/* --- readers --------------------------------------------------------------------------------- */

static unsigned read_whole(struct room *r)
{
    struct blob *value = NULL;
    unsigned number = 0;
    uint64_t end = clock_mono_ms() + LONG_MS;
    while (ask_get(&r->f, r->s, "k", &value) != ERR_OK)
        ASSERT(clock_mono_ms() < end);
    ASSERT(is_whole(blob_slice(value), &number));
    blob_unref(value);
    return number;
}

static void a_reader_never_sees_half_a_document(void **state)
{
    (void)state;
    struct room r;
    unsigned last = 0;
    pid_t pid = start_writer();
    room_open(&r);
    for (unsigned i = 0; i < reads; i++) {
        unsigned number = read_whole(&r);
        assert_true(number >= last); /* nor an older one than before */
        last = number;
    }
    room_close(&r);
    kill_writer(pid);
}

static enum err_code write_whole(struct room *r, unsigned number)
{
    char value[VALUE_LEN + 1];
    make_value(value, number);
    return ask_put(&r->f, r->s, "k", value);
}

/* Writes and reads in turn until it is killed. */
static void other(int tell)
{
    struct room r;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    room_open(&r);
    for (unsigned i = 1;; i += 2) {
        (void)write_whole(&r, i);
        (void)read_whole(&r);
        if (i == 1)
            ASSERT(write(tell, "1", 1) == 1);
    }
}

static void two_who_write_and_read_in_turn_see_whole_documents(void **state)
{
    (void)state;
    struct room r;
    pid_t pid = start(other);
    room_open(&r);
    for (unsigned i = 0; i < reads / 3; i++) {
        (void)write_whole(&r, 2 * i);
        (void)read_whole(&r);
    }
    room_close(&r);
    kill_writer(pid);
}

/* --- one key, two writers -------------------------------------------------------------------- */

struct talk { /* a process that is told numbers and answers with numbers */
    pid_t pid;
    int ask, tell;
};

static struct talk talk_to(void (*answer)(int ask, int tell))
{
    int ask[2], tell[2];
    struct talk t;
    assert_int_equal(pipe(ask), 0);
    assert_int_equal(pipe(tell), 0);
    t.pid = fork();
    assert_true(t.pid >= 0);
    if (t.pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(ask[1]);
        answer(ask[0], tell[1]);
        _exit(0);
    }
    (void)close(ask[0]);
    (void)close(tell[1]);
    t.ask = ask[1];
    t.tell = tell[0];
    return t;
}

static void talk_say(const struct talk *t, uint64_t number)
{
    assert_int_equal(write(t->ask, &number, sizeof(number)), sizeof(number));
}

static uint64_t talk_hear(const struct talk *t)
{
    uint64_t number;
    assert_int_equal(read(t->tell, &number, sizeof(number)), sizeof(number));
    return number;
}

static void talk_end(const struct talk *t)
{
    int status = 0;
    (void)close(t->ask);
    assert_int_equal(waitpid(t->pid, &status, 0), t->pid);
    assert_int_equal(status, 0);
    (void)close(t->tell);
}

static void writes_too(int ask, int tell)
{
    struct room r;
    uint64_t number;
    room_open(&r);
    while (read(ask, &number, sizeof(number)) == (ssize_t)sizeof(number)) {
        number = write_whole(&r, (unsigned)number);
        ASSERT(write(tell, &number, sizeof(number)) == (ssize_t)sizeof(number));
    }
    room_close(&r);
}

static void of_two_who_write_one_key_at_once_both_may_and_one_value_stays(void **state)
{
    struct talk t = talk_to(writes_too);
    struct room r;
    (void)state;
    room_open(&r);
    for (unsigned i = 1; i <= ROUNDS; i++) {
        talk_say(&t, 2 * i);
        assert_int_equal(write_whole(&r, 2 * i + 1), ERR_OK);
        assert_int_equal(talk_hear(&t), ERR_OK);
        unsigned stays = read_whole(&r);
        assert_true(stays == 2 * i || stays == 2 * i + 1);
        assert_int_equal(read_whole(&r), stays);
    }
    room_close(&r);
    talk_end(&t);
}

/* --- how soon -------------------------------------------------------------------------------- */

/* Told a number, tells when it has read it. It has read the one before. */
static void reads_too(int ask, int tell)
{
    struct room r;
    uint64_t number;
    room_open(&r);
    while (read(ask, &number, sizeof(number)) == (ssize_t)sizeof(number)) {
        while (read_whole(&r) != number)
            ;
        number = clock_mono_ms();
        ASSERT(write(tell, &number, sizeof(number)) == (ssize_t)sizeof(number));
    }
    room_close(&r);
}

static void another_process_reads_it_within_a_second(void **state)
{
    struct talk t = talk_to(reads_too);
    struct room r;
    (void)state;
    room_open(&r);
    for (unsigned i = 1; i <= ROUNDS; i++) {
        assert_int_equal(write_whole(&r, i), ERR_OK);
        uint64_t written = clock_mono_ms();
        talk_say(&t, i);
        assert_true(talk_hear(&t) < written + SOON_MS);
    }
    room_close(&r);
    talk_end(&t);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(of_eight_creators_one_wins),
        TEST(a_killed_writer_leaves_a_whole_document),
        TEST(a_reader_never_sees_half_a_document),
        TEST(two_who_write_and_read_in_turn_see_whole_documents),
        TEST(of_two_who_write_one_key_at_once_both_may_and_one_value_stays),
        TEST(another_process_reads_it_within_a_second),
    };
    if (argc == 3)
        reads = (unsigned)atoi(argv[2]);
    row = argc >= 2 ? backend_find(argv[1]) : NULL;
    if (row == NULL || !row->is_shared) {
        (void)fprintf(stderr, "which store?\n");
        return 64;
    }
    if (!row->start(url))
        return SKIPPED;
    row->stop();
    return cmocka_run_group_tests_name(row->name, tests, NULL, NULL);
}
