/* The pool and who waits for it.
 *
 * Every call begins in `waiting`; up_dispatch() gives the first one the most recently used idle
 * connection, or a new one while there are less than connections_max. Idle connections are read:
 * the server's close is seen when it comes, not when the next request is lost on it.
 *
 * One timer serves all deadlines. A call that moves only notes when it is due; the timer runs until
 * the earliest deadline it was ever told, then looks at all calls and takes the next. So a request
 * costs no timer operations, and a look costs a walk every few seconds.
 */
#include "http_up_private.h"

#include <stdlib.h>

static bool up_is_over(const struct http_up *up, uint64_t at)
{
    return at <= uv_now(up->loop);
}

/* --- connections for calls ------------------------------------------------------------------- */

/* Older ones lie behind it. */
static struct up_conn *up_take_idle(struct http_up *up)
{
    while (!list_is_empty(&up->idle)) {
        struct up_conn *conn = CONTAINER_OF(up->idle.next, struct up_conn, link);
        if (up_is_over(up, conn->idle_until)) {
            up_conn_close(conn);
            continue;
        }
        list_remove(&conn->link);
        up->idle_count--;
        return conn;
    }
    return NULL;
}

/* Nested calls return at once: a call that ends inside frees a slot that the loop then sees. */
void up_dispatch(struct http_up *up)
{
    if (up->busy)
        return;
    up->busy = true;
    while (!up->closing && !list_is_empty(&up->waiting)) {
        struct up_call *u = CONTAINER_OF(up->waiting.next, struct up_call, link);
        struct up_conn *conn = up_take_idle(up);
        if (conn == NULL && up->open >= up->connections_max)
            break;
        list_remove(&u->link);
        list_add(&up->running, &u->link);
        if (conn == NULL)
            conn = up_conn_new(up, &u->err);
        if (conn == NULL)
            up_call_end(u, u->err.code);
        else
            up_conn_begin(conn, u);
    }
    up->busy = false;
}

/* --- time ------------------------------------------------------------------------------------ */

/* `frozen`: the loop did not run. Nobody had that time to answer in, so nothing is over. */
static void up_expire_calls(struct http_up *up, struct list_node *calls, bool frozen)
{
    LIST_FOREACH_SAFE (node, next, calls) {
        struct up_call *u = CONTAINER_OF(node, struct up_call, link);
        if (frozen)
            up_call_start_clock(u);
        else if (up_is_over(up, u->due_at))
            up_call_expire(u);
        else
            up_need_timer(up, u->due_at);
    }
}

static void up_expire_idle(struct http_up *up)
{
    LIST_FOREACH_SAFE (node, next, &up->idle) {
        struct up_conn *conn = CONTAINER_OF(node, struct up_conn, link);
        if (up_is_over(up, conn->idle_until))
            up_conn_close(conn);
        else
            up_need_timer(up, conn->idle_until);
    }
}

static void up_on_timer(uv_timer_t *timer)
{
    struct http_up *up = timer->data;
    bool frozen = uv_now(up->loop) - up->timer_at >= UP_GAP_MS;
    up->timer_at = UP_NEVER;
    up->busy = true;
    up_expire_calls(up, &up->waiting, frozen);
    up_expire_calls(up, &up->running, frozen);
    up_expire_idle(up);
    up->busy = false;
    up_dispatch(up);
}

void up_need_timer(struct http_up *up, uint64_t at)
{
    if (at >= up->timer_at || up->closing)
        return;
    uint64_t now = uv_now(up->loop);
    up->timer_at = at;
    ASSERT(uv_timer_start(&up->timer, up_on_timer, at > now ? at - now : 0, 0) == 0);
}

/* --- public ---------------------------------------------------------------------------------- */

struct http_up *http_up_new(uv_loop_t *loop, struct later *later,
                            const struct http_up_options *options)
{
    struct http_up *up = xmalloc(sizeof(*up));
    memset(up, 0, offsetof(struct http_up, read));
    up->host = xstrdup(options->host);
    up->port = options->port;
    up->connections_max = options->connections_max;
    up->idle_max = options->idle_max;
    up->idle_ms = options->idle_ms;
    up->loop = loop;
    up->later = later;
    up->timer_at = UP_NEVER;
    list_init(&up->idle);
    list_init(&up->waiting);
    list_init(&up->running);
    http_request_authority(up->host, up->port, up->authority);
    int port = (int)up->port;
    up->has_address = uv_ip4_addr(up->host, port, (struct sockaddr_in *)&up->address) == 0 ||
                      uv_ip6_addr(up->host, port, (struct sockaddr_in6 *)&up->address) == 0;
    closer_init(&up->closer, loop);
    ASSERT(uv_timer_init(loop, &up->timer) == 0);
    up->timer.data = up;
    closer_hold(&up->closer);
    return up;
}

void http_up_start(struct http_up *up, struct http_call *call)
{
    struct up_call *u = up_call_new(up, call);
    if (up->closing)
        up_call_end(u, err_set(&u->err, ERR_UNAVAILABLE, "%s: closing", up->authority));
    else if (!up->has_address)
        up_call_end(u, err_set(&u->err, ERR_INVALID, "%s: not an address in numbers", up->host));
    else
        up_dispatch(up);
}

void http_up_forget(struct http_up *up)
{
    up->generation++;
    while (!list_is_empty(&up->idle))
        up_conn_close(CONTAINER_OF(up->idle.next, struct up_conn, link));
}

static void up_cancel_all(struct list_node *calls)
{
    while (!list_is_empty(calls)) {
        struct up_call *u = CONTAINER_OF(calls->next, struct up_call, link);
        up_call_end(u, err_set(&u->err, ERR_CANCELLED, "cancelled"));
    }
}

static void up_on_timer_closed(uv_handle_t *handle)
{
    struct http_up *up = handle->data;
    closer_release(&up->closer);
}

static void up_on_closed(struct closer *closer)
{
    struct http_up *up = CONTAINER_OF(closer, struct http_up, closer);
    void (*closed)(void *ctx) = up->closed;
    void *ctx = up->closed_ctx;
    free(up->host);
    free(up);
    if (closed != NULL)
        closed(ctx);
}

void http_up_close(struct http_up *up, void (*closed)(void *ctx), void *ctx)
{
    ASSERT(!up->closing);
    up->closing = true;
    up->closed = closed;
    up->closed_ctx = ctx;
    up_cancel_all(&up->waiting);
    up_cancel_all(&up->running);
    http_up_forget(up);
    uv_close((uv_handle_t *)&up->timer, up_on_timer_closed);
    closer_begin(&up->closer, up_on_closed);
}
