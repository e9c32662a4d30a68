/* Connections after their upgrade: bytes both ways, bounds, ends. */
#include "http_server_fixture.h"

#define ASK    "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
#define ANSWER "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"

static struct {
    struct http_stream *stream; /* NULL: ended */
    struct buf in;
    unsigned drains, ends;
    enum err_code end; /* ERR_OK: in form */
    bool inside;       /* a call of ours into the stream is on the stack */
    bool may_upgrade;
    enum { DO_ECHO, DO_KEEP, DO_SHUT, DO_RESET } on_bytes;
} s;

static void on_bytes(struct http_stream *stream, struct slice bytes)
{
    assert_ptr_equal(stream, s.stream);
    assert_ptr_equal(http_stream_data(stream), &s);
    assert_false(s.inside);
    buf_add(&s.in, bytes);
    s.inside = true;
    if (s.on_bytes == DO_ECHO) {
        (void)http_stream_write(stream, bytes);
    } else if (s.on_bytes == DO_SHUT) {
        (void)http_stream_write(stream, SLICE("bye"));
        http_stream_shut(stream);
        s.stream = NULL;
    } else if (s.on_bytes == DO_RESET) {
        http_stream_reset(stream);
        s.stream = NULL;
    }
    s.inside = false;
}

static void on_drain(struct http_stream *stream)
{
    assert_ptr_equal(stream, s.stream);
    assert_false(s.inside);
    assert_true(http_stream_pending(stream) <= HTTP_WRITE_LOW);
    s.drains++;
}

static void on_end(struct http_stream *stream, const struct err *err)
{
    assert_ptr_equal(stream, s.stream);
    assert_false(s.inside);
    s.stream = NULL;
    s.ends++;
    s.end = err != NULL ? err->code : ERR_OK;
}

static void upgrade_as(struct http_req *req, bool lasting)
{
    struct http_headers extra;
    const struct http_stream_options options = {.on_bytes = on_bytes,
                                                .on_drain = on_drain,
                                                .on_end = on_end,
                                                .data = &s,
                                                .lasting = lasting};
    http_headers_init(&extra);
    assert_int_equal(http_headers_add(&extra, SLICE("upgrade"), SLICE("echo")), ERR_OK);
    s.inside = true;
    s.stream = http_upgrade(req, &extra, &options);
    s.inside = false;
    http_headers_done(&extra);
}

static void upgrade(struct http_req *req, void *ctx)
{
    (void)ctx;
    s.may_upgrade = http_req_may_upgrade(req);
    if (s.may_upgrade)
        upgrade_as(req, false);
    else
        http_respond(req, 400, NULL, SLICE_EMPTY, NULL);
}

static void upgrade_lasting(struct http_req *req, void *ctx)
{
    (void)ctx;
    upgrade_as(req, true);
}

static void begin(http_handler_cb handler, struct http_server_options options)
{
    memset(&s, 0, sizeof(s));
    buf_init(&s.in, SIZE_MAX);
    start(handler, options);
}

static void finish(void)
{
    stop();
    buf_done(&s.in);
}

static void open_stream(struct peer *p)
{
    peer_open(p);
    peer_send(p, ASK);
    wait_for(peer_has(p, "\r\n\r\n"));
    peer_got(p, ANSWER);
}

/* --- the upgrade ------------------------------------------------------------------------------ */

static void bytes_behind_the_head_are_the_first(void **state)
{
    (void)state;
    struct peer p;
    begin(upgrade, usual);
    peer_open(&p);
    peer_send(&p, ASK "one");
    peer_send(&p, "two");
    wait_for(peer_has(&p, "onetwo"));
    peer_got(&p, ANSWER "onetwo");
    assert_int_equal(http_server_stats(t.server).streams, 1);
    assert_int_equal(http_server_stats(t.server).in_flight, 0);
    peer_close(&p);
    wait_for(s.ends == 1);
    assert_int_equal(s.end, ERR_OK);
    assert_int_equal(http_server_stats(t.server).streams, 0);
    wait_for(http_server_stats(t.server).connections == 0);
    finish();
}

static void the_request_may_come_byte_by_byte(void **state)
{
    (void)state;
    struct peer p;
    begin(upgrade, usual);
    peer_open(&p);
    peer_send_slowly(&p, ASK "one");
    wait_for(peer_has(&p, "one"));
    peer_got(&p, ANSWER "one");
    peer_close(&p);
    finish();
}

