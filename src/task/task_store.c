/* A task's documents. `<id>~task` is the record, the truth; `<id>` the node map alone, for older
 * readers and for `cat`. Both are written live (the newest value wins, a write starts only when the
 * one before is done), the first record at once, the node map from TASK_LIVE_AFTER_MS on, and both
 * a last time, durably, in one operation. Writing that last time goes on until it succeeds. */
#include "log.h"
#include "task_private.h"

#include <stdio.h>

/* The store's, and not kept here: most tasks are not asked for between two writes. */
static struct blob *give_away(struct blob **rendering)
{
    struct blob *blob = *rendering;
    *rendering = NULL;
    return blob;
}

static struct blob *record_on_render(struct store_live *live, uint64_t *ret_order)
{
    struct task *t = CONTAINER_OF(live, struct task, live_record);
    *ret_order = task_order(t);
    (void)task_record(t);
    return give_away(&t->record_blob);
}

static struct blob *nodes_on_render(struct store_live *live, uint64_t *ret_order)
{
    struct task *t = CONTAINER_OF(live, struct task, live_nodes);
    *ret_order = task_order(t);
    (void)task_nodes(t);
    return give_away(&t->nodes_blob);
}

void task_store_begin(struct task *t)
{
    struct store *s = task_hub_options(t->hub)->store;
    char key[STORE_KEY_MAX + 1];
    if (t->live)
        return;
    if (t->record_key == NULL) {
        (void)snprintf(key, sizeof(key), "%s~task", t->id);
        t->record_key = xstrdup(key);
    }
    store_live_init(&t->live_record, s, t->record_key);
    t->live_record.render = record_on_render;
    store_live_init(&t->live_nodes, s, t->id);
    t->live_nodes.render = nodes_on_render;
    t->live = true;
}

static struct store_doc *add_own(const struct task *t, struct store_op *op, enum store_verb verb,
                                 const char *what, unsigned attempt, struct blob *value)
{
    struct store_doc *doc = task_op_add(op, verb, what, attempt);
    doc->value = blob_ref(value);
    doc->order = task_order(t);
    return doc;
}

static void first_on_done(struct task *t, struct store_op *op)
{
    if (!t->given) { /* it was for this operation alone */
        blob_unref(t->before);
        t->before = NULL;
    }
    if (op->doc[op->n - 1].result == ERR_OK && t->verified_at < op->started_ms)
        t->verified_at = op->started_ms;
    else
        t->live_due = true;
}

/* An end that came meanwhile is for the next operation to tell. */
static struct blob *make_first_record(struct task *t)
{
    if (t->before != NULL)
        return blob_ref(t->before);
    (void)task_record(t);
    return give_away(&t->record_blob);
}

/* Its id is nobody else's, so nothing is waited for. */
void task_store_first(struct task *t)
{
    struct store_op *op = task_op_new(t, TASK_OP_LOOK, first_on_done);
    /* Inputs that are fetched change it, perhaps before this is written: it is kept as it came. */
    bool at_once = task_prompt_is_large(t) || inputs_are_there(&t->prompt);
    struct blob *prompt = at_once ? task_claim_prompt(t) : NULL;
    t->state = STATE_WAITING;
    task_store_begin(t);
    if (!at_once)
        task_op_add_made(op, STORE_PUT, "prompt", 0, task_make_small_prompt);
    else if (prompt != NULL)
        task_op_add_prompt(op, t, prompt);
    task_op_add_made(op, STORE_PUT, "task", 0, make_first_record);
    task_op_run(op);
}

/* The first record is written at once; what changes soon after it waits for the tick: a run that is
 * over by then costs no write in between. */
void task_store_live(struct task *t, uint64_t now)
{
    t->live_due = true;
    if (!t->live || now < t->queued_at + TASK_LIVE_AFTER_MS || !task_lease_holds(t, now))
        return;
    t->live_due = false;
    t->beat_at = now;
    t->live_record.not_after_ms = t->live_nodes.not_after_ms = task_lease_end(t);
    store_touch(&t->live_record);
    store_touch(&t->live_nodes);
}

void task_beat(struct task *t)
{
    t->rev++;
    t->updated_ms = clock_wall_ms();
}

/* --- the end --------------------------------------------------------------------------------- */

static void end_fail(struct task *t, const struct err *err)
{
    if (!t->store_failed)
        log_error("store", "the end of task %s could not be stored, trying on: %s", t->id,
                  err->msg);
    t->store_failed = true;
    later_add(task_hub_later(t->hub), &t->notice);
    task_hub_stored(t->hub, t);
}

static void end_write(struct task *t);

