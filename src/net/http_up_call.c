/* One call: its deadlines, its answer, its end. The request is in http_up_send.c.
 *
 * Deadlines. connect_ms runs from the start, in the queue too. While the request leaves, idle_ms is
 * for each of its writes; when it has left, head_ms until the answer's head (interim answers do not
 * prolong it); then idle_ms between bytes of the body. What waits for the caller (a pause, a source
 * that has nothing now) has no deadline but total_ms: the peer is not to blame.
 *
 * An answer that is whole ends the call, whether or not the request has left whole; its connection
 * is then not used again.
 */
#include "http_up_private.h"

#include <stdlib.h>

enum {
    UP_CONNECT_MS = 5000,
    UP_HEAD_MS = 60000,
    UP_IDLE_MS = 60000,
};

bool up_call_is_head(const struct up_call *u)
{
    return strcmp(u->call->method, "HEAD") == 0;
}

/* --- the end --------------------------------------------------------------------------------- */

static void up_call_deliver(struct up_call *u)
{
    struct http_call *call = u->call;
    struct http_up *up = u->up;
    u->delivering = true;
    call->on_end(call, u->err.code != ERR_OK ? &u->err : NULL);
    http_headers_done(&call->res_headers);
    buf_done(&call->body);
    call->driver = NULL;
    buf_done(&u->held);
    free(u);
    closer_release(&up->closer);
}

/* Out of the lists; from here on only `later` knows it. */
static void up_call_leave(struct up_call *u)
{
    ASSERT(!u->ended);
    u->ended = true;
    u->conn = NULL;
    list_remove(&u->link);
    later_add(u->up->later, &u->turn);
    up_dispatch(u->up);
}

static void up_call_drop_conn(struct up_call *u)
{
    struct up_conn *conn = u->conn;
    u->conn = NULL;
    if (conn == NULL)
        return;
    conn->call = NULL;
    up_conn_close(conn);
}

void up_call_end(struct up_call *u, enum err_code why)
{
    ASSERT(why != ERR_OK && u->err.code == why);
    up_call_drop_conn(u);
    up_call_leave(u);
}

static void up_call_succeed(struct up_call *u)
{
    struct up_conn *conn = u->conn;
    conn->keep_alive = conn->keep_alive && u->request_left;
    up_conn_release(conn);
    up_call_leave(u);
}

/* --- deadlines ------------------------------------------------------------------------------- */

static uint64_t up_call_phase_end(const struct up_call *u)
{
    uint64_t idle_at = uv_now(u->up->loop) + up_default_ms(u->call->idle_ms, UP_IDLE_MS);
    if (u->conn == NULL || !u->conn->connected)
        return u->connect_at;
    if (u->whole || u->source_silent)
        return UP_NEVER;
    if (!u->request_left)
        return idle_at;
    if (u->paused)
        return UP_NEVER;
    return u->headed ? idle_at : u->head_at;
}

void up_call_arm(struct up_call *u)
{
    uint64_t phase_at = up_call_phase_end(u);
    u->due_at = phase_at < u->total_at ? phase_at : u->total_at;
    up_need_timer(u->up, u->due_at);
}

void up_call_start_clock(struct up_call *u)
{
    const struct http_call *call = u->call;
    uint64_t now = uv_now(u->up->loop);
    u->connect_at = now + up_default_ms(call->connect_ms, UP_CONNECT_MS);
    u->head_at = now + up_default_ms(call->head_ms, UP_HEAD_MS);
    u->total_at = call->total_ms != 0 ? now + call->total_ms : UP_NEVER;
    up_call_arm(u);
}

void up_call_expire(struct up_call *u)
{
    const char *what = "nothing moved in the answer";
    if (u->total_at <= u->due_at)
        what = "not finished in the time allowed";
    else if (u->conn == NULL)
        what = "no connection became free";
    else if (!u->conn->connected)
        what = "could not connect in time";
    else if (!u->request_left)
        what = "nothing moved in the request";
    else if (!u->headed)
        what = "no answer in time";
    up_call_end(u, err_set(&u->err, ERR_TIMEOUT, "%s: %s", u->up->authority, what));
}

/* --- the answer ------------------------------------------------------------------------------ */

static bool up_call_expect_body(struct up_call *u, const struct http_head *head)
{
    struct http_call *call = u->call;
    if (call->on_part != NULL || !head->has_length || up_call_is_head(u))
        return true;
    uint64_t expected = head->length < UP_EXPECT_MAX ? head->length : UP_EXPECT_MAX;
    if (head->length <= call->body_max && buf_reserve(&call->body, (size_t)expected) == ERR_OK)
        return true;
    up_call_end(u, err_set(&u->err, ERR_TOO_LARGE, "answer of %llu bytes",
                           (unsigned long long)head->length));
    return false;
}

bool up_call_on_head(struct up_call *u, const struct http_head *head)
{
    struct http_call *call = u->call;
    http_parser_take_headers(u->conn->parser, &call->res_headers);
    u->headed = true;
    call->status = head->status;
    call->res_length = head->has_length ? (int64_t)head->length : -1;
    if (!up_call_expect_body(u, head))
        return false;
    if (call->on_head != NULL)
        call->on_head(call);
    return !u->ended;
}

