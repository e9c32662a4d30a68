/* /api/tasks: the list, one record, its outputs and prompt, and cancelling.
 *
 * A task of this process answers from memory; others answer from the store. What needs a task
 * rather than a document (outputs) makes one of the record: task_of_record(). */
#include "answer.h"
#include "api.h"
#include "api_output.h"
#include "lookup.h"

#include <stdio.h>
#include <stdlib.h>

/* A prompt lies in the claim of its attempt or, if it is large or nobody chose its id, alone. */
enum prompt_step { PROMPT_RECORD, PROMPT_CLAIM, PROMPT_ALONE };

struct tasks_call {
    struct api *api;
    struct http_req *req;
    struct lookup *lookup;
    char id[TASK_ID_MAX + 1];
    unsigned output;
    enum prompt_step step;
    enum task_status status; /* when it was asked to be cancelled */
    struct store_op op;
    bool gone;    /* the client left */
    bool storing; /* `op` is under way */
};

static void call_on_abort(struct http_req *req)
{
    struct tasks_call *c = http_req_data(req);
    c->gone = true;
    if (c->lookup != NULL)
        lookup_cancel(c->lookup);
    if (!c->storing)
        free(c);
}

static struct tasks_call *call_new(struct api *api, struct http_req *req, struct slice id)
{
    if (!store_id_ok(id)) {
        answer_error(req, 400, "RequestParamsError", "bad_id", "that is not the id of a task",
                     NULL);
        return NULL;
    }
    struct tasks_call *c = xcalloc(1, sizeof(*c));
    c->api = api;
    c->req = req;
    slice_copy(id, c->id, sizeof(c->id));
    http_req_set_data(req, c);
    http_on_abort(req, call_on_abort);
    return c;
}

static void call_refuse(struct tasks_call *c, int status, const char *code, const char *detail)
{
    struct answer_about about = {.task_id = c->id};
    answer_error(c->req, status, status == 404 ? "NotFoundError" : "LoadProgressError", code,
                 detail, &about);
}

static void call_unknown(struct tasks_call *c, const struct err *err)
{
    if (err != NULL)
        call_refuse(c, err->code == ERR_TIMEOUT ? 504 : 503, "store_failed", err->msg);
    else
        call_refuse(c, 404, "not_found", "no task of this id is known");
}

/* --- outputs --------------------------------------------------------------------------------- */

static void output_answer(struct tasks_call *c, struct task *t)
{
    const struct task_output *outputs;
    unsigned count = task_outputs(t, &outputs);
    struct answer_about about = {.task_id = c->id, .task_status = task_status_name(task_status(t))};
    if (c->output < count)
        output_send(c->api, c->req, t, c->output, &about, NULL);
    else if (task_has_ended(t))
        call_refuse(c, 404, "no_such_output", "the task has no output of this number");
    else
        call_refuse(c, 404, "not_ended", "the task has not ended yet");
}

static void output_on_found(void *ctx, const struct lookup_found *found, const struct err *err)
{
    struct tasks_call *c = ctx;
    if (found->task != NULL) {
        output_answer(c, found->task);
    } else if (found->record.len > 0) {
        struct task *t = task_of_record(c->api->hub, c->id, found->record);
        if (t == NULL)
            call_refuse(c, 503, "store_failed", "the stored record is not what was stored");
        else
            output_answer(c, t);
        if (t != NULL)
            task_unref(t);
    } else {
        call_unknown(c, err);
    }
    free(c);
}

/* {id}/outputs/{n} */
static void output_route(struct api *api, struct http_req *req, struct slice id, struct slice n)
{
    uint64_t number;
    if (!slice_to_u64(n, UINT32_MAX, &number)) {
        answer_error(req, 404, "NotFoundError", "no_such_output", "outputs are numbered from 0",
                     NULL);
        return;
    }
    struct tasks_call *c = call_new(api, req, id);
    if (c == NULL)
        return;
    c->output = (unsigned)number;
    c->lookup = lookup_start(api, id, false, LOOKUP_ALONE, output_on_found, c);
}

