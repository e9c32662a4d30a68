/* A server that is not there, hangs, is killed and comes back: `test_store_outage <row>` for every
 * store that has one. */
#include "backends.h"
#include "servers.h"
#include "store_ask.h"
#include "unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LONG_MS = 60000,
    SOON_MS = 100,
    SKIPPED = 77,
    DOCS = 32,
    WRITES = 40,
    HANGS_MS = 300,
    GAP_MAX_US = 50000,
    ROUNDS = 3, /* a machine that does other things now and then is no fault of the store */
};

struct room {
    struct loop_fixture f;
    struct store *s;
};

static const struct backend_row *row;
static char url[BACKEND_URL_MAX];

static int set_up(void **state)
{
    static struct room r;
    assert_true(row->start(url));
    loop_fixture_open(&r.f);
    assert_int_equal(store_open(&r.s, &r.f.loop, &r.f.later, url, NULL), ERR_OK);
    *state = &r;
    return 0;
}

static int tear_down(void **state)
{
    struct room *r = *state;
    if (row->server->pid == 0)
        row->revive(row->server);
    if (r->s != NULL)
        ask_close(&r->f, r->s, LONG_MS);
    loop_fixture_close(&r->f);
    row->stop();
    return 0;
}

/* Until a write succeeds; the store is not opened again for it. */
static void until_it_works(struct room *r)
{
    uint64_t end = clock_mono_ms() + LONG_MS;
    while (ask_put(&r->f, r->s, "works", "1") != ERR_OK && clock_mono_ms() < end)
        loop_run_for(&r->f, 1);
    assert_true(ask_is(&r->f, r->s, "works", "1"));
    assert_true(store_healthy(r->s, NULL));
}

static void who_is_not_there_is_told_and_taken_back(void **state)
{
    struct room *r = *state;
    struct err why;
    struct blob *value = NULL;
    server_kill(row->server);
    assert_true(store_healthy(r->s, NULL)); /* nobody has asked yet */
    uint64_t began = clock_mono_ms();
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_UNAVAILABLE);
    assert_true(clock_mono_ms() - began < LONG_MS / 4); /* by its deadline */
    assert_int_equal(ask_get(&r->f, r->s, "k", &value), ERR_UNAVAILABLE);
    assert_false(store_healthy(r->s, &why));
    assert_true(why.msg[0] != '\0');
    row->revive(row->server);
    until_it_works(r);
}

static void what_is_wrong_by_itself_needs_no_server(void **state)
{
    struct room *r = *state;
    static const char *const keys[] = {"", "..", "a/b", ".a", "a b", "a.tmp"};
    struct ask a = {.done = false};
    char *bytes = xcalloc(1, STORE_VALUE_MAX + 1);
    server_kill(row->server);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        assert_int_equal(ask_put(&r->f, r->s, keys[i], "1"), ERR_INVALID);
    ask_add_bytes(&a, STORE_PUT, "k", (struct slice){bytes, STORE_VALUE_MAX + 1});
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.doc[0].result, ERR_TOO_LARGE);
    assert_true(store_healthy(r->s, NULL)); /* it was not looked for */
    ask_done(&a);
    free(bytes);
}

static void who_is_gone_in_between_is_found_again(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_create(&r->f, r->s, "k~run.1", "1"), ERR_OK);
    server_kill(row->server);
    row->revive(row->server);
    assert_true(ask_is(&r->f, r->s, "k~run.1", "1")); /* at once, with what was stored */
    assert_int_equal(ask_create(&r->f, r->s, "k~run.1", "2"), ERR_EXISTS);
    assert_true(store_healthy(r->s, NULL));
}

static void who_hangs_holds_no_caller(void **state)
{
    struct room *r = *state;
    struct ask stuck = {.op = {.deadline_ms = SOON_MS}};
    struct ask other = {.op = {.deadline_ms = SOON_MS}};
    struct ask patient = {.op = {.deadline_ms = LONG_MS}};
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    server_signal(row->server, SIGSTOP);
    ask_add(&stuck, STORE_PUT, "k", "1");
    ask_add(&other, STORE_GET, "other", NULL);
    ask_add(&patient, STORE_PUT, "k", "2");
    ask_start(&stuck, r->s);
    ask_start(&other, r->s);
    ask_start(&patient, r->s);
    ask_wait(&stuck, &r->f);
    ask_wait(&other, &r->f);
    assert_int_equal(stuck.op.doc[0].result, ERR_TIMEOUT); /* may have happened */
    assert_int_equal(other.op.doc[0].result, ERR_TIMEOUT);
    assert_false(patient.done);
    assert_false(store_healthy(r->s, NULL));
    server_signal(row->server, SIGCONT);
    ask_wait(&patient, &r->f);
    assert_int_equal(patient.op.doc[0].result, ERR_OK);
    assert_true(ask_is(&r->f, r->s, "k", "2")); /* and not what was given up */
    ask_done(&stuck);
    ask_done(&other);
    ask_done(&patient);
    until_it_works(r);
}

