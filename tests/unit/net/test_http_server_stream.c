/* Streamed answers, and peers that do not read them or leave. */
#include "http_server_fixture.h"

/* --- streamed answers ------------------------------------------------------------------------ */

static void stream_parts(struct http_req *req, void *ctx)
{
    (void)ctx;
    http_begin(req, 200, "text/plain", -1, NULL);
    assert_true(http_write(req, SLICE("one")));
    assert_true(http_write(req, SLICE_EMPTY)); /* would be the last chunk */
    assert_true(http_write(req, SLICE("two")));
    http_end(req);
}

static void streamed_answers_are_chunked(void **state)
{
    (void)state;
    struct peer p;
    start(stream_parts, usual);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\nHEAD / HTTP/1.1\r\nHost: h\r\n\r\n"
                  "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    wait_for(peer_ended(&p));
#define STREAM_HEAD(more) "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n" more "\r\n"
    peer_got(
        &p,
        STREAM_HEAD("transfer-encoding: chunked\r\ndate: DATE\r\n") "3\r\none\r\n3\r\ntwo\r\n0\r\n"
                                                                    "\r\n" STREAM_HEAD(
                                                                        "transfer-encoding: "
                                                                        "chunked\r\ndate: DATE\r\n")
                                                                        STREAM_HEAD(
                                                                            "date: "
                                                                            "DATE\r\nconnection: "
                                                                            "close\r\n") "onetwo");
    assert_false(p.reset);
    peer_close(&p);
    stop();
}

static void begin_and_keep(struct http_req *req, void *ctx)
{
    keep(req, ctx);
    http_begin(req, 200, NULL, slice_is(http_req_path(req), "/n") ? 6 : -1, NULL);
}

