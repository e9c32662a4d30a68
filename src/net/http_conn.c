/* One connection.
 *
 *     IDLE ─► HEAD ─► BUSY ─► ANSWERED ─┬─► IDLE           one request after the other
 *                        │              ├─► SKIP ─► IDLE   the handler left some of the body
 *                        ├─► RESET      └─► FLUSH ─► LINGER
 *                        └─► STREAM ─► FLUSH, RESET          upgraded: HTTP is over
 *
 * and from everywhere to CLOSED. conn_work() is the only place that moves input: the loop's
 * callbacks record what they have seen (bytes, eof, broken) and call it. What a handler does is
 * recorded (it may be called by the parser just now) and worked on after it has returned, or in the
 * next `later`. Input whose turn has not come is copied to `unread`, and reading stops
 * there. A next request is not begun while an answer still waits to be taken. */
#include "http_conn.h"

#include <stdlib.h>

/* --- end ------------------------------------------------------------------------------------- */

static void conn_on_closed(uv_handle_t *h)
{
    struct http_conn *c = CONTAINER_OF(h, struct http_conn, tcp);
    struct http_server *s = c->server;
    out_done(c);
    buf_done(&c->unread);
    list_remove(&c->link);
    free(c);
    closer_release(&s->closer);
}

static void conn_drop_parser(struct http_conn *c)
{
    if (c->parser != NULL)
        server_give_parser(c->server, c->parser);
    c->parser = NULL;
}

void conn_close(struct http_conn *c, bool reset)
{
    ASSERT(c->state != CONN_CLOSED && c->req == NULL);
    ASSERT(c->stream == NULL);
    c->state = CONN_CLOSED;
    deadline_clear(&c->read_deadline);
    deadline_clear(&c->write_deadline);
    later_cancel(c->server->later, &c->step);
    conn_drop_parser(c);
    /* The reset is refused when our side was shut before; then an end is an end. */
    if (!reset || uv_tcp_close_reset(&c->tcp, conn_on_closed) != 0)
        uv_close((uv_handle_t *)&c->tcp, conn_on_closed);
    server_conn_closed(c->server);
    server_conn_ended(c);
}

void conn_cut(struct http_conn *c, bool reset)
{
    struct http_req *req = c->req;
    struct http_parser *parser = c->parser;
    if (c->state == CONN_CLOSED)
        return;
    if (c->stream != NULL) {
        stream_cut(c, reset);
        return;
    }
    if (req == NULL) {
        conn_close(c, reset);
        return;
    }
    c->req = NULL;
    c->parser = NULL; /* the request's slices are alive in its last callback */
    c->server->stats.in_flight--;
    conn_close(c, reset);
    if (req->on_abort != NULL)
        req->on_abort(req);
    req_free(req);
    server_give_parser(c->server, parser);
}

/* --- requests -------------------------------------------------------------------------------- */

static bool conn_on_head(struct http_parser *p, const struct http_head *head)
{
    (void)p;
    (void)head;
    return false; /* the handler decides about the body, and not inside the parser */
}

static void conn_on_body(struct http_parser *p, struct slice part)
{
    struct http_conn *c = http_parser_owner(p);
    if (c->state == CONN_BUSY)
        req_take_part(c->req, part);
    else
        c->dropped += part.len;
}

static void conn_on_end(struct http_parser *p)
{
    (void)p; /* http_parser_has_body() tells */
}

const struct http_parser_events conn_parser_events = {conn_on_head, conn_on_body, conn_on_end};

void conn_refuse(struct http_conn *c, int status, const char *detail)
{
    c->server->stats.refused++;
    res_refuse(c, status, detail);
    conn_finish(c);
}

static void conn_dispatch(struct http_conn *c)
{
    struct http_server *s = c->server;
    const struct http_head *head = http_parser_head(c->parser);
    struct http_target target;
    if (slice_is(head->method, "CONNECT")) {
        conn_refuse(c, 501, "there are no tunnels to other hosts");
        return;
    }
    if (http_target_split(head->target, &target) != ERR_OK) {
        conn_refuse(c, 400, "the request target is none that a server takes");
        return;
    }
    struct http_req *req = xcalloc(1, sizeof(*req));
    http_headers_init(&req->own);
    buf_init(&req->origin, SIZE_MAX);
    req->conn = c;
    req->head = head;
    req->target = target;
    req->left = -1;
    c->req = req;
    c->state = CONN_BUSY;
    c->fresh = false;
    c->keep = head->keep_alive;
    c->last_said = !head->keep_alive;
    deadline_clear(&c->read_deadline);
    c->read_class = DEADLINE_NONE;
    s->stats.requests++;
    s->stats.in_flight++;
    s->options.handler(req, s->options.ctx);
}

