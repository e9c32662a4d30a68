/* A task whose prompt comes to one place and is run at another: a front door, which has no ComfyUI,
 * and whoever has one and shares the store with it.
 *
 *      front door                          the store                         who has a ComfyUI
 *
 *   large inputs ─► INPUT_DIR
 *   CLAIMING  ──────────────────► ~run.n {claim, prompt}, ~task "offered"
 *   MIRROR: asks RUN_URL ─ {task_id, attempt: n} ─────────────────────────► CLAIMING: reads them
 *     │        └ it took the call ─► ~call.n                                     │
 *     │                           ~take.n, ~task ◄───────────────────────── takes attempt n
 *     │ follows ~task ◄────────── ~task, ~end.n  ◄───────────────────────── runs it, ends it
 *
 * The door's claim says whose prompt the id has (409 for others), and that attempt n is to be had:
 * it is nobody's run. Whoever creates `~take.n` owns the attempt; from then on all is as if it had
 * created `~run.n` itself: lease, takeover, end. So calls may come as often as they like, late, or
 * twice at once: each names its attempt, and one of them takes it.
 *
 * The door takes an attempt, too, when it is not wanted any more (cancelled, its caller gone,
 * RUN_URL refuses it, RUN_TIMEOUT): to end it. If that fails somebody runs it, who finds the wish
 * in `~ctl`.
 *
 * Who does not wait for the end is told "accepted" when `~call.n` is written: the door may be
 * frozen or gone a moment later, and nobody need ever look at the task again.
 *
 * A door that dies after its claim and before RUN_URL took the call leaves an offer without
 * `~call.n`. Who wants the task at a door (a caller with the same id, a look at its status that is
 * a lease later, the tending of stored tasks) finds that and has RUN_URL asked. An offer whose call
 * was taken is left to whoever took it; looking on asks nobody for anything.
 *
 * Who takes an attempt and dies before its record says so leaves `~take.n` and an offer: whoever
 * wants to take it too waits for a lease, then takes over as from any dead owner. */
#include "log.h"
#include "task_private.h"

bool task_is_at_door(const struct task *t)
{
    return task_hub_options(t->hub)->caller != NULL;
}

bool task_offers(const struct task *t)
{
    return task_is_at_door(t) && t->status == TASK_QUEUED;
}

bool task_is_offered(const struct task *t)
{
    return t->offered && !t->taken;
}

/* --- at the door: the call ------------------------------------------------------------------- */

static void offer_ask(struct task *t)
{
    const struct task_caller *caller = task_hub_options(t->hub)->caller;
    t->calling = CALLING_ASKS;
    t->called = t->attempt;
    caller->call(caller->ctx, t);
}

static void offer_tell_watches(struct task *t)
{
    t->change_told = true;
    later_add(task_hub_later(t->hub), &t->notice);
}

/* Without the note it may be asked for once more: that holds a second call open for as long as the
 * run lasts, but runs nothing. */
static void offer_on_noted(struct task *t, struct store_op *op)
{
    (void)op;
    if (t->calling == CALLING_NOTES)
        t->calling = CALLING_ASKED;
    if (t->state == STATE_MIRROR)
        offer_tell_watches(t);
}

static void offer_note(struct task *t)
{
    struct store_op *op;
    struct buf text;
    if (t->ops[TASK_OP_LEASE] > 0)
        return;
    if (t->calling == CALLING_ASKED)
        t->calling = CALLING_NOTES;
    buf_init(&text, SIZE_MAX);
    buf_addf(&text, "{\"called\":{\"at\":%llu}}", (unsigned long long)clock_wall_ms());
    op = task_op_new(t, TASK_OP_LEASE, offer_on_noted);
    (void)task_op_add_text(op, STORE_CREATE, "call", t->called, &text);
    task_op_run(op);
}

void task_called(struct task *t, struct failure *take_why)
{
    ASSERT(t->calling == CALLING_ASKS);
    /* The answer may be for an attempt that is over; somebody else has offered the one after it. */
    t->calling = take_why == NULL && t->called == t->attempt ? CALLING_ASKED : CALLING_NOT;
    if (t->state != STATE_MIRROR) {
        failure_free(take_why);
        return;
    }
    if (take_why != NULL)
        task_wish(t, take_why);
    else
        offer_note(t); /* first: who is told that it will run may let this process be frozen */
    offer_tell_watches(t);
    task_mirror_hurry(t);
}

enum { LOOK_CALL, LOOK_WISHES };

static bool is_found_or_not(enum err_code result)
{
    return result == ERR_OK || result == ERR_NOT_FOUND;
}

