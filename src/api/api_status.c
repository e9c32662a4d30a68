/* GET /api/status?id= and GET /api/tasks/{id}: the node map and the record of a task, from memory
 * while it is here and this process is sure of it, else from the store.
 *
 * With ?wait=N the answer waits for a change, at most N seconds: a change of what the client has
 * (If-None-Match), else of what it would have been told at once.
 *
 *     look up ─► answer
 *        └ wait, under way, nothing new ─► follow ─ changed, or the time is over ─► answer
 *                                             └ refused, or not sure ─► look up once more ─► answer
 *
 * With ?results=1 the node map of a succeeded task is streamed with its files, as a run that is
 * asked for again would be.
 */
#include "answer.h"
#include "api.h"
#include "lookup.h"
#include "result.h"
#include "run_order.h"

#include <stdio.h>
#include <stdlib.h>

enum { VIEW_ETAG_MAX = 48, VIEW_WAIT_MAX_S = 60 };

struct view {
    struct api *api;
    struct http_req *req;
    struct lookup *lookup; /* NULL: it has answered */
    bool whole;            /* the record, not its node map alone */
    bool results;          /* of a succeeded task: what its files have in them, too */
    char id[TASK_ID_MAX + 1];

    uint64_t wait_ms; /* 0: do not */
    uv_timer_t timer;
    bool timing;
    struct task_watch watch;  /* while it waits */
    char seen[VIEW_ETAG_MAX]; /* what would be no news */

    struct result *result; /* while it is streamed */
    bool begun;            /* its status line has gone out */
    struct later_item over;
};

static void view_on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void view_free(struct view *v)
{
    task_watch_stop(&v->watch);
    if (v->timing)
        uv_close((uv_handle_t *)&v->timer, view_on_timer_closed);
    else
        free(v);
}

static void view_on_abort(struct http_req *req)
{
    struct view *v = http_req_data(req);
    if (v->lookup != NULL)
        lookup_cancel(v->lookup);
    if (v->result != NULL)
        result_cancel(v->result);
    view_free(v);
}

/* Whatever is said, it may be otherwise soon: "not found" means "not yet". */
static struct answer_about view_about(const struct view *v)
{
    return (struct answer_about){.task_id = v->id, .is_of_moment = true};
}

static void view_answer(struct view *v, struct slice body, const char *status, const char *etag)
{
    struct answer_about about = view_about(v);
    about.task_status = status;
    about.etag = etag;
    if (etag != NULL && answer_is_fresh(v->req, etag))
        answer_json(v->req, 304, SLICE_EMPTY, &about);
    else
        answer_json(v->req, 200, body, &about);
}

static void etag_of(uint64_t rev, int position, char ret[VIEW_ETAG_MAX])
{
    (void)snprintf(ret, VIEW_ETAG_MAX, "%llx-%d", (unsigned long long)rev, position);
}

static void view_task(struct view *v, struct task *t)
{
    char etag[VIEW_ETAG_MAX];
    struct blob *doc = v->whole ? task_record(t) : task_nodes(t);
    int position = task_hub_position(v->api->hub, t);
    etag_of(task_rev(t), position, etag);
    struct buf body;
    buf_init(&body, SIZE_MAX);
    buf_add(&body, blob_slice(doc));
    if (v->whole && position >= 0) {
        body.len--; /* its closing brace */
        buf_addf(&body, ",\"queue_position\":%d}", position);
    }
    view_answer(v, buf_slice(&body), task_status_name(task_status(t)), etag);
    buf_done(&body);
}

static void view_record(struct view *v, const struct lookup_found *r)
{
    char etag[VIEW_ETAG_MAX];
    etag_of(r->rev, -1, etag);
    view_answer(v, v->whole ? r->record : r->nodes, r->status, r->rev > 0 ? etag : NULL);
}

/* --- results --------------------------------------------------------------------------------- */

static void view_on_result_over(struct later_item *item)
{
    struct view *v = CONTAINER_OF(item, struct view, over);
    if (v->result != NULL)
        result_cancel(v->result);
    view_free(v);
}

/* No tag: one that is still the same would not say that the files are still there. */
static void view_on_result_begin(void *ctx)
{
    struct view *v = ctx;
    struct http_headers headers;
    struct answer_about about = view_about(v);
    about.task_status = task_status_name(TASK_SUCCEEDED);
    answer_headers(&headers, &about);
    v->begun = true;
    http_begin(v->req, 200, ANSWER_JSON, -1, &headers);
    http_headers_done(&headers);
    if (!slice_is(http_req_method(v->req), "HEAD"))
        return;
    http_end(v->req); /* the files are not read for nothing; but not inside their own news */
    v->req = NULL;
    later_add(v->api->later, &v->over);
}

