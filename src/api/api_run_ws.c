/* GET /api/run/ws: a run over a WebSocket.
 *
 *     WAITING ─ first text: prompt or envelope ─► RUNNING ─ task ended ─► SENDING ─► close 1000
 *        │          └─ refused ─► error, 1011       │  │ failed ─► error, 1011
 *        └ no prompt in time ─► 1008                │  └ {"type":"progress"} on changes, previews
 *                                                   └ {"type":"close"} ─► close 1000
 *
 * The result is one message in fragments: it is made while it leaves, and memory does not grow with
 * it. Small pieces are gathered first, so what breaks within the first of them is still told as an
 * error; what breaks later breaks the message, and the close frame says why.
 *
 * A preview is a binary message as ComfyUI's own of type 4: u32 4, u32 n (big-endian), n bytes of
 * JSON {"node_id", "image_type"}, the image. */
#include "answer.h"
#include "api.h"
#include "feed.h"
#include "result.h"
#include "run_order.h"
#include "ws_handshake.h"
#include "ws_server.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    WS_RUN_FIRST_MS = 120000, /* for the whole first message */
    WS_RUN_GATHER = 32 * 1024,
    WS_RUN_CONTROL_MAX = 1024,        /* no longer text is looked at as {"type":"close"} */
    WS_RUN_PREVIEW = 4,               /* type of the binary message */
    WS_RUN_PREVIEW_MAX = 1024 * 1024, /* larger ones are left out */
    CLOSE_NORMAL = 1000,
    CLOSE_UNSUPPORTED = 1003,
    CLOSE_POLICY = 1008,
    CLOSE_FAILED = 1011,
};

struct ws_run {
    struct api *api;
    struct ws_server *socket;
    struct run_order order;
    uv_timer_t timer; /* until the first message; then of the platform's time limit */
    bool previews;
    struct feed *feed; /* from the first message to the end of the task */
    struct result *result;
    struct buf gathered; /* of the result, not yet sent */
    bool parts_sent;
};

static void run_on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

/* The socket is not ours any more. */
static void run_free(struct ws_run *r)
{
    if (r->feed != NULL)
        feed_free(r->feed);
    if (r->result != NULL)
        result_cancel(r->result);
    buf_done(&r->gathered);
    uv_close((uv_handle_t *)&r->timer, run_on_timer_closed);
}

static void run_close(struct ws_run *r, unsigned code, const char *reason)
{
    ws_server_close(r->socket, code, reason);
    run_free(r);
}

/* The caller wants no more of it, or is gone. */
static void run_leave(struct ws_run *r)
{
    if (r->feed == NULL)
        return;
    struct task *t = task_ref(feed_task(r->feed));
    feed_free(r->feed);
    r->feed = NULL;
    run_order_leave(&r->order, t);
    task_unref(t);
}

/* --- messages -------------------------------------------------------------------------------- */

static void run_send(struct ws_run *r, const char *type, struct slice data)
{
    struct buf message;
    buf_init(&message, SIZE_MAX);
    buf_addf(&message, "{\"type\":\"%s\",\"data\":", type);
    buf_add(&message, data);
    buf_adds(&message, "}");
    (void)ws_server_send_text(r->socket, buf_slice(&message));
    buf_done(&message);
}

static void run_fail(struct ws_run *r, const char *message, struct slice error)
{
    struct buf envelope;
    buf_init(&envelope, SIZE_MAX);
    answer_envelope(&envelope, message, error);
    run_send(r, "error", buf_slice(&envelope));
    buf_done(&envelope);
    run_close(r, CLOSE_FAILED, "the run failed");
}

static void run_refuse(struct ws_run *r, const struct refusal *why)
{
    run_fail(r, why->message, buf_slice(&why->error));
}

/* --- the result ------------------------------------------------------------------------------ */

static bool run_send_gathered(struct ws_run *r, bool last)
{
    bool room = ws_server_send_text_part(r->socket, buf_slice(&r->gathered), !r->parts_sent, last);
    r->parts_sent = true;
    buf_reset(&r->gathered);
    return room;
}

static void run_on_result_begin(void *ctx)
{
    struct ws_run *r = ctx;
    buf_adds(&r->gathered, "{\"type\":\"result\",\"data\":");
}

static bool run_on_write(void *ctx, struct slice part)
{
    struct ws_run *r = ctx;
    buf_add(&r->gathered, part);
    return r->gathered.len < WS_RUN_GATHER || run_send_gathered(r, false);
}

