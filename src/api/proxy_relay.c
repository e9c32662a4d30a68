/* One request on its way to ComfyUI, and the answer on its way back.
 *
 * A small body of known length is read first, so that it leaves with the head in one write; any
 * other is passed on part by part, and is read (and "100 Continue" said) only when ComfyUI takes
 * it. The answer's parts go to the client as they come; when he is behind, ComfyUI's socket is not
 * read. At no time more is held than two parts of the request (one that leaves, and stays until the
 * next is asked for or the call ends, and one that was read meanwhile), one of the answer, and what
 * http_write() allows.
 *
 * ComfyUI may be busy with itself for minutes and answer nothing meanwhile. A client that does not
 * want to wait leaves, which ends the call. */
#include "answer.h"
#include "http_relay.h"
#include "log.h"
#include "proxy_private.h"

#include <stdlib.h>

enum {
    RELAY_SMALL_MAX = 16 * 1024,
    RELAY_CONNECT_MS = 10 * 1000,
    RELAY_HEAD_MS = 15 * 60 * 1000,
    RELAY_IDLE_MS = 5 * 60 * 1000,
};

struct relay {
    struct api *api;
    struct http_req *req; /* NULL: answered, or gone */
    struct http_call call;
    bool calling;
    struct buf target; /* if it is not the request's own */
    struct http_headers headers;
    struct later_item over; /* the call's memory is not free yet inside its own end */
    bool begun;             /* the head of the answer is out */

    struct buf content; /* the whole of a small body; else the part that came last */
    bool asked, body_ended;
    bool leaving; /* that part was handed on */
    struct err body_err;
};

/* --- life ------------------------------------------------------------------------------------ */

static void relay_on_over(struct later_item *item)
{
    struct relay *r = CONTAINER_OF(item, struct relay, over);
    http_headers_done(&r->headers);
    buf_done(&r->target);
    buf_done(&r->content);
    free(r);
}

static void relay_free(struct relay *r)
{
    r->req = NULL;
    later_add(r->api->later, &r->over);
}

static void relay_on_abort(struct http_req *req)
{
    struct relay *r = http_req_data(req);
    r->req = NULL;
    if (r->calling)
        http_up_cancel(&r->call);
    else
        relay_free(r);
}

/* --- the body -------------------------------------------------------------------------------- */

static void relay_on_part(struct http_req *req, struct slice part)
{
    struct relay *r = http_req_data(req);
    ASSERT(r->content.len == 0); /* what is there lies where it is written from */
    buf_add(&r->content, part);
    http_pause_body(req);
    http_up_more(&r->call);
}

static void relay_on_body_end(struct http_req *req, const struct err *err)
{
    struct relay *r = http_req_data(req);
    r->body_ended = true;
    if (err != NULL)
        r->body_err = *err;
    http_up_more(&r->call);
}

static int relay_read(struct http_call *call, struct slice *ret_part)
{
    static const struct http_body_events events = {relay_on_part, relay_on_body_end};
    struct relay *r = call->ctx;
    if (!r->asked) {
        r->asked = true;
        http_stream_body(r->req, &events);
        return -1;
    }
    if (r->leaving) {
        r->leaving = false;
        buf_reset(&r->content);
        http_resume_body(r->req);
    }
    if (r->content.len == 0 && r->body_err.code != ERR_OK)
        return -2;
    if (r->content.len == 0)
        return r->body_ended ? 0 : -1;
    r->leaving = true;
    *ret_part = buf_slice(&r->content);
    return 1;
}

/* The client's fault, unless there is no room for it. */
static void relay_answer_bad_body(struct http_req *req, const struct err *err)
{
    bool late = err->code == ERR_TIMEOUT;
    if (err->code == ERR_BUSY) {
        answer_error(req, 503, "ComfyUIError", "bodies_full", err->msg, NULL);
        return;
    }
    answer_error(req, late ? 408 : 400, "RequestParamsError", late ? "request_timeout" : "bad_body",
                 err->msg, NULL);
}

/* --- the answer ------------------------------------------------------------------------------ */

