/* What a handler asks of a request. The body is moved by conn_work() only; here is noted who wants
 * it, and how its end is told. */
#include "http_conn.h"

#include <stdlib.h>

void req_over(struct http_req *req)
{
    const struct http_server_options *o = &req->conn->server->options;
    if (o->over != NULL && !req->over)
        o->over(req, o->ctx);
    req->over = true;
}

void req_free(struct http_req *req)
{
    req_over(req);
    buf_done(&req->origin);
    buf_done(&req->body);
    http_headers_done(&req->own);
    free(req);
}

/* --- what conn_work() calls ------------------------------------------------------------------ */

static void req_set_busy(struct http_req *req)
{
    (void)err_set(&req->body_err, ERR_BUSY, "request bodies take too much memory at the moment");
}

void req_take_part(struct http_req *req, struct slice part)
{
    req->body_seen += part.len;
    if (req->reader == READER_PARTS) {
        req->parts.on_part(req, part);
        return;
    }
    if (req->body_err.code != ERR_OK)
        return; /* the rest of this piece of input */
    switch (buf_append(&req->body, part)) {
    case ERR_OK: break;
    case ERR_BUSY: req_set_busy(req); break;
    default:
        (void)err_set(&req->body_err, ERR_TOO_LARGE, "the body is longer than %zu bytes",
                      req->body.max);
    }
}

void req_deliver_body(struct http_req *req)
{
    struct err err = req->body_err;
    const struct err *told = err.code != ERR_OK ? &err : NULL;
    bool whole = req->reader == READER_WHOLE;
    req->reader = READER_DONE;
    if (!whole) {
        req->parts.on_end(req, told);
        return;
    }
    /* The request may end inside the callback, its body lives a little longer. */
    struct buf body = req->body;
    buf_init(&req->body, 0);
    req->body_given = &body;
    req->on_whole(req, told, told == NULL ? buf_slice(&body) : SLICE_EMPTY);
    buf_done(&body);
}

/* --- the interface --------------------------------------------------------------------------- */

struct slice http_req_method(const struct http_req *req)
{
    return req->head->method;
}

struct slice http_req_path(const struct http_req *req)
{
    return req->target.path;
}

struct slice http_req_query(const struct http_req *req)
{
    return req->target.query;
}

/* Path and query need not lie behind each other in what came: "http://host?x" has no path. */
struct slice http_req_target(struct http_req *req)
{
    struct slice path = req->target.path, query = req->target.query;
    if (query.len == 0)
        return path;
    if (query.ptr == path.ptr + path.len + 1)
        return (struct slice){path.ptr, path.len + 1 + query.len};
    if (req->origin.len == 0) {
        buf_add(&req->origin, path);
        buf_adds(&req->origin, "?");
        buf_add(&req->origin, query);
    }
    return buf_slice(&req->origin);
}

const struct http_headers *http_req_headers(const struct http_req *req)
{
    return &req->head->headers;
}

const struct http_head *http_req_head(const struct http_req *req)
{
    return req->head;
}

const char *http_req_peer(const struct http_req *req)
{
    struct http_conn *c = req->conn;
    struct sockaddr_storage address;
    int len = sizeof(address);
    if (c->peer[0] != '\0')
        return c->peer;
    if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&address, &len) != 0 ||
        uv_ip_name((const struct sockaddr *)&address, c->peer, sizeof(c->peer)) != 0)
        return "unknown"; /* it is gone already */
    return c->peer;
}

void http_add_header(struct http_req *req, struct slice name, struct slice value)
{
    enum err_code code = http_headers_add(&req->own, name, value);
    (void)code; /* too much or not a header: left out */
}

void http_req_set_data(struct http_req *req, void *data)
{
    req->data = data;
}

void *http_req_data(const struct http_req *req)
{
    return req->data;
}

void http_on_abort(struct http_req *req, http_abort_cb cb)
{
    req->on_abort = cb;
}

/* The client may wait for a word before it sends the body. Once it sends, or once our answer has
 * begun, the word would come too late. */
static void req_say_continue(struct http_req *req)
{
    static char words[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct http_conn *c = req->conn;
    uv_buf_t bytes = uv_buf_init(words, sizeof(words) - 1);
    if (req->head->expect_100 && http_parser_has_body(c->parser) && !req->begun &&
        c->unread.len == 0)
        out_write(c, &bytes, 1);
}

static void req_read(struct http_req *req, enum body_reader reader)
{
    ASSERT(req->reader == READER_NONE && req->conn->state == CONN_BUSY);
    req->reader = reader;
    conn_go_on(req->conn);
}

void http_read_body(struct http_req *req, size_t max, http_body_cb cb)
{
    const struct http_head *head = req->head;
    struct budget *budget = req->conn->server->options.bodies;
    req_read(req, READER_WHOLE);
    req->on_whole = cb;
    buf_init_within(&req->body, max, budget);
    if (head->length > max) {
        (void)err_set(&req->body_err, ERR_TOO_LARGE, "the body is longer than %zu bytes", max);
        return;
    }
    /* What is declared is reserved up to what is read at once of anybody: a length is no byte yet.
     * But what would have no room as things are is not begun. */
    size_t expected = head->length < HTTP_READ_BYTES ? (size_t)head->length : HTTP_READ_BYTES;
    enum err_code code = expected > 0 ? buf_reserve(&req->body, expected) : ERR_OK;
    if (code == ERR_OK && budget != NULL && head->length - expected > budget_left(budget)) {
        budget->refused++;
        code = ERR_BUSY;
    }
    if (code != ERR_OK)
        req_set_busy(req);
    else
        req_say_continue(req);
}

void http_take_body(struct http_req *req, struct buf *ret)
{
    ASSERT(req->body_given != NULL);
    *ret = *req->body_given;
    buf_init(req->body_given, 0);
}

void http_stream_body(struct http_req *req, const struct http_body_events *events)
{
    req_read(req, READER_PARTS);
    req->parts = *events;
    req_say_continue(req);
}

void http_pause_body(struct http_req *req)
{
    req->paused = true;
    http_parser_pause(req->conn->parser);
    conn_go_on(req->conn);
}

void http_resume_body(struct http_req *req)
{
    req->paused = false;
    conn_go_on(req->conn);
}
