/* The listener and what all connections share. */
#include "http_server.h"

#include "http_conn.h"

#include <stdlib.h>
#include <time.h>

enum { BACKLOG = 1024, KEEPALIVE_S = 60 };

/* --- what connections use -------------------------------------------------------------------- */

struct http_parser *server_take_parser(struct http_server *s, struct http_conn *c)
{
    if (s->spare_count == 0)
        return http_parser_new(HTTP_PARSE_REQUEST, &conn_parser_events, c);
    struct http_parser *p = s->spare[--s->spare_count];
    http_parser_set_owner(p, c);
    return p;
}

void server_give_parser(struct http_server *s, struct http_parser *take_parser)
{
    if (s->spare_count == HTTP_SPARE_PARSERS) {
        http_parser_free(take_parser);
        return;
    }
    http_parser_next(take_parser);
    s->spare[s->spare_count++] = take_parser;
}

const char *server_date(struct http_server *s)
{
    static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    uint64_t now = clock_wall_ms() / 1000;
    time_t t = (time_t)now;
    struct tm tm;
    if (now == s->date_s || gmtime_r(&t, &tm) == NULL)
        return s->date;
    s->date_s = now;
    /* Not strftime(): its names would follow the locale. */
    struct buf out;
    buf_init(&out, sizeof(s->date) - 1);
    ASSERT(buf_printf(&out, "%s, %02d %s %04d %02d:%02d:%02d GMT", days[tm.tm_wday], tm.tm_mday,
                      months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min,
                      tm.tm_sec) == ERR_OK);
    memcpy(s->date, out.ptr, out.len + 1);
    buf_done(&out);
    return s->date;
}

void server_conn_ended(struct http_conn *c)
{
    struct http_server *s = c->server;
    if (!c->counted)
        return;
    c->counted = false;
    s->live--;
    if (s->draining && s->live == 0 && !s->closing)
        later_add(s->later, &s->drained);
}

void server_conn_idle(struct http_server *s)
{
    if (s->accept_waits)
        later_add(s->later, &s->accept);
}

void server_conn_closed(struct http_server *s)
{
    s->stats.connections--;
    if (s->accept_waits)
        later_add(s->later, &s->accept);
}

/* --- the listener ---------------------------------------------------------------------------- */

static void server_on_listener_closed(uv_handle_t *h)
{
    struct http_server *s = CONTAINER_OF(h, struct http_server, listener);
    s->listener_open = false;
    closer_release(&s->closer);
}

static void server_stop_listening(struct http_server *s)
{
    deadline_clear(&s->relisten);
    later_cancel(s->later, &s->accept);
    s->accept_waits = false;
    if (s->listener_open && !uv_is_closing((uv_handle_t *)&s->listener))
        uv_close((uv_handle_t *)&s->listener, server_on_listener_closed);
    s->listening = false;
}

/* libuv takes no further peer from the kernel until this one is accepted: at the bound it waits,
 * and those behind it in the kernel's queue. */
static void server_accept(struct http_server *s)
{
    ASSERT(s->listening);
    s->accept_waits = false;
    if (s->stats.connections >= s->options.connections_max) {
        struct deadline *idlest = deadlines_first(&s->deadlines, DEADLINE_IDLE);
        if (idlest == NULL) {
            s->accept_waits = true;
            return;
        }
        conn_close(CONTAINER_OF(idlest, struct http_conn, read_deadline), false);
    }
    conn_accept(s);
}

static void server_on_connection(uv_stream_t *listener, int status)
{
    struct http_server *s = CONTAINER_OF(listener, struct http_server, listener);
    if (status == 0) {
        server_accept(s);
        return;
    }
    /* Out of descriptors, and libuv's own way out (it keeps a spare one) has failed too. libuv
     * 1.44.2 would call us for ever without leaving its accept loop: the only way to stop it is to
     * close the listener. */
    server_stop_listening(s);
    deadline_set(&s->deadlines, DEADLINE_RELISTEN, &s->relisten);
}

static enum err_code server_bind(struct http_server *s, struct err *err)
{
    struct sockaddr_storage address;
    int len = sizeof(address);
    int port = (int)s->port;
    int rc = uv_ip4_addr(s->host, port, (struct sockaddr_in *)&address);
    if (rc != 0)
        rc = uv_ip6_addr(s->host, port, (struct sockaddr_in6 *)&address);
    if (rc != 0)
        return err_set(err, ERR_INVALID, "%s is no address", s->host);
    rc = uv_tcp_bind(&s->listener, (const struct sockaddr *)&address, 0);
    /* Accepted sockets inherit both on Linux. A peer that has vanished without a word is noticed
     * although nothing is sent to it for the length of a run. */
    if (rc == 0)
        rc = uv_tcp_nodelay(&s->listener, 1);
    if (rc == 0)
        rc = uv_tcp_keepalive(&s->listener, 1, KEEPALIVE_S);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&s->listener, BACKLOG, server_on_connection);
    if (rc == 0)
        rc = uv_tcp_getsockname(&s->listener, (struct sockaddr *)&address, &len);
    if (rc != 0)
        return err_set(err, rc == UV_EADDRNOTAVAIL ? ERR_INVALID : ERR_UNAVAILABLE,
                       "cannot listen on %s port %u: %s", s->host, s->port, uv_strerror(rc));
    bool v6 = address.ss_family == AF_INET6;
    s->port = ntohs(v6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                       : ((struct sockaddr_in *)&address)->sin_port);
    return ERR_OK;
}