static void relay_on_head(struct http_call *call)
{
    struct relay *r = call->ctx;
    r->begun = true;
    http_relay_response(&call->res_headers);
    http_begin(r->req, call->status, NULL, call->res_length, &call->res_headers);
}

static void relay_on_answer_part(struct http_call *call, struct slice part)
{
    struct relay *r = call->ctx;
    if (!http_write(r->req, part))
        http_up_pause(call);
}

static void relay_on_drain(struct http_req *req)
{
    struct relay *r = http_req_data(req);
    http_up_resume(&r->call);
}

static void relay_break(struct relay *r, const struct err *err)
{
    const struct log_field fields[] = {
        {"method", http_req_method(r->req)}, {"path", http_req_path(r->req)}, {NULL, SLICE_EMPTY}};
    log_fields(LOG_WARN, "proxy", fields, "answer broken off: %s", err->msg);
    http_reset(r->req);
}

static void relay_on_end(struct http_call *call, const struct err *err)
{
    struct relay *r = call->ctx;
    if (r->req != NULL && err == NULL)
        http_end(r->req);
    else if (r->req != NULL && r->begun)
        relay_break(r, err);
    else if (r->req != NULL && r->body_err.code != ERR_OK)
        relay_answer_bad_body(r->req, &r->body_err);
    else if (r->req != NULL)
        proxy_answer_failed(r->api, r->req, err);
    relay_free(r);
}

/* --- beginning ------------------------------------------------------------------------------- */

static const char *method_of(struct slice method)
{
    static const char *const known[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (slice_is(method, known[i]))
            return known[i];
    return NULL;
}

static void relay_start(struct relay *r)
{
    r->calling = true;
    http_up_start(r->api->proxy->up, &r->call);
}

static void relay_on_small_body(struct http_req *req, const struct err *err, struct slice body)
{
    struct relay *r = http_req_data(req);
    if (err != NULL) {
        relay_answer_bad_body(req, err);
        relay_free(r);
        return;
    }
    r->call.content = body;
    http_take_body(req, &r->content);
    relay_start(r);
}

static void relay_begin(struct relay *r)
{
    const struct http_head *head = http_req_head(r->req);
    if (head->length == 0 && !head->chunked) {
        relay_start(r);
    } else if (head->has_length && head->length <= RELAY_SMALL_MAX && !head->expect_100) {
        http_read_body(r->req, RELAY_SMALL_MAX, relay_on_small_body);
    } else {
        r->call.read_content = relay_read;
        r->call.content_length = head->has_length ? (int64_t)head->length : -1;
        relay_start(r);
    }
}

void proxy_relay(struct api *api, struct http_req *req)
{
    const char *method = method_of(http_req_method(req));
    struct buf room;
    buf_init(&room, SIZE_MAX);
    struct slice target = proxy_target(api, req, &room);
    if (method == NULL || target.len == 0) {
        buf_done(&room);
        answer_error(req, 501, "RequestParamsError", "unknown_method",
                     "requests of this kind are not passed on", NULL);
        return;
    }
    struct relay *r = xcalloc(1, sizeof(*r));
    r->api = api;
    r->req = req;
    r->target = room;
    r->call = (struct http_call){.method = method,
                                 .target = target,
                                 .headers = &r->headers,
                                 .connect_ms = RELAY_CONNECT_MS,
                                 .head_ms = RELAY_HEAD_MS,
                                 .idle_ms = RELAY_IDLE_MS,
                                 .part_max = HTTP_PART_MAX,
                                 .on_head = relay_on_head,
                                 .on_part = relay_on_answer_part,
                                 .on_end = relay_on_end,
                                 .ctx = r};
    later_item_init(&r->over, relay_on_over);
    buf_init(&r->content, SIZE_MAX);
    http_headers_init(&r->headers);
    http_req_set_data(req, r);
    http_on_abort(req, relay_on_abort);
    http_on_drain(req, relay_on_drain);
    if (proxy_headers(api, req, &r->headers) == ERR_OK) {
        relay_begin(r);
    } else {
        answer_error(req, 431, "RequestParamsError", "too_many_headers", "too many headers", NULL);
        relay_free(r);
    }
}