/* --- prompt ---------------------------------------------------------------------------------- */

/* False: the document has none. */
static bool prompt_answer(struct tasks_call *c, struct slice document)
{
    struct slice prompt;
    struct answer_about about = {.task_id = c->id};
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX};
    if (json_check(document, &limits, NULL, NULL) != ERR_OK ||
        !json_get(json_trim(document), "prompt", &prompt) || json_kind(prompt) != JSON_OBJECT)
        return false;
    answer_json(c->req, 200, prompt, &about);
    return true;
}

/* Which attempt does the record tell of? Each may have been run with other seeds. */
static unsigned prompt_attempt(struct slice record)
{
    struct slice value;
    int64_t attempt;
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX};
    if (json_check(record, &limits, NULL, NULL) == ERR_OK &&
        json_get(json_trim(record), "attempt", &value) && json_kind(value) == JSON_NUMBER &&
        json_to_i64(value, &attempt) && attempt > 0 && attempt <= UINT32_MAX)
        return (unsigned)attempt;
    return 1;
}

static void prompt_read(struct tasks_call *c, enum prompt_step step, unsigned attempt);

/* `text` is empty if there is no such document. True: answered. */
static bool prompt_go_on(struct tasks_call *c, struct slice text)
{
    if (c->step == PROMPT_RECORD) {
        prompt_read(c, PROMPT_CLAIM, text.len > 0 ? prompt_attempt(text) : 1);
        return false;
    }
    if (text.len > 0 && prompt_answer(c, text))
        return true;
    if (c->step == PROMPT_CLAIM) {
        prompt_read(c, PROMPT_ALONE, 0);
        return false;
    }
    call_refuse(c, 404, "not_found", "no prompt of this id is kept");
    return true;
}

static void prompt_on_read(struct store_op *op)
{
    struct tasks_call *c = op->ctx;
    enum err_code result = op->doc[0].result;
    struct blob *text = result == ERR_OK ? op->doc[0].value : NULL;
    bool over = true;
    c->storing = false;
    if (!c->gone && (result == ERR_OK || result == ERR_NOT_FOUND)) {
        over = prompt_go_on(c, text != NULL ? blob_slice(text) : SLICE_EMPTY);
    } else if (!c->gone) {
        struct err err = op->err;
        call_unknown(c, &err);
    }
    blob_unref(text);
    if (over)
        free(c);
}

static void prompt_read(struct tasks_call *c, enum prompt_step step, unsigned attempt)
{
    c->step = step;
    c->op = (struct store_op){.n = 1, .done = prompt_on_read, .ctx = c};
    struct store_doc *doc = &c->op.doc[0];
    doc->verb = STORE_GET;
    if (step == PROMPT_CLAIM)
        (void)snprintf(doc->key, sizeof(doc->key), "%s~run.%u", c->id, attempt);
    else
        (void)snprintf(doc->key, sizeof(doc->key), "%s~%s", c->id,
                       step == PROMPT_RECORD ? "task" : "prompt");
    c->storing = true;
    store_run(c->api->store, &c->op);
}

static void prompt_route(struct api *api, struct http_req *req, struct slice id)
{
    struct task *t = store_id_ok(id) ? task_hub_find(api->hub, id) : NULL;
    struct tasks_call *c = call_new(api, req, id);
    if (c == NULL)
        return;
    /* Who follows another instance's run has seeds of its own, which nobody runs. */
    bool is_ours =
        t != NULL && (task_before_end(t) != NULL || (task_is_known(t) && !task_is_mirror(t)));
    /* The same answer at any time and of any instance. */
    bool is_stored_otherwise = is_ours && task_has_fetched(t) && task_id_is_given(t);
    if (is_ours && !is_stored_otherwise && task_prompt(t)->text.len > 0) {
        struct answer_about about = {.task_id = c->id};
        answer_json(req, 200, buf_slice(&task_prompt(t)->text), &about);
        free(c);
    } else {
        prompt_read(c, PROMPT_RECORD, 0);
    }
}

