/* Answers. The head is built in the server's scratch buffer; a whole answer leaves with it in one
 * write. Of a streamed one the head and small parts wait in the queue until the end of the loop's
 * turn, a large part, or the end of the answer sends them. */
#include "http_conn.h"

#include <stdio.h>

enum { RES_DIRECT_BYTES = 8 * 1024 }; /* from here on a part is not copied if it need not be */

/* --- heads ----------------------------------------------------------------------------------- */

/* Without printf(): a proxied answer takes a good part of its time for its head. */
static void add_line(struct buf *out, const char *before, const char *text)
{
    buf_adds(out, before);
    buf_adds(out, text);
    buf_adds(out, "\r\n");
}

static void res_add_type(struct buf *out, const char *type)
{
    if (type != NULL)
        add_line(out, "content-type: ", type);
}

void res_add_headers(struct buf *out, const struct http_headers *extra)
{
    if (extra != NULL)
        http_headers_write(extra, out);
}

/* May another request follow? Not if what is left of this one's body is too much to throw away, or
 * may never come because the client waits for our word to send it. */
static bool res_keeps(const struct http_req *req, int64_t length)
{
    const struct http_conn *c = req->conn;
    const struct http_head *head = req->head;
    bool read_on = req->reader == READER_WHOLE || req->reader == READER_PARTS;
    if (!c->keep || c->server->draining || c->server->accept_waits)
        return false;
    if (length < 0 && head->minor == 0 && !req->bodyless)
        return false;
    if (read_on || !http_parser_has_body(c->parser))
        return true;
    if (head->expect_100 && req->body_seen == 0)
        return false;
    return head->chunked || head->length - req->body_seen <= HTTP_SKIP_BYTES;
}

struct res_shape {
    int status;
    const char *type;
    int64_t length; /* -1: not known */
    const struct http_headers *extra;
};

static void res_add_length(struct buf *out, uint64_t length)
{
    buf_adds(out, "content-length: ");
    buf_add_u64(out, length);
    buf_adds(out, "\r\n");
}

/* Decides the framing and returns the head. */
static struct slice res_head(struct http_req *req, const struct res_shape *shape)
{
    struct http_conn *c = req->conn;
    struct buf *out = &c->server->scratch;
    bool no_length = shape->status == 204 || shape->status == 304;
    ASSERT(c->state == CONN_BUSY && !req->begun);
    req->begun = true;
    req->bodyless = no_length || slice_is(req->head->method, "HEAD");
    req->left = shape->length;
    req->chunked = shape->length < 0 && req->head->minor == 1 && !no_length;
    c->keep = res_keeps(req, shape->length);
    buf_reset(out);
    buf_adds(out, "HTTP/1.1 ");
    buf_add_u64(out, (uint64_t)shape->status);
    add_line(out, " ", http_reason(shape->status));
    res_add_type(out, shape->type);
    if (req->chunked)
        buf_adds(out, "transfer-encoding: chunked\r\n");
    else if (shape->length >= 0 && !no_length)
        res_add_length(out, (uint64_t)shape->length);
    add_line(out, "date: ", server_date(c->server));
    if (!c->keep)
        buf_adds(out, "connection: close\r\n");
    else if (req->head->minor == 0)
        buf_adds(out, "connection: keep-alive\r\n");
    res_add_headers(out, shape->extra);
    res_add_headers(out, &req->own);
    buf_adds(out, "\r\n");
    return buf_slice(out);
}

uv_buf_t res_bytes(struct slice s)
{
    return (uv_buf_t){.base = (char *)(uintptr_t)s.ptr, .len = s.len};
}

/* --- where there is no handler --------------------------------------------------------------- */

static const char *res_code(int status)
{
    switch (status) {
    case 408: return "request_timeout";
    case 413: return "body_too_large";
    case 414: return "target_too_long";
    case 431: return "head_too_large";
    case 501: return "not_implemented";
    case 505: return "http_version";
    default: return "bad_request";
    }
}