static void offer_on_looked(struct task *t, struct store_op *op)
{
    const struct store_doc *call = &op->doc[LOOK_CALL];
    const struct store_doc *wishes = op->n > LOOK_WISHES ? &op->doc[LOOK_WISHES] : NULL;
    bool is_answered =
        is_found_or_not(call->result) && (wishes == NULL || is_found_or_not(wishes->result));
    bool is_ours = t->state == STATE_MIRROR && t->calling == CALLING_LOOK;
    if (t->calling == CALLING_LOOK)
        t->calling = is_answered && call->result == ERR_OK ? CALLING_ASKED : CALLING_NOT;
    if (is_ours && wishes != NULL && wishes->result == ERR_OK)
        task_obey(t, blob_slice(wishes->value));
    if (is_ours && is_answered && call->result == ERR_NOT_FOUND && task_is_offered(t) &&
        t->wish == NULL && t->called == t->attempt) {
        const struct log_field fields[] = {{"task", slice_of(t->id)}, {NULL, SLICE_EMPTY}};
        if (wishes == NULL)
            log_fields(LOG_WARN, "task", fields, "nobody was asked to run it: asking now");
        offer_ask(t);
    }
    if (is_ours) {
        offer_tell_watches(t);
        task_mirror_hurry(t);
    }
}

/* Was RUN_URL asked? After a takeover, too: is it wanted at all? */
static void offer_look(struct task *t, bool with_wishes)
{
    struct store_op *op;
    if (t->ops[TASK_OP_LEASE] > 0)
        return;
    t->calling = CALLING_LOOK;
    t->called = t->attempt;
    op = task_op_new(t, TASK_OP_LEASE, offer_on_looked);
    (void)task_op_add(op, STORE_GET, "call", t->called);
    if (with_wishes)
        (void)task_op_add(op, STORE_GET, "ctl", 0);
    task_op_run(op);
}

/* Its claim is won, or an attempt that is to be withdrawn. An attempt that takes over from one
 * whose owner died is not wanted by who cancelled that: nobody else will read so before RUN_URL is
 * asked, where the wish is one of an attempt before. */
void task_offer_claimed(struct task *t)
{
    if (t->takes) {
        t->takes = false;
        task_finish_unwanted(t);
        return;
    }
    task_mirror_start(t, t->attempt);
    t->offered = true;
    if (t->wish != NULL)
        return;
    if (t->wished_from == t->attempt) {
        offer_ask(t);
    } else if (t->calling != CALLING_ASKS) { /* else when that call has ended */
        t->calling = CALLING_NOT;
        offer_look(t, true);
    }
}

/* --- at the door: the end -------------------------------------------------------------------- */

static void offer_on_told(struct task *t, struct store_op *op)
{
    if (op->doc[0].result == ERR_OK &&
        t->state == STATE_MIRROR) { /* else it is needed for the end */
        failure_free(t->wish);
        t->wish = NULL;
    }
}

/* Somebody runs it. Whom the wish concerns: that it was cancelled, the owner; that RUN_URL refused
 * the call or that it came too late, nobody. */
static void offer_tell_owner(struct task *t)
{
    struct store_op *op;
    struct buf text;
    if (t->ops[TASK_OP_LEASE] > 0)
        return;
    if (!failure_is_cancel(t->wish->code)) {
        failure_free(t->wish);
        t->wish = NULL;
        return;
    }
    buf_init(&text, SIZE_MAX);
    buf_addf(&text, "{\"cancel\":{\"attempt\":%u,\"at\":%llu}}", t->attempt,
             (unsigned long long)clock_wall_ms());
    op = task_op_new(t, TASK_OP_LEASE, offer_on_told);
    (void)task_op_add_text(op, STORE_PUT, "ctl", 0, &text);
    task_op_run(op);
}

/* By the clock that all share: this process may not have run in between. */
static bool is_longer_ago(uint64_t wall_ms, uint64_t ms)
{
    uint64_t now = clock_wall_ms();
    return now > wall_ms && now - wall_ms >= ms;
}

static bool offer_step_at_door(struct task *t, bool is_still)
{
    const struct task_hub_options *o = task_hub_options(t->hub);
    bool is_free = task_is_offered(t);
    if (is_free && t->wish == NULL && is_longer_ago(t->created_ms, o->run_timeout_ms))
        task_wish(t, failure_new(FAILURE_TIMEOUT, "nobody ran the task within RUN_TIMEOUT"));
    if (is_free && t->wish != NULL) {
        task_mirror_take(t);
        return true;
    }
    if (t->wish != NULL)
        offer_tell_owner(t);
    else if (is_free && t->calling == CALLING_NOT &&
             (is_still || is_longer_ago(t->updated_ms, o->lease_ms)))
        offer_look(t, false);
    return false;
}

bool task_offer_step(struct task *t, bool is_still)
{
    return t->fate == NULL && !t->follows && task_is_at_door(t) && offer_step_at_door(t, is_still);
}

/* --- at the door: the beginning -------------------------------------------------------------- */

