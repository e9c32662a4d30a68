/* The task's state machine and its watchers. The states' own work lies in task_submit.c,
 * task_look.c, task_collect.c and task_store.c. */
#include "log.h"
#include "task_private.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const status_names[] = {
#define X(id, name) [id] = name,
    TASK_STATUSES(X)
#undef X
};

const char *task_status_name(enum task_status s)
{
    ASSERT((size_t)s < ARRAY_LEN(status_names));
    return status_names[s];
}

bool task_status_read(struct slice name, enum task_status *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(status_names); i++) {
        if (slice_is(name, status_names[i])) {
            *ret = (enum task_status)i;
            return true;
        }
    }
    return false;
}

/* --- watchers -------------------------------------------------------------------------------- */

/* Is there nothing to wait for any more? A given id's end is told when it is stored. */
static bool task_is_over(const struct task *t)
{
    return t->state == STATE_ENDED || (t->state == STATE_STORING && (t->store_failed || !t->given));
}

/* One notice per loop turn, however much has happened in it. */
static void task_on_notice(struct later_item *item)
{
    struct task *t = CONTAINER_OF(item, struct task, notice);
    struct list_node now;
    bool ended = task_is_over(t);
    (void)task_ref(t); /* a watcher may drop the last reference */
    list_take(&now, &t->watches);
    while (!list_is_empty(&now)) {
        struct task_watch *w = CONTAINER_OF(now.next, struct task_watch, link);
        list_remove(&w->link);
        list_add(&t->watches, &w->link);
        if (ended && !w->ended) {
            w->ended = true;
            w->on_end(w);
        } else if (!ended && t->change_told && task_is_known(t) && w->on_change != NULL) {
            w->on_change(w);
        }
    }
    t->change_told = false;
    if (ended)
        task_forget_kept(t);
    task_unref(t);
}

/* The inner node that executes folds into the prompt's node that stands for it. */
static struct slice task_node_of(const struct task *t, const struct event *e)
{
    const struct progress *p = &t->progress;
    int at = e->display_node.len > 0 ? progress_find(p, e->display_node) : -1;
    if (at < 0 && e->node.len > 0)
        at = progress_find(p, e->node);
    if (at < 0)
        at = (int)p->running - 1;
    return at >= 0 ? p->nodes[at].id : SLICE_EMPTY;
}

static void task_show_preview(struct task *t, const struct event *e)
{
    struct task_preview preview = {task_node_of(t, e), e->media_type, e->image};
    struct list_node now;
    list_take(&now, &t->watches);
    while (!list_is_empty(&now)) {
        struct task_watch *w = CONTAINER_OF(now.next, struct task_watch, link);
        list_remove(&w->link);
        list_add(&t->watches, &w->link);
        if (w->on_preview != NULL && !w->ended)
            w->on_preview(w, &preview);
    }
}

static void task_notify(struct task *t)
{
    later_add(task_hub_later(t->hub), &t->notice);
}

void task_watch_start(struct task_watch *w, struct task *t)
{
    w->task = task_ref(t);
    w->ended = false;
    list_init(&w->link);
    list_add(&t->watches, &w->link);
    if (task_is_over(t))
        task_notify(t);
}

void task_watch_stop(struct task_watch *w)
{
    struct task *t = w->task;
    if (t == NULL)
        return;
    w->task = NULL;
    list_remove(&w->link);
    task_unref(t);
}

bool task_has_watch(const struct task *t)
{
    return !list_is_empty(&t->watches);
}

bool task_has_fetched(const struct task *t)
{
    return t->has_fetched;
}

bool task_has_caller(const struct task *t)
{
    LIST_FOREACH (node, &t->watches)
        if (CONTAINER_OF(node, struct task_watch, link)->is_caller)
            return true;
    return false;
}

static void task_changed_at(struct task *t, uint64_t wall_ms, uint64_t mono_ms)
{
    t->rev++;
    t->updated_ms = wall_ms;
    t->change_told = true;
    task_store_live(t, mono_ms);
    task_notify(t);
}

void task_changed(struct task *t)
{
    task_changed_at(t, clock_wall_ms(), clock_mono_ms());
}

