/* What a front door answers of ComfyUI's own routes, because it shares ComfyUI's directories: GET
 * /view and POST /upload/image. The rest needs a ComfyUI.
 *
 *     /view ─► the file, with ranges (http_file.h)
 *     /upload/image ─► body ─► parts ─► a thread writes ─► {"name", "subfolder", "type"}
 *
 * Names are checked as in dir_file.h; an upload with a name that is taken gets another, "a
 * (1).png", unless it is the same file or `overwrite` says so, as ComfyUI does it. */
#include "answer.h"
#include "api.h"
#include "dir_file.h"
#include "http_file.h"
#include "multipart.h"

#include <stdlib.h>

/* --- /view ----------------------------------------------------------------------------------- */

struct door_view {
    struct api *api;
    struct http_req *req; /* NULL: answered, or the client left */
    struct http_call call;
    struct later_item over; /* the call's memory is not free yet inside its own end */
    bool begun;
};

static void view_on_over(struct later_item *item)
{
    free(CONTAINER_OF(item, struct door_view, over));
}

static void view_refuse(struct door_view *v, int status, const char *code, const char *detail)
{
    answer_error(v->req, status, status == 404 ? "NotFoundError" : "MarshalResultError", code,
                 detail, NULL);
    v->req = NULL;
}

static void view_on_head(struct http_call *call)
{
    static const char *const passed[] = {"etag", "content-range", "accept-ranges"};
    struct door_view *v = call->ctx;
    struct slice type = SLICE_EMPTY;
    char text[128];
    if (v->req == NULL)
        return;
    if (call->status == 404) {
        view_refuse(v, 404, "not_found", "there is no such file");
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(passed); i++) {
        struct slice value;
        if (http_headers_get(&call->res_headers, passed[i], &value))
            http_add_header(v->req, slice_of(passed[i]), value);
    }
    (void)http_headers_get(&call->res_headers, "content-type", &type);
    slice_copy(type, text, sizeof(text));
    /* A node may have written anything: a browser must not run it as a page of ours. */
    http_add_header(v->req, SLICE("x-content-type-options"), SLICE("nosniff"));
    http_add_header(v->req, SLICE("content-security-policy"), SLICE("sandbox"));
    http_add_header(v->req, SLICE("cache-control"), SLICE("no-cache"));
    v->begun = true;
    http_begin(v->req, call->status, text, call->res_length, NULL);
}

static void view_on_part(struct http_call *call, struct slice part)
{
    struct door_view *v = call->ctx;
    if (v->req != NULL && !http_write(v->req, part))
        http_files_pause(call);
}

static void view_on_end(struct http_call *call, const struct err *err)
{
    struct door_view *v = call->ctx;
    if (v->req != NULL && err != NULL && v->begun)
        http_reset(v->req); /* the head is out: only broken framing can tell */
    else if (v->req != NULL && err != NULL)
        view_refuse(v, 503, "files_unavailable", err->msg);
    else if (v->req != NULL)
        http_end(v->req);
    later_add(v->api->later, &v->over);
}

static void view_on_drain(struct http_req *req)
{
    struct door_view *v = http_req_data(req);
    http_files_resume(&v->call);
}

static void view_on_abort(struct http_req *req)
{
    struct door_view *v = http_req_data(req);
    v->req = NULL;
    http_files_cancel(&v->call);
}

void api_door_view(struct api *api, struct http_req *req, struct slice param)
{
    struct door_view *v = xcalloc(1, sizeof(*v));
    (void)param;
    v->api = api;
    v->req = req;
    later_item_init(&v->over, view_on_over);
    http_req_set_data(req, v);
    http_on_abort(req, view_on_abort);
    http_on_drain(req, view_on_drain);
    v->call = (struct http_call){
        .method = slice_is(http_req_method(req), "HEAD") ? "HEAD" : "GET",
        .target = http_req_head(req)->target,
        .headers =
            (struct http_headers *)http_req_headers(req), /* read while it starts and opens */
        .on_head = view_on_head,
        .on_part = view_on_part,
        .on_end = view_on_end,
        .ctx = v,
    };
    http_files_start(api->files, &v->call);
}

/* --- /upload/image --------------------------------------------------------------------------- */

struct upload {
    struct api *api;
    struct http_req *req; /* NULL: the client left */
    struct buf body;      /* what `content` lies in */
    struct slice content;
    char *dir, name[DIR_NAME_MAX + 1], folder[DIR_PATH_MAX];
    enum dir_keep how;
    uv_work_t work;
    enum err_code code;
    char kept[DIR_NAME_MAX + 1];
    struct err err;
};

static void upload_free(struct upload *u)
{
    buf_done(&u->body);
    free(u->dir);
    free(u);
}

static void upload_refuse(struct upload *u, int status, const char *code, const char *detail)
{
    answer_error(u->req, status, "RequestParamsError", code, detail, NULL);
    upload_free(u);
}

