/* Calls in every state of theirs: waiting, cancelled, ended, and their client freed under them. */
#include "https_fixture.h"
#include "unit.h"

#include <stdio.h>
#include <unistd.h>

#define LOOPBACK "127.0.0.0/8"

static const struct peer_step stuck[] = {REQUEST, SENDS(OK_HEAD "Content-Length: 10\r\n\r\nhello"),
                                         DOES(PEER_SILENT)};

/* A client that does one call at a time. */
static void open_narrow(const struct peer_step *script)
{
    fixture_open(LOOPBACK, script);
    fixture_free();
    loop_run_until(&fix.loop, &fix.closed, "close");
    fix.freed = fix.closed = false;
    fix.options.connections_max = 1;
    fix.https = https_new(&fix.loop.loop, &fix.loop.later, &fix.options);
}

static void test_waiting(void **state)
{
    (void)state;
    open_narrow(serve);
    for (unsigned i = 0; i < 4; i++)
        (void)call_get(i, "127.0.0.1", "/");
    call_cancel(&fix.ones[2]);
    for (unsigned i = 0; i < 4; i++)
        call_check(&fix.ones[i], i == 2 ? ERR_CANCELLED : ERR_OK, "");
    assert_int_equal(fix.peer.accepted, 3);
    assert_ptr_equal(fix.order[0], &fix.ones[2]);
    assert_ptr_equal(fix.order[1], &fix.ones[0]);
    assert_ptr_equal(fix.order[2], &fix.ones[1]);
    assert_ptr_equal(fix.order[3], &fix.ones[3]);
    fixture_close();
}

static void test_deadline_of_one_that_waits(void **state)
{
    (void)state;
    open_narrow(silent);
    (void)call_get(0, "127.0.0.1", "/");
    struct watched_call *one = call_prepare(1, "GET", "127.0.0.1", "/");
    one->call.total_ms = 30;
    call_start(one);
    call_check(one, ERR_TIMEOUT, "not done within 30 ms");
    assert_false(fix.ones[0].ended || one->call.sent);
    call_cancel(&fix.ones[0]);
    call_check(&fix.ones[0], ERR_CANCELLED, "");
    fixture_close();
}

static void test_cancel_in_callbacks(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        fixture_open(LOOPBACK, i == 0 ? serve : stuck);
        struct watched_call *one = call_prepare(0, "GET", "127.0.0.1", "/");
        call_take_parts(one);
        one->cancel_in_head = i == 0;
        one->cancel_in_part = i == 1;
        call_start(one);
        call_check(one, ERR_CANCELLED, "");
        assert_int_equal(one->parts, i);
        fixture_close();
    }
}

static void test_cancel_while_a_name_is_looked_up(void **state)
{
    (void)state;
    fixture_open(LOOPBACK, serve);
    struct watched_call *one = call_get(0, "held.test", "/");
    assert_non_null(fix.held);
    call_cancel(one);
    call_cancel(one);
    call_check(one, ERR_CANCELLED, "");
    https_cancel(&one->call); /* idle: fine */
    resolve_answer(fix.held, NULL, 0, NULL);
    assert_int_equal(fix.ends, 1);
    fixture_close();
}

/* After each number of turns of the loop: connecting, sending, waiting, reading, ending. */
static void test_cancel_at_every_step(void **state)
{
    (void)state;
    for (unsigned turns = 0; turns < 14; turns++) {
        fixture_open(LOOPBACK, turns % 2 == 0 ? stuck : serve);
        fix.names[0] = (struct known_name){"a.test", "127.0.0.1"};
        struct watched_call *one = call_get(0, "a.test", "/");
        for (unsigned i = 0; i < turns; i++)
            (void)uv_run(&fix.loop.loop, UV_RUN_NOWAIT);
        if (one->ended)
            assert_int_equal(one->err.code, ERR_OK);
        else
            call_cancel(one);
        loop_run_until(&fix.loop, &one->ended, "on_end");
        assert_true(one->err.code == ERR_OK || one->err.code == ERR_CANCELLED);
        assert_int_equal(fix.ends, 1);
        fixture_close();
    }
}