void task_set_status(struct task *t, enum task_status status)
{
    if (t->status == status)
        return;
    t->status = status;
    if (status == TASK_RUNNING && t->started_ms == 0)
        t->started_ms = clock_wall_ms();
    task_changed(t);
}

/* --- life ------------------------------------------------------------------------------------ */

static void task_on_timer(uv_timer_t *timer)
{
    struct task *t = timer->data;
    t->timer_fired = true;
    task_step(t);
}

void task_wake_in(struct task *t, uint64_t ms)
{
    ASSERT(uv_timer_start(&t->timer, task_on_timer, ms, 0) == 0);
}

void task_set_timer(struct task *t, uint64_t ms)
{
    uint64_t age = clock_mono_ms() - t->queued_at;
    uint64_t limit = task_hub_options(t->hub)->run_timeout_ms;
    uint64_t left = age < limit ? limit - age : 1;
    task_wake_in(t, ms < left ? ms : left);
}

void task_put_off(struct task *t, uint64_t gap_ms)
{
    uint64_t *moments[] = {&t->queued_at, &t->open_at,   &t->submitted_at,
                           &t->over_at,   &t->inputs_at, &t->collected_at,
                           &t->news_at,   &t->cancel_at, &t->seen_at};
    for (size_t i = 0; i < ARRAY_LEN(moments); i++)
        if (*moments[i] != 0) /* has not come yet */
            *moments[i] = moment_put_off(*moments[i], gap_ms);
    task_doubt_lease(t);
}

void task_doubt_lease(struct task *t)
{
    t->thawed_at = clock_mono_ms();
    /* What waits to be written waits on: the tick renews it when the lease holds again, and lets
     * the revision grow then: others have seen it stand still for as long as the gap was. */
    t->live_record.not_after_ms = t->live_nodes.not_after_ms = t->thawed_at - 1;
    t->beat_at = 0;
}

void task_take_prompt(struct task *t, struct prompt *take_prompt)
{
    prompt_done(&t->prompt);
    t->prompt = *take_prompt;
    *take_prompt = (struct prompt){.count = 0};
    buf_reset(&t->metadata);
    if (t->prompt.metadata.len > 0)
        buf_add(&t->metadata, t->prompt.metadata);
    t->prompt.metadata = SLICE_EMPTY;
    t->prompt.task_id = SLICE_EMPTY;
    if (t->prompt.extra_data.len == 0 && t->prompt.targets.len == 0)
        buf_done(&t->prompt.body);
    if (t->source == NULL)
        task_show_prompt(t);
}

void task_show_prompt(struct task *t)
{
    progress_done(&t->progress);
    progress_init(&t->progress, &t->prompt);
    blob_unref(t->nodes_blob); /* no rendering of before is taken for one of now */
    blob_unref(t->record_blob);
    t->nodes_blob = t->record_blob = NULL;
}

void task_set_text(char **text, struct slice to)
{
    *text = xrealloc(*text, to.len + 1);
    memcpy(*text, to.ptr, to.len);
    (*text)[to.len] = '\0';
}

struct task *task_new(struct task_hub *h, struct task_spec *spec)
{
    struct task *t = xcalloc(1, sizeof(*t));
    t->hub = h;
    t->refs = 1;
    list_init(&t->link);
    list_init(&t->bucket);
    list_init(&t->watches);
    later_item_init(&t->notice, task_on_notice);
    closer_hold(task_hub_closer(h));
    closer_init(&t->closer, task_hub_loop(h));
    ASSERT(uv_timer_init(task_hub_loop(h), &t->timer) == 0);
    t->timer.data = t;
    closer_hold(&t->closer);
    t->id = xstrdup(spec->id);
    task_set_text(&t->request_id, slice_of(spec->request_id));
    t->given = spec->given;
    t->redelivered = spec->redelivered;
    t->must_store = spec->must_store;
    t->wish = spec->take_refusal;
    t->called = spec->called;
    t->attempt = t->first_attempt = t->wished_from = 1;
    t->verified_at = t->beat_at = clock_mono_ms();
    task_set_text(&t->instance, slice_of(task_hub_options(h)->instance));
    t->rev = 1;
    t->created_ms = t->updated_ms = clock_wall_ms();
    t->queued_at = clock_mono_ms();
    buf_init(&t->metadata, SIZE_MAX);
    task_take_prompt(t, spec->take_prompt);
    task_set_timer(t, UINT64_MAX);
    return t;
}