void conn_finish(struct http_conn *c)
{
    /* What is not read is answered with a reset by the kernel when the socket is closed, and a
     * reset can overtake our last words. */
    if (c->unread.len > 0 || (c->parser != NULL && http_parser_has_body(c->parser)))
        c->last_said = false;
    c->state = CONN_FLUSH;
    conn_drop_parser(c);
    buf_done(&c->unread);
}

static void conn_ready_for_next(struct http_conn *c)
{
    if (c->server->draining) {
        conn_finish(c);
        return;
    }
    c->state = CONN_IDLE;
    conn_drop_parser(c);
}

static void conn_leave_request(struct http_conn *c, enum conn_state next)
{
    ASSERT(c->state == CONN_BUSY);
    req_free(c->req);
    c->req = NULL;
    c->server->stats.in_flight--;
    c->state = next;
    c->dropped = 0;
    conn_go_on(c);
}

void conn_answered(struct http_conn *c)
{
    conn_leave_request(c, CONN_ANSWERED);
}

void conn_reset(struct http_conn *c)
{
    conn_leave_request(c, CONN_RESET);
}

void conn_to_stream(struct http_conn *c, struct http_stream *stream)
{
    conn_leave_request(c, CONN_STREAM);
    conn_drop_parser(c);
    c->stream = stream;
    c->last_said = false;
}

static void conn_after_answer(struct http_conn *c)
{
    if (!c->keep)
        conn_finish(c);
    else if (http_parser_has_body(c->parser))
        c->state = CONN_SKIP;
    else
        conn_ready_for_next(c);
}

/* --- input, state by state: true if there may be more to do ---------------------------------- */

static bool conn_read_head(struct http_conn *c, struct slice *in)
{
    struct err err;
    size_t used;
    int status;
    if (in->len == 0 || out_pending(c) > 0)
        return false;
    if (c->parser == NULL)
        c->parser = server_take_parser(c->server, c);
    enum http_parse_result result = http_parser_feed(c->parser, *in, &used, &status, &err);
    *in = (struct slice){in->ptr + used, in->len - used};
    if (result == HTTP_PARSE_COMPLETE) {
        conn_dispatch(c);
    } else if (result == HTTP_PARSE_FAILED) {
        c->last_said = false;
        conn_refuse(c, status, err.msg);
    } else if (http_parser_started(c->parser)) {
        c->state = CONN_HEAD;
    } else {
        conn_ready_for_next(c);
    }
    return true;
}

bool conn_body_is_due(const struct http_conn *c)
{
    const struct http_req *req = c->req;
    return (req->reader == READER_WHOLE || req->reader == READER_PARTS) && !req->paused &&
           req->body_err.code == ERR_OK && http_parser_has_body(c->parser);
}

/* The handler is called inside and may end the request. */
static void conn_feed_body(struct http_conn *c, struct slice *in)
{
    struct err err;
    size_t used;
    enum http_parse_result result = http_parser_feed(c->parser, *in, &used, NULL, &err);
    *in = (struct slice){in->ptr + used, in->len - used};
    if (result != HTTP_PARSE_FAILED)
        return;
    c->keep = false;
    if (c->req != NULL)
        c->req->body_err = err;
}

static bool conn_serve(struct http_conn *c, struct slice *in)
{
    struct http_req *req = c->req;
    if (req->drain_due && out_pending(c) <= HTTP_WRITE_LOW) {
        req->drain_due = false;
        if (req->on_drain != NULL)
            req->on_drain(req);
        return true;
    }
    if (conn_body_is_due(c) && in->len > 0) {
        conn_feed_body(c, in);
        return true;
    }
    bool ended = req->body_err.code != ERR_OK || !http_parser_has_body(c->parser);
    if ((req->reader != READER_WHOLE && req->reader != READER_PARTS) || req->paused || !ended)
        return false;
    req_deliver_body(req);
    return true;
}

static bool conn_skip(struct http_conn *c, struct slice *in)
{
    size_t used;
    if (in->len == 0)
        return false;
    enum http_parse_result result = http_parser_feed(c->parser, *in, &used, NULL, NULL);
    *in = (struct slice){in->ptr + used, in->len - used};
    if (result == HTTP_PARSE_COMPLETE)
        conn_ready_for_next(c);
    else if (result == HTTP_PARSE_FAILED || c->dropped > HTTP_SKIP_BYTES)
        conn_finish(c);
    return true;
}

static void conn_on_shut(uv_shutdown_t *shutdown, int status)
{
    (void)status; /* the peer's end, or the deadline, ends the lingering */
    free(shutdown);
}

/* False: it is closed already, or nearly so. */
static bool conn_shut(struct http_conn *c)
{
    uv_shutdown_t *shutdown = xmalloc(sizeof(*shutdown));
    if (uv_shutdown(shutdown, (uv_stream_t *)&c->tcp, conn_on_shut) == 0)
        return true;
    free(shutdown);
    return false;
}

