/* POST /prompt and what its answer means. The answer may come after the whole run is over on the
 * socket, it may be a 500 although the prompt was taken, and it may never come: after any doubt our
 * own prompt id is looked for in history and queue. */
#include "log.h"
#include "task_private.h"

#include <stdio.h>
#include <stdlib.h>

static void task_on_answer(struct comfy_request *r, const struct err *err)
{
    struct task *t = r->ctx;
    (void)err; /* it stands in r, too */
    t->answered = true;
    task_step(t);
    closer_release(&t->closer);
}

struct comfy_request *task_ask(struct task *t)
{
    if (t->req == NULL) {
        t->req = xcalloc(1, sizeof(*t->req));
        comfy_request_init(t->req);
    }
    t->req->done = task_on_answer;
    t->req->ctx = t;
    t->answered = false;
    closer_hold(&t->closer);
    return t->req;
}

void task_forget_answer(struct task *t)
{
    if (t->req == NULL || t->req->busy)
        return;
    comfy_request_done(t->req);
    free(t->req);
    t->req = NULL;
}

/* No longer than the task may take; 0: the client's own bound, which is shorter. */
static uint64_t answer_patience(const struct task *t)
{
    uint64_t age = clock_mono_ms() - t->queued_at;
    uint64_t limit = task_hub_options(t->hub)->run_timeout_ms;
    uint64_t left = age < limit ? limit - age : 1;
    return left < TASK_ANSWER_MS ? left : 0;
}

void task_submit(struct task *t)
{
    struct comfy *c = task_hub_options(t->hub)->comfy;
    struct comfy_submission s = {
        .prompt = buf_slice(&t->prompt.text),
        .extra_data = t->prompt.extra_data,
        .targets = t->prompt.targets,
        .prompt_id = t->prompt_id,
    };
    uuid_v4(t->prompt_id);
    t->id_known = comfy_takes_ids(c);
    t->state = STATE_SUBMITTING;
    t->submits++;
    t->over = t->saw_success = t->missed = t->gap = false;
    t->link_no = comfy_link(c);
    t->submitted_at = t->news_at = clock_mono_ms();
    struct comfy_request *r = task_ask(t);
    r->head_ms = answer_patience(t);
    comfy_post_prompt(c, r, &s);
    r->head_ms = 0; /* of this request alone */
}

/* --- the answer ------------------------------------------------------------------------------ */

static struct slice member(struct slice object, const char *key, enum json_kind kind)
{
    struct slice value;
    if (json_get(object, key, &value) && json_kind(value) == kind)
        return value;
    return SLICE_EMPTY;
}

static bool is_empty_object(struct slice object)
{
    struct json_iter it;
    struct slice value;
    json_iter_init(&it, object);
    return !json_next(&it, NULL, &value);
}

/* An id that may go into a URL and a log line. */
static bool id_is_plain(struct slice token)
{
    if (token.len < 3 || token.len - 2 > TASK_PROMPT_ID_MAX)
        return false;
    for (size_t i = 1; i < token.len - 1; i++) {
        char c = token.ptr[i];
        bool ok = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                  c == '-' || c == '_';
        if (!ok)
            return false;
    }
    return true;
}

/* Older versions choose the id themselves. Events that were taken for ours under another id were
 * somebody else's. */
static void task_learn_id(struct task *t, struct slice token)
{
    struct slice told = {token.ptr + 1, token.len - 2};
    t->id_known = true;
    if (slice_is(told, t->prompt_id))
        return;
    slice_copy(told, t->prompt_id, sizeof(t->prompt_id));
    if (t->progress.rev > 1) {
        progress_reset(&t->progress);
        t->over = t->saw_success = false;
        t->missed = true;
    }
}

/* {"prompt_id", "number", "node_errors"}. False: no answer of a ComfyUI. */
static bool task_read_acceptance(struct task *t, struct slice body)
{
    if (json_check(body, &json_from_comfyui, NULL, NULL) != ERR_OK)
        return false;
    struct slice top = json_trim(body);
    if (json_kind(top) != JSON_OBJECT)
        return false;
    struct slice id = member(top, "prompt_id", JSON_STRING);
    if (!id_is_plain(id))
        return false;
    task_learn_id(t, id);
    struct slice errors = member(top, "node_errors", JSON_OBJECT);
    if (errors.len > 0 && !is_empty_object(errors)) {
        /* It runs the outputs that validate and never mentions the others again. */
        struct failure *f = failure_new(
            FAILURE_OUTPUTS_DROPPED, "ComfyUI took the prompt but would drop some of its outputs");
        failure_add_json(f, "node_errors", errors);
        failure_free(t->wish); /* a cancelled one may still succeed: this one never does */
        t->wish = f;
    }
    return true;
}

