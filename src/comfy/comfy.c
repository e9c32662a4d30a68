/* Requests to ComfyUI. What an answer means is the business of whoever asked. */
#include "comfy_private.h"

#include <stdio.h>
#include <stdlib.h>

enum { CONTENT_REST = 1024 }; /* of a request's content, beside what callers sent */

/* --- life ------------------------------------------------------------------------------------ */

struct comfy *comfy_new(uv_loop_t *loop, struct later *later, const struct comfy_options *options)
{
    struct comfy *c = xcalloc(1, sizeof(*c));
    c->options = *options;
    c->host = xstrdup(options->host);
    c->loop = loop;
    c->later = later;
    list_init(&c->waits);
    closer_init(&c->closer, loop);
    ASSERT(uv_timer_init(loop, &c->timer) == 0);
    c->timer.data = c;
    closer_hold(&c->closer);
    struct http_up_options up = {HTTP_UP_DEFAULTS, .host = c->host, .port = options->port};
    c->http = http_up_new(loop, later, &up);
    closer_hold(&c->closer);
    up.connections_max = up.idle_max = COMFY_VIEWS_MAX;
    c->views = http_up_new(loop, later, &up);
    closer_hold(&c->closer);
    comfy_request_init(&c->ask);
    return c;
}

void *comfy_ctx(const struct comfy *c)
{
    return c->options.ctx;
}

static void comfy_on_timer_closed(uv_handle_t *handle)
{
    struct comfy *c = handle->data;
    closer_release(&c->closer);
}

static void comfy_on_http_closed(void *ctx)
{
    struct comfy *c = ctx;
    closer_release(&c->closer);
}

static void comfy_on_closed(struct closer *closer)
{
    struct comfy *c = CONTAINER_OF(closer, struct comfy, closer);
    void (*closed)(void *ctx) = c->closed;
    void *ctx = c->closed_ctx;
    comfy_request_done(&c->ask);
    free(c->host);
    free(c);
    if (closed != NULL)
        closed(ctx);
}

void comfy_free(struct comfy *c, void (*closed)(void *ctx), void *ctx)
{
    comfy_down(c);
    ASSERT(list_is_empty(&c->waits));
    c->closing = true;
    c->closed = closed;
    c->closed_ctx = ctx;
    uv_close((uv_handle_t *)&c->timer, comfy_on_timer_closed);
    http_up_close(c->http, comfy_on_http_closed, c);
    http_up_close(c->views, comfy_on_http_closed, c);
    closer_begin(&c->closer, comfy_on_closed);
}

/* --- one request ----------------------------------------------------------------------------- */

/* The answer is handed on by `later`, not from inside the call's end: so `done` may use the request
 * again. */
static void request_on_answered(struct later_item *item)
{
    struct comfy_request *r = CONTAINER_OF(item, struct comfy_request, answered);
    r->busy = false;
    r->done(r, r->err.code != ERR_OK ? &r->err : NULL);
}

void comfy_request_init(struct comfy_request *r)
{
    *r = (struct comfy_request){.busy = false};
    buf_init(&r->body, SIZE_MAX);
    buf_init(&r->target, SIZE_MAX);
    buf_init(&r->content, SIZE_MAX);
    http_headers_init(&r->headers);
    later_item_init(&r->answered, request_on_answered);
}

void comfy_request_done(struct comfy_request *r)
{
    ASSERT(!r->busy);
    buf_done(&r->body);
    buf_done(&r->target);
    buf_done(&r->content);
    http_headers_done(&r->headers);
}

void comfy_request_cancel(struct comfy_request *r)
{
    if (r->busy && !r->answered.queued)
        http_up_cancel(&r->call);
}

struct buf comfy_request_take_body(struct comfy_request *r)
{
    struct buf body = r->body;
    buf_init(&r->body, SIZE_MAX);
    return body;
}

/* 206 whose "bytes 0-16383/1048576" tells of what has come says what 200 would, and is called so.
 */
