#include "api_output.h"

#include "invoked.h"

#include <stdio.h>
#include <stdlib.h>

struct output {
    struct api *api;
    struct http_req *req;
    struct task *task;
    struct task_output made;
    char status[16];
    bool not_stored, of_run;
    struct http_call call;
    struct http_headers headers;
    struct buf target;
    bool answered;          /* the head of the answer is out, or the whole of it */
    struct later_item over; /* the call's memory is not free yet inside its own end */
    bool gone; /* the client left, or the answer is complete: only the call is waited for */
};

static void output_on_over(struct later_item *item)
{
    struct output *o = CONTAINER_OF(item, struct output, over);
    task_unref(o->task);
    http_headers_done(&o->headers);
    buf_done(&o->target);
    free(o);
}

static void output_free(struct output *o)
{
    later_add(o->api->later, &o->over);
}

static void output_refuse(struct output *o, int status, const char *code, const char *detail)
{
    struct answer_about about = {.task_id = task_id(o->task)};
    const char *message = status == 410   ? "OutputGoneError"
                          : status == 416 ? "RequestParamsError"
                                          : "MarshalResultError";
    o->answered = o->gone = true;
    if (o->of_run)
        invoked_judge(o->api, o->req, status == 503);
    answer_error(o->req, status, message, code, detail, &about);
}

/* The size of the whole file, from Content-Length or "Content-Range: bytes 0-9/100"; -1: untold. */
static int64_t output_total(const struct http_call *call)
{
    struct slice range;
    uint64_t total;
    if (call->status != 206 && call->status != 416)
        return call->res_length;
    if (!http_headers_get(&call->res_headers, "content-range", &range))
        return -1;
    const char *slash = memchr(range.ptr, '/', range.len);
    if (slash == NULL)
        return -1;
    struct slice digits = {slash + 1, (size_t)(range.ptr + range.len - slash) - 1};
    return slice_to_u64(digits, INT64_MAX, &total) ? (int64_t)total : -1;
}

static bool output_is_the_one(const struct output *o, const struct http_call *call)
{
    struct slice etag;
    if (output_total(call) != (int64_t)o->made.size)
        return false;
    return o->made.etag[0] == '\0' || !http_headers_get(&call->res_headers, "etag", &etag) ||
           slice_is(etag, o->made.etag);
}

/* What is no header value is left out. */
static void headers_try(struct http_headers *h, struct slice name, struct slice value)
{
    enum err_code code = http_headers_add(h, name, value);
    (void)code;
}

static void pass_on(struct http_headers *to, const struct http_call *call, const char *name)
{
    struct slice value;
    if (http_headers_get(&call->res_headers, name, &value))
        headers_try(to, slice_of(name), value);
}

/* With how long the file is: RFC 9110, 15.5.17. */
static void output_refuse_range(struct output *o)
{
    char text[40];
    int len = snprintf(text, sizeof(text), "bytes */%llu", (unsigned long long)o->made.size);
    http_add_header(o->req, SLICE("content-range"), (struct slice){text, (size_t)len});
    output_refuse(o, 416, "no_such_range", "the file has no such range");
}

static void output_begin(struct output *o, struct http_call *call)
{
    struct http_headers extra;
    struct answer_about about = {
        .task_id = task_id(o->task), .task_status = o->status, .not_stored = o->not_stored};
    answer_headers(&extra, &about);
    pass_on(&extra, call, "content-range");
    pass_on(&extra, call, "etag");
    pass_on(&extra, call, "last-modified");
    headers_try(&extra, SLICE("accept-ranges"), SLICE("bytes"));
    /* A node may have written anything: a browser must not run it as a page of ours. */
    headers_try(&extra, SLICE("x-content-type-options"), SLICE("nosniff"));
    headers_try(&extra, SLICE("content-security-policy"), SLICE("sandbox"));
    o->answered = true;
    if (o->of_run)
        invoked_judge(o->api, o->req, false);
    http_begin(o->req, call->status,
               o->made.media_type[0] != '\0' ? o->made.media_type : "application/octet-stream",
               call->res_length, &extra);
    http_headers_done(&extra);
}

