/* One tunnel's life:
 *
 *     ASKING ─101─► OPEN
 *        │           │
 *        └───────────┴─► CLOSED
 *
 * ASKING has the client's request, OPEN its stream, CLOSED neither. Bytes of the server go
 * to the stream as they are read, which sends or queues them; bytes of the client are written at
 * once or, while they wait to be written, not read.
 *
 *     following ─behind─► held ─time is up─► slow ─caught up─► following
 *                           └──────caught up───────────────────────▲
 *
 * is what a client can be in OPEN; only while it is held the server is not read. */
#include "tunnel.h"

#include "closer.h"
#include "deadline.h"
#include "http_relay.h"
#include "http_request.h"
#include "list.h"

#include <stdlib.h>

enum {
    TUNNEL_READ = 64 * 1024,
    TUNNEL_PROOF = 512 * 1024, /* taken: a program reads there. Without one systems take 64 KiB */
    TUNNEL_TRIPS = 2,          /* a window that has just opened is heard of within so many */
};

enum tunnel_state { TUNNEL_ASKING, TUNNEL_OPEN, TUNNEL_CLOSED };

enum tunnel_deadline { TUNNEL_SHAKE, TUNNEL_STUCK, TUNNEL_HOLD, TUNNEL_DEADLINES };

struct tunnels {
    struct tunnels_options options;
    uv_loop_t *loop;
    char authority[HTTP_AUTHORITY_MAX];
    struct sockaddr_storage address;
    unsigned count;
    struct list_node open;
    struct deadlines deadlines;
    struct deadline_class classes[TUNNEL_DEADLINES];
    struct closer closer;
    void (*closed)(void *ctx);
    void *closed_ctx;
    char read[TUNNEL_READ]; /* for all: used up before the callback returns */
};

struct tunnel {
    struct tunnels *owner;
    struct list_node link; /* of those that are OPEN */
    enum tunnel_state state;
    struct tunnel_ask ask; /* its callbacks */
    struct http_req *req;
    struct http_stream *stream;
    struct http_parser *parser; /* of the server's answer; NULL when OPEN */
    struct buf refusal;
    bool refusal_fits;

    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    struct deadline deadline, hold;
    struct buf out; /* with uv_write, or next */
    bool writing;
    struct tcp_peer opened, held; /* the client when it came, and when it was held last */
    bool slow;                    /* it did not catch up in time */
    bool deaf;                    /* the server takes no more; it may still say something */
};

/* --- the end --------------------------------------------------------------------------------- */

static void tunnel_on_closed(uv_handle_t *handle)
{
    struct tunnel *t = CONTAINER_OF(handle, struct tunnel, tcp);
    struct tunnels *ts = t->owner;
    if (t->parser != NULL)
        http_parser_free(t->parser);
    buf_done(&t->refusal);
    buf_done(&t->out);
    free(t);
    closer_release(&ts->closer);
}

static void tunnel_close(struct tunnel *t)
{
    ASSERT(t->state != TUNNEL_CLOSED);
    t->state = TUNNEL_CLOSED;
    t->req = NULL;
    t->stream = NULL;
    t->owner->count--;
    list_remove(&t->link);
    deadline_clear(&t->deadline);
    deadline_clear(&t->hold);
    uv_close((uv_handle_t *)&t->tcp, tunnel_on_closed);
}

/* The request is the caller's again. */
static struct http_req *tunnel_give_back(struct tunnel *t)
{
    struct http_req *req = t->req;
    ASSERT(t->state == TUNNEL_ASKING);
    http_on_abort(req, NULL);
    http_req_set_data(req, NULL);
    tunnel_close(t);
    return req;
}

static void tunnel_fail(struct tunnel *t, const struct err *err)
{
    struct http_req *req = tunnel_give_back(t);
    t->ask.on_failed(req, t->ask.ctx, err);
}

static void tunnel_refuse(struct tunnel *t)
{
    struct err err;
    if (!t->refusal_fits) {
        (void)err_set(&err, ERR_PROTOCOL, "%s: refused, at too great a length",
                      t->owner->authority);
        tunnel_fail(t, &err);
        return;
    }
    struct http_headers headers;
    struct http_req *req = tunnel_give_back(t); /* the memory lives until the loop goes on */
    http_parser_take_headers(t->parser, &headers);
    t->ask.on_refused(req, t->ask.ctx, http_parser_head(t->parser)->status, &headers,
                      buf_slice(&t->refusal));
    http_headers_done(&headers);
}

/* --- towards the server ---------------------------------------------------------------------- */

