/* Whose is this id? Two callers may send one at the same moment, to two processes; a caller may
 * send it again after minutes; a process may die with it. The store decides, by documents that can
 * only be created once:
 *
 *     <id>~run.<n>   attempt n has an owner          {"claim": {instance, nonce, at}, "prompt": …}
 *     <id>~end.<n>   attempt n has ended: either the record of its end, or {"superseded": …}, by
 *                    whoever takes the task over from an owner that is dead
 *
 *     CLAIMING ─created─► WAITING
 *        │ exists
 *        ▼
 *     read <id>~task ─ other prompt ─► refused (409)
 *        │ succeeded, or an end that is not worth repeating ─► ended: the caller gets it
 *        │ failed, cancelled ─► CLAIMING attempt n + 1
 *        └ runs ─► MIRROR
 *
 * A store that does not answer is no reason not to run: the task goes on unclaimed, and its reply
 * says that it could not be stored if that stays so. */
#include "log.h"
#include "task_private.h"

#include <stdio.h>

void task_refuse(struct task *t, enum err_code code, const char *fmt, ...)
{
    va_list args;
    char text[sizeof(t->refused->msg)];
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    t->refused = t->refused != NULL ? t->refused : xmalloc(sizeof(*t->refused));
    (void)err_set(t->refused, code, "%s", text);
    t->state = STATE_ENDED;
    (void)uv_timer_stop(&t->timer);
    later_add(task_hub_later(t->hub), &t->notice);
    task_hub_remove(t->hub, t);
}

/* --- the document ---------------------------------------------------------------------------- */

void task_claim_document(const struct task *t, bool with_prompt, struct buf *out)
{
    char nonce[UUID_TEXT + 1];
    uuid_v4(nonce);
    buf_adds(out, "{\"claim\":{\"instance\":");
    buf_add_json_string(out, slice_of(task_hub_options(t->hub)->instance));
    buf_adds(out, ",\"nonce\":\"");
    buf_adds(out, nonce);
    buf_adds(out, "\",\"at\":");
    buf_add_u64(out, clock_wall_ms());
    buf_adds(out, "},\"prompt_sha256\":\"");
    buf_adds(out, t->prompt.sha256);
    buf_adds(out, "\",\"seeds\":");
    buf_add(out, buf_slice(&t->prompt.seeds));
    if (with_prompt && t->prompt.text.len > 0) {
        buf_adds(out, ",\"prompt\":");
        buf_add(out, buf_slice(&t->prompt.text));
        if (t->prompt.extra_data.len > 0)
            buf_addf(out, ",\"extra_data\":%.*s", SLICE_ARGS(t->prompt.extra_data));
        if (t->prompt.targets.len > 0)
            buf_addf(out, ",\"partial_execution_targets\":%.*s", SLICE_ARGS(t->prompt.targets));
        if (t->metadata.len > 0)
            buf_addf(out, ",\"metadata\":%s", t->metadata.ptr);
    }
    buf_adds(out, "}");
}

/* The seeds are the stored ones, the digest that of what was sent. */
enum err_code task_claim_read_prompt(struct task *t, struct slice document, struct err *err)
{
    struct buf body;
    struct prompt p;
    struct prompt_fault fault;
    struct slice sha256;
    struct slice seeds;
    buf_init(&body, SIZE_MAX);
    buf_add(&body, document);
    enum err_code code = prompt_parse_kept(&p, &body, &fault);
    struct slice top = json_trim(document);
    if (code != ERR_OK || !json_get(top, "prompt_sha256", &sha256) ||
        json_kind(sha256) != JSON_STRING || sha256.len != SHA256_TEXT + 2 ||
        !json_get(top, "seeds", &seeds) || json_kind(seeds) != JSON_OBJECT) {
        prompt_done(&p);
        return err_set(err, ERR_CORRUPT, "a stored claim has no prompt");
    }
    slice_copy((struct slice){sha256.ptr + 1, SHA256_TEXT}, p.sha256, sizeof(p.sha256));
    buf_reset(&p.seeds);
    buf_add(&p.seeds, seeds);
    task_take_prompt(t, &p);
    return ERR_OK;
}

/* --- claiming -------------------------------------------------------------------------------- */

static void claim_won(struct task *t, uint64_t asked_at)
{
    if (task_is_at_door(t)) {
        task_offer_claimed(t);
        return;
    }
    t->claimed = true;
    t->takes = false;
    t->must_store = false; /* its caller is answered: no later attempt is refused for the store */
    t->verified_at = asked_at;
    task_store_begin(t);
    t->state = STATE_WAITING;
    task_hub_enqueue(t->hub, t);
    task_changed(t);
    task_step(t); /* somebody may not want it any more */
}