/* --- cancelling ------------------------------------------------------------------------------ */

static void cancel_answer(struct tasks_call *c, int status, const char *task_status)
{
    struct answer_about about = {.task_id = c->id, .task_status = task_status};
    struct buf body;
    buf_init(&body, SIZE_MAX);
    buf_addf(&body, "{\"id\":\"%s\",\"status\":\"%s\"}", c->id, task_status);
    answer_json(c->req, status, buf_slice(&body), &about);
    buf_done(&body);
}

static void cancel_on_wished(struct store_op *op)
{
    struct tasks_call *c = op->ctx;
    c->storing = false;
    if (!c->gone && op->doc[0].result == ERR_OK) {
        task_hub_withdraw(c->api->hub, c->id); /* at a front door nobody may have begun yet */
        cancel_answer(c, 202, task_status_name(c->status));
    } else if (!c->gone) {
        call_refuse(c, 503, "store_failed", op->err.msg);
    }
    free(c);
}

/* Somebody else runs it: a wish in the store, which the owner reads within a second or two. */
static void cancel_wish(struct tasks_call *c, const struct task *t)
{
    struct buf text;
    c->status = task_status(t);
    buf_init(&text, SIZE_MAX);
    buf_addf(&text, "{\"cancel\":{\"attempt\":%u,\"at\":%llu}}", task_attempt(t),
             (unsigned long long)clock_wall_ms());
    c->op = (struct store_op){.n = 1, .done = cancel_on_wished, .ctx = c};
    c->op.doc[0].verb = STORE_PUT;
    c->op.doc[0].value = blob_new(buf_slice(&text));
    (void)snprintf(c->op.doc[0].key, STORE_KEY_MAX + 1, "%s~ctl", c->id);
    buf_done(&text);
    c->storing = true;
    store_run(c->api->store, &c->op);
}

static void cancel_task(struct tasks_call *c, struct task *t)
{
    if (!task_has_ended(t) && task_is_mirror(t)) {
        cancel_wish(c, t);
        return;
    }
    task_cancel(t, "cancelled by a request");
    bool is_end = task_has_ended(t) && !task_is_storing(t); /* else it could still be lost */
    cancel_answer(c, is_end ? 200 : 202, task_status_name(task_status_told(t)));
    free(c);
}

static void cancel_on_found(void *ctx, const struct lookup_found *found, const struct err *err)
{
    struct tasks_call *c = ctx;
    c->lookup = NULL;
    struct task *t = found->task;
    if (t == NULL && found->record.len > 0)
        t = task_of_record(c->api->hub, c->id, found->record);
    if (t == NULL) {
        if (found->record.len > 0)
            call_refuse(c, 503, "store_failed", "the stored record is not what was stored");
        else
            call_unknown(c, err);
        free(c);
        return;
    }
    if (found->task == NULL && !task_has_ended(t))
        cancel_wish(c, t);
    else
        cancel_task(c, t);
    if (found->task == NULL)
        task_unref(t);
}

static void cancel_route(struct api *api, struct http_req *req, struct slice id)
{
    struct tasks_call *c = call_new(api, req, id);
    if (c != NULL)
        c->lookup = lookup_start(api, id, false, LOOKUP_ALONE, cancel_on_found, c);
}

/* --- which it is ----------------------------------------------------------------------------- */

void api_task_cancel(struct api *api, struct http_req *req, struct slice param)
{
    cancel_route(api, req, param);
}

void api_task_prompt(struct api *api, struct http_req *req, struct slice param)
{
    prompt_route(api, req, param);
}

void api_task_output(struct api *api, struct http_req *req, struct slice param)
{
    const char *slash = memchr(param.ptr, '/', param.len);
    size_t len = (size_t)(slash - param.ptr);
    struct slice rest = {slash + strlen("/outputs/"), param.len - len - strlen("/outputs/")};
    output_route(api, req, (struct slice){param.ptr, len}, rest);
}
