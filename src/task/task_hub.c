/* Who waits, and who is in ComfyUI's hands. */
#include "left.h"
#include "log.h"
#include "task_hub_private.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    HUB_DRAFT_KEPT = 64 * 1024,
    HUB_UNSTORED_MAX = 1000,
    HUB_MIRRORS_MAX = 4096,
    HUB_LEFT_MS = 180000, /* a cold load of a large model from a NAS takes two minutes */
};

/* --- index ----------------------------------------------------------------------------------- */

static struct list_node *bucket_of(struct task_hub *h, struct slice id)
{
    uint64_t hash = h->hash_seed;
    for (size_t i = 0; i < id.len; i++)
        hash = (hash ^ (unsigned char)id.ptr[i]) * 0x100000001b3u;
    return &h->buckets[(hash ^ (hash >> 32)) % HUB_BUCKETS];
}

/* An id may have a view besides its task: who comes to run it must not find that. */
static struct task *hub_find(struct task_hub *h, struct slice id, bool follows)
{
    struct list_node *bucket = bucket_of(h, id);
    LIST_FOREACH (node, bucket) {
        struct task *t = CONTAINER_OF(node, struct task, bucket);
        if (t->follows == follows && slice_is(id, t->id))
            return t;
    }
    return NULL;
}

struct task *task_hub_find(struct task_hub *h, struct slice id)
{
    return hub_find(h, id, false);
}

/* --- the queue ------------------------------------------------------------------------------- */

static bool hub_may_submit(const struct task_hub *h)
{
    if (h->count[PLACE_ACTIVE] >= h->options.max_concurrency || !comfy_is_open(h->options.comfy) ||
        supervisor_state(h->options.supervisor) != SUPERVISOR_READY)
        return false;
    if (comfy_takes_ids(h->options.comfy))
        return true;
    /* It chooses the prompt's id: only one may be unknown at a time. */
    LIST_FOREACH (node, &h->list[PLACE_ACTIVE]) {
        const struct task *t = CONTAINER_OF(node, struct task, link);
        if (task_awaits_id(t))
            return false;
    }
    return true;
}

static void hub_on_pump(struct later_item *item)
{
    struct task_hub *h = CONTAINER_OF(item, struct task_hub, pump_item);
    while (!list_is_empty(&h->list[PLACE_WAITING]) && hub_may_submit(h)) {
        struct task *t = CONTAINER_OF(h->list[PLACE_WAITING].next, struct task, link);
        task_hub_place(h, t, PLACE_ACTIVE);
        task_start(t);
    }
}

void task_hub_pump(struct task_hub *h)
{
    later_add(h->later, &h->pump_item);
}

/* --- life ------------------------------------------------------------------------------------ */

static void hub_on_drained(struct later_item *item)
{
    struct task_hub *h = CONTAINER_OF(item, struct task_hub, drained_item);
    if (h->drained != NULL && !h->drained_told) {
        h->drained_told = true;
        h->drained(h->drained_ctx);
    }
}

/* ComfyUI stays when we go, and would work on for nobody. */
static void hub_hurry_left(struct task_hub *h)
{
    if (!h->left_hurried && left_count(h->left) > 0 &&
        supervisor_is_attached(h->options.supervisor))
        left_hurry(h->left);
    h->left_hurried = true;
}

static void hub_look_if_drained(struct task_hub *h)
{
    if (!h->draining || h->count[PLACE_CLAIMING] > 0 || h->count[PLACE_WAITING] > 0 ||
        h->count[PLACE_ACTIVE] > 0 || h->count[PLACE_STORING] > 0)
        return;
    hub_hurry_left(h);
    if (!left_hurries(h->left))
        later_add(h->later, &h->drained_item);
}

static void hub_on_hurried(void *ctx)
{
    hub_look_if_drained(ctx);
}