static void request_settle_part(struct comfy_request *r, const struct http_call *call)
{
    struct slice range, part;
    struct slice unit = SLICE("bytes 0-");
    uint64_t last, size;
    if (!http_headers_get(&call->res_headers, "content-range", &range) ||
        !slice_starts(range, unit))
        return;
    range = (struct slice){range.ptr + unit.len, range.len - unit.len};
    part = slice_next(&range, '/');
    if (!slice_to_u64(part, COMFY_LOOK_BYTES - 1, &last) ||
        !slice_to_u64(range, INT64_MAX, &size) || last + 1 != r->body.len || last >= size)
        return;
    if (last + 1 < size)
        buf_done(&r->body);
    r->status = 200;
    r->length = (int64_t)size;
}

static void request_on_end(struct http_call *call, const struct err *err)
{
    struct comfy_request *r = call->ctx;
    struct slice value;
    r->err = err != NULL ? *err : (struct err){.code = ERR_OK};
    r->status = call->status;
    r->body = call->body;
    buf_init(&call->body, 0);
    r->length = call->res_length;
    r->media_type[0] = r->etag[0] = '\0';
    if (call->status != 0 && http_headers_get(&call->res_headers, "content-type", &value))
        slice_copy(value, r->media_type, sizeof(r->media_type));
    if (call->status != 0 && http_headers_get(&call->res_headers, "etag", &value) &&
        value.len < sizeof(r->etag))
        slice_copy(value, r->etag, sizeof(r->etag));
    buf_done(&r->content);
    if (r->looks && err == NULL && r->status == 206)
        request_settle_part(r, call);
    r->looks = false;
    later_add(r->later, &r->answered);
}

static void request_start(struct comfy *c, struct comfy_request *r, const char *method)
{
    ASSERT(!r->busy);
    r->busy = true;
    r->status = 0;
    r->later = c->later;
    buf_done(&r->body);
    r->call = (struct http_call){
        .method = method,
        .target = buf_slice(&r->target),
        .content = buf_slice(&r->content),
        .headers = r->with_headers ? &r->headers : NULL,
        .head_ms = r->head_ms,
        .body_max = r->looks ? COMFY_LOOK_BYTES : COMFY_REPLY_MAX,
        .on_end = request_on_end,
        .ctx = r,
    };
    r->with_headers = false;
    http_up_start(c->http, &r->call);
}

void comfy_request_get(struct comfy *c, struct comfy_request *r, const char *target)
{
    buf_reset(&r->target);
    buf_adds(&r->target, target);
    buf_reset(&r->content);
    request_start(c, r, "GET");
}

static void request_post(struct comfy *c, struct comfy_request *r, const char *target)
{
    buf_reset(&r->target);
    buf_adds(&r->target, target);
    request_start(c, r, "POST");
}

/* --- the requests ---------------------------------------------------------------------------- */

static void add_member(struct buf *out, const char *name, struct slice value)
{
    if (value.len > 0)
        buf_addf(out, ",\"%s\":%.*s", name, SLICE_ARGS(value));
}

/* Room for so much of callers'. False: there is no memory, and the request ends as if it had been
 * lost on its way. */
static bool request_reserve(struct comfy *c, struct comfy_request *r, size_t len)
{
    ASSERT(!r->busy);
    buf_reset(&r->content);
    if (buf_reserve(&r->content, len + CONTENT_REST) == ERR_OK)
        return true;
    r->busy = true;
    r->status = 0;
    r->later = c->later;
    buf_done(&r->body);
    (void)err_set(&r->err, ERR_UNAVAILABLE, "there is no memory for it at the moment");
    later_add(r->later, &r->answered);
    return false;
}

void comfy_post_prompt(struct comfy *c, struct comfy_request *r, const struct comfy_submission *s)
{
    if (!request_reserve(c, r, s->prompt.len + s->extra_data.len + s->targets.len))
        return;
    buf_adds(&r->content, "{\"prompt\":");
    buf_add(&r->content, s->prompt);
    buf_addf(&r->content, ",\"client_id\":\"%s\"", c->client_id);
    buf_addf(&r->content, ",\"prompt_id\":\"%s\"", s->prompt_id);
    add_member(&r->content, "extra_data", s->extra_data);
    add_member(&r->content, "partial_execution_targets", s->targets);
    buf_adds(&r->content, "}");
    request_post(c, r, "/prompt");
}