static void it_may_be_upgraded_later(void **state)
{
    (void)state;
    struct peer p;
    begin(keep, usual);
    peer_open(&p);
    peer_send(&p, ASK "one");
    wait_for(t.req != NULL);
    peer_send(&p, "two");
    turn();
    http_add_header(t.req, SLICE("x-a"), SLICE("b"));
    upgrade_as(t.req, false);
    assert_int_equal(s.in.len, 0);
    wait_for(peer_has(&p, "onetwo"));
    assert_true(peer_has(&p, "x-a: b\r\n"));
    peer_close(&p);
    finish();
    assert_int_equal(t.aborts, 0);
}

static void what_is_no_offer_is_none(void **state)
{
    static const char *const asks[] = {
        "\r\n\r\n",
        "\r\nUpgrade: echo\r\n\r\n",
        "\r\nConnection: upgrade\r\n\r\n",
        "\r\nConnection: upgrade\r\nUpgrade: echo\r\nContent-Length: 3\r\n\r\n",
        "\r\nConnection: upgrade\r\nUpgrade: echo\r\nTransfer-Encoding: chunked\r\n\r\n",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(asks); i++) {
        struct peer p;
        begin(upgrade, usual);
        peer_open(&p);
        peer_send(&p, "POST / HTTP/1.1\r\nHost: h");
        peer_send(&p, asks[i]);
        wait_for(peer_has(&p, "HTTP/1.1 400 "));
        peer_close(&p);
        finish();
    }
}

/* --- both ways -------------------------------------------------------------------------------- */

static void small_writes_of_one_turn_leave_together_and_in_order(void **state)
{
    (void)state;
    struct peer p;
    begin(upgrade, usual);
    s.on_bytes = DO_KEEP;
    open_stream(&p);
    for (unsigned i = 0; i < 10; i++) {
        char text[2] = {(char)('0' + i), '\0'};
        assert_true(http_stream_write(s.stream, slice_of(text)));
    }
    assert_int_equal(http_stream_pending(s.stream), 10);
    wait_for(peer_has(&p, "0123456789"));
    assert_int_equal(http_stream_pending(s.stream), 0);
    peer_close(&p);
    finish();
}

static void a_paused_stream_leaves_bytes_with_the_peer(void **state)
{
    (void)state;
    struct peer p;
    size_t sent = 0;
    begin(upgrade, usual);
    s.on_bytes = DO_KEEP;
    open_stream(&p);
    http_stream_pause(s.stream);
    turn();
    for (unsigned idle = 0; idle < 50;) { /* until the kernel takes no more */
        ssize_t n = send(p.fd, filler, sizeof(filler), MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        idle = n > 0 ? 0 : idle + 1;
        turn();
    }
    assert_int_equal(s.in.len, 0);
    http_stream_resume(s.stream);
    wait_for(s.in.len == sent);
    peer_close(&p);
    finish();
}

static void a_pause_inside_holds_what_comes_next(void **state)
{
    (void)state;
    struct peer p;
    begin(upgrade, usual);
    s.on_bytes = DO_KEEP;
    open_stream(&p);
    http_stream_pause(s.stream);
    turn();
    peer_send(&p, "one");
    loop_run_for(&t.f, 20);
    assert_int_equal(s.in.len, 0);
    peer_close(&p); /* its end comes behind what it sent */
    loop_run_for(&t.f, 20);
    assert_int_equal(s.ends, 0);
    http_stream_resume(s.stream);
    assert_int_equal(s.in.len, 0);
    wait_for(s.ends == 1);
    assert_string_equal(s.in.ptr, "one");
    finish();
}

static void neither_bytes_nor_the_end_come_while_paused(void **state)
{
    static const char *const asks[] = {ASK "one", ASK};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(asks); i++) {
        struct peer p;
        begin(keep, usual);
        s.on_bytes = DO_KEEP;
        peer_open(&p);
        peer_send(&p, asks[i]);
        (void)shutdown(p.fd, SHUT_WR);
        wait_for(t.req != NULL && t.req->conn->eof);
        upgrade_as(t.req, false);
        http_stream_pause(s.stream);
        loop_run_for(&t.f, 20);
        assert_int_equal(s.in.len + s.ends, 0);
        http_stream_resume(s.stream);
        wait_for(s.ends == 1);
        assert_int_equal(s.in.len, strlen(asks[i]) - strlen(ASK));
        assert_int_equal(s.end, ERR_OK);
        peer_close(&p);
        finish();
    }
}