/* --- the loop -------------------------------------------------------------------------------- */

static uint64_t last_us, worst_us;

static void on_tick(uv_timer_t *timer)
{
    uint64_t now = uv_hrtime() / 1000;
    (void)timer;
    if (last_us != 0 && now - last_us > worst_us)
        worst_us = now - last_us;
    last_us = now;
}

static uint64_t worst_gap_until_done(struct room *r, struct ask *a)
{
    uv_timer_t tick;
    last_us = worst_us = 0;
    assert_int_equal(uv_timer_init(&r->f.loop, &tick), 0);
    assert_int_equal(uv_timer_start(&tick, on_tick, 1, 1), 0);
    ask_wait(a, &r->f);
    uv_close((uv_handle_t *)&tick, NULL);
    loop_run_for(&r->f, 1);
    return worst_us;
}

static bool round_is_good(struct room *r)
{
    struct ask a = {.op = {.deadline_ms = HANGS_MS}};
    server_signal(row->server, SIGSTOP);
    uint64_t began = clock_mono_ms();
    ask_add(&a, STORE_PUT, "k", "1");
    ask_start(&a, r->s);
    uint64_t worst = worst_gap_until_done(r, &a);
    uint64_t took = clock_mono_ms() - began;
    server_signal(row->server, SIGCONT);
    assert_true(a.op.doc[0].result == ERR_TIMEOUT || a.op.doc[0].result == ERR_UNAVAILABLE);
    ask_done(&a);
    until_it_works(r);
    return worst <= GAP_MAX_US && took <= HANGS_MS + GAP_MAX_US / 1000;
}

/* It accepts and never answers: first who was never connected to, then who was. */
static void who_hangs_holds_no_loop(void **state)
{
    struct room *r = *state;
    for (unsigned connected = 0; connected < 2; connected++) {
        bool good = false;
        for (unsigned i = 0; i < ROUNDS && !good; i++) {
            if (connected == 0) {
                ask_close(&r->f, r->s, LONG_MS);
                assert_int_equal(store_open(&r->s, &r->f.loop, &r->f.later, url, NULL), ERR_OK);
            }
            good = round_is_good(r);
        }
        assert_true(good);
    }
}

/* --- the end --------------------------------------------------------------------------------- */

static void closing_waits_for_no_server(void **state)
{
    struct room *r = *state;
    struct ask stuck = {.done = false};
    struct ask waiting = {.done = false};
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    server_signal(row->server, SIGSTOP);
    ask_add(&stuck, STORE_PUT, "k", "1");
    ask_add(&waiting, STORE_GET, "k", NULL);
    ask_start(&stuck, r->s);
    ask_start(&waiting, r->s);
    uint64_t began = clock_mono_ms();
    ask_close(&r->f, r->s, SOON_MS);
    r->s = NULL;
    assert_true(clock_mono_ms() - began < LONG_MS / 4);
    server_signal(row->server, SIGCONT);
    assert_int_equal(stuck.op.doc[0].result, ERR_TIMEOUT);
    assert_int_equal(waiting.op.doc[0].result, ERR_CANCELLED);
    ask_done(&stuck);
    ask_done(&waiting);
}

static void closing_ends_a_search_for_the_server(void **state)
{
    struct room *r = *state;
    struct ask a = {.done = false};
    server_kill(row->server);
    ask_add(&a, STORE_PUT, "k", "1");
    ask_start(&a, r->s);
    ask_close(&r->f, r->s, 0);
    r->s = NULL;
    assert_true(a.op.doc[0].result != ERR_OK);
    ask_done(&a);
}

/* --- killed under load ----------------------------------------------------------------------- */

