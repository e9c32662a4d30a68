#include "router.h"

#include "admit.h"
#include "answer.h"
#include "invoked.h"
#include "run_order.h"

#include <stdio.h>

/* One row a route. A segment in braces matches any one segment. GET answers HEAD too. */
struct route {
    const char *method, *path;
    api_handler handler;
};
static const struct route routes[] = {
    {"POST", "/api/run", api_run},
    {"POST", "/invoke", api_run}, /* the event of InvokeFunction */
    {"GET", "/api/run/ws", api_run_ws},
    {"GET", "/api/status", api_status},
    {"GET", "/api/tasks", api_task_list},
    {"GET", "/api/tasks/{id}", api_task},
    {"DELETE", "/api/tasks/{id}", api_task_cancel},
    {"GET", "/api/tasks/{id}/events", api_task_events},
    {"GET", "/api/tasks/{id}/prompt", api_task_prompt},
    {"GET", "/api/tasks/{id}/outputs/{n}", api_task_output},
    {"GET", "/api/workflows", api_workflow_list},
    {"GET", "/api/workflows/{name}", api_workflow},
    {"GET", "/ui", api_ui},
    {"GET", "/ui/", api_ui_slash},
    {"GET", "/ui/{file}", api_ui},
    {"GET", "/healthz", api_healthz},
    {"GET", "/readyz", api_readyz},
    {"GET", "/metrics", api_metrics},
    {"GET", "/api/openapi.json", api_openapi},
};
/* What a front door can do of what ComfyUI does. */
static const struct route door_routes[] = {
    {"GET", "/view", api_door_view},
    {"GET", "/api/view", api_door_view},
    {"POST", "/upload/image", api_door_upload},
    {"POST", "/api/upload/image", api_door_upload},
};
/* For the platform itself: users' requests to these paths are ComfyUI's. Elsewhere there are none.
 */
static const struct route hooks[] = {
    {"POST", "/initialize", api_initialize},
    {"GET", "/pre-stop", api_pre_stop},
    {"GET", "/pre-freeze", api_pre_freeze},
};

/* The parameter reaches from the first segment in braces to the last. */
static bool path_matches(const char *pattern, struct slice path, struct slice *ret_param)
{
    const char *at = path.ptr;
    const char *end = path.ptr + path.len;
    *ret_param = SLICE_EMPTY;
    while (*pattern != '\0') {
        if (*pattern != '{') {
            if (at == end || *at++ != *pattern++)
                return false;
            continue;
        }
        const char *from = at;
        while (at < end && *at != '/')
            at++;
        if (at == from)
            return false;
        if (ret_param->len == 0)
            ret_param->ptr = from;
        ret_param->len = (size_t)(at - ret_param->ptr);
        pattern += strcspn(pattern, "}") + 1;
    }
    return at == end;
}

static bool method_matches(const char *method, struct slice sent)
{
    return slice_is(sent, method) || (strcmp(method, "GET") == 0 && slice_is(sent, "HEAD"));
}

static void answer_wrong_method(struct http_req *req, const char *allow)
{
    char id[TASK_ID_MAX + 1];
    struct answer_about about = {.allow = allow, .task_id = id};
    run_order_id_of(req, id);
    answer_error(req, 405, "RequestParamsError", "method_not_allowed",
                 "this route does not know that method", &about);
}

void router_over(struct http_req *req, void *ctx)
{
    invoked_end(ctx, req);
}

struct routing {
    struct api *api;
    struct http_req *req;
    char allow[64]; /* methods of rows whose path matched */
};

static bool router_try(struct routing *r, const struct route *route)
{
    struct slice param;
    if (!path_matches(route->path, http_req_path(r->req), &param))
        return false;
    if (method_matches(route->method, http_req_method(r->req))) {
        route->handler(r->api, r->req, param);
        return true;
    }
    bool is_get = strcmp(route->method, "GET") == 0;
    size_t used = strlen(r->allow);
    (void)snprintf(r->allow + used, sizeof(r->allow) - used, "%s%s", used > 0 ? ", " : "",
                   is_get ? "GET, HEAD" : route->method);
    return false;
}

/* True: answered. All begin with a slash; what is behind it tells most of them apart. */
static bool router_try_all(struct routing *r, const struct route *table, size_t count)
{
    struct slice path = http_req_path(r->req);
    if (path.len < 2)
        return false;
    for (size_t i = 0; i < count; i++)
        if (path.ptr[1] == table[i].path[1] && router_try(r, &table[i]))
            return true;
    return false;
}

static bool is_hook(struct slice path)
{
    for (size_t i = 0; i < ARRAY_LEN(hooks); i++)
        if (slice_is(path, hooks[i].path))
            return true;
    return false;
}

void router_handle(struct http_req *req, void *ctx)
{
    struct routing r = {.api = ctx, .req = req};
    bool is_platform = invoked_by_platform(req, r.api->on_platform);
    invoked_begin(r.api, req);
    if (!admit_check(r.api->admit, req, is_platform))
        return;
    if ((is_platform && router_try_all(&r, hooks, ARRAY_LEN(hooks))) ||
        router_try_all(&r, routes, ARRAY_LEN(routes)) ||
        (r.api->door != NULL && router_try_all(&r, door_routes, ARRAY_LEN(door_routes))))
        return;
    if (r.allow[0] != '\0')
        answer_wrong_method(req, r.allow);
    else if (!r.api->on_platform && is_hook(http_req_path(req)))
        answer_error(req, 404, "NotFoundError", "not_found", "this is not Function Compute", NULL);
    else if (r.api->door != NULL)
        api_door_missing(ctx, req, SLICE_EMPTY);
    else
        api_proxy(ctx, req, SLICE_EMPTY);
}
