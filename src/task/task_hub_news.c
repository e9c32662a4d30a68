/* What happens to the tasks of a hub without anybody asking: time passes, ComfyUI starts and dies,
 * its socket opens, closes, and tells of prompts. */
#include "left.h"
#include "log.h"
#include "task_hub_private.h"

enum {
    HUB_TICK_MS = 500,
    HUB_STORE_AGAIN_MS = 5000,
};

/* How ComfyUI ended the last time, if it did. */
static void add_exit(struct failure *f, const struct supervisor_exit *exit)
{
    if (!exit->happened)
        return;
    buf_adds(&f->json, ",\"exit\":{");
    if (exit->signal != 0)
        buf_addf(&f->json, "\"signal\":%d", exit->signal);
    else
        buf_addf(&f->json, "\"code\":%d", exit->code);
    buf_addf(&f->json, ",\"out_of_memory\":%s}", exit->out_of_memory ? "true" : "false");
    failure_add_text(f, "log_tail", exit->log_tail);
}

/* --- time ------------------------------------------------------------------------------------ */

/* A prompt of ours is in ComfyUI, and may be why its WebSocket is not open: a native call holds
 * everything else up. Whether that is too long STALL_TIMEOUT tells, RUN_TIMEOUT (where HTTP answers
 * that it runs), or the patience with what was given up. */
static bool hub_is_held_up(const struct task_hub *h)
{
    return supervisor_state(h->options.supervisor) == SUPERVISOR_READY &&
           (h->count[PLACE_ACTIVE] > 0 || left_is_there(h->left));
}

