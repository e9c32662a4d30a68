#include "peer.h"

static void peer_pump(struct peer_conn *conn);

static void conn_on_closed(uv_handle_t *handle)
{
    (void)handle;
}

static void conn_close(struct peer_conn *conn, bool reset)
{
    if (!conn->open)
        return;
    conn->open = false;
    if (!reset || uv_tcp_close_reset(&conn->tcp, conn_on_closed) != 0)
        uv_close((uv_handle_t *)&conn->tcp, conn_on_closed);
    uv_close((uv_handle_t *)&conn->timer, conn_on_closed);
}

static void conn_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct peer_conn *conn = handle->data;
    (void)suggested;
    *ret = uv_buf_init(conn->peer->read, sizeof(conn->peer->read));
}

static void conn_on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
    struct peer_conn *conn = stream->data;
    if (nread < 0) {
        conn->ended = true;
        (void)uv_read_stop(stream);
    } else {
        buf_add(&conn->in, (struct slice){buf->base, (size_t)nread});
        peer_pump(conn);
    }
}

static void conn_on_timer(uv_timer_t *timer)
{
    struct peer_conn *conn = timer->data;
    conn->busy = false;
    conn->step++;
    peer_pump(conn);
}

static void conn_on_written(uv_write_t *write, int status)
{
    struct peer_conn *conn = write->data;
    conn->busy = false;
    if (status == 0 && conn->open)
        peer_pump(conn);
}

void peer_send(struct peer_conn *conn, struct slice bytes)
{
    ASSERT(!conn->busy);
    buf_reset(&conn->out);
    buf_add(&conn->out, bytes);
    uv_buf_t buf = uv_buf_init(conn->out.ptr, (unsigned)conn->out.len);
    conn->write.data = conn;
    conn->busy = uv_write(&conn->write, (uv_stream_t *)&conn->tcp, &buf, 1, conn_on_written) == 0;
}

static struct slice step_text(const struct peer_step *s)
{
    return (struct slice){s->text, s->len};
}

/* True: go on with the next step at once. */
static bool step_expect(struct peer_conn *conn, struct slice text)
{
    struct slice in = buf_slice(&conn->in);
    const char *found =
        memmem(in.ptr + conn->expected, in.len - conn->expected, text.ptr, text.len);
    if (found == NULL)
        return false;
    conn->expected = (size_t)(found - in.ptr) + text.len;
    return true;
}

static void step_send(struct peer_conn *conn, struct slice text, size_t piece)
{
    if (conn->sent == text.len && --conn->repeats > 0)
        conn->sent = 0;
    if (conn->sent == text.len) {
        conn->step++;
        conn->sent = 0;
        return;
    }
    struct slice next = {text.ptr + conn->sent, text.len - conn->sent};
    next.len = next.len < piece ? next.len : piece;
    conn->sent += next.len;
    peer_send(conn, next);
}

static bool step_other(struct peer_conn *conn, const struct peer_step *s)
{
    switch (s->act) {
    case PEER_DELAY:
        conn->busy = true;
        ASSERT(uv_timer_start(&conn->timer, conn_on_timer, s->number, 0) == 0);
        return false;
    case PEER_HOOK: s->hook(conn); break;
    case PEER_STOP: (void)uv_read_stop((uv_stream_t *)&conn->tcp); break;
    case PEER_READ:
        (void)uv_read_start((uv_stream_t *)&conn->tcp, conn_on_alloc, conn_on_read);
        break;
    case PEER_SHUT: (void)uv_shutdown(&conn->shutdown, (uv_stream_t *)&conn->tcp, NULL); break;
    case PEER_CLOSE: conn_close(conn, false); return false;
    case PEER_RESET: conn_close(conn, true); return false;
    case PEER_AGAIN: conn->step = conn->script; return true;
    default: return false;
    }
    conn->step++;
    return true;
}

static bool step_do(struct peer_conn *conn)
{
    const struct peer_step *s = conn->step;
    switch (s->act) {
    case PEER_EXPECT:
        if (!step_expect(conn, step_text(s)))
            return false;
        conn->step++;
        return true;
    case PEER_SEND:
    case PEER_SEND_MANY:
    case PEER_DRIBBLE:
        if (conn->sent == 0 && conn->repeats == 0)
            conn->repeats = s->act == PEER_SEND_MANY ? s->number : 1;
        step_send(conn, step_text(s), s->act == PEER_DRIBBLE ? 1 : SIZE_MAX);
        return true;
    default: return step_other(conn, s);
    }
}

static void peer_pump(struct peer_conn *conn)
{
    while (conn->open && !conn->busy && step_do(conn))
        ;
}

static void peer_on_connection(uv_stream_t *listener, int status)
{
    struct peer *p = listener->data;
    ASSERT(status == 0 && p->accepted < PEER_CONNS_MAX);
    struct peer_conn *conn = &p->conns[p->accepted];
    unsigned which = p->accepted < p->script_count ? p->accepted : p->script_count - 1;
    p->accepted++;
    *conn = (struct peer_conn){.peer = p, .open = true};
    conn->script = conn->step = p->scripts[which];
    buf_init(&conn->in, SIZE_MAX);
    buf_init(&conn->out, SIZE_MAX);
    ASSERT(uv_tcp_init(&p->loop->loop, &conn->tcp) == 0);
    ASSERT(uv_timer_init(&p->loop->loop, &conn->timer) == 0);
    conn->tcp.data = conn->timer.data = conn;
    ASSERT(uv_accept(listener, (uv_stream_t *)&conn->tcp) == 0);
    (void)uv_tcp_nodelay(&conn->tcp, 1);
    (void)uv_read_start((uv_stream_t *)&conn->tcp, conn_on_alloc, conn_on_read);
    peer_pump(conn);
}

static void listen_on(struct loop_fixture *loop, uv_tcp_t *listener, unsigned *ret_port)
{
    struct sockaddr_in address;
    int len = sizeof(address);
    ASSERT(uv_ip4_addr("127.0.0.1", 0, &address) == 0);
    ASSERT(uv_tcp_init(&loop->loop, listener) == 0);
    ASSERT(uv_tcp_bind(listener, (const struct sockaddr *)&address, 0) == 0);
    ASSERT(uv_tcp_getsockname(listener, (struct sockaddr *)&address, &len) == 0);
    *ret_port = ntohs(address.sin_port);
}

void peer_open(struct peer *p, struct loop_fixture *loop, const struct peer_step *const *scripts,
               unsigned count)
{
    memset(p, 0, sizeof(*p));
    p->loop = loop;
    p->scripts = scripts;
    p->script_count = count;
    listen_on(loop, &p->listener, &p->port);
    p->listener.data = p;
    if (count > 0)
        ASSERT(uv_listen((uv_stream_t *)&p->listener, 64, peer_on_connection) == 0);
}

void peer_close(struct peer *p)
{
    for (unsigned i = 0; i < p->accepted; i++)
        conn_close(&p->conns[i], false);
    uv_close((uv_handle_t *)&p->listener, conn_on_closed);
}

void peer_done(struct peer *p)
{
    for (unsigned i = 0; i < p->accepted; i++) {
        buf_done(&p->conns[i].in);
        buf_done(&p->conns[i].out);
    }
}