struct task_hub *task_hub_new(uv_loop_t *loop, struct later *later,
                              const struct task_hub_options *options)
{
    struct task_hub *h = xcalloc(1, sizeof(*h));
    h->options = *options;
    h->loop = loop;
    h->later = later;
    for (unsigned i = 0; i < PLACES; i++)
        list_init(&h->list[i]);
    for (unsigned i = 0; i < HUB_BUCKETS; i++)
        list_init(&h->buckets[i]);
    random_bytes(&h->hash_seed, sizeof(h->hash_seed));
    silent_init(&h->silent);
    buf_init(&h->draft, SIZE_MAX);
    later_item_init(&h->drained_item, hub_on_drained);
    later_item_init(&h->pump_item, hub_on_pump);
    closer_init(&h->closer, loop);
    ASSERT(uv_timer_init(loop, &h->tick) == 0);
    h->tick.data = h;
    closer_hold(&h->closer);
    struct left_options left = {options->comfy, options->supervisor,
                                .patience_ms = options->stall_timeout_ms < HUB_LEFT_MS
                                                   ? options->stall_timeout_ms
                                                   : HUB_LEFT_MS,
                                .hurried = hub_on_hurried, .ctx = h};
    h->left = left_new(loop, &left);
    closer_hold(&h->closer);
    h->closed_at = clock_mono_ms();
    return h;
}

static void hub_on_tick_closed(uv_handle_t *handle)
{
    struct task_hub *h = handle->data;
    closer_release(&h->closer);
}

static void hub_on_left_closed(void *ctx)
{
    struct task_hub *h = ctx;
    closer_release(&h->closer);
}

static void hub_on_closed(struct closer *closer)
{
    struct task_hub *h = CONTAINER_OF(closer, struct task_hub, closer);
    void (*closed)(void *ctx) = h->closed;
    void *ctx = h->closed_ctx;
    buf_done(&h->draft);
    free(h);
    if (closed != NULL)
        closed(ctx);
}

void task_hub_free(struct task_hub *h, void (*closed)(void *ctx), void *ctx)
{
    /* What the store has not answered by now comes too late: whoever asked finds the task ENDED. */
    LIST_FOREACH_SAFE (node, next, &h->list[PLACE_STORING]) {
        struct task *t = CONTAINER_OF(node, struct task, link);
        log_error("task", "the end of task %s was never stored", t->id);
        t->state = STATE_ENDED;
        task_hub_remove(h, t);
    }
    LIST_FOREACH_SAFE (node, next, &h->list[PLACE_CLAIMING])
        task_refuse(CONTAINER_OF(node, struct task, link), ERR_UNAVAILABLE, "stopping");
    ASSERT(h->count[PLACE_WAITING] == 0 && h->count[PLACE_ACTIVE] == 0);
    h->closed = closed;
    h->closed_ctx = ctx;
    later_cancel(h->later, &h->drained_item);
    later_cancel(h->later, &h->pump_item);
    uv_close((uv_handle_t *)&h->tick, hub_on_tick_closed);
    left_free(h->left, hub_on_left_closed, h);
    closer_begin(&h->closer, hub_on_closed);
}

const struct task_hub_options *task_hub_options(const struct task_hub *h)
{
    return &h->options;
}

struct later *task_hub_later(struct task_hub *h)
{
    return h->later;
}

uv_loop_t *task_hub_loop(struct task_hub *h)
{
    return h->loop;
}

struct task_hub_stats task_hub_stats(const struct task_hub *h)
{
    struct task_hub_stats s = h->stats;
    s.waiting = h->count[PLACE_WAITING];
    s.active = h->count[PLACE_ACTIVE];
    s.unstored = h->count[PLACE_STORING];
    return s;
}

/* The hub outlives every task, also those that only a reader of results still holds. */
struct closer *task_hub_closer(struct task_hub *h)
{
    return &h->closer;
}

struct buf *task_hub_draft(struct task_hub *h)
{
    buf_reset(&h->draft);
    return &h->draft;
}

struct blob *task_hub_draft_blob(struct task_hub *h)
{
    struct blob *blob = blob_new(buf_slice(&h->draft));
    if (h->draft.cap > HUB_DRAFT_KEPT)
        buf_done(&h->draft);
    return blob;
}

struct silent_classes *task_hub_silent(struct task_hub *h)
{
    return &h->silent;
}

