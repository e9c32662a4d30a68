/* The link to ComfyUI's WebSocket: see the drawing in comfy.h. One timer serves all waits. */
#include "comfy_private.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>

enum { PAUSE_MIN_MS = 50, PAUSE_MAX_MS = 2000, ASK_MS = 10000 };

static void link_connect(struct comfy *c);
static void link_ask(struct comfy *c);

static void link_timer(struct comfy *c, uv_timer_cb cb, uint64_t ms)
{
    ASSERT(uv_timer_start(&c->timer, cb, ms, 0) == 0);
}

static void link_socket_gone(void *ctx)
{
    struct comfy *c = ctx;
    closer_release(&c->closer);
}

static void link_drop_socket(struct comfy *c)
{
    if (c->socket == NULL)
        return;
    ws_client_free(c->socket, link_socket_gone, c);
    c->socket = NULL;
}

static void link_set(struct comfy *c, enum comfy_link_state state)
{
    bool was_open = c->state == COMFY_OPEN;
    c->state = state;
    if (was_open != (state == COMFY_OPEN))
        c->options.on_link(c, state == COMFY_OPEN);
}

static void link_on_pause_over(uv_timer_t *timer)
{
    struct comfy *c = timer->data;
    if (c->asked)
        link_connect(c);
    else
        link_ask(c);
}

/* What was submitted under this socket's id brings no more news. */
static void link_pause(struct comfy *c, const struct err *why)
{
    link_drop_socket(c);
    log_warn("comfyui", "socket lost, opening another: %s", why->msg);
    c->pause_ms = c->pause_ms == 0 ? PAUSE_MIN_MS : c->pause_ms * 2;
    if (c->pause_ms > PAUSE_MAX_MS)
        c->pause_ms = PAUSE_MAX_MS;
    link_timer(c, link_on_pause_over, c->pause_ms);
    link_set(c, COMFY_PAUSING);
}

static void link_on_silence(uv_timer_t *timer)
{
    struct comfy *c = timer->data;
    struct err err;
    (void)err_set(&err, ERR_TIMEOUT, "no greeting within %d s", COMFY_GREETING_MS / 1000);
    link_pause(c, &err);
}

static void link_on_open(struct ws_client *socket)
{
    struct comfy *c = ws_client_ctx(socket);
    link_timer(c, link_on_silence, COMFY_GREETING_MS);
    link_set(c, COMFY_GREETING);
}

static void link_on_text(struct ws_client *socket, struct slice text)
{
    struct comfy *c = ws_client_ctx(socket);
    struct event e;
    event_read(&c->reader, &e, text);
    if (e.type == EVENT_STATUS && e.is_greeting && c->state == COMFY_GREETING) {
        (void)uv_timer_stop(&c->timer);
        c->pause_ms = 0;
        c->link++;
        link_set(c, COMFY_OPEN);
        return;
    }
    if (c->state == COMFY_OPEN)
        c->options.on_event(c, &e);
}

static void link_on_binary(struct ws_client *socket, struct slice bytes)
{
    struct comfy *c = ws_client_ctx(socket);
    struct event e;
    event_parse_binary(&e, bytes);
    if (c->state == COMFY_OPEN)
        c->options.on_event(c, &e);
}

static void link_on_skipped(struct ws_client *socket)
{
    struct comfy *c = ws_client_ctx(socket);
    const struct event gap = {.type = EVENT_GAP};
    if (c->state == COMFY_OPEN)
        c->options.on_event(c, &gap);
}

static void link_on_end(struct ws_client *socket, const struct err *err)
{
    link_pause(ws_client_ctx(socket), err);
}

static void link_connect(struct comfy *c)
{
    char target[64];
    uuid_v4(c->client_id);
    (void)snprintf(target, sizeof(target), "/ws?clientId=%s", c->client_id);
    struct ws_client_options options = {
        WS_CLIENT_DEFAULTS,          .host = c->host,
        .port = c->options.port,     .target = slice_of(target),
        .on_open = link_on_open,     .on_text = link_on_text,
        .on_binary = link_on_binary, .on_skipped = link_on_skipped,
        .on_end = link_on_end,       .ctx = c,
    };
    link_set(c, COMFY_CONNECTING);
    closer_hold(&c->closer);
    c->socket = ws_client_new(c->loop, c->later, &options);
}

/* /features came with client-chosen prompt ids; 404 is an older version. */
static void link_on_features(struct comfy_request *r, const struct err *err)
{
    struct comfy *c = r->ctx;
    closer_release(&c->closer);
    if (c->state != COMFY_ASKING)
        return;         /* went down meanwhile */
    if (c->ask_again) { /* and came back: this is the old one's answer */
        link_ask(c);
        return;
    }
    if (err != NULL) {
        link_pause(c, err);
        return;
    }
    c->asked = true;
    c->takes_ids = r->status == 200;
    log_info("comfyui", "%s prompt ids of ours", c->takes_ids ? "takes" : "ignores");
    link_connect(c);
}

static void link_ask(struct comfy *c)
{
    struct comfy_request *r = &c->ask;
    link_set(c, COMFY_ASKING);
    c->ask_again = r->busy;
    if (r->busy)
        return;
    r->done = link_on_features;
    r->ctx = c;
    r->head_ms = ASK_MS;
    closer_hold(&c->closer);
    comfy_request_get(c, r, "/features");
}

static void link_forget(struct comfy *c)
{
    http_up_forget(c->http);
    http_up_forget(c->views);
}

void comfy_up(struct comfy *c)
{
    ASSERT(c->state == COMFY_DOWN && !c->closing);
    c->asked = false;
    c->pause_ms = 0;
    link_forget(c);
    link_ask(c);
    comfy_view_release(c);
}

void comfy_down(struct comfy *c)
{
    if (c->state == COMFY_DOWN)
        return;
    (void)uv_timer_stop(&c->timer);
    link_drop_socket(c);
    comfy_request_cancel(&c->ask);
    link_forget(c);
    link_set(c, COMFY_DOWN);
}

void comfy_thaw(struct comfy *c)
{
    link_forget(c);
}

bool comfy_is_open(const struct comfy *c)
{
    return c->state == COMFY_OPEN;
}

unsigned comfy_link(const struct comfy *c)
{
    return c->link;
}

bool comfy_takes_ids(const struct comfy *c)
{
    return c->takes_ids;
}
