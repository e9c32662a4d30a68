/* What a connection waits for: bytes, or the end of a deadline. conn_arm() is called at the end of
 * every turn and derives both from the state. */
#include "http_conn.h"

/* More only of a body that is being taken: nothing behind it is read ahead. Also of one that is
 * paused: while a part leaves, the next comes in, or each would wait for the other. */
static size_t conn_read_room(const struct http_conn *c)
{
    bool takes_body =
        c->state == CONN_BUSY && (c->req->reader == READER_PARTS || conn_body_is_due(c));
    return takes_body ? http_parser_read_room(c->parser, HTTP_READ_BYTES, HTTP_READ_BODY_BYTES)
                      : HTTP_READ_BYTES;
}

static void conn_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *ret)
{
    struct http_conn *c = CONTAINER_OF(h, struct http_conn, tcp);
    (void)suggested;
    *ret = uv_buf_init(c->server->read_bytes, (unsigned)conn_read_room(c));
}

static void conn_on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes)
{
    struct http_conn *c = CONTAINER_OF(stream, struct http_conn, tcp);
    if (n == 0 || c->state == CONN_CLOSED)
        return;
    if (n < 0) {
        c->eof = true;
        c->broken = c->broken || n != UV_EOF;
        conn_work(c, SLICE_EMPTY);
        return;
    }
    c->server->stats.bytes_in += (uint64_t)n;
    if (c->read_class == DEADLINE_BODY)
        deadline_set(&c->server->deadlines, DEADLINE_BODY, &c->read_deadline);
    conn_work(c, (struct slice){bytes->base, (size_t)n});
}

/* Reading goes on while a handler works: only so the peer's leaving is seen. */
static bool conn_wants_to_read(const struct http_conn *c)
{
    if (c->eof || c->state == CONN_FLUSH)
        return false;
    if (c->state == CONN_STREAM)
        return !c->stream->paused;
    bool held = c->state == CONN_BUSY && http_parser_has_body(c->parser) && !conn_body_is_due(c);
    return held ? c->unread.len == 0 : c->unread.len < HTTP_UNREAD_BYTES;
}

static enum http_deadline conn_deadline(const struct http_conn *c)
{
    switch (c->state) {
    case CONN_IDLE:
        if (out_pending(c) > 0)
            return DEADLINE_NONE;
        return c->fresh ? DEADLINE_HEAD : DEADLINE_IDLE;
    case CONN_HEAD: return DEADLINE_HEAD;
    case CONN_BUSY:
        if (conn_body_is_due(c))
            return DEADLINE_BODY;
        return c->eof && !http_parser_has_body(c->parser) ? DEADLINE_HALF : DEADLINE_NONE;
    case CONN_SKIP: return DEADLINE_BODY;
    case CONN_LINGER: return DEADLINE_LINGER;
    case CONN_STREAM: /* its owner's business */
    case CONN_ANSWERED:
    case CONN_RESET: /* left in the same turn */
    case CONN_FLUSH: /* the write deadline sees to it */
    case CONN_CLOSED: break;
    }
    return DEADLINE_NONE;
}

void conn_arm(struct http_conn *c)
{
    enum http_deadline class = conn_deadline(c);
    if (class != c->read_class) {
        deadline_clear(&c->read_deadline);
        c->read_class = class;
        if (class != DEADLINE_NONE)
            deadline_set(&c->server->deadlines, class, &c->read_deadline);
        if (class == DEADLINE_IDLE)
            server_conn_idle(c->server);
    }
    bool read = conn_wants_to_read(c);
    if (read == c->reading)
        return;
    c->reading = read;
    if (!read)
        (void)uv_read_stop((uv_stream_t *)&c->tcp);
    else if (uv_read_start((uv_stream_t *)&c->tcp, conn_alloc, conn_on_read) != 0)
        conn_cut(c, false);
}

/* --- deadlines ------------------------------------------------------------------------------- */

static struct http_conn *conn_of_read_deadline(struct deadline *d)
{
    struct http_conn *c = CONTAINER_OF(d, struct http_conn, read_deadline);
    c->read_class = DEADLINE_NONE;
    return c;
}

void conn_on_head_over(struct deadline *d)
{
    struct http_conn *c = conn_of_read_deadline(d);
    if (c->state == CONN_IDLE) {
        conn_close(c, false); /* who said nothing is told nothing */
        return;
    }
    c->last_said = false;
    conn_refuse(c, 408, "the head of the request did not come in time");
    conn_work(c, SLICE_EMPTY);
}

void conn_on_body_over(struct deadline *d)
{
    struct http_conn *c = conn_of_read_deadline(d);
    if (c->state == CONN_BUSY) {
        c->keep = false;
        (void)err_set(&c->req->body_err, ERR_TIMEOUT, "the body did not come in time");
    } else {
        conn_finish(c);
    }
    conn_work(c, SLICE_EMPTY);
}

void conn_on_idle_over(struct deadline *d)
{
    conn_close(conn_of_read_deadline(d), false);
}

void conn_on_half_over(struct deadline *d)
{
    struct http_conn *c = conn_of_read_deadline(d);
    if (out_pending(c) > 0)
        conn_arm(c); /* it still takes what we send, or the write deadline ends it */
    else
        conn_cut(c, false);
}

void conn_on_linger_over(struct deadline *d)
{
    conn_close(conn_of_read_deadline(d), false);
}
