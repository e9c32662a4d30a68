/* An owner shows that it lives by letting the record's revision grow; whoever sees it stand still
 * for a lease may take the task over. So an owner that could not write for half a lease (frozen, or
 * its store was away) may not be the owner any more, and writes nothing until it has looked whether
 * <id>~end.<n> exists, and looks again for a while: whoever found it dead may be about to create
 * that. Writes that are on their way carry the moment at which that half is over:
 * a worker that thaws with one in its hands drops it.
 *
 * Here too: wishes of other processes (<id>~ctl). The document is made by the owner, so that no
 * file system remembers for a minute that it is missing. */
#include "log.h"
#include "task_private.h"

static uint64_t lease_ms(const struct task *t)
{
    return task_hub_options(t->hub)->lease_ms;
}

uint64_t task_lease_end(const struct task *t)
{
    uint64_t wrote_at = t->live_record.wrote_at;
    uint64_t last = wrote_at > t->verified_at ? wrote_at : t->verified_at;
    if (t->thawed_at != 0 && t->verified_at <= t->thawed_at)
        return 0; /* also when it has been written since: by then it may have been another's */
    return last + lease_ms(t) / 2;
}

bool task_lease_holds(const struct task *t, uint64_t now)
{
    return now < task_lease_end(t);
}

/* --- is it still ours? ----------------------------------------------------------------------- */

static void lease_on_verified(struct task *t, struct store_op *op)
{
    if (op->doc[0].result == ERR_NOT_FOUND)
        t->verified_at = op->started_ms;
    else if (op->doc[0].result == ERR_OK)
        task_supersede(t);
}

static void lease_verify(struct task *t)
{
    struct store_op *op = task_op_new(t, TASK_OP_LEASE, lease_on_verified);
    (void)task_op_add(op, STORE_GET, "end", t->attempt);
    task_op_run(op);
}

/* --- wishes ---------------------------------------------------------------------------------- */

bool task_wishes_read(struct slice text, int64_t *ret_attempt)
{
    struct slice value;
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX};
    return json_check(text, &limits, NULL, NULL) == ERR_OK &&
           json_get_path(json_trim(text), &value, "cancel", "attempt", (char *)NULL) &&
           json_to_i64(value, ret_attempt);
}

/* That attempt is not wanted any more, nor those that follow it without anybody having asked again
 * (after a crash, after a takeover). */
void task_obey(struct task *t, struct slice text)
{
    int64_t attempt;
    if (task_wishes_read(text, &attempt) && attempt >= (int64_t)t->wished_from)
        task_cancel(t, "cancelled by a request to another instance");
}

static void ctl_on_done(struct task *t, struct store_op *op)
{
    const struct store_doc *doc = &op->doc[0];
    if (doc->result == ERR_OK || doc->result == ERR_EXISTS)
        t->ctl_made = true;
    if (doc->verb == STORE_GET && doc->result == ERR_OK)
        task_obey(t, blob_slice(doc->value));
}

static void ctl_look(struct task *t)
{
    struct store_op *op = task_op_new(t, TASK_OP_LEASE, ctl_on_done);
    struct store_doc *doc = task_op_add(op, t->ctl_made ? STORE_GET : STORE_CREATE, "ctl", 0);
    if (!t->ctl_made)
        doc->value = blob_new(SLICE("{}"));
    task_op_run(op);
}

/* --- the tick -------------------------------------------------------------------------------- */

void task_lease_tick(struct task *t, uint64_t now)
{
    bool holds = task_lease_holds(t, now);
    if (!holds)
        t->suspect_until =
            now + (uint64_t)3 * TASK_CLAIM_MS; /* a follower's look, prompt and fence */
    if (t->ops[TASK_OP_LEASE] == 0 &&
        (!holds || (now < t->suspect_until && now - t->asked_at >= lease_ms(t) / 6))) {
        t->asked_at = now;
        lease_verify(t);
    }
    if (!holds)
        return;
    bool beats = now - t->beat_at >= lease_ms(t) / 6;
    if (t->live_due || beats) {
        if (beats)
            task_beat(t);
        task_store_live(t, now);
    }
    uint64_t every = t->state == STATE_WAITING ? 2 * TASK_CTL_MS : TASK_CTL_MS;
    if (t->ops[TASK_OP_LEASE] == 0 && now - t->queued_at >= TASK_CTL_AFTER_MS &&
        now - t->ctl_at >= every) {
        t->ctl_at = now;
        ctl_look(t);
    }
}