static void task_on_closed(struct closer *closer)
{
    struct task *t = CONTAINER_OF(closer, struct task, closer);
    struct task_hub *h = t->hub;
    failure_free(t->failure);
    failure_free(t->told);
    failure_free(t->doubt);
    failure_free(t->wish);
    failure_free(t->fate);
    failure_free(t->collect_failure);
    blob_unref(t->nodes_blob);
    blob_unref(t->record_blob);
    blob_unref(t->source);
    blob_unref(t->before);
    blob_unref(t->end_text);
    progress_done(&t->progress);
    prompt_done(&t->prompt);
    buf_done(&t->metadata);
    task_forget_answer(t);
    task_forget_kept(t);
    free(t->refused);
    free(t->id);
    free(t->record_key);
    free(t->request_id);
    free(t->instance);
    free(t->outputs);
    free(t->heads);
    free(t);
    closer_release(task_hub_closer(h));
}

static void task_on_timer_closed(uv_handle_t *handle)
{
    struct task *t = handle->data;
    closer_release(&t->closer);
}

struct task *task_ref(struct task *t)
{
    ASSERT(t->refs > 0);
    t->refs++;
    return t;
}

void task_unref(struct task *t)
{
    ASSERT(t->refs > 0);
    if (--t->refs > 0)
        return;
    ASSERT(t->state == STATE_ENDED && list_is_empty(&t->watches));
    later_cancel(task_hub_later(t->hub), &t->notice);
    uv_close((uv_handle_t *)&t->timer, task_on_timer_closed);
    closer_begin(&t->closer, task_on_closed);
}

/* --- what others ask ------------------------------------------------------------------------- */

const char *task_id(const struct task *t)
{
    return t->id;
}

bool task_id_is_given(const struct task *t)
{
    return t->given;
}

uint64_t task_rev(const struct task *t)
{
    return t->rev;
}

enum task_status task_status(const struct task *t)
{
    return t->status;
}

bool task_status_is_end(enum task_status s)
{
    return s == TASK_SUCCEEDED || s == TASK_FAILED || s == TASK_CANCELLED;
}

bool task_has_ended(const struct task *t)
{
    return task_status_is_end(t->status);
}

const struct err *task_refused(const struct task *t)
{
    return t->refused;
}

bool task_is_accepted(const struct task *t)
{
    bool is_taken = t->source != NULL && !task_is_offered(t); /* so says its record */
    bool is_sure =
        !task_is_at_door(t) || t->state == STATE_ENDED ||
        (t->state == STATE_MIRROR && t->wish == NULL && (t->calling == CALLING_ASKED || is_taken));
    return t->state != STATE_CLAIMING && t->refused == NULL && is_sure;
}

bool task_is_storing(const struct task *t)
{
    return t->state == STATE_STORING && !task_is_over(t);
}

enum task_status task_status_told(const struct task *t)
{
    return task_is_storing(t) ? t->status_before : t->status;
}

struct blob *task_before_end(const struct task *t)
{
    return task_is_storing(t) ? t->before : NULL;
}

bool task_is_known(const struct task *t)
{
    if (t->refused != NULL || t->state == STATE_CLAIMING ||
        (t->state == STATE_MIRROR && t->source == NULL) || task_is_storing(t))
        return false;
    return t->state != STATE_STORING || t->failure == NULL ||
           t->failure->code != FAILURE_SUPERSEDED;
}

bool task_is_certain(const struct task *t)
{
    return t->state == STATE_ENDED || task_lease_holds(t, clock_mono_ms());
}

bool task_is_authority(const struct task *t)
{
    return task_is_known(t) && !task_is_mirror(t) && task_is_certain(t);
}

