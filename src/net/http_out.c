/* Output of a connection. `out` gathers, `sending` is with libuv; there is at most one write under
 * way. As long as none is, bytes go to the socket directly: a small answer is one system call and
 * no copy. */
#include "http_conn.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

enum {
    OUT_BUFS_MAX = 4,
    OUT_USUAL = 1000, /* a head and a small body */
    OUT_KEEP_BYTES = 2 * HTTP_WRITE_HIGH,
};

size_t out_pending(const struct http_conn *c)
{
    return c->out.len + c->sending.len;
}

static void out_break(struct http_conn *c)
{
    c->broken = true;
    buf_done(&c->out);
    conn_go_on(c);
}

/* Any sign that the peer takes something: libuv's queue, and the bytes in the kernel that are not
 * acknowledged yet. The kernel's buffer is large and says nothing for a long time to a slow reader.
 */
static uint64_t out_mark(const struct http_conn *c)
{
    int fd, unacknowledged = 0;
    if (uv_fileno((const uv_handle_t *)&c->tcp, &fd) == 0)
        (void)ioctl(fd, SIOCOUTQ, &unacknowledged);
    size_t queued = uv_stream_get_write_queue_size((const uv_stream_t *)&c->tcp);
    return (uint64_t)queued << 32 | (unsigned)unacknowledged;
}

static void out_watch(struct http_conn *c)
{
    c->write_mark = out_mark(c);
    deadline_set(&c->server->deadlines, c->stream != NULL ? DEADLINE_STREAM : DEADLINE_WRITE,
                 &c->write_deadline);
}

void out_on_write_over(struct deadline *d)
{
    struct http_conn *c = CONTAINER_OF(d, struct http_conn, write_deadline);
    if (out_mark(c) != c->write_mark) {
        out_watch(c);
        return;
    }
    if (c->stream != NULL)
        stream_doom(c->stream, ERR_TIMEOUT, "the peer takes nothing");
    conn_cut(c, true);
}

static void out_start(struct http_conn *c);

static void out_on_written(uv_write_t *write, int status)
{
    struct http_conn *c = CONTAINER_OF(write, struct http_conn, write);
    c->writing = false;
    if (status == 0)
        c->server->stats.bytes_out += c->sending.len;
    if (c->sending.cap > OUT_KEEP_BYTES)
        buf_done(&c->sending); /* the peer was behind; it need not be again */
    else
        buf_reset(&c->sending);
    if (c->state == CONN_CLOSED)
        return;
    deadline_clear(&c->write_deadline);
    if (status < 0)
        out_break(c);
    else
        out_start(c);
    conn_work(c, SLICE_EMPTY);
}

static void out_start(struct http_conn *c)
{
    if (c->writing || c->out.len == 0)
        return;
    struct buf empty = c->sending;
    c->sending = c->out;
    c->out = empty;
    uv_buf_t bytes = {.base = c->sending.ptr, .len = c->sending.len};
    int rc = uv_write(&c->write, (uv_stream_t *)&c->tcp, &bytes, 1, out_on_written);
    if (rc < 0) {
        buf_reset(&c->sending);
        out_break(c);
        return;
    }
    c->writing = true;
    out_watch(c);
}

void out_add(struct http_conn *c, struct slice bytes)
{
    if (c->broken || c->state == CONN_CLOSED)
        return;
    if (c->out.cap == 0)
        buf_expect(&c->out, OUT_USUAL);
    buf_add(&c->out, bytes);
}

/* Queues what comes after the first `skip` bytes. */
static void out_add_rest(struct http_conn *c, const uv_buf_t *bufs, unsigned count, size_t skip)
{
    for (unsigned i = 0; i < count; i++) {
        size_t gone = skip < bufs[i].len ? skip : bufs[i].len;
        skip -= gone;
        if (gone < bufs[i].len)
            buf_add(&c->out, (struct slice){bufs[i].base + gone, bufs[i].len - gone});
    }
}

void out_write(struct http_conn *c, const uv_buf_t *bufs, unsigned count)
{
    uv_buf_t all[OUT_BUFS_MAX + 1];
    unsigned n = 0;
    size_t before = c->out.len;
    ASSERT(count <= OUT_BUFS_MAX);
    if (c->broken || c->state == CONN_CLOSED)
        return;
    if (before > 0)
        all[n++] = (uv_buf_t){.base = c->out.ptr, .len = before};
    for (unsigned i = 0; i < count; i++)
        all[n++] = bufs[i];
    if (n == 0)
        return;
    int rc = c->writing ? UV_EAGAIN : uv_try_write((uv_stream_t *)&c->tcp, all, n);
    if (rc < 0 && rc != UV_EAGAIN) {
        out_break(c);
        return;
    }
    size_t sent = rc > 0 ? (size_t)rc : 0;
    c->server->stats.bytes_out += sent;
    buf_consume(&c->out, sent < before ? sent : before);
    out_add_rest(c, bufs, count, sent > before ? sent - before : 0);
    out_start(c);
}

void out_flush(struct http_conn *c)
{
    if (!c->writing && c->out.len > 0)
        out_write(c, NULL, 0);
}

/* Gives the memory back: an idle connection has none of it. */
void out_done(struct http_conn *c)
{
    ASSERT(!c->writing);
    buf_done(&c->out);
    buf_done(&c->sending);
}
