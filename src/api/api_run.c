/* POST /api/run: a prompt in, its outputs out.
 *
 *     body ─► run_order_place ─► watch ┄on_end┄► 200 with results │ error envelope
 *                                  │
 *                                  └ async, or Prefer: wait=N is over ─► 202
 *
 * The caller may leave at any moment (run_on_abort). A task without an id of the caller's choice
 * has nobody else to live for and is cancelled then.
 *
 * On Function Compute an asynchronous call was answered 202 by the gateway before it came here. It
 * is held open until the end, because the instance is frozen when nothing is, and its answer goes
 * to nobody: what is told is told by the record, also of a body that is no prompt, and by
 * `x-fc-status`, which asks for another delivery. Every call there ends before the platform's time
 * limit does it. */
#include "answer.h"
#include "api.h"
#include "api_output.h"
#include "invoked.h"
#include "result.h"
#include "run_order.h"

#include <stdio.h>
#include <stdlib.h>

struct run {
    struct api *api;
    struct http_req *req;
    struct run_order order;
    uv_timer_t timer; /* of `Prefer: wait`, or of the platform's time limit */
    bool timing, wait_over;
    bool watching;
    struct task_watch watch;
    struct result *result;
    bool begun; /* the status line of the result has gone out */
};

static void run_on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void run_free(struct run *r)
{
    if (r->watching)
        task_watch_stop(&r->watch);
    r->watching = false;
    if (r->timing)
        uv_close((uv_handle_t *)&r->timer, run_on_timer_closed);
    else
        free(r);
}

static void run_refuse(struct run *r, const struct refusal *why)
{
    struct answer_about about = {.task_id = r->order.id};
    invoked_judge(r->api, r->req, why->status == 429 || why->status == 503);
    answer_error_object(r->req, why->status, why->message, buf_slice(&why->error), &about);
    run_free(r);
}

static void run_on_abort(struct http_req *req)
{
    struct run *r = http_req_data(req);
    if (r->result != NULL)
        result_cancel(r->result);
    if (r->watching) {
        struct task *t = task_ref(r->watch.task);
        task_watch_stop(&r->watch);
        r->watching = false;
        run_order_leave(&r->order, t);
        task_unref(t);
    }
    run_free(r);
}

/* --- the answer ------------------------------------------------------------------------------ */

static bool run_on_write(void *ctx, struct slice part)
{
    struct run *r = ctx;
    return http_write(r->req, part);
}

static void run_on_drain(struct http_req *req)
{
    struct run *r = http_req_data(req);
    if (r->result != NULL)
        result_resume(r->result);
}

static struct answer_about run_about(const struct task *t)
{
    return (struct answer_about){
        .task_id = task_id(t),
        .task_status = task_status_name(task_status(t)),
        .not_stored = task_id_is_given(t) && !task_is_stored(t),
    };
}

static void run_on_result_begin(void *ctx)
{
    struct run *r = ctx;
    struct http_headers headers;
    struct answer_about about = run_about(r->watch.task);
    answer_headers(&headers, &about);
    invoked_judge(r->api, r->req, false);
    r->begun = true;
    http_begin(r->req, 200, ANSWER_JSON, -1, &headers);
    http_headers_done(&headers);
}

static void run_on_result_end(void *ctx, const struct err *err)
{
    struct run *r = ctx;
    struct refusal why;
    r->result = NULL;
    if (err != NULL && !r->begun) {
        refusal_init(&why);
        refusal_set_result(&why, err);
        run_refuse(r, &why);
        refusal_done(&why);
        return;
    }
    if (err != NULL)
        http_reset(r->req); /* the status line has gone out: only broken framing can tell */
    else
        http_end(r->req);
    run_free(r);
}

static void run_stream_results(struct run *r, struct task *t)
{
    struct result_sink sink = {run_on_result_begin, run_on_write, run_on_result_end, r};
    http_on_drain(r->req, run_on_drain);
    r->result =
        result_start(t, r->api->comfy, r->api->later, &sink, run_order_patience_ms(&r->order));
}

