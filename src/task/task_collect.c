/* Every output is asked for before anybody is told that the task has succeeded, at most
 * TASK_HEADS_MAX at once: by HEAD /view, or, if somebody looks on, who may want it, by GET of its
 * beginning, which for a small one is all there is to fetch. If ComfyUI dies meanwhile, its files
 * have not: we wait for it to come back, for at most STARTUP_TIMEOUT. */
#include "task_private.h"

#include <stdio.h>
#include <stdlib.h>

static void list_outputs(struct task *t)
{
    const struct progress *p = &t->progress;
    t->outputs = xcalloc(p->file_total, sizeof(*t->outputs));
    t->output_count = 0;
    for (unsigned n = 0; n < p->count; n++)
        for (unsigned f = 0; f < p->nodes[n].file_count; f++)
            t->outputs[t->output_count++] = (struct task_output){.node = n, .file = f};
}

static const struct progress_file *file_of(const struct task *t, const struct task_output *o)
{
    return &t->progress.nodes[o->node].files[o->file];
}

static void collect_fail(struct task *t, const struct task_output *o, int status)
{
    const struct progress_file *file = file_of(t, o);
    if (t->collect_failure != NULL)
        return;
    t->collect_cached = status == 404 && t->progress.nodes[o->node].cached;
    struct failure *f = failure_new(
        FAILURE_OUTPUT_MISSING, "ComfyUI names an output that cannot be had (status %d)", status);
    failure_add_json(f, "node_id", t->progress.nodes[o->node].id);
    failure_add_json(f, "filename", slice_of(file->filename));
    failure_add_json(f, "subfolder", slice_of(file->subfolder));
    failure_add_json(f, "type", slice_of(file->type));
    t->collect_failure = f;
}

void task_forget_kept(struct task *t)
{
    for (unsigned i = 0; i < TASK_KEPT_MAX; i++) {
        blob_unref(t->kept[i]);
        t->kept[i] = NULL;
    }
}

static void collect_keep(struct task_head *head)
{
    struct task *t = head->task;
    const struct comfy_request *r = &head->req;
    if (head->looked && (uint64_t)r->length == r->body.len)
        t->kept[head->output] = blob_try_new(buf_slice(&r->body));
}

static void collect_ask_one(struct task_head *head, bool look);

static bool collect_needs_head(const struct task_head *head, const struct err *err)
{
    const struct comfy_request *r = &head->req;
    if (!head->looked || head->task->state != STATE_COLLECTING)
        return false;
    if (err != NULL)
        return err->code == ERR_TOO_LARGE;
    return r->status == 206 || r->status == 416 || (r->status == 200 && r->length < 0);
}

static void collect_on_head(struct comfy_request *r, const struct err *err)
{
    struct task_head *head = CONTAINER_OF(r, struct task_head, req);
    struct task *t = head->task;
    if (collect_needs_head(head, err)) {
        collect_ask_one(head, false);
        return;
    }
    t->heads_busy--;
    if (t->state == STATE_COLLECTING) {
        struct task_output *o = &t->outputs[head->output];
        if (err != NULL) {
            t->collect_again = true;
        } else if (r->status != 200 || r->length < 0) {
            collect_fail(t, o, r->status);
        } else {
            o->size = (uint64_t)r->length;
            (void)snprintf(o->media_type, sizeof(o->media_type), "%s", r->media_type);
            (void)snprintf(o->etag, sizeof(o->etag), "%s", r->etag);
            collect_keep(head);
        }
    }
    comfy_request_done(r); /* before the step: it may be used again there */
    if (t->state == STATE_COLLECTING || t->state == STATE_RETREAT)
        task_step(t);
    closer_release(&t->closer);
}

static void collect_ask_one(struct task_head *head, bool look)
{
    struct task *t = head->task;
    struct comfy *c = task_hub_options(t->hub)->comfy;
    const struct progress_file *file = file_of(t, &t->outputs[head->output]);
    head->looked = look;
    head->req.done = collect_on_head;
    if (look)
        comfy_look_view(c, &head->req, file);
    else
        comfy_head_view(c, &head->req, file);
}

static void collect_ask(struct task *t)
{
    for (unsigned i = 0; i < t->head_count && t->output_next < t->output_count; i++) {
        struct task_head *head = &t->heads[i];
        if (head->req.busy)
            continue;
        comfy_request_init(&head->req);
        head->task = t;
        head->output = t->output_next++;
        t->heads_busy++;
        closer_hold(&t->closer);
        collect_ask_one(head, head->output < TASK_KEPT_MAX && task_has_watch(t));
    }
}

void task_collect_start(struct task *t)
{
    t->state = STATE_COLLECTING;
    (void)uv_timer_stop(&t->timer); /* it may be set to RUN_TIMEOUT, and is needed for retries */
    t->timer_fired = false;
    t->cancel_at = clock_mono_ms();
    list_outputs(t);
    t->head_count = t->output_count < TASK_HEADS_MAX ? t->output_count : TASK_HEADS_MAX;
    t->heads = xcalloc(t->head_count, sizeof(*t->heads));
    collect_ask(t);
}

/* From the first output again, once ComfyUI answers. */
static void collect_retry(struct task *t)
{
    const struct task_hub_options *o = task_hub_options(t->hub);
    if (clock_mono_ms() - t->cancel_at >= o->startup_timeout_ms) {
        task_finish(t, TASK_FAILED,
                    failure_new(FAILURE_OUTPUT_MISSING,
                                "the prompt has succeeded, but ComfyUI does not answer any more "
                                "when it is asked for the outputs"));
        return;
    }
    if (!t->timer_fired) {
        if (!uv_is_active((uv_handle_t *)&t->timer))
            task_wake_in(t, task_retry_ms(t->collect_tries++));
        return;
    }
    t->timer_fired = false;
    t->collect_again = false;
    t->output_next = 0;
    task_forget_kept(t);
    collect_ask(t);
}

void task_collect_step(struct task *t)
{
    if (t->collect_failure != NULL) {
        struct failure *f = t->collect_failure;
        t->collect_failure = NULL;
        if (t->collect_cached && task_try_again(t, f))
            failure_free(f);
        else
            task_finish(t, TASK_FAILED, f);
    } else if (t->heads_busy > 0) {
        if (!t->collect_again)
            collect_ask(t);
    } else if (t->collect_again) {
        collect_retry(t);
    } else if (t->output_next < t->output_count) {
        collect_ask(t);
    } else {
        t->collected_at = clock_mono_ms();
        task_finish(t, TASK_SUCCEEDED, NULL);
    }
}
