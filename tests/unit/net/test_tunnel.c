/* Tunnels: a client, us, and a server that all say what they like. The server is a plain socket
 * too.
 */
#include "http_server_fixture.h"
#include "tunnel.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>

#define ASK                                                                                        \
    "GET /ws?clientId=a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"      \
    "Sec-WebSocket-Key: k\r\n\r\n"
#define SERVER_101                                                                                 \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"            \
    "Sec-WebSocket-Accept: a\r\nDate: now\r\n\r\n"
#define CLIENT_101                                                                                 \
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nSec-WebSocket-Accept: a\r\n"       \
    "upgrade: websocket\r\n\r\n"

static struct {
    struct tunnels *tunnels;
    int listener;
    unsigned port;
    struct peer client, server;
    unsigned refused, failed;
    struct err err;
    bool closed;
} n;

/* Not NULL: how long the window was closed at each time that the kernel is asked; the last for
 * good. Zero ends it. */
static const uint64_t *closed_us;

bool __real_tcp_peer_ask(int fd, struct tcp_peer *ret);
bool __wrap_tcp_peer_ask(int fd, struct tcp_peer *ret);
bool __wrap_tcp_peer_ask(int fd, struct tcp_peer *ret)
{
    if (!__real_tcp_peer_ask(fd, ret))
        return false;
    if (closed_us != NULL) {
        ret->closed_us = *closed_us;
        closed_us += closed_us[1] != 0;
    }
    return true;
}

static void on_refused(struct http_req *req, void *ctx, int status, struct http_headers *headers,
                       struct slice body)
{
    (void)headers;
    assert_ptr_equal(ctx, &n);
    n.refused++;
    http_respond(req, status, NULL, body, NULL);
}

static void on_failed(struct http_req *req, void *ctx, const struct err *err)
{
    assert_ptr_equal(ctx, &n);
    n.failed++;
    n.err = *err;
    http_respond(req, 502, NULL, SLICE_EMPTY, NULL);
}

static void open_tunnel(struct http_req *req, void *ctx)
{
    struct http_headers headers;
    const struct tunnel_ask ask = {.target = SLICE("/ws?clientId=b"),
                                   .headers = &headers,
                                   .on_refused = on_refused,
                                   .on_failed = on_failed,
                                   .ctx = &n};
    (void)ctx;
    http_headers_init(&headers);
    assert_int_equal(http_headers_add(&headers, SLICE("X-A"), SLICE("b")), ERR_OK);
    if (tunnel_open(n.tunnels, req, &ask, &n.err) != ERR_OK)
        http_respond(req, 503, NULL, SLICE_EMPTY, NULL);
    http_headers_done(&headers);
}

static void listen_somewhere(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(at);
    n.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(n.listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(n.listener, 8), 0);
    assert_int_equal(getsockname(n.listener, (struct sockaddr *)&at, &len), 0);
    n.port = ntohs(at.sin_port);
}

static void begin(struct tunnels_options options, struct http_server_options server)
{
    memset(&n, 0, sizeof(n));
    listen_somewhere();
    start(open_tunnel, server);
    options.host = "127.0.0.1";
    options.port = n.port;
    n.tunnels = tunnels_new(&t.f.loop, &options);
    n.server.fd = -1;
    peer_open(&n.client);
}

static const struct tunnels_options plain = {TUNNELS_DEFAULTS};

static void on_freed(void *ctx)
{
    assert_ptr_equal(ctx, &n);
    n.closed = true;
}

static void finish(void)
{
    http_server_close(t.server, on_closed, &t);
    loop_run_until(&t.f, &t.closed, "the server's end");
    tunnels_free(n.tunnels, on_freed, &n);
    assert_false(n.closed);
    loop_run_until(&t.f, &n.closed, "the tunnels' end");
    peer_close(&n.client);
    peer_close(&n.server);
    (void)close(n.listener);
    stop();
}

static bool server_accepts(void)
{
    int fd = accept(n.listener, NULL, NULL);
    if (fd < 0)
        return false;
    n.server = (struct peer){.fd = fd};
    buf_init(&n.server.in, SIZE_MAX);
    return true;
}

/* The server has the request. */
static void ask(const char *request)
{
    peer_send(&n.client, request);
    wait_for(server_accepts());
    wait_for(peer_has(&n.server, "\r\n\r\n"));
}

static void open_through(void)
{
    ask(ASK);
    buf_reset(&n.server.in);
    peer_send(&n.server, SERVER_101);
    wait_for(peer_has(&n.client, "\r\n\r\n"));
    peer_got(&n.client, CLIENT_101);
}

/* --- handshake -------------------------------------------------------------------------------- */