/* It is in the store and goes on without this caller. */
static void run_answer_later(struct run *r)
{
    struct http_headers headers;
    const struct task *t = r->watch.task;
    bool may_tell = !task_has_ended(t) || task_is_known(t); /* an end when it is stored */
    struct answer_about about = {.task_id = r->order.id,
                                 .task_status = may_tell ? task_status_name(task_status(t)) : NULL};
    char location[TASK_ID_MAX + 16];
    (void)snprintf(location, sizeof(location), "/api/tasks/%s", r->order.id);
    answer_headers(&headers, &about);
    ASSERT(http_headers_add(&headers, SLICE("location"), slice_of(location)) == ERR_OK);
    if (r->order.async && !r->api->on_platform) /* which gives it itself */
        ASSERT(http_headers_add(&headers, SLICE("x-fc-request-id"),
                                slice_of(r->order.request_id[0] != '\0' ? r->order.request_id
                                                                        : r->order.id)) == ERR_OK);
    invoked_judge(r->api, r->req, false);
    http_respond(r->req, 202, ANSWER_JSON, SLICE_EMPTY, &headers);
    http_headers_done(&headers);
    run_free(r);
}

static void run_on_change(struct task_watch *w)
{
    struct run *r = CONTAINER_OF(w, struct run, watch);
    if ((r->order.async || r->wait_over) && r->result == NULL && task_is_accepted(w->task))
        run_answer_later(r);
}

/* Can the files of a task that has succeeded be had? */
static bool run_has_comfyui(const struct run *r)
{
    return r->api->door != NULL || supervisor_state(r->api->supervisor) == SUPERVISOR_READY;
}

static void run_on_wait_over(uv_timer_t *timer)
{
    struct run *r = timer->data;
    r->wait_over = true;
    if (r->result != NULL && !r->begun && !run_has_comfyui(r)) {
        result_cancel(r->result);
        run_answer_later(r);
        return;
    }
    if (r->watching)
        run_on_change(&r->watch);
}

static void run_answer_output(struct run *r, struct task *t, const struct answer_about *about)
{
    int index = run_wishes_output(&r->order.wishes, t);
    if (index < 0) {
        invoked_judge(r->api, r->req, false);
        answer_error(r->req, 406, "RequestParamsError", "no_such_media",
                     "the run made no output of the media types in `accept`", about);
    } else {
        output_send(r->api, r->req, t, (unsigned)index, about, &r->order);
    }
    run_free(r);
}

/* At a front door: RUN_URL would not have it. */
static bool run_never_began(const struct task *t)
{
    const struct failure *f = task_failure(t);
    return f != NULL && (f->code == FAILURE_GPU_REFUSED || f->code == FAILURE_GPU_UNREACHABLE);
}

static void run_on_task_end(struct task_watch *w)
{
    struct run *r = CONTAINER_OF(w, struct run, watch);
    struct task *t = w->task;
    struct answer_about about = run_about(t);
    if (task_refused(t) != NULL) {
        struct refusal why;
        refusal_init(&why);
        refusal_set_err(&why, task_refused(t));
        run_refuse(r, &why);
        refusal_done(&why);
        return;
    }
    bool late = r->wait_over && r->order.want_results && !run_has_comfyui(r);
    if ((r->order.async && !run_never_began(t)) || (late && task_status(t) == TASK_SUCCEEDED)) {
        run_answer_later(r);
        return;
    }
    bool read = !r->order.held; /* or whoever sent it is gone, whatever he would accept */
    if (task_status(t) == TASK_SUCCEEDED && r->order.wishes.media.len > 0 && read) {
        run_answer_output(r, t, &about);
        return;
    }
    if (task_status(t) == TASK_SUCCEEDED && r->order.want_results) {
        run_stream_results(r, t);
        return;
    }
    if (task_status(t) == TASK_SUCCEEDED) {
        invoked_judge(r->api, r->req, false);
        answer_json(r->req, 200, blob_slice(task_nodes(t)), &about);
    } else {
        enum failure_code code = task_failure(t)->code;
        bool again = failure_is_passing(code) || answer_status_of(code) == 503;
        invoked_judge(r->api, r->req, again && !(r->order.called > 0 && failure_is_doors(code)));
        answer_failure(r->req, task_failure(t), &about);
    }
    run_free(r);
}

/* --- the request ----------------------------------------------------------------------------- */

