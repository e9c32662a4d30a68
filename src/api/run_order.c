#include "run_order.h"

#include "invoked.h"

enum { ORDER_CALL_MAX = 1024 };

/* --- refusals -------------------------------------------------------------------------------- */

void refusal_init(struct refusal *r)
{
    r->status = 0;
    r->message = "RequestParamsError";
    buf_init(&r->error, SIZE_MAX);
}

void refusal_done(struct refusal *r)
{
    buf_done(&r->error);
}

static void refusal_begin(struct refusal *r, int status, const char *code, const char *detail)
{
    r->status = status;
    buf_reset(&r->error);
    buf_addf(&r->error, "{\"code\":\"%s\",\"detail\":", code);
    buf_add_json_string(&r->error, slice_of(detail));
}

void refusal_set(struct refusal *r, int status, const char *code, const char *detail)
{
    refusal_begin(r, status, code, detail);
    buf_adds(&r->error, "}");
}

void refusal_set_err(struct refusal *r, const struct err *err)
{
    switch (err->code) {
    case ERR_EXISTS: refusal_set(r, 409, "other_prompt", err->msg); break;
    case ERR_BUSY: refusal_set(r, 429, "queue_full", err->msg); break;
    case ERR_TOO_LARGE: refusal_set(r, 413, "prompt_too_large", err->msg); break;
    default: refusal_set(r, 503, "unavailable", err->msg); break;
    }
}

void refusal_set_full(struct refusal *r, const struct err *err)
{
    refusal_set(r, 503, "bodies_full", err->msg);
}

void refusal_set_result(struct refusal *r, const struct err *err)
{
    if (err->code == ERR_NOT_FOUND || err->code == ERR_CORRUPT) {
        refusal_set(r, 410, err->code == ERR_NOT_FOUND ? "output_gone" : "output_changed",
                    err->msg);
        r->message = "OutputGoneError";
    } else {
        bool broke = err->code == ERR_PROTOCOL;
        refusal_set(r, broke ? 502 : 503, broke ? "comfyui_error" : "comfyui_unavailable",
                    err->msg);
        r->message = "MarshalResultError";
    }
}

static void refusal_set_fault(struct refusal *r, const struct prompt_fault *fault)
{
    refusal_begin(r, 400, fault->code, fault->err.msg);
    if (fault->has_position)
        buf_addf(&r->error, ",\"position\":{\"offset\":%zu,\"line\":%u,\"column\":%u}",
                 fault->position.offset, fault->position.line, fault->position.column);
    if (fault->node_id.len > 0)
        buf_addf(&r->error, ",\"node_id\":%.*s", SLICE_ARGS(fault->node_id));
    if (fault->hint != NULL) {
        buf_adds(&r->error, ",\"hint\":");
        buf_add_json_string(&r->error, slice_of(fault->hint));
    }
    buf_adds(&r->error, "}");
}

/* --- the head of the request ----------------------------------------------------------------- */

static bool order_take_id(struct run_order *o, struct slice id)
{
    if (!store_id_ok(id))
        return false;
    slice_copy(id, o->id, sizeof(o->id));
    o->given = true;
    return true;
}

/* A proxy may have said it twice; which of two different ones is meant nobody knows. */
static bool is_one_id(const struct http_headers *h)
{
    struct slice name = SLICE("task-id");
    struct slice first;
    if (!http_headers_get(h, "task-id", &first))
        return true;
    first = slice_trim(first);
    for (unsigned i = http_headers_find(h, name, 0); i < h->count;
         i = http_headers_find(h, name, i + 1))
        if (!slice_eq(slice_trim(http_headers_value(h, i)), first))
            return false;
    return true;
}

static bool is_to_run(struct slice path)
{
    return slice_is(path, "/api/run") || slice_is(path, "/api/run/ws") || slice_is(path, "/invoke");
}

void run_order_id_of(struct http_req *req, char ret[TASK_ID_MAX + 1])
{
    struct invocation inv;
    struct buf room;
    ret[0] = '\0';
    if (!is_to_run(http_req_path(req)) || !is_one_id(http_req_headers(req)))
        return;
    buf_init(&room, 4096);
    invoked_read(req, &inv);
    struct slice id = inv.task_id;
    if (id.len == 0 && http_query_get(http_req_query(req), "task-id", &room) == ERR_OK)
        id = buf_slice(&room);
    if (store_id_ok(id))
        slice_copy(id, ret, TASK_ID_MAX + 1);
    buf_done(&room);
}