static void tunnel_on_written(uv_write_t *write, int status)
{
    struct tunnel *t = CONTAINER_OF(write, struct tunnel, write);
    t->writing = false;
    buf_reset(&t->out);
    if (t->state == TUNNEL_CLOSED)
        return;
    t->deaf = status < 0;
    if (t->state == TUNNEL_ASKING)
        return; /* the handshake has its own deadline */
    deadline_clear(&t->deadline);
    http_stream_resume(t->stream);
}

static void tunnel_write_out(struct tunnel *t)
{
    uv_buf_t bytes = {.base = t->out.ptr, .len = t->out.len};
    int rc = uv_write(&t->write, (uv_stream_t *)&t->tcp, &bytes, 1, tunnel_on_written);
    t->writing = rc == 0;
    t->deaf = rc != 0;
}

/* False: some of it waits. */
static bool tunnel_write(struct tunnel *t, struct slice bytes)
{
    uv_buf_t direct = {.base = (char *)(uintptr_t)bytes.ptr, .len = bytes.len};
    if (t->deaf)
        return true;
    ASSERT(!t->writing);
    int n = uv_try_write((uv_stream_t *)&t->tcp, &direct, 1);
    if (n < 0 && n != UV_EAGAIN) {
        t->deaf = true; /* reading will tell how it ended */
        return true;
    }
    size_t sent = n > 0 ? (size_t)n : 0;
    if (sent == bytes.len)
        return true;
    buf_add(&t->out, (struct slice){bytes.ptr + sent, bytes.len - sent});
    tunnel_write_out(t);
    if (t->writing)
        deadline_set(&t->owner->deadlines, TUNNEL_STUCK, &t->deadline);
    return !t->writing;
}

/* --- the client ------------------------------------------------------------------------------ */

static void tunnel_on_abort(struct http_req *req)
{
    tunnel_close(http_req_data(req));
}

static void tunnel_on_client_bytes(struct http_stream *s, struct slice bytes)
{
    if (!tunnel_write(http_stream_data(s), bytes))
        http_stream_pause(s);
}

static void tunnel_read_on(struct tunnel *t);

static void tunnel_on_client_caught_up(struct http_stream *s)
{
    struct tunnel *t = http_stream_data(s);
    deadline_clear(&t->hold);
    t->slow = false;
    tunnel_read_on(t);
}

static void tunnel_on_hold_over(struct deadline *d)
{
    struct tunnel *t = CONTAINER_OF(d, struct tunnel, hold);
    t->slow = true;
    tunnel_read_on(t);
}

static void tunnel_cut(struct tunnel *t)
{
    http_stream_reset(t->stream);
    tunnel_close(t);
}

static void tunnels_relieve(struct tunnels *ts)
{
    struct tunnel *last = NULL;
    size_t queued = 0, most = 0;
    LIST_FOREACH (node, &ts->open) {
        struct tunnel *t = CONTAINER_OF(node, struct tunnel, link);
        size_t behind = http_stream_pending(t->stream);
        queued += behind;
        if (behind > most) {
            most = behind;
            last = t;
        }
    }
    if (last != NULL && queued > ts->options.queued_max)
        tunnel_cut(last);
}

/* Not by its network: that is not what closes a window. */
static bool tunnel_has_never_read(const struct tunnel *t)
{
    struct tcp_peer now;
    uint64_t patience_us = t->owner->options.hold_ms * 1000;
    if (!http_stream_peer(t->stream, &now))
        return false;
    if (patience_us < TUNNEL_TRIPS * now.rtt_us)
        patience_us = TUNNEL_TRIPS * now.rtt_us;
    return now.acked_bytes - t->opened.acked_bytes < TUNNEL_PROOF &&
           now.closed_us - t->held.closed_us + TCP_PEER_TICK_US > patience_us;
}

static void tunnel_to_client(struct tunnel *t, struct slice bytes)
{
    if (http_stream_write(t->stream, bytes))
        return;
    if (!t->slow) {
        (void)uv_read_stop((uv_stream_t *)&t->tcp);
        deadline_set(&t->owner->deadlines, TUNNEL_HOLD, &t->hold);
        (void)http_stream_peer(t->stream, &t->held);
    } else if (http_stream_pending(t->stream) > t->owner->options.unread_max &&
               tunnel_has_never_read(t)) {
        tunnel_cut(t);
        return;
    }
    tunnels_relieve(t->owner);
}

/* If it ended in form, then not while it was paused: all its bytes are with the kernel. */
static void tunnel_on_client_end(struct http_stream *s, const struct err *err)
{
    (void)err;
    tunnel_close(http_stream_data(s));
}

/* --- from the server ------------------------------------------------------------------------- */

static bool tunnel_on_head(struct http_parser *p, const struct http_head *head)
{
    (void)p;
    (void)head;
    return true;
}