void task_hub_count(struct task_hub *h, const struct task *t)
{
    enum task_status status = t->status;
    uint64_t now = clock_mono_ms();
    uint64_t sent = t->submitted_at != 0 ? t->submitted_at : now;
    histogram_add(&h->stats.queued, sent - t->queued_at);
    if (t->submitted_at != 0)
        histogram_add(&h->stats.run, now - t->submitted_at);
    if (status == TASK_SUCCEEDED)
        h->stats.succeeded++;
    else if (status == TASK_FAILED)
        h->stats.failed++;
    else
        h->stats.cancelled++;
}

/* --- lists ----------------------------------------------------------------------------------- */

void task_hub_place(struct task_hub *h, struct task *t, enum task_place place)
{
    list_remove(&t->link);
    if (t->place != PLACE_NONE)
        h->count[t->place]--;
    if (t->place == PLACE_ACTIVE && h->count[PLACE_ACTIVE] == 0)
        h->idle_at = clock_mono_ms();
    t->place = place;
    if (h->last == t)
        h->last = NULL;
    if (place != PLACE_NONE) {
        list_add(&h->list[place], &t->link);
        h->count[place]++;
        task_hub_want_tick(h);
    }
    if (place == PLACE_WAITING && comfy_is_open(h->options.comfy) && t->open_at == 0)
        t->open_at = clock_mono_ms();
    task_hub_pump(h);
}

void task_hub_remove(struct task_hub *h, struct task *t)
{
    ASSERT(t->state == STATE_ENDED);
    task_hub_place(h, t, PLACE_NONE);
    list_remove(&t->bucket);
    hub_look_if_drained(h);
    task_unref(t);
}

void task_hub_stored(struct task_hub *h, struct task *t)
{
    if (t->stored) {
        task_hub_remove(h, t);
        return;
    }
    task_hub_want_tick(h);
    if (h->count[PLACE_STORING] > HUB_UNSTORED_MAX) {
        struct task *oldest = CONTAINER_OF(h->list[PLACE_STORING].next, struct task, link);
        if (oldest->store_failed && oldest->ops[TASK_OP_END] == 0) {
            log_error("task", "too many ends wait for the store: that of task %s is lost",
                      oldest->id);
            oldest->state = STATE_ENDED;
            task_hub_remove(h, oldest);
        }
    }
}

/* --- new tasks ------------------------------------------------------------------------------- */

void task_hub_enqueue_first(struct task_hub *h, struct task *t)
{
    task_hub_place(h, t, PLACE_WAITING);
    list_remove(&t->link);
    list_push(&h->list[PLACE_WAITING], &t->link);
}

/* An attempt that follows one of ours goes first: its caller has waited already. */
void task_hub_enqueue(struct task_hub *h, struct task *t)
{
    if (t->attempt > t->first_attempt)
        task_hub_enqueue_first(h, t);
    else
        task_hub_place(h, t, PLACE_WAITING);
}

/* One that comes late names an attempt that is over. Who does not wait for the end is told that the
 * task is here, and leaves: it goes on though nobody watches. */
static void hub_join_call(struct task *t, const struct task_spec *spec)
{
    if (spec->called <= t->called)
        return;
    t->called = spec->called;
    t->adopted = t->adopted || (t->state == STATE_MIRROR && !spec->waits);
}

static enum err_code hub_join(struct task *t, struct task_spec *spec, struct task **ret,
                              bool *ret_joined, struct err *err)
{
    if (spec->called > 0)
        hub_join_call(t, spec); /* the store knows which prompt */
    else if (t->called > 0 && t->state == STATE_CLAIMING && t->prompt.sha256[0] == '\0')
        return err_set(err, ERR_UNAVAILABLE, "the store is asked just now what task %s runs",
                       t->id);
    else if (t->prompt.sha256[0] == '\0' && spec->take_refusal == NULL)
        task_take_prompt(t, spec->take_prompt); /* just found in the store: its record will tell */
    else if (strcmp(t->prompt.sha256, spec->take_prompt->sha256) != 0)
        return err_set(err, ERR_EXISTS, "task %s has another prompt", t->id);
    prompt_done(spec->take_prompt);
    failure_free(spec->take_refusal);
    task_mirror_hurry(t);
    *ret_joined = true;
    *ret = task_ref(t);
    return ERR_OK;
}