static void run_start_timer(struct run *r, uv_timer_cb cb, uint64_t ms)
{
    ASSERT(uv_timer_init(r->api->loop, &r->timer) == 0);
    r->timer.data = r;
    r->timing = true;
    ASSERT(uv_timer_start(&r->timer, cb, ms, 0) == 0);
}

static void run_on_limit(uv_timer_t *timer)
{
    struct run *r = timer->data;
    struct refusal why;
    if (!r->watching || r->watch.ended)
        return;
    refusal_init(&why);
    if (run_order_expire(&r->order, r->watch.task, &why))
        run_refuse(r, &why);
    else
        ASSERT(uv_timer_start(timer, run_on_limit, r->order.margin_ms / 2, 0) == 0);
    refusal_done(&why);
}

static void run_watch(struct run *r, struct task *t, bool joined)
{
    r->watch.on_end = run_on_task_end;
    r->watch.on_change = run_on_change;
    r->watch.is_caller = true;
    r->watching = true;
    task_watch_start(&r->watch, t);
    if (r->order.async && joined && task_is_accepted(t))
        run_answer_later(r);
    else if (r->order.wishes.has_wait)
        run_start_timer(r, run_on_wait_over, r->order.wishes.wait_ms);
    else if (r->order.limit_at != 0)
        run_start_timer(r, run_on_limit, run_order_left_ms(&r->order));
}

/* What came is no order. */
static void run_refuse_order(struct run *r, struct refusal *why)
{
    struct task *t = run_order_refuse(&r->order, SLICE_EMPTY, why);
    if (t == NULL) {
        run_refuse(r, why);
        return;
    }
    run_watch(r, t, false);
    task_unref(t);
}

static void run_refuse_body(struct run *r, const struct err *err)
{
    struct refusal why;
    refusal_init(&why);
    if (err->code == ERR_BUSY) { /* passes: nothing to record, worth another delivery */
        refusal_set_full(&why, err);
        run_refuse(r, &why);
        refusal_done(&why);
        return;
    }
    switch (err->code) {
    case ERR_TOO_LARGE: refusal_set(&why, 413, "body_too_large", err->msg); break;
    case ERR_TIMEOUT: refusal_set(&why, 408, "body_timeout", err->msg); break;
    default: refusal_set(&why, 400, "bad_body", err->msg); break;
    }
    run_refuse_order(r, &why);
    refusal_done(&why);
}

static void run_on_body(struct http_req *req, const struct err *err, struct slice body)
{
    struct run *r = http_req_data(req);
    struct refusal why;
    struct buf taken;
    bool joined;
    (void)body;
    if (err != NULL) {
        run_refuse_body(r, err);
        return;
    }
    http_take_body(req, &taken);
    refusal_init(&why);
    struct task *t = run_order_place(&r->order, &taken, &joined, &why);
    if (t != NULL) {
        run_watch(r, t, joined);
        task_unref(t);
    } else {
        run_refuse(r, &why);
    }
    refusal_done(&why);
}

static bool run_takes_type(const struct http_headers *h, struct refusal *ret_why)
{
    struct slice value;
    if (http_headers_get(h, "content-type", &value) && value.len >= strlen("multipart/") &&
        slice_eq_nocase((struct slice){value.ptr, strlen("multipart/")}, SLICE("multipart/"))) {
        refusal_set(ret_why, 415, "unsupported_media_type",
                    "multipart bodies are not taken: send JSON");
        return false;
    }
    if (http_headers_get(h, "content-encoding", &value) && value.len > 0 &&
        !slice_eq_nocase(value, SLICE("identity"))) {
        refusal_set(ret_why, 415, "unsupported_encoding", "content encodings are not taken");
        return false;
    }
    return true;
}

void api_run(struct api *api, struct http_req *req, struct slice param)
{
    struct run *r = xcalloc(1, sizeof(*r));
    struct refusal why;
    (void)param;
    r->api = api;
    r->req = req;
    http_req_set_data(req, r);
    http_on_abort(req, run_on_abort);
    refusal_init(&why);
    if (run_order_read(&r->order, api, req, &why) && run_takes_type(http_req_headers(req), &why))
        http_read_body(req, api->body_max, run_on_body);
    else
        run_refuse_order(r, &why);
    refusal_done(&why);
}