static bool order_read_ids(struct run_order *o, struct http_req *req, struct buf *room)
{
    struct invocation inv;
    struct slice own;
    invoked_read(req, &inv);
    if (store_id_ok(inv.request_id))
        slice_copy(inv.request_id, o->request_id, sizeof(o->request_id));
    if (o->request_id[0] != '\0') /* until a better one is found */
        slice_copy(slice_of(o->request_id), o->id, sizeof(o->id));
    else
        uuid_v4(o->id);
    o->held = inv.is_async && o->api->on_platform;
    o->async = o->api->door != NULL ? inv.is_async : inv.asks_async && !o->api->on_platform;
    /* On the platform a run needs a call that lasts as long; only a front door's runs elsewhere. */
    if (o->wishes.respond_async && (!o->api->on_platform || o->api->door != NULL))
        o->async = true;
    o->lasting = o->held || o->async;
    if (o->api->on_platform && inv.timeout_ms != 0) {
        o->margin_ms = invocation_margin_ms(&inv);
        o->limit_at = clock_mono_ms() + inv.timeout_ms - o->margin_ms;
    }
    o->redelivered = inv.has_retry_count && inv.retry_count > 0;
    if (!is_one_id(http_req_headers(req)))
        return false;
    struct slice id = inv.task_id;
    o->chosen = http_headers_get(http_req_headers(req), "task-id", &own) && own.len > 0;
    if (id.len == 0) {
        enum err_code code = http_query_get(http_req_query(req), "task-id", room);
        if (code != ERR_OK && code != ERR_NOT_FOUND)
            return false;
        id = buf_slice(room);
        o->chosen = id.len > 0;
    }
    return id.len == 0 || order_take_id(o, id);
}

bool run_order_read(struct run_order *o, struct api *api, struct http_req *req,
                    struct refusal *ret_why)
{
    struct buf room;
    *o = (struct run_order){.api = api};
    run_wishes_read(&o->wishes, http_req_headers(req), http_req_query(req));
    o->want_results = !o->wishes.no_results;
    if (api->on_platform && api->door == NULL)
        o->wishes.has_wait = false; /* it would be frozen once it is answered */
    buf_init(&room, 4096);
    bool ok = order_read_ids(o, req, &room);
    buf_done(&room);
    if (!ok)
        refusal_set(ret_why, 400, "bad_id",
                    "a task id has up to 128 of A-Z a-z 0-9 . _ -, begins with a letter, a digit "
                    "or _, has no \"..\" and does not end in .tmp");
    return ok;
}

/* --- the prompt ------------------------------------------------------------------------------ */

static bool read_id(struct slice token, char ret[TASK_ID_MAX + 1])
{
    struct buf id;
    buf_init(&id, TASK_ID_MAX);
    bool ok = json_unescape(token, &id) == ERR_OK && store_id_ok(buf_slice(&id));
    if (ok)
        slice_copy(buf_slice(&id), ret, TASK_ID_MAX + 1);
    buf_done(&id);
    return ok;
}

/* An id in the envelope, where no header and no query gave one. */
static bool order_take_envelope_id(struct run_order *o, struct slice token)
{
    char id[TASK_ID_MAX + 1];
    return read_id(token, id) && order_take_id(o, slice_of(id));
}

static struct task *order_create(struct run_order *o, struct task_spec *spec, bool *ret_joined,
                                 struct refusal *ret_why)
{
    /* Claimed, and stored before its end is told: an id from outside may come again (the platform
     * delivers under the same request id), and who leaves early needs a place to look. */
    o->lasting = o->lasting || o->given;
    spec->id = o->id;
    spec->given =
        o->lasting || o->wishes.has_wait || o->api->on_platform || o->request_id[0] != '\0';
    spec->must_store = o->async || o->held;
    spec->waits = o->held;
    spec->request_id = o->request_id;
    spec->redelivered = o->redelivered;
    struct task *t;
    struct err err;
    if (task_hub_create(o->api->hub, spec, &t, ret_joined, &err) != ERR_OK) {
        refusal_set_err(ret_why, &err);
        return NULL;
    }
    task_extend(t, o->limit_at != 0 ? o->limit_at : UINT64_MAX);
    return t;
}

struct task *run_order_refuse(struct run_order *o, struct slice body, struct refusal *why)
{
    struct prompt none;
    bool joined;
    if (!o->held)
        return NULL;
    prompt_init_empty(&none);
    buf_adds(&none.seeds, "{}");
    sha256_hex(body, none.sha256);
    struct task_spec spec = {.take_prompt = &none,
                             .take_refusal = failure_read(buf_slice(&why->error))};
    struct task *t = order_create(o, &spec, &joined, why);
    if (t == NULL) {
        prompt_done(&none);
        failure_free(spec.take_refusal);
    }
    return t;
}