static enum err_code hub_may_create(struct task_hub *h, const struct task_spec *spec,
                                    struct err *err)
{
    if (h->draining)
        return err_set(err, ERR_UNAVAILABLE, "stopping");
    if (supervisor_state(h->options.supervisor) == SUPERVISOR_GAVE_UP)
        return err_set(err, ERR_UNAVAILABLE, "ComfyUI exited too often");
    unsigned waiting = h->count[PLACE_WAITING] + h->count[PLACE_CLAIMING] - h->mirrors;
    unsigned places = hub_may_submit(h) ? h->options.max_concurrency - h->count[PLACE_ACTIVE] : 0;
    if (!spec->waits && waiting >= h->options.max_queue + places)
        return err_set(err, ERR_BUSY, "%u tasks wait already", waiting);
    return ERR_OK;
}

static struct task *hub_add(struct task_hub *h, struct task_spec *spec)
{
    struct task *t = task_new(h, spec);
    list_add(bucket_of(h, slice_of(t->id)), &t->bucket);
    return t;
}

enum err_code task_hub_create(struct task_hub *h, struct task_spec *spec, struct task **ret,
                              bool *ret_joined, struct err *err)
{
    struct task *t = task_hub_find(h, slice_of(spec->id));
    if (t != NULL)
        return hub_join(t, spec, ret, ret_joined, err);
    enum err_code code = hub_may_create(h, spec, err);
    if (code != ERR_OK)
        return code;
    if (h->options.folder_per_task && spec->take_refusal == NULL && spec->called == 0 &&
        prompt_set_folder(spec->take_prompt, spec->id) != ERR_OK)
        return err_set(err, ERR_BUSY, "the prompt does not fit into memory");
    t = hub_add(h, spec);
    *ret = task_ref(t);
    *ret_joined = false;
    if (h->options.caller != NULL)
        t->given = t->must_store = true; /* nobody else will ever see it but by the store */
    if (t->called > 0) {
        task_call_start(t);
    } else if (h->options.caller != NULL) {
        task_offer_start(t);
    } else if (t->given) {
        task_claim_start(t);
    } else {
        task_store_first(t);
        task_hub_enqueue(h, t);
    }
    return ERR_OK;
}

struct task *task_of_record(struct task_hub *h, const char *id, struct slice text)
{
    struct record r;
    struct task_spec spec = {.id = id, .given = true, .request_id = ""};
    struct prompt none;
    if (record_parse(&r, text, NULL) != ERR_OK)
        return NULL;
    prompt_init_empty(&none);
    spec.take_prompt = &none;
    struct task *t = task_new(h, &spec);
    struct blob *copy = blob_new(text);
    (void)uv_timer_stop(&t->timer);
    t->state = STATE_ENDED;
    t->stored = true;
    if (record_parse(&r, blob_slice(copy), NULL) == ERR_OK)
        task_show_record(t, &r, copy);
    blob_unref(copy);
    return t;
}

void task_hub_adopt(struct task_hub *h, const char *id)
{
    struct prompt none;
    struct task_spec spec = {.id = id, .given = true, .request_id = "", .take_prompt = &none};
    if (task_hub_find(h, slice_of(id)) != NULL || h->draining || h->mirrors >= HUB_MIRRORS_MAX)
        return;
    prompt_init_empty(&none);
    struct task *t = hub_add(h, &spec);
    t->adopted = true;
    task_mirror_start(t, 0);
}

void task_hub_remind(struct task_hub *h, const char *id)
{
    if (h->options.caller != NULL)
        task_hub_adopt(h, id);
}

void task_hub_withdraw(struct task_hub *h, const char *id)
{
    task_hub_remind(h, id);
    struct task *t = task_hub_find(h, slice_of(id));
    if (h->options.caller != NULL && t != NULL) {
        task_cancel(t, "cancelled by a request");
        task_mirror_hurry(t);
    }
}

/* Its news are first-hand, or those of a view that goes on anyway. One that still asks the store
 * whether it may run is no news, and watching a mirror would keep it ready to take over. */