static void who_is_behind_is_told_of_once_there_is_room(void **state)
{
    (void)state;
    struct peer p;
    size_t sent = 0;
    begin(upgrade, usual);
    s.on_bytes = DO_KEEP;
    open_stream(&p);
    while (http_stream_write(s.stream, (struct slice){filler, 64 * 1024}))
        sent += 64 * 1024;
    sent += 64 * 1024;
    assert_true(http_stream_pending(s.stream) > HTTP_WRITE_HIGH);
    assert_int_equal(s.drains, 0);
    wait_for((peer_receive(&p), p.in.len == sent));
    wait_for(s.drains == 1);
    peer_close(&p);
    finish();
}

/* Between the marks a write says true; the word of room, once promised, comes all the same. */
static void who_goes_on_is_told_of_it_too(void **state)
{
    (void)state;
    struct peer p;
    begin(upgrade, usual);
    int little = 4096; /* with the kernel, so that much is with us */
    s.on_bytes = DO_KEEP;
    open_stream(&p);
    (void)uv_send_buffer_size((uv_handle_t *)&s.stream->conn->tcp, &little);
    (void)setsockopt(p.fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof(little));
    (void)http_stream_write(s.stream, (struct slice){filler, 190000});
    while (http_stream_write(s.stream, (struct slice){filler, 30000}))
        ;
    while (http_stream_pending(s.stream) > HTTP_WRITE_HIGH) {
        char bytes[1024];
        (void)recv(p.fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        turn();
    }
    assert_true(http_stream_pending(s.stream) > HTTP_WRITE_LOW);
    assert_true(http_stream_write(s.stream, SLICE("on")));
    wait_for((peer_receive(&p), s.drains == 1));
    peer_close(&p);
    finish();
}

/* --- bounds ----------------------------------------------------------------------------------- */

static void who_is_too_far_behind_is_cut(void **state)
{
    (void)state;
    struct peer p;
    struct http_server_options options = usual;
    options.stream_max = 1024 * 1024;
    begin(upgrade, options);
    s.on_bytes = DO_KEEP;
    open_stream(&p);
    for (unsigned i = 0; i < 1000 && s.stream != NULL; i++) {
        (void)http_stream_write(s.stream, (struct slice){filler, 64 * 1024});
        assert_true(http_stream_pending(s.stream) <= options.stream_max);
        turn();
    }
    assert_int_equal(s.end, ERR_TOO_LARGE);
    wait_for(peer_ended(&p));
    assert_true(p.reset);
    peer_close(&p);
    finish();
}

static void who_takes_nothing_is_cut(void **state)
{
    (void)state;
    struct peer p;
    struct http_server_options options = usual;
    options.stream_ms = 50;
    begin(upgrade, options);
    s.on_bytes = DO_KEEP;
    open_stream(&p);
    while (http_stream_write(s.stream, (struct slice){filler, 64 * 1024}))
        ;
    wait_for(s.ends == 1);
    assert_int_equal(s.end, ERR_TIMEOUT);
    wait_for(peer_ended(&p));
    assert_true(p.reset);
    peer_close(&p);
    finish();
}

static void a_quiet_stream_has_no_deadline(void **state)
{
    (void)state;
    struct peer p;
    struct http_server_options options = usual;
    options.stream_ms = options.write_ms = options.idle_ms = options.body_ms = options.head_ms = 20;
    begin(upgrade, options);
    open_stream(&p);
    loop_run_for(&t.f, 100);
    peer_send(&p, "here");
    wait_for(peer_has(&p, "here"));
    peer_close(&p);
    finish();
}

/* --- ends ------------------------------------------------------------------------------------- */

static void what_was_written_leaves_before_the_end(void **state)
{
    (void)state;
    struct peer p;
    begin(upgrade, usual);
    s.on_bytes = DO_SHUT;
    peer_open(&p);
    peer_send(&p, ASK "one");
    wait_for(peer_ended(&p));
    peer_got(&p, ANSWER "bye");
    assert_false(p.reset);
    peer_send(&p, "into the void");
    peer_close(&p);
    wait_for(http_server_stats(t.server).connections == 0);
    assert_int_equal(s.ends, 0);
    finish();
}

static void much_that_was_written_does_too(void **state)
{
    (void)state;
    struct peer p;
    begin(upgrade, usual);
    s.on_bytes = DO_KEEP;
    open_stream(&p);
    for (unsigned i = 0; i < 6; i++)
        (void)http_stream_write(s.stream, (struct slice){filler, sizeof(filler)});
    http_stream_shut(s.stream);
    wait_for(peer_ended(&p));
    assert_int_equal(p.in.len, 6 * sizeof(filler));
    assert_false(p.reset);
    peer_close(&p);
    finish();
}

static void a_reset_is_seen_as_one(void **state)
{
    (void)state;
    struct peer p;
    begin(upgrade, usual);
    s.on_bytes = DO_RESET;
    peer_open(&p);
    peer_send(&p, ASK "one");
    wait_for(peer_ended(&p));
    assert_true(p.reset);
    peer_close(&p);
    finish();
    assert_int_equal(s.ends, 0);
}

static void a_peer_that_is_cut_off_is_told_of(void **state)
{
    (void)state;
    struct peer p;
    begin(upgrade, usual);
    open_stream(&p);
    peer_cut(&p);
    wait_for(s.ends == 1);
    assert_int_equal(s.end, ERR_CLOSED);
    finish();
    assert_int_equal(s.ends, 1);
}

static void what_is_queued_still_reaches_who_has_closed_his_side(void **state)
{
    (void)state;
    struct peer p;
    begin(upgrade, usual);
    peer_open(&p);
    peer_send(&p, ASK "one");
    (void)shutdown(p.fd, SHUT_WR);
    wait_for(peer_ended(&p));
    peer_got(&p, ANSWER "one");
    assert_int_equal(s.ends, 1);
    assert_int_equal(s.end, ERR_OK);
    peer_close(&p);
    finish();
}

static void closing_the_server_ends_streams(void **state)
{
    (void)state;
    struct peer p;
    begin(upgrade, usual);
    open_stream(&p);
    http_server_close(t.server, on_closed, &t);
    assert_int_equal(s.ends, 0);
    loop_run_until(&t.f, &t.closed, "the server's end");
    assert_int_equal(s.ends, 1);
    assert_int_equal(s.end, ERR_CANCELLED);
    wait_for(peer_ended(&p));
    peer_close(&p);
    finish();
}

static bool drained;

static void on_drained(void *ctx)
{
    (void)ctx;
    drained = true;
}

static void a_drain_waits_for_streams(void **state)
{
    (void)state;
    struct peer p;
    begin(upgrade, usual);
    open_stream(&p);
    drained = false;
    http_server_drain(t.server, on_drained, NULL);
    loop_run_for(&t.f, 30);
    assert_false(drained);
    peer_send(&p, "still");
    wait_for(peer_has(&p, "still"));
    http_stream_shut(s.stream);
    wait_for(drained);
    peer_close(&p);
    finish();
}

static void a_drain_does_not_wait_for_lasting_ones(void **state)
{
    (void)state;
    struct peer p;
    begin(upgrade_lasting, usual);
    open_stream(&p);
    drained = false;
    http_server_drain(t.server, on_drained, NULL);
    wait_for(drained);
    peer_send(&p, "still");
    wait_for(peer_has(&p, "still"));
    http_stream_shut(s.stream); /* and is not counted twice */
    wait_for(peer_ended(&p));
    peer_close(&p);
    wait_for(http_server_stats(t.server).connections == 0);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_behind_the_head_are_the_first),
        cmocka_unit_test(the_request_may_come_byte_by_byte),
        cmocka_unit_test(it_may_be_upgraded_later),
        cmocka_unit_test(what_is_no_offer_is_none),
        cmocka_unit_test(small_writes_of_one_turn_leave_together_and_in_order),
        cmocka_unit_test(a_paused_stream_leaves_bytes_with_the_peer),
        cmocka_unit_test(a_pause_inside_holds_what_comes_next),
        cmocka_unit_test(neither_bytes_nor_the_end_come_while_paused),
        cmocka_unit_test(who_is_behind_is_told_of_once_there_is_room),
        cmocka_unit_test(who_goes_on_is_told_of_it_too),
        cmocka_unit_test(who_is_too_far_behind_is_cut),
        cmocka_unit_test(who_takes_nothing_is_cut),
        cmocka_unit_test(a_quiet_stream_has_no_deadline),
        cmocka_unit_test(what_was_written_leaves_before_the_end),
        cmocka_unit_test(much_that_was_written_does_too),
        cmocka_unit_test(a_reset_is_seen_as_one),
        cmocka_unit_test(a_peer_that_is_cut_off_is_told_of),
        cmocka_unit_test(what_is_queued_still_reaches_who_has_closed_his_side),
        cmocka_unit_test(closing_the_server_ends_streams),
        cmocka_unit_test(a_drain_waits_for_streams),
        cmocka_unit_test(a_drain_does_not_wait_for_lasting_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