static bool conn_flushed(struct http_conn *c, struct slice *in)
{
    if (in->len > 0)
        c->last_said = false;
    *in = SLICE_EMPTY;
    if (out_pending(c) > 0)
        return false;
    if (c->eof || c->last_said || !conn_shut(c)) {
        conn_close(c, false);
        return false;
    }
    c->state = CONN_LINGER;
    c->dropped = 0;
    server_conn_ended(c);
    return false;
}

static bool conn_linger(struct http_conn *c, struct slice *in)
{
    c->dropped += in->len;
    *in = SLICE_EMPTY;
    if (c->dropped > HTTP_LINGER_BYTES)
        conn_close(c, false);
    return false;
}

static void conn_step(struct http_conn *c, struct slice *in)
{
    bool more = true;
    while (more) {
        if (c->broken)
            conn_cut(c, false);
        switch (c->state) {
        case CONN_IDLE:
        case CONN_HEAD: more = conn_read_head(c, in); break;
        case CONN_BUSY: more = conn_serve(c, in); break;
        case CONN_ANSWERED: conn_after_answer(c); break;
        case CONN_STREAM: more = stream_serve(c, in); break;
        case CONN_RESET: conn_close(c, true); break;
        case CONN_SKIP: more = conn_skip(c, in); break;
        case CONN_FLUSH: more = conn_flushed(c, in); break;
        case CONN_LINGER: more = conn_linger(c, in); break;
        case CONN_CLOSED: more = false; break;
        }
    }
}

/* --- one turn --------------------------------------------------------------------------------- */

/* The peer has closed its side and all that it sent was worked on. */
static void conn_settle_eof(struct http_conn *c)
{
    switch (c->state) {
    case CONN_IDLE:
    case CONN_HEAD:
    case CONN_SKIP:
        conn_finish(c);
        (void)conn_flushed(c, &(struct slice){"", 0});
        break;
    case CONN_BUSY:
        if (http_parser_has_body(c->parser))
            conn_cut(c, false); /* the rest of the request will not come */
        break;
    case CONN_STREAM:
        if (!c->stream->paused)
            stream_on_eof(c);
        break;
    case CONN_LINGER: conn_close(c, false); break;
    case CONN_ANSWERED:
    case CONN_RESET:
    case CONN_FLUSH:
    case CONN_CLOSED: break;
    }
}

void conn_work(struct http_conn *c, struct slice in)
{
    ASSERT(!c->working && c->state != CONN_CLOSED);
    if (c->unread.len > 0 && in.len > 0) {
        buf_add(&c->unread, in);
        in = SLICE_EMPTY;
    }
    bool kept = c->unread.len > 0;
    if (kept)
        in = buf_slice(&c->unread);
    struct buf taken = c->unread; /* handlers and conn_finish() see what is behind it only */
    size_t before = in.len;
    if (kept)
        buf_init(&c->unread, SIZE_MAX);
    c->working = true;
    conn_step(c, &in);
    if (c->state != CONN_CLOSED)
        out_flush(c);
    if (c->broken)
        conn_cut(c, false);
    c->working = false;
    if (kept && in.len > 0) {
        buf_consume(&taken, before - in.len);
        c->unread = taken;
    } else if (kept) {
        buf_done(&taken);
    } else if (in.len > 0 && c->state != CONN_CLOSED) {
        buf_add(&c->unread, in);
    }
    if (c->state != CONN_CLOSED && c->eof && c->unread.len == 0)
        conn_settle_eof(c);
    if ((c->state == CONN_IDLE || c->state == CONN_STREAM) && out_pending(c) == 0)
        out_done(c);
    if (c->state != CONN_CLOSED)
        conn_arm(c);
}

static void conn_on_step(struct later_item *item)
{
    conn_work(CONTAINER_OF(item, struct http_conn, step), SLICE_EMPTY);
}

void conn_go_on(struct http_conn *c)
{
    if (!c->working && c->state != CONN_CLOSED)
        later_add_last(c->server->later, &c->step);
}

void conn_accept(struct http_server *s)
{
    struct http_conn *c = xcalloc(1, sizeof(*c));
    c->server = s;
    c->fresh = true;
    c->counted = true;
    c->read_class = DEADLINE_NONE;
    buf_init(&c->unread, SIZE_MAX);
    buf_init(&c->out, SIZE_MAX);
    buf_init(&c->sending, SIZE_MAX);
    deadline_init(&c->read_deadline);
    deadline_init(&c->write_deadline);
    later_item_init(&c->step, conn_on_step);
    list_add(&s->conns, &c->link);
    closer_hold(&s->closer);
    s->live++;
    s->stats.connections++;
    s->stats.accepted++;
    ASSERT(uv_tcp_init(s->loop, &c->tcp) == 0);
    if (uv_accept((uv_stream_t *)&s->listener, (uv_stream_t *)&c->tcp) != 0)
        conn_close(c, false);
    else
        conn_arm(c);
}
