/* The core, over a backend that does what the test says: who waits for whom, who is answered when,
 * and whether the backend is believed to work. */
#include "store_room.h"

#include <stdio.h>

/* --- order and bounds ------------------------------------------------------------------------ */

static void ops_of_one_key_wait_in_order(void **state)
{
    struct room *r = *state;
    struct ask a[4];
    struct ask both = {.done = false};
    store_fake.hold = true;
    room_ask(r, &a[0], STORE_PUT, "k", "1");
    room_ask(r, &a[1], STORE_GET, "k", NULL);
    ask_add(&both, STORE_PUT, "k", "2");
    ask_add(&both, STORE_PUT, "other", "2");
    ask_start(&both, r->s);
    room_ask(r, &a[2], STORE_GET, "other", NULL);
    room_ask(r, &a[3], STORE_GET, "free", NULL);
    room_turn(r);
    assert_string_equal(store_fake.log, "put k=1;get free;");
    store_fake_finish();
    room_turn(r);
    store_fake_finish(); /* free */
    store_fake_finish(); /* get k */
    room_turn(r);
    assert_string_equal(store_fake.log, "put k=1;get free;get k;put k=2;put other=2;");
    assert_true(a[1].done);
    assert_string_equal(a[1].op.doc[0].value->bytes, "1"); /* what was written before it */
    store_fake_finish();
    room_turn(r);
    store_fake_finish_all();
    ask_wait(&a[2], &r->f);
    assert_string_equal(a[2].op.doc[0].value->bytes, "2");
    for (unsigned i = 0; i < 4; i++)
        ask_done(&a[i]);
    ask_done(&both);
}

/* A key twice in one op, and two ops that want two keys in opposite order. */
static void nobody_waits_for_himself_or_in_a_circle(void **state)
{
    struct room *r = *state;
    struct ask a = {.done = false};
    struct ask b = {.done = false};
    ask_add(&a, STORE_PUT, "k", "1");
    ask_add(&a, STORE_PUT, "m", "1");
    ask_add(&a, STORE_GET, "k", NULL);
    ask_add(&b, STORE_PUT, "m", "2");
    ask_add(&b, STORE_PUT, "k", "2");
    ask_start(&a, r->s);
    ask_start(&b, r->s);
    ask_wait(&b, &r->f);
    assert_true(a.done);
    assert_string_equal(a.op.doc[2].value->bytes, "1");
    assert_string_equal(store_fake_value("k"), "2");
    ask_done(&a);
    ask_done(&b);
}

static void a_backend_gets_no_more_at_once_than_it_wants(void **state)
{
    struct room *r = *state;
    struct ask a[20];
    char key[8];
    store_fake.hold = true;
    for (unsigned i = 0; i < ARRAY_LEN(a); i++) {
        (void)snprintf(key, sizeof(key), "k%u", i);
        room_ask(r, &a[i], STORE_GET, key, NULL);
    }
    room_turn(r);
    assert_int_equal(store_fake.runs, FAKE_PARALLEL);
    assert_int_equal(store_stats(r->s).in_flight, ARRAY_LEN(a));
    store_fake_finish();
    room_turn(r);
    assert_int_equal(store_fake.runs, FAKE_PARALLEL + 1);
    store_fake_finish_all();
    ask_wait(&a[ARRAY_LEN(a) - 1], &r->f);
    room_turn(r);
    assert_int_equal(store_fake.running_max, FAKE_PARALLEL);
    assert_int_equal(store_stats(r->s).in_flight, 0);
    assert_int_equal(store_stats(r->s).ops, ARRAY_LEN(a));
    for (unsigned i = 0; i < ARRAY_LEN(a); i++)
        ask_done(&a[i]);
}

static void what_waits_is_bounded(void **state)
{
    struct room *r = *state;
    static struct ask a[STORE_OPS_MAX + 1];
    store_fake.hold = true;
    for (unsigned i = 0; i < ARRAY_LEN(a); i++)
        room_ask(r, &a[i], STORE_GET, "k", NULL);
    ask_wait(&a[STORE_OPS_MAX], &r->f);
    assert_int_equal(a[STORE_OPS_MAX].op.doc[0].result, ERR_BUSY);
    assert_false(a[STORE_OPS_MAX - 1].done);
    assert_true(store_healthy(r->s, NULL)); /* that we are busy says nothing about the backend */
    store_fake_finish_all();
    ask_wait(&a[STORE_OPS_MAX - 1], &r->f);
    for (unsigned i = 0; i < ARRAY_LEN(a); i++)
        ask_done(&a[i]);
}

