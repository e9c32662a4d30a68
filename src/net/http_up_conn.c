/* One connection: connect, write, read into the parser, and back to the pool or closed.
 *
 * It is read from its first moment to its last, idle or not, except while its call is paused.
 * A failed write ends nothing by itself: a server may answer and close before it has read the whole
 * request, and that answer is worth having. What follows is read, up to the end or the error that
 * the read side then meets.
 */
#include "http_up_private.h"

#include <stdlib.h>

/* --- life ------------------------------------------------------------------------------------ */

static void up_conn_on_closed(uv_handle_t *handle)
{
    struct up_conn *conn = handle->data;
    struct http_up *up = conn->up;
    http_parser_free(conn->parser);
    buf_done(&conn->out);
    free(conn);
    closer_release(&up->closer);
}

/* The socket is gone at once, the memory when libuv lets go of it: we may be inside the parser. */
void up_conn_close(struct up_conn *conn)
{
    ASSERT(!conn->closing && conn->call == NULL);
    conn->closing = true;
    conn->up->open--;
    if (!list_is_empty(&conn->link)) {
        list_remove(&conn->link);
        conn->up->idle_count--;
    }
    uv_close((uv_handle_t *)&conn->tcp, up_conn_on_closed);
}

void up_conn_release(struct up_conn *conn)
{
    struct http_up *up = conn->up;
    conn->call = NULL;
    if (!conn->keep_alive || conn->broken || conn->writing || up->closing ||
        conn->generation != up->generation || up->idle_count >= up->idle_max) {
        up_conn_close(conn);
        return;
    }
    if (conn->out.cap > UP_OUT_KEPT)
        buf_done(&conn->out);
    conn->reused = true;
    conn->idle_until = uv_now(up->loop) + up->idle_ms;
    list_push(&up->idle, &conn->link);
    up->idle_count++;
    up_need_timer(up, conn->idle_until);
    up_conn_read_start(conn);
}

/* --- writing --------------------------------------------------------------------------------- */

static void up_conn_on_written(uv_write_t *write, int status)
{
    struct up_conn *conn = write->data;
    conn->writing = false;
    if (conn->closing)
        return;
    if (status < 0)
        conn->broken = true;
    else if (conn->call != NULL)
        up_call_on_written(conn->call);
}

static void up_conn_write_bufs(struct up_conn *conn, const uv_buf_t *bufs, unsigned count)
{
    conn->write.data = conn;
    conn->writing = true;
    conn->call->call->sent = true;
    int r = uv_write(&conn->write, (uv_stream_t *)&conn->tcp, bufs, count, up_conn_on_written);
    ASSERT(r == 0);
}

static uv_buf_t uv_buf_of(struct slice s)
{
    return uv_buf_init((char *)(uintptr_t)s.ptr, (unsigned)s.len);
}

void up_conn_write(struct up_conn *conn, struct slice content, struct slice after)
{
    const struct slice all[] = {buf_slice(&conn->out), content, after};
    uv_buf_t bufs[ARRAY_LEN(all)];
    unsigned count = 0;
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (all[i].len > 0)
            bufs[count++] = uv_buf_of(all[i]);
    up_conn_write_bufs(conn, bufs, count);
}

bool up_conn_write_now(struct up_conn *conn, struct slice content)
{
    uv_buf_t bufs[] = {uv_buf_of(buf_slice(&conn->out)), uv_buf_of(content)};
    unsigned count = content.len > 0 ? 2 : 1, first = 0;
    int n = uv_try_write((uv_stream_t *)&conn->tcp, bufs, count);
    if (n < 0 && n != UV_EAGAIN) {
        conn->broken = true;
        return false;
    }
    for (size_t sent = n > 0 ? (size_t)n : 0; sent > 0;) {
        size_t part = sent < bufs[first].len ? sent : bufs[first].len;
        conn->call->call->sent = true;
        bufs[first].base += part;
        bufs[first].len -= part;
        sent -= part;
        if (bufs[first].len == 0)
            first++;
    }
    if (first == count)
        return true;
    up_conn_write_bufs(conn, bufs + first, count - first);
    return false;
}

/* --- parsing --------------------------------------------------------------------------------- */

/* The call may have ended inside any callback of the caller: then conn->call is NULL. */
static bool up_conn_on_head(struct http_parser *parser, const struct http_head *head)
{
    struct up_conn *conn = http_parser_owner(parser);
    if (head->status == 101)
        return true; /* the parser will say that it is an upgrade */
    conn->keep_alive = head->keep_alive;
    return conn->call != NULL && up_call_on_head(conn->call, head);
}

static void up_conn_on_body(struct http_parser *parser, struct slice part)
{
    struct up_conn *conn = http_parser_owner(parser);
    if (conn->call != NULL)
        up_call_on_body(conn->call, part);
}

static void up_conn_on_end(struct http_parser *parser)
{
    (void)parser; /* http_parser_feed() says it too, when we are out of the parser */
}