bool task_is_mirror(const struct task *t)
{
    return t->state == STATE_MIRROR;
}

unsigned task_attempt(const struct task *t)
{
    return t->attempt;
}

bool task_is_stored(const struct task *t)
{
    return t->stored;
}

const struct failure *task_failure(const struct task *t)
{
    return t->failure;
}

const struct progress *task_progress(const struct task *t)
{
    return &t->progress;
}

const struct prompt *task_prompt(const struct task *t)
{
    return &t->prompt;
}

unsigned task_outputs(const struct task *t, const struct task_output **ret)
{
    *ret = t->outputs;
    return t->status == TASK_SUCCEEDED ? t->output_count : 0;
}

struct blob *task_output_bytes(const struct task *t, unsigned output)
{
    ASSERT(output < TASK_KEPT_MAX);
    return task_saw_outputs(t) ? t->kept[output] : NULL; /* else they are another run's */
}

bool task_saw_outputs(const struct task *t)
{
    return t->source == NULL;
}

struct blob *task_nodes(struct task *t)
{
    if (t->nodes_blob == NULL || t->nodes_rev != t->progress.rev) {
        progress_render(&t->progress, task_hub_draft(t->hub));
        blob_unref(t->nodes_blob);
        t->nodes_blob = task_hub_draft_blob(t->hub);
        t->nodes_rev = t->progress.rev;
    }
    return t->nodes_blob;
}

struct blob *task_record(struct task *t)
{
    if (t->record_blob == NULL || t->record_rev != t->rev) {
        record_render(t, task_hub_draft(t->hub));
        blob_unref(t->record_blob);
        t->record_blob = task_hub_draft_blob(t->hub);
        t->record_rev = t->rev;
    }
    return t->record_blob;
}

/* --- the machine ----------------------------------------------------------------------------- */

static bool task_is_too_old(const struct task *t)
{
    return clock_mono_ms() - t->queued_at >= task_hub_options(t->hub)->run_timeout_ms;
}

void task_wish(struct task *t, struct failure *take_wish)
{
    if (t->wish == NULL)
        t->wish = take_wish;
    else
        failure_free(take_wish);
}

/* Takes a failure out of the task, for task_finish(). */
static struct failure *taken(struct failure **from)
{
    struct failure *f = *from;
    *from = NULL;
    return f;
}

static enum task_status end_of(const struct failure *f)
{
    return failure_is_cancel(f->code) ? TASK_CANCELLED : TASK_FAILED;
}

bool task_is_deaf(const struct task *t)
{
    struct comfy *c = task_hub_options(t->hub)->comfy;
    return !comfy_is_open(c) || comfy_link(c) != t->link_no;
}

bool task_is_stalled(const struct task *t)
{
    return clock_mono_ms() - t->news_at >= task_hub_options(t->hub)->stall_timeout_ms;
}

/* Those behind it in an attached one wait on, as behind anybody's prompt. */
void task_condemn(struct task *t, const char *why)
{
    struct supervisor *s = task_hub_options(t->hub)->supervisor;
    if (supervisor_is_attached(s))
        task_leave_if_there(t);
    else
        supervisor_condemn(s, why);
}

void task_finish_stalled(struct task *t)
{
    uint64_t silent = clock_mono_ms() - t->news_at;
    task_condemn(t, "a prompt made no progress within STALL_TIMEOUT");
    if (t->wish != NULL) {
        task_finish_unwanted(t);
        return;
    }
    task_finish(t, TASK_FAILED,
                failure_new(FAILURE_STALLED, "no news from ComfyUI for %llu s",
                            (unsigned long long)(silent / 1000)));
}