static void the_handshake_passes_with_other_headers(void **state)
{
    char want[512];
    (void)state;
    begin(plain, usual);
    ask(ASK);
    (void)snprintf(want, sizeof(want),
                   "GET /ws?clientId=b HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nX-A: b\r\n"
                   "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                   n.port);
    peer_got(&n.server, want);
    assert_int_equal(tunnels_count(n.tunnels), 1);
    peer_send(&n.server, SERVER_101);
    wait_for(peer_has(&n.client, "\r\n\r\n"));
    peer_got(&n.client, CLIENT_101);
    finish();
}

static void what_comes_with_the_handshake_is_not_lost(void **state)
{
    (void)state;
    begin(plain, usual);
    ask(ASK "from the client");
    buf_reset(&n.server.in);
    peer_send(&n.server, SERVER_101 "from the server");
    wait_for(peer_has(&n.client, "from the server"));
    peer_got(&n.client, CLIENT_101 "from the server");
    wait_for(peer_has(&n.server, "from the client"));
    finish();
}

static void an_answer_may_come_byte_by_byte(void **state)
{
    (void)state;
    begin(plain, usual);
    ask(ASK);
    peer_send_slowly(&n.server, SERVER_101 "first");
    wait_for(peer_has(&n.client, "first"));
    peer_got(&n.client, CLIENT_101 "first");
    finish();
}

static void a_refusal_is_passed_back(void **state)
{
    static const char *const refusals[] = {
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\nno", /* until the end */
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        begin(plain, usual);
        ask(ASK);
        peer_send(&n.server, refusals[i]);
        (void)shutdown(n.server.fd, SHUT_WR);
        wait_for(peer_has(&n.client, "no"));
        assert_true(peer_has(&n.client, "HTTP/1.1 403 "));
        assert_int_equal(n.refused, 1);
        assert_int_equal(tunnels_count(n.tunnels), 0);
        finish();
    }
}

static void a_refusal_without_end_is_a_failure(void **state)
{
    (void)state;
    begin(plain, usual);
    ask(ASK);
    peer_send(&n.server, "HTTP/1.1 403 Forbidden\r\nContent-Length: 1048576\r\n\r\n");
    peer_send_bytes(&n.server, (struct slice){filler, sizeof(filler)});
    wait_for(peer_has(&n.client, "HTTP/1.1 502 "));
    assert_int_equal(n.err.code, ERR_PROTOCOL);
    finish();
}

static void no_answer_is_a_failure(void **state)
{
    static const struct {
        const char *answer; /* NULL: none, and no end */
        enum err_code code;
    } cases[] = {{"", ERR_CLOSED},
                 {"HTTP/1.1 101 Switch", ERR_CLOSED},
                 {"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nab", ERR_CLOSED},
                 {"SSH-2.0\r\n\r\n", ERR_PROTOCOL},
                 {NULL, ERR_TIMEOUT}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tunnels_options options = plain;
        if (cases[i].answer == NULL)
            options.shake_ms = 50;
        begin(options, usual);
        ask(ASK);
        if (cases[i].answer != NULL) {
            peer_send(&n.server, cases[i].answer);
            (void)shutdown(n.server.fd, SHUT_WR);
        }
        wait_for(peer_has(&n.client, "HTTP/1.1 502 "));
        assert_int_equal(n.failed, 1);
        assert_int_equal(n.err.code, cases[i].code);
        wait_for(peer_ended(&n.server));
        finish();
    }
}

static void nobody_there_is_told(void **state)
{
    (void)state;
    begin(plain, usual);
    (void)close(n.listener);
    n.listener = -1;
    peer_send(&n.client, ASK);
    wait_for(peer_has(&n.client, "HTTP/1.1 502 "));
    assert_int_equal(n.err.code, ERR_UNAVAILABLE);
    finish();
}

static void more_than_the_bound_is_refused(void **state)
{
    struct tunnels_options options = plain;
    struct peer second;
    (void)state;
    options.max = 1;
    begin(options, usual);
    open_through();
    peer_open(&second);
    peer_send(&second, ASK);
    wait_for(peer_has(&second, "HTTP/1.1 503 "));
    assert_int_equal(n.err.code, ERR_BUSY);
    peer_close(&second);
    finish();
}

static void a_client_that_leaves_early_takes_the_tunnel_with_it(void **state)
{
    (void)state;
    begin(plain, usual);
    ask(ASK);
    peer_cut(&n.client);
    wait_for(peer_ended(&n.server));
    assert_int_equal(tunnels_count(n.tunnels), 0);
    finish();
    assert_int_equal(n.failed + n.refused, 0);
}

/* --- both ways -------------------------------------------------------------------------------- */

static void bytes_go_both_ways_untouched(void **state)
{
    char all[256];
    struct slice bytes = {all, sizeof(all)};
    (void)state;
    for (size_t i = 0; i < sizeof(all); i++)
        all[i] = (char)i;
    begin(plain, usual);
    open_through();
    for (unsigned i = 1; i <= 3; i++) {
        peer_send_bytes(&n.client, bytes);
        peer_send_bytes(&n.server, bytes);
        wait_for((peer_receive(&n.server), n.server.in.len == i * sizeof(all)));
        wait_for((peer_receive(&n.client), n.client.in.len == i * sizeof(all)));
        assert_memory_equal(n.server.in.ptr + (i - 1) * sizeof(all), all, sizeof(all));
        assert_memory_equal(n.client.in.ptr + (i - 1) * sizeof(all), all, sizeof(all));
    }
    finish();
}

/* Four bytes that count, over and over: wherever one is lost or doubled it shows. */
static char byte_at(size_t i)
{
    return (char)((uint32_t)(i / 4) >> 8 * (i % 4));
}

/* As many of them as go out before the kernel and we take no more. */
static size_t send_until_full(int fd, size_t most)
{
    static char bytes[16384];
    size_t sent = 0;
    for (unsigned idle = 0; idle < 100 && sent < most;) {
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = byte_at(sent + i);
        ssize_t took = send(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += took > 0 ? (size_t)took : 0;
        idle = took > 0 ? 0 : idle + 1;
        turn();
    }
    return sent;
}

static void a_server_that_does_not_read_pushes_back(void **state)
{
    enum { MOST = 64 * 1024 * 1024 };
    (void)state;
    begin(plain, usual);
    open_through();
    size_t sent = send_until_full(n.client.fd, MOST);
    assert_true(sent < MOST); /* and where it lies is the kernel's memory, not ours */
    peer_send(&n.server, "meanwhile");
    wait_for(peer_has(&n.client, "meanwhile"));
    wait_for((peer_receive(&n.server), n.server.in.len == sent));
    for (size_t i = 0; i < sent; i++)
        if (n.server.in.ptr[i] != byte_at(i))
            fail_msg("byte %zu is wrong", i);
    finish();
}

static void a_server_that_never_reads_ends_the_tunnel(void **state)
{
    struct tunnels_options options = plain;
    (void)state;
    options.stuck_ms = 50;
    begin(options, usual);
    open_through();
    (void)send_until_full(n.client.fd, 64 * 1024 * 1024);
    wait_for(peer_ended(&n.client));
    assert_int_equal(tunnels_count(n.tunnels), 0);
    finish();
}

static size_t send_some(int fd)
{
    ssize_t took = send(fd, filler, sizeof(filler) / 4, MSG_DONTWAIT | MSG_NOSIGNAL);
    return took > 0 ? (size_t)took : 0;
}

/* The server is held up for hold_ms at most: it sends more than the client will ever get. */
static void a_client_that_never_reads_is_cut_and_the_server_always_read(void **state)
{
    struct http_server_options options = usual;
    struct tunnels_options brief = plain;
    size_t sent = 0, blocked = 0;
    (void)state;
    options.stream_max = 1024 * 1024;
    brief.hold_ms = 1;
    brief.unread_max = SIZE_MAX / 2;
    begin(brief, options);
    open_through();
    while (tunnels_count(n.tunnels) == 1) {
        size_t took = send_some(n.server.fd);
        sent += took;
        blocked = took > 0 ? 0 : blocked + 1;
        assert_true(blocked < 1000);
        if (blocked > 0)
            (void)poll(NULL, 0, 1);
        turn();
    }
    assert_true(sent > options.stream_max);
    wait_for(peer_ended(&n.client));
    assert_true(n.client.reset);
    wait_for(peer_ended(&n.server));
    finish();
}

/* The server has sent `most` or the tunnel has ended. */
static size_t send_while_open(size_t most)
{
    size_t sent = 0;
    for (unsigned blocked = 0; sent < most && tunnels_count(n.tunnels) == 1; turn()) {
        size_t took = send_some(n.server.fd);
        sent += took;
        blocked = took > 0 ? 0 : blocked + 1;
        assert_true(blocked < 1000);
        if (blocked > 0)
            (void)poll(NULL, 0, 1);
    }
    return sent;
}

static struct tunnels_options only_unread_bound(struct http_server_options *server)
{
    struct tunnels_options options = plain;
    server->stream_max = SIZE_MAX / 2;
    options.queued_max = SIZE_MAX / 2;
    options.hold_ms = 1;
    return options;
}

static void who_has_never_read_is_cut_soon(void **state)
{
    enum { MOST = 64 * 1024 * 1024 };
    struct http_server_options server = usual;
    struct tunnels_options options = only_unread_bound(&server);
    (void)state;
    begin(options, server);
    open_through();
    assert_true(send_while_open(MOST) < MOST);
    wait_for(peer_ended(&n.client));
    assert_true(n.client.reset);
    finish();
}

/* The client was held for 50 ms, which are seen as this. Is it open after that? */
static bool is_open_after_hold(uint64_t seen_us)
{
    enum { MOST = 32 * 1024 * 1024 };
    const uint64_t seen[] = {70000, 70000, 70000 + seen_us, 0};
    struct http_server_options server = usual;
    struct tunnels_options options = only_unread_bound(&server);
    options.hold_ms = 50;
    begin(options, server);
    closed_us = seen;
    open_through();
    (void)send_while_open(MOST);
    bool open = tunnels_count(n.tunnels) == 1;
    closed_us = NULL;
    finish();
    return open;
}

/* A kernel counts in ticks: what lasted 50 ms is seen as 40 and a bit. */
static void one_tick_less_is_long_enough(void **state)
{
    (void)state;
    assert_false(is_open_after_hold(40001));
}

static void a_whole_tick_less_is_not(void **state)
{
    (void)state;
    assert_true(is_open_after_hold(40000));
}

/* Busy with a picture, perhaps. */
static void who_has_read_before_is_waited_for(void **state)
{
    enum { FIRST = 2 * 1024 * 1024, MOST = 32 * 1024 * 1024 };
    struct http_server_options server = usual;
    struct tunnels_options options = only_unread_bound(&server);
    size_t sent;
    (void)state;
    begin(options, server);
    open_through();
    for (sent = 0; n.client.in.len < FIRST; turn(), (void)peer_receive(&n.client))
        sent += sent < FIRST ? send_some(n.server.fd) : 0;
    sent += send_while_open(MOST);
    assert_int_equal(tunnels_count(n.tunnels), 1);
    wait_for((peer_receive(&n.client), n.client.in.len == sent));
    finish();
}

/* Two that do not read: what waits for both has a bound, and the one with more of it must go. */
static void the_one_that_is_furthest_behind_is_cut_for_all(void **state)
{
    struct http_server_options options = usual;
    struct tunnels_options brief = plain;
    struct peer first_client, first_server;
    size_t sent = 0, sent_first = 0;
    (void)state;
    options.stream_max = SIZE_MAX / 2;
    brief.hold_ms = 1;
    brief.unread_max = SIZE_MAX / 2;
    brief.queued_max = 16 * 1024 * 1024; /* more than is on its way to the one who is left */
    begin(brief, options);
    open_through();
    first_client = n.client;
    first_server = n.server;
    peer_open(&n.client);
    open_through();
    while (tunnels_count(n.tunnels) == 2) {
        sent += send_some(n.server.fd);
        for (unsigned i = 0; i < 2; i++) {
            sent_first += send_some(first_server.fd);
            assert_true(sent_first < 64 * sizeof(filler));
            turn();
        }
    }
    wait_for(peer_ended(&first_client));
    assert_true(first_client.reset);
    wait_for((peer_receive(&n.client), n.client.in.len == sent)); /* who is left gets all of it */
    peer_close(&first_client);
    peer_close(&first_server);
    finish();
}

/* Held when it is behind, and caught up in time: never too far behind, whatever the size. */
static void a_client_that_reads_gets_more_than_is_ever_queued(void **state)
{
    enum { MOST = 64 * 1024 * 1024 };
    struct http_server_options options = usual;
    struct tunnels_options patient = plain;
    size_t sent = 0;
    (void)state;
    options.stream_max = 1024 * 1024;
    patient.hold_ms = 60000;
    begin(patient, options);
    open_through();
    for (unsigned i = 0; n.client.in.len < MOST; i++) {
        size_t left = MOST - sent < sizeof(filler) ? MOST - sent : sizeof(filler);
        ssize_t took = left > 0 ? send(n.server.fd, filler, left, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
        sent += took > 0 ? (size_t)took : 0;
        turn();
        if (i % 8 == 0) /* it is behind most of the time */
            peer_receive(&n.client);
        assert_false(n.client.ended);
    }
    finish();
}

/* Slow for once, and held again only after it has caught up. */
static void a_slow_client_may_become_a_fast_one(void **state)
{
    struct tunnels_options brief = plain;
    size_t sent = 0;
    (void)state;
    brief.hold_ms = 1;
    brief.unread_max = SIZE_MAX / 2;
    begin(brief, usual);
    open_through();
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned blocked = 0; blocked < 20 && sent < (round + 1) * 6u * sizeof(filler);) {
            ssize_t took = send(n.server.fd, filler, sizeof(filler), MSG_DONTWAIT | MSG_NOSIGNAL);
            sent += took > 0 ? (size_t)took : 0;
            blocked = took > 0 ? 0 : blocked + 1;
            (void)poll(NULL, 0, 1);
            turn();
        }
        wait_for((peer_receive(&n.client), n.client.in.len == sent));
    }
    finish();
}

/* --- ends ------------------------------------------------------------------------------------- */

static void the_clients_last_words_reach_the_server(void **state)
{
    (void)state;
    begin(plain, usual);
    open_through();
    peer_send(&n.client, "last words");
    peer_close(&n.client);
    wait_for(peer_ended(&n.server));
    assert_true(peer_has(&n.server, "last words"));
    assert_false(n.server.reset);
    wait_for(tunnels_count(n.tunnels) == 0);
    finish();
}

static void many_last_words_do_too(void **state)
{
    (void)state;
    begin(plain, usual);
    open_through();
    size_t sent = send_until_full(n.client.fd, 64 * 1024 * 1024);
    peer_close(&n.client);
    wait_for(peer_ended(&n.server));
    assert_int_equal(n.server.in.len, sent);
    finish();
}

static void the_servers_last_words_reach_the_client(void **state)
{
    (void)state;
    begin(plain, usual);
    open_through();
    peer_send_bytes(&n.server, (struct slice){filler, sizeof(filler)});
    peer_send(&n.server, "last words");
    peer_close(&n.server);
    wait_for(peer_ended(&n.client));
    assert_true(peer_has(&n.client, "last words"));
    assert_int_equal(n.client.in.len, sizeof(filler) + strlen("last words"));
    assert_false(n.client.reset);
    finish();
}

static void a_server_that_breaks_breaks_the_client(void **state)
{
    (void)state;
    begin(plain, usual);
    open_through();
    peer_cut(&n.server);
    wait_for(peer_ended(&n.client));
    assert_true(n.client.reset);
    finish();
}

static void closing_may_come_at_any_time(void **state)
{
    (void)state;
    begin(plain, usual);
    finish();
    begin(plain, usual);
    peer_send(&n.client, ASK);
    wait_for(t.calls == 1);
    finish();
    begin(plain, usual);
    ask(ASK);
    finish();
    begin(plain, usual);
    open_through();
    (void)send_until_full(n.client.fd, 64 * 1024 * 1024);
    finish();
    begin(plain, usual); /* nobody waits any more, but last words are on their way */
    open_through();
    (void)send_until_full(n.client.fd, 64 * 1024 * 1024);
    peer_close(&n.client);
    turn();
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_handshake_passes_with_other_headers),
        cmocka_unit_test(what_comes_with_the_handshake_is_not_lost),
        cmocka_unit_test(an_answer_may_come_byte_by_byte),
        cmocka_unit_test(a_refusal_is_passed_back),
        cmocka_unit_test(a_refusal_without_end_is_a_failure),
        cmocka_unit_test(no_answer_is_a_failure),
        cmocka_unit_test(nobody_there_is_told),
        cmocka_unit_test(more_than_the_bound_is_refused),
        cmocka_unit_test(a_client_that_leaves_early_takes_the_tunnel_with_it),
        cmocka_unit_test(bytes_go_both_ways_untouched),
        cmocka_unit_test(a_server_that_does_not_read_pushes_back),
        cmocka_unit_test(a_server_that_never_reads_ends_the_tunnel),
        cmocka_unit_test(a_client_that_never_reads_is_cut_and_the_server_always_read),
        cmocka_unit_test(who_has_never_read_is_cut_soon),
        cmocka_unit_test(one_tick_less_is_long_enough),
        cmocka_unit_test(a_whole_tick_less_is_not),
        cmocka_unit_test(who_has_read_before_is_waited_for),
        cmocka_unit_test(the_one_that_is_furthest_behind_is_cut_for_all),
        cmocka_unit_test(a_client_that_reads_gets_more_than_is_ever_queued),
        cmocka_unit_test(a_slow_client_may_become_a_fast_one),
        cmocka_unit_test(the_clients_last_words_reach_the_server),
        cmocka_unit_test(many_last_words_do_too),
        cmocka_unit_test(the_servers_last_words_reach_the_client),
        cmocka_unit_test(a_server_that_breaks_breaks_the_client),
        cmocka_unit_test(closing_may_come_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