void comfy_get_history(struct comfy *c, struct comfy_request *r, const char *prompt_id)
{
    char target[128];
    (void)snprintf(target, sizeof(target), "/history/%s", prompt_id);
    comfy_request_get(c, r, target);
}

void comfy_get_queue(struct comfy *c, struct comfy_request *r)
{
    comfy_request_get(c, r, "/queue");
}

void comfy_delete_pending(struct comfy *c, struct comfy_request *r, const char *const prompt_ids[],
                          unsigned count)
{
    buf_reset(&r->content);
    buf_adds(&r->content, "{\"delete\":[");
    for (unsigned i = 0; i < count; i++)
        buf_addf(&r->content, "%s\"%s\"", i > 0 ? "," : "", prompt_ids[i]);
    buf_adds(&r->content, "]}");
    request_post(c, r, "/queue");
}

void comfy_free_memory(struct comfy *c, struct comfy_request *r)
{
    buf_reset(&r->content);
    buf_adds(&r->content, "{\"unload_models\":true,\"free_memory\":true}");
    request_post(c, r, "/free");
}

void comfy_interrupt(struct comfy *c, struct comfy_request *r, const char *prompt_id)
{
    buf_reset(&r->content);
    buf_addf(&r->content, "{\"prompt_id\":\"%s\"}", prompt_id);
    request_post(c, r, "/interrupt");
}

static void request_set_header(struct comfy_request *r, const char *name, const char *value)
{
    http_headers_reset(&r->headers);
    ASSERT(http_headers_add(&r->headers, slice_of(name), slice_of(value)) == ERR_OK);
    r->with_headers = true;
}

void comfy_upload(struct comfy *c, struct comfy_request *r, const char *name, struct slice content)
{
    char boundary[UUID_TEXT + 1]; /* random: the content cannot know it */
    char type[80];
    if (!request_reserve(c, r, content.len))
        return;
    uuid_v4(boundary);
    buf_addf(&r->content,
             "--%s\r\nContent-Disposition: form-data; name=\"image\"; filename=\"%s\"\r\n"
             "Content-Type: application/octet-stream\r\n\r\n",
             boundary, name);
    buf_add(&r->content, content);
    buf_addf(&r->content, "\r\n--%s--\r\n", boundary);
    (void)snprintf(type, sizeof(type), "multipart/form-data; boundary=%s", boundary);
    request_set_header(r, "content-type", type);
    request_post(c, r, "/upload/image");
}

static enum err_code add_query(struct buf *out, const char *name, const char *token)
{
    struct buf text;
    buf_init(&text, HTTP_TARGET_MAX / 4);
    enum err_code code = json_unescape(slice_of(token), &text);
    if (code == ERR_OK) {
        buf_adds(out, name);
        buf_adds(out, "=");
        http_percent_encode(out, buf_slice(&text));
    }
    buf_done(&text);
    return code;
}

enum err_code comfy_view_target(const struct progress_file *file, struct buf *out)
{
    buf_reset(out);
    buf_adds(out, "/view?");
    if (add_query(out, "filename", file->filename) != ERR_OK ||
        add_query(out, "&subfolder", file->subfolder) != ERR_OK ||
        add_query(out, "&type", file->type) != ERR_OK || out->len >= HTTP_TARGET_MAX)
        return ERR_INVALID;
    return ERR_OK;
}

static const char *const unusable_target = "/view"; /* answered 404: there is no such file */

static void request_set_view(struct comfy_request *r, const struct progress_file *file)
{
    if (comfy_view_target(file, &r->target) != ERR_OK) {
        buf_reset(&r->target);
        buf_adds(&r->target, unusable_target);
    }
    buf_reset(&r->content);
}

void comfy_head_view(struct comfy *c, struct comfy_request *r, const struct progress_file *file)
{
    request_set_view(r, file);
    request_start(c, r, "HEAD");
}

void comfy_look_view(struct comfy *c, struct comfy_request *r, const struct progress_file *file)
{
    char range[32];
    (void)snprintf(range, sizeof(range), "bytes=0-%d", COMFY_LOOK_BYTES - 1);
    request_set_view(r, file);
    request_set_header(r, "range", range);
    r->looks = true;
    request_start(c, r, "GET");
}