static void what_is_begun_leaves_without_being_asked(void **state)
{
    (void)state;
    struct peer p;
    start(begin_and_keep, usual);
    peer_open(&p);
    peer_send(&p, "GET /n HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(peer_has(&p, "\r\n\r\n"));
    peer_got(&p, HEAD_OF("6") "\r\n");
    assert_true(http_write(t.req, SLICE("one")));
    wait_for(peer_has(&p, "one"));
    assert_true(http_write(t.req, SLICE("two")));
    http_end(t.req);
    wait_for(peer_has(&p, "two"));
    peer_got(&p, "onetwo");
    peer_close(&p);
    stop();
}

static void less_than_was_declared_is_a_broken_message(void **state)
{
    (void)state;
    struct peer p;
    start(begin_and_keep, usual);
    peer_open(&p);
    peer_send(&p, "GET /n HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(peer_has(&p, "\r\n\r\n"));
    (void)http_write(t.req, SLICE("one"));
    http_end(t.req);
    wait_for(peer_ended(&p));
    assert_true(p.reset);
    peer_close(&p);
    assert_int_equal(t.aborts, 0);
    stop();
}

static void a_reset_shows_that_the_message_is_broken(void **state)
{
    (void)state;
    struct peer p;
    start(begin_and_keep, usual);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(peer_has(&p, "\r\n\r\n"));
    (void)http_write(t.req, SLICE("one"));
    wait_for(peer_has(&p, "one"));
    http_reset(t.req);
    wait_for(peer_ended(&p));
    assert_true(p.reset);
    assert_false(peer_has(&p, "0\r\n"));
    assert_int_equal(t.aborts, 0);
    assert_int_equal(http_server_stats(t.server).in_flight, 0);
    peer_close(&p);
    stop();
}

enum { FLOOD_BYTES = 96 * 1024 * 1024 };
static size_t flood_left, flood_most;
static bool flood_full;

static void flood(struct http_req *req)
{
    assert_false(flood_full && t.drains == 0);
    flood_full = false;
    while (flood_left > 0 && !flood_full) {
        size_t n = flood_left % 3 == 0 ? 700 : 40000;
        n = n < flood_left ? n : flood_left;
        flood_left -= n;
        flood_full = !http_write(req, (struct slice){filler, n});
        size_t pending = out_pending(req->conn);
        assert_int_equal(flood_full, pending > HTTP_WRITE_HIGH);
        flood_most = pending > flood_most ? pending : flood_most;
    }
    if (flood_left == 0)
        http_end(req);
}

static void on_drain(struct http_req *req)
{
    t.drains++;
    assert_true(flood_full);
    assert_true(out_pending(req->conn) <= HTTP_WRITE_LOW);
    flood(req);
}

static void begin_flood(struct http_req *req, void *ctx)
{
    keep(req, ctx);
    flood_left = FLOOD_BYTES;
    flood_most = 0;
    flood_full = false;
    http_begin(req, 200, NULL, FLOOD_BYTES, NULL);
    http_on_drain(req, on_drain);
    flood(req);
}

static void a_long_answer_needs_little_memory(void **state)
{
    (void)state;
    struct peer p;
    size_t got = 0;
    start(begin_flood, usual);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(t.calls == 1 && flood_full);
    loop_run_for(&t.f, 20); /* it does not read yet */
    while (got < FLOOD_BYTES && !p.ended) {
        turn();
        peer_receive(&p);
        got += p.in.len;
        buf_reset(&p.in);
    }
    assert_true(got > FLOOD_BYTES);
    assert_true(t.drains > 1);
    assert_true(flood_most <= HTTP_WRITE_HIGH + 40000 + 16);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); /* and the connection lives on */
    wait_for(t.calls == 2);
    peer_close(&p);
    stop();
    assert_int_equal(t.aborts, 1);
}

static void a_peer_that_does_not_read_is_cut(void **state)
{
    (void)state;
    struct peer p;
    struct http_server_options options = usual;
    options.write_ms = 50;
    start(begin_flood, options);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(t.aborts == 1);
    assert_int_equal(http_server_stats(t.server).connections, 0);
    peer_close(&p);
    stop();
}

static void take_what_the_kernel_has(struct peer *p)
{
    struct pollfd here = {.fd = p->fd, .events = POLLIN};
    while (poll(&here, 1, 20) == 1) /* the loop does not turn: no more than that comes */
        assert_true(recv(p->fd, filler, sizeof(filler), 0) > 0);
}

static void let_write_deadline_end(struct http_conn *c)
{
    deadline_clear(&c->write_deadline);
    out_on_write_over(&c->write_deadline);
}

/* The kernel's buffer is silent for a long time: what counts is what the peer takes from it. */
static void a_peer_that_reads_slowly_is_not_cut(void **state)
{
    (void)state;
    struct peer p;
    start(begin_flood, usual);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(t.calls == 1 && flood_full);
    struct http_conn *c = t.req->conn;
    for (unsigned i = 0; i < 3; i++) {
        take_what_the_kernel_has(&p);
        let_write_deadline_end(c);
        assert_int_equal(t.aborts, 0);
        for (unsigned k = 0; k < 20; k++)
            turn();
    }
    for (unsigned k = 0; k < 1000 && t.aborts == 0; k++) {
        (void)poll(NULL, 0, 1); /* what is under way arrives, and then nothing is taken */
        let_write_deadline_end(c);
    }
    assert_int_equal(t.aborts, 1);
    peer_close(&p);
    stop();
}

static void closing_with_an_answer_on_its_way(void **state)
{
    (void)state;
    struct peer p;
    start(begin_flood, usual);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(t.calls == 1 && flood_full);
    stop();
    assert_int_equal(t.aborts, 1);
    peer_close(&p);
}

/* --- peers that leave ------------------------------------------------------------------------ */

static void a_reset_of_the_peer_is_told_at_once(void **state)
{
    (void)state;
    struct peer p;
    start(keep, usual);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(t.req != NULL);
    peer_cut(&p);
    wait_for(t.aborts == 1);
    assert_int_equal(http_server_stats(t.server).in_flight, 0);
    stop();
}

static void a_peer_that_closes_has_left_after_a_while(void **state)
{
    (void)state;
    struct peer p;
    start(keep, usual);
    t.server->classes[DEADLINE_HALF].ms = 50;
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(t.req != NULL);
    peer_close(&p);
    loop_run_for(&t.f, 10);
    assert_int_equal(t.aborts, 0);
    wait_for(t.aborts == 1);
    stop();
}

static void a_peer_that_only_ends_its_requests_is_answered(void **state)
{
    (void)state;
    struct peer p;
    start(keep, usual);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
    (void)shutdown(p.fd, SHUT_WR);
    for (unsigned i = 1; i <= 2; i++) {
        wait_for(t.calls == i);
        loop_run_for(&t.f, 10);
        http_respond(t.req, 200, NULL, SLICE("late"), NULL);
    }
    wait_for(peer_ended(&p));
    assert_int_equal(peer_count(&p, "late"), 2);
    peer_close(&p);
    stop();
}

static void peers_that_die_in_mid_sentence_leave_nothing(void **state)
{
    (void)state;
    static const char whole[] = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhell";
    start(echo, usual);
    for (size_t n = 0; n < sizeof(whole); n++)
        for (unsigned how = 0; how < 2; how++) {
            struct peer p;
            peer_open(&p);
            peer_send_bytes(&p, (struct slice){whole, n});
            turn();
            if (how == 0)
                peer_close(&p);
            else
                peer_cut(&p);
            turn();
        }
    wait_for(http_server_stats(t.server).connections == 0 &&
             http_server_stats(t.server).accepted == 2 * sizeof(whole));
    assert_int_equal(http_server_stats(t.server).in_flight, 0);
    stop();
}

static void writing_to_one_who_has_left_is_harmless(void **state)
{
    (void)state;
    struct peer p;
    start(begin_and_keep, usual);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(peer_has(&p, "\r\n\r\n"));
    peer_cut(&p);
    while (http_write(t.req, (struct slice){filler, 100000}))
        (void)poll(NULL, 0, 1);    /* the loop does not run: only writing can notice */
    assert_int_equal(t.aborts, 0); /* but the news comes from the loop */
    assert_false(http_write(t.req, SLICE("more")));
    wait_for(t.aborts == 1);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streamed_answers_are_chunked),
        cmocka_unit_test(what_is_begun_leaves_without_being_asked),
        cmocka_unit_test(less_than_was_declared_is_a_broken_message),
        cmocka_unit_test(a_reset_shows_that_the_message_is_broken),
        cmocka_unit_test(a_long_answer_needs_little_memory),
        cmocka_unit_test(a_peer_that_does_not_read_is_cut),
        cmocka_unit_test(a_peer_that_reads_slowly_is_not_cut),
        cmocka_unit_test(closing_with_an_answer_on_its_way),
        cmocka_unit_test(a_reset_of_the_peer_is_told_at_once),
        cmocka_unit_test(a_peer_that_closes_has_left_after_a_while),
        cmocka_unit_test(a_peer_that_only_ends_its_requests_is_answered),
        cmocka_unit_test(peers_that_die_in_mid_sentence_leave_nothing),
        cmocka_unit_test(writing_to_one_who_has_left_is_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