/* Nothing to do but to wait for news, and to look when there are none. */
static void task_run_step(struct task *t)
{
    task_forget_answer(t);
    if (t->wish != NULL) {
        task_cancel_start(t);
        return;
    }
    if (!t->over && !task_is_deaf(t) && task_is_stalled(t)) { /* deaf: the looks will tell */
        task_finish_stalled(t);
        return;
    }
    if (task_settle_undoubted(t))
        return;
    if (t->over || t->timer_fired) {
        t->timer_fired = false;
        task_look_start(t);
        return;
    }
    uint64_t least = task_is_deaf(t) || t->missed ? TASK_DEAF_LOOK_MS : TASK_LOOK_MS;
    uint64_t most = task_is_deaf(t) ? TASK_DEAF_LOOK_MAX_MS : TASK_LOOK_MAX_MS;
    uint64_t stall = task_hub_options(t->hub)->stall_timeout_ms;
    t->look_ms = t->look_ms < least ? least : t->look_ms > most ? most : t->look_ms;
    if (t->look_ms > stall / 2) /* that it waits behind what is stalled has to be seen before */
        t->look_ms = stall / 2;
    task_set_timer(t, t->look_ms);
}

static void task_turn(struct task *t)
{
    switch (t->state) {
    case STATE_CLAIMING: task_offer_claiming(t); break; /* else the store's answer goes on */
    case STATE_MIRROR: task_mirror_step(t); break;
    case STATE_RETREAT: task_retreat_step(t); break;
    case STATE_WAITING:
        if (t->wish != NULL)
            task_finish_unwanted(t);
        break;
    case STATE_INPUTS: task_inputs_step(t); break;
    case STATE_SUBMITTING: task_submit_step(t); break;
    case STATE_RUNNING: task_run_step(t); break;
    case STATE_LOOKING: task_look_step(t); break;
    case STATE_CANCELLING: task_cancel_step(t); break;
    case STATE_COLLECTING: task_collect_step(t); break;
    case STATE_STORING:
    case STATE_ENDED: break;
    }
}

void task_finish_unwanted(struct task *t)
{
    struct failure *why = taken(t->wish != NULL ? &t->wish : &t->fate);
    task_finish(t, end_of(why), why);
}

void task_step(struct task *t)
{
    enum task_state before;
    if (t->state >= STATE_WAITING && t->state < STATE_STORING && task_is_too_old(t))
        task_wish(t, failure_new(FAILURE_TIMEOUT, "the task took longer than RUN_TIMEOUT"));
    do {
        before = t->state;
        if (t->fate != NULL && t->state >= STATE_WAITING && t->state < STATE_STORING &&
            t->state != STATE_COLLECTING && t->inputs_job == NULL)
            task_finish_unwanted(t);
        task_turn(t);
    } while (t->state != before);
    t->timer_fired = false;
}

void task_take_fate(struct task *t, struct failure *take_fate)
{
    if (t->state >= STATE_STORING || t->fate != NULL) {
        failure_free(take_fate);
        return;
    }
    /* The end was seen, only its record died with ComfyUI: that is no failure. Nor is it when
     * nothing of the task was in ComfyUI's hands, or when it may be tried again. */
    if (take_fate->code == FAILURE_COMFYUI_DIED &&
        (t->state <= STATE_RETREAT || t->state == STATE_COLLECTING || task_settle_by_news(t) ||
         task_try_again(t, take_fate))) {
        failure_free(take_fate);
        task_step(t);
        return;
    }
    t->fate = take_fate;
    if (t->state == STATE_MIRROR)
        task_wake_in(t, 1);
    if (t->state == STATE_COLLECTING) /* nobody will ever show its outputs */
        task_finish(t, TASK_FAILED, taken(&t->fate));
    else
        task_step(t);
}

void task_start(struct task *t)
{
    ASSERT(t->state == STATE_WAITING);
    task_prepare(t);
    task_set_status(t, TASK_PREPARING);
}

static void task_give_up(struct task *t, enum failure_code code, const char *why)
{
    if (t->state >= STATE_COLLECTING)
        return;
    task_wish(t, failure_new(code, "%s", why));
    task_step(t);
}

void task_cancel(struct task *t, const char *why)
{
    task_give_up(t, FAILURE_CANCELLED, why);
}

void task_leave(struct task *t)
{
    task_give_up(t, FAILURE_CALLER_LEFT,
                 "the caller left and gave no task id to find the task again");
}