void res_refuse(struct http_conn *c, int status, const char *detail)
{
    struct buf *out = &c->server->scratch;
    struct buf body;
    buf_init(&body, SIZE_MAX);
    buf_addf(&body, "{\"message\":\"RequestParamsError\",\"error\":{\"code\":\"%s\",\"detail\":",
             res_code(status));
    buf_add_json_string(&body, slice_of(detail));
    buf_adds(&body, "}}");
    buf_reset(out);
    buf_addf(out,
             "HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n"
             "date: %s\r\nconnection: close\r\n\r\n",
             status, http_reason(status), body.len, server_date(c->server));
    uv_buf_t bufs[] = {res_bytes(buf_slice(out)), res_bytes(buf_slice(&body))};
    out_write(c, bufs, ARRAY_LEN(bufs));
    buf_done(&body);
}

/* --- the interface --------------------------------------------------------------------------- */

void http_respond(struct http_req *req, int status, const char *type, struct slice body,
                  const struct http_headers *extra)
{
    struct http_conn *c = req->conn;
    struct res_shape shape = {status, type, (int64_t)body.len, extra};
    req_over(req);
    struct slice head = res_head(req, &shape);
    uv_buf_t bufs[] = {res_bytes(head), res_bytes(body)};
    out_write(c, bufs, req->bodyless ? 1 : 2);
    conn_answered(c);
}

void http_begin(struct http_req *req, int status, const char *type, int64_t content_length,
                const struct http_headers *extra)
{
    struct res_shape shape = {status, type, content_length, extra};
    out_add(req->conn, res_head(req, &shape));
    conn_go_on(req->conn);
}

bool http_write(struct http_req *req, struct slice part)
{
    struct http_conn *c = req->conn;
    char size[24];
    ASSERT(req->begun);
    if (req->left >= 0) {
        ASSERT((uint64_t)req->left >= part.len);
        req->left -= (int64_t)part.len;
    }
    if (req->bodyless)
        return true;
    if (c->broken || c->state != CONN_BUSY)
        return false; /* on_abort comes */
    if (part.len > 0) {
        int n = req->chunked ? snprintf(size, sizeof(size), "%zx\r\n", part.len) : 0;
        struct slice pieces[] = {{size, (size_t)n}, part, {"\r\n", req->chunked ? 2 : 0}};
        uv_buf_t bufs[ARRAY_LEN(pieces)];
        for (size_t i = 0; i < ARRAY_LEN(pieces); i++)
            bufs[i] = res_bytes(pieces[i]);
        if (part.len >= RES_DIRECT_BYTES) {
            out_write(c, bufs, ARRAY_LEN(bufs));
        } else {
            for (size_t i = 0; i < ARRAY_LEN(pieces); i++)
                out_add(c, pieces[i]);
            if (c->out.len >= HTTP_WRITE_LOW)
                out_flush(c);
            else
                conn_go_on(c);
        }
    }
    req->drain_due = out_pending(c) > HTTP_WRITE_HIGH;
    return !req->drain_due;
}

bool http_is_clear(struct http_req *req)
{
    out_flush(req->conn);
    return out_pending(req->conn) == 0;
}

void http_on_drain(struct http_req *req, void (*on_drain)(struct http_req *req))
{
    req->on_drain = on_drain;
}

void http_end(struct http_req *req)
{
    struct http_conn *c = req->conn;
    ASSERT(req->begun);
    req_over(req);
    if (req->left > 0 && !req->bodyless) {
        conn_reset(c); /* less than was declared */
        return;
    }
    uv_buf_t last = res_bytes(SLICE("0\r\n\r\n"));
    out_write(c, &last, req->chunked && !req->bodyless ? 1 : 0);
    conn_answered(c);
}

void http_reset(struct http_req *req)
{
    conn_reset(req->conn);
}
