/* Live documents over a backend that does what the test says: what is written of them, when, and
 * how a store ends that still has something to write. */
#include "store_room.h"

#include <stdio.h>
#include <stdlib.h>

/* --- live documents -------------------------------------------------------------------------- */

static void of_many_values_the_last_one_is_written(void **state)
{
    struct room *r = *state;
    struct doc d;
    doc_init(&d, r->s, "k");
    uint64_t begin = clock_mono_ms();
    for (unsigned i = 1; i <= 100; i++)
        doc_set(&d, i);
    assert_int_equal(d.renders, 0); /* not inside the call */
    until_stored(r, "k", "100");
    for (unsigned i = 101; i <= 200; i++) {
        doc_set(&d, i);
        (void)uv_run(&r->f.loop, UV_RUN_NOWAIT);
    }
    until_stored(r, "k", "200");
    uint64_t took = clock_mono_ms() - begin;
    assert_true(store_fake.runs <= 2 + took / FAKE_INTERVAL_MS);
    assert_int_equal(d.renders, store_fake.runs);
    doc_end(r, &d);
}

static void a_slow_backend_gets_the_value_of_the_moment(void **state)
{
    struct room *r = *state;
    struct doc d;
    doc_init(&d, r->s, "k");
    store_fake.hold = true;
    doc_set(&d, 1);
    room_turn(r);
    assert_string_equal(store_fake.log, "put k=1;");
    for (unsigned i = 2; i < 50; i++)
        doc_set(&d, i);
    loop_run_for(&r->f, FAKE_INTERVAL_MS + 10);
    assert_int_equal(store_fake.runs, 1); /* one at a time, however long it takes */
    store_fake_finish_all();
    until_stored(r, "k", "49");
    assert_string_equal(store_fake.log, "put k=1;put k=49;");
    doc_end(r, &d);
}

static void a_failed_write_is_repeated_with_the_newest_value(void **state)
{
    struct room *r = *state;
    struct doc d;
    doc_init(&d, r->s, "k");
    store_fake.fail = 1;
    uint64_t begin = clock_mono_ms();
    doc_set(&d, 1);
    room_turn(r);
    assert_int_equal(store_fake.runs, 1);
    d.value = 2; /* not even touched: it is rendered anew */
    until_stored(r, "k", "2");
    assert_true(clock_mono_ms() - begin >= STORE_BACKOFF_MS); /* no hot loop */
    doc_end(r, &d);
}

static void a_value_too_large_is_not_tried_again(void **state)
{
    struct room *r = *state;
    struct doc d;
    doc_init(&d, r->s, "k");
    store_fake.fail = 1;
    store_fake.fail_code = ERR_TOO_LARGE;
    doc_set(&d, 1);
    loop_run_for(&r->f, STORE_BACKOFF_MS + 50);
    assert_int_equal(store_fake.runs, 1);
    doc_set(&d, 2);
    until_stored(r, "k", "2");
    doc_end(r, &d);
}

static void live_writes_let_ops_go_first(void **state)
{
    struct room *r = *state;
    struct doc d;
    struct ask a[3];
    doc_init(&d, r->s, "live");
    store_fake.hold = true;
    room_ask(r, &a[0], STORE_GET, "a", NULL);
    room_turn(r);
    doc_set(&d, 1);
    room_turn(r);
    room_ask(r, &a[1], STORE_GET, "b", NULL);
    room_ask(r, &a[2], STORE_GET, "c", NULL);
    room_turn(r);
    store_fake.hold = false;
    store_fake_finish();
    until_stored(r, "live", "1");
    assert_string_equal(store_fake.log, "get a;get b;get c;put live=1;");
    for (unsigned i = 0; i < 3; i++)
        ask_done(&a[i]);
    doc_end(r, &d);
}