/* --- values that are made late ---------------------------------------------------------------- */

struct late_ask {
    struct ask ask;
    const char *value; /* what is made; NULL: it must not come to that */
    unsigned made;
};

static void late_on_prepare(struct store_op *op)
{
    struct late_ask *late = CONTAINER_OF(op, struct late_ask, ask.op);
    late->made++;
    assert_non_null(late->value);
    assert_null(op->doc[0].value);
    op->doc[0].value = blob_new(slice_of(late->value));
}

static void late_ask_start(struct room *r, struct late_ask *late, const char *value)
{
    *late = (struct late_ask){.value = value};
    ask_add(&late->ask, STORE_PUT, "k", NULL);
    ask_add(&late->ask, STORE_PUT, "m", "early");
    late->ask.op.prepare = late_on_prepare;
    ask_start(&late->ask, r->s);
}

static void values_are_made_when_the_write_begins(void **state)
{
    struct room *r = *state;
    struct ask first;
    struct late_ask late;
    store_fake.hold = true;
    room_ask(r, &first, STORE_PUT, "k", "first");
    late_ask_start(r, &late, "late");
    room_turn(r);
    assert_int_equal(late.made, 0); /* it waits for its key */
    store_fake_finish();
    room_turn(r);
    assert_int_equal(late.made, 1);
    store_fake_finish_all();
    ask_wait(&late.ask, &r->f);
    assert_int_equal(late.made, 1);
    assert_string_equal(store_fake_value("k"), "late");
    assert_string_equal(store_fake_value("m"), "early");
    ask_done(&first);
    ask_done(&late.ask);
}

static void a_value_made_too_large_is_refused(void **state)
{
    struct room *r = *state;
    static char large[FAKE_VALUE_MAX + 2];
    struct late_ask late;
    memset(large, 'x', sizeof(large) - 1);
    late_ask_start(r, &late, large);
    ask_wait(&late.ask, &r->f);
    assert_int_equal(late.ask.op.doc[0].result, ERR_TOO_LARGE);
    assert_int_equal(late.ask.op.doc[1].result, ERR_CANCELLED);
    assert_int_equal(store_fake.runs, 0);
    ask_done(&late.ask);
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK); /* its keys are free again */
    assert_int_equal(ask_put(&r->f, r->s, "m", "1"), ERR_OK);
}

static void what_waits_in_vain_has_no_values(void **state)
{
    struct room *r = *state;
    struct ask first;
    struct late_ask late;
    store_fake.hold = true;
    room_ask(r, &first, STORE_PUT, "k", "first");
    late = (struct late_ask){.ask.op.deadline_ms = SOON_MS};
    ask_add(&late.ask, STORE_PUT, "k", NULL);
    late.ask.op.prepare = late_on_prepare;
    ask_start(&late.ask, r->s);
    ask_wait(&late.ask, &r->f);
    assert_int_equal(late.ask.op.doc[0].result, ERR_TIMEOUT);
    assert_int_equal(late.made, 0);
    store_fake_finish_all();
    ask_wait(&first, &r->f);
    ask_done(&first);
    ask_done(&late.ask);
}

/* --- what is refused ------------------------------------------------------------------------- */

static void faulty_ops_never_reach_the_backend(void **state)
{
    struct room *r = *state;
    static char large[FAKE_VALUE_MAX + 2];
    memset(large, 'x', sizeof(large) - 1);
    struct ask a = {.done = false};
    ask_add(&a, STORE_PUT, "good", "1");
    ask_add(&a, STORE_PUT, "../bad", "1");
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.doc[0].result, ERR_CANCELLED); /* nothing of it is begun */
    assert_int_equal(a.op.doc[1].result, ERR_INVALID);
    assert_int_equal(a.op.err.code, ERR_INVALID);
    ask_done(&a);
    assert_int_equal(ask_put(&r->f, r->s, "k", large), ERR_TOO_LARGE);
    assert_int_equal(ask_put(&r->f, r->s, "k", ""), ERR_INVALID);
    large[FAKE_VALUE_MAX] = '\0';
    assert_int_equal(store_fake.runs, 0);
    assert_int_equal(ask_put(&r->f, r->s, "k", large), ERR_OK);
    struct ask b = {.done = false};
    ask_add(&b, STORE_GET, "k", NULL);
    memset(b.op.doc[0].key, 'k', sizeof(b.op.doc[0].key)); /* not even terminated */
    ask_start(&b, r->s);
    ask_wait(&b, &r->f);
    assert_int_equal(b.op.doc[0].result, ERR_INVALID);
    ask_done(&b);
}

