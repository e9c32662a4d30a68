/* The WebSocket client against scripted servers: how it opens, what it hands on, and every way in
 * which it can end, each exactly once. */
#include "peer.h"
#include "unit.h"
#include "ws_client.h"
#include "ws_handshake.h"

#include <stdio.h>
#include <stdlib.h>

struct fixture {
    struct loop_fixture loop;
    struct peer peer;
    struct ws_client *client;
    struct ws_client_options options;
    struct buf told;
    bool opened, ended, closed, heard;
    bool free_in_open, free_in_text, shut_in_open, keep;
    bool inside; /* a call of ours is under way: nothing may be called back */
    struct err err;
};

static struct fixture fix;

static void on_closed(void *ctx)
{
    struct fixture *f = ctx;
    assert_false(f->inside);
    f->closed = true;
}

static void free_client(struct fixture *f)
{
    ws_client_free(f->client, on_closed, f);
    f->client = NULL;
}

static void on_open(struct ws_client *c)
{
    struct fixture *f = ws_client_ctx(c);
    assert_false(f->inside || f->opened);
    f->opened = true;
    if (f->shut_in_open)
        ws_client_shut(c);
    if (f->free_in_open)
        free_client(f);
}

static void on_text(struct ws_client *c, struct slice text)
{
    struct fixture *f = ws_client_ctx(c);
    f->heard = true;
    if (text.len > 100)
        buf_addf(&f->told, "text#%zu ", text.len);
    else
        buf_addf(&f->told, "text:%.*s ", SLICE_ARGS(text));
    if (f->free_in_text)
        free_client(f);
}

static void on_binary(struct ws_client *c, struct slice bytes)
{
    struct fixture *f = ws_client_ctx(c);
    f->heard = true;
    buf_addf(&f->told, "binary#%zu ", bytes.len);
}

static void on_end(struct ws_client *c, const struct err *err)
{
    struct fixture *f = ws_client_ctx(c);
    assert_false(f->inside || f->ended);
    f->ended = true;
    f->err = *err;
    if (!f->keep)
        free_client(f);
}

static void open_peer(struct fixture *f, const struct peer_step *script)
{
    static const struct peer_step *scripts[1];
    scripts[0] = script;
    memset(f, 0, sizeof(*f));
    buf_init(&f->told, SIZE_MAX);
    loop_fixture_open(&f->loop);
    peer_open(&f->peer, &f->loop, scripts, script != NULL ? 1 : 0);
    f->options = (struct ws_client_options){
        WS_CLIENT_DEFAULTS,
        .host = "127.0.0.1",
        .port = f->peer.port,
        .target = SLICE("/ws?clientId=a"),
        .on_open = on_open,
        .on_text = on_text,
        .on_binary = on_binary,
        .on_end = on_end,
        .ctx = f,
    };
}

static void start(struct fixture *f)
{
    f->inside = true;
    f->client = ws_client_new(&f->loop.loop, &f->loop.later, &f->options);
    f->inside = false;
}

static void finish(struct fixture *f)
{
    if (f->client != NULL) {
        f->inside = true;
        free_client(f);
        f->inside = false;
    }
    loop_run_until(&f->loop, &f->closed, "the socket's end");
    peer_close(&f->peer);
    loop_fixture_close(&f->loop);
    peer_done(&f->peer);
    buf_done(&f->told);
}

static const char *told(const struct fixture *f)
{
    return f->told.ptr != NULL ? f->told.ptr : "";
}

/* --- a server's side of the handshake -------------------------------------------------------- */

static void accept_with(struct peer_conn *conn, const char *more)
{
    static const char name[] = "Sec-WebSocket-Key: ";
    char key[WS_KEY_TEXT + 1], accept[WS_ACCEPT_TEXT + 1];
    struct buf answer;
    char *at = strstr(conn->in.ptr, name);
    assert_non_null(at);
    memcpy(key, at + strlen(name), WS_KEY_TEXT);
    key[WS_KEY_TEXT] = '\0';
    ws_handshake_accept(key, accept);
    buf_init(&answer, SIZE_MAX);
    buf_addf(&answer,
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n"
             "Connection: upgrade\r\nSec-WebSocket-Accept: %s\r\n%s",
             accept, more);
    peer_send(conn, buf_slice(&answer));
    buf_done(&answer);
}

