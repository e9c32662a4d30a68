/* One socket's life:
 *
 *   CONNECTING ─► SHAKING ─► OPEN ─ws_client_shut─► SHUTTING
 *        │           │        │ close frames exchanged  │
 *        │           │        ├──────► LEAVING ◄────────┤   what was given is still written
 *        └───────────┴────────┴──────────┴──────────────┴─► OVER ─► on_end, from `later`
 *
 * One timer serves the deadline of each state, in OPEN the watch over the silence. OVER closes the
 * socket at once; the memory stays until the owner frees it and the handles have closed.
 */
#include "ws_client.h"

#include "closer.h"
#include "http_request.h"
#include "later.h"
#include "ws_handshake.h"

#include <stdlib.h>

enum {
    CLIENT_READ = 64 * 1024,
    CLIENT_PINGS_MAX = 2,
    CLIENT_UNSENT_MAX = 1024 * 1024, /* waiting for a peer that does not read */
    CLIENT_CLOSE_NORMAL = 1000,
};

enum client_state {
    CLIENT_CONNECTING,
    CLIENT_SHAKING,
    CLIENT_OPEN,
    CLIENT_SHUTTING,
    CLIENT_LEAVING,
    CLIENT_OVER,
};

struct ws_client {
    struct ws_client_options options; /* host and target: see below */
    char *host;
    struct buf target;
    struct later *later;
    struct closer closer;
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_connect_t connect;
    uv_write_t write;
    struct later_item end;
    enum client_state state;
    struct err err; /* what on_end will say */
    bool freed;
    void (*closed)(void *ctx);
    void *closed_ctx;

    char key[WS_KEY_TEXT + 1];
    struct http_parser *parser; /* until the handshake is over */
    int status;                 /* of the answer to it */
    bool accepted;
    struct ws *ws;

    uint64_t heard_at;
    unsigned pings; /* unanswered */
    bool writing;
    struct buf leaving, waiting; /* with uv_write; behind it */
    char read[CLIENT_READ];
};

/* --- the end --------------------------------------------------------------------------------- */

static void client_on_later(struct later_item *item)
{
    struct ws_client *c = CONTAINER_OF(item, struct ws_client, end);
    c->options.on_end(c, &c->err); /* usually frees c */
}

static void client_on_tcp_closed(uv_handle_t *handle)
{
    struct ws_client *c = handle->data;
    closer_release(&c->closer);
}

/* c->err is set. The first reason counts. */
static void client_over(struct ws_client *c)
{
    if (c->state == CLIENT_OVER)
        return;
    c->state = CLIENT_OVER;
    (void)uv_timer_stop(&c->timer);
    uv_close((uv_handle_t *)&c->tcp, client_on_tcp_closed);
    if (!c->freed)
        later_add(c->later, &c->end);
}

static void client_set_timer(struct ws_client *c, uint64_t ms);

/* Both close frames are there, or the peer broke the rules. */
static void client_leave(struct ws_client *c)
{
    if (!c->writing) {
        client_over(c);
        return;
    }
    c->state = CLIENT_LEAVING;
    client_set_timer(c, c->options.close_ms);
}

/* --- time ------------------------------------------------------------------------------------ */

static void client_watch_silence(struct ws_client *c)
{
    uint64_t silent_ms = uv_now(c->timer.loop) - c->heard_at;
    if (silent_ms < c->options.ping_ms) {
        client_set_timer(c, c->options.ping_ms - silent_ms);
        return;
    }
    if (c->pings == CLIENT_PINGS_MAX) {
        (void)err_set(&c->err, ERR_TIMEOUT, "silent for %llu ms, %u pings unanswered",
                      (unsigned long long)silent_ms, c->pings);
        client_over(c);
        return;
    }
    c->pings++;
    client_set_timer(c, c->options.ping_ms);
    ws_send_ping(c->ws);
}

