/* Where a request goes, and what is said when it goes nowhere. */
#include "admit.h"
#include "answer.h"
#include "http_relay.h"
#include "log.h"
#include "proxy_private.h"

#include <stdlib.h>

enum {
    PROXY_CONNECTIONS_MAX = 256,
    PROXY_REFRESH_S = 2,
    PROXY_RETRY_AFTER_S = 5,
};

static struct slice header(struct http_req *req, const char *name)
{
    struct slice value;
    return http_headers_get(http_req_headers(req), name, &value) ? value : SLICE_EMPTY;
}

struct slice proxy_target(struct api *api, struct http_req *req, struct buf *room)
{
    struct buf query;
    if (!slice_starts(http_req_path(req), SLICE("/")))
        return SLICE_EMPTY;
    buf_init(&query, SIZE_MAX);
    bool had_key = admit_take_query_key(api->admit, http_req_query(req), &query);
    if (had_key) {
        buf_add(room, http_req_path(req));
        buf_adds(room, query.len > 0 ? "?" : "");
        buf_add(room, buf_slice(&query));
    }
    buf_done(&query);
    return had_key ? buf_slice(room) : http_req_target(req);
}

enum err_code proxy_headers(struct api *api, struct http_req *req, struct http_headers *ret)
{
    enum err_code code = http_relay_request(http_req_head(req), http_req_peer(req), ret);
    return code == ERR_OK ? admit_take_key(api->admit, ret) : code;
}

/* --- when ComfyUI cannot answer -------------------------------------------------------------- */

static void add_html_text(struct buf *out, struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        switch (text.ptr[i]) {
        case '<': buf_adds(out, "&lt;"); break;
        case '>': buf_adds(out, "&gt;"); break;
        case '&': buf_adds(out, "&amp;"); break;
        default: buf_add(out, (struct slice){text.ptr + i, 1}); break;
        }
    }
}

static const char *not_ready_detail(const struct supervisor *s)
{
    switch (supervisor_state(s)) {
    case SUPERVISOR_STARTING: return "ComfyUI is starting";
    case SUPERVISOR_BACKOFF: return "ComfyUI has ended and is started again";
    case SUPERVISOR_GAVE_UP: return "ComfyUI ended too often and is not started any more";
    case SUPERVISOR_STOPPED:
    case SUPERVISOR_STOPPING: return "ComfyUI is stopping";
    case SUPERVISOR_READY: break;
    }
    return "ComfyUI does not answer";
}

static void add_not_ready_page(const struct supervisor *s, struct buf *out)
{
    const struct supervisor_exit *exit = supervisor_last_exit(s);
    buf_addf(out,
             "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
             "<meta http-equiv=\"refresh\" content=\"%d\">\n<title>%s</title>\n"
             "<style>body{font:16px system-ui,sans-serif;margin:20vh auto;max-width:40em;"
             "padding:0 1em;text-align:center;color-scheme:light dark}</style>\n"
             "<h1>%s</h1>\n<p>This page asks again by itself.</p>\n",
             PROXY_REFRESH_S, not_ready_detail(s), not_ready_detail(s));
    if (exit->happened) {
        buf_adds(out, "<p>Last end: ");
        add_html_text(out, slice_of(exit->reason));
        buf_adds(out, "</p>\n");
    }
}

static bool wants_page(struct http_req *req)
{
    struct slice accept = header(req, "accept");
    return (slice_is(http_req_method(req), "GET") || slice_is(http_req_method(req), "HEAD")) &&
           memmem(accept.ptr, accept.len, "text/html", strlen("text/html")) != NULL;
}

void proxy_answer_not_ready(struct api *api, struct http_req *req)
{
    struct answer_about about = {.retry_after_s = PROXY_RETRY_AFTER_S};
    struct http_headers headers;
    struct buf page;
    if (!wants_page(req)) {
        answer_error(req, 503, "ComfyUIError", "comfyui_not_ready",
                     not_ready_detail(api->supervisor), &about);
        return;
    }
    answer_headers(&headers, &about);
    ASSERT(http_headers_add(&headers, SLICE("cache-control"), SLICE("no-store")) == ERR_OK);
    buf_init(&page, SIZE_MAX);
    add_not_ready_page(api->supervisor, &page);
    http_respond(req, 503, "text/html; charset=utf-8", buf_slice(&page), &headers);
    buf_done(&page);
    http_headers_done(&headers);
}

void proxy_answer_failed(struct api *api, struct http_req *req, const struct err *err)
{
    switch (err->code) {
    case ERR_UNAVAILABLE: proxy_answer_not_ready(api, req); return;
    case ERR_BUSY: answer_error(req, 503, "ComfyUIError", "proxy_busy", err->msg, NULL); return;
    case ERR_INVALID:
        answer_error(req, 400, "RequestParamsError", "bad_target", err->msg, NULL);
        return;
    default: break;
    }
    const struct log_field fields[] = {
        {"method", http_req_method(req)}, {"path", http_req_path(req)}, {NULL, SLICE_EMPTY}};
    log_fields(LOG_WARN, "proxy", fields, "%s", err->msg);
    bool late = err->code == ERR_TIMEOUT;
    answer_error(req, late ? 504 : 502, "ComfyUIError", late ? "comfyui_timeout" : "comfyui_error",
                 err->msg, NULL);
}