static uint64_t later_of(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* 0: it never was. */
static uint64_t hub_held_up_until(const struct task_hub *h)
{
    return later_of(h->idle_at, left_gone_at(h->left));
}

static void hub_fail_late_starts(struct task_hub *h)
{
    uint64_t now = clock_mono_ms();
    uint64_t from = later_of(h->closed_at, hub_held_up_until(h));
    if (hub_is_held_up(h))
        return;
    LIST_FOREACH_SAFE (node, next, &h->list[PLACE_WAITING]) {
        struct task *t = CONTAINER_OF(node, struct task, link);
        if (now - later_of(t->queued_at, from) < h->options.startup_timeout_ms)
            continue;
        const struct supervisor_exit *exit = supervisor_last_exit(h->options.supervisor);
        struct failure *f =
            failure_new(FAILURE_STARTING, "ComfyUI did not answer within STARTUP_TIMEOUT");
        add_exit(f, exit);
        task_finish(t, TASK_FAILED, f);
    }
}

/* Its process lives and takes connections, but its WebSocket cannot be opened, and no prompt of
 * ours is the reason, nor was until just now: it is stuck. Who waits has the other half of his time
 * for its successor. */
static void hub_condemn_if_stuck(struct task_hub *h)
{
    uint64_t since = later_of(later_of(h->closed_at, h->ready_at), hub_held_up_until(h));
    if (supervisor_state(h->options.supervisor) == SUPERVISOR_READY && !hub_is_held_up(h) &&
        clock_mono_ms() - since >= h->options.startup_timeout_ms / 2)
        supervisor_condemn(h->options.supervisor, "its WebSocket cannot be opened");
}

static void hub_store_again(struct task_hub *h)
{
    if (clock_mono_ms() - h->stored_again_at < HUB_STORE_AGAIN_MS)
        return;
    h->stored_again_at = clock_mono_ms();
    LIST_FOREACH_SAFE (node, next, &h->list[PLACE_STORING]) {
        struct task *t = CONTAINER_OF(node, struct task, link);
        if (t->store_failed)
            task_store_again(t);
    }
}

static void hub_on_tick(uv_timer_t *timer)
{
    struct task_hub *h = timer->data;
    if (h->closed_at != 0) {
        hub_condemn_if_stuck(h);
        hub_fail_late_starts(h);
    }
    hub_store_again(h);
    uint64_t now = clock_mono_ms();
    for (unsigned place = PLACE_WAITING; place <= PLACE_ACTIVE; place++)
        LIST_FOREACH_SAFE (node, next, &h->list[place])
            task_lease_tick(CONTAINER_OF(node, struct task, link), now);
    if (h->count[PLACE_STORING] + h->count[PLACE_WAITING] + h->count[PLACE_ACTIVE] > 0)
        task_hub_want_tick(h);
}

void task_hub_want_tick(struct task_hub *h)
{
    if (!uv_is_active((uv_handle_t *)&h->tick))
        ASSERT(uv_timer_start(&h->tick, hub_on_tick, HUB_TICK_MS, 0) == 0);
}

void task_hub_thaw(struct task_hub *h, uint64_t gap_ms)
{
    if (h->closed_at != 0)
        h->closed_at = moment_put_off(h->closed_at, gap_ms);
    if (h->ready_at != 0)
        h->ready_at = moment_put_off(h->ready_at, gap_ms);
    if (h->idle_at != 0)
        h->idle_at = moment_put_off(h->idle_at, gap_ms);
    left_thaw(h->left, gap_ms);
    for (unsigned place = PLACE_CLAIMING; place <= PLACE_ACTIVE; place++)
        LIST_FOREACH (node, &h->list[place])
            task_put_off(CONTAINER_OF(node, struct task, link), gap_ms);
    LIST_FOREACH (node, &h->list[PLACE_STORING]) /* whose moments are those of its phases by now */
        task_doubt_lease(CONTAINER_OF(node, struct task, link));
}

/* --- news ------------------------------------------------------------------------------------ */

/* A task may leave the list while it is walked, but only the one that is being told. */
void task_hub_tell_fate(struct task_hub *h, struct list_node *list,
                        struct failure *(*make)(const struct task_hub *h))
{
    LIST_FOREACH_SAFE (node, next, list)
        task_take_fate(CONTAINER_OF(node, struct task, link), make(h));
}

static struct failure *died_failure(const struct task_hub *h)
{
    const struct supervisor_exit *exit = supervisor_last_exit(h->options.supervisor);
    struct failure *f = failure_new(FAILURE_COMFYUI_DIED, "%s",
                                    exit->happened ? exit->reason : "ComfyUI does not answer");
    add_exit(f, exit);
    return f;
}

static struct failure *gave_up_failure(const struct task_hub *h)
{
    const struct supervisor_exit *exit = supervisor_last_exit(h->options.supervisor);
    struct failure *f =
        failure_new(FAILURE_GAVE_UP, "ComfyUI exited too often and is not started any more%s%s",
                    exit->happened ? "; the last time: " : "", exit->happened ? exit->reason : "");
    add_exit(f, exit);
    return f;
}

/* One that we cannot kill may live, though nobody can reach it or it was of no use. */
static void hub_leave_prompts(struct task_hub *h)
{
    if (left_is_there(h->left)) /* until now it held up who waits */
        h->idle_at = clock_mono_ms();
    LIST_FOREACH (node, &h->list[PLACE_ACTIVE])
        task_leave_if_there(CONTAINER_OF(node, struct task, link));
}

void task_hub_on_state(struct task_hub *h, enum supervisor_state now)
{
    bool lives = supervisor_is_attached(h->options.supervisor);
    if (now == SUPERVISOR_READY) {
        h->ready_at = clock_mono_ms();
        return;
    }
    if (now == SUPERVISOR_BACKOFF && lives)
        hub_leave_prompts(h);
    if (now != SUPERVISOR_STARTING) /* what it had in its hands died with it */
        task_hub_tell_fate(h, &h->list[PLACE_ACTIVE], died_failure);
    if (now == SUPERVISOR_GAVE_UP) {
        task_hub_tell_fate(h, &h->list[PLACE_WAITING], gave_up_failure);
        task_hub_tell_fate(h, &h->list[PLACE_ACTIVE], gave_up_failure);
    }
    if (!lives)
        left_forget(h->left);
}

void task_hub_on_link(struct task_hub *h, bool open)
{
    h->closed_at = open ? 0 : clock_mono_ms();
    if (!open) {
        silent_init(&h->silent); /* the next one may have other nodes */
        if (h->count[PLACE_WAITING] > 0)
            task_hub_want_tick(h);
        LIST_FOREACH_SAFE (node, next, &h->list[PLACE_ACTIVE]) {
            struct task *t = CONTAINER_OF(node, struct task, link);
            t->missed = true;
            t->look_ms = 0; /* soon: however long the pauses were while news could come */
            task_step(t);
        }
        return;
    }
    LIST_FOREACH (node, &h->list[PLACE_WAITING]) {
        struct task *t = CONTAINER_OF(node, struct task, link);
        if (t->open_at == 0)
            t->open_at = clock_mono_ms();
    }
    task_hub_pump(h);
}

static struct task *hub_task_of(struct task_hub *h, struct slice prompt_id)
{
    if (h->last != NULL && h->last->id_known && json_string_is(prompt_id, h->last->prompt_id))
        return h->last;
    LIST_FOREACH (node, &h->list[PLACE_ACTIVE]) {
        struct task *t = CONTAINER_OF(node, struct task, link);
        if (t->prompt_id[0] != '\0' && json_string_is(prompt_id, t->prompt_id))
            return t;
    }
    return NULL;
}

void task_hub_left(struct task_hub *h, const char *prompt_id, bool absent)
{
    left_add(h->left, prompt_id, absent);
}

void task_hub_left_unknown(struct task_hub *h)
{
    h->unknown_link = comfy_link(h->options.comfy);
}

/* An id that nobody has: the version chooses ids itself, the run was faster than our reading of the
 * answer, or the answer was lost. Only one submission is under way then. But if an earlier one was
 * given up without its id, the event may be about that one. */
static struct task *hub_adopt(struct task_hub *h, const struct event *e)
{
    if (comfy_takes_ids(h->options.comfy) || e->prompt_id.len - 2 > TASK_PROMPT_ID_MAX)
        return NULL;
    LIST_FOREACH (node, &h->list[PLACE_ACTIVE]) {
        struct task *t = CONTAINER_OF(node, struct task, link);
        if (!task_awaits_id(t) || t->guessed || e->type != EVENT_START)
            continue;
        if (h->unknown_link == comfy_link(h->options.comfy)) {
            t->missed = true;
            continue;
        }
        t->guessed = true;
        t->id_known = t->state == STATE_LOOKING;
        slice_copy((struct slice){e->prompt_id.ptr + 1, e->prompt_id.len - 2}, t->prompt_id,
                   sizeof(t->prompt_id));
        return t;
    }
    return NULL;
}

static void hub_note_gap(struct task_hub *h)
{
    LIST_FOREACH (node, &h->list[PLACE_ACTIVE])
        CONTAINER_OF(node, struct task, link)->gap = true;
}

void task_hub_on_event(struct task_hub *h, const struct event *e)
{
    if (e->type == EVENT_GAP) {
        hub_note_gap(h);
        return;
    }
    if (e->prompt_id.len > 0) {
        struct task *t = hub_task_of(h, e->prompt_id);
        if (t == NULL)
            t = hub_adopt(h, e);
        h->last = t;
        if (t != NULL)
            task_on_event(t, e);
        return;
    }
    /* Counts everybody's prompts, or is of a thread that talks on while a prompt hangs: no news of
     * ours. */
    if (e->type == EVENT_STATUS || e->type == EVENT_FOREIGN)
        return;
    /* A preview without an id is of the prompt that executes: the one of the last event. */
    static const struct event sign_of_life = {.type = EVENT_OTHER};
    const struct task *of = h->last;
    LIST_FOREACH_SAFE (node, next, &h->list[PLACE_ACTIVE]) {
        struct task *t = CONTAINER_OF(node, struct task, link);
        task_on_event(t, e->type == EVENT_PREVIEW && t != of ? &sign_of_life : e);
    }
}