/* All that task_claim_document() writes of it: what the store does not keep, nobody can run. */
static void offer_claim(struct task *t)
{
    size_t len =
        t->prompt.text.len + t->prompt.extra_data.len + t->prompt.targets.len + t->metadata.len;
    if (len > TASK_OFFER_PROMPT_MAX)
        task_refuse(t, ERR_TOO_LARGE,
                    "the prompt has more than %d MiB besides the images of its LoadImage nodes",
                    TASK_OFFER_PROMPT_MAX >> 20);
    else
        task_claim_start(t);
}

static void offer_on_kept(void *ctx, const struct inputs_fault *fault, struct buf *take_text)
{
    struct task *t = ctx;
    t->inputs_job = NULL;
    if (t->state == STATE_ENDED) {
        /* the hub gave it up meanwhile */
    } else if (fault != NULL) {
        task_refuse(t, fault->err.code == ERR_TOO_LARGE ? ERR_TOO_LARGE : ERR_UNAVAILABLE, "%s",
                    fault->err.msg);
    } else {
        if (take_text->len > 0) {
            enum err_code code = prompt_set_text(&t->prompt, take_text);
            ASSERT(code == ERR_OK); /* only strings were replaced by strings */
            task_show_prompt(t);
        }
        offer_claim(t);
    }
    closer_release(&t->closer);
}

void task_offer_start(struct task *t)
{
    struct inputs *in = task_hub_options(t->hub)->inputs;
    if (in == NULL || !inputs_are_there(&t->prompt)) {
        offer_claim(t);
        return;
    }
    t->state = STATE_CLAIMING;
    task_hub_place(t->hub, t, PLACE_CLAIMING);
    closer_hold(&t->closer);
    t->inputs_job = inputs_start(in, &t->prompt, offer_on_kept, t);
    task_set_timer(t, TASK_OFFER_KEEP_MS);
}

/* A thread may be stuck in a dead NAS with the inputs for ever; who waits is told. */
void task_offer_claiming(struct task *t)
{
    if (t->inputs_job == NULL || (!t->timer_fired && t->fate == NULL))
        return;
    inputs_cancel(t->inputs_job);
    task_refuse(t, ERR_UNAVAILABLE, "%s",
                t->fate != NULL ? "stopping" : "the inputs cannot be written: INPUT_DIR hangs");
}

/* --- where there is a ComfyUI: a door's call ------------------------------------------------- */

enum { CALL_RECORD, CALL_CLAIM, CALL_PROMPT, CALL_WISHES };

/* What stands in the claim, or beside it. */
static bool call_read_prompt(struct task *t, const struct store_op *op)
{
    for (unsigned i = CALL_CLAIM; i <= CALL_PROMPT; i++)
        if (op->doc[i].result == ERR_OK &&
            task_claim_read_prompt(t, blob_slice(op->doc[i].value), NULL) == ERR_OK)
            return true;
    return false;
}

static void call_judge(struct task *t, const struct store_op *op)
{
    struct record r;
    struct blob *text = op->doc[CALL_RECORD].value;
    if (op->doc[CALL_RECORD].result != ERR_OK ||
        record_parse(&r, blob_slice(text), NULL) != ERR_OK || r.attempt < t->called ||
        !call_read_prompt(t, op)) {
        task_refuse(t, ERR_UNAVAILABLE, "the store does not have (yet) what is to be run");
        return;
    }
    if (r.attempt != t->called || !r.offered || task_status_is_end(r.status)) {
        task_claim_judge(t, &r, text);
        return;
    }
    t->rev = r.rev + 1;
    t->created_ms = r.created_ms;
    if (op->doc[CALL_WISHES].result == ERR_OK)
        task_obey(t, blob_slice(op->doc[CALL_WISHES].value));
    task_take(t);
}

static void call_on_read(struct task *t, struct store_op *op)
{
    bool answered = true;
    for (unsigned i = 0; i < op->n; i++)
        answered = answered && (op->doc[i].result == ERR_OK || op->doc[i].result == ERR_NOT_FOUND);
    if (t->state != STATE_ENDED && answered)
        call_judge(t, op);
    else if (t->state != STATE_ENDED)
        task_refuse(t, ERR_UNAVAILABLE, "%s", op->err.msg);
}

void task_call_start(struct task *t)
{
    struct store_op *op = task_op_new(t, TASK_OP_LOOK, call_on_read);
    t->state = STATE_CLAIMING;
    t->attempt = t->first_attempt = t->wished_from = t->called;
    task_hub_place(t->hub, t, PLACE_CLAIMING);
    (void)task_op_add(op, STORE_GET, "task", 0);
    (void)task_op_add(op, STORE_GET, "run", t->called);
    (void)task_op_add(op, STORE_GET, "prompt", 0);
    (void)task_op_add(op, STORE_GET, "ctl", 0);
    task_op_run(op);
}
