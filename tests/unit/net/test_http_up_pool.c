/* The pool of the plain-HTTP client, the queue before it, and the rule of sending once more. */
#include "http_up_fixture.h"
#include "unit.h"

#include <stdio.h>
#include <unistd.h>

/* --- the pool -------------------------------------------------------------------------------- */

static void test_kept_alive(void **state)
{
    (void)state;
    fixture_open_one(serve);
    struct watched_call *second = call_prepare(1, "GET", "/x");
    struct watched_call *first = call_prepare(0, "GET", "/x");
    first->start_at_end = second;
    call_start(first);
    call_check_body(second, 200, "hello");
    call_check_body(call_get(2), 200, "hello");
    assert_int_equal(fix.peer.accepted, 1);
    fixture_close();
}

static void test_not_kept(void **state)
{
    (void)state;
    static const struct peer_step closing[] = {
        REQUEST, SENDS(OK_HEAD "Connection: close\r\nContent-Length: 1\r\n\r\nx"),
        DOES(PEER_SILENT)};
    static const struct peer_step talkative[] = {
        REQUEST, SENDS(HELLO "HTTP/1.1 500 Poison\r\n\r\n"), DOES(PEER_SILENT)};
    static const struct peer_step old[] = {
        REQUEST, SENDS("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"), DOES(PEER_SILENT)};
    static const struct peer_step *const scripts[] = {closing, talkative, old, serve};
    fixture_open(scripts, 4);
    call_check_body(call_get(0), 200, "x");
    call_check_body(call_get(1), 200, "hello");
    call_check_body(call_get(2), 200, "x");
    call_check_body(call_get(3), 200, "hello");
    assert_int_equal(fix.peer.accepted, 4);
    fixture_close();
}

static void test_newest_first(void **state)
{
    (void)state;
    fixture_open_one(serve);
    call_get(0);
    call_get(1);
    call_await(&fix.ones[0]);
    call_await(&fix.ones[1]);
    assert_int_equal(fix.peer.accepted, 2);
    size_t before[2] = {fix.peer.conns[0].in.len, fix.peer.conns[1].in.len};
    /* Which of the two ended last is the kernel's matter; the same one serves all that follow. */
    for (unsigned i = 2; i < 6; i++)
        call_await(call_get(i));
    bool first = fix.peer.conns[0].in.len > before[0],
         second = fix.peer.conns[1].in.len > before[1];
    assert_true(first != second);
    fixture_close();
}

static void test_idle_bounds(void **state)
{
    (void)state;
    fixture_open_one(serve);
    fix.options.idle_max = 1;
    fix.options.idle_ms = 30;
    fixture_reopen();
    for (unsigned i = 0; i < 3; i++)
        call_get(i);
    for (unsigned i = 0; i < 3; i++)
        call_await(&fix.ones[i]);
    loop_run_for(&fix.loop, 5);
    unsigned open = 0;
    for (unsigned i = 0; i < 3; i++)
        open += !fix.peer.conns[i].ended;
    assert_true(open <= 1);
    bool *last = &fix.peer.conns[0].ended;
    for (unsigned i = 0; i < 3; i++)
        if (!fix.peer.conns[i].ended)
            last = &fix.peer.conns[i].ended;
    loop_run_until(&fix.loop, last, "the idle connection's end");
    fixture_close();
}

/* As many as ran at once are there for the next calls. */
static void test_all_are_kept(void **state)
{
    enum { AT_ONCE = CALLS_MAX / 2 };
    (void)state;
    fixture_open_one(serve);
    for (unsigned turn = 0; turn < 2; turn++) {
        for (unsigned i = 0; i < AT_ONCE; i++)
            call_get(turn * AT_ONCE + i);
        for (unsigned i = 0; i < AT_ONCE; i++)
            call_check_body(&fix.ones[turn * AT_ONCE + i], 200, "hello");
    }
    assert_int_equal(fix.peer.accepted, AT_ONCE);
    fixture_close();
}

