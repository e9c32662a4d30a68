/* The server's side of a WebSocket on a real server: which requests open one, messages and
 * fragments both ways, pings, and every way in which it ends. */
#include "http_server_fixture.h"
#include "ws_handshake.h"
#include "ws_server.h"

#include <stdio.h>
#include <stdlib.h>

#define KEY     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" /* RFC 6455, 1.3 */
#define UPGRADE "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define OPEN    "GET /ws HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION KEY "\r\n"
#define ANSWER                                                                                     \
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"            \
    "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\ntask-id: t\r\n\r\n"

/* What a client sends: masked, with a mask that changes nothing. */
#define MASKED "\x00\x00\x00\x00"

static struct {
    struct ws_server *socket; /* NULL after its end */
    struct ws_server_options options;
    unsigned ends, code;
    bool close_inside, reset_inside;
} w;

static void on_text(struct ws_server *s, struct slice text)
{
    assert_ptr_equal(ws_server_ctx(s), &w);
    buf_addf(&t.log, "text:%.*s ", SLICE_ARGS(text));
    if (w.close_inside || w.reset_inside)
        w.socket = NULL;
    if (w.close_inside)
        ws_server_close(s, 1000, "enough");
    else if (w.reset_inside)
        ws_server_reset(s);
}

static void on_binary(struct ws_server *s, struct slice bytes)
{
    (void)s;
    buf_addf(&t.log, "binary#%zu ", bytes.len);
}

static void on_drained(struct ws_server *s)
{
    assert_ptr_equal(s, w.socket);
    t.drains++;
}

static void on_end(struct ws_server *s, unsigned code)
{
    assert_ptr_equal(s, w.socket);
    w.socket = NULL;
    w.ends++;
    w.code = code;
}

static void open_socket(struct http_req *req, void *ctx)
{
    struct http_headers extra;
    const char *why = NULL;
    (void)ctx;
    int status = ws_handshake_judge(http_req_head(req), &why);
    if (status != 0) {
        http_respond(req, status, NULL, slice_of(why), NULL);
        return;
    }
    http_headers_init(&extra);
    assert_int_equal(http_headers_add(&extra, SLICE("task-id"), SLICE("t")), ERR_OK);
    w.socket = ws_server_accept(req, &t.f.loop, &extra, &w.options);
    http_headers_done(&extra);
}

static void open_server(void)
{
    start(open_socket, usual);
    memset(&w, 0, sizeof(w));
    w.options = (struct ws_server_options){
        WS_SERVER_DEFAULTS,     .on_text = on_text, .on_binary = on_binary,
        .on_drain = on_drained, .on_end = on_end,   .ctx = &w,
    };
}

static void shake_hands(struct peer *p)
{
    peer_open(p);
    peer_send(p, OPEN);
    wait_for(peer_has(p, "\r\n\r\n"));
    peer_got(p, ANSWER);
}

static void peer_says(struct peer *p, const char *bytes, size_t len)
{
    peer_send_bytes(p, (struct slice){bytes, len});
}
#define SAYS(p, literal) peer_says(p, literal, sizeof(literal) - 1)

static bool peer_has_bytes(struct peer *p, const char *bytes, size_t len)
{
    peer_receive(p);
    return p->in.len >= len && memmem(p->in.ptr, p->in.len, bytes, len) != NULL;
}
#define HAS(p, literal) peer_has_bytes(p, literal, sizeof(literal) - 1)

/* --- opening --------------------------------------------------------------------------------- */

static void which_requests_open_a_websocket(void **state)
{
    static const struct {
        const char *request;
        int status;
    } rows[] = {
        {OPEN, 101},
        {"GET / HTTP/1.1\r\nHost: h\r\nSEC-WEBSOCKET-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\n" UPGRADE
             VERSION "\r\n",
         101},
        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 426},
        {"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n" VERSION KEY "\r\n", 426},
        {"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" VERSION KEY "\r\n",
         426},
        {"GET / HTTP/1.0\r\nHost: h\r\n" UPGRADE VERSION KEY "\r\n", 426},
        {"GET / HTTP/1.1\r\nHost: h\r\n" UPGRADE KEY "\r\n", 426},
        {"GET / HTTP/1.1\r\nHost: h\r\n" UPGRADE KEY "Sec-WebSocket-Version: 8\r\n\r\n", 426},
        {"GET / HTTP/1.1\r\nHost: h\r\n" UPGRADE KEY VERSION VERSION "\r\n", 426},
        {"GET / HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION "\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION KEY KEY "\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION "Sec-WebSocket-Key: \r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n\r\n",
         400},
        {"GET / HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWxx\r\n\r\n",
         400},
        {"GET / HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!Q==\r\n\r\n",
         400},
        {"POST / HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION KEY "\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n" UPGRADE VERSION KEY "\r\nx", 400},
        {"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n" UPGRADE VERSION KEY
         "\r\n0\r\n\r\n",
         400},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct peer p;
        char line[32];
        (void)snprintf(line, sizeof(line), "HTTP/1.1 %d ", rows[i].status);
        open_server();
        peer_open(&p);
        peer_send(&p, rows[i].request);
        wait_for(peer_has(&p, "\r\n\r\n"));
        if (!peer_has(&p, line))
            fail_msg("row %zu: %s", i, p.in.ptr);
        peer_close(&p);
        stop();
    }
}