/* --- tunnels --------------------------------------------------------------------------------- */

static void proxy_on_refused(struct http_req *req, void *ctx, int status,
                             struct http_headers *headers, struct slice body)
{
    (void)ctx;
    http_relay_response(headers);
    http_respond(req, status, NULL, body, headers);
}

static void proxy_on_failed(struct http_req *req, void *ctx, const struct err *err)
{
    proxy_answer_failed(ctx, req, err);
}

static bool wants_tunnel(struct http_req *req)
{
    return http_req_may_upgrade(req) && slice_is(http_req_method(req), "GET") &&
           http_list_has(header(req, "upgrade"), SLICE("websocket"));
}

static void proxy_tunnel(struct api *api, struct http_req *req)
{
    struct err err;
    struct http_headers headers;
    struct buf room;
    buf_init(&room, SIZE_MAX);
    struct tunnel_ask ask = {.target = proxy_target(api, req, &room),
                             .headers = &headers,
                             .on_refused = proxy_on_refused,
                             .on_failed = proxy_on_failed,
                             .ctx = api};
    http_headers_init(&headers);
    if (proxy_headers(api, req, &headers) != ERR_OK)
        answer_error(req, 431, "RequestParamsError", "too_many_headers", "too many headers", NULL);
    else if (tunnel_open(api->proxy->tunnels, req, &ask, &err) != ERR_OK)
        proxy_answer_failed(api, req, &err);
    http_headers_done(&headers);
    buf_done(&room);
}

/* --- links of other pages -------------------------------------------------------------------- */

/* ComfyUI's page (not in another site's frame, where clicks could be caught) and pictures may be
 * linked to from anywhere. Nothing else of it: custom nodes act on GET, and ComfyUI, which refuses
 * what comes from another site, is not told that it does. */
static bool may_be_linked(struct http_req *req)
{
    struct slice path = http_req_path(req);
    if (slice_is(path, "/"))
        return slice_is(header(req, "sec-fetch-dest"), "document") ||
               slice_is(header(req, "sec-fetch-site"), "same-site");
    return slice_is(path, "/view") || slice_is(path, "/api/view");
}

/* --- the interface --------------------------------------------------------------------------- */

void api_proxy(struct api *api, struct http_req *req, struct slice param)
{
    enum proxy_allow allow = api->proxy->allow;
    (void)param;
    if (allow == PROXY_NONE)
        answer_error(req, 404, "NotFoundError", "not_found", "there is no such route", NULL);
    else if (!proxy_allows(allow, http_req_method(req), http_req_path(req)))
        answer_error(req, 403, "ForbiddenError", "proxy_refused",
                     "PROXY_ALLOW does not let this through to ComfyUI", NULL);
    else if (admit_is_foreign_visit(api->admit, req) && !may_be_linked(req))
        answer_error(req, 403, "ForbiddenError", "origin_refused",
                     "a page that is not ours leads here: with ALLOW_ORIGINS=* it may", NULL);
    else if (supervisor_state(api->supervisor) != SUPERVISOR_READY)
        proxy_answer_not_ready(api, req);
    else if (wants_tunnel(req))
        proxy_tunnel(api, req);
    else
        proxy_relay(api, req);
}

struct proxy *proxy_new(uv_loop_t *loop, struct later *later, const struct proxy_options *options)
{
    struct proxy *p = xcalloc(1, sizeof(*p));
    struct http_up_options up = {HTTP_UP_DEFAULTS, .host = options->host, .port = options->port};
    struct tunnels_options tunnels = {TUNNELS_DEFAULTS, .host = options->host,
                                      .port = options->port};
    up.connections_max = PROXY_CONNECTIONS_MAX;
    up.idle_max = PROXY_CONNECTIONS_MAX;
    p->up = http_up_new(loop, later, &up);
    p->tunnels = tunnels_new(loop, &tunnels);
    p->allow = options->allow;
    return p;
}

void proxy_forget(struct proxy *p)
{
    http_up_forget(p->up);
}

static void proxy_on_up_closed(void *ctx)
{
    struct proxy *p = ctx;
    void (*closed)(void *ctx) = p->closed;
    void *closed_ctx = p->closed_ctx;
    free(p);
    closed(closed_ctx);
}

static void proxy_on_tunnels_freed(void *ctx)
{
    struct proxy *p = ctx;
    http_up_close(p->up, proxy_on_up_closed, p);
}

void proxy_free(struct proxy *p, void (*closed)(void *ctx), void *ctx)
{
    p->closed = closed;
    p->closed_ctx = ctx;
    tunnels_free(p->tunnels, proxy_on_tunnels_freed, p);
}
