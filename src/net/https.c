/* One call goes through
 *
 *     WAITING ─► RESOLVING ─► CONNECTING ─► HEAD ─► BODY ─► on_end
 *                    ▲──────── a redirect ────┘
 *
 * What goes wrong (a deadline, a bound, a cancel) is noted by fetch_fail() and ends the call from
 * `later`: it may be found out inside libcurl or inside a call of the caller's. One timer serves
 * all deadlines: it fires at the earliest that it was told, then looks at all calls.
 */
#include "https.h"

#include "closer.h"
#include "hop.h"

#include <stdlib.h>

enum { HTTPS_GAP_MS = 500 /* a timer this late means that we did not run */ };
#define HTTPS_NEVER UINT64_MAX

struct https {
    struct https_options options;
    uv_loop_t *loop;
    struct later *later;
    struct resolve *resolve;
    struct hops *hops;
    uv_timer_t timer;
    uint64_t timer_at;    /* HTTPS_NEVER: not running */
    struct closer closer; /* timer, resolver, hops, calls */
    struct list_node waiting, running;
    unsigned running_count;
    bool closing, emptied; /* emptied: resolver and hops are being freed */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

enum fetch_state { FETCH_WAITING, FETCH_RESOLVING, FETCH_CONNECTING, FETCH_HEAD, FETCH_BODY };

struct fetch {
    struct https *https;
    struct https_call *call;
    struct list_node link; /* in waiting or running; in none if it was over when it began */
    enum fetch_state state;
    struct later_item turn;
    struct err err; /* ERR_OK: nothing went wrong */
    struct url url;
    struct resolve_query query;
    struct hop *hop;                    /* NULL: none is open */
    const struct http_headers *headers; /* to send */
    struct http_headers head;           /* as it came */
    struct buf body;
    bool moving;                  /* the answer is a redirect */
    uint64_t phase_at, total_at;  /* when they are over */
    size_t received, window_from; /* bytes of the body; at the window's begin */
};

static void fetch_resolve(struct fetch *f);
static void https_dispatch(struct https *h);
static void https_empty(struct https *h);

/* --- time ------------------------------------------------------------------------------------ */

static uint64_t or_default(uint64_t given, uint64_t fallback)
{
    return given != 0 ? given : fallback;
}

static void https_on_timer(uv_timer_t *timer);

static void https_need_timer(struct https *h, uint64_t at)
{
    uint64_t now = uv_now(h->loop);
    if (at >= h->timer_at || h->emptied)
        return;
    h->timer_at = at;
    ASSERT(uv_timer_start(&h->timer, https_on_timer, at > now ? at - now : 1, 0) == 0);
}

static uint64_t fetch_phase_ms(const struct fetch *f)
{
    switch (f->state) {
    case FETCH_WAITING: return or_default(f->call->total_ms, HTTPS_TOTAL_MS);
    case FETCH_RESOLVING:
    case FETCH_CONNECTING: return or_default(f->call->connect_ms, HTTPS_CONNECT_MS);
    case FETCH_HEAD: return or_default(f->call->head_ms, HTTPS_HEAD_MS);
    case FETCH_BODY: break;
    }
    return or_default(f->call->idle_ms, HTTPS_IDLE_MS);
}

static void fetch_start_phase(struct fetch *f)
{
    f->phase_at = uv_now(f->https->loop) + fetch_phase_ms(f);
    f->window_from = f->received;
    https_need_timer(f->https, f->phase_at);
}

static void fetch_start_total(struct fetch *f)
{
    f->total_at = uv_now(f->https->loop) + or_default(f->call->total_ms, HTTPS_TOTAL_MS);
    https_need_timer(f->https, f->total_at);
}

/* --- the end --------------------------------------------------------------------------------- */

/* `fetch_fail(f, err_set(&f->err, …))`. What went wrong first counts. */
static void fetch_fail(struct fetch *f, enum err_code code)
{
    ASSERT(code != ERR_OK);
    later_add(f->https->later, &f->turn);
}

static void fetch_end(struct fetch *f)
{
    struct https *h = f->https;
    struct https_call *call = f->call;
    resolve_cancel(&f->query);
    if (f->hop != NULL)
        hop_free(f->hop);
    later_cancel(h->later, &f->turn);
    list_remove(&f->link);
    if (f->state != FETCH_WAITING)
        h->running_count--;
    call->driver = NULL;
    if (f->err.code == ERR_OK) {
        call->body = f->body;
        buf_init(&f->body, 0);
    }
    call->on_end(call, f->err.code != ERR_OK ? &f->err : NULL); /* may free it and start others */
    buf_done(&f->body);
    http_headers_done(&f->head);
    url_done(&f->url);
    free(f);
    https_dispatch(h);
    https_empty(h);
    closer_release(&h->closer);
}

static void fetch_on_turn(struct later_item *item)
{
    fetch_end(CONTAINER_OF(item, struct fetch, turn));
}

static void fetch_expire(struct fetch *f)
{
    static const char *const late[] = {"", "no connection", "no connection", "no answer"};
    const char *host = f->url.host;
    unsigned long long ms = (unsigned long long)fetch_phase_ms(f);
    uint64_t rate = or_default(f->call->rate_min, HTTPS_RATE_MIN);
    if (f->err.code != ERR_OK)
        return; /* ends already */
    if (uv_now(f->https->loop) >= f->total_at) {
        ms = (unsigned long long)or_default(f->call->total_ms, HTTPS_TOTAL_MS);
        fetch_fail(f, err_set(&f->err, ERR_TIMEOUT, "%.100s: not done within %llu ms", host, ms));
    } else if (f->state != FETCH_BODY) {
        fetch_fail(f, err_set(&f->err, ERR_TIMEOUT, "%.100s: %s within %llu ms", host,
                              late[f->state], ms));
    } else if (f->received - f->window_from < or_default(rate * ms / 1000, 1)) {
        fetch_fail(f, err_set(&f->err, ERR_TIMEOUT, "%.100s: less than %llu bytes/s for %llu ms",
                              host, (unsigned long long)rate, ms));
    } else {
        fetch_start_phase(f);
    }
}

/* `frozen`: the loop did not run. Nobody had that time to answer in, so nothing is over. */
static void https_expire(struct https *h, struct list_node *fetches, bool frozen)
{
    uint64_t now = uv_now(h->loop);
    LIST_FOREACH (node, fetches) {
        struct fetch *f = CONTAINER_OF(node, struct fetch, link);
        if (frozen) {
            fetch_start_total(f);
            fetch_start_phase(f);
        } else if (f->total_at <= now || f->phase_at <= now) {
            fetch_expire(f);
        } else {
            https_need_timer(h, f->total_at < f->phase_at ? f->total_at : f->phase_at);
        }
    }
}

static void https_on_timer(uv_timer_t *timer)
{
    struct https *h = CONTAINER_OF(timer, struct https, timer);
    bool frozen = uv_now(h->loop) - h->timer_at >= HTTPS_GAP_MS;
    h->timer_at = HTTPS_NEVER;
    https_expire(h, &h->waiting, frozen);
    https_expire(h, &h->running, frozen);
}

/* --- one hop --------------------------------------------------------------------------------- */

static bool fetch_on_sent(struct hop *hop)
{
    struct fetch *f = hop_owner(hop);
    struct https_call *call = f->call;
    if (f->err.code == ERR_OK && call->may_send != NULL && !call->may_send(call))
        fetch_fail(f, err_set(&f->err, ERR_CANCELLED, "%.100s: not asked any more", f->url.host));
    if (f->err.code != ERR_OK)
        return false;
    call->sent = true;
    f->state = FETCH_HEAD;
    fetch_start_phase(f);
    return true;
}

static bool fetch_is_redirect(struct fetch *f, int status)
{
    struct slice location;
    bool moved = status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
    return moved && f->call->redirects_max > 0 && strcmp(f->call->method, "POST") != 0 &&
           http_headers_get(&f->head, "location", &location);
}

static void fetch_take_head(struct fetch *f, int status)
{
    struct https_call *call = f->call;
    struct slice value;
    uint64_t length;
    call->status = status;
    call->res_headers = &f->head;
    if (http_headers_get(&f->head, "content-type", &value)) {
        size_t len = value.len < HTTPS_MEDIA_TYPE_MAX ? value.len : HTTPS_MEDIA_TYPE_MAX;
        memcpy(call->media_type, value.ptr, len);
        call->media_type[len] = '\0';
    }
    if (http_headers_get(&f->head, "content-length", &value) &&
        slice_to_u64(value, INT64_MAX, &length))
        call->res_length = (int64_t)length;
}

static bool fetch_on_head(struct hop *hop, int status)
{
    struct fetch *f = hop_owner(hop);
    struct https_call *call = f->call;
    if (f->err.code != ERR_OK)
        return false;
    f->moving = fetch_is_redirect(f, status);
    if (f->moving)
        return false; /* whatever its body says */
    f->state = FETCH_BODY;
    fetch_start_phase(f);
    fetch_take_head(f, status);
    if (call->on_head != NULL)
        call->on_head(call);
    if (f->err.code == ERR_OK && strcmp(call->method, "HEAD") != 0 && call->res_length >= 0 &&
        (uint64_t)call->res_length > call->body_max)
        fetch_fail(f, err_set(&f->err, ERR_TOO_LARGE, "%.100s: %lld bytes, more than %zu",
                              f->url.host, (long long)call->res_length, call->body_max));
    return f->err.code == ERR_OK;
}

static bool fetch_on_part(struct hop *hop, struct slice part)
{
    struct fetch *f = hop_owner(hop);
    struct https_call *call = f->call;
    if (f->err.code != ERR_OK)
        return false;
    if (part.len > call->body_max - f->received) {
        fetch_fail(f, err_set(&f->err, ERR_TOO_LARGE, "%.100s: more than %zu bytes", f->url.host,
                              call->body_max));
        return false;
    }
    f->received += part.len;
    if (call->on_part != NULL)
        call->on_part(call, part);
    else if (buf_append(&f->body, part) != ERR_OK)
        fetch_fail(f, err_set(&f->err, ERR_TOO_LARGE, "%.100s: no memory for it", f->url.host));
    return f->err.code == ERR_OK;
}

/* Where the answer sends us. */
static void fetch_move(struct fetch *f)
{
    struct https_call *call = f->call;
    struct slice location;
    struct url next;
    bool given = http_headers_get(&f->head, "location", &location);
    ASSERT(given);
    f->moving = false;
    if (call->redirects == call->redirects_max) {
        (void)err_set(&f->err, ERR_PROTOCOL, "more than %u redirects", call->redirects_max);
    } else if (url_follow(&f->url, location, &next, &f->err) != ERR_OK) {
        (void)err_prefix(&f->err, "redirected by %.64s", f->url.host);
    } else {
        call->redirects++;
        if (!url_same_origin(&f->url, &next))
            f->headers = NULL;
        url_done(&f->url);
        f->url = next;
        fetch_resolve(f);
        return;
    }
    fetch_end(f);
}

static void fetch_on_hop_end(struct hop *hop, const struct err *err)
{
    struct fetch *f = hop_owner(hop);
    bool move = f->err.code == ERR_OK && f->moving;
    if (f->err.code == ERR_OK && !move && err != NULL)
        f->err = *err;
    hop_free(hop); /* err goes with it */
    f->hop = NULL;
    if (move)
        fetch_move(f);
    else
        fetch_end(f);
}

static void fetch_on_resolved(struct resolve_query *q, const struct err *err)
{
    static const struct hop_events events = {fetch_on_sent, fetch_on_head, fetch_on_part,
                                             fetch_on_hop_end};
    struct fetch *f = CONTAINER_OF(q, struct fetch, query);
    if (f->err.code == ERR_OK && err != NULL)
        f->err = *err;
    if (f->err.code != ERR_OK) {
        fetch_end(f);
        return;
    }
    struct hop_request request = {
        .url = &f->url,
        .method = f->call->method,
        .headers = f->headers,
        .user_agent = f->https->options.user_agent,
        .content = f->call->content,
        .reuse = f->call->reuse,
        .addresses = q->addresses,
        .address_count = q->count,
        .ret_headers = &f->head,
    };
    f->state = FETCH_CONNECTING;
    f->hop = hop_start(f->https->hops, &request, &events, f);
}

static void fetch_resolve(struct fetch *f)
{
    f->state = FETCH_RESOLVING;
    fetch_start_phase(f);
    f->query.done = fetch_on_resolved;
    resolve_start(f->https->resolve, &f->query, f->url.host);
}

/* --- public ---------------------------------------------------------------------------------- */

static void https_dispatch(struct https *h)
{
    while (!h->closing && h->running_count < h->options.connections_max &&
           !list_is_empty(&h->waiting)) {
        struct fetch *f = CONTAINER_OF(h->waiting.next, struct fetch, link);
        list_remove(&f->link);
        list_add(&h->running, &f->link);
        h->running_count++;
        fetch_resolve(f);
    }
}

static void call_reset(struct https_call *call)
{
    ASSERT(call->driver == NULL);
    call->status = 0;
    call->res_headers = NULL;
    call->res_length = -1;
    call->media_type[0] = '\0';
    call->redirects = 0;
    call->sent = false;
    buf_init(&call->body, 0);
}

void https_start(struct https *h, struct https_call *call)
{
    struct fetch *f = xcalloc(1, sizeof(*f));
    call_reset(call);
    call->driver = f;
    f->https = h;
    f->call = call;
    f->headers = call->headers;
    list_init(&f->link);
    later_item_init(&f->turn, fetch_on_turn);
    http_headers_init(&f->head);
    buf_init(&f->body, call->body_max);
    closer_hold(&h->closer);
    if (h->closing) {
        fetch_fail(f, err_set(&f->err, ERR_CANCELLED, "cancelled: closing"));
    } else if (url_parse(slice_of(call->url), &f->url, &f->err) != ERR_OK) {
        fetch_fail(f, f->err.code);
    } else {
        fetch_start_total(f);
        fetch_start_phase(f);
        list_add(&h->waiting, &f->link);
        https_dispatch(h);
    }
}

static void fetch_cancel(struct fetch *f)
{
    if (f->err.code == ERR_OK)
        fetch_fail(f, err_set(&f->err, ERR_CANCELLED, "cancelled"));
}

void https_cancel(struct https_call *call)
{
    if (call->driver != NULL)
        fetch_cancel(call->driver);
}

enum err_code https_global_init(struct err *err)
{
    return hop_global_init(err);
}

struct https *https_new(uv_loop_t *loop, struct later *later, const struct https_options *options)
{
    struct https *h = xcalloc(1, sizeof(*h));
    struct resolve_options resolve = {RESOLVE_DEFAULTS, .allow = options->allow,
                                      .ask = options->ask, .ctx = options->ctx};
    h->options = *options;
    h->loop = loop;
    h->later = later;
    h->timer_at = HTTPS_NEVER;
    list_init(&h->waiting);
    list_init(&h->running);
    closer_init(&h->closer, loop);
    ASSERT(uv_timer_init(loop, &h->timer) == 0);
    h->resolve = resolve_new(loop, later, &resolve);
    h->hops = hops_new(loop, later, options->ca_file);
    for (unsigned i = 0; i < 3; i++) /* timer, resolver, hops */
        closer_hold(&h->closer);
    return h;
}

static void https_on_part_closed(void *ctx)
{
    struct https *h = ctx;
    closer_release(&h->closer);
}

static void https_on_timer_closed(uv_handle_t *handle)
{
    struct https *h = CONTAINER_OF(handle, struct https, timer);
    closer_release(&h->closer);
}

static void https_on_closed(struct closer *closer)
{
    struct https *h = CONTAINER_OF(closer, struct https, closer);
    void (*closed)(void *ctx) = h->closed;
    void *ctx = h->closed_ctx;
    free(h);
    if (closed != NULL)
        closed(ctx);
}

/* The parts go when no call needs them any more. */
static void https_empty(struct https *h)
{
    if (!h->closing || h->emptied || !list_is_empty(&h->waiting) || !list_is_empty(&h->running))
        return;
    h->emptied = true;
    resolve_free(h->resolve, https_on_part_closed, h);
    hops_free(h->hops, https_on_part_closed, h);
    uv_close((uv_handle_t *)&h->timer, https_on_timer_closed);
}

void https_free(struct https *h, void (*closed)(void *ctx), void *ctx)
{
    h->closing = true;
    h->closed = closed;
    h->closed_ctx = ctx;
    closer_begin(&h->closer, https_on_closed);
    LIST_FOREACH (node, &h->waiting)
        fetch_cancel(CONTAINER_OF(node, struct fetch, link));
    LIST_FOREACH (node, &h->running)
        fetch_cancel(CONTAINER_OF(node, struct fetch, link));
    https_empty(h);
}