/* --- messages -------------------------------------------------------------------------------- */

static const char messages[] =
    "\x81\x82" MASKED "hi"                                     /* text */
    "\x01\x81" MASKED "a\x89\x80" MASKED "\x80\x81" MASKED "b" /* two fragments, a ping between */
    "\x82\x83" MASKED "xyz";                                   /* binary */

static void messages_come_whole_and_byte_by_byte(void **state)
{
    struct peer p;
    (void)state;
    for (int slowly = 0; slowly < 2; slowly++) {
        open_server();
        shake_hands(&p);
        for (size_t i = 0; i < sizeof(messages) - 1; i += slowly ? 1 : sizeof(messages) - 1)
            peer_says(&p, messages + i, slowly ? 1 : sizeof(messages) - 1);
        wait_for(strstr(buf_slice(&t.log).ptr, "binary") != NULL);
        assert_string_equal(t.log.ptr, "text:hi text:ab binary#3 ");
        wait_for(HAS(&p, "\x8a\x00")); /* the pong */
        peer_close(&p);
        wait_for(w.ends == 1);
        assert_int_equal(w.code, 1006);
        stop();
    }
}

static void what_came_with_the_request_is_not_lost(void **state)
{
    struct peer p;
    (void)state;
    open_server();
    peer_open(&p);
    SAYS(&p, OPEN "\x81\x82" MASKED "hi");
    wait_for(t.log.len > 0);
    assert_string_equal(t.log.ptr, "text:hi ");
    peer_close(&p);
    stop();
}

static void a_message_may_leave_in_fragments(void **state)
{
    struct peer p;
    (void)state;
    open_server();
    shake_hands(&p);
    assert_true(ws_server_send_text_part(w.socket, SLICE("a"), true, false));
    assert_true(ws_server_send_text_part(w.socket, SLICE("b"), false, false));
    assert_true(ws_server_send_text_part(w.socket, SLICE(""), false, true));
    assert_true(ws_server_send_text_part(w.socket, SLICE("c"), true, true));
    assert_true(ws_server_send_binary(w.socket, SLICE("d")));
    wait_for(HAS(&p, "\x01\x01"
                     "a\x00\x01"
                     "b\x80\x00\x81\x01"
                     "c\x82\x01"
                     "d"));
    peer_close(&p);
    stop();
}

static void who_is_behind_is_told_and_drained(void **state)
{
    struct peer p;
    bool room = true;
    size_t sent = 0;
    (void)state;
    open_server();
    shake_hands(&p);
    assert_true(ws_server_is_clear(w.socket));
    while (room) {
        room = ws_server_send_text(w.socket, (struct slice){filler, 100000});
        sent += 100004 + 6;
    }
    assert_false(ws_server_is_clear(w.socket));
    wait_for((peer_receive(&p), t.drains == 1));
    wait_for((peer_receive(&p), ws_server_is_clear(w.socket)));
    assert_true(sent > HTTP_WRITE_HIGH);
    peer_close(&p);
    stop();
}

/* --- ends ------------------------------------------------------------------------------------ */

static void the_peer_closes_in_form(void **state)
{
    struct peer p;
    (void)state;
    open_server();
    shake_hands(&p);
    SAYS(&p, "\x88\x82" MASKED "\x0b\xb9"); /* 3001 */
    wait_for(w.ends == 1);
    assert_int_equal(w.code, 3001);
    wait_for(peer_ended(&p));
    assert_false(p.reset);
    assert_true(HAS(&p, "\x88\x02\x0b\xb9"));
    peer_close(&p);
    stop();
}

static void the_peer_is_at_fault(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        unsigned code;
    } rows[] = {
#define ROW(literal, code) {literal, sizeof(literal) - 1, code}
        ROW("\x81\x02hi", 1002),                                          /* not masked */
        ROW("\xc1\x80" MASKED, 1002),                                     /* reserved bit */
        ROW("\x83\x80" MASKED, 1002),                                     /* opcode 3 */
        ROW("\x09\x80" MASKED, 1002),                                     /* ping in fragments */
        ROW("\x89\xfe\x00\x7e" MASKED, 1002),                             /* ping of 126 bytes */
        ROW("\x80\x80" MASKED, 1002),                                     /* continues nothing */
        ROW("\x88\x82" MASKED "\x03\xed", 1002),                          /* code 1005 */
        ROW("\x81\x82" MASKED "\xc3\x28", 1007),                          /* no UTF-8 */
        ROW("\x81\xff\x00\x00\x00\x00\x00\x20\x00\x00" MASKED "x", 1009), /* 2 MiB announced */
        ROW("\x01\x80" MASKED "\x00\x80" MASKED "\x00\x80" MASKED "\x00\x80" MASKED, 1008),
#undef ROW
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct peer p;
        const char frame[] = {'\x88', (char)(rows[i].code >> 8), (char)(rows[i].code & 0xff)};
        open_server();
        w.options.frames_max = 3;
        shake_hands(&p);
        peer_says(&p, rows[i].bytes, rows[i].len);
        wait_for(w.ends == 1);
        if (w.code != rows[i].code)
            fail_msg("row %zu: code %u", i, w.code);
        wait_for(peer_ended(&p));
        assert_int_equal(p.in.ptr[0], frame[0]);
        assert_memory_equal(p.in.ptr + 2, frame + 1, 2);
        assert_int_equal(t.log.len, 0);
        peer_close(&p);
        stop();
    }
}

