/* Bodies of requests: whole, in parts, too long, unwanted, broken. */
#include "http_server_fixture.h"

static void bodies_are_read_whole(void **state)
{
    (void)state;
    struct peer p;
    start(echo, usual);
    peer_open(&p);
    peer_send(&p, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
                  "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(t.calls == 2);
    peer_got(&p, HEAD_OF("5") "\r\nhello" HEAD_OF("0") "\r\n");
    peer_send_slowly(&p, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                         "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nA: b\r\n\r\n");
    wait_for(peer_has(&p, "abcde"));
    peer_got(&p, HEAD_OF("5") "\r\nabcde");
    peer_close(&p);
    stop();
}

static void on_taken(struct http_req *req, const struct err *err, struct slice body)
{
    struct buf taken;
    assert_null(err);
    assert_true(slice_is(body, "hello"));
    http_take_body(req, &taken);
    http_respond(req, 200, NULL, buf_slice(&taken), NULL);
    assert_string_equal(taken.ptr, "hello"); /* it outlives the request */
    buf_done(&taken);
}

static void a_body_can_be_taken_later_and_kept(void **state)
{
    (void)state;
    struct peer p;
    start(keep, usual);
    peer_open(&p);
    peer_send(&p, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    wait_for(t.req != NULL);
    loop_run_for(&t.f, 10);
    http_read_body(t.req, 5, on_taken);
    assert_int_equal(t.server->stats.in_flight, 1); /* not inside the call */
    wait_for(peer_has(&p, "hello"));
    peer_close(&p);
    stop();
}

static void read_four(struct http_req *req, void *ctx)
{
    (void)ctx;
    http_read_body(req, 4, echo_whole);
}

static void bodies_that_are_too_long_are_refused(void **state)
{
    (void)state;
    struct peer p;
    start(read_four, usual);
    peer_open(&p);
    /* Declared too long, not by much: it is thrown away and the connection stays. */
    peer_send(&p, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    wait_for(peer_has(&p, "longer than 4"));
    peer_got(&p, "HTTP/1.1 413 Content Too Large\r\ncontent-length: 31\r\ndate: DATE\r\n\r\n"
                 "the body is longer than 4 bytes");
    peer_close(&p);
    stop();
}

static void chunks_that_are_too_many_are_refused(void **state)
{
    (void)state;
    struct peer p;
    start(read_four, usual);
    peer_open(&p);
    peer_send(&p, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "3\r\nabc\r\n2\r\nde\r\n");
    wait_for(peer_has(&p, " 413 "));
    peer_send(&p, "0\r\n\r\nPOST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd");
    wait_for(peer_has(&p, "abcd"));
    peer_close(&p);
    stop();
}

static void malformed_bodies_reach_the_handler_as_an_error(void **state)
{
    (void)state;
    struct peer p;
    start(echo, usual);
    peer_open(&p);
    peer_send(&p, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "3\r\nabcXX2\r\nde\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(peer_ended(&p));
    assert_true(peer_has(&p, "HTTP/1.1 400 "));
    assert_true(peer_has(&p, "connection: close"));
    assert_int_equal(t.calls, 1);
    peer_close(&p);
    stop();
}

static void clients_that_wait_for_a_word_get_it_when_the_body_is_wanted(void **state)
{
    (void)state;
    struct peer p;
    start(keep, usual);
    peer_open(&p);
    peer_send(&p,
              "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    wait_for(t.req != NULL);
    loop_run_for(&t.f, 10);
    peer_got(&p, "");
    http_read_body(t.req, 100, echo_whole);
    wait_for(peer_has(&p, "100 Continue"));
    peer_got(&p, "HTTP/1.1 100 Continue\r\n\r\n");
    peer_send(&p, "ab");
    wait_for(peer_has(&p, "ab"));
    peer_got(&p, HEAD_OF("2") "\r\nab");
    peer_close(&p);
    stop();
}

static void who_waits_for_a_word_and_gets_an_answer_is_done(void **state)
{
    (void)state;
    struct peer p;
    start(respond_path, usual);
    peer_open(&p);
    peer_send(&p,
              "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    wait_for(peer_ended(&p));
    peer_got(&p, HEAD_OF("1") "connection: close\r\n\r\n/");
    peer_close(&p);
    stop();
}

static void a_declared_body_too_large_gets_no_word(void **state)
{
    (void)state;
    struct peer p;
    start(read_four, usual);
    peer_open(&p);
    peer_send(&p,
              "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    wait_for(peer_ended(&p));
    assert_true(peer_has(&p, "HTTP/1.1 413 "));
    assert_false(peer_has(&p, "100 Continue"));
    peer_close(&p);
    stop();
}

static void bodies_that_nobody_reads_are_thrown_away(void **state)
{
    (void)state;
    struct peer p;
    start(respond_path, usual);
    peer_open(&p);
    peer_send_post(&p, HTTP_SKIP_BYTES);
    peer_send_bytes(&p, (struct slice){filler, HTTP_SKIP_BYTES});
    peer_send(&p, "GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(peer_has(&p, "/next"));
    peer_got(&p, HEAD_OF("2") "\r\n/p" HEAD_OF("5") "\r\n/next");
    peer_close(&p);
    stop();
}

static void a_long_body_that_nobody_reads_ends_the_connection_but_not_the_answer(void **state)
{
    (void)state;
    struct peer p;
    start(respond_path, usual);
    peer_open(&p);
    peer_send_post(&p, sizeof(filler));
    peer_send_bytes(&p,
                    (struct slice){filler, sizeof(filler)}); /* as one who does not listen yet */
    wait_for(peer_ended(&p));
    assert_false(p.reset);
    peer_got(&p, HEAD_OF("2") "connection: close\r\n\r\n/p");
    peer_close(&p);
    wait_for(http_server_stats(t.server).connections == 0);
    stop();
}

static void endless_chunks_that_nobody_reads_end_the_connection(void **state)
{
    (void)state;
    struct peer p;
    start(respond_path, usual);
    peer_open(&p);
    peer_send(&p, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n");
    peer_send_bytes(&p, (struct slice){filler, sizeof(filler)});
    wait_for(peer_ended(&p));
    assert_true(peer_has(&p, "200 OK"));
    peer_close(&p);
    stop();
}

/* In parts, with pauses. */

static void on_part(struct http_req *req, struct slice part)
{
    assert_ptr_equal(req, t.req);
    buf_add(&t.log, part);
    buf_adds(&t.log, "|");
    http_pause_body(req);
}

static void on_parts_end(struct http_req *req, const struct err *err)
{
    t.ends++;
    t.err.code = err != NULL ? err->code : ERR_OK;
    http_respond(req, 200, NULL, buf_slice(&t.log), NULL);
}

static const struct http_body_events parts = {on_part, on_parts_end};

static void stream(struct http_req *req, void *ctx)
{
    keep(req, ctx);
    http_stream_body(req, &parts);
}

static void a_paused_body_comes_no_further(void **state)
{
    (void)state;
    struct peer p;
    start(stream, usual);
    peer_open(&p);
    peer_send(&p, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "1\r\na\r\n1\r\nb\r\n0\r\n\r\nGET / HTTP/1.1\r\n");
    wait_for(t.log.len > 0);
    loop_run_for(&t.f, 10);
    assert_string_equal(t.log.ptr, "a|");
    http_resume_body(t.req);
    assert_string_equal(t.log.ptr, "a|");
    wait_for(t.log.len == 4);
    loop_run_for(&t.f, 10);
    assert_int_equal(t.ends, 0);
    http_resume_body(t.req);
    assert_int_equal(t.ends, 0);
    wait_for(peer_has(&p, "a|b|"));
    assert_int_equal(t.err.code, ERR_OK);
    peer_close(&p);
    stop();
}

static void a_paused_body_stops_the_peer(void **state)
{
    (void)state;
    struct peer p;
    start(stream, usual);
    peer_open(&p);
    peer_send_post(&p, (size_t)64 * sizeof(filler)); /* more than is read at once */
    size_t sent = 0;
    for (unsigned idle = 0; idle < 50;) {
        ssize_t n = send(p.fd, filler, sizeof(filler), MSG_DONTWAIT | MSG_NOSIGNAL);
        turn();
        idle = n > 0 ? 0 : idle + 1;
        if (n > 0)
            sent += (size_t)n;
        else
            (void)poll(NULL, 0, 1);
    }
    assert_true(sent < (size_t)48 * sizeof(filler));
    assert_true(t.log.len <= HTTP_READ_BODY_BYTES + 1);
    assert_true(t.req->conn->unread.len <= HTTP_READ_BODY_BYTES);
    peer_close(&p);
    stop();
    assert_int_equal(t.aborts, 1);
}

static size_t whole_len;

static void think_about_it(struct http_req *req, const struct err *err, struct slice body)
{
    (void)req;
    assert_null(err);
    whole_len = body.len;
}

static void read_and_think(struct http_req *req, void *ctx)
{
    (void)ctx;
    t.req = req;
    http_read_body(req, 16 * sizeof(filler), think_about_it);
}

/* As much as there is room for on its way; nothing is read meanwhile. */
static size_t peer_fill(struct peer *p, size_t most)
{
    size_t sent = 0;
    while (sent < most) {
        size_t left = most - sent;
        ssize_t n = send(p->fd, filler, left < sizeof(filler) ? left : sizeof(filler),
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n <= 0)
            break;
        sent += (size_t)n;
    }
    return sent;
}

/* The windows are wide open by the end of a long body. */
static void what_follows_a_long_body_is_read_ahead_a_little(void **state)
{
    (void)state;
    struct peer p;
    const size_t body = 8 * sizeof(filler);
    start(read_and_think, usual);
    peer_open(&p);
    peer_send_post(&p, body);
    for (size_t sent = 0; sent < body - 1;) {
        sent += peer_fill(&p, body - 1 - sent);
        turn();
    }
    wait_for(t.req != NULL && t.req->body.len == body - 1);
    whole_len = 0;
    assert_true(peer_fill(&p, SIZE_MAX) > HTTP_READ_BODY_BYTES);
    wait_for(whole_len == body);
    loop_run_for(&t.f, 20);
    assert_true(t.req->conn->unread.len > 0);
    assert_true(t.req->conn->unread.len <= HTTP_READ_BYTES + HTTP_UNREAD_BYTES);
    peer_close(&p);
    stop();
}

static void respond_in_part(struct http_req *req, struct slice part)
{
    (void)part;
    http_respond(req, 200, NULL, SLICE("enough"), NULL);
}

static void never_ends(struct http_req *req, const struct err *err)
{
    (void)req;
    (void)err;
    fail();
}

static void stream_and_stop(struct http_req *req, void *ctx)
{
    static const struct http_body_events events = {respond_in_part, never_ends};
    (void)ctx;
    http_stream_body(req, &events);
}

static void a_handler_may_answer_inside_a_part(void **state)
{
    (void)state;
    struct peer p;
    start(stream_and_stop, usual);
    peer_open(&p);
    for (unsigned i = 0; i < 2; i++) {
        peer_send(&p, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                      "1\r\na\r\n1\r\nb\r\n0\r\n\r\n");
        wait_for(peer_has(&p, "enough"));
        peer_got(&p, HEAD_OF("6") "\r\nenough");
    }
    peer_send(&p, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nxx");
    wait_for(peer_ended(&p));
    peer_close(&p);
    stop();
}

static void reset_in_part(struct http_req *req, struct slice part)
{
    (void)part;
    http_reset(req);
}

static void stream_and_reset(struct http_req *req, void *ctx)
{
    static const struct http_body_events events = {reset_in_part, never_ends};
    (void)ctx;
    http_stream_body(req, &events);
}

static void a_handler_may_reset_inside_a_part(void **state)
{
    (void)state;
    struct peer p;
    start(stream_and_reset, usual);
    peer_open(&p);
    peer_send(&p, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc");
    wait_for(peer_ended(&p));
    assert_true(p.reset);
    peer_close(&p);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_are_read_whole),
        cmocka_unit_test(a_body_can_be_taken_later_and_kept),
        cmocka_unit_test(bodies_that_are_too_long_are_refused),
        cmocka_unit_test(chunks_that_are_too_many_are_refused),
        cmocka_unit_test(malformed_bodies_reach_the_handler_as_an_error),
        cmocka_unit_test(clients_that_wait_for_a_word_get_it_when_the_body_is_wanted),
        cmocka_unit_test(who_waits_for_a_word_and_gets_an_answer_is_done),
        cmocka_unit_test(a_declared_body_too_large_gets_no_word),
        cmocka_unit_test(bodies_that_nobody_reads_are_thrown_away),
        cmocka_unit_test(a_long_body_that_nobody_reads_ends_the_connection_but_not_the_answer),
        cmocka_unit_test(endless_chunks_that_nobody_reads_end_the_connection),
        cmocka_unit_test(a_paused_body_comes_no_further),
        cmocka_unit_test(a_paused_body_stops_the_peer),
        cmocka_unit_test(what_follows_a_long_body_is_read_ahead_a_little),
        cmocka_unit_test(a_handler_may_answer_inside_a_part),
        cmocka_unit_test(a_handler_may_reset_inside_a_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
