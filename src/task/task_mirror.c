/* A task that another process runs, as the store tells it. The record is read again and again; when
 * it says that the task has ended, so has this one. When the record stands still for a lease
 * (measured by our own clock from our own last look at something new), its owner is dead or frozen:
 *
 *     LOOK ─ stands still ─► PROMPT (what it was to run: in the claim, beside it, or with us)
 *       ▲                      │ found, attempts left      │ not
 *       │                      ▼                           ▼
 *       │                    FENCE: create <id>~end.<n>   end it as failed (which creates the same)
 *       │                      │ created    │ exists
 *       │                      ▼            ▼
 *       │                  claim n + 1     END: read it: a record is the end; a mark of somebody
 *       └── superseded by another ◄────────  who takes over: claim n + 1 too, one of us gets it
 *
 * An owner that thaws finds <id>~end.<n> taken and never writes again.
 *
 * A view for who only looks on (task_hub_follow()) stays in LOOK whatever happens to the owner, and
 * ends as refused when there is nothing to be seen. */
#include "log.h"
#include "task_private.h"

#include <string.h>

static void mirror_get(struct task *t, const char *what, unsigned attempt, task_op_cb done)
{
    struct store_op *op = task_op_new(t, TASK_OP_LOOK, done);
    (void)task_op_add(op, STORE_GET, what, attempt);
    task_op_run(op);
}

static void mirror_pause(struct task *t, bool changed)
{
    uint64_t unwatched_ms = task_hub_options(t->hub)->lease_ms / 4;
    t->mirror = MIRROR_PAUSE;
    t->poll_ms = changed ? TASK_MIRROR_MS : t->poll_ms + t->poll_ms / 2;
    if (t->poll_ms > TASK_MIRROR_MAX_MS)
        t->poll_ms = TASK_MIRROR_MAX_MS;
    /* Every process follows every task in the store: those that nobody waits for must not be read
     * many times a second by each of them. */
    bool idle = !task_has_watch(t) && t->fate == NULL && unwatched_ms > t->poll_ms;
    task_wake_in(t, idle ? unwatched_ms : t->poll_ms);
}

void task_mirror_hurry(struct task *t)
{
    if (t->state == STATE_MIRROR && t->mirror == MIRROR_PAUSE)
        task_wake_in(t, 1);
}

static void mirror_leave(struct task *t)
{
    task_hub_count_mirror(t->hub, -1);
}

/* Asked first by each answer: the hub may have given the task up meanwhile. */
static bool mirror_is_over(const struct task *t)
{
    return t->state != STATE_MIRROR;
}

static bool mirror_is_wanted(const struct task *t)
{
    return t->adopted || task_has_watch(t) || t->calling == CALLING_LOOK ||
           t->calling == CALLING_ASKS || (t->wish != NULL && task_is_at_door(t));
}

/* --- taking over ----------------------------------------------------------------------------- */

/* Revisions only grow, also when the record of the attempt in between was never seen. */
static uint64_t mirror_next_rev(const struct task *t)
{
    return (t->rev > t->seen_rev ? t->rev : t->seen_rev) + 1;
}

static void mirror_claim(struct task *t)
{
    const struct log_field fields[] = {{"task", slice_of(t->id)}, {NULL, SLICE_EMPTY}};
    log_fields(LOG_WARN, "task", fields, "its owner is dead: taking it over as attempt %u",
               t->seen_attempt + 1);
    mirror_leave(t);
    t->attempt = t->seen_attempt + 1;
    t->wished_from = t->seen_attempt;
    t->rev = mirror_next_rev(t);
    task_begin_again(t);
    task_claim_start(t);
}

void task_mirror_take(struct task *t)
{
    mirror_leave(t);
    t->attempt = t->wished_from = t->seen_attempt;
    t->rev = mirror_next_rev(t);
    if (!task_is_at_door(t))
        task_begin_again(t);
    task_take(t);
}

static void mirror_conclude(struct task *t)
{
    mirror_leave(t);
    t->attempt = t->seen_attempt;
    t->rev = mirror_next_rev(t);
    task_finish(t, TASK_FAILED,
                failure_new(FAILURE_OWNER_DIED, "the instance that ran the task died with it"));
}

