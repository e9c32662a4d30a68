#include "invoked.h"

#include "log.h"
#include "store.h"

static bool invoked_header(void *ctx, const char *name, struct slice *ret)
{
    return http_headers_get(http_req_headers(ctx), name, ret);
}

void invoked_read(struct http_req *req, struct invocation *ret)
{
    struct invocation_source source = {invoked_header, req};
    invocation_read(ret, &source);
}

bool invoked_by_platform(struct http_req *req, bool on_platform)
{
    struct invocation inv;
    if (!on_platform)
        return false;
    invoked_read(req, &inv);
    return !invocation_is_users(&inv);
}

static void invoked_mark(const struct api *api, struct http_req *req, bool is_end)
{
    struct invocation inv;
    char line[INVOCATION_MARKER_MAX];
    if (!api->on_platform)
        return;
    invoked_read(req, &inv);
    invocation_marker(&inv, http_req_path(req), is_end, line);
    if (line[0] != '\0')
        log_marker(line);
}

/* Those of the function's role; each request has the newest. Elsewhere anybody could send them. */
static void invoked_take_keys(const struct api *api, struct http_req *req)
{
    struct invocation inv;
    if (!api->on_platform)
        return;
    invoked_read(req, &inv);
    struct store_credentials keys = {inv.key_id, inv.key_secret, inv.security_token};
    store_credentials(api->store, &keys);
}

void invoked_begin(const struct api *api, struct http_req *req)
{
    invoked_mark(api, req, false);
    invoked_take_keys(api, req);
}

void invoked_judge(const struct api *api, struct http_req *req, bool again)
{
    if (api->on_platform)
        http_add_header(req, SLICE("x-fc-status"), again ? SLICE("404") : SLICE("200"));
}

/* The answer leaves after this: what is said later may be frozen in. */
void invoked_end(const struct api *api, struct http_req *req)
{
    invoked_mark(api, req, true);
}
