#include "http_server_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

struct server_test t;
const struct http_server_options usual = {HTTP_SERVER_DEFAULTS};
char filler[1024 * 1024];

static void on_request(struct http_req *req, void *ctx)
{
    assert_ptr_equal(ctx, &t);
    t.calls++;
    t.handler(req, ctx);
}

void start(http_handler_cb handler, struct http_server_options options)
{
    memset(&t, 0, sizeof(t));
    loop_fixture_open(&t.f);
    buf_init(&t.log, SIZE_MAX);
    t.handler = handler;
    options.host = "127.0.0.1";
    options.handler = on_request;
    options.ctx = &t;
    t.server = http_server_new(&t.f.loop, &t.f.later, &options);
    assert_int_equal(http_server_start(t.server, &t.err), ERR_OK);
}

void on_closed(void *ctx)
{
    assert_ptr_equal(ctx, &t);
    t.closed = true;
}

void stop(void)
{
    if (!t.closed) {
        http_server_close(t.server, on_closed, &t);
        assert_false(t.closed);
        loop_run_until(&t.f, &t.closed, "the server's end");
    }
    buf_done(&t.log);
    loop_fixture_close(&t.f);
}

/* --- clients ---------------------------------------------------------------------------------- */

static int peer_connect(int fd)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)http_server_port(t.server)),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    return connect(fd, (struct sockaddr *)&to, sizeof(to));
}

void peer_open(struct peer *p)
{
    *p = (struct peer){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    buf_init(&p->in, SIZE_MAX);
    assert_int_equal(peer_connect(p->fd), 0);
}

bool peer_is_refused(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool refused = peer_connect(fd) != 0 && errno == ECONNREFUSED;
    (void)close(fd);
    return refused;
}

void peer_close(struct peer *p)
{
    if (p->fd >= 0)
        (void)close(p->fd);
    p->fd = -1;
    buf_done(&p->in);
}

void peer_cut(struct peer *p)
{
    struct linger none = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    peer_close(p);
}

void turn(void)
{
    (void)uv_run(&t.f.loop, UV_RUN_NOWAIT);
}

void peer_receive(struct peer *p)
{
    char bytes[65536];
    ssize_t n;
    while (!p->ended && (n = recv(p->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) != -1) {
        if (n > 0)
            buf_add(&p->in, (struct slice){bytes, (size_t)n});
        p->ended = n == 0;
    }
    if (!p->ended && errno == ECONNRESET)
        p->ended = p->reset = true;
}

void peer_send_bytes(struct peer *p, struct slice s)
{
    uint64_t end = clock_mono_ms() + WAIT_MS;
    while (s.len > 0) {
        ssize_t n = send(p->fd, s.ptr, s.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0)
            s = (struct slice){s.ptr + n, s.len - (size_t)n};
        else if (errno != EAGAIN)
            return; /* the server has closed: the test looks at what it said */
        turn();
        assert_true(clock_mono_ms() < end);
    }
}

void peer_send(struct peer *p, const char *text)
{
    peer_send_bytes(p, slice_of(text));
}

void peer_send_post(struct peer *p, size_t length)
{
    char head[128];
    (void)snprintf(head, sizeof(head), "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n",
                   length);
    peer_send(p, head);
}

void peer_send_slowly(struct peer *p, const char *text)
{
    for (; *text != '\0'; text++) {
        peer_send_bytes(p, (struct slice){text, 1});
        turn();
    }
}

bool peer_has(struct peer *p, const char *text)
{
    peer_receive(p);
    return p->in.len > 0 && memmem(p->in.ptr, p->in.len, text, strlen(text)) != NULL;
}

bool peer_ended(struct peer *p)
{
    peer_receive(p);
    return p->ended;
}

size_t peer_count(const struct peer *p, const char *text)
{
    size_t n = 0;
    for (const char *at = buf_slice(&p->in).ptr; (at = strstr(at, text)) != NULL; at++)
        n++;
    return n;
}

/* What came, with the date made the same in every run; then forgotten. */
void peer_got(struct peer *p, const char *want)
{
    static const char sample[] = "Sun, 06 Nov 1994 08:49:37 GMT";
    peer_receive(p);
    for (char *at = p->in.ptr; at != NULL && (at = strstr(at, "date: ")) != NULL; at += 6)
        memcpy(at + 6, "DATE", 4),
            memmove(at + 10, at + 6 + sizeof(sample) - 1, strlen(at + 6 + sizeof(sample) - 1) + 1);
    assert_string_equal(buf_slice(&p->in).ptr, want);
    buf_done(&p->in);
}

/* --- handlers --------------------------------------------------------------------------------- */

void on_abort(struct http_req *req)
{
    assert_ptr_equal(req, t.req);
    t.req = NULL;
    t.aborts++;
}

void keep(struct http_req *req, void *ctx)
{
    (void)ctx;
    t.req = req;
    http_on_abort(req, on_abort);
}

void respond_path(struct http_req *req, void *ctx)
{
    (void)ctx;
    http_respond(req, 200, NULL, http_req_path(req), NULL);
}

void echo_whole(struct http_req *req, const struct err *err, struct slice body)
{
    if (err == NULL)
        http_respond(req, 200, NULL, body, NULL);
    else
        http_respond(req,
                     err->code == ERR_TOO_LARGE ? 413
                     : err->code == ERR_TIMEOUT ? 408
                                                : 400,
                     NULL, slice_of(err->msg), NULL);
}

void echo(struct http_req *req, void *ctx)
{
    (void)ctx;
    http_read_body(req, 100000, echo_whole);
}