static enum err_code server_listen(struct http_server *s, struct err *err)
{
    ASSERT(!s->listener_open);
    int rc = uv_tcp_init(s->loop, &s->listener);
    if (rc != 0)
        return err_set(err, ERR_IO, "no listener: %s", uv_strerror(rc));
    s->listener_open = true;
    closer_hold(&s->closer);
    enum err_code code = server_bind(s, err);
    if (code != ERR_OK)
        server_stop_listening(s);
    else
        s->listening = true;
    return code;
}

static void server_on_relisten(struct deadline *d)
{
    struct http_server *s = CONTAINER_OF(d, struct http_server, relisten);
    if (s->listener_open || server_listen(s, NULL) != ERR_OK)
        deadline_set(&s->deadlines, DEADLINE_RELISTEN, &s->relisten);
}

static void server_on_accept(struct later_item *item)
{
    server_accept(CONTAINER_OF(item, struct http_server, accept));
}

/* --- end ------------------------------------------------------------------------------------- */

static void server_on_drained(struct later_item *item)
{
    struct http_server *s = CONTAINER_OF(item, struct http_server, drained);
    if (s->on_drained != NULL)
        s->on_drained(s->drained_ctx);
}

static void server_on_all_closed(struct closer *closer)
{
    struct http_server *s = CONTAINER_OF(closer, struct http_server, closer);
    void (*closed)(void *ctx) = s->on_closed;
    void *ctx = s->closed_ctx;
    while (s->spare_count > 0)
        http_parser_free(s->spare[--s->spare_count]);
    buf_done(&s->scratch);
    free(s);
    if (closed != NULL)
        closed(ctx);
}

static void server_on_deadlines_closed(struct deadlines *ds)
{
    closer_release(&CONTAINER_OF(ds, struct http_server, deadlines)->closer);
}

static void server_on_close(struct later_item *item)
{
    struct http_server *s = CONTAINER_OF(item, struct http_server, close);
    LIST_FOREACH (node, &s->conns) {
        struct http_conn *c = CONTAINER_OF(node, struct http_conn, link);
        if (c->stream != NULL)
            stream_doom(c->stream, ERR_CANCELLED, "the server closes");
        conn_cut(c, false);
    }
    deadlines_close(&s->deadlines, server_on_deadlines_closed);
    closer_begin(&s->closer, server_on_all_closed);
}

/* --- the interface --------------------------------------------------------------------------- */

static void server_set_classes(struct http_server *s)
{
    const struct http_server_options *o = &s->options;
    const struct deadline_class classes[DEADLINES] = {
        [DEADLINE_HEAD] = {.ms = o->head_ms, .over = conn_on_head_over},
        [DEADLINE_BODY] = {.ms = o->body_ms, .over = conn_on_body_over},
        [DEADLINE_IDLE] = {.ms = o->idle_ms, .over = conn_on_idle_over},
        [DEADLINE_HALF] = {.ms = HTTP_HALF_MS, .over = conn_on_half_over},
        [DEADLINE_LINGER] = {.ms = HTTP_LINGER_MS, .over = conn_on_linger_over},
        [DEADLINE_WRITE] = {.ms = o->write_ms, .over = out_on_write_over},
        [DEADLINE_STREAM] = {.ms = o->stream_ms, .over = out_on_write_over},
        [DEADLINE_RELISTEN] = {.ms = HTTP_RELISTEN_MS, .over = server_on_relisten},
    };
    memcpy(s->classes, classes, sizeof(classes));
}

struct http_server *http_server_new(uv_loop_t *loop, struct later *later,
                                    const struct http_server_options *options)
{
    struct http_server *s = xcalloc(1, sizeof(*s));
    ASSERT(strlen(options->host) < sizeof(s->host) && options->connections_max > 0);
    s->loop = loop;
    s->later = later;
    s->options = *options;
    memcpy(s->host, options->host, strlen(options->host) + 1);
    s->port = options->port;
    list_init(&s->conns);
    buf_init(&s->scratch, SIZE_MAX);
    server_set_classes(s);
    deadlines_init(&s->deadlines, loop, s->classes, DEADLINES);
    deadline_init(&s->relisten);
    later_item_init(&s->accept, server_on_accept);
    later_item_init(&s->drained, server_on_drained);
    later_item_init(&s->close, server_on_close);
    closer_init(&s->closer, loop);
    closer_hold(&s->closer); /* the deadlines' timer */
    return s;
}

enum err_code http_server_start(struct http_server *s, struct err *err)
{
    ASSERT(!s->started);
    s->started = true;
    return server_listen(s, err);
}

unsigned http_server_port(const struct http_server *s)
{
    return s->port;
}

struct http_server_stats http_server_stats(const struct http_server *s)
{
    return s->stats;
}

void http_server_drain(struct http_server *s, void (*drained)(void *ctx), void *ctx)
{
    ASSERT(!s->draining && !s->closing);
    s->draining = true;
    s->on_drained = drained;
    s->drained_ctx = ctx;
    server_stop_listening(s);
    LIST_FOREACH (node, &s->conns) {
        struct http_conn *c = CONTAINER_OF(node, struct http_conn, link);
        if (c->state == CONN_IDLE && out_pending(c) == 0)
            conn_close(c, false);
        else if (c->state == CONN_IDLE)
            conn_finish(c);
    }
    if (s->live == 0)
        later_add(s->later, &s->drained);
}

void http_server_close(struct http_server *s, void (*closed)(void *ctx), void *ctx)
{
    ASSERT(!s->closing);
    s->closing = true;
    s->on_closed = closed;
    s->closed_ctx = ctx;
    server_stop_listening(s);
    later_cancel(s->later, &s->drained);
    later_add(s->later, &s->close);
}
