/* INPUTS: the prompt's addresses, data: URIs and base64 become names of files that ComfyUI has.
 * Then the prompt is submitted. If ComfyUI dies meanwhile nothing of the task was lost: it waits in
 * front of the queue for the next one, and this is no attempt. What ComfyUI does not answer well is
 * tried again a few times. */
#include "task_private.h"

static enum failure_code inputs_code(const struct inputs_fault *fault)
{
    if (fault->is_comfyui)
        return FAILURE_COMFYUI_ERROR;
    return fault->err.code == ERR_FORBIDDEN ? FAILURE_ADDRESS_REFUSED : FAILURE_INPUT;
}

static void inputs_fail(struct task *t, const struct inputs_fault *fault)
{
    struct failure *f = failure_new(inputs_code(fault), "%s", fault->err.msg);
    if (fault->node_id != NULL) {
        failure_add_json(f, "node_id", slice_of(fault->node_id));
        failure_add_json(f, "class_type", slice_of(fault->class_type));
        failure_add_json(f, "input", slice_of(fault->input));
    }
    task_finish(t, TASK_FAILED, f);
}

static void inputs_take_text(struct task *t, struct buf *take_text)
{
    enum err_code code = prompt_set_text(&t->prompt, take_text);
    ASSERT(code == ERR_OK); /* only strings were replaced by strings */
    t->has_fetched = true;
    task_show_prompt(t);
}

static void inputs_on_done(void *ctx, const struct inputs_fault *fault, struct buf *take_text)
{
    struct task *t = ctx;
    t->inputs_job = NULL;
    if (t->state != STATE_INPUTS) {
        task_step(t); /* somebody waited for the end of this */
    } else if (t->wish != NULL || t->fate != NULL) {
        task_finish_unwanted(t);
    } else if (fault != NULL && fault->is_comfyui && t->inputs_tries < TASK_INPUTS_TRIES_MAX) {
        /* Its connections are seen to break before it is seen to die. */
        t->timer_fired = false;
        task_set_timer(t, task_retry_ms(t->inputs_tries++));
    } else if (fault != NULL) {
        inputs_fail(t, fault);
    } else {
        if (take_text->len > 0)
            inputs_take_text(t, take_text);
        task_submit(t);
    }
    closer_release(&t->closer);
}

static void inputs_begin(struct task *t)
{
    closer_hold(&t->closer);
    t->inputs_job = inputs_start(task_hub_options(t->hub)->inputs, &t->prompt, inputs_on_done, t);
}

void task_prepare(struct task *t)
{
    struct inputs *in = task_hub_options(t->hub)->inputs;
    if (in == NULL || !inputs_are_there(&t->prompt)) {
        task_submit(t);
        return;
    }
    t->state = STATE_INPUTS;
    t->inputs_at = clock_mono_ms();
    t->inputs_tries = 0;
    inputs_begin(t);
}

void task_inputs_step(struct task *t)
{
    if ((t->wish != NULL || t->fate != NULL) && t->inputs_job != NULL) {
        inputs_cancel(t->inputs_job);
    } else if (t->wish != NULL) {
        task_finish_unwanted(t);
    } else if (t->inputs_job == NULL && t->timer_fired) {
        task_set_timer(t, UINT64_MAX);
        inputs_begin(t);
    }
}