static void accept_it(struct peer_conn *conn)
{
    accept_with(conn, "\r\n");
}

static void accept_with_a_frame(struct peer_conn *conn)
{
    accept_with(conn, "\r\n\x81\x05hello\x81"); /* and the beginning of another */
}

static void accept_with_extension(struct peer_conn *conn)
{
    accept_with(conn, "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
}

#define SHAKE                                                                                      \
    EXPECTS("\r\n\r\n"),                                                                           \
    {                                                                                              \
        PEER_HOOK, .hook = accept_it                                                               \
    }

/* --- opening --------------------------------------------------------------------------------- */

static void test_accept_key(void **state)
{
    (void)state;
    char accept[WS_ACCEPT_TEXT + 1]; /* the example of RFC 6455, 1.3 */
    ws_handshake_accept("dGhlIHNhbXBsZSBub25jZQ==", accept);
    assert_string_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

static void test_request(void **state)
{
    (void)state;
    static const struct peer_step script[] = {SHAKE, DOES(PEER_SILENT)};
    char host[64];
    open_peer(&fix, script);
    start(&fix);
    loop_run_until(&fix.loop, &fix.opened, "open");
    struct buf *in = &fix.peer.conns[0].in;
    (void)snprintf(host, sizeof(host), "\r\nHost: 127.0.0.1:%u\r\n", fix.peer.port);
    assert_memory_equal(in->ptr, "GET /ws?clientId=a HTTP/1.1\r\n", 29);
    assert_non_null(strstr(in->ptr, host));
    assert_non_null(strstr(in->ptr, "\r\nUpgrade: websocket\r\n"));
    assert_non_null(strstr(in->ptr, "\r\nConnection: Upgrade\r\n"));
    assert_non_null(strstr(in->ptr, "\r\nSec-WebSocket-Version: 13\r\n"));
    assert_null(strstr(in->ptr, "Extensions"));
    finish(&fix);
    assert_false(fix.ended); /* freed before: no on_end */
}

static void test_messages(void **state)
{
    (void)state;
    static const struct peer_step script[] = {EXPECTS("\r\n\r\n"),
                                              CALLS(accept_with_a_frame),
                                              SENDS("\x02hi"),
                                              DRIBBLES("\x01\x01"
                                                       "a\x89\x01p\x80\x01"
                                                       "b\x82\x01x"),
                                              DOES(PEER_SHUT),
                                              DOES(PEER_SILENT)};
    open_peer(&fix, script);
    start(&fix);
    loop_run_until(&fix.loop, &fix.ended, "end");
    assert_string_equal(told(&fix), "text:hello text:hi text:ab binary#1 ");
    assert_int_equal(fix.err.code, ERR_CLOSED);
    assert_non_null(strstr(fix.err.msg, "without a close frame"));
    finish(&fix);
}

static void check_refused(const struct peer_step *script, enum err_code code, const char *text)
{
    open_peer(&fix, script);
    fix.options.handshake_ms = code == ERR_TIMEOUT ? 50 : 10000;
    start(&fix);
    loop_run_until(&fix.loop, &fix.ended, "end");
    assert_false(fix.opened);
    if (fix.err.code != code || strstr(fix.err.msg, text) == NULL)
        fail_msg("%s: %s", err_name(fix.err.code), fix.err.msg);
    finish(&fix);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct peer_step forbidden[] = {
        EXPECTS("\r\n\r\n"), SENDS("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno."),
        DOES(PEER_SILENT)};
    static const struct peer_step wrong_key[] = {
        EXPECTS("\r\n\r\n"),
        SENDS("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
              "Connection: Upgrade\r\n"
              "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
        DOES(PEER_SILENT)};
    static const struct peer_step extension[] = {EXPECTS("\r\n\r\n"), CALLS(accept_with_extension),
                                                 DOES(PEER_SILENT)};
    static const struct peer_step no_http[] = {SENDS("SSH-2.0-OpenSSH_9.2\r\n"), DOES(PEER_SILENT)};
    static const struct peer_step silent[] = {DOES(PEER_SILENT)};
    static const struct peer_step half[] = {SENDS("HTTP/1.1 101 Swi"), DOES(PEER_SILENT)};
    static const struct peer_step gone[] = {EXPECTS("\r\n\r\n"), DOES(PEER_CLOSE)};
    static const struct peer_step reset[] = {EXPECTS("GET"), DOES(PEER_RESET)};
    check_refused(forbidden, ERR_PROTOCOL, "status 403");
    check_refused(wrong_key, ERR_PROTOCOL, "not to our question");
    check_refused(extension, ERR_PROTOCOL, "not to our question");
    check_refused(no_http, ERR_PROTOCOL, "handshake");
    check_refused(silent, ERR_TIMEOUT, "handshake");
    check_refused(half, ERR_TIMEOUT, "handshake");
    check_refused(gone, ERR_CLOSED, "handshake");
    check_refused(reset, ERR_CLOSED, "handshake");
    check_refused(NULL, ERR_UNAVAILABLE, "refused");
}

static void test_bad_options(void **state)
{
    (void)state;
    static const struct peer_step silent[] = {DOES(PEER_SILENT)};
    const struct {
        const char *host;
        struct slice target;
    } cases[] = {
        {"localhost", SLICE("/")},
        {"127.0.0.1", SLICE("/a b")},
        {"127.0.0.1", SLICE("/a\r\nX:y")},
        {"127.0.0.1", SLICE("")},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        open_peer(&fix, silent);
        fix.options.host = cases[i].host;
        fix.options.target = cases[i].target;
        start(&fix);
        loop_run_until(&fix.loop, &fix.ended, "end");
        assert_int_equal(fix.err.code, ERR_INVALID);
        finish(&fix);
    }
}

/* --- silence --------------------------------------------------------------------------------- */

static void test_silence(void **state)
{
    (void)state;
    static const struct peer_step script[] = {SHAKE, DOES(PEER_SILENT)};
    open_peer(&fix, script);
    fix.options.ping_ms = 20;
    start(&fix);
    loop_run_until(&fix.loop, &fix.ended, "end");
    assert_true(fix.opened);
    assert_int_equal(fix.err.code, ERR_TIMEOUT);
    assert_non_null(strstr(fix.err.msg, "2 pings"));
    struct buf *in = &fix.peer.conns[0].in;
    char *frames = strstr(in->ptr, "\r\n\r\n") + 4;
    assert_int_equal(in->ptr + in->len - frames, 12); /* two masked pings, empty */
    assert_int_equal((unsigned char)frames[0], 0x89);
    assert_int_equal((unsigned char)frames[6], 0x89);
    finish(&fix);
}

/* A server that answers the pings lives, though it says nothing else. */
static void test_pongs_keep_it_alive(void **state)
{
    (void)state;
    static const struct peer_step script[] = {SHAKE,
                                              EXPECTS("\x89\x80"),
                                              SENDS("\x8a\x00"),
                                              EXPECTS("\x89\x80"),
                                              SENDS("\x8a\x00"),
                                              EXPECTS("\x89\x80"),
                                              SENDS("\x8a\x00"),
                                              EXPECTS("\x89\x80"),
                                              SENDS("\x81\x01x"),
                                              DOES(PEER_SILENT)};
    open_peer(&fix, script);
    fix.options.ping_ms = 30;
    start(&fix);
    loop_run_until(&fix.loop, &fix.heard, "a message");
    assert_false(fix.ended);
    finish(&fix);
}

/* --- the end --------------------------------------------------------------------------------- */

static bool answered;

static void on_answered(struct peer_conn *conn)
{
    (void)conn;
    answered = true;
}

static void test_server_closes(void **state)
{
    (void)state;
    static const struct peer_step script[] = {
        SHAKE,
        SENDS("\x81\x01x\x88\x05\x03\xe9"
              "bye"),
        EXPECTS("\x88\x82"), /* our close frame, with its code */
        CALLS(on_answered),
        DOES(PEER_SILENT),
    };
    answered = false;
    open_peer(&fix, script);
    start(&fix);
    loop_run_until(&fix.loop, &fix.ended, "end");
    assert_string_equal(told(&fix), "text:x ");
    assert_int_equal(fix.err.code, ERR_CLOSED);
    assert_non_null(strstr(fix.err.msg, "1001: bye"));
    loop_run_until(&fix.loop, &answered, "the close frame");
    finish(&fix);
}

static void test_protocol_fault(void **state)
{
    (void)state;
    static const struct peer_step script[] = {SHAKE, SENDS("\x81\x01\xff\x81\x01x"),
                                              DOES(PEER_SILENT)};
    open_peer(&fix, script);
    start(&fix);
    loop_run_until(&fix.loop, &fix.ended, "end");
    assert_string_equal(told(&fix), "");
    assert_int_equal(fix.err.code, ERR_PROTOCOL);
    assert_non_null(strstr(fix.err.msg, "1007"));
    finish(&fix);
}

static void shut(struct fixture *f)
{
    f->inside = true;
    ws_client_shut(f->client);
    f->inside = false;
}

static void test_shut(void **state)
{
    (void)state;
    static const struct peer_step script[] = {
        SHAKE, EXPECTS("\x88\x82"), SENDS("\x81\x01x\x88\x02\x03\xe8"), DOES(PEER_SILENT)};
    open_peer(&fix, script);
    start(&fix);
    loop_run_until(&fix.loop, &fix.opened, "open");
    shut(&fix);
    shut(&fix);
    loop_run_until(&fix.loop, &fix.ended, "end");
    assert_int_equal(fix.err.code, ERR_CLOSED);
    assert_string_equal(told(&fix), "text:x "); /* what was under way still arrives */
    finish(&fix);
}

static void test_shut_unanswered(void **state)
{
    (void)state;
    static const struct peer_step script[] = {SHAKE, DOES(PEER_SILENT)};
    open_peer(&fix, script);
    fix.options.close_ms = 20;
    fix.shut_in_open = true;
    start(&fix);
    loop_run_until(&fix.loop, &fix.ended, "end");
    assert_int_equal(fix.err.code, ERR_TIMEOUT);
    finish(&fix);
}

static void test_shut_before_open(void **state)
{
    (void)state;
    static const struct peer_step silent[] = {DOES(PEER_SILENT)};
    open_peer(&fix, silent);
    start(&fix);
    shut(&fix);
    assert_false(fix.ended);
    loop_run_until(&fix.loop, &fix.ended, "end");
    assert_int_equal(fix.err.code, ERR_CANCELLED);
    finish(&fix);
}

static void test_free_inside(void **state)
{
    (void)state;
    static const struct peer_step script[] = {EXPECTS("\r\n\r\n"), CALLS(accept_with_a_frame),
                                              SENDS("\x01x"), DOES(PEER_SILENT)};
    for (int i = 0; i < 2; i++) {
        open_peer(&fix, script);
        fix.free_in_open = i == 0;
        fix.free_in_text = i == 1;
        start(&fix);
        loop_run_until(&fix.loop, &fix.closed, "the socket's end");
        assert_string_equal(told(&fix), i == 0 ? "" : "text:hello ");
        assert_false(fix.ended);
        finish(&fix);
    }
}

static void test_free_at_once(void **state)
{
    (void)state;
    static const struct peer_step silent[] = {DOES(PEER_SILENT)};
    open_peer(&fix, silent);
    start(&fix);
    finish(&fix);
    assert_false(fix.ended);
    open_peer(&fix, NULL); /* between the end and on_end */
    start(&fix);
    shut(&fix);
    finish(&fix);
    assert_false(fix.ended);
}

/* on_end has come and the owner takes its time: nothing follows, nothing leaks. */
static void test_free_late(void **state)
{
    (void)state;
    static const struct peer_step script[] = {SHAKE, SENDS("\x88\x00\x81\x01x"), DOES(PEER_SILENT)};
    open_peer(&fix, script);
    fix.keep = true;
    start(&fix);
    loop_run_until(&fix.loop, &fix.ended, "end");
    ws_client_send_text(fix.client, SLICE("nobody hears this"));
    loop_run_for(&fix.loop, 10);
    assert_string_equal(told(&fix), "");
    finish(&fix);
}

/* --- amounts --------------------------------------------------------------------------------- */

/* 8 MiB arrive in many reads; more than the bound is skipped and the socket lives. */
static void test_large_messages(void **state)
{
    (void)state;
    static char megabyte[1024 * 1024];
    static const struct peer_step script[] = {SHAKE,
                                              SENDS("\x81\x7f\x00\x00\x00\x00\x00\x80\x00\x00"),
                                              SENDS_MANY(megabyte, 8),
                                              SENDS("\x82\x7f\x00\x00\x00\x00\x00\x90\x00\x00"),
                                              SENDS_MANY(megabyte, 9),
                                              SENDS("\x88\x00"),
                                              DOES(PEER_SILENT)};
    memset(megabyte, 'x', sizeof(megabyte));
    open_peer(&fix, script);
    start(&fix);
    loop_run_until(&fix.loop, &fix.ended, "end");
    assert_string_equal(told(&fix), "text#8388608 ");
    finish(&fix);
}

/* A server that reads nothing must not make us keep everything for it. */
static void test_server_does_not_read(void **state)
{
    (void)state;
    static char text[256 * 1024];
    static const struct peer_step script[] = {SHAKE, DOES(PEER_STOP), DOES(PEER_SILENT)};
    open_peer(&fix, script);
    start(&fix);
    loop_run_until(&fix.loop, &fix.opened, "open");
    memset(text, 'x', sizeof(text));
    for (int i = 0; i < 100; i++)
        ws_client_send_text(fix.client, (struct slice){text, sizeof(text)});
    loop_run_until(&fix.loop, &fix.ended, "end");
    assert_int_equal(fix.err.code, ERR_BUSY);
    finish(&fix);
}

/* Sent in more than one write, and whole. */
static void test_large_sends(void **state)
{
    (void)state;
    static char text[500 * 1024];
    static const struct peer_step script[] = {SHAKE,
                                              DOES(PEER_STOP),
                                              WAITS(20),
                                              DOES(PEER_READ),
                                              EXPECTS("\x88\x82"),
                                              SENDS("\x88\x00"),
                                              DOES(PEER_SILENT)};
    open_peer(&fix, script);
    start(&fix);
    loop_run_until(&fix.loop, &fix.opened, "open");
    memset(text, 0, sizeof(text));
    for (int i = 0; i < 2; i++)
        ws_client_send_text(fix.client, (struct slice){text, sizeof(text)});
    shut(&fix);
    loop_run_until(&fix.loop, &fix.ended, "end");
    assert_int_equal(fix.err.code, ERR_CLOSED);
    struct buf *in = &fix.peer.conns[0].in;
    size_t head = (size_t)(strstr(in->ptr, "\r\n\r\n") + 4 - in->ptr);
    assert_int_equal(in->len - head, 2 * (14 + sizeof(text)) + 8);
    finish(&fix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accept_key),
        cmocka_unit_test(test_request),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_pongs_keep_it_alive),
        cmocka_unit_test(test_server_closes),
        cmocka_unit_test(test_protocol_fault),
        cmocka_unit_test(test_shut),
        cmocka_unit_test(test_shut_unanswered),
        cmocka_unit_test(test_shut_before_open),
        cmocka_unit_test(test_free_inside),
        cmocka_unit_test(test_free_at_once),
        cmocka_unit_test(test_free_late),
        cmocka_unit_test(test_large_messages),
        cmocka_unit_test(test_server_does_not_read),
        cmocka_unit_test(test_large_sends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