static void but_not_for_ever(void **state)
{
    struct room *r = *state;
    struct doc d;
    struct ask a[3];
    doc_init(&d, r->s, "live");
    store_fake.hold = true;
    room_ask(r, &a[0], STORE_GET, "a", NULL);
    room_turn(r);
    doc_set(&d, 1);
    d.live.not_before_ms -= STORE_STARVED_MS + 1; /* instead of waiting */
    room_ask(r, &a[1], STORE_GET, "b", NULL);
    room_ask(r, &a[2], STORE_GET, "c", NULL);
    store_fake.hold = false;
    store_fake_finish();
    ask_wait(&a[2], &r->f);
    assert_string_equal(store_fake.log, "get a;put live=1;get b;get c;");
    for (unsigned i = 0; i < 3; i++)
        ask_done(&a[i]);
    doc_end(r, &d);
}

static void a_live_write_waits_for_ops_of_its_key(void **state)
{
    struct room *r = *state;
    struct doc d;
    struct ask a;
    doc_init(&d, r->s, "k");
    store_fake.hold = true;
    room_ask(r, &a, STORE_REMOVE, "k", NULL);
    room_turn(r);
    doc_set(&d, 1);
    loop_run_for(&r->f, 10);
    assert_int_equal(store_fake.runs, 1);
    assert_int_equal(d.renders, 0);
    store_fake_finish_all();
    until_stored(r, "k", "1");
    ask_done(&a);
    doc_end(r, &d);
}

static void after_its_end_no_older_value_lands(void **state)
{
    struct room *r = *state;
    struct doc d;
    struct ask last;
    doc_init(&d, r->s, "k");
    store_fake.hold = true;
    doc_set(&d, 1);
    room_turn(r);
    doc_set(&d, 2);
    store_live_end(&d.live, doc_on_end);
    room_turn(r);
    assert_false(d.ended); /* a write is in flight */
    room_ask(r, &last, STORE_PUT, "k", "last");
    store_fake_finish();
    loop_run_until(&r->f, &d.ended, "the end of a live document");
    store_touch(&d.live);
    store_fake_finish_all();
    ask_wait(&last, &r->f);
    loop_run_for(&r->f, FAKE_INTERVAL_MS + 10);
    assert_string_equal(store_fake_value("k"), "last");
    assert_string_equal(store_fake.log, "put k=1;put k=last;");
    ask_done(&last);
}

static void a_document_may_be_freed_when_its_end_is_told(void **state)
{
    struct room *r = *state;
    struct doc *d = xcalloc(1, sizeof(*d));
    doc_init(d, r->s, "k");
    doc_set(d, 1); /* dirty, and never written */
    doc_end(r, d);
    memset(d, 0xee, sizeof(*d));
    loop_run_for(&r->f, 10);
    assert_int_equal(store_fake.runs, 0);
    free(d);
}

/* --- the end --------------------------------------------------------------------------------- */

static bool closed;

static void on_closed(void *ctx)
{
    (void)ctx;
    assert_false(closed);
    closed = true;
}

static void start_closing(struct room *r, uint64_t wait_ms)
{
    closed = false;
    store_close(r->s, wait_ms, on_closed, NULL);
    r->s = NULL;
    assert_false(closed);
}

static void until_held(struct room *r)
{
    uint64_t end = clock_mono_ms() + LONG_MS;
    while (clock_mono_ms() < end && list_is_empty(&store_fake.held))
        (void)uv_run(&r->f.loop, UV_RUN_NOWAIT);
    assert_false(list_is_empty(&store_fake.held));
}

static void closing_flushes_live_documents(void **state)
{
    struct room *r = *state;
    struct doc d;
    doc_init(&d, r->s, "k");
    doc_set(&d, 1);
    until_stored(r, "k", "1");
    doc_set(&d, 2);
    d.live.not_before_ms += 2 * LONG_MS; /* an interval that does not pass */
    store_fake.hold = true;
    start_closing(r, LONG_MS);
    until_held(r);
    store_live_end(&d.live, doc_on_end);
    store_fake_finish_all();
    assert_string_equal(store_fake_value("k"), "2");
    loop_run_until(&r->f, &closed, "the end of the store");
    assert_true(d.ended);
    assert_int_equal(store_fake.closes, 1);
}

