#include "probe.h"

#include "closer.h"
#include "http_up.h"
#include "json_scan.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PROBE_CONNECT_MS = 1000,
    PROBE_BODY_MAX = 1024 * 1024,
    PROBE_VERSION_MAX = 256,
};

struct probe {
    struct probe_options options;
    char *host;
    struct closer closer;
    struct http_up *http;
    struct http_call call;
    uv_timer_t timer;
    uint64_t patience_ms;
    bool busy;      /* the call is the driver's */
    bool forgotten; /* its end is nobody's news */
    bool due;       /* the next question waits for that end */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static void probe_on_time(uv_timer_t *timer);

static enum probe_result probe_read(const struct http_call *call, struct buf *version)
{
    struct slice text = buf_slice(&call->body), token;
    if (call->status != 200 || json_check(text, &json_from_comfyui, NULL, NULL) != ERR_OK ||
        json_kind(json_trim(text)) != JSON_OBJECT)
        return PROBE_FAILED;
    if (json_get_path(json_trim(text), &token, "system", "comfyui_version", (char *)NULL) &&
        json_kind(token) == JSON_STRING && json_unescape(token, version) != ERR_OK)
        buf_reset(version); /* no version has so many characters */
    return PROBE_ANSWERED;
}

/* A connection that could not be made for want of descriptors was refused by nobody. */
static bool probe_could_connect(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    (void)close(fd);
    return true;
}

static void probe_tell(struct probe *p, const struct err *err)
{
    enum probe_result result = PROBE_FAILED;
    struct buf version;
    buf_init(&version, PROBE_VERSION_MAX);
    if (err == NULL)
        result = probe_read(&p->call, &version);
    else if (err->code == ERR_UNAVAILABLE && probe_could_connect())
        result = PROBE_REFUSED;
    p->options.done(p->options.ctx, result, buf_slice(&version));
    buf_done(&version);
}

static void probe_on_end(struct http_call *call, const struct err *err)
{
    struct probe *p = call->ctx;
    bool forgotten = p->forgotten;
    p->busy = p->forgotten = false;
    if (!forgotten)
        probe_tell(p, err);
    else if (p->due) /* by the timer, since the call is free only after its end */
        ASSERT(uv_timer_start(&p->timer, probe_on_time, 0, 0) == 0);
    p->due = false;
    closer_release(&p->closer); /* may be the last use of p */
}

static void probe_on_time(uv_timer_t *timer)
{
    struct probe *p = timer->data;
    if (p->busy) {
        p->due = true;
        return;
    }
    p->busy = true;
    p->call = (struct http_call){
        .method = "GET",
        .target = SLICE("/system_stats"),
        .content = SLICE_EMPTY,
        .connect_ms = PROBE_CONNECT_MS,
        .head_ms = p->patience_ms,
        .total_ms = p->patience_ms,
        .body_max = PROBE_BODY_MAX,
        .on_end = probe_on_end,
        .ctx = p,
    };
    http_up_forget(p->http); /* every question is asked on a connection of its own */
    closer_hold(&p->closer);
    http_up_start(p->http, &p->call);
}

void probe_ask(struct probe *p, uint64_t after_ms, uint64_t patience_ms)
{
    probe_stop(p);
    p->patience_ms = patience_ms;
    ASSERT(uv_timer_start(&p->timer, probe_on_time, after_ms, 0) == 0);
}

void probe_stop(struct probe *p)
{
    (void)uv_timer_stop(&p->timer);
    p->due = false;
    if (p->busy && !p->forgotten) {
        p->forgotten = true;
        http_up_cancel(&p->call);
    }
}

struct probe *probe_new(uv_loop_t *loop, struct later *later, const struct probe_options *options)
{
    struct probe *p = xcalloc(1, sizeof(*p));
    p->options = *options;
    p->host = xstrdup(options->host);
    closer_init(&p->closer, loop);
    ASSERT(uv_timer_init(loop, &p->timer) == 0);
    p->timer.data = p;
    closer_hold(&p->closer);
    struct http_up_options up = {HTTP_UP_DEFAULTS, .host = p->host, .port = options->port};
    p->http = http_up_new(loop, later, &up);
    closer_hold(&p->closer);
    return p;
}

static void probe_on_timer_closed(uv_handle_t *handle)
{
    struct probe *p = handle->data;
    closer_release(&p->closer);
}

static void probe_on_http_closed(void *ctx)
{
    struct probe *p = ctx;
    closer_release(&p->closer);
}

static void probe_on_closed(struct closer *closer)
{
    struct probe *p = CONTAINER_OF(closer, struct probe, closer);
    void (*closed)(void *ctx) = p->closed;
    void *ctx = p->closed_ctx;
    free(p->host);
    free(p);
    if (closed != NULL)
        closed(ctx);
}

void probe_free(struct probe *p, void (*closed)(void *ctx), void *ctx)
{
    probe_stop(p);
    p->closed = closed;
    p->closed_ctx = ctx;
    uv_close((uv_handle_t *)&p->timer, probe_on_timer_closed);
    http_up_close(p->http, probe_on_http_closed, p);
    closer_begin(&p->closer, probe_on_closed);
}