static void a_close_comes_behind_all_that_was_sent(void **state)
{
    static const char close_frame[] = "\x88\x08\x03\xe8"
                                      "enough";
    struct peer p;
    (void)state;
    open_server();
    w.options.close_ms = 20; /* over long before everything has left */
    shake_hands(&p);
    while (ws_server_send_text(w.socket, (struct slice){filler, sizeof(filler)}))
        ;
    ws_server_close(w.socket, 1000, "enough");
    w.socket = NULL;
    for (int i = 0; i < 100; i++) {
        turn();
        (void)poll(NULL, 0, 1);
    }
    wait_for(HAS(&p, "\x88\x08\x03\xe8"
                     "enough"));
    assert_memory_equal(p.in.ptr + p.in.len - (sizeof(close_frame) - 1), close_frame,
                        sizeof(close_frame) - 1);
    SAYS(&p, "\x81\x82" MASKED "hi\x88\x82" MASKED "\x03\xe8");
    wait_for(peer_ended(&p));
    assert_false(p.reset);
    assert_int_equal(w.ends, 0); /* the owner had left */
    assert_int_equal(t.log.len, 0);
    peer_close(&p);
    stop();
}

static void a_close_that_is_not_answered_ends_nevertheless(void **state)
{
    struct peer p;
    (void)state;
    open_server();
    w.options.close_ms = 20;
    shake_hands(&p);
    ws_server_close(w.socket, 1011, "");
    wait_for(peer_ended(&p));
    assert_false(p.reset);
    assert_int_equal(http_server_stats(t.server).streams, 0);
    peer_close(&p);
    stop();
}

static void closed_or_reset_inside_a_message(void **state)
{
    struct peer p;
    (void)state;
    for (int reset = 0; reset < 2; reset++) {
        open_server();
        w.close_inside = !reset;
        w.reset_inside = reset;
        shake_hands(&p);
        SAYS(&p, "\x81\x82" MASKED "hi\x81\x82" MASKED "ho\x88\x80" MASKED);
        wait_for(peer_ended(&p));
        assert_int_equal(p.reset, reset);
        assert_string_equal(t.log.ptr, "text:hi ");
        assert_int_equal(w.ends, 0);
        peer_close(&p);
        stop();
    }
}

static void a_silent_peer_is_pinged_and_dead_after_two(void **state)
{
    struct peer p;
    (void)state;
    open_server();
    w.options.ping_ms = 40;
    shake_hands(&p);
    wait_for(HAS(&p, "\x89\x00"));
    SAYS(&p, "\x8a\x80" MASKED); /* an answer: all begins anew */
    wait_for(w.ends == 1);
    assert_int_equal(w.code, 1006);
    wait_for(peer_ended(&p));
    assert_true(p.reset);
    buf_addf(&p.in, "%s", "");
    assert_int_equal(p.in.len, 3 * 2);
    assert_memory_equal(p.in.ptr, "\x89\x00\x89\x00\x89\x00", 6);
    peer_close(&p);
    stop();
}

static void the_server_closes(void **state)
{
    struct peer p;
    (void)state;
    open_server();
    shake_hands(&p);
    http_server_close(t.server, on_closed, &t);
    loop_run_until(&t.f, &t.closed, "the server's end");
    assert_int_equal(w.ends, 1);
    assert_int_equal(w.code, 1006);
    peer_close(&p);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(which_requests_open_a_websocket),
        cmocka_unit_test(messages_come_whole_and_byte_by_byte),
        cmocka_unit_test(what_came_with_the_request_is_not_lost),
        cmocka_unit_test(a_message_may_leave_in_fragments),
        cmocka_unit_test(who_is_behind_is_told_and_drained),
        cmocka_unit_test(the_peer_closes_in_form),
        cmocka_unit_test(the_peer_is_at_fault),
        cmocka_unit_test(a_close_comes_behind_all_that_was_sent),
        cmocka_unit_test(a_close_that_is_not_answered_ends_nevertheless),
        cmocka_unit_test(closed_or_reset_inside_a_message),
        cmocka_unit_test(a_silent_peer_is_pinged_and_dead_after_two),
        cmocka_unit_test(the_server_closes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