static void run_on_result_end(void *ctx, const struct err *err)
{
    struct ws_run *r = ctx;
    r->result = NULL;
    if (err == NULL) {
        buf_adds(&r->gathered, "}");
        (void)run_send_gathered(r, true);
        run_close(r, CLOSE_NORMAL, "");
    } else if (r->parts_sent) {
        run_close(r, CLOSE_FAILED, "an output is not to be had any more: the result is broken");
    } else {
        struct refusal why;
        refusal_init(&why);
        refusal_set_result(&why, err);
        run_refuse(r, &why);
        refusal_done(&why);
    }
}

static void run_on_drain(struct ws_server *socket)
{
    struct ws_run *r = ws_server_ctx(socket);
    if (r->result != NULL)
        result_resume(r->result);
}

static void run_start_result(struct ws_run *r, struct task *t)
{
    struct result_sink sink = {run_on_result_begin, run_on_write, run_on_result_end, r};
    r->result =
        result_start(t, r->api->comfy, r->api->later, &sink, run_order_patience_ms(&r->order));
}

/* --- the feed -------------------------------------------------------------------------------- */

static bool run_is_ready(void *ctx)
{
    struct ws_run *r = ctx;
    return ws_server_is_clear(r->socket);
}

static void run_on_snapshot(void *ctx, struct blob *nodes)
{
    run_send(ctx, "progress", blob_slice(nodes));
}

static void add_u32(struct buf *out, size_t number)
{
    const char bytes[] = {(char)(number >> 24 & 0xff), (char)(number >> 16 & 0xff),
                          (char)(number >> 8 & 0xff), (char)(number & 0xff)};
    buf_add(out, (struct slice){bytes, sizeof(bytes)});
}

static void run_on_preview(void *ctx, const struct task_preview *p)
{
    struct ws_run *r = ctx;
    struct buf meta;
    struct buf message;
    if (p->image.len > WS_RUN_PREVIEW_MAX)
        return;
    buf_init(&meta, SIZE_MAX);
    buf_addf(&meta, "{\"node_id\":%.*s,\"image_type\":\"%s\"}",
             SLICE_ARGS(p->node_id.len > 0 ? p->node_id : SLICE("null")), p->media_type);
    buf_init(&message, SIZE_MAX);
    add_u32(&message, WS_RUN_PREVIEW);
    add_u32(&message, meta.len);
    buf_add(&message, buf_slice(&meta));
    buf_add(&message, p->image);
    (void)ws_server_send_binary(r->socket, buf_slice(&message));
    buf_done(&message);
    buf_done(&meta);
}

static void run_on_task_end(void *ctx)
{
    struct ws_run *r = ctx;
    struct task *t = task_ref(feed_task(r->feed));
    feed_free(r->feed);
    r->feed = NULL;
    if (task_refused(t) != NULL) {
        struct refusal why;
        refusal_init(&why);
        refusal_set_err(&why, task_refused(t));
        run_refuse(r, &why);
        refusal_done(&why);
    } else if (task_status(t) != TASK_SUCCEEDED) {
        struct buf error;
        buf_init(&error, SIZE_MAX);
        failure_render(task_failure(t), &error);
        run_fail(r, answer_message_of(task_failure(t)->code), buf_slice(&error));
        buf_done(&error);
    } else if (r->order.want_results) {
        run_start_result(r, t);
    } else {
        run_send(r, "result", blob_slice(task_nodes(t)));
        run_close(r, CLOSE_NORMAL, "");
    }
    task_unref(t);
}

/* --- what the caller says -------------------------------------------------------------------- */

static bool says_close(struct slice text)
{
    struct slice type;
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX};
    return text.len <= WS_RUN_CONTROL_MAX && json_check(text, &limits, NULL, NULL) == ERR_OK &&
           json_get(json_trim(text), "type", &type) && json_kind(type) == JSON_STRING &&
           json_string_is(type, "close");
}

/* The platform cuts the connection soon. */
static void run_on_limit(uv_timer_t *timer)
{
    struct ws_run *r = timer->data;
    struct refusal why;
    if (r->feed == NULL)
        return;
    refusal_init(&why);
    if (run_order_expire(&r->order, feed_task(r->feed), &why))
        run_refuse(r, &why);
    else
        ASSERT(uv_timer_start(timer, run_on_limit, r->order.margin_ms / 2, 0) == 0);
    refusal_done(&why);
}