/* {"superseded": …}, and not a record of an end. */
static bool is_marker(struct slice text)
{
    struct slice value;
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX};
    return json_check(text, &limits, NULL, NULL) == ERR_OK &&
           json_get(json_trim(text), "superseded", &value);
}

static void mirror_show(struct task *t, const struct record *r, struct blob *text)
{
    mirror_leave(t);
    task_show_record(t, r, text);
    task_shown_end(t);
}

static void mirror_compare(struct task *t, struct blob *end);

static void mirror_on_end_read(struct task *t, struct store_op *op)
{
    struct blob *text = op->doc[0].value;
    struct record r;
    if (mirror_is_over(t))
        return;
    if (op->doc[0].result != ERR_OK)
        mirror_pause(t, false);
    else if (is_marker(blob_slice(text)) && t->lost)
        task_mirror_follow(t, t->seen_attempt + 1);
    else if (is_marker(blob_slice(text)))
        mirror_claim(t);
    else if (record_parse(&r, blob_slice(text), NULL) == ERR_OK)
        mirror_compare(t, text);
    else
        mirror_pause(t, false);
}

static void mirror_on_fenced(struct task *t, struct store_op *op)
{
    enum err_code result = op->doc[0].result;
    if (mirror_is_over(t))
        return;
    if (result == ERR_OK) {
        mirror_claim(t);
    } else if (result == ERR_EXISTS) {
        t->mirror = MIRROR_END;
        mirror_get(t, "end", t->seen_attempt, mirror_on_end_read);
    } else {
        mirror_pause(t, false);
    }
}

static void mirror_fence(struct task *t)
{
    struct store_op *op = task_op_new(t, TASK_OP_LOOK, mirror_on_fenced);
    struct buf text;
    t->mirror = MIRROR_FENCE;
    buf_init(&text, SIZE_MAX);
    task_claim_marker(t, &text);
    (void)task_op_add_text(op, STORE_CREATE, "end", t->seen_attempt, &text);
    task_op_run(op);
}

/* Does a prompt stand in the document, and is it another than our caller's? */
static bool mirror_is_others(const struct task *t, struct slice document)
{
    struct slice prompt;
    struct slice sha256;
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX};
    return t->prompt.sha256[0] != '\0' && json_check(document, &limits, NULL, NULL) == ERR_OK &&
           json_get(json_trim(document), "prompt", &prompt) &&
           json_get(json_trim(document), "prompt_sha256", &sha256) &&
           json_kind(sha256) == JSON_STRING && !json_string_is(sha256, t->prompt.sha256);
}

static void mirror_on_prompt(struct task *t, struct store_op *op)
{
    struct blob *text = op->doc[0].value;
    bool claim = strstr(op->doc[0].key, "~run.") != NULL;
    enum err_code result = op->doc[0].result;
    if (mirror_is_over(t))
        return;
    if (result == ERR_OK && mirror_is_others(t, blob_slice(text))) {
        mirror_leave(t);
        task_refuse(t, ERR_EXISTS, "task %s has another prompt", t->id);
        return;
    }
    bool found = result == ERR_OK && task_claim_read_prompt(t, blob_slice(text), NULL) == ERR_OK;
    /* Without a record its owner died before the prompt was kept; our caller has brought it again.
     */
    bool brought = result == ERR_NOT_FOUND && t->source == NULL && t->prompt.text.len > 0;
    if ((found || brought) &&
        clock_mono_ms() - op->started_ms >= task_hub_options(t->hub)->lease_ms / 4)
        mirror_pause(t, true); /* we were frozen ourselves: the owner may have written since */
    else if (found && task_is_offered(t))
        task_mirror_take(t);
    else if (found || brought)
        mirror_fence(t);
    else if (result == ERR_OK && claim)
        mirror_get(t, "prompt", 0, mirror_on_prompt);
    else if (result == ERR_OK || result == ERR_NOT_FOUND)
        mirror_conclude(t);
    else
        mirror_pause(t, false);
}