void task_expire(struct task *t, bool at_once)
{
    static const char why[] = "the function's time is nearly over";
    if (!at_once) {
        task_give_up(t, FAILURE_TIMEOUT, why);
        return;
    }
    task_leave_if_there(t);
    task_take_fate(t, failure_new(FAILURE_TIMEOUT, "%s", why));
}

void task_extend(struct task *t, uint64_t deadline_ms)
{
    if (deadline_ms > t->deadline_ms)
        t->deadline_ms = deadline_ms;
}

uint64_t task_deadline(const struct task *t)
{
    return t->deadline_ms;
}

void task_finish(struct task *t, enum task_status status, struct failure *take_failure)
{
    ASSERT(t->state < STATE_STORING);
    ASSERT((status == TASK_SUCCEEDED) == (take_failure == NULL));
    (void)uv_timer_stop(&t->timer);
    blob_unref(t->before);
    t->before = NULL;
    bool is_ours = take_failure == NULL || take_failure->code != FAILURE_SUPERSEDED;
    bool is_told =
        t->given ? task_is_known(t) : t->ops[TASK_OP_LOOK] > 0; /* or will be, just now */
    if (is_told && is_ours && t->state != STATE_MIRROR) {
        (void)task_nodes(t); /* the record of the end has the same */
        t->before = blob_ref(task_record(t));
    }
    t->status_before = t->status;
    failure_free(t->failure); /* of an attempt that another instance has taken over */
    t->failure = take_failure;
    bool submitting = t->state == STATE_SUBMITTING && t->req != NULL && t->req->busy;
    if (!t->id_known && (submitting || t->state == STATE_LOOKING || t->state == STATE_CANCELLING))
        task_hub_left_unknown(t->hub);
    t->state = STATE_STORING;
    t->finished_ms = clock_wall_ms();
    if (t->over_at == 0 && t->submitted_at != 0)
        t->over_at = clock_mono_ms();
    if (t->req != NULL)
        comfy_request_cancel(t->req);
    for (unsigned i = 0; i < t->head_count; i++)
        comfy_request_cancel(&t->heads[i].req);
    task_set_status(t, status);
    if (is_ours)
        task_hub_count(t->hub, t);
    const struct log_field fields[] = {
        {"task", slice_of(t->id)},
        {"prompt", slice_of(t->prompt_id)},
        {"why", take_failure != NULL ? buf_slice(&take_failure->json) : SLICE_EMPTY},
        {NULL, SLICE_EMPTY},
    };
    log_fields(LOG_INFO, "task", fields, "%s after %llu ms", task_status_name(status),
               (unsigned long long)(t->finished_ms - t->created_ms));
    task_hub_place(t->hub, t, PLACE_STORING);
    task_store_end(t);
}

/* --- news ------------------------------------------------------------------------------------ */

static void task_tell(struct task *t, struct failure *take_told)
{
    failure_free(t->told);
    t->told = take_told;
}

void task_on_event(struct task *t, const struct event *e)
{
    t->news_at = uv_now(t->timer.loop); /* of the same clock; many come in one turn of the loop */
    t->look_ms = 0;
    if (t->state < STATE_SUBMITTING || t->state >= STATE_COLLECTING)
        return;
    if (e->type == EVENT_START)
        task_set_status(t, TASK_RUNNING);
    if (e->type == EVENT_SUCCESS)
        t->saw_success = true;
    if (e->type == EVENT_ERROR && !e->is_blocked)
        task_tell(t, task_node_failure(t, e->data));
    if (e->type == EVENT_INTERRUPTED)
        task_tell(t, failure_new(FAILURE_INTERRUPTED, "the prompt was interrupted in ComfyUI"));
    if (e->type == EVENT_ODD)
        t->missed = true;
    if (e->type == EVENT_PREVIEW)
        task_show_preview(t, e);
    uint64_t wall_ms = clock_wall_ms();
    if (progress_apply(&t->progress, e, wall_ms / 1000))
        task_changed_at(t, wall_ms, t->news_at);
    if (e->type == EVENT_OVER) {
        t->over = true;
        t->over_at = t->news_at;
        task_step(t);
    } else if (e->type == EVENT_ODD && t->state == STATE_RUNNING) {
        task_step(t);
    }
}