/* Whose end is there? Ours, if an answer of the store was late. Another's: what was told does not
 * change any more, and whoever asks from now on gets the record. */
static void end_on_read(struct task *t, struct store_op *op)
{
    struct blob *text = op->doc[0].value;
    if (t->state == STATE_ENDED) {
        /* the hub gave it up meanwhile */
    } else if (op->doc[0].result != ERR_OK) {
        end_fail(t, &op->err);
    } else if (slice_eq(blob_slice(text), blob_slice(task_record(t)))) {
        t->end_created = true;
        end_write(t);
    } else {
        log_error("store", "task %s: its end is not stored, another instance's is", t->id);
        t->state = STATE_ENDED;
        task_hub_remove(t->hub, t);
    }
}

/* Who was told nothing yet hears what the record says. */
static void end_on_exists(struct task *t)
{
    struct store_op *op;
    if (!t->store_failed && t->given) {
        task_mirror_after_loss(t);
        return;
    }
    op = task_op_new(t, TASK_OP_END, end_on_read);
    (void)task_op_add(op, STORE_GET, "end", t->attempt);
    task_op_run(op);
}

static void end_on_stored(struct task *t, struct store_op *op)
{
    bool ok = true;
    for (unsigned i = 0; i < op->n; i++)
        ok = ok && op->doc[i].result == ERR_OK;
    if (t->state == STATE_ENDED) {
        /* the hub gave it up meanwhile: nobody is left to be told */
    } else if (op->doc[0].result == ERR_EXISTS && !t->end_created) {
        end_on_exists(t);
    } else if (ok) {
        t->stored = true;
        t->state = STATE_ENDED;
        later_add(task_hub_later(t->hub), &t->notice);
        task_hub_stored(t->hub, t);
    } else {
        t->end_created =
            t->end_created || (op->doc[0].verb == STORE_CREATE && op->doc[0].result == ERR_OK);
        end_fail(t, &op->err);
    }
}

/* Whoever creates the end has ended it; the others are copies for those who look. Who was frozen
 * may have been ended by somebody else, also where nobody can claim. */
static void end_write(struct task *t)
{
    struct store_op *op = task_op_new(t, TASK_OP_END, end_on_stored);
    op->deadline_ms = TASK_END_STORE_MS;
    struct blob *nodes = task_nodes(t); /* first: the record takes them over */
    if ((t->given || !task_lease_holds(t, clock_mono_ms())) && !t->end_created)
        (void)add_own(t, op, STORE_CREATE, "end", t->attempt, task_record(t));
    (void)add_own(t, op, STORE_PUT, NULL, 0, nodes);
    add_own(t, op, STORE_PUT, "task", 0, task_record(t))->durable = true;
    task_op_run(op);
}

static void end_begin(struct task *t)
{
    bool superseded = t->failure != NULL && t->failure->code == FAILURE_SUPERSEDED;
    if (superseded && t->left_over && task_has_watch(t)) {
        task_refuse(t, ERR_UNAVAILABLE, "stopping"); /* somebody has come for it meanwhile */
    } else if (superseded && t->left_over) {
        t->state = STATE_ENDED;
        task_hub_remove(t->hub, t);
    } else if (superseded) {
        task_mirror_after_loss(t);
    } else {
        end_write(t);
    }
}

static void live_on_end(struct task *t)
{
    if (--t->live_ends == 0 && t->state == STATE_STORING)
        end_begin(t);
    else if (t->live_ends == 0)
        task_step(t); /* RETREAT waits for it; an ended task was given up by the hub */
    closer_release(&t->closer);
}

static void record_on_end(struct store_live *live)
{
    live_on_end(CONTAINER_OF(live, struct task, live_record));
}

static void nodes_on_end(struct store_live *live)
{
    live_on_end(CONTAINER_OF(live, struct task, live_nodes));
}

bool task_store_pause(struct task *t)
{
    if (t->live) {
        t->live = false;
        t->live_ends = 2;
        closer_hold(&t->closer);
        closer_hold(&t->closer);
        store_live_end(&t->live_record, record_on_end);
        store_live_end(&t->live_nodes, nodes_on_end);
    }
    return t->live_ends == 0;
}

/* No older value may land after the last one. */
void task_store_end(struct task *t)
{
    if (task_store_pause(t)) /* it was never ours to write */
        end_begin(t);
}

void task_store_copies(struct task *t)
{
    t->state = STATE_STORING;
    t->end_created = true;
    (void)uv_timer_stop(&t->timer);
    task_hub_place(t->hub, t, PLACE_STORING);
    end_write(t);
}

void task_store_again(struct task *t)
{
    if (t->ops[TASK_OP_END] == 0 && t->live_ends == 0)
        end_write(t);
}