static void upload_on_work(uv_work_t *work)
{
    struct upload *u = CONTAINER_OF(work, struct upload, work);
    const struct dir_path path = {u->dir, u->folder, u->name};
    u->code = dir_keep(&path, u->content, u->how, u->kept, &u->err);
}

static void upload_on_worked(uv_work_t *work, int status)
{
    struct upload *u = CONTAINER_OF(work, struct upload, work);
    struct buf body;
    (void)status; /* it is never cancelled */
    buf_init(&body, SIZE_MAX);
    if (u->req != NULL && u->code != ERR_OK) {
        answer_error(u->req, u->code == ERR_EXISTS ? 409 : 503, "RequestParamsError",
                     "upload_failed", u->err.msg, NULL);
    } else if (u->req != NULL) {
        buf_adds(&body, "{\"name\":");
        buf_add_json_string(&body, slice_of(u->kept));
        buf_adds(&body, ",\"subfolder\":");
        buf_add_json_string(&body, slice_of(u->folder));
        buf_adds(&body, ",\"type\":\"input\"}");
        answer_json(u->req, 200, buf_slice(&body), NULL);
    }
    buf_done(&body);
    upload_free(u);
}

/* False: it is no name, and no shorter one is put in its place. */
static bool copy(struct slice from, char *to, size_t room)
{
    if (from.len >= room || memchr(from.ptr, '\0', from.len) != NULL)
        return false;
    memcpy(to, from.ptr, from.len);
    to[from.len] = '\0';
    return true;
}

/* NULL: it is an upload. Else why not. */
static const char *upload_read(struct upload *u, struct slice type)
{
    struct multipart m;
    struct multipart_part part;
    enum err_code code;
    bool found = false;
    bool named = true;
    if (multipart_begin(&m, type, buf_slice(&u->body)) != ERR_OK)
        return "the body is no multipart/form-data";
    while ((code = multipart_next(&m, &part)) == ERR_OK) {
        if (slice_is(part.name, "image")) {
            found = true;
            u->content = part.content;
            named = named && copy(part.filename, u->name, sizeof(u->name));
        } else if (slice_is(part.name, "subfolder")) {
            named = named && copy(part.content, u->folder, sizeof(u->folder));
        } else if (slice_is(part.name, "overwrite")) {
            bool yes = slice_is(part.content, "true") || slice_is(part.content, "1");
            u->how = yes ? DIR_KEEP_REPLACE : DIR_KEEP_BOTH;
        } else if (slice_is(part.name, "type") && !slice_is(part.content, "input")) {
            return "a front door takes inputs only";
        }
    }
    if (code != ERR_NOT_FOUND)
        return "the body is broken";
    if (!found)
        return "there is no part named image";
    if (!named || !dir_path_ok(slice_of(u->folder), slice_of(u->name)))
        return "that is no name for a file in the input directory";
    return NULL;
}

static void upload_on_abort(struct http_req *req)
{
    struct upload *u = http_req_data(req);
    u->req = NULL;
    if (u->dir == NULL) /* no thread is at it */
        upload_free(u);
}

static void upload_on_body(struct http_req *req, const struct err *err, struct slice body)
{
    struct upload *u = http_req_data(req);
    struct slice type = SLICE_EMPTY;
    (void)body;
    if (err != NULL) {
        int status = err->code == ERR_TOO_LARGE ? 413 : err->code == ERR_BUSY ? 503 : 400;
        upload_refuse(u, status, "bad_body", err->msg);
        return;
    }
    http_take_body(req, &u->body);
    (void)http_headers_get(http_req_headers(req), "content-type", &type);
    const char *why = upload_read(u, type);
    if (why != NULL) {
        upload_refuse(u, 400, "bad_upload", why);
        return;
    }
    u->dir = xstrdup(u->api->input_dir);
    ASSERT(uv_queue_work(u->api->loop, &u->work, upload_on_work, upload_on_worked) == 0);
}

void api_door_upload(struct api *api, struct http_req *req, struct slice param)
{
    (void)param;
    if (api->input_dir[0] == '\0') {
        answer_error(req, 503, "RequestParamsError", "no_input_dir",
                     "INPUT_DIR does not say where uploads belong", NULL);
        return;
    }
    struct upload *u = xcalloc(1, sizeof(*u));
    u->api = api;
    u->req = req;
    u->how = DIR_KEEP_BOTH;
    buf_init(&u->body, SIZE_MAX);
    http_req_set_data(req, u);
    http_on_abort(req, upload_on_abort);
    http_read_body(req, api->body_max, upload_on_body);
}

/* --- the rest -------------------------------------------------------------------------------- */

void api_door_missing(struct api *api, struct http_req *req, struct slice param)
{
    (void)api;
    (void)param;
    answer_error(req, 404, "NotFoundError", "not_found",
                 "this is a front door without a ComfyUI: it runs prompts and shows tasks", NULL);
}