/* What a front door sends instead of a prompt, {"task_id": …, "attempt": n}: task_offer.c. In a
 * prompt every member is an object. */
static bool order_is_call(struct run_order *o, struct slice body, char ret_id[TASK_ID_MAX + 1])
{
    const struct json_limits limits = {.depth = 2};
    struct slice value;
    int64_t attempt;
    if (o->api->door != NULL || body.len > ORDER_CALL_MAX ||
        json_check(body, &limits, NULL, NULL) != ERR_OK ||
        json_kind(json_trim(body)) != JSON_OBJECT ||
        !json_get(json_trim(body), "attempt", &value) || json_kind(value) != JSON_NUMBER ||
        !json_to_i64(value, &attempt) || attempt < 1 || attempt > UINT32_MAX)
        return false;
    o->called = (unsigned)attempt;
    return json_get(json_trim(body), "task_id", &value) && json_kind(value) == JSON_STRING &&
           read_id(value, ret_id);
}

/* A front door names the task in its header, too. (The platform's id is another: it is made by the
 * platform.) */
static struct task *order_place_call(struct run_order *o, const char *id, bool *ret_joined,
                                     struct refusal *ret_why)
{
    struct prompt none;
    if (o->chosen && strcmp(id, o->id) != 0) {
        refusal_set(ret_why, 400, "bad_id", "the call is for another task than its task-id says");
        return run_order_refuse(o, SLICE_EMPTY, ret_why);
    }
    (void)order_take_id(o, slice_of(id));
    struct task_spec spec = {.called = o->called, .take_prompt = &none};
    prompt_init_empty(&none);
    o->held = o->api->on_platform; /* whether it shows that it is asynchronous or not */
    o->want_results = false;
    struct task *t = order_create(o, &spec, ret_joined, ret_why);
    if (t == NULL)
        prompt_done(&none);
    return t;
}

struct task *run_order_place(struct run_order *o, struct buf *take_body, bool *ret_joined,
                             struct refusal *ret_why)
{
    struct prompt prompt;
    struct prompt_fault fault;
    struct task *t = NULL;
    char called[TASK_ID_MAX + 1];
    *ret_joined = false;
    if (order_is_call(o, buf_slice(take_body), called)) {
        buf_done(take_body);
        return order_place_call(o, called, ret_joined, ret_why);
    }
    enum err_code code = prompt_parse(&prompt, take_body, &fault);
    /* Also of what is no prompt: he will ask by that id what came of it. */
    bool bad_id = !o->given && prompt.task_id.len > 0 && !order_take_envelope_id(o, prompt.task_id);
    if (code == ERR_BUSY) {
        refusal_set_full(ret_why, &fault.err);
        prompt_done(&prompt);
        return NULL;
    }
    if (code != ERR_OK) {
        refusal_set_fault(ret_why, &fault);
        t = run_order_refuse(o, buf_slice(&prompt.body), ret_why);
        prompt_done(&prompt);
        return t;
    }
    if (bad_id) {
        refusal_set(ret_why, 400, "bad_id", "task_id is not an id that this service takes");
        t = run_order_refuse(o, buf_slice(&prompt.body), ret_why);
        prompt_done(&prompt);
        return t;
    }
    o->want_results = o->want_results && !o->held && (!prompt.says_results || prompt.want_results);
    struct task_spec spec = {.take_prompt = &prompt};
    t = order_create(o, &spec, ret_joined, ret_why);
    if (t == NULL)
        prompt_done(&prompt);
    return t;
}

void run_order_leave(const struct run_order *o, struct task *t)
{
    if (!o->lasting && !task_has_caller(t))
        task_leave(t);
}

/* --- the time limit -------------------------------------------------------------------------- */

uint64_t run_order_left_ms(const struct run_order *o)
{
    uint64_t now = clock_mono_ms();
    if (o->limit_at == 0)
        return 0;
    return o->limit_at > now ? o->limit_at - now : 1;
}

uint64_t run_order_patience_ms(const struct run_order *o)
{
    return o->limit_at != 0 ? run_order_left_ms(o) : UINT64_MAX;
}

bool run_order_expire(struct run_order *o, struct task *t, struct refusal *ret_why)
{
    if (task_is_mirror(t) || task_deadline(t) > o->limit_at) {
        refusal_set(ret_why, 504, "run_timeout",
                    "the function's time is nearly over; the task goes on for another caller");
        ret_why->message = "CallComfyUIPromptError";
        return true;
    }
    task_expire(t, o->expired);
    o->expired = true;
    return false;
}
