/* Calls that wait or are given up: every deadline, pauses, cancelling and closing in every state.
 */
#include "http_up_fixture.h"
#include "unit.h"

#include <stdio.h>
#include <unistd.h>

/* --- deadlines ------------------------------------------------------------------------------- */

static struct watched_call *start_with(unsigned i, uint64_t head_ms, uint64_t idle_ms,
                                       uint64_t total_ms)
{
    struct watched_call *one = call_prepare(i, "GET", "/x");
    one->call.head_ms = head_ms;
    one->call.idle_ms = idle_ms;
    one->call.total_ms = total_ms;
    call_start(one);
    return one;
}

static void test_deadlines(void **state)
{
    (void)state;
    static const struct peer_step half_head[] = {
        REQUEST, SENDS("HTTP/1.1 100 Continue\r\n\r\nHTTP"), DOES(PEER_SILENT)};
    static const struct peer_step half_body[] = {
        REQUEST, SENDS(OK_HEAD "Content-Length: 10\r\n\r\nhello"), DOES(PEER_SILENT)};
    static const struct peer_step slow_body[] = {
        REQUEST,          DRIBBLES(OK_HEAD "Content-Length: 10\r\n\r\nh"),
        WAITS(20),        SENDS("ello"),
        WAITS(20),        SENDS("hello"),
        DOES(PEER_SILENT)};
    static const struct peer_step *const scripts[] = {half_head, silent, half_body, half_body,
                                                      slow_body};
    fixture_open(scripts, 5);
    call_check(start_with(0, 30, 0, 0), ERR_TIMEOUT, "no answer");
    call_check(start_with(1, 30, 0, 0), ERR_TIMEOUT, "no answer");
    call_check(start_with(2, 0, 30, 0), ERR_TIMEOUT, "in the answer");
    call_check(start_with(3, 0, 0, 30), ERR_TIMEOUT, "time allowed");
    call_check_body(start_with(4, 0, 1000, 0), 200, "hellohello");
    fixture_close();
}

static void test_request_deadline(void **state)
{
    (void)state;
    static char large[16 * 1024 * 1024];
    static const struct peer_step deaf[] = {DOES(PEER_STOP), DOES(PEER_SILENT)};
    fixture_open_one(deaf);
    struct watched_call *one = call_prepare(0, "POST", "/x");
    one->call.content = (struct slice){large, sizeof(large)};
    one->call.idle_ms = 30;
    call_start(one);
    call_check(one, ERR_TIMEOUT, "in the request");
    assert_true(one->call.sent);
    fixture_close();
}

/* While the caller has nothing to send, or does not want to read, no deadline but the total runs.
 */
static void test_caller_takes_its_time(void **state)
{
    (void)state;
    static const char *const pieces[] = {"a", "-", "b", NULL};
    static const struct peer_step script[] = {EXPECTS("0\r\n\r\n"), SENDS(HELLO),
                                              DOES(PEER_SILENT)};
    fixture_open_one(script);
    struct watched_call *one = call_prepare_stream(0);
    one->call.method = "POST";
    one->pieces = pieces;
    one->call.read_content = call_read_content;
    one->call.content_length = -1;
    one->call.head_ms = one->call.idle_ms = 30;
    one->pause_in_head = true;
    call_start(one);
    loop_run_for(&fix.loop, 60);
    assert_false(one->ended);
    one->call.head_ms = one->call.idle_ms = 10000; /* not the slow machine's test */
    http_up_more(&one->call);
    loop_run_until(&fix.loop, &one->headed, "head");
    loop_run_for(&fix.loop, 20);
    assert_false(one->ended);
    assert_int_equal(one->parts, 0);
    http_up_resume(&one->call);
    call_check_body(one, 200, "hello");
    fixture_close();
}

/* The caller has not taken it all, but nobody waits for the rest of the request any more. */
static void test_no_content_is_asked_for_once_the_answer_is_whole(void **state)
{
    (void)state;
    static const char *const pieces[] = {"a", "-", "b", NULL};
    static const struct peer_step script[] = {EXPECTS("a\r\n"), SENDS(HELLO), DOES(PEER_SILENT)};
    fixture_open_one(script);
    struct watched_call *one = call_prepare_stream(0);
    one->call.method = "POST";
    one->pieces = pieces;
    one->call.read_content = call_read_content;
    one->call.content_length = -1;
    one->pause_in_head = true;
    call_start(one);
    loop_run_until(&fix.loop, &one->headed, "head");
    loop_run_for(&fix.loop, 20);
    http_up_more(&one->call);
    loop_run_for(&fix.loop, 20);
    assert_ptr_equal(one->pieces, &pieces[2]);
    http_up_resume(&one->call);
    call_check_body(one, 200, "hello");
    fixture_close();
}

/* The loop stood still: that is not the server's time. */
static void test_frozen(void **state)
{
    (void)state;
    static const struct peer_step slow[] = {REQUEST, WAITS(50), SENDS(HELLO), DOES(PEER_SILENT)};
    fixture_open_one(slow);
    struct watched_call *one = start_with(0, 400, 400, 450);
    loop_run_for(&fix.loop, 10);
    (void)usleep(1000 * 1000);
    call_check_body(one, 200, "hello");
    fixture_close();
}

/* --- pause ----------------------------------------------------------------------------------- */