static void test_idle_max_0(void **state)
{
    (void)state;
    fixture_open_one(serve);
    fix.options.idle_max = 0;
    fixture_reopen();
    call_check_body(call_get(0), 200, "hello");
    assert_non_null(strstr(fixture_received(0), "\r\nConnection: close\r\n"));
    loop_run_until(&fix.loop, &fix.peer.conns[0].ended, "the connection's end");
    fixture_close();
}

/* An idle connection that the server closes, or talks on, is not used for the next call. */
static void test_idle_closed_by_server(void **state)
{
    (void)state;
    static const struct peer_step closes[] = {REQUEST, SENDS(HELLO), WAITS(10), DOES(PEER_CLOSE)};
    static const struct peer_step resets[] = {REQUEST, SENDS(HELLO), WAITS(10), DOES(PEER_RESET)};
    static const struct peer_step talks[] = {REQUEST, SENDS(HELLO), WAITS(10),
                                             SENDS("HTTP/1.1 408 Too Slow\r\n\r\n"),
                                             DOES(PEER_SILENT)};
    static const struct peer_step *const scripts[] = {closes, resets, talks, serve};
    fixture_open(scripts, 4);
    for (unsigned i = 0; i < 4; i++) {
        struct watched_call *one = call_prepare(i, "POST", "/x");
        call_start(one);
        call_check_body(one, 200, "hello");
        loop_run_for(&fix.loop, 40);
    }
    assert_int_equal(fix.peer.accepted, 4);
    fixture_close();
}

static void test_forget(void **state)
{
    (void)state;
    static const struct peer_step slow[] = {REQUEST, WAITS(30), SENDS(HELLO), DOES(PEER_SILENT)};
    static const struct peer_step *const scripts[] = {serve, slow, serve};
    fixture_open(scripts, 3);
    call_await(call_get(0));
    http_up_forget(fix.up);
    struct watched_call *running = call_get(1);
    loop_run_for(&fix.loop, 5);
    http_up_forget(fix.up); /* what runs goes on, but not into the pool */
    call_check_body(running, 200, "hello");
    call_check_body(call_get(2), 200, "hello");
    assert_int_equal(fix.peer.accepted, 3);
    fixture_close();
}

static void test_queue(void **state)
{
    (void)state;
    fixture_open_one(serve);
    fix.options.connections_max = 2;
    fixture_reopen();
    for (unsigned i = 0; i < 20; i++)
        call_get(i);
    for (unsigned i = 0; i < 20; i++)
        call_check_body(&fix.ones[i], 200, "hello");
    assert_int_equal(fix.peer.accepted, 2);
    for (unsigned i = 2; i < 20; i++) { /* in order, but for the two that run side by side */
        long place = fix.order[i] - fix.ones;
        assert_true(place + 1 >= (long)i && place <= (long)i + 1);
    }
    fixture_close();
}

/* Who waits has deadlines too, and a slot that becomes free in whatever way is used. */
static void test_queue_deadlines(void **state)
{
    (void)state;
    static const struct peer_step *const scripts[] = {silent, serve};
    fixture_open(scripts, 2);
    fix.options.connections_max = 1;
    fixture_reopen();
    struct watched_call *holder = call_get(0);
    struct watched_call *waiting = call_prepare(1, "GET", "/x");
    waiting->call.connect_ms = 20;
    call_start(waiting);
    struct watched_call *total = call_prepare(2, "GET", "/x");
    total->call.total_ms = 20;
    call_start(total);
    struct watched_call *cancelled = call_get(3);
    struct watched_call *patient = call_get(4);
    call_check(waiting, ERR_TIMEOUT, "became free");
    call_check(total, ERR_TIMEOUT, "time allowed");
    assert_false(waiting->call.sent || total->call.sent);
    call_cancel(cancelled);
    call_check(cancelled, ERR_CANCELLED, "");
    call_cancel(holder);
    call_check(holder, ERR_CANCELLED, "");
    call_check_body(patient, 200, "hello");
    fixture_close();
}

static void test_no_server(void **state)
{
    (void)state;
    fixture_open(NULL, 0);
    fix.options.connections_max = 1;
    fixture_reopen();
    for (unsigned i = 0; i < 3; i++)
        call_get(i);
    for (unsigned i = 0; i < 3; i++)
        call_check(&fix.ones[i], ERR_UNAVAILABLE, "refused");
    fix.options.host = "localhost";
    fixture_reopen();
    call_check(call_get(3), ERR_INVALID, "numbers");
    fixture_close();
}