static void pages_have_a_size(void **state)
{
    struct room *r = *state;
    static struct store_page page;
    static const unsigned limits[] = {0, STORE_PAGE_MAX + 1};
    for (unsigned i = 0; i < ARRAY_LEN(limits); i++) {
        struct ask a = {.op = {.page = &page}};
        page.limit = limits[i];
        ask_start(&a, r->s);
        ask_wait(&a, &r->f);
        assert_int_equal(a.op.err.code, ERR_INVALID);
    }
    struct ask a = {.op = {.page = &page}};
    page.limit = STORE_PAGE_MAX;
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.err.code, ERR_OK);
    assert_string_equal(store_fake.log, "list;");
}

static void ask_list(struct room *r, struct ask *a, struct store_page *page, uint64_t deadline_ms)
{
    *a = (struct ask){.op = {.page = page, .deadline_ms = deadline_ms}};
    page->limit = 1;
    ask_start(a, r->s);
}

static void lists_come_one_by_one_and_hold_up_no_document(void **state)
{
    struct room *r = *state;
    static struct store_page page[3];
    struct ask list[3];
    struct ask a;
    struct ask b;
    store_fake.hold = true;
    for (unsigned i = 0; i < ARRAY_LEN(list); i++)
        ask_list(r, &list[i], &page[i], 0);
    room_ask(r, &a, STORE_GET, "a", NULL);
    room_ask(r, &b, STORE_GET, "b", NULL);
    room_turn(r);
    assert_string_equal(store_fake.log, "list;get a;"); /* one document at a time: narrow */
    store_fake_finish();
    room_turn(r);
    assert_true(list[0].done);
    assert_string_equal(store_fake.log, "list;get a;list;");
    store_fake_finish();
    room_turn(r);
    assert_string_equal(store_fake.log, "list;get a;list;get b;");
    store_fake_finish_all();
    ask_wait(&list[1], &r->f);
    ask_wait(&list[2], &r->f);
    ask_wait(&a, &r->f);
    ask_wait(&b, &r->f);
}

static void a_list_that_takes_long_says_nothing_of_the_store(void **state)
{
    struct room *r = *state;
    static struct store_page page[2];
    struct ask runs;
    struct ask waits;
    store_fake.hold = true;
    ask_list(r, &runs, &page[0], SOON_MS);
    ask_list(r, &waits, &page[1], SOON_MS);
    ask_wait(&runs, &r->f);
    ask_wait(&waits, &r->f);
    assert_int_equal(runs.op.err.code, ERR_TIMEOUT);
    assert_int_equal(waits.op.err.code, ERR_TIMEOUT);
    assert_true(store_healthy(r->s, NULL));
    store_fake.fail = 1;
    store_fake.fail_code = ERR_TIMEOUT; /* what the backend says of it, too */
    store_fake_finish();
    ask_list(r, &runs, &page[0], 0);
    store_fake.fail = 1;
    store_fake_finish_all();
    ask_wait(&runs, &r->f);
    assert_int_equal(runs.op.err.code, ERR_TIMEOUT);
    assert_true(store_healthy(r->s, NULL));
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static void no_list_holds_up_the_close(void **state)
{
    struct room *r = *state;
    static struct store_page page[2];
    struct ask runs;
    struct ask waits;
    bool closed = false;
    store_fake.hold = true;
    ask_list(r, &runs, &page[0], LONG_MS);
    ask_list(r, &waits, &page[1], LONG_MS);
    room_turn(r);
    store_close(r->s, LONG_MS, on_closed, &closed);
    r->s = NULL;
    room_turn(r);
    assert_true(runs.done && waits.done);
    assert_int_equal(runs.op.err.code, ERR_CANCELLED);
    assert_int_equal(waits.op.err.code, ERR_CANCELLED);
    loop_run_until(&r->f, &closed, "the close");
    assert_string_equal(store_fake.log, "list;");
}

static void nothing_is_begun_after_its_time(void **state)
{
    struct room *r = *state;
    struct ask a = {.op = {.not_after_ms = clock_mono_ms() - 1}};
    ask_add(&a, STORE_PUT, "k", "1");
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.doc[0].result, ERR_CANCELLED);
    assert_int_equal(store_fake.runs, 0);
    ask_done(&a);
    struct ask b = {.op = {.not_after_ms = clock_mono_ms() - 1}};
    ask_add(&b, STORE_GET, "k", NULL); /* reading is never too late */
    ask_start(&b, r->s);
    ask_wait(&b, &r->f);
    assert_int_equal(b.op.doc[0].result, ERR_NOT_FOUND);
    ask_done(&b);
}