static bool hub_can_be_watched(const struct task *t)
{
    return t->state != STATE_CLAIMING && (t->state != STATE_MIRROR || t->adopted);
}

enum err_code task_hub_follow(struct task_hub *h, const char *id, struct task **ret,
                              struct err *err)
{
    struct prompt none;
    struct task_spec spec = {.id = id, .given = true, .request_id = "", .take_prompt = &none};
    struct task *t = hub_find(h, slice_of(id), false);
    if (t == NULL || !hub_can_be_watched(t))
        t = hub_find(h, slice_of(id), true);
    if (t == NULL && h->draining)
        return err_set(err, ERR_UNAVAILABLE, "stopping");
    if (t == NULL && h->mirrors >= HUB_MIRRORS_MAX)
        return err_set(err, ERR_BUSY, "%u tasks are followed already", h->mirrors);
    if (t == NULL) {
        prompt_init_empty(&none);
        t = hub_add(h, &spec);
        t->follows = true;
        task_mirror_start(t, 0);
    }
    *ret = task_ref(t);
    return ERR_OK;
}

bool task_hub_is_draining(const struct task_hub *h)
{
    return h->draining;
}

void task_hub_count_mirror(struct task_hub *h, int by)
{
    h->mirrors = by > 0 ? h->mirrors + 1 : h->mirrors - 1;
}

int task_hub_position(const struct task_hub *h, const struct task *t)
{
    int position = 0;
    LIST_FOREACH (node, &h->list[PLACE_WAITING]) {
        if (CONTAINER_OF(node, struct task, link) == t)
            return position;
        position++;
    }
    return -1;
}

/* --- the end --------------------------------------------------------------------------------- */

static struct failure *stopping_failure(const struct task_hub *h)
{
    (void)h;
    return failure_new(FAILURE_STOPPING, "the service is stopping");
}

void task_hub_drain(struct task_hub *h, void (*drained)(void *ctx), void *ctx)
{
    h->draining = true;
    h->drained = drained;
    h->drained_ctx = ctx;
    LIST_FOREACH_SAFE (node, next, &h->list[PLACE_CLAIMING]) { /* nobody waits for these */
        struct task *t = CONTAINER_OF(node, struct task, link);
        if ((t->adopted || t->follows) && t->state == STATE_MIRROR)
            task_take_fate(t, stopping_failure(h));
        else
            task_mirror_hurry(t);
    }
    hub_look_if_drained(h);
}

/* Nobody waits here for its end, and somebody else will go on with it: as if we had been killed,
 * but that nothing of it is half done. */
static void hub_leave_to_others(struct task_hub *h)
{
    if (!h->options.left_is_found)
        return;
    for (unsigned place = PLACE_WAITING; place <= PLACE_ACTIVE; place++)
        LIST_FOREACH_SAFE (node, next, &h->list[place]) {
            struct task *t = CONTAINER_OF(node, struct task, link);
            if (t->claimed && !task_has_caller(t))
                task_leave_to_others(t);
        }
}

void task_hub_end_all(struct task_hub *h)
{
    LIST_FOREACH (node, &h->list[PLACE_ACTIVE])
        if (supervisor_is_attached(h->options.supervisor))
            task_leave_if_there(CONTAINER_OF(node, struct task, link));
    hub_hurry_left(h);
    hub_leave_to_others(h);
    for (unsigned place = PLACE_CLAIMING; place <= PLACE_ACTIVE; place++)
        task_hub_tell_fate(h, &h->list[place], stopping_failure);
}

unsigned task_hub_tell_ends(struct task_hub *h)
{
    unsigned count = 0;
    LIST_FOREACH (node, &h->list[PLACE_STORING]) {
        struct task *t = CONTAINER_OF(node, struct task, link);
        bool is_others = t->failure != NULL && t->failure->code == FAILURE_SUPERSEDED;
        if (!task_is_storing(t) || is_others)
            continue;
        log_error("store", "the end of task %s is told without being stored: stopping", t->id);
        t->store_failed = true;
        later_add(h->later, &t->notice);
        count++;
    }
    return count;
}