static const struct http_parser_events up_parser_events = {
    .on_head = up_conn_on_head,
    .on_body = up_conn_on_body,
    .on_end = up_conn_on_end,
};

static void up_conn_on_bytes(struct up_conn *conn, struct slice bytes)
{
    size_t used = 0;
    struct err err = {.code = ERR_OK};
    conn->call->answered = true;
    enum http_parse_result result = http_parser_feed(conn->parser, bytes, &used, NULL, &err);
    if (conn->call == NULL)
        return;
    switch (result) {
    case HTTP_PARSE_MORE: up_call_arm(conn->call); break;
    case HTTP_PARSE_COMPLETE:
        http_parser_next(conn->parser);
        conn->keep_alive = conn->keep_alive && used == bytes.len; /* no more than was asked for */
        up_call_on_whole(conn->call);
        break;
    case HTTP_PARSE_UPGRADED:
        up_call_end(conn->call, err_set(&conn->call->err, ERR_PROTOCOL,
                                        "%s: an upgrade nobody asked for", conn->up->authority));
        break;
    case HTTP_PARSE_FAILED:
        up_call_end(conn->call, err_set(&conn->call->err, ERR_PROTOCOL, "%s: %s",
                                        conn->up->authority, err.msg));
        break;
    }
}

/* --- reading --------------------------------------------------------------------------------- */

static void up_conn_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct up_conn *conn = handle->data;
    (void)suggested;
    size_t most = conn->call != NULL ? conn->call->call->part_max : 0;
    size_t room = http_parser_read_room(conn->parser, HTTP_PART, most);
    *ret = uv_buf_init(conn->up->read, (unsigned)room);
}

static void up_conn_on_read_end(struct up_conn *conn, int status)
{
    conn->keep_alive = false;
    if (status == UV_EOF && http_parser_eof(conn->parser, NULL) == HTTP_PARSE_COMPLETE)
        up_call_on_whole(conn->call);
    else
        up_call_on_lost(conn->call, status);
}

static void up_conn_on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
    struct up_conn *conn = stream->data;
    if (nread == 0)
        return;
    if (conn->call == NULL) { /* idle: its end, or bytes that nobody asked for */
        up_conn_close(conn);
        up_dispatch(conn->up);
    } else if (nread < 0) {
        up_conn_on_read_end(conn, (int)nread);
    } else {
        up_conn_on_bytes(conn, (struct slice){buf->base, (size_t)nread});
    }
}

void up_conn_read_stop(struct up_conn *conn)
{
    if (conn->reading)
        (void)uv_read_stop((uv_stream_t *)&conn->tcp);
    conn->reading = false;
}

void up_conn_read_start(struct up_conn *conn)
{
    if (!conn->reading)
        ASSERT(uv_read_start((uv_stream_t *)&conn->tcp, up_conn_on_alloc, up_conn_on_read) == 0);
    conn->reading = true;
}

/* --- beginning ------------------------------------------------------------------------------- */

static void up_conn_request(struct up_conn *conn)
{
    if (!conn->call->paused)
        up_conn_read_start(conn);
    else
        up_conn_read_stop(conn);
    if (up_call_is_head(conn->call))
        http_parser_expect_no_body(conn->parser);
    up_call_send(conn->call);
}

static void up_conn_on_connected(uv_connect_t *connect, int status)
{
    struct up_conn *conn = connect->data;
    if (conn->closing)
        return;
    if (status < 0) {
        up_call_end(conn->call, err_set(&conn->call->err, ERR_UNAVAILABLE, "connect to %s: %s",
                                        conn->up->authority, uv_strerror(status)));
        return;
    }
    conn->connected = true;
    (void)uv_tcp_nodelay(&conn->tcp, 1);
    up_conn_request(conn);
}

void up_conn_begin(struct up_conn *conn, struct up_call *u)
{
    ASSERT(conn->call == NULL && u->conn == NULL);
    conn->call = u;
    conn->keep_alive = false;
    u->conn = conn;
    if (conn->connected)
        up_conn_request(conn);
}

struct up_conn *up_conn_new(struct http_up *up, struct err *err)
{
    struct up_conn *conn = xcalloc(1, sizeof(*conn));
    conn->up = up;
    conn->generation = up->generation;
    list_init(&conn->link);
    buf_init(&conn->out, SIZE_MAX);
    conn->parser = http_parser_new(HTTP_PARSE_RESPONSE, &up_parser_events, conn);
    ASSERT(uv_tcp_init(up->loop, &conn->tcp) == 0);
    conn->tcp.data = conn;
    conn->connect.data = conn;
    closer_hold(&up->closer);
    up->open++;
    int r = uv_tcp_connect(&conn->connect, &conn->tcp, (const struct sockaddr *)&up->address,
                           up_conn_on_connected);
    if (r == 0)
        return conn;
    (void)err_set(err, ERR_UNAVAILABLE, "connect to %s: %s", up->authority, uv_strerror(r));
    up_conn_close(conn);
    return NULL;
}