static void output_on_head(struct http_call *call)
{
    struct output *o = call->ctx;
    if (o->gone)
        return;
    if (call->status == 404) {
        output_refuse(o, 410, "output_gone", "the file is not there any more");
    } else if (call->status != 200 && call->status != 206 && call->status != 304 &&
               call->status != 416) {
        char detail[64];
        (void)snprintf(detail, sizeof(detail), "ComfyUI answered /view with %d", call->status);
        output_refuse(o, 502, "comfyui_error", detail);
    } else if (call->status != 304 && !output_is_the_one(o, call)) {
        output_refuse(o, 410, "output_changed",
                      "the file was overwritten: it is not the one that this task made");
    } else if (call->status == 416) {
        output_refuse_range(o);
    } else {
        output_begin(o, call);
    }
    if (o->gone)
        comfy_view_cancel(o->api->comfy, call);
}

static void output_on_part(struct http_call *call, struct slice part)
{
    struct output *o = call->ctx;
    if (!o->gone && !http_write(o->req, part))
        comfy_view_pause(o->api->comfy, call);
}

static void output_on_end(struct http_call *call, const struct err *err)
{
    struct output *o = call->ctx;
    if (!o->gone && !o->answered && err != NULL && err->code == ERR_PROTOCOL)
        output_refuse(o, 502, "comfyui_error", err->msg);
    else if (!o->gone && !o->answered)
        output_refuse(o, 503, "comfyui_unavailable",
                      err != NULL ? err->msg : "ComfyUI does not answer");
    else if (!o->gone && err != NULL)
        http_reset(o->req); /* the head is out: only broken framing can tell */
    else if (!o->gone)
        http_end(o->req);
    output_free(o);
}

static void output_on_drain(struct http_req *req)
{
    struct output *o = http_req_data(req);
    comfy_view_resume(o->api->comfy, &o->call);
}

static void output_on_abort(struct http_req *req)
{
    struct output *o = http_req_data(req);
    o->gone = true;
    comfy_view_cancel(o->api->comfy, &o->call);
}

/* `Prefer: wait` is about this, too. */
static uint64_t output_patience_ms(const struct run_order *order)
{
    if (order == NULL)
        return UINT64_MAX;
    uint64_t left = run_order_patience_ms(order);
    return order->wishes.has_wait && order->wishes.wait_ms < left ? order->wishes.wait_ms : left;
}

void output_send(struct api *api, struct http_req *req, struct task *t, unsigned index,
                 const struct answer_about *about, const struct run_order *order)
{
    static const char *const passed[] = {"range", "if-range", "if-none-match", "if-modified-since"};
    const struct task_output *outputs;
    unsigned count = task_outputs(t, &outputs);
    ASSERT(index < count);
    struct output *o = xcalloc(1, sizeof(*o));
    const struct progress *p = task_progress(t);
    o->api = api;
    o->req = req;
    o->task = task_ref(t);
    o->made = outputs[index];
    o->not_stored = about->not_stored;
    o->of_run = order != NULL;
    if (about->task_status != NULL)
        (void)snprintf(o->status, sizeof(o->status), "%s", about->task_status);
    buf_init(&o->target, SIZE_MAX);
    http_headers_init(&o->headers);
    later_item_init(&o->over, output_on_over);
    http_req_set_data(req, o);
    for (size_t i = 0; i < ARRAY_LEN(passed); i++) {
        struct slice value;
        if (http_headers_get(http_req_headers(req), passed[i], &value))
            headers_try(&o->headers, slice_of(passed[i]), value);
    }
    if (comfy_view_target(&p->nodes[o->made.node].files[o->made.file], &o->target) != ERR_OK) {
        output_refuse(o, 410, "output_gone", "its name is no name of a file");
        output_free(o);
        return;
    }
    http_on_abort(req, output_on_abort);
    http_on_drain(req, output_on_drain);
    o->call = (struct http_call){
        .method = slice_is(http_req_method(req), "HEAD") ? "HEAD" : "GET",
        .target = buf_slice(&o->target),
        .headers = &o->headers,
        .part_max = HTTP_PART_MAX,
        .on_head = output_on_head,
        .on_part = output_on_part,
        .on_end = output_on_end,
        .ctx = o,
    };
    comfy_view_start(api->comfy, &o->call, output_patience_ms(order));
}
