/* GET /api/tasks/{id}/events: a task as Server-Sent Events, whichever instance runs it.
 *
 *     follow ─► first look ┬► 200, progress … progress, result │ error, the end
 *                          └► 404, 503
 *
 * Every event's id is the record's `rev`. Nothing is kept for a client that comes back: it gets the
 * newest snapshot, or the end. One that has seen the end already (its Last-Event-ID says so) is
 * told 204, which is how an EventSource is kept from coming back for ever. */
#include "answer.h"
#include "api.h"
#include "feed.h"

#include <stdio.h>
#include <stdlib.h>

enum { EVENTS_HEARTBEAT_MS = 15000, EVENTS_RETRY_MS = 1000 };

struct events {
    struct http_req *req;
    struct feed *feed;
    char id[TASK_ID_MAX + 1];
    uint64_t last_rev; /* what the client has seen; 0: nothing */
    bool begun;
};

static void events_free(struct events *e)
{
    feed_free(e->feed);
    free(e);
}

static void events_on_abort(struct http_req *req)
{
    events_free(http_req_data(req));
}

static void events_begin(struct events *e)
{
    struct http_headers headers;
    struct answer_about about = {.task_id = e->id};
    char retry[32];
    if (e->begun)
        return;
    e->begun = true;
    answer_headers(&headers, &about);
    ASSERT(http_headers_add(&headers, SLICE("cache-control"), SLICE("no-store")) == ERR_OK &&
           http_headers_add(&headers, SLICE("x-accel-buffering"), SLICE("no")) == ERR_OK);
    http_begin(e->req, 200, "text/event-stream", -1, &headers);
    http_headers_done(&headers);
    int n = snprintf(retry, sizeof(retry), "retry: %d\n\n", EVENTS_RETRY_MS);
    (void)http_write(e->req, (struct slice){retry, (size_t)n});
}

/* Line ends inside a document would end the event; in JSON they are white space and nothing else.
 */
static void add_on_one_line(struct buf *out, struct slice json)
{
    size_t at = out->len;
    buf_add(out, json);
    for (; at < out->len; at++)
        if (out->ptr[at] == '\n' || out->ptr[at] == '\r')
            out->ptr[at] = ' ';
}

static void events_send(struct events *e, const char *name, struct slice json)
{
    struct buf out;
    events_begin(e);
    buf_init(&out, SIZE_MAX);
    buf_addf(&out, "event: %s\nid: %llu\ndata: ", name,
             (unsigned long long)task_rev(feed_task(e->feed)));
    add_on_one_line(&out, json);
    buf_adds(&out, "\n\n");
    (void)http_write(e->req, buf_slice(&out)); /* there is room: the reader was ready */
    buf_done(&out);
}

/* --- the feed -------------------------------------------------------------------------------- */

static bool events_is_ready(void *ctx)
{
    struct events *e = ctx;
    return http_is_clear(e->req);
}

static void events_on_snapshot(void *ctx, struct blob *nodes)
{
    struct events *e = ctx;
    if (slice_is(http_req_method(e->req), "HEAD")) {
        events_begin(e);
        http_end(e->req);
        events_free(e);
        return;
    }
    const struct task *t = feed_task(e->feed);
    /* The end has an id of its own, or who has seen only its progress would be told 204. And the
     * store may be a little behind its owner. */
    if (!task_status_is_end(task_status(t)) && task_rev(t) >= e->last_rev)
        events_send(e, "progress", blob_slice(nodes));
    else
        events_begin(e);
}

static void events_on_silence(void *ctx)
{
    struct events *e = ctx;
    if (e->begun)
        (void)http_write(e->req, SLICE(": still here\n\n"));
}

static void events_refuse(struct events *e, const struct err *why)
{
    struct answer_about about = {.task_id = e->id};
    if (why->code == ERR_NOT_FOUND)
        answer_error(e->req, 404, "NotFoundError", "not_found", why->msg, &about);
    else
        answer_error(e->req, 503, "LoadProgressError",
                     why->code == ERR_CORRUPT ? "store_failed" : "unavailable", why->msg, &about);
}

static void events_send_end(struct events *e, struct task *t)
{
    struct buf envelope;
    buf_init(&envelope, SIZE_MAX);
    if (task_status(t) == TASK_SUCCEEDED) {
        events_send(e, "result", blob_slice(task_record(t)));
    } else {
        answer_failure_envelope(&envelope, task_failure(t));
        events_send(e, "error", buf_slice(&envelope));
    }
    buf_done(&envelope);
    http_end(e->req);
}

static void events_on_end(void *ctx)
{
    struct events *e = ctx;
    struct task *t = feed_task(e->feed);
    if (task_refused(t) == NULL && !e->begun && e->last_rev == task_rev(t))
        http_respond(e->req, 204, NULL, SLICE_EMPTY, NULL);
    else if (task_refused(t) == NULL)
        events_send_end(e, t);
    else if (e->begun)
        http_end(e->req); /* the client comes back, perhaps to another instance */
    else
        events_refuse(e, task_refused(t));
    events_free(e);
}

/* --- the request ----------------------------------------------------------------------------- */

static void events_start(struct events *e, struct api *api, struct task *t)
{
    struct slice last;
    struct feed_reader reader = {
        .is_ready = events_is_ready,
        .on_snapshot = events_on_snapshot,
        .on_end = events_on_end,
        .on_silence = events_on_silence,
        .silence_ms = EVENTS_HEARTBEAT_MS,
        .ctx = e,
    };
    if (http_headers_get(http_req_headers(e->req), "last-event-id", &last) &&
        !slice_to_u64(slice_trim(last), UINT64_MAX, &e->last_rev))
        e->last_rev = 0;
    http_req_set_data(e->req, e);
    http_on_abort(e->req, events_on_abort);
    e->feed = feed_new(api, t, &reader);
}

void api_task_events(struct api *api, struct http_req *req, struct slice param)
{
    struct task *t;
    struct err err;
    if (!store_id_ok(param)) {
        answer_error(req, 400, "RequestParamsError", "bad_id", "that is not the id of a task",
                     NULL);
        return;
    }
    struct events *e = xcalloc(1, sizeof(*e));
    e->req = req;
    slice_copy(param, e->id, sizeof(e->id));
    if (task_hub_follow(api->hub, e->id, &t, &err) != ERR_OK) {
        events_refuse(e, &err);
        free(e);
        return;
    }
    events_start(e, api, t);
    task_unref(t);
}