static void claim_on_done(struct task *t, struct store_op *op)
{
    unsigned at = op->n > 1 && op->doc[0].verb == STORE_CREATE && op->doc[1].verb == STORE_CREATE;
    enum err_code fence = op->doc[0].result;
    enum err_code claim = at == 1 && fence == ERR_OK ? op->doc[1].result : fence;
    bool recorded = op->doc[op->n - 1].result == ERR_OK;
    /* What is offered is nothing without the store; what is taken back is tried again. */
    bool must_store = task_is_at_door(t) ? !t->takes : t->must_store;
    if (t->state == STATE_ENDED) {
        /* the hub gave it up meanwhile */
    } else if (claim == ERR_OK && (recorded || !must_store)) {
        claim_won(t, op->started_ms);
    } else if (t->takes && (claim == ERR_EXISTS || !must_store)) {
        t->takes = false;
        t->taken = claim == ERR_EXISTS;
        if (t->taken)
            task_mirror_start(t, t->attempt);
        else
            task_mirror_start_later(t, t->attempt);
    } else if (claim == ERR_EXISTS) {
        task_claim_look(t);
    } else if (must_store) {
        task_refuse(t, op->err.code == ERR_TOO_LARGE ? op->err.code : ERR_UNAVAILABLE,
                    "the task could not be stored: %s", op->err.msg);
    } else {
        log_warn("store", "task %s goes on without a claim: %s", t->id, op->err.msg);
        claim_won(t, op->started_ms);
        t->claimed = false;
    }
}

static size_t claim_len(const struct task *t)
{
    return t->prompt.text.len + t->prompt.extra_data.len + t->prompt.targets.len + t->metadata.len +
           t->prompt.seeds.len + TASK_CLAIM_REST;
}

bool task_prompt_is_large(const struct task *t)
{
    return claim_len(t) > TASK_CLAIM_PROMPT_MAX;
}

struct blob *task_claim_prompt(const struct task *t)
{
    struct buf text;
    struct blob *kept = NULL;
    size_t len = claim_len(t);
    buf_init(&text, SIZE_MAX);
    if (len <= STORE_VALUE_MAX && buf_reserve(&text, len) == ERR_OK) {
        task_claim_document(t, true, &text);
        kept = blob_try_new(buf_slice(&text));
    }
    buf_done(&text);
    if (kept == NULL)
        log_warn("store", "the prompt of task %s is too large to be kept%s", t->id,
                 len <= STORE_VALUE_MAX ? " at the moment" : "");
    return kept;
}

static struct store_op *claim_begin(struct task *t)
{
    ASSERT(!t->live && t->live_ends == 0);
    t->state = STATE_CLAIMING;
    t->claimed = false;
    task_hub_place(t->hub, t, PLACE_CLAIMING);
    task_set_text(&t->instance, slice_of(task_hub_options(t->hub)->instance));
    return task_op_new(t, TASK_OP_LOOK, claim_on_done);
}

static struct blob *claim_blob(const struct task *t, bool with_prompt)
{
    task_claim_document(t, with_prompt, task_hub_draft(t->hub));
    return task_hub_draft_blob(t->hub);
}

static struct blob *make_claim(struct task *t)
{
    return claim_blob(t, false);
}

struct blob *task_make_small_prompt(struct task *t)
{
    ASSERT(!task_prompt_is_large(t));
    return claim_blob(t, true);
}

static void add_record(struct store_op *op, struct task *t)
{
    struct store_doc *doc = task_op_add(op, STORE_PUT, "task", 0);
    doc->value = blob_ref(task_record(t));
    doc->order = task_order(t);
}

/* Fences the attempt before, if it was ours; creates the claim; writes the record. A prompt that is
 * not kept is claimed like any other; only nobody can take it over. */
void task_claim_start(struct task *t)
{
    struct buf text;
    bool large = task_prompt_is_large(t);
    struct blob *prompt = large ? task_claim_prompt(t) : NULL;
    if (large && prompt == NULL && t->must_store) {
        task_refuse(t, ERR_UNAVAILABLE, "there is no memory for the prompt at the moment");
        return;
    }
    struct store_op *op = claim_begin(t);
    if (t->fence) {
        buf_init(&text, SIZE_MAX);
        task_claim_marker(t, &text);
        task_op_add_text(op, STORE_CREATE, "end", t->attempt - 1, &text)->order = task_order(t);
        t->fence = false;
    }
    task_op_add_made(op, STORE_CREATE, "run", t->attempt,
                     large ? make_claim : task_make_small_prompt);
    if (prompt != NULL)
        task_op_add_prompt(op, t, prompt);
    add_record(op, t);
    /* A door that is frozen with this in its hands is taken for dead: it must not offer again what
     * others have run since. Who runs it itself is kept from that by its lease. */
    if (task_is_at_door(t))
        op->not_after_ms = clock_mono_ms() + task_hub_options(t->hub)->lease_ms / 2;
    task_op_run(op);
}