static bool view_on_write(void *ctx, struct slice part)
{
    struct view *v = ctx;
    return v->req != NULL && http_write(v->req, part);
}

static void view_on_drain(struct http_req *req)
{
    struct view *v = http_req_data(req);
    if (v->result != NULL)
        result_resume(v->result);
}

static void view_on_result_end(void *ctx, const struct err *err)
{
    struct view *v = ctx;
    struct answer_about about = view_about(v);
    struct refusal why;
    v->result = NULL;
    if (v->req == NULL)
        return; /* HEAD: view_on_result_over() comes */
    if (err != NULL && !v->begun) {
        refusal_init(&why);
        refusal_set_result(&why, err);
        answer_error_object(v->req, why.status, why.message, buf_slice(&why.error), &about);
        refusal_done(&why);
    } else if (err != NULL) {
        http_reset(v->req); /* the status line has gone out: only broken framing can tell */
    } else {
        http_end(v->req);
    }
    view_free(v);
}

/* False: there are none, or none are wanted. */
static bool view_streams(struct view *v, struct task *t)
{
    struct result_sink sink = {view_on_result_begin, view_on_write, view_on_result_end, v};
    if (!v->results || task_status(t) != TASK_SUCCEEDED)
        return false;
    http_on_drain(v->req, view_on_drain);
    later_item_init(&v->over, view_on_result_over);
    v->result = result_start(t, v->api->comfy, v->api->later, &sink, UINT64_MAX);
    task_watch_stop(&v->watch);
    return true;
}

/* False: as above. */
static bool view_streams_record(struct view *v, const struct lookup_found *r)
{
    struct task *t;
    if (!v->results || strcmp(r->status, task_status_name(TASK_SUCCEEDED)) != 0)
        return false;
    t = task_of_record(v->api->hub, v->id, r->record);
    if (t == NULL)
        return false;
    bool streams = view_streams(v, t);
    task_unref(t);
    return streams;
}

/* --- waiting --------------------------------------------------------------------------------- */

static void view_on_found(void *ctx, const struct lookup_found *found, const struct err *err);

static void view_look_again(struct view *v)
{
    task_watch_stop(&v->watch);
    v->wait_ms = 0;
    v->lookup = lookup_start(v->api, slice_of(v->id), !v->whole, LOOKUP_ALONE, view_on_found, v);
}

/* Of a task that others run: what they wrote when it was looked at last. */
static void view_task_now(struct view *v, struct task *t)
{
    if (!task_is_authority(t) && !(task_is_mirror(t) && task_is_known(t))) {
        view_look_again(v);
        return;
    }
    if (view_streams(v, t))
        return;
    view_task(v, t);
    view_free(v);
}

static void view_on_change(struct task_watch *w)
{
    struct view *v = w->ctx;
    char etag[VIEW_ETAG_MAX];
    etag_of(task_rev(w->task), task_hub_position(v->api->hub, w->task), etag);
    if (strcmp(etag, v->seen) != 0)
        view_task_now(v, w->task);
}

static void view_on_end(struct task_watch *w)
{
    view_task_now(w->ctx, w->task);
}

static void view_on_time_over(uv_timer_t *timer)
{
    struct view *v = timer->data;
    struct task *t = v->watch.task;
    if (t == NULL)
        return; /* it looks again already */
    view_task_now(v, t);
}

/* Is there something to wait for, and nothing to tell yet? */
static bool view_waits(struct view *v, enum task_status status, const char *etag)
{
    struct task *t;
    if (v->wait_ms == 0 || task_status_is_end(status))
        return false;
    if (http_headers_has(http_req_headers(v->req), "if-none-match") &&
        !answer_is_fresh(v->req, etag))
        return false;
    if (task_hub_follow(v->api->hub, v->id, &t, NULL) != ERR_OK)
        return false;
    (void)snprintf(v->seen, sizeof(v->seen), "%s", etag);
    v->watch = (struct task_watch){.on_change = view_on_change, .on_end = view_on_end, .ctx = v};
    task_watch_start(&v->watch, t);
    task_unref(t);
    ASSERT(uv_timer_init(v->api->loop, &v->timer) == 0);
    v->timer.data = v;
    v->timing = true;
    ASSERT(uv_timer_start(&v->timer, view_on_time_over, v->wait_ms, 0) == 0);
    return true;
}

