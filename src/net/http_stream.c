/* A connection after its upgrade. Reading, writing and closing are the connection's as before; only
 * who is told has changed. As with requests, everything is told by conn_work(), never inside a call
 * of the owner's: his calls are noted and worked on in the same turn of the loop. */
#include "http_conn.h"

#include <stdlib.h>

enum { STREAM_DIRECT_BYTES = 8 * 1024 }; /* from here on bytes are not gathered with others */

/* --- what the connection calls --------------------------------------------------------------- */

bool stream_serve(struct http_conn *c, struct slice *in)
{
    struct http_stream *s = c->stream;
    struct slice bytes = *in;
    if (s->end != ERR_OK) {
        conn_cut(c, true);
        return true;
    }
    if (s->drain_due && out_pending(c) <= HTTP_WRITE_LOW) {
        s->drain_due = false;
        if (s->options.on_drain != NULL)
            s->options.on_drain(s);
        return true;
    }
    if (bytes.len == 0 || s->paused)
        return false;
    *in = (struct slice){bytes.ptr + bytes.len, 0};
    s->options.on_bytes(s, bytes);
    return true;
}

/* The connection has no stream from here on; the memory is the caller's. */
static struct http_stream *stream_leave(struct http_conn *c, enum conn_state next)
{
    struct http_stream *s = c->stream;
    ASSERT(c->state == CONN_STREAM);
    c->stream = NULL;
    c->server->stats.streams--;
    if (next == CONN_FLUSH) {
        out_flush(c); /* what was gathered */
        conn_finish(c);
    } else {
        c->state = next;
    }
    return s;
}

void stream_on_eof(struct http_conn *c)
{
    struct http_stream *s = stream_leave(c, CONN_FLUSH);
    conn_go_on(c);
    s->options.on_end(s, NULL);
    free(s);
}

void stream_cut(struct http_conn *c, bool reset)
{
    struct http_stream *s = stream_leave(c, CONN_RESET);
    struct err err;
    conn_close(c, reset);
    stream_doom(s, ERR_CLOSED, "the peer is gone");
    (void)err_set(&err, s->end, "%s", s->why);
    s->options.on_end(s, &err);
    free(s);
}

/* --- the interface --------------------------------------------------------------------------- */

bool http_req_may_upgrade(const struct http_req *req)
{
    return req->head->upgrade && !http_parser_has_body(req->conn->parser);
}

struct http_stream *http_upgrade(struct http_req *req, const struct http_headers *extra,
                                 const struct http_stream_options *options)
{
    struct http_conn *c = req->conn;
    struct http_stream *s = xcalloc(1, sizeof(*s));
    struct buf *head = &c->server->scratch;
    ASSERT(c->state == CONN_BUSY && !req->begun && http_req_may_upgrade(req));
    s->conn = c;
    s->options = *options;
    buf_reset(head);
    buf_addf(head, "HTTP/1.1 101 %s\r\nconnection: upgrade\r\n", http_reason(101));
    res_add_headers(head, extra);
    res_add_headers(head, &req->own);
    buf_adds(head, "\r\n");
    out_add(c, buf_slice(head));
    conn_to_stream(c, s);
    c->server->stats.streams++;
    if (options->lasting)
        server_conn_ended(c);
    return s;
}

void *http_stream_data(const struct http_stream *s)
{
    return s->options.data;
}

bool http_stream_write(struct http_stream *s, struct slice bytes)
{
    struct http_conn *c = s->conn;
    if (c->broken || s->end != ERR_OK)
        return false; /* on_end comes */
    if (out_pending(c) + bytes.len > c->server->options.stream_max) {
        stream_doom(s, ERR_TOO_LARGE, "the peer is too far behind");
        conn_go_on(c);
        return false;
    }
    if (bytes.len >= STREAM_DIRECT_BYTES) {
        uv_buf_t direct = res_bytes(bytes);
        out_write(c, &direct, 1);
    } else {
        out_add(c, bytes);
        if (c->out.len >= HTTP_WRITE_LOW)
            out_flush(c);
        else
            conn_go_on(c);
    }
    bool room = out_pending(c) <= HTTP_WRITE_HIGH;
    s->drain_due = s->drain_due || !room; /* also for an owner who has gone on */
    return room;
}

size_t http_stream_pending(const struct http_stream *s)
{
    return out_pending(s->conn);
}

bool http_stream_is_clear(struct http_stream *s)
{
    out_flush(s->conn);
    return out_pending(s->conn) == 0;
}

bool http_stream_peer(const struct http_stream *s, struct tcp_peer *ret)
{
    uv_os_fd_t fd;
    return uv_fileno((const uv_handle_t *)&s->conn->tcp, &fd) == 0 && tcp_peer_ask(fd, ret);
}

void http_stream_pause(struct http_stream *s)
{
    s->paused = true;
    conn_go_on(s->conn);
}

void http_stream_resume(struct http_stream *s)
{
    s->paused = false;
    conn_go_on(s->conn);
}

void http_stream_shut(struct http_stream *s)
{
    struct http_conn *c = s->conn;
    free(stream_leave(c, CONN_FLUSH));
    conn_go_on(c);
}

void http_stream_reset(struct http_stream *s)
{
    struct http_conn *c = s->conn;
    free(stream_leave(c, CONN_RESET));
    buf_done(&c->out); /* now: it may be reset because memory is short */
    conn_go_on(c);
}