static void client_on_timer(uv_timer_t *timer)
{
    struct ws_client *c = timer->data;
    switch (c->state) {
    case CLIENT_OPEN: client_watch_silence(c); return;
    case CLIENT_CONNECTING:
        (void)err_set(&c->err, ERR_TIMEOUT, "no connection within %llu ms",
                      (unsigned long long)c->options.connect_ms);
        break;
    case CLIENT_SHAKING:
        (void)err_set(&c->err, ERR_TIMEOUT, "no answer to the handshake within %llu ms",
                      (unsigned long long)c->options.handshake_ms);
        break;
    case CLIENT_SHUTTING:
        (void)err_set(&c->err, ERR_TIMEOUT, "close frame not answered within %llu ms",
                      (unsigned long long)c->options.close_ms);
        break;
    case CLIENT_LEAVING:
    case CLIENT_OVER: break; /* why it ends has been said */
    }
    client_over(c);
}

static void client_set_timer(struct ws_client *c, uint64_t ms)
{
    ASSERT(uv_timer_start(&c->timer, client_on_timer, ms, 0) == 0);
}

/* --- writing --------------------------------------------------------------------------------- */

static void client_write_waiting(struct ws_client *c);

static void client_on_written(uv_write_t *write, int status)
{
    struct ws_client *c = write->data;
    c->writing = false;
    buf_done(&c->leaving);
    if (c->state == CLIENT_OVER)
        return;
    if (status < 0) {
        if (c->state != CLIENT_LEAVING)
            (void)err_set(&c->err, ERR_CLOSED, "connection lost: %s", uv_strerror(status));
        client_over(c);
        return;
    }
    client_write_waiting(c);
    if (c->state == CLIENT_LEAVING && !c->writing)
        client_over(c);
}

static void client_write_waiting(struct ws_client *c)
{
    if (c->waiting.len == 0)
        return;
    c->leaving = c->waiting;
    buf_init(&c->waiting, CLIENT_UNSENT_MAX);
    uv_buf_t buf = uv_buf_init(c->leaving.ptr, (unsigned)c->leaving.len);
    c->write.data = c;
    c->writing = true;
    ASSERT(uv_write(&c->write, (uv_stream_t *)&c->tcp, &buf, 1, client_on_written) == 0);
}

static void client_write(struct ws_client *c, struct slice bytes)
{
    if (c->state == CLIENT_OVER)
        return;
    if (!c->writing) {
        uv_buf_t buf = uv_buf_init((char *)(uintptr_t)bytes.ptr, (unsigned)bytes.len);
        int n = uv_try_write((uv_stream_t *)&c->tcp, &buf, 1);
        size_t sent = n > 0 ? (size_t)n : 0; /* uv_write meets the same error and tells it */
        bytes.ptr += sent;
        bytes.len -= sent;
    }
    if (bytes.len == 0)
        return;
    if (buf_append(&c->waiting, bytes) != ERR_OK) {
        (void)err_set(&c->err, ERR_BUSY, "the peer does not read what it is sent");
        client_over(c);
        return;
    }
    if (!c->writing)
        client_write_waiting(c);
}

/* --- the conversation ------------------------------------------------------------------------ */

static void client_on_text(struct ws *ws, struct slice text)
{
    struct ws_client *c = ws_owner(ws);
    if (c->state != CLIENT_OVER)
        c->options.on_text(c, text);
}

static void client_on_binary(struct ws *ws, struct slice bytes)
{
    struct ws_client *c = ws_owner(ws);
    if (c->state != CLIENT_OVER)
        c->options.on_binary(c, bytes);
}

static void client_on_skipped(struct ws *ws)
{
    struct ws_client *c = ws_owner(ws);
    if (c->state != CLIENT_OVER && c->options.on_skipped != NULL)
        c->options.on_skipped(c);
}

static void client_on_output(struct ws *ws, struct slice bytes)
{
    client_write(ws_owner(ws), bytes);
}

static void client_on_close(struct ws *ws, unsigned code, struct slice reason)
{
    struct ws_client *c = ws_owner(ws);
    if (c->state == CLIENT_OVER)
        return;
    bool in_form = code != 1002 && (code < 1007 || code > 1009);
    (void)err_set(&c->err, in_form ? ERR_CLOSED : ERR_PROTOCOL, "closed with code %u%s%.*s", code,
                  reason.len > 0 ? ": " : "", SLICE_ARGS(reason));
    client_leave(c);
}

static const struct ws_events client_ws_events = {
    .on_text = client_on_text,
    .on_binary = client_on_binary,
    .on_skipped = client_on_skipped,
    .on_output = client_on_output,
    .on_close = client_on_close,
};

/* --- the handshake --------------------------------------------------------------------------- */