static void tunnel_on_refusal(struct http_parser *p, struct slice part)
{
    struct tunnel *t = http_parser_owner(p);
    t->refusal_fits = t->refusal_fits && buf_append(&t->refusal, part) == ERR_OK;
}

static void tunnel_on_refusal_end(struct http_parser *p)
{
    (void)p; /* http_parser_feed() says it too */
}

static const struct http_parser_events tunnel_parser_events = {tunnel_on_head, tunnel_on_refusal,
                                                               tunnel_on_refusal_end};

static void tunnel_upgrade(struct tunnel *t, struct slice rest)
{
    struct err err;
    struct http_headers headers;
    const struct http_stream_options options = {.on_bytes = tunnel_on_client_bytes,
                                                .on_drain = tunnel_on_client_caught_up,
                                                .on_end = tunnel_on_client_end,
                                                .data = t,
                                                .lasting = true};
    http_parser_take_headers(t->parser, &headers);
    http_relay_response(&headers);
    if (http_headers_add(&headers, SLICE("upgrade"), SLICE("websocket")) != ERR_OK) {
        (void)err_set(&err, ERR_PROTOCOL, "%s: too many headers", t->owner->authority);
        tunnel_fail(t, &err);
    } else {
        t->stream = http_upgrade(t->req, &headers, &options);
        t->req = NULL;
        t->state = TUNNEL_OPEN;
        list_add(&t->owner->open, &t->link);
        (void)http_stream_peer(t->stream, &t->opened);
        deadline_clear(&t->deadline);
        http_parser_free(t->parser);
        t->parser = NULL;
        if (rest.len > 0)
            tunnel_to_client(t, rest);
    }
    http_headers_done(&headers);
}

static void tunnel_on_answer(struct tunnel *t, struct slice bytes)
{
    size_t used = 0;
    struct err err;
    switch (http_parser_feed(t->parser, bytes, &used, NULL, &err)) {
    case HTTP_PARSE_MORE: break;
    case HTTP_PARSE_UPGRADED:
        tunnel_upgrade(t, (struct slice){bytes.ptr + used, bytes.len - used});
        break;
    case HTTP_PARSE_COMPLETE: tunnel_refuse(t); break;
    case HTTP_PARSE_FAILED:
        (void)err_prefix(&err, "%s", t->owner->authority);
        tunnel_fail(t, &err);
        break;
    }
}

static void tunnel_on_server_end(struct tunnel *t, int status)
{
    struct err err;
    if (t->state == TUNNEL_ASKING && status == UV_EOF &&
        http_parser_eof(t->parser, NULL) == HTTP_PARSE_COMPLETE) {
        tunnel_refuse(t);
    } else if (t->state == TUNNEL_ASKING) {
        (void)err_set(&err, ERR_CLOSED, "%s: connection closed before an answer (%s)",
                      t->owner->authority, uv_err_name(status));
        tunnel_fail(t, &err);
    } else {
        if (status == UV_EOF)
            http_stream_shut(t->stream);
        else
            http_stream_reset(t->stream);
        tunnel_close(t);
    }
}

static void tunnel_on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct tunnel *t = CONTAINER_OF(stream, struct tunnel, tcp);
    struct slice bytes = {buf->base, n > 0 ? (size_t)n : 0};
    if (n < 0)
        tunnel_on_server_end(t, (int)n);
    else if (n > 0 && t->state == TUNNEL_ASKING)
        tunnel_on_answer(t, bytes);
    else if (n > 0)
        tunnel_to_client(t, bytes);
}

static void tunnel_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct tunnel *t = CONTAINER_OF(handle, struct tunnel, tcp);
    (void)suggested;
    *ret = uv_buf_init(t->owner->read, sizeof(t->owner->read));
}

/* Reading already: nothing changes. What fails now is met by the next write. */
static void tunnel_read_on(struct tunnel *t)
{
    (void)uv_read_start((uv_stream_t *)&t->tcp, tunnel_on_alloc, tunnel_on_read);
}

static void tunnel_on_connected(uv_connect_t *connect, int status)
{
    struct tunnel *t = CONTAINER_OF(connect, struct tunnel, connect);
    struct err err;
    if (t->state == TUNNEL_CLOSED)
        return;
    if (status == 0)
        status = uv_read_start((uv_stream_t *)&t->tcp, tunnel_on_alloc, tunnel_on_read);
    if (status != 0) {
        (void)err_set(&err, ERR_UNAVAILABLE, "connect to %s: %s", t->owner->authority,
                      uv_strerror(status));
        tunnel_fail(t, &err);
        return;
    }
    (void)uv_tcp_nodelay(&t->tcp, 1);
    tunnel_write_out(t);
}

/* --- deadlines ------------------------------------------------------------------------------- */