static void test_pause(void **state)
{
    (void)state;
    static const struct peer_step chunks[] = {
        REQUEST,
        SENDS(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"),
        DOES(PEER_AGAIN)};
    fixture_open_one(chunks);
    struct watched_call *one = call_prepare_stream(0);
    one->pause_in_part = true;
    call_start(one);
    loop_run_until(&fix.loop, &one->headed, "head");
    loop_run_for(&fix.loop, 10);
    assert_int_equal(one->parts, 1); /* though all came in one packet */
    assert_false(one->ended);
    fix.inside = true;
    http_up_resume(&one->call); /* pauses again in the part that comes */
    fix.inside = false;
    loop_run_for(&fix.loop, 10);
    assert_int_equal(one->parts, 2);
    assert_false(one->ended);
    http_up_resume(&one->call);
    call_check_body(one, 200, "abc");
    call_check_body(call_get(1), 200, "abc"); /* the connection is read again */
    assert_int_equal(fix.peer.accepted, 1);
    fixture_close();
}

/* A paused answer does not run into our memory: the server is not read. */
static void test_pause_stops_reading(void **state)
{
    (void)state;
    static char megabyte[1024 * 1024];
    static const struct peer_step flood[] = {REQUEST,
                                             SENDS(OK_HEAD "Content-Length: 33554432\r\n\r\n"),
                                             SENDS_MANY(megabyte, 32), DOES(PEER_SILENT)};
    fixture_open_one(flood);
    struct watched_call *one = call_prepare_stream(0);
    one->pause_in_head = true;
    call_start(one);
    loop_run_until(&fix.loop, &one->headed, "head");
    loop_run_for(&fix.loop, 50);
    assert_int_equal(one->parts, 0);
    assert_true(fix.peer.conns[0].busy); /* it is stuck */
    http_up_resume(&one->call);
    call_check(one, ERR_OK, "");
    assert_int_equal(one->body.len, sizeof(megabyte) * 32);
    fixture_close();
}

/* --- cancelling and closing ------------------------------------------------------------------ */

static void test_cancel(void **state)
{
    (void)state;
    static const char *const pieces[] = {"a", "-", NULL};
    static const struct peer_step body[] = {
        REQUEST, SENDS(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n"),
        DOES(PEER_SILENT)};
    static const struct peer_step *const scripts[] = {silent, silent, body, body, silent, serve};
    fixture_open(scripts, 6);
    struct watched_call *connecting = call_get(0);
    call_cancel(connecting);
    call_cancel(connecting);
    assert_false(connecting->ended);
    call_check(connecting, ERR_CANCELLED, "");
    struct watched_call *asked = call_get(1);
    loop_run_for(&fix.loop, 10);
    call_cancel(asked);
    call_check(asked, ERR_CANCELLED, "");
    struct watched_call *in_head = call_prepare_stream(2);
    in_head->cancel_in_head = true;
    call_start(in_head);
    call_check(in_head, ERR_CANCELLED, "");
    assert_int_equal(in_head->parts, 0);
    struct watched_call *in_part = call_prepare_stream(3);
    in_part->cancel_in_part = true;
    call_start(in_part);
    call_check(in_part, ERR_CANCELLED, "");
    assert_int_equal(in_part->parts, 1);
    struct watched_call *sending = call_start_stream(4, pieces, 10);
    loop_run_for(&fix.loop, 10);
    call_cancel(sending);
    call_check(sending, ERR_CANCELLED, "");
    call_check_body(call_get(5), 200, "hello");
    fixture_close();
}

/* on_end is on its way; the caller has changed his mind before it came. */
static void test_cancel_between(void **state)
{
    (void)state;
    fixture_open_one(serve);
    struct watched_call *bad = call_prepare(0, "GET", "no target");
    call_start(bad);
    call_await(call_get(1));
    call_check(bad, ERR_INVALID, "");
    struct watched_call *good = call_prepare(2, "GET", "no target");
    call_start(good);
    loop_run_for(&fix.loop, 0);
    call_cancel(good);
    call_await(good);
    fixture_close();
}

static void test_close_while_running(void **state)
{
    (void)state;
    static const char *const pieces[] = {"a", "-", NULL};
    static const struct peer_step half[] = {REQUEST, SENDS(OK_HEAD "Content-Length: 10\r\n\r\nx"),
                                            DOES(PEER_SILENT)};
    static const struct peer_step once[] = {REQUEST, SENDS(HELLO), DOES(PEER_SILENT)};
    static const struct peer_step *const scripts[] = {once, half, silent, silent};
    fixture_open(scripts, 4);
    fix.options.connections_max = 4;
    fixture_reopen();
    call_await(call_get(0));
    call_get(1);
    struct watched_call *paused = call_prepare_stream(2);
    paused->pause_in_part = true;
    call_start(paused);
    call_start_stream(3, pieces, 10);
    loop_run_for(&fix.loop, 10);
    for (unsigned i = 4; i < 8; i++)
        call_get(i);                                         /* connecting and waiting */
    fix.ones[1].start_at_end = call_prepare(8, "GET", "/x"); /* too late: ends too */
    fixture_close();
    for (unsigned i = 1; i < 8; i++) {
        assert_true(fix.ones[i].ended);
        assert_int_equal(fix.ones[i].err.code, ERR_CANCELLED);
    }
    assert_int_equal(fix.ones[8].err.code, ERR_UNAVAILABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_request_deadline),
        cmocka_unit_test(test_caller_takes_its_time),
        cmocka_unit_test(test_no_content_is_asked_for_once_the_answer_is_whole),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_pause_stops_reading),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_between),
        cmocka_unit_test(test_close_while_running),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