static bool client_on_head(struct http_parser *parser, const struct http_head *head)
{
    struct ws_client *c = http_parser_owner(parser);
    c->status = head->status;
    c->accepted = ws_handshake_is_answer(head, c->key);
    return c->accepted; /* of a refusal nothing but the status is of interest */
}

static void client_on_head_body(struct http_parser *parser, struct slice part)
{
    (void)parser;
    (void)part;
}

static void client_on_head_end(struct http_parser *parser)
{
    (void)parser;
}

static const struct http_parser_events client_head_events = {
    .on_head = client_on_head,
    .on_body = client_on_head_body,
    .on_end = client_on_head_end,
};

static void client_open(struct ws_client *c)
{
    struct ws_options options = {
        .role = WS_CLIENT,
        .message_max = c->options.message_max,
        .skip_oversize = true, /* the rest of the news is worth more than a lost link */
        .frames_max = c->options.frames_max,
    };
    c->ws = ws_new(&options, &client_ws_events, c);
    c->state = CLIENT_OPEN;
    client_set_timer(c, c->options.ping_ms);
    c->options.on_open(c);
}

static void client_on_head_bytes(struct ws_client *c, struct slice bytes)
{
    size_t used = 0;
    int status = 0;
    struct err err = {.code = ERR_OK};
    enum http_parse_result result = http_parser_feed(c->parser, bytes, &used, &status, &err);
    if (result == HTTP_PARSE_MORE)
        return;
    if (result == HTTP_PARSE_FAILED) {
        (void)err_set(&c->err, ERR_PROTOCOL, "handshake: %s", err.msg);
        client_over(c);
        return;
    }
    if (!c->accepted || result != HTTP_PARSE_UPGRADED) {
        (void)err_set(&c->err, ERR_PROTOCOL, "handshake answered with status %d%s", c->status,
                      c->status == 101 ? ", but not to our question" : "");
        client_over(c);
        return;
    }
    client_open(c);
    /* Frames may have come in the same packet; on_open may have freed. */
    if (c->state != CLIENT_OVER && used < bytes.len)
        ws_feed(c->ws, (struct slice){bytes.ptr + used, bytes.len - used});
}

static void client_request(struct ws_client *c)
{
    char authority[HTTP_AUTHORITY_MAX];
    struct buf request;
    buf_init(&request, SIZE_MAX);
    http_request_authority(c->host, c->options.port, authority);
    ws_handshake_key(c->key);
    if (http_request_begin(&request, "GET", buf_slice(&c->target), authority, &c->err) == ERR_OK) {
        ws_handshake_ask(&request, c->key);
        client_write(c, buf_slice(&request));
    } else {
        client_over(c);
    }
    buf_done(&request);
}

/* --- reading --------------------------------------------------------------------------------- */

static void client_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct ws_client *c = handle->data;
    (void)suggested;
    *ret = uv_buf_init(c->read, sizeof(c->read));
}

static void client_on_lost(struct ws_client *c, int status)
{
    const char *what = status == UV_EOF ? "closed by the peer" : uv_strerror(status);
    const char *when =
        c->state == CLIENT_SHAKING ? "in the handshake: " : "without a close frame: ";
    if (c->state != CLIENT_LEAVING)
        (void)err_set(&c->err, ERR_CLOSED, "%s%s", when, what);
    client_over(c);
}

static void client_on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
    struct ws_client *c = stream->data;
    if (nread == 0)
        return;
    if (nread < 0) {
        client_on_lost(c, (int)nread);
        return;
    }
    struct slice bytes = {buf->base, (size_t)nread};
    c->heard_at = uv_now(c->timer.loop);
    c->pings = 0;
    if (c->state == CLIENT_SHAKING)
        client_on_head_bytes(c, bytes);
    else if (c->state != CLIENT_LEAVING) /* then it is read and dropped */
        ws_feed(c->ws, bytes);
}