/* `error` is an object {type, message, details} or, in old versions, a plain string; `node_errors`
 * an object or, when empty, an array. */
static struct failure *refusal_of(struct slice body)
{
    char detail[512] = "ComfyUI refused the prompt";
    if (json_check(body, &json_from_comfyui, NULL, NULL) != ERR_OK)
        return failure_new(FAILURE_PROMPT_REFUSED, "%s", detail);
    struct slice top = json_trim(body);
    struct slice error = member(top, "error", JSON_OBJECT);
    struct slice says = member(top, "error", JSON_STRING);
    if (error.len > 0)
        says = member(error, "message", JSON_STRING);
    failure_detail_of(says, detail, detail, sizeof(detail));
    struct failure *f = failure_new(FAILURE_PROMPT_REFUSED, "%s", detail);
    if (error.len > 0) {
        failure_add_json(f, "type", member(error, "type", JSON_STRING));
        failure_add_json(f, "details", member(error, "details", JSON_STRING));
        failure_add_json(f, "extra_info", member(error, "extra_info", JSON_OBJECT));
    }
    struct slice errors = member(top, "node_errors", JSON_OBJECT);
    if (errors.len > 0 && !is_empty_object(errors))
        failure_add_json(f, "node_errors", errors);
    return f;
}

/* It may have been taken all the same: its id tells. A version that chooses ids itself has told it
 * with execution_start, or does so while we look; else there is nothing to be found. */
static void task_doubt(struct task *t, const char *what)
{
    struct log_field fields[] = {
        {"task", slice_of(t->id)}, {"prompt", slice_of(t->prompt_id)}, {NULL, SLICE_EMPTY}};
    log_fields(LOG_WARN, "task", fields, "%s; looking for the prompt", what);
    t->missed = true;
    task_look_start(t);
}

static void task_answer_is_odd(struct task *t, enum failure_code code, const char *what)
{
    if (t->guessed)
        t->id_known = true; /* nothing else will tell it; only our own prompts are told to us */
    failure_free(t->doubt);
    t->doubt = failure_new(code, "%s", what);
    task_doubt(t, what);
}

void task_was_taken(struct task *t)
{
    failure_free(t->doubt);
    t->doubt = NULL;
    t->post_lost = false;
    if (t->status == TASK_PREPARING)
        task_set_status(t, TASK_RUNNING);
}

static void task_accepted(struct task *t)
{
    task_was_taken(t);
    t->state = STATE_RUNNING;
    t->news_at = clock_mono_ms();
}

void task_submit_step(struct task *t)
{
    if (!t->answered)
        return; /* also when it shall not go on: what was sent may have been taken */
    t->answered = false;
    task_hub_pump(t->hub); /* the next one may have waited for the id that this answer tells */
    const struct err *err = &t->req->err;
    int status = t->req->status;
    struct slice body = buf_slice(&t->req->body);
    char what[256];
    t->post_lost = err->code == ERR_CLOSED || err->code == ERR_UNAVAILABLE;
    if (err->code != ERR_OK) {
        (void)snprintf(what, sizeof(what), "no answer to POST /prompt: %s", err->msg);
        task_answer_is_odd(t, FAILURE_COMFYUI_ERROR, what);
        return;
    }
    (void)snprintf(what, sizeof(what), "ComfyUI answered POST /prompt with %d", status);
    if (status == 200) {
        if (task_read_acceptance(t, body))
            task_accepted(t);
        else
            task_answer_is_odd(t, FAILURE_COMFYUI_GARBAGE,
                               "POST /prompt was answered with garbage");
    } else if (status == 400) {
        task_finish(t, TASK_FAILED, refusal_of(body));
    } else if (status == 413) {
        task_finish(t, TASK_FAILED,
                    failure_new(FAILURE_PROMPT_TOO_LARGE,
                                "the prompt is larger than ComfyUI's --max-upload-size"));
    } else {
        task_answer_is_odd(t, FAILURE_COMFYUI_ERROR, what);
    }
}
