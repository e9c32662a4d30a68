/* Deadlines, and what an idle connection costs. */
#include "http_server_fixture.h"

static void a_head_that_does_not_end_is_refused(void **state)
{
    (void)state;
    struct peer p;
    struct http_server_options options = usual;
    options.head_ms = 150;
    start(echo, options);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\n");
    for (int sent = 0; sent < 500 && !peer_has(&p, "\r\n\r\n"); sent++) {
        peer_send(&p, "a"); /* bytes that come do not help */
        turn();
        (void)poll(NULL, 0, 1);
    }
    assert_true(peer_has(&p, "\r\n\r\n")); /* at the latest after so many milliseconds */
    wait_for(peer_ended(&p));
    assert_true(peer_has(&p, "HTTP/1.1 408 Request Timeout\r\n"));
    assert_true(peer_has(&p, "{\"message\":\"RequestParamsError\",\"error\":{\"code\":\"request_"
                             "timeout\",\"detail\":"));
    peer_close(&p);
    assert_int_equal(t.calls, 0);
    stop();
}

static void a_head_that_does_not_begin_is_no_reason_to_talk(void **state)
{
    (void)state;
    struct peer p;
    struct http_server_options options = usual;
    options.head_ms = 30;
    start(echo, options);
    peer_open(&p);
    wait_for(peer_ended(&p));
    assert_int_equal(p.in.len, 0);
    assert_false(p.reset);
    peer_close(&p);
    stop();
}

static void a_body_that_does_not_come_is_told(void **state)
{
    (void)state;
    struct peer p;
    struct http_server_options options = usual;
    options.body_ms = 60;
    start(echo, options);
    peer_open(&p);
    peer_send(&p, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe");
    wait_for(peer_ended(&p));
    assert_true(peer_has(&p, "HTTP/1.1 408 "));
    assert_true(peer_has(&p, "connection: close\r\n"));
    peer_close(&p);
    stop();
}

static void a_body_that_comes_slowly_is_awaited(void **state)
{
    (void)state;
    struct peer p;
    struct http_server_options options = usual;
    options.body_ms = 300; /* much more than a step, less than all of them */
    start(echo, options);
    peer_open(&p);
    peer_send(&p, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n");
    for (unsigned i = 0; i < 10; i++) {
        loop_run_for(&t.f, 40);
        peer_send(&p, "x");
    }
    wait_for(peer_has(&p, "xxxxxxxxxx"));
    peer_close(&p);
    stop();
}

static void a_handler_may_take_its_time(void **state)
{
    (void)state;
    struct peer p;
    struct http_server_options options = usual;
    options.head_ms = options.body_ms = options.idle_ms = options.write_ms = 100;
    start(keep, options);
    peer_open(&p);
    peer_send(&p, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe");
    wait_for(t.req != NULL);
    loop_run_for(&t.f, 250);
    assert_int_equal(t.aborts, 0);
    http_respond(t.req, 200, NULL, SLICE("done"), NULL);
    wait_for(peer_has(&p, "done"));
    peer_close(&p);
    stop();
}

static void idle_connections_close_silently(void **state)
{
    (void)state;
    struct peer p;
    struct http_server_options options = usual;
    options.idle_ms = 30;
    start(respond_path, options);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\n\r\n");
    wait_for(peer_ended(&p));
    assert_false(p.reset);
    peer_got(&p, HEAD_OF("1") "\r\n/");
    peer_close(&p);
    stop();
}

static void an_idle_connection_holds_no_memory(void **state)
{
    (void)state;
    struct peer p;
    start(respond_path, usual);
    assert_true(sizeof(struct http_conn) - sizeof(uv_tcp_t) <= 1024);
    peer_open(&p);
    peer_send_slowly(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(peer_has(&p, "/"));
    turn();
    const struct http_conn *c = CONTAINER_OF(t.server->conns.next, struct http_conn, link);
    assert_int_equal(c->state, CONN_IDLE);
    assert_null(c->parser);
    assert_null(c->req);
    assert_null(c->unread.ptr);
    assert_null(c->out.ptr);
    assert_null(c->sending.ptr);
    peer_close(&p);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_head_that_does_not_end_is_refused),
        cmocka_unit_test(a_head_that_does_not_begin_is_no_reason_to_talk),
        cmocka_unit_test(a_body_that_does_not_come_is_told),
        cmocka_unit_test(a_body_that_comes_slowly_is_awaited),
        cmocka_unit_test(a_handler_may_take_its_time),
        cmocka_unit_test(idle_connections_close_silently),
        cmocka_unit_test(an_idle_connection_holds_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