static void mirror_take_over(struct task *t)
{
    unsigned max = task_hub_options(t->hub)->max_attempts;
    /* Adopted for a record that was gone before it was looked at. */
    if (t->seen_attempt == 0 && t->prompt.text.len > 0) {
        mirror_claim(t); /* somebody has brought the prompt since */
        return;
    }
    if (t->seen_attempt == 0) {
        mirror_leave(t);
        task_refuse(t, ERR_UNAVAILABLE, "its record is gone");
        return;
    }
    if (t->seen_attempt >= max && !task_is_offered(t)) {
        mirror_conclude(t);
        return;
    }
    t->mirror = MIRROR_PROMPT;
    mirror_get(t, "run", t->seen_attempt, mirror_on_prompt);
}

/* --- looking --------------------------------------------------------------------------------- */

/* Nothing came of a view's look. True: it was the last one. */
static bool mirror_gives_up(struct task *t, enum err_code result)
{
    if (!t->follows || (t->source != NULL && result != ERR_NOT_FOUND))
        return false;
    mirror_leave(t);
    if (result == ERR_NOT_FOUND)
        task_refuse(t, ERR_NOT_FOUND, "no task of this id is known");
    else if (result == ERR_OK)
        task_refuse(t, ERR_CORRUPT, "the stored record is not what was stored");
    else
        task_refuse(t, ERR_UNAVAILABLE, "the store does not answer");
    return true;
}

static bool mirror_is_news(const struct task *t, const struct record *r)
{
    return r->attempt > t->seen_attempt || (r->attempt == t->seen_attempt && r->rev > t->seen_rev);
}

/* True: it was the last look. */
static bool mirror_judge(struct task *t, const struct record *r, struct blob *text)
{
    if (t->prompt.sha256[0] != '\0' && !slice_is(r->prompt_sha256, t->prompt.sha256)) {
        mirror_leave(t);
        task_refuse(t, ERR_EXISTS, "task %s has another prompt", t->id);
        return true;
    }
    if (r->attempt > t->seen_attempt || !r->offered)
        t->taken = false;
    if (r->attempt > t->seen_attempt &&
        (t->calling == CALLING_ASKED || t->calling == CALLING_NOTES))
        t->calling = CALLING_NOT;
    t->seen_attempt = r->attempt;
    t->seen_rev = r->rev;
    t->seen_at = clock_mono_ms();
    bool over =
        r->status == TASK_SUCCEEDED || r->status == TASK_FAILED || r->status == TASK_CANCELLED;
    if (over) {
        mirror_show(t, r, text);
        return true;
    }
    task_show_record(t, r, text);
    t->change_told = true;
    later_add(task_hub_later(t->hub), &t->notice);
    return false;
}

/* An offered attempt has no owner who could have died. Who was called for it takes it at once. A
 * front door, which can only have another called, lets those go first who can run it. */
static void mirror_go_on(struct task *t, uint64_t still_ms, bool news)
{
    uint64_t lease_ms = task_hub_options(t->hub)->lease_ms;
    bool is_still = still_ms >= (task_is_at_door(t) ? 2 * lease_ms : lease_ms);
    bool due = is_still || (task_is_offered(t) && t->called >= t->attempt);
    bool may = !task_is_offered(t) || !task_is_at_door(t);
    if (task_offer_step(t, is_still))
        return;
    if (due && may && mirror_is_wanted(t) && !t->follows)
        mirror_take_over(t);
    else
        mirror_pause(t, news);
}

static void mirror_on_looked(struct task *t, struct store_op *op)
{
    enum err_code result = op->doc[0].result;
    struct blob *text = op->doc[0].value;
    struct record r;
    bool over = false;
    if (mirror_is_over(t))
        return;
    bool news = result == ERR_OK && record_parse(&r, blob_slice(text), NULL) == ERR_OK &&
                mirror_is_news(t, &r);
    if (news)
        over = mirror_judge(t, &r, text);
    else
        over = mirror_gives_up(t, result);
    if (result != ERR_OK && result != ERR_NOT_FOUND)
        t->seen_at = clock_mono_ms(); /* a store that does not answer says nothing of the owner */
    if (!over) {
        /* Up to the moment of asking: we may have been frozen with the answer in our hands. */
        uint64_t still = op->started_ms > t->seen_at ? op->started_ms - t->seen_at : 0;
        mirror_go_on(t, still, news);
    }
}