/* --- deadlines ------------------------------------------------------------------------------- */

static void a_caller_is_answered_while_the_backend_is_stuck(void **state)
{
    struct room *r = *state;
    struct ask stuck = {.op = {.deadline_ms = SOON_MS}};
    struct ask later;
    store_fake.hold = true;
    ask_add(&stuck, STORE_PUT, "k", "1");
    ask_add(&stuck, STORE_GET, "k", NULL);
    ask_start(&stuck, r->s);
    room_ask(r, &later, STORE_PUT, "k", "2");
    ask_wait(&stuck, &r->f);
    assert_int_equal(stuck.op.doc[0].result, ERR_TIMEOUT);
    assert_int_equal(stuck.op.doc[1].result, ERR_TIMEOUT); /* all of it is in doubt */
    assert_int_equal(stuck.op.err.code, ERR_TIMEOUT);
    ask_done(&stuck);
    memset(&stuck, 0xee, sizeof(stuck)); /* the caller's memory is the caller's again */
    struct err why;
    assert_false(store_healthy(r->s, &why));
    assert_non_null(strstr(why.msg, "did not answer"));
    room_turn(r);
    assert_int_equal(store_fake.runs, 1); /* the key is held to the real end */
    store_fake_finish();
    assert_string_equal(store_fake_value("k"), "1");
    store_fake.hold = false;
    ask_wait(&later, &r->f);
    assert_int_equal(later.op.doc[0].result, ERR_OK);
    assert_string_equal(store_fake_value("k"), "2");
    assert_true(store_healthy(r->s, NULL));
    assert_int_equal(store_stats(r->s).timeouts, 1);
    ask_done(&later);
}

static void what_waited_in_vain_is_never_done(void **state)
{
    struct room *r = *state;
    struct ask first, after;
    struct ask waiting = {.op = {.deadline_ms = SOON_MS}};
    store_fake.hold = true;
    room_ask(r, &first, STORE_PUT, "k", "1");
    ask_add(&waiting, STORE_PUT, "k", "2");
    ask_start(&waiting, r->s);
    room_ask(r, &after, STORE_GET, "k", NULL);
    ask_wait(&waiting, &r->f);
    assert_int_equal(waiting.op.doc[0].result, ERR_TIMEOUT);
    assert_int_equal(store_stats(r->s).timeouts, 1);
    assert_true(store_healthy(r->s, NULL)); /* the first may yet be done in its time */
    ask_done(&waiting);
    store_fake_finish_all();
    ask_wait(&after, &r->f);
    assert_string_equal(after.op.doc[0].value->bytes, "1");
    assert_string_equal(store_fake.log, "put k=1;get k;");
    ask_done(&first);
    ask_done(&after);
}

/* --- health ---------------------------------------------------------------------------------- */

static void a_write_that_failed_is_believed_until_one_succeeds(void **state)
{
    struct room *r = *state;
    assert_true(store_healthy(r->s, NULL));
    store_fake.fail = 1;
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_UNAVAILABLE);
    assert_false(store_healthy(r->s, NULL));
    assert_true(ask_is(&r->f, r->s, "k", NULL));
    assert_false(store_healthy(r->s, NULL)); /* a full disk can be read */
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
    assert_true(store_healthy(r->s, NULL));
    store_fake.fail = 1;
    store_fake.fail_code = ERR_CORRUPT; /* one document's fault */
    struct blob *value;
    assert_int_equal(ask_get(&r->f, r->s, "k", &value), ERR_CORRUPT);
    assert_true(store_healthy(r->s, NULL));
    store_fake.fail = 1;
    store_fake.fail_code = ERR_UNAVAILABLE;
    assert_int_equal(ask_get(&r->f, r->s, "k", &value), ERR_UNAVAILABLE);
    assert_false(store_healthy(r->s, NULL));
    assert_int_equal(ask_create(&r->f, r->s, "k", "1"), ERR_EXISTS); /* it answered */
    assert_true(store_healthy(r->s, NULL));
    assert_int_equal(store_stats(r->s).failures, 3);
    assert_int_equal(store_stats(r->s).docs_written, 1);
}