static bool view_waits_for_task(struct view *v, struct task *t)
{
    char etag[VIEW_ETAG_MAX];
    etag_of(task_rev(t), task_hub_position(v->api->hub, t), etag);
    return view_waits(v, task_status(t), etag);
}

static bool view_waits_for_record(struct view *v, const struct lookup_found *r)
{
    char etag[VIEW_ETAG_MAX];
    enum task_status status;
    etag_of(r->rev, -1, etag);
    return r->rev > 0 && task_status_read(slice_of(r->status), &status) &&
           view_waits(v, status, etag);
}

/* --- the answer ------------------------------------------------------------------------------ */

static void view_fail(struct view *v, const struct err *err)
{
    struct answer_about about = view_about(v);
    if (err != NULL)
        answer_error(v->req, err->code == ERR_TIMEOUT ? 504 : 503, "LoadProgressError",
                     "store_failed", err->msg, &about);
    else
        answer_error(v->req, 404, "LoadProgressError", "not_found", "no task of this id is known",
                     &about);
}

static void view_on_found(void *ctx, const struct lookup_found *found, const struct err *err)
{
    struct view *v = ctx;
    v->lookup = NULL;
    if (found->task != NULL) {
        if (view_waits_for_task(v, found->task) || view_streams(v, found->task))
            return;
        view_task(v, found->task);
    } else if (found->record.len > 0) {
        if (found->offered)
            task_hub_remind(v->api->hub, v->id);
        if (view_waits_for_record(v, found) || view_streams_record(v, found))
            return;
        view_record(v, found);
    } else if (found->nodes.len > 0) {
        view_answer(v, found->nodes, NULL, NULL);
    } else {
        view_fail(v, err);
    }
    view_free(v);
}

/* ?wait=N. False: that is no number of seconds; the greatest is VIEW_WAIT_MAX_S. */
static bool read_wait(struct http_req *req, uint64_t *ret_ms)
{
    struct buf value;
    uint64_t seconds = 0;
    buf_init(&value, 16);
    enum err_code code = http_query_get(http_req_query(req), "wait", &value);
    bool ok = code == ERR_NOT_FOUND ||
              (code == ERR_OK && slice_to_u64(buf_slice(&value), UINT32_MAX, &seconds));
    buf_done(&value);
    *ret_ms = (seconds < VIEW_WAIT_MAX_S ? seconds : VIEW_WAIT_MAX_S) * 1000;
    return ok;
}

/* ?results=1, or whatever else asks a run for them; here it must be asked. */
static bool read_results(struct http_req *req)
{
    struct buf value;
    buf_init(&value, 64);
    enum err_code code = http_query_get(http_req_query(req), "results", &value);
    bool wanted = code != ERR_NOT_FOUND && !slice_is(buf_slice(&value), "0") &&
                  !slice_is(buf_slice(&value), "none");
    buf_done(&value);
    return wanted;
}

static void view_start(struct api *api, struct http_req *req, struct slice id, bool whole)
{
    struct answer_about about = {.is_of_moment = true};
    if (!store_id_ok(id)) {
        answer_error(req, 400, "RequestParamsError", "bad_id", "that is not the id of a task",
                     &about);
        return;
    }
    uint64_t wait_ms;
    if (!read_wait(req, &wait_ms)) {
        answer_error(req, 400, "RequestParamsError", "bad_wait",
                     "wait is a whole number of seconds", &about);
        return;
    }
    struct view *v = xcalloc(1, sizeof(*v));
    v->wait_ms = wait_ms;
    v->api = api;
    v->req = req;
    v->whole = whole;
    v->results = !whole && read_results(req);
    slice_copy(id, v->id, sizeof(v->id));
    http_req_set_data(req, v);
    http_on_abort(req, view_on_abort);
    v->lookup = lookup_start(api, id, !whole, LOOKUP_SHARED, view_on_found, v);
}

void api_status(struct api *api, struct http_req *req, struct slice param)
{
    struct buf id;
    (void)param;
    buf_init(&id, 4096);
    if (http_query_get(http_req_query(req), "id", &id) != ERR_OK)
        buf_reset(&id);
    view_start(api, req, buf_slice(&id), false);
    buf_done(&id);
}

void api_task(struct api *api, struct http_req *req, struct slice param)
{
    view_start(api, req, param, true);
}