static void tunnel_on_shake_over(struct deadline *d)
{
    struct tunnel *t = CONTAINER_OF(d, struct tunnel, deadline);
    struct err err;
    (void)err_set(&err, ERR_TIMEOUT, "%s: no answer in time", t->owner->authority);
    tunnel_fail(t, &err);
}

static void tunnel_on_stuck(struct deadline *d)
{
    tunnel_cut(CONTAINER_OF(d, struct tunnel, deadline));
}

/* --- the interface --------------------------------------------------------------------------- */

struct tunnels *tunnels_new(uv_loop_t *loop, const struct tunnels_options *options)
{
    struct tunnels *ts = xmalloc(sizeof(*ts));
    memset(ts, 0, offsetof(struct tunnels, read));
    ts->options = *options;
    ts->loop = loop;
    list_init(&ts->open);
    http_request_authority(options->host, options->port, ts->authority);
    int port = (int)options->port;
    ASSERT(uv_ip4_addr(options->host, port, (struct sockaddr_in *)&ts->address) == 0 ||
           uv_ip6_addr(options->host, port, (struct sockaddr_in6 *)&ts->address) == 0);
    ts->options.host = NULL;
    ts->classes[TUNNEL_SHAKE] =
        (struct deadline_class){.ms = options->shake_ms, .over = tunnel_on_shake_over};
    ts->classes[TUNNEL_STUCK] =
        (struct deadline_class){.ms = options->stuck_ms, .over = tunnel_on_stuck};
    ts->classes[TUNNEL_HOLD] =
        (struct deadline_class){.ms = options->hold_ms, .over = tunnel_on_hold_over};
    deadlines_init(&ts->deadlines, loop, ts->classes, TUNNEL_DEADLINES);
    closer_init(&ts->closer, loop);
    closer_hold(&ts->closer); /* the deadlines' timer */
    return ts;
}

static enum err_code tunnel_begin(struct tunnel *t, struct err *err)
{
    enum err_code code =
        http_request_begin(&t->out, "GET", t->ask.target, t->owner->authority, err);
    if (code != ERR_OK)
        return code;
    http_headers_write(t->ask.headers, &t->out);
    buf_adds(&t->out, "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    int rc = uv_tcp_connect(&t->connect, &t->tcp, (const struct sockaddr *)&t->owner->address,
                            tunnel_on_connected);
    if (rc != 0)
        return err_set(err, ERR_UNAVAILABLE, "connect to %s: %s", t->owner->authority,
                       uv_strerror(rc));
    return ERR_OK;
}

enum err_code tunnel_open(struct tunnels *ts, struct http_req *req, const struct tunnel_ask *ask,
                          struct err *err)
{
    ASSERT(!ts->closer.closing);
    if (ts->count >= ts->options.max)
        return err_set(err, ERR_BUSY, "%u connections to %s are open", ts->count, ts->authority);
    struct tunnel *t = xcalloc(1, sizeof(*t));
    t->owner = ts;
    t->ask = *ask;
    t->refusal_fits = true;
    list_init(&t->link);
    buf_init(&t->refusal, TUNNEL_REFUSAL_MAX);
    buf_init(&t->out, SIZE_MAX);
    deadline_init(&t->deadline);
    deadline_init(&t->hold);
    ASSERT(uv_tcp_init(ts->loop, &t->tcp) == 0);
    closer_hold(&ts->closer);
    ts->count++;
    enum err_code code = tunnel_begin(t, err);
    if (code != ERR_OK) {
        tunnel_close(t);
        return code;
    }
    t->req = req;
    t->parser = http_parser_new(HTTP_PARSE_RESPONSE, &tunnel_parser_events, t);
    http_req_set_data(req, t);
    http_on_abort(req, tunnel_on_abort);
    deadline_set(&ts->deadlines, TUNNEL_SHAKE, &t->deadline);
    return ERR_OK;
}

unsigned tunnels_count(const struct tunnels *ts)
{
    return ts->count;
}

static void tunnels_on_closed(struct closer *closer)
{
    struct tunnels *ts = CONTAINER_OF(closer, struct tunnels, closer);
    void (*closed)(void *ctx) = ts->closed;
    void *ctx = ts->closed_ctx;
    free(ts);
    if (closed != NULL)
        closed(ctx);
}

static void tunnels_on_deadlines_closed(struct deadlines *ds)
{
    closer_release(&CONTAINER_OF(ds, struct tunnels, deadlines)->closer);
}

void tunnels_free(struct tunnels *ts, void (*closed)(void *ctx), void *ctx)
{
    ASSERT(ts->count == 0);
    ts->closed = closed;
    ts->closed_ctx = ctx;
    deadlines_close(&ts->deadlines, tunnels_on_deadlines_closed);
    closer_begin(&ts->closer, tunnels_on_closed);
}