/* --- an end that the record does not tell ---------------------------------------------------- */

/* Its writer died, or its store failed, between the two. Without this the record would say
 * "running" for ever. But it may also be that we were frozen and others have gone on since: then
 * the record is the newer one. */
static void mirror_on_compared(struct task *t, struct store_op *op)
{
    enum err_code result = op->doc[0].result;
    struct blob *text = op->doc[0].value;
    struct blob *end = t->end_text;
    struct record said;
    struct record r;
    t->end_text = NULL;
    if (mirror_is_over(t)) {
        blob_unref(end);
        return;
    }
    ASSERT(record_parse(&r, blob_slice(end), NULL) == ERR_OK);
    bool readable = result == ERR_OK && record_parse(&said, blob_slice(text), NULL) == ERR_OK;
    if (result != ERR_OK && result != ERR_NOT_FOUND) {
        mirror_pause(t, false);
    } else if (readable && (said.attempt > r.attempt ||
                            (said.attempt == r.attempt && task_status_is_end(said.status)))) {
        t->lost = false;
        if (!mirror_judge(t, &said, text))
            mirror_pause(t, true);
    } else {
        mirror_leave(t);
        task_show_record(t, &r, end);
        task_store_copies(t);
    }
    blob_unref(end);
}

static void mirror_compare(struct task *t, struct blob *end)
{
    t->end_text = blob_ref(end);
    mirror_get(t, "task", 0, mirror_on_compared);
}

void task_mirror_step(struct task *t)
{
    if (t->mirror != MIRROR_PAUSE || !t->timer_fired || t->ops[TASK_OP_LOOK] > 0)
        return;
    t->timer_fired = false;
    if (t->fate != NULL || !mirror_is_wanted(t)) {
        mirror_leave(t);
        task_refuse(t, ERR_UNAVAILABLE, "stopping");
        return;
    }
    t->mirror = MIRROR_LOOK;
    mirror_get(t, "task", 0, mirror_on_looked);
}

void task_mirror_follow(struct task *t, unsigned attempt)
{
    t->lost = false;
    t->seen_attempt = attempt;
    t->seen_rev = 0;
    t->seen_at = clock_mono_ms();
    t->poll_ms = TASK_MIRROR_MS;
    t->mirror = MIRROR_LOOK;
    mirror_get(t, "task", 0, mirror_on_looked);
}

static void mirror_enter(struct task *t)
{
    t->state = STATE_MIRROR;
    t->claimed = false;
    (void)uv_timer_stop(&t->timer);
    task_hub_place(t->hub, t, PLACE_CLAIMING);
    task_hub_count_mirror(t->hub, 1);
}

void task_mirror_start(struct task *t, unsigned attempt)
{
    mirror_enter(t);
    task_mirror_follow(t, attempt);
}

/* The store did not do what the last look led to: the next one comes after a pause, which grows. */
void task_mirror_start_later(struct task *t, unsigned attempt)
{
    mirror_enter(t);
    t->lost = false;
    t->seen_attempt = attempt;
    t->seen_rev = 0;
    t->seen_at = clock_mono_ms();
    mirror_pause(t, false);
}

void task_mirror_after_loss(struct task *t)
{
    const struct log_field fields[] = {{"task", slice_of(t->id)}, {NULL, SLICE_EMPTY}};
    log_fields(LOG_WARN, "task", fields, "attempt %u was taken over or ended by another instance",
               t->attempt);
    mirror_enter(t);
    task_forget_kept(t); /* of our attempt */
    t->lost = true;
    t->seen_attempt = t->attempt;
    t->seen_rev = t->rev;
    t->seen_at = clock_mono_ms();
    t->poll_ms = TASK_MIRROR_MS;
    t->mirror = MIRROR_END;
    mirror_get(t, "end", t->attempt, mirror_on_end_read);
}
