/* Drain and close, whenever they come. */
#include "http_server_fixture.h"

static void on_drained(void *ctx)
{
    assert_ptr_equal(ctx, &t);
    t.drains++;
}

static void draining_lets_running_requests_end(void **state)
{
    (void)state;
    struct peer idle, busy;
    start(keep, usual);
    peer_open(&idle);
    peer_open(&busy);
    peer_send(&busy, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(t.req != NULL && http_server_stats(t.server).connections == 2);
    http_server_drain(t.server, on_drained, &t);
    wait_for(peer_ended(&idle));
    assert_true(peer_is_refused());
    loop_run_for(&t.f, 10);
    assert_int_equal(t.drains, 0);
    http_respond(t.req, 200, NULL, SLICE("last"), NULL);
    assert_int_equal(t.drains, 0);
    wait_for(t.drains == 1);
    wait_for(peer_ended(&busy));
    peer_got(&busy, HEAD_OF("4") "connection: close\r\n\r\nlast");
    peer_close(&idle);
    peer_close(&busy);
    stop();
    assert_int_equal(t.drains, 1);
}

static void drain_in_handler(struct http_req *req, void *ctx)
{
    (void)ctx;
    http_server_drain(t.server, on_drained, &t);
    http_respond(req, 200, NULL, SLICE("bye"), NULL);
}

/* An answer that promised to go on was sent before: the rest of its request ends it all the same.
 */
static void draining_ends_what_is_being_skipped(void **state)
{
    (void)state;
    struct peer p;
    start(respond_path, usual);
    peer_open(&p);
    peer_send(&p, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na");
    wait_for(peer_has(&p, "200 OK"));
    http_server_drain(t.server, on_drained, &t);
    loop_run_for(&t.f, 10);
    assert_int_equal(t.drains, 0);
    peer_send(&p, "bc");
    wait_for(t.drains == 1);
    wait_for(peer_ended(&p));
    peer_close(&p);
    stop();
}

static void draining_may_begin_in_a_handler(void **state)
{
    (void)state;
    struct peer p;
    start(drain_in_handler, usual);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(t.drains == 1);
    wait_for(peer_ended(&p));
    assert_int_equal(peer_count(&p, "bye"), 1);
    peer_close(&p);
    stop();
}

static void draining_an_empty_server_is_told_from_the_loop(void **state)
{
    (void)state;
    start(keep, usual);
    http_server_drain(t.server, on_drained, &t);
    assert_int_equal(t.drains, 0);
    wait_for(t.drains == 1);
    stop();
}

static void never_told(struct http_req *req, const struct err *err, struct slice body)
{
    (void)req;
    (void)err;
    (void)body;
    fail();
}

static void read_on(struct http_req *req, void *ctx)
{
    keep(req, ctx);
    http_read_body(req, 100, never_told);
}

static void closing_tells_handlers_first(void **state)
{
    (void)state;
    struct peer p[2];
    start(read_on, usual);
    for (unsigned i = 0; i < 2; i++)
        peer_open(&p[i]);
    peer_send(&p[0], "GET / HTTP/1.1\r\n");
    peer_send(&p[1], "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab");
    wait_for(t.req != NULL && http_server_stats(t.server).connections == 2);
    http_server_close(t.server, on_closed, &t);
    assert_int_equal(t.aborts, 0);
    wait_for(t.closed);
    assert_int_equal(t.aborts, 1);
    peer_close(&p[0]);
    peer_close(&p[1]);
    stop();
}

static void close_in_handler(struct http_req *req, void *ctx)
{
    keep(req, ctx);
    http_server_close(t.server, on_closed, &t);
}

static void closing_may_begin_in_a_handler(void **state)
{
    (void)state;
    struct peer p;
    start(close_in_handler, usual);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(t.closed);
    assert_int_equal(t.aborts, 1);
    peer_close(&p);
    stop();
}

static void close_in_abort(struct http_req *req)
{
    on_abort(req);
    http_server_close(t.server, on_closed, &t);
}

static void keep_and_close_in_abort(struct http_req *req, void *ctx)
{
    keep(req, ctx);
    http_on_abort(req, close_in_abort);
}

static void closing_may_begin_in_an_abort(void **state)
{
    (void)state;
    struct peer p;
    start(keep_and_close_in_abort, usual);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(t.req != NULL);
    peer_cut(&p);
    wait_for(t.closed);
    stop();
}

static void a_server_that_was_not_started_can_be_closed(void **state)
{
    (void)state;
    memset(&t, 0, sizeof(t));
    loop_fixture_open(&t.f);
    buf_init(&t.log, SIZE_MAX);
    t.server = http_server_new(&t.f.loop, &t.f.later, &usual);
    stop();
}

static void a_taken_port_is_an_error(void **state)
{
    (void)state;
    struct http_server_options options = usual;
    start(keep, usual);
    struct http_server *first = t.server;
    options.host = "127.0.0.1";
    options.port = http_server_port(first);
    t.server = http_server_new(&t.f.loop, &t.f.later, &options);
    assert_int_equal(http_server_start(t.server, &t.err), ERR_UNAVAILABLE);
    assert_non_null(strstr(t.err.msg, "127.0.0.1"));
    http_server_close(t.server, on_closed, &t);
    loop_run_until(&t.f, &t.closed, "the second server's end");
    t.closed = false;
    t.server = first;
    stop();
}

static void an_address_of_another_machine_is_invalid(void **state)
{
    (void)state;
    struct http_server_options options = usual;
    memset(&t, 0, sizeof(t));
    loop_fixture_open(&t.f);
    buf_init(&t.log, SIZE_MAX);
    options.host = "192.0.2.1";
    t.server = http_server_new(&t.f.loop, &t.f.later, &options);
    assert_int_equal(http_server_start(t.server, &t.err), ERR_INVALID);
    assert_non_null(strstr(t.err.msg, "192.0.2.1"));
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draining_lets_running_requests_end),
        cmocka_unit_test(draining_ends_what_is_being_skipped),
        cmocka_unit_test(draining_may_begin_in_a_handler),
        cmocka_unit_test(draining_an_empty_server_is_told_from_the_loop),
        cmocka_unit_test(closing_tells_handlers_first),
        cmocka_unit_test(closing_may_begin_in_a_handler),
        cmocka_unit_test(closing_may_begin_in_an_abort),
        cmocka_unit_test(a_server_that_was_not_started_can_be_closed),
        cmocka_unit_test(a_taken_port_is_an_error),
        cmocka_unit_test(an_address_of_another_machine_is_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