struct doc {
    struct store_live live;
    uint64_t value;
};

static unsigned live_ended;

static struct blob *doc_on_render(struct store_live *live, uint64_t *ret_order)
{
    struct doc *d = CONTAINER_OF(live, struct doc, live);
    char text[32];
    *ret_order = d->value;
    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)d->value);
    return blob_new(slice_of(text));
}

static void doc_on_end(struct store_live *live)
{
    (void)live;
    live_ended++;
}

static void keep_writing(struct room *r, struct doc docs[DOCS], unsigned turns)
{
    for (unsigned turn = 0; turn < turns; turn++) {
        for (unsigned i = 0; i < DOCS; i++) {
            docs[i].value++;
            store_touch(&docs[i].live);
        }
        loop_run_for(&r->f, 5);
    }
}

/* Creates are asked for all the time: each one that was told as done is there, each one that was
 * told as existing is ours too, as nobody else writes. */
static void create_some(struct room *r, struct ask creates[DOCS], unsigned round)
{
    char key[32];
    for (unsigned i = 0; i < DOCS; i++) {
        creates[i] = (struct ask){.op = {.deadline_ms = LONG_MS}};
        (void)snprintf(key, sizeof(key), "t%u~run.%u", i, round);
        ask_add(&creates[i], STORE_CREATE, key, key);
        ask_start(&creates[i], r->s);
    }
}

static void check_creates(struct room *r, struct ask creates[DOCS], unsigned round)
{
    char key[32];
    for (unsigned i = 0; i < DOCS; i++) {
        ask_wait(&creates[i], &r->f);
        enum err_code code = creates[i].op.doc[0].result;
        (void)snprintf(key, sizeof(key), "t%u~run.%u", i, round);
        assert_true(code == ERR_OK || code == ERR_UNAVAILABLE || code == ERR_TIMEOUT);
        if (code == ERR_OK)
            assert_true(ask_is(&r->f, r->s, key, key));
        ask_done(&creates[i]);
    }
}

static void killed_under_load_it_loses_nothing(void **state)
{
    struct room *r = *state;
    static struct doc docs[DOCS];
    static struct ask creates[DOCS];
    static char keys[DOCS][32];
    char key[32], value[32];
    for (unsigned i = 0; i < DOCS; i++) {
        (void)snprintf(keys[i], sizeof(keys[i]), "t%u~task", i);
        store_live_init(&docs[i].live, r->s, keys[i]);
        docs[i].live.render = doc_on_render;
    }
    for (unsigned round = 1; round <= 3; round++) {
        keep_writing(r, docs, WRITES / 2);
        create_some(r, creates, round);
        server_kill(row->server);
        keep_writing(r, docs, WRITES / 2);
        row->revive(row->server);
        check_creates(r, creates, round);
    }
    keep_writing(r, docs, 1);
    until_it_works(r);
    for (unsigned i = 0; i < DOCS; i++) {
        uint64_t end = clock_mono_ms() + LONG_MS;
        (void)snprintf(key, sizeof(key), "t%u~task", i);
        (void)snprintf(value, sizeof(value), "%llu", (unsigned long long)docs[i].value);
        while (!ask_is(&r->f, r->s, key, value) && clock_mono_ms() < end)
            loop_run_for(&r->f, 10);
        assert_true(ask_is(&r->f, r->s, key, value));
    }
    live_ended = 0;
    for (unsigned i = 0; i < DOCS; i++)
        store_live_end(&docs[i].live, doc_on_end);
    while (live_ended < DOCS)
        loop_run_for(&r->f, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(who_is_not_there_is_told_and_taken_back),
        TEST(what_is_wrong_by_itself_needs_no_server),
        TEST(who_is_gone_in_between_is_found_again),
        TEST(who_hangs_holds_no_caller),
        TEST(who_hangs_holds_no_loop),
        TEST(closing_waits_for_no_server),
        TEST(closing_ends_a_search_for_the_server),
        TEST(killed_under_load_it_loses_nothing),
    };
    row = argc == 2 ? backend_find(argv[1]) : NULL;
    if (row == NULL || row->server == NULL) {
        (void)fprintf(stderr, "which store?\n");
        return 64;
    }
    if (!row->start(url))
        return SKIPPED;
    row->stop();
    return cmocka_run_group_tests_name(row->name, tests, NULL, NULL);
}
