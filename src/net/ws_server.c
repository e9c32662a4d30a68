/* Between a `ws` endpoint and an http_stream:
 *
 *     peer ─► on_bytes ─► ws_feed ─► on_text …           owner ─► ws_send_… ─► on_output ─► stream
 *
 *     OPEN ─ ws_server_close() ─► CLOSING ─ the peer's close frame, or close_ms ─► OVER
 *       └── the peer's close frame, its fault, its connection's end ──────────────► OVER
 *
 * Frames leave in the order in which they were asked for, so a close never overtakes a message. */
#include "ws_server.h"

#include "ws.h"
#include "ws_handshake.h"

#include <stdlib.h>

enum { WS_SERVER_PINGS_MAX = 2, WS_GONE = 1006 };

enum ws_server_state { WS_SERVER_OPEN, WS_SERVER_CLOSING, WS_SERVER_OVER };

struct ws_server {
    struct ws_server_options options;
    struct http_stream *stream; /* NULL: over */
    struct ws *ws;
    uv_timer_t timer;
    enum ws_server_state state;
    bool has_room; /* what the stream said last */
    uint64_t heard_at;
    unsigned pings; /* unanswered */
};

/* --- the end --------------------------------------------------------------------------------- */

static void server_on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

/* The stream is gone already, or not ours any more. Calls nobody. */
static void server_over(struct ws_server *s)
{
    ASSERT(s->state != WS_SERVER_OVER);
    s->state = WS_SERVER_OVER;
    s->stream = NULL;
    ws_free(s->ws);
    uv_close((uv_handle_t *)&s->timer, server_on_timer_closed);
}

static void server_end(struct ws_server *s, unsigned code)
{
    bool told = s->state == WS_SERVER_OPEN;
    server_over(s);
    if (told)
        s->options.on_end(s, code);
}

/* What was sent still leaves. */
static void server_shut(struct ws_server *s, unsigned code)
{
    http_stream_shut(s->stream);
    server_end(s, code);
}

/* --- time ------------------------------------------------------------------------------------ */

static void server_on_timer(uv_timer_t *timer);

static void server_set_timer(struct ws_server *s, uint64_t ms)
{
    ASSERT(uv_timer_start(&s->timer, server_on_timer, ms, 0) == 0);
}

static void server_watch_silence(struct ws_server *s)
{
    uint64_t silent_ms = uv_now(s->timer.loop) - s->heard_at;
    if (silent_ms < s->options.ping_ms) {
        server_set_timer(s, s->options.ping_ms - silent_ms);
        return;
    }
    server_set_timer(s, s->options.ping_ms);
    if (http_stream_pending(s->stream) > 0)
        return; /* a ping would wait with the rest; the connection knows when it is stuck */
    if (s->pings == WS_SERVER_PINGS_MAX) {
        http_stream_reset(s->stream);
        server_end(s, WS_GONE);
        return;
    }
    s->pings++;
    ws_send_ping(s->ws);
}

static void server_on_timer(uv_timer_t *timer)
{
    struct ws_server *s = timer->data;
    if (s->state == WS_SERVER_OPEN)
        server_watch_silence(s);
    else
        server_shut(s, WS_GONE); /* what was sent may still be on its way: that goes on */
}

/* --- the endpoint ---------------------------------------------------------------------------- */

static void server_on_text(struct ws *ws, struct slice text)
{
    struct ws_server *s = ws_owner(ws);
    if (s->state == WS_SERVER_OPEN)
        s->options.on_text(s, text);
}

static void server_on_binary(struct ws *ws, struct slice bytes)
{
    struct ws_server *s = ws_owner(ws);
    if (s->state == WS_SERVER_OPEN)
        s->options.on_binary(s, bytes);
}

static void server_on_output(struct ws *ws, struct slice bytes)
{
    struct ws_server *s = ws_owner(ws);
    if (s->stream != NULL)
        s->has_room = http_stream_write(s->stream, bytes);
}

static void server_on_close(struct ws *ws, unsigned code, struct slice reason)
{
    (void)reason;
    server_shut(ws_owner(ws), code);
}

static const struct ws_events server_ws_events = {
    .on_text = server_on_text,
    .on_binary = server_on_binary,
    .on_output = server_on_output,
    .on_close = server_on_close,
};

/* --- the connection -------------------------------------------------------------------------- */

static void server_on_bytes(struct http_stream *stream, struct slice bytes)
{
    struct ws_server *s = http_stream_data(stream);
    s->heard_at = uv_now(s->timer.loop);
    s->pings = 0;
    ws_feed(s->ws, bytes);
}

static void server_on_drain(struct http_stream *stream)
{
    struct ws_server *s = http_stream_data(stream);
    s->has_room = true;
    if (s->state == WS_SERVER_OPEN && s->options.on_drain != NULL)
        s->options.on_drain(s);
}

static void server_on_stream_end(struct http_stream *stream, const struct err *err)
{
    (void)err;
    server_end(http_stream_data(stream), WS_GONE);
}

/* --- public ---------------------------------------------------------------------------------- */

struct ws_server *ws_server_accept(struct http_req *req, uv_loop_t *loop,
                                   const struct http_headers *extra,
                                   const struct ws_server_options *options)
{
    struct ws_server *s = xcalloc(1, sizeof(*s));
    struct http_headers headers;
    struct http_stream_options stream = {
        .on_bytes = server_on_bytes,
        .on_drain = server_on_drain,
        .on_end = server_on_stream_end,
        .data = s,
    };
    struct ws_options endpoint = {
        .role = WS_SERVER,
        .message_max = options->message_max,
        .frames_max = options->frames_max,
        .budget = options->budget,
    };
    s->options = *options;
    s->has_room = true;
    s->heard_at = uv_now(loop);
    s->ws = ws_new(&endpoint, &server_ws_events, s);
    ASSERT(uv_timer_init(loop, &s->timer) == 0);
    s->timer.data = s;
    server_set_timer(s, s->options.ping_ms);
    http_headers_init(&headers);
    ws_handshake_answer(http_req_head(req), &headers);
    for (unsigned i = 0; extra != NULL && i < extra->count; i++)
        ASSERT(http_headers_copy(&headers, extra, i) == ERR_OK);
    s->stream = http_upgrade(req, &headers, &stream);
    http_headers_done(&headers);
    return s;
}

void *ws_server_ctx(const struct ws_server *s)
{
    return s->options.ctx;
}

bool ws_server_send_text(struct ws_server *s, struct slice text)
{
    ws_send_text(s->ws, text);
    return s->has_room;
}

bool ws_server_send_binary(struct ws_server *s, struct slice bytes)
{
    ws_send_binary(s->ws, bytes);
    return s->has_room;
}

bool ws_server_send_text_part(struct ws_server *s, struct slice part, bool first, bool last)
{
    ws_send_text_part(s->ws, part, first, last);
    return s->has_room;
}

bool ws_server_is_clear(struct ws_server *s)
{
    return http_stream_is_clear(s->stream);
}

void ws_server_close(struct ws_server *s, unsigned code, const char *reason)
{
    ASSERT(s->state == WS_SERVER_OPEN);
    s->state = WS_SERVER_CLOSING;
    ws_close(s->ws, code, slice_of(reason));
    server_set_timer(s, s->options.close_ms);
}

void ws_server_reset(struct ws_server *s)
{
    ASSERT(s->state == WS_SERVER_OPEN);
    http_stream_reset(s->stream);
    server_over(s);
}