static void test_free_at_every_step(void **state)
{
    (void)state;
    for (unsigned turns = 0; turns < 14; turns++) {
        open_narrow(stuck);
        fix.names[0] = (struct known_name){"a.test", "127.0.0.1"};
        (void)call_get(0, "a.test", "/");
        (void)call_get(1, "127.0.0.1", "/"); /* waits */
        for (unsigned i = 0; i < turns; i++)
            (void)uv_run(&fix.loop.loop, UV_RUN_NOWAIT);
        fixture_free();
        (void)call_get(2, "127.0.0.1", "/");
        loop_run_until(&fix.loop, &fix.closed, "close");
        for (unsigned i = 0; i < 3; i++)
            call_check(&fix.ones[i], ERR_CANCELLED, "cancelled");
        fixture_close();
    }
}

static void test_free_while_a_name_is_looked_up(void **state)
{
    (void)state;
    fixture_open(LOOPBACK, serve);
    struct watched_call *one = call_get(0, "held.test", "/");
    fixture_free();
    call_check(one, ERR_CANCELLED, "");
    loop_run_for(&fix.loop, 10);
    assert_false(fix.closed); /* the lookup cannot be broken off */
    resolve_answer(fix.held, NULL, 0, NULL);
    loop_run_until(&fix.loop, &fix.closed, "close");
    fixture_close();
}

static void test_free_in_on_end(void **state)
{
    (void)state;
    fixture_open(LOOPBACK, serve);
    struct watched_call *one = call_prepare(0, "GET", "127.0.0.1", "/");
    one->close_at_end = true;
    call_start(one);
    (void)call_get(1, "held.test", "/");
    call_check(one, ERR_OK, "");
    call_check(&fix.ones[1], ERR_CANCELLED, "");
    resolve_answer(fix.held, NULL, 0, NULL);
    fixture_close();
}

static void test_start_in_on_end(void **state)
{
    (void)state;
    fixture_open(LOOPBACK, serve);
    struct watched_call *one = call_prepare(0, "GET", "127.0.0.1", "/");
    one->start_at_end = one;
    call_start(one);
    call_check_body(one, 200, "hello"); /* the second time */
    assert_int_equal(fix.ends, 2);
    assert_int_equal(fix.peer.accepted, 2);
    fixture_close();
}

static void test_bad_urls_end_later(void **state)
{
    (void)state;
    fixture_open(LOOPBACK, serve);
    struct watched_call *one = call_prepare_url(0, "http://me:secret@127.0.0.1/?signature");
    call_start(one);
    assert_false(one->ended);
    call_check(one, ERR_INVALID, "password");
    assert_null(strstr(one->err.msg, "sec"));
    assert_null(strstr(one->err.msg, "sig"));
    one = call_prepare_url(1, "ftp://127.0.0.1/");
    call_start(one);
    call_cancel(one); /* too late to be told */
    call_check(one, ERR_INVALID, "http");
    fixture_close();
}

/* We were frozen for longer than the deadline: the answer that came meanwhile is taken. */
static void answer_then_sleep(struct peer_conn *conn)
{
    peer_send(conn, SLICE(HELLO));
    usleep(700 * 1000);
    uv_update_time(conn->tcp.loop);
}

static void test_frozen(void **state)
{
    (void)state;
    static const struct peer_step script[] = {REQUEST, CALLS(answer_then_sleep), DOES(PEER_SILENT)};
    fixture_open(LOOPBACK, script);
    struct watched_call *one = call_prepare(0, "GET", "127.0.0.1", "/");
    one->call.head_ms = one->call.total_ms = 150;
    call_start(one);
    call_check_body(one, 200, "hello");
    fixture_close();
}

static void test_many_at_once(void **state)
{
    (void)state;
    fixture_open(LOOPBACK, serve);
    for (unsigned i = 0; i < CALLS_MAX; i++)
        (void)call_get(i, "127.0.0.1", "/");
    for (unsigned i = 0; i < CALLS_MAX; i++)
        call_check_body(&fix.ones[i], 200, "hello");
    fixture_close();
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_waiting),
        cmocka_unit_test(test_deadline_of_one_that_waits),
        cmocka_unit_test(test_cancel_in_callbacks),
        cmocka_unit_test(test_cancel_while_a_name_is_looked_up),
        cmocka_unit_test(test_cancel_at_every_step),
        cmocka_unit_test(test_free_at_every_step),
        cmocka_unit_test(test_free_while_a_name_is_looked_up),
        cmocka_unit_test(test_free_in_on_end),
        cmocka_unit_test(test_start_in_on_end),
        cmocka_unit_test(test_bad_urls_end_later),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_many_at_once),
    };
    if (https_global_init(NULL) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