static void run_follow(struct ws_run *r, struct task *t)
{
    struct feed_reader reader = {
        .is_ready = run_is_ready,
        .on_snapshot = run_on_snapshot,
        .on_end = run_on_task_end,
        .on_preview = r->previews ? run_on_preview : NULL,
        .ctx = r,
        .is_caller = true,
    };
    r->feed = feed_new(r->api, t, &reader);
    if (r->order.limit_at != 0)
        ASSERT(uv_timer_start(&r->timer, run_on_limit, run_order_left_ms(&r->order), 0) == 0);
}

static void run_begin(struct ws_run *r, struct slice text)
{
    struct refusal why;
    struct buf body;
    const struct err full = {ERR_BUSY, "prompts take too much memory at the moment"};
    bool joined;
    (void)uv_timer_stop(&r->timer);
    struct task *t = NULL;
    buf_init_within(&body, SIZE_MAX, r->api->bodies);
    refusal_init(&why);
    if (buf_append(&body, text) == ERR_OK)
        t = run_order_place(&r->order, &body, &joined, &why);
    else
        refusal_set_full(&why, &full);
    if (t != NULL) {
        run_follow(r, t);
        task_unref(t);
    } else {
        run_refuse(r, &why);
    }
    refusal_done(&why);
}

static void run_on_text(struct ws_server *socket, struct slice text)
{
    struct ws_run *r = ws_server_ctx(socket);
    if (says_close(text)) {
        run_leave(r);
        run_close(r, CLOSE_NORMAL, "as asked for");
    } else if (r->feed == NULL && r->result == NULL) {
        run_begin(r, text);
    } /* else: what older clients say to keep the connection busy */
}

static void run_on_binary(struct ws_server *socket, struct slice bytes)
{
    struct ws_run *r = ws_server_ctx(socket);
    (void)bytes;
    run_leave(r);
    run_close(r, CLOSE_UNSUPPORTED, "a prompt is text");
}

static void run_on_socket_end(struct ws_server *socket, unsigned code)
{
    struct ws_run *r = ws_server_ctx(socket);
    (void)code;
    run_leave(r);
    run_free(r);
}

static void run_on_no_prompt(uv_timer_t *timer)
{
    run_close(timer->data, CLOSE_POLICY, "no prompt came");
}

/* --- the request ----------------------------------------------------------------------------- */

static void refuse_upgrade(struct http_req *req, int status, const char *why)
{
    if (status == 426) {
        http_add_header(req, SLICE("upgrade"), SLICE("websocket"));
        http_add_header(req, SLICE("sec-websocket-version"), SLICE("13"));
    }
    answer_error(req, status, "WebsocketUpgradeError",
                 status == 426 ? "upgrade_required" : "bad_handshake", why, NULL);
}

static bool wants_previews(struct http_req *req)
{
    struct buf value;
    buf_init(&value, 16);
    bool wants = http_query_get(http_req_query(req), "previews", &value) == ERR_OK &&
                 slice_is(buf_slice(&value), "1");
    buf_done(&value);
    return wants;
}

static void run_accept(struct ws_run *r, struct http_req *req)
{
    struct http_headers headers;
    struct answer_about about = {.task_id = r->order.id};
    struct ws_server_options options = {
        WS_SERVER_DEFAULTS,       .on_text = run_on_text,      .on_binary = run_on_binary,
        .on_drain = run_on_drain, .on_end = run_on_socket_end, .ctx = r,
    };
    options.message_max = r->api->body_max;
    options.budget = r->api->bodies;
    r->previews = wants_previews(req);
    buf_init(&r->gathered, SIZE_MAX);
    ASSERT(uv_timer_init(r->api->loop, &r->timer) == 0);
    r->timer.data = r;
    ASSERT(uv_timer_start(&r->timer, run_on_no_prompt, WS_RUN_FIRST_MS, 0) == 0);
    answer_headers(&headers, &about);
    r->socket = ws_server_accept(req, r->api->loop, &headers, &options);
    http_headers_done(&headers);
}

void api_run_ws(struct api *api, struct http_req *req, struct slice param)
{
    struct refusal refusal;
    const char *why;
    int status = ws_handshake_judge(http_req_head(req), &why);
    (void)param;
    if (status != 0) {
        refuse_upgrade(req, status, why);
        return;
    }
    struct ws_run *r = xcalloc(1, sizeof(*r));
    refusal_init(&refusal);
    if (run_order_read(&r->order, api, req, &refusal)) {
        r->api = api;
        r->order.async = r->order.held = false; /* somebody reads this */
        r->order.wishes.has_wait = false;
        run_accept(r, req);
    } else {
        answer_error_object(req, refusal.status, refusal.message, buf_slice(&refusal.error), NULL);
        free(r);
    }
    refusal_done(&refusal);
}