/* It was told at its deadline, and others have succeeded since. */
static void what_was_given_up_fails_without_a_word(void **state)
{
    struct room *r = *state;
    struct ask stuck = {.op = {.deadline_ms = SOON_MS}};
    struct ask other;
    store_fake.hold = true;
    ask_add(&stuck, STORE_PUT, "k", "1");
    ask_start(&stuck, r->s);
    ask_wait(&stuck, &r->f);
    assert_false(store_healthy(r->s, NULL));
    store_fake.hold = false;
    room_ask(r, &other, STORE_PUT, "other", "1");
    ask_wait(&other, &r->f);
    assert_true(store_healthy(r->s, NULL));
    store_fake.fail = 1;
    store_fake_finish();
    assert_true(store_healthy(r->s, NULL));
    assert_int_equal(store_stats(r->s).failures, 1);
    ask_done(&stuck);
    ask_done(&other);
}

static void an_unhealthy_backend_is_asked_by_itself(void **state)
{
    struct room *r = *state;
    store_fake.fail = 1;
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_UNAVAILABLE);
    r->s->probe_at = clock_mono_ms(); /* instead of waiting */
    store_wake(r->s);
    uint64_t end = clock_mono_ms() + LONG_MS;
    while (!store_healthy(r->s, NULL) && clock_mono_ms() < end)
        (void)uv_run(&r->f.loop, UV_RUN_NOWAIT);
    assert_true(store_healthy(r->s, NULL));
    assert_null(store_fake_value("_~probe"));
}

static void done_that_asks_again(struct store_op *op)
{
    struct room *r = op->ctx;
    struct ask *a = CONTAINER_OF(op, struct ask, op);
    if (++a->times < 50) {
        op->n = 1;
        store_run(r->s, op);
    } else {
        a->done = true;
    }
}

static void an_op_can_be_used_again_inside_done(void **state)
{
    struct room *r = *state;
    struct ask a = {.op = {.ctx = r}};
    ask_add(&a, STORE_REMOVE, "k", NULL);
    a.op.done = done_that_asks_again;
    store_run(r->s, &a.op);
    loop_run_until(&r->f, &a.done, "fifty ops");
    assert_int_equal(store_fake.runs, 50);
}

static void a_store_is_opened_only_by_its_url(void **state)
{
    struct room *r = *state;
    struct store *s = NULL;
    struct err err;
    static const char *const bad[] = {"",
                                      "nfs:///a",
                                      "mem",
                                      "file:a",
                                      "file://host/a",
                                      "file:///",
                                      "file:///a?threads=9",
                                      "file:///a?thread=1",
                                      "mem:?delay=1",
                                      "mem:///a",
                                      "file:///a?threads=2&threads=2",
                                      "file://u:hunter2@localhost/a"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        err.msg[0] = '\0';
        assert_int_equal(store_open(&s, &r->f.loop, &r->f.later, bad[i], &err), ERR_INVALID);
        assert_true(err.msg[0] != '\0');
        assert_null(strstr(err.msg, "hunter2"));
        assert_null(s);
    }
    assert_int_equal(
        store_open_with(&s, &store_fake_ops, &r->f.loop, &r->f.later, "fake:?x=1", &err),
        ERR_INVALID);
    room_turn(r);
    assert_int_equal(store_fake.closes, 1); /* what was opened for it is closed */
    assert_true(slice_starts(slice_of(store_schemes()), SLICE("file mem")));
    assert_string_equal(store_scheme(r->s), "fake");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(ops_of_one_key_wait_in_order),
        TEST(nobody_waits_for_himself_or_in_a_circle),
        TEST(a_backend_gets_no_more_at_once_than_it_wants),
        TEST(what_waits_is_bounded),
        TEST(values_are_made_when_the_write_begins),
        TEST(a_value_made_too_large_is_refused),
        TEST(what_waits_in_vain_has_no_values),
        TEST(faulty_ops_never_reach_the_backend),
        TEST(pages_have_a_size),
        TEST_NARROW(lists_come_one_by_one_and_hold_up_no_document),
        TEST(a_list_that_takes_long_says_nothing_of_the_store),
        TEST(no_list_holds_up_the_close),
        TEST(nothing_is_begun_after_its_time),
        TEST(a_caller_is_answered_while_the_backend_is_stuck),
        TEST(what_waited_in_vain_is_never_done),
        TEST(a_write_that_failed_is_believed_until_one_succeeds),
        TEST(what_was_given_up_fails_without_a_word),
        TEST(an_unhealthy_backend_is_asked_by_itself),
        TEST(an_op_can_be_used_again_inside_done),
        TEST(a_store_is_opened_only_by_its_url),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
