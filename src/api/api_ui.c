/* GET /ui, /ui/{file}: the page, linked into this program. Files keep their names over versions, so
 * browsers ask again each time and are told "not modified" by the tag. What the page may do is said
 * here: only what comes from this very origin is run, shown or called, and nothing inline. */
#include "api_ui.h"

#include "answer.h"
#include "ui.h"

#include <stdio.h>

static const char policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'self'";

static void add(struct http_headers *h, const char *name, const char *value)
{
    ASSERT(http_headers_add(h, slice_of(name), slice_of(value)) == ERR_OK);
}

static void ui_add_rules(struct http_headers *h)
{
    add(h, "content-security-policy", policy);
    add(h, "x-content-type-options", "nosniff");
    add(h, "referrer-policy", "no-referrer");
}

void ui_ask_key(struct http_req *req, bool again)
{
    struct http_headers headers;
    const struct ui_file *file = ui_find(again ? SLICE("key-again.html") : SLICE("key.html"));
    ASSERT(file != NULL);
    http_headers_init(&headers);
    add(&headers, "cache-control", "no-store");
    ui_add_rules(&headers);
    http_respond(req, 401, http_media_type(slice_of(file->name)), file->plain, &headers);
    http_headers_done(&headers);
}

static void ui_send(struct http_req *req, const struct ui_file *file)
{
    struct http_headers headers;
    char etag[UI_ETAG_MAX + sizeof("-gzip")];
    bool packed = http_headers_has_token(http_req_headers(req), "accept-encoding", "gzip");
    struct slice body = packed ? file->packed : file->plain;
    (void)snprintf(etag, sizeof(etag), "%s%s", file->etag, packed ? "-gzip" : "");
    struct answer_about about = {.etag = etag};
    answer_headers(&headers, &about);
    add(&headers, "vary", "accept-encoding");
    if (answer_is_fresh(req, etag)) {
        http_respond(req, 304, NULL, SLICE_EMPTY, &headers);
    } else {
        if (packed)
            add(&headers, "content-encoding", "gzip");
        ui_add_rules(&headers);
        http_respond(req, 200, http_media_type(slice_of(file->name)), body, &headers);
    }
    http_headers_done(&headers);
}

void api_ui(struct api *api, struct http_req *req, struct slice param)
{
    const struct ui_file *file = ui_find(param.len > 0 ? param : SLICE("index.html"));
    (void)api;
    if (file != NULL)
        ui_send(req, file);
    else
        answer_error(req, 404, "NotFoundError", "not_found", "the page has no such file", NULL);
}

/* The page's addresses are relative, so that it also works below a path of somebody's proxy. */
void api_ui_slash(struct api *api, struct http_req *req, struct slice param)
{
    struct http_headers headers;
    (void)api;
    (void)param;
    http_headers_init(&headers);
    add(&headers, "location", "../ui");
    http_respond(req, 308, NULL, SLICE_EMPTY, &headers);
    http_headers_done(&headers);
}
