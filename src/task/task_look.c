/* Looking: what history and queue say of a prompt. And cancelling, which is looking with a wish.
 *
 * A prompt that is in neither is looked for in the history once more: it moves from one to the
 * other between two reads. Then it was deleted, or its ComfyUI is gone. */
#include "log.h"
#include "task_private.h"

#include <stdio.h>

uint64_t task_retry_ms(unsigned tries)
{
    uint64_t ms = TASK_RETRY_MS;
    while (tries-- > 0 && ms < TASK_RETRY_MAX_MS)
        ms *= 2;
    return ms < TASK_RETRY_MAX_MS ? ms : TASK_RETRY_MAX_MS;
}

/* --- the end --------------------------------------------------------------------------------- */

/* Does the token contain it? */
static bool says(struct slice token, const char *what)
{
    return memmem(token.ptr, token.len, what, strlen(what)) != NULL;
}

struct failure *task_node_failure(struct task *t, struct slice data)
{
    char detail[512] = "a node raised an exception";
    struct slice value;
    if (data.len == 0)
        return failure_new(FAILURE_NODE, "ComfyUI ended the prompt with an error");
    if (json_get(data, "exception_message", &value))
        failure_detail_of(value, detail, detail, sizeof(detail));
    enum failure_code code = FAILURE_NODE;
    if (json_get(data, "exception_type", &value) && json_kind(value) == JSON_STRING &&
        says(value, "OutOfMemory"))
        code = FAILURE_OUT_OF_MEMORY;
    struct failure *f = failure_new(code, "%s", detail);
    static const char *const members[][2] = {
        {"node_id", "node_id"},
        {"node_type", "class_type"},
        {"exception_type", "exception_type"},
        {"traceback", "traceback"},
    };
    for (size_t i = 0; i < ARRAY_LEN(members); i++)
        if (json_get(data, members[i][0], &value))
            failure_add_json(f, members[i][1], value);
    (void)t;
    return f;
}

static void task_settle_success(struct task *t)
{
    if (t->wish != NULL && !failure_is_cancel(t->wish->code)) {
        struct failure *f = t->wish;
        t->wish = NULL;
        task_finish(t, TASK_FAILED, f);
        return;
    }
    task_collect_start(t);
}

static void task_settle_failure(struct task *t, struct failure *take_failure)
{
    struct failure *f = take_failure;
    if (t->wish != NULL) { /* it ended because we made it end */
        failure_free(f);
        f = t->wish;
        t->wish = NULL;
    }
    ASSERT(f != NULL);
    if (f->code == FAILURE_OUT_OF_MEMORY && task_try_again(t, f)) {
        failure_free(f);
        return;
    }
    task_finish(t, failure_is_cancel(f->code) ? TASK_CANCELLED : TASK_FAILED, f);
}

void task_settle(struct task *t, const struct history *h)
{
    uint64_t now_s = clock_wall_ms() / 1000;
    bool success = h->end == HISTORY_SUCCESS;
    if (h->cached.len > 0) {
        struct event cached = {.type = EVENT_CACHED, .nodes = h->cached};
        (void)progress_apply(&t->progress, &cached, now_s);
    }
    progress_reconcile(&t->progress, h->outputs, h->meta, success, now_s);
    bool whole = success && t->saw_success && !t->missed && !t->gap && !task_is_deaf(t);
    progress_learn_classes(&t->progress, &t->prompt, whole, task_hub_silent(t->hub));
    task_changed(t);
    if (t->over_at == 0)
        t->over_at = clock_mono_ms();
    if (success)
        task_settle_success(t);
    else if (h->end == HISTORY_INTERRUPTED)
        task_settle_failure(
            t, failure_new(FAILURE_INTERRUPTED, "the prompt was interrupted in ComfyUI"));
    else
        task_settle_failure(t, task_node_failure(t, h->last));
}

static bool look_has_news(const struct task *t)
{
    return !t->missed && !t->gap && t->id_known && t->state < STATE_COLLECTING;
}

/* By an end that was told. False: none was. */
static bool look_settle_told(struct task *t)
{
    if (t->saw_success) {
        task_settle_success(t);
        return true;
    }
    if (t->told != NULL && t->over) {
        struct failure *f = t->told;
        t->told = NULL;
        task_settle_failure(t, f);
        return true;
    }
    return false;
}

bool task_settle_undoubted(struct task *t)
{
    struct silent_classes *silent = task_hub_silent(t->hub);
    if (!t->over || !t->saw_success || task_is_deaf(t))
        return false;
    progress_learn_classes(&t->progress, &t->prompt, false, silent);
    return progress_heard_all(&t->progress, &t->prompt, silent) && look_has_news(t) &&
           look_settle_told(t);
}

bool task_settle_by_news(struct task *t)
{
    if (!look_has_news(t))
        return false;
    progress_learn_classes(&t->progress, &t->prompt, false, task_hub_silent(t->hub));
    return look_settle_told(t);
}