void up_call_on_body(struct up_call *u, struct slice part)
{
    struct http_call *call = u->call;
    if (call->on_part == NULL) {
        if (buf_append(&call->body, part) != ERR_OK)
            up_call_end(u, err_set(&u->err, ERR_TOO_LARGE, "answer of more than %zu bytes",
                                   call->body_max));
    } else if (u->paused || u->held.len > 0) {
        buf_add(&u->held, part);
    } else {
        call->on_part(call, part);
    }
}

void up_call_on_whole(struct up_call *u)
{
    if (!u->paused && u->held.len == 0) {
        up_call_succeed(u);
        return;
    }
    u->whole = true;
    up_conn_read_stop(u->conn);
    up_call_arm(u);
}

void up_call_on_request_left(struct up_call *u)
{
    u->request_left = true;
    u->head_at = uv_now(u->up->loop) + up_default_ms(u->call->head_ms, UP_HEAD_MS);
}

static bool up_call_may_repeat(const struct up_call *u)
{
    const struct http_call *call = u->call;
    if (u->retried || u->answered || u->content_asked || !u->conn->reused)
        return false;
    return !call->sent || call->repeatable || up_call_is_head(u) ||
           strcmp(call->method, "GET") == 0;
}

/* On a fresh connection, whatever waits: the slot of the old one is this call's. */
static void up_call_repeat(struct up_call *u)
{
    u->retried = true;
    u->request_left = false;
    u->connect_at = uv_now(u->up->loop) + up_default_ms(u->call->connect_ms, UP_CONNECT_MS);
    up_call_drop_conn(u);
    struct up_conn *conn = up_conn_new(u->up, &u->err);
    if (conn == NULL) {
        up_call_end(u, u->err.code);
        return;
    }
    up_conn_begin(conn, u);
    up_call_arm(u);
}

void up_call_on_lost(struct up_call *u, int status)
{
    const char *when = !u->answered ? "before an answer" : "in the middle of an answer";
    if (up_call_may_repeat(u))
        up_call_repeat(u);
    else
        up_call_end(u, err_set(&u->err, ERR_CLOSED, "%s: connection closed %s (%s)",
                               u->up->authority, when, uv_err_name(status)));
}

/* --- from `later` ---------------------------------------------------------------------------- */

static void up_call_resume(struct up_call *u)
{
    struct buf held = u->held;
    u->resumed = false;
    if (u->paused)
        return;
    buf_init(&u->held, SIZE_MAX);
    if (held.len > 0)
        u->call->on_part(u->call, buf_slice(&held));
    buf_done(&held);
    if (u->ended || u->paused)
        return;
    if (u->whole) {
        up_call_succeed(u);
        return;
    }
    if (u->conn != NULL && u->conn->connected)
        up_conn_read_start(u->conn);
    up_call_arm(u);
}

static void up_call_on_turn(struct later_item *item)
{
    struct up_call *u = CONTAINER_OF(item, struct up_call, turn);
    if (u->ended) {
        up_call_deliver(u);
        return;
    }
    if (u->resumed)
        up_call_resume(u);
    if (u->more && !u->ended && !u->whole) {
        u->more = false;
        u->source_silent = false;
        up_call_send_on(u);
    }
}

/* --- public ---------------------------------------------------------------------------------- */

struct up_call *up_call_new(struct http_up *up, struct http_call *call)
{
    struct up_call *u = xcalloc(1, sizeof(*u));
    ASSERT(call->part_max <= HTTP_PART_MAX);
    u->call = call;
    u->up = up;
    buf_init(&u->held, SIZE_MAX);
    later_item_init(&u->turn, up_call_on_turn);
    call->driver = u;
    call->status = 0;
    call->sent = false;
    call->res_length = -1;
    http_headers_init(&call->res_headers);
    buf_init(&call->body, call->body_max);
    closer_hold(&up->closer);
    list_add(&up->waiting, &u->link);
    up_call_start_clock(u);
    return u;
}

void http_up_cancel(struct http_call *call)
{
    struct up_call *u = call->driver;
    if (u == NULL || u->delivering)
        return;
    if (u->ended)
        (void)err_set(&u->err, ERR_CANCELLED, "cancelled");
    else
        up_call_end(u, err_set(&u->err, ERR_CANCELLED, "cancelled"));
}

void http_up_pause(struct http_call *call)
{
    struct up_call *u = call->driver;
    if (u == NULL || u->ended || u->paused)
        return;
    u->paused = true;
    if (u->conn != NULL && u->conn->connected)
        up_conn_read_stop(u->conn);
    up_call_arm(u);
}

void http_up_resume(struct http_call *call)
{
    struct up_call *u = call->driver;
    if (u == NULL || u->ended || !u->paused)
        return;
    u->paused = false;
    u->resumed = true;
    later_add(u->up->later, &u->turn);
}

void http_up_more(struct http_call *call)
{
    struct up_call *u = call->driver;
    if (u == NULL || u->ended || !u->source_silent)
        return;
    u->more = true;
    later_add(u->up->later, &u->turn);
}