static void client_on_connected(uv_connect_t *connect, int status)
{
    struct ws_client *c = connect->data;
    if (c->state == CLIENT_OVER)
        return;
    if (status < 0) {
        (void)err_set(&c->err, ERR_UNAVAILABLE, "connect to %s port %u: %s", c->host,
                      c->options.port, uv_strerror(status));
        client_over(c);
        return;
    }
    c->state = CLIENT_SHAKING;
    c->parser = http_parser_new(HTTP_PARSE_RESPONSE, &client_head_events, c);
    client_set_timer(c, c->options.handshake_ms);
    (void)uv_tcp_nodelay(&c->tcp, 1);
    client_request(c);
    ASSERT(c->state == CLIENT_OVER ||
           uv_read_start((uv_stream_t *)&c->tcp, client_on_alloc, client_on_read) == 0);
}

/* --- life ------------------------------------------------------------------------------------ */

static int client_connect(struct ws_client *c)
{
    struct sockaddr_storage address;
    int r = uv_ip4_addr(c->host, (int)c->options.port, (struct sockaddr_in *)&address);
    if (r != 0)
        r = uv_ip6_addr(c->host, (int)c->options.port, (struct sockaddr_in6 *)&address);
    if (r != 0)
        return r;
    c->connect.data = c;
    return uv_tcp_connect(&c->connect, &c->tcp, (const struct sockaddr *)&address,
                          client_on_connected);
}

static void client_start(struct ws_client *c)
{
    int r = client_connect(c);
    if (r != 0) {
        (void)err_set(&c->err, r == UV_EINVAL ? ERR_INVALID : ERR_UNAVAILABLE,
                      "connect to %s port %u: %s", c->host, c->options.port, uv_strerror(r));
        client_over(c);
        return;
    }
    client_set_timer(c, c->options.connect_ms);
}

struct ws_client *ws_client_new(uv_loop_t *loop, struct later *later,
                                const struct ws_client_options *options)
{
    struct ws_client *c = xmalloc(sizeof(*c));
    memset(c, 0, offsetof(struct ws_client, read));
    c->options = *options;
    c->host = xstrdup(options->host);
    c->later = later;
    buf_init(&c->target, SIZE_MAX);
    buf_add(&c->target, options->target);
    buf_init(&c->waiting, CLIENT_UNSENT_MAX);
    later_item_init(&c->end, client_on_later);
    closer_init(&c->closer, loop);
    ASSERT(uv_tcp_init(loop, &c->tcp) == 0);
    c->tcp.data = c;
    closer_hold(&c->closer);
    ASSERT(uv_timer_init(loop, &c->timer) == 0);
    c->timer.data = c;
    closer_hold(&c->closer);
    client_start(c);
    return c;
}

void *ws_client_ctx(const struct ws_client *c)
{
    return c->options.ctx;
}

void ws_client_send_text(struct ws_client *c, struct slice text)
{
    ASSERT(c->ws != NULL || c->state == CLIENT_OVER);
    if (c->state == CLIENT_OPEN)
        ws_send_text(c->ws, text);
}

void ws_client_shut(struct ws_client *c)
{
    if (c->state == CLIENT_OPEN) {
        c->state = CLIENT_SHUTTING;
        client_set_timer(c, c->options.close_ms);
        ws_close(c->ws, CLIENT_CLOSE_NORMAL, SLICE_EMPTY);
    } else if (c->state == CLIENT_CONNECTING || c->state == CLIENT_SHAKING) {
        (void)err_set(&c->err, ERR_CANCELLED, "shut before it was open");
        client_over(c);
    }
}

static void client_on_timer_closed(uv_handle_t *handle)
{
    struct ws_client *c = handle->data;
    closer_release(&c->closer);
}

static void client_on_closed(struct closer *closer)
{
    struct ws_client *c = CONTAINER_OF(closer, struct ws_client, closer);
    void (*closed)(void *ctx) = c->closed;
    void *ctx = c->closed_ctx;
    ws_free(c->ws);
    http_parser_free(c->parser);
    free(c->host);
    buf_done(&c->target);
    buf_done(&c->leaving);
    buf_done(&c->waiting);
    free(c);
    if (closed != NULL)
        closed(ctx);
}

void ws_client_free(struct ws_client *c, void (*closed)(void *ctx), void *ctx)
{
    ASSERT(!c->freed);
    c->freed = true;
    c->closed = closed;
    c->closed_ctx = ctx;
    client_over(c);
    later_cancel(c->later, &c->end);
    uv_close((uv_handle_t *)&c->timer, client_on_timer_closed);
    closer_begin(&c->closer, client_on_closed);
}
