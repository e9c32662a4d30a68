/* The request of one call. A small one is one write: head and content lie in one buffer. Large
 * content is written from where it lies, without a copy. So is streamed content, which is asked for
 * part by part, when the one before has left, and never inside a call of the caller's.
 */
#include "http_up_private.h"

#include <stdio.h>

enum {
    UP_JOIN_MAX = 16 * 1024, /* content up to this is copied behind the head */
};

/* Of this hop only, or ours to say. */
static const struct slice ours[] = {
    SLICE_INIT("connection"), SLICE_INIT("content-length"),    SLICE_INIT("expect"),
    SLICE_INIT("keep-alive"), SLICE_INIT("proxy-connection"),  SLICE_INIT("te"),
    SLICE_INIT("trailer"),    SLICE_INIT("transfer-encoding"), SLICE_INIT("upgrade"),
};

static void add_headers(struct buf *out, const struct http_headers *h)
{
    for (unsigned i = 0; i < h->count; i++)
        if (!http_name_is_among(http_headers_name(h, i), ours, ARRAY_LEN(ours)))
            http_headers_write_one(h, i, out);
}

static void add_framing(struct buf *out, const struct http_call *call)
{
    bool has_content = call->read_content != NULL || call->content.len > 0;
    if (call->read_content != NULL && call->content_length < 0)
        buf_add(out, SLICE("Transfer-Encoding: chunked\r\n"));
    else if (call->read_content != NULL)
        buf_addf(out, "Content-Length: %lld\r\n", (long long)call->content_length);
    else if (has_content || (call->method[0] == 'P')) /* POST, PUT, PATCH say when it is empty */
        buf_addf(out, "Content-Length: %zu\r\n", call->content.len);
}

static enum err_code up_call_write_head(struct up_call *u)
{
    const struct http_call *call = u->call;
    struct buf *out = &u->conn->out;
    struct slice host;
    bool has_host = call->headers != NULL && http_headers_get(call->headers, "host", &host);
    const char *authority = has_host ? NULL : u->up->authority;
    buf_reset(out);
    if (http_request_begin(out, call->method, call->target, authority, &u->err) != ERR_OK)
        return u->err.code;
    if (call->headers != NULL)
        add_headers(out, call->headers);
    add_framing(out, call);
    if (u->up->idle_max == 0)
        buf_add(out, SLICE("Connection: close\r\n"));
    buf_add(out, SLICE("\r\n"));
    return ERR_OK;
}

static void up_call_send_content(struct up_call *u)
{
    struct up_conn *conn = u->conn;
    struct slice content = u->call->content;
    if (content.len > 0 && content.len <= UP_JOIN_MAX) {
        buf_add(&conn->out, content);
        content = SLICE_EMPTY;
    }
    if (up_conn_write_now(conn, content))
        up_call_on_request_left(u);
    else if (conn->broken && conn->reused && !u->call->sent)
        up_call_on_lost(u, UV_EPIPE); /* its close has not been read yet */
}

void up_call_send(struct up_call *u)
{
    u->content_left = u->call->content_length;
    if (up_call_write_head(u) != ERR_OK) {
        up_call_end(u, u->err.code);
        return;
    }
    if (u->call->read_content != NULL)
        up_conn_write(u->conn, SLICE_EMPTY, SLICE_EMPTY); /* content is asked for later */
    else
        up_call_send_content(u);
    if (!u->ended)
        up_call_arm(u);
}

static void up_call_end_content(struct up_call *u)
{
    if (u->content_left > 0) {
        up_call_end(u, err_set(&u->err, ERR_INVALID, "content is shorter than declared"));
        return;
    }
    if (u->content_left == 0) {
        up_call_on_request_left(u);
        return;
    }
    buf_reset(&u->conn->out);
    u->content_left = 0;
    up_conn_write(u->conn, SLICE("0\r\n\r\n"), SLICE_EMPTY);
}

static void up_call_write_part(struct up_call *u, struct slice part)
{
    struct buf *out = &u->conn->out;
    ASSERT(part.len > 0);
    buf_reset(out);
    if (u->content_left < 0) {
        buf_addf(out, "%zx\r\n", part.len);
        up_conn_write(u->conn, part, SLICE("\r\n"));
    } else if (part.len > (uint64_t)u->content_left) {
        up_call_end(u, err_set(&u->err, ERR_INVALID, "content is longer than declared"));
    } else {
        u->content_left -= (int64_t)part.len;
        up_conn_write(u->conn, part, SLICE_EMPTY);
    }
}

static void up_call_send_part(struct up_call *u)
{
    struct slice part = SLICE_EMPTY;
    u->content_asked = true;
    int n = u->call->read_content(u->call, &part);
    if (u->ended)
        return; /* cancelled inside */
    ASSERT(n >= -2 && n <= 1);
    if (n == 0)
        up_call_end_content(u);
    else if (n == -1)
        u->source_silent = true;
    else if (n == -2)
        up_call_end(u, err_set(&u->err, ERR_CANCELLED, "content broken off"));
    else
        up_call_write_part(u, part);
}

void up_call_send_on(struct up_call *u)
{
    if (u->call->read_content == NULL || u->content_left == 0)
        up_call_on_request_left(u);
    else
        up_call_send_part(u);
    if (!u->ended)
        up_call_arm(u);
}

void up_call_on_written(struct up_call *u)
{
    if (!u->whole)
        up_call_send_on(u);
}
