/* Another attempt of the same task, in this process: ComfyUI died under it, ran out of memory, or
 * named a file that is gone. The prompt and its seeds stay; the attempt's number grows, so the
 * store sees the attempt before as superseded and this one claimed. RETREAT waits until the
 * requests and writes of the old attempt have ended, because their memory is used again. */
#include "log.h"
#include "task_private.h"

#include <stdlib.h>

bool task_try_again(struct task *t, const struct failure *why)
{
    const struct task_hub_options *o = task_hub_options(t->hub);
    bool missing_file = why->code == FAILURE_OUTPUT_MISSING;
    unsigned tried = t->attempt - t->first_attempt + 1 - t->reruns;
    if (t->wish != NULL || task_hub_is_draining(t->hub) || t->state == STATE_WAITING)
        return false;
    if (missing_file ? t->reruns >= TASK_RERUNS_MAX
                     : t->state != STATE_INPUTS && tried >= o->max_attempts)
        return false;
    const struct log_field fields[] = {{"task", slice_of(t->id)}, {NULL, SLICE_EMPTY}};
    log_fields(LOG_WARN, "task", fields, "attempt %u: %s; trying again", t->attempt,
               failure_name(why->code));
    t->reruns += missing_file;
    t->free_first = missing_file ? !t->freed : why->code == FAILURE_OUT_OF_MEMORY;
    t->requeue = t->state == STATE_INPUTS;
    t->state = STATE_RETREAT;
    (void)uv_timer_stop(&t->timer);
    if (t->inputs_job != NULL)
        inputs_cancel(t->inputs_job);
    if (t->req != NULL)
        comfy_request_cancel(t->req);
    for (unsigned i = 0; i < t->head_count; i++)
        comfy_request_cancel(&t->heads[i].req);
    return true;
}

void task_begin_again(struct task *t)
{
    task_show_prompt(t);
    blob_unref(t->source); /* what it was a view of */
    t->source = NULL;
    t->over = t->saw_success = t->missed = t->gap = t->guessed = t->id_known = false;
    t->answered = t->post_lost = t->timer_fired = false;
    t->prompt_id[0] = '\0';
    t->submits = t->look_tries = t->collect_tries = 0;
    t->inputs_at = t->submitted_at = t->over_at = t->collected_at = 0;
    t->started_ms = t->finished_ms = 0;
    t->collect_again = false;
    failure_free(t->doubt);
    failure_free(t->told);
    failure_free(t->failure);
    failure_free(t->collect_failure);
    t->doubt = t->told = t->failure = t->collect_failure = NULL;
    task_forget_kept(t);
    free(t->outputs);
    free(t->heads);
    t->outputs = NULL;
    t->heads = NULL;
    t->output_count = t->output_next = t->head_count = 0;
    t->status = TASK_QUEUED;
    t->offered = t->taken = false;
    t->rev++;
    t->updated_ms = clock_wall_ms();
    task_set_timer(t, UINT64_MAX);
}

static void again_claim(struct task *t)
{
    t->attempt++;
    task_begin_again(t);
    if (t->given) {
        t->fence = t->claimed;
        task_claim_start(t);
    } else {
        t->state = STATE_WAITING;
        task_hub_enqueue(t->hub, t);
        task_changed(t);
    }
}

/* The same attempt, in front of the queue. */
static void again_wait(struct task *t)
{
    t->requeue = false;
    t->inputs_at = 0;
    t->state = STATE_WAITING;
    task_set_timer(t, UINT64_MAX);
    task_set_status(t, TASK_QUEUED);
    task_hub_enqueue_first(t->hub, t);
}

static void again_on_freed(struct comfy_request *r, const struct err *err)
{
    struct task *t = r->ctx;
    t->freed = t->reruns > 0 && err == NULL && r->status >= 200 && r->status < 300;
    t->free_first = false;
    task_step(t);
    closer_release(&t->closer);
}

void task_retreat_step(struct task *t)
{
    if (t->req != NULL && t->req->busy && (t->wish != NULL || t->fate != NULL))
        comfy_request_cancel(t->req); /* a ComfyUI that is stuck does not tell that it has freed */
    if ((t->req != NULL && t->req->busy) || t->heads_busy > 0 || t->inputs_job != NULL)
        return; /* their end calls again */
    if (t->wish != NULL || t->fate != NULL) {
        task_finish_unwanted(t);
        return;
    }
    if (t->live_ends > 0)
        return;
    if (t->free_first && comfy_is_open(task_hub_options(t->hub)->comfy)) {
        struct comfy_request *r = task_ask(t);
        r->done = again_on_freed;
        comfy_free_memory(task_hub_options(t->hub)->comfy, r);
        return;
    }
    t->free_first = false;
    if (t->requeue)
        again_wait(t);
    else if (!t->given || task_store_pause(t)) /* whether it is still ours to write is asked now */
        again_claim(t);
}

void task_leave_to_others(struct task *t)
{
    t->left_over = true;
    task_take_fate(t, failure_new(FAILURE_SUPERSEDED, "left to another instance"));
}

void task_supersede(struct task *t)
{
    if (t->state >= STATE_STORING || t->wish != NULL)
        return;
    task_wish(t, failure_new(FAILURE_SUPERSEDED, "another instance took the task over"));
    task_step(t);
}