/* --- once more ------------------------------------------------------------------------------- */

static const struct peer_step dies_later[] = {REQUEST, SENDS(HELLO), REQUEST, DOES(PEER_CLOSE)};
static const struct peer_step resets_later[] = {REQUEST, SENDS(HELLO), REQUEST, DOES(PEER_RESET)};
static const struct peer_step dies_midway[] = {REQUEST, SENDS(HELLO), REQUEST, SENDS("H"),
                                               DOES(PEER_CLOSE)};
static const struct peer_step dies_at_once[] = {REQUEST, DOES(PEER_CLOSE)};

static struct watched_call *start_again(unsigned i, const char *method, bool repeatable)
{
    struct watched_call *one = call_prepare(i, method, "/again");
    one->call.repeatable = repeatable;
    call_start(one);
    return one;
}

static void test_repeated(void **state)
{
    (void)state;
    static const struct peer_step *const scripts[] = {dies_later, serve};
    static const struct peer_step *const resets[] = {resets_later, serve};
    for (unsigned i = 0; i < 4; i++) {
        fixture_open(i < 2 ? scripts : resets, 2);
        call_check_body(call_get(0), 200, "hello");
        call_check_body(start_again(1, i % 2 == 0 ? "GET" : "POST", i % 2 == 1), 200, "hello");
        assert_int_equal(fix.peer.accepted, 2);
        assert_non_null(strstr(fixture_received(0), "/again"));
        assert_non_null(strstr(fixture_received(1), "/again"));
        fixture_close();
    }
}

static void test_not_repeated(void **state)
{
    (void)state;
    static const char *const pieces[] = {"abc", NULL};
    static const struct peer_step *const post[] = {dies_later, serve};
    static const struct peer_step *const midway[] = {dies_midway, serve};
    static const struct peer_step *const fresh[] = {dies_at_once, serve};
    static const struct peer_step *const twice[] = {dies_later, dies_at_once, serve};
    fixture_open(post, 2);
    call_check_body(call_get(0), 200, "hello");
    struct watched_call *posted = start_again(1, "POST", false);
    call_check(posted, ERR_CLOSED, "before an answer"); /* it may have been done */
    assert_true(posted->call.sent);
    assert_int_equal(fix.peer.accepted, 1);
    fixture_close();
    fixture_open(midway, 2);
    call_check_body(call_get(0), 200, "hello");
    call_check(start_again(1, "GET", false), ERR_CLOSED, "in the middle");
    fixture_close();
    fixture_open(fresh, 2);
    call_check(call_get(0), ERR_CLOSED, "before an answer");
    assert_int_equal(fix.peer.accepted, 1);
    fixture_close();
    fixture_open(twice, 3);
    call_check_body(call_get(0), 200, "hello");
    call_check(start_again(1, "GET", false), ERR_CLOSED, "before an answer");
    assert_int_equal(fix.peer.accepted, 2);
    fixture_close();
    fixture_open(post, 2); /* its content cannot be asked for again */
    call_check_body(call_get(0), 200, "hello");
    struct watched_call *streamed = call_prepare(1, "POST", "/again");
    streamed->call.repeatable = true;
    streamed->call.read_content = call_read_content;
    streamed->call.content_length = -1;
    streamed->pieces = pieces;
    call_start(streamed);
    call_check(streamed, ERR_CLOSED, "before an answer");
    fixture_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept_alive),
        cmocka_unit_test(test_not_kept),
        cmocka_unit_test(test_newest_first),
        cmocka_unit_test(test_idle_bounds),
        cmocka_unit_test(test_all_are_kept),
        cmocka_unit_test(test_idle_max_0),
        cmocka_unit_test(test_idle_closed_by_server),
        cmocka_unit_test(test_forget),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_queue_deadlines),
        cmocka_unit_test(test_no_server),
        cmocka_unit_test(test_repeated),
        cmocka_unit_test(test_not_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