void task_take(struct task *t)
{
    struct store_op *op = claim_begin(t);
    t->takes = true;
    task_op_add_made(op, STORE_CREATE, "take", t->attempt, make_claim);
    if (!task_is_at_door(t)) /* there its end follows at once */
        add_record(op, t);
    task_op_run(op);
}

void task_claim_marker(const struct task *t, struct buf *out)
{
    buf_adds(out, "{\"superseded\":{\"instance\":");
    buf_add_json_string(out, slice_of(task_hub_options(t->hub)->instance));
    buf_addf(out, ",\"at\":%llu}}", (unsigned long long)clock_wall_ms());
}

/* --- it is taken ----------------------------------------------------------------------------- */

/* The platform delivers again what it thinks did not work; people ask again because they want it.
 */
static bool deserves_another(const struct task *t, const struct record *r)
{
    bool redelivery = t->redelivered || (r->request_id.len > 0 && t->request_id[0] != '\0' &&
                                         slice_is(r->request_id, t->request_id));
    if (r->status == TASK_SUCCEEDED)
        return false;
    if (!redelivery)
        return t->called == 0; /* a call is for one attempt, which has ended */
    struct failure *f = r->error.len > 0 ? failure_read(r->error) : NULL;
    bool worth = f != NULL && failure_is_passing(f->code);
    if (t->called > 0 && f != NULL && failure_is_doors(f->code))
        worth = false;
    failure_free(f);
    return worth && r->attempt < task_hub_options(t->hub)->max_attempts;
}

/* What was no prompt keeps no prompt from coming under its id. */
static bool is_refusal(const struct record *r)
{
    struct failure *f =
        r->status == TASK_FAILED && r->error.len > 0 ? failure_read(r->error) : NULL;
    bool refusal = f != NULL && failure_is_refusal(f->code);
    failure_free(f);
    return refusal;
}

static void claim_next(struct task *t, const struct record *r)
{
    t->attempt = r->attempt + 1;
    t->first_attempt = t->redelivered ? 1 : t->attempt;
    t->wished_from = t->attempt;
    t->reruns = 0; /* of those before */
    t->freed = false;
    t->rev = r->rev + 1;
    task_claim_start(t);
}

void task_claim_judge(struct task *t, const struct record *r, struct blob *text)
{
    bool same = slice_is(r->prompt_sha256, t->prompt.sha256);
    if (!same && is_refusal(r) && r->attempt >= t->attempt) {
        claim_next(t, r);
    } else if (!same) {
        task_refuse(t, ERR_EXISTS, "task %s has another prompt", t->id);
    } else if (r->attempt < t->attempt || !task_status_is_end(r->status)) {
        task_mirror_start(t, r->attempt > t->attempt ? r->attempt : t->attempt);
    } else if (deserves_another(t, r)) {
        claim_next(t, r);
    } else {
        task_show_record(t, r, text);
        task_shown_end(t);
    }
}

static void claim_on_looked(struct task *t, struct store_op *op)
{
    struct blob *text = op->doc[0].value;
    struct record r;
    struct err err;
    if (t->state == STATE_ENDED) {
        /* the hub gave it up meanwhile */
    } else if (op->doc[0].result == ERR_OK) {
        if (record_parse(&r, blob_slice(text), &err) == ERR_OK)
            task_claim_judge(t, &r, text);
        else
            task_refuse(t, ERR_CORRUPT, "%s", err.msg);
    } else if (op->doc[0].result == ERR_NOT_FOUND) {
        task_mirror_start(t, t->attempt); /* claimed, but its record is not there yet */
    } else {
        task_refuse(t, ERR_UNAVAILABLE, "%s", op->err.msg);
    }
}

void task_claim_look(struct task *t)
{
    struct store_op *op = task_op_new(t, TASK_OP_LOOK, claim_on_looked);
    (void)task_op_add(op, STORE_GET, "task", 0);
    task_op_run(op);
}

/* A record of the end is all there is to tell. */
void task_shown_end(struct task *t)
{
    t->state = STATE_ENDED;
    t->stored = true;
    (void)uv_timer_stop(&t->timer);
    later_add(task_hub_later(t->hub), &t->notice);
    task_hub_remove(t->hub, t);
}