/* --- looking --------------------------------------------------------------------------------- */

static void look_ask(struct task *t, enum look_step step)
{
    struct comfy *c = task_hub_options(t->hub)->comfy;
    struct comfy_request *r = task_ask(t);
    uint64_t patience = task_hub_options(t->hub)->stall_timeout_ms / 4; /* not one alone decides */
    r->head_ms = patience < TASK_ANSWER_MS ? patience : 0;
    t->look = step;
    if (step == LOOK_QUEUE)
        comfy_get_queue(c, r);
    else
        comfy_get_history(c, r, t->prompt_id);
    r->head_ms = 0;
}

void task_look_start(struct task *t)
{
    t->state = STATE_LOOKING;
    t->timer_fired = false;
    t->look_tries = 0;
    look_ask(t, LOOK_HISTORY);
}

/* No answer is not a wrong one: a native call may hold HTTP up for as long as it takes. Whether
 * ComfyUI is stuck in it for good only the time tells. */
static bool look_is_unanswered(const struct task *t)
{
    return t->req->err.code == ERR_TIMEOUT;
}

static void look_failed(struct task *t, const char *what)
{
    bool unanswered = look_is_unanswered(t);
    if (unanswered && task_is_stalled(t)) {
        if (!task_settle_by_news(t))
            task_finish_stalled(t);
        return;
    }
    if (unanswered || ++t->look_tries < TASK_LOOK_TRIES_MAX) {
        t->look = LOOK_PAUSE;
        t->timer_fired = false;
        task_set_timer(t, task_retry_ms(t->look_tries));
        return;
    }
    if (task_settle_by_news(t))
        return;
    task_leave_if_there(t);
    task_settle_failure(t, failure_new(FAILURE_COMFYUI_GARBAGE,
                                       "ComfyUI does not tell how the prompt ended: %s", what));
}

static void look_still_there(struct task *t, enum queue_place place)
{
    task_was_taken(t);
    t->state = STATE_RUNNING;
    t->over = false; /* whatever was taken for its end was not */
    t->look_ms = t->look_ms == 0 ? 1 : t->look_ms * 2;
    /* Others run, or what it tells does not come to us any more: that is no silence of its. */
    if (place == QUEUE_PENDING || task_is_deaf(t))
        t->news_at = clock_mono_ms();
}

/* Its id is ours, and nothing was ever seen of it: the request was lost on its way. */
static bool look_shows_never_taken(const struct task *t)
{
    return t->post_lost && t->id_known && t->status == TASK_PREPARING &&
           t->submits < TASK_SUBMITS_MAX && t->wish == NULL;
}

static void look_absent(struct task *t)
{
    if (task_settle_by_news(t))
        return;
    bool never_taken = look_shows_never_taken(t);
    if (never_taken && comfy_is_open(task_hub_options(t->hub)->comfy)) {
        task_submit(t);
        return;
    }
    if (never_taken && t->look_tries + 1 < TASK_LOOK_TRIES_MAX) { /* else the doubt ends it */
        look_failed(t, "its WebSocket is not open");
        return;
    }
    struct failure *f = t->doubt;
    t->doubt = NULL;
    if (f != NULL)
        task_leave_prompt(t, true); /* if the request arrives yet, it is for nobody */
    else
        f = failure_new(FAILURE_PROMPT_LOST,
                        "the prompt is neither in ComfyUI's queue nor in its history: deleted "
                        "there, or ComfyUI was restarted");
    /* Its socket was lost as well: restarted, by whomever. As when ComfyUI died. */
    if (task_is_deaf(t) && task_try_again(t, f))
        failure_free(f);
    else
        task_settle_failure(t, f);
}

static void look_at_history(struct task *t, struct slice body)
{
    struct history h;
    struct err err;
    if (history_parse(&h, body, t->prompt_id, &err) != ERR_OK)
        look_failed(t, err.msg);
    else if (h.end != HISTORY_NONE)
        task_settle(t, &h);
    else if (t->look == LOOK_HISTORY)
        look_ask(t, LOOK_QUEUE);
    else
        look_absent(t);
}

static void look_at_queue(struct task *t, struct slice body)
{
    struct queue queue;
    struct err err;
    if (queue_parse(&queue, body, &err) != ERR_OK) {
        look_failed(t, err.msg);
        return;
    }
    enum queue_place place = queue_place_of(&queue, t->prompt_id);
    if (place == QUEUE_ABSENT)
        look_ask(t, LOOK_HISTORY_AGAIN);
    else
        look_still_there(t, place);
}

void task_look_step(struct task *t)
{
    char what[256];
    if (t->look == LOOK_PAUSE) {
        if (t->wish != NULL)
            task_cancel_start(t);
        else if (t->timer_fired || t->over)
            look_ask(t, LOOK_HISTORY);
        t->timer_fired = false;
        return;
    }
    if (!t->answered)
        return;
    t->answered = false;
    if (t->req->err.code != ERR_OK) {
        look_failed(t, t->req->err.msg);
    } else if (t->req->status != 200) {
        (void)snprintf(what, sizeof(what), "status %d", t->req->status);
        look_failed(t, what);
    } else {
        struct buf body = comfy_request_take_body(t->req); /* it is used again while it is read */
        if (t->look == LOOK_QUEUE)
            look_at_queue(t, buf_slice(&body));
        else
            look_at_history(t, buf_slice(&body));
        buf_done(&body);
    }
}