static void closing_repeats_a_write_that_failed(void **state)
{
    struct room *r = *state;
    struct doc d;
    doc_init(&d, r->s, "k");
    doc_set(&d, 1);
    store_fake.fail = 1;
    store_fake.hold = true;
    start_closing(r, LONG_MS);
    until_held(r);
    store_fake_finish();
    assert_null(store_fake_value("k"));
    until_held(r);
    store_live_end(&d.live, doc_on_end);
    store_fake_finish_all();
    assert_string_equal(store_fake_value("k"), "1");
    loop_run_until(&r->f, &closed, "the end of the store");
    assert_true(d.ended);
}

static void closing_waits_for_ops_and_refuses_more(void **state)
{
    struct room *r = *state;
    struct store *s = r->s;
    struct ask a, b;
    store_fake.hold = true;
    room_ask(r, &a, STORE_PUT, "k", "1");
    room_turn(r);
    start_closing(r, LONG_MS);
    b = (struct ask){.done = false};
    ask_add(&b, STORE_GET, "k", NULL);
    ask_start(&b, s);
    room_turn(r);
    assert_int_equal(b.op.doc[0].result, ERR_UNAVAILABLE);
    assert_false(closed || a.done);
    store_fake_finish();
    loop_run_until(&r->f, &closed, "the end of the store");
    assert_int_equal(a.op.doc[0].result, ERR_OK);
    assert_true(store_fake.close_wait_ms > 0);
    ask_done(&a);
    ask_done(&b);
}

static void closing_has_a_deadline(void **state)
{
    struct room *r = *state;
    struct ask running, waiting;
    struct doc d;
    doc_init(&d, r->s, "live");
    store_fake.hold = true;
    room_ask(r, &running, STORE_PUT, "k", "1");
    room_ask(r, &waiting, STORE_PUT, "k", "2");
    room_turn(r);
    store_fake.fail = 100;
    doc_set(&d, 1);
    store_live_end(&d.live, doc_on_end);
    start_closing(r, SOON_MS);
    loop_run_until(&r->f, &closed, "the end of the store");
    assert_int_equal(store_fake.close_wait_ms, 0);
    assert_true(running.done && waiting.done && d.ended);
    assert_int_equal(running.op.doc[0].result, ERR_TIMEOUT);   /* may have happened */
    assert_int_equal(waiting.op.doc[0].result, ERR_CANCELLED); /* has not */
    assert_string_equal(store_fake.log, "put k=1;");
    ask_done(&running);
    ask_done(&waiting);
}

static void done_that_closes(struct store_op *op)
{
    struct room *r = op->ctx;
    start_closing(r, LONG_MS);
}

static void it_can_be_closed_inside_done(void **state)
{
    struct room *r = *state;
    struct store_op op = {.n = 1, .done = done_that_closes, .ctx = r};
    op.doc[0].verb = STORE_REMOVE;
    (void)snprintf(op.doc[0].key, sizeof(op.doc[0].key), "k");
    closed = false;
    store_run(r->s, &op);
    loop_run_until(&r->f, &closed, "the end of the store");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(of_many_values_the_last_one_is_written),
        TEST(a_slow_backend_gets_the_value_of_the_moment),
        TEST(a_failed_write_is_repeated_with_the_newest_value),
        TEST(a_value_too_large_is_not_tried_again),
        TEST_NARROW(live_writes_let_ops_go_first),
        TEST_NARROW(but_not_for_ever),
        TEST(a_live_write_waits_for_ops_of_its_key),
        TEST(after_its_end_no_older_value_lands),
        TEST(a_document_may_be_freed_when_its_end_is_told),
        TEST(closing_flushes_live_documents),
        TEST(closing_repeats_a_write_that_failed),
        TEST(closing_waits_for_ops_and_refuses_more),
        TEST(closing_has_a_deadline),
        TEST(it_can_be_closed_inside_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