/* --- cancelling ------------------------------------------------------------------------------ */

/* Delete it from the queue; interrupt only while the queue says that this very prompt runs (older
 * versions interrupt whatever runs); then wait for its end as usual. An interrupt can be lost: it
 * is repeated. */
static void cancel_ask(struct task *t, enum cancel_step step)
{
    struct comfy *c = task_hub_options(t->hub)->comfy;
    struct comfy_request *r = task_ask(t);
    t->cancel = step;
    if (step == CANCEL_DELETE)
        comfy_delete_pending(c, r, (const char *[]){t->prompt_id}, 1);
    else if (step == CANCEL_LOOK)
        comfy_get_queue(c, r);
    else if (step == CANCEL_INTERRUPT)
        comfy_interrupt(c, r, t->prompt_id);
    else
        comfy_get_history(c, r, t->prompt_id);
}

void task_cancel_start(struct task *t)
{
    t->state = STATE_CANCELLING;
    t->cancel_at = clock_mono_ms();
    t->interrupt_at = 0;
    cancel_ask(t, CANCEL_DELETE);
}

static void cancel_pause(struct task *t)
{
    t->cancel = CANCEL_PAUSE;
    t->timer_fired = false;
    task_wake_in(t,
                 TASK_DEAF_LOOK_MS); /* also when its time is over: that is why it is cancelled */
}

static void cancel_at_queue(struct task *t, struct slice body)
{
    struct queue queue;
    if (queue_parse(&queue, body, NULL) != ERR_OK) {
        cancel_pause(t);
        return;
    }
    enum queue_place place = queue_place_of(&queue, t->prompt_id);
    if (place == QUEUE_PENDING) {
        cancel_pause(t);
    } else if (place == QUEUE_ABSENT) {
        cancel_ask(t, CANCEL_HISTORY);
    } else if (t->interrupt_at == 0 ||
               clock_mono_ms() - t->interrupt_at >= TASK_INTERRUPT_AGAIN_MS) {
        t->interrupt_at = clock_mono_ms();
        cancel_ask(t, CANCEL_INTERRUPT);
    } else {
        cancel_pause(t);
    }
}

/* It was deleted; or its request was never answered, and arrives yet. */
static void cancel_at_no_trace(struct task *t)
{
    if (t->doubt != NULL)
        task_leave_prompt(t, true);
    task_settle_failure(t, NULL);
}

static void cancel_at_history(struct task *t, struct slice body)
{
    struct history h;
    if (history_parse(&h, body, t->prompt_id, NULL) != ERR_OK)
        cancel_pause(t);
    else if (h.end != HISTORY_NONE)
        task_settle(t, &h);
    else
        cancel_at_no_trace(t);
}

void task_leave_prompt(struct task *t, bool absent)
{
    if (t->id_known || t->guessed)
        task_hub_left(t->hub, t->prompt_id, absent);
}

void task_leave_if_there(struct task *t)
{
    bool unanswered = t->doubt != NULL || t->state == STATE_SUBMITTING;
    if (t->state >= STATE_SUBMITTING && t->state <= STATE_CANCELLING && !t->over)
        task_leave_prompt(t, unanswered && t->status == TASK_PREPARING);
}

static void cancel_overdue(struct task *t)
{
    task_leave_if_there(t);
    if (!t->id_known) /* nobody can tell whether it goes on */
        task_condemn(t, "a prompt that was to stop did not stop");
    task_settle_failure(t, NULL);
}

static void cancel_answered(struct task *t)
{
    struct buf body = comfy_request_take_body(t->req);
    bool usable = t->req->err.code == ERR_OK && t->req->status == 200;
    if (!usable)
        cancel_pause(t);
    else if (t->cancel == CANCEL_DELETE)
        cancel_ask(t, CANCEL_LOOK);
    else if (t->cancel == CANCEL_LOOK)
        cancel_at_queue(t, buf_slice(&body));
    else if (t->cancel == CANCEL_INTERRUPT)
        cancel_pause(t);
    else
        cancel_at_history(t, buf_slice(&body));
    buf_done(&body);
}

void task_cancel_step(struct task *t)
{
    if (clock_mono_ms() - t->cancel_at >= TASK_CANCEL_MS) {
        cancel_overdue(t);
        return;
    }
    if (t->cancel == CANCEL_PAUSE) {
        if (t->timer_fired || t->over)
            cancel_ask(t, CANCEL_DELETE);
        t->timer_fired = false;
        return;
    }
    if (!t->answered)
        return;
    t->answered = false;
    cancel_answered(t);
}
