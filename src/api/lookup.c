#include "lookup.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    LOOKUP_MS = 5000,
    LOOKUP_BUCKETS = 256,
};

/* What the store says of a task: being read, or kept. */
struct entry {
    struct lookups *owner;
    struct list_node bucket; /* in no list once it is forgotten: nobody finds it any more */
    struct list_node kept;   /* oldest read first; in no list while it is read */
    char id[TASK_ID_MAX + 1];
    bool nodes_too, want_nodes; /* may look, looks now for the bare node map */
    struct list_node waiting;   /* struct lookup.link */
    struct store_op op;
    uint64_t deadline_ms;
    uint64_t read_at;   /* on clock_mono_ms(): when the read began */
    struct blob *value; /* NULL: nothing found */
    struct lookup_found found;
};

struct lookups {
    uv_loop_t *loop;
    struct later *later;
    struct store *store;
    struct list_node bucket[LOOKUP_BUCKETS];
    struct list_node kept;
    size_t kept_bytes;
    uv_timer_t timer; /* runs while something is kept */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

struct lookup {
    struct lookups *owner;
    struct list_node link; /* of the entry it waits for */
    lookup_cb cb;
    void *ctx;
    struct task *task;
    struct blob *value; /* what `found` points into */
    struct lookup_found found;
    struct later_item answer;
};

/* --- telling --------------------------------------------------------------------------------- */

static bool lookup_knows(const struct lookup *l)
{
    return l->task != NULL && task_is_authority(l->task);
}

static bool says_end(const struct lookup_found *found)
{
    enum task_status status;
    return task_status_read(slice_of(found->status), &status) && task_status_is_end(status);
}

/* Than what this process knows. An end is the last word on its attempt: who wrote it for a dead
 * owner did not see all of the owner's revisions. */
static bool found_is_newer(const struct lookup_found *found, uint64_t attempt, uint64_t rev)
{
    if (found->record.len == 0)
        return false;
    if (found->attempt != attempt)
        return found->attempt > attempt;
    return says_end(found) || found->rev > rev;
}

/* A task of this process that did not know yet how it is may know now, and is better than nothing
 * if the store has nothing. */
static bool lookup_is_here(const struct lookup *l, const struct lookup_found *found,
                           const struct err *err)
{
    if (l->task == NULL || task_refused(l->task) != NULL)
        return false;
    /* An end that may not be told: it is not stored, or another's counts. */
    bool is_unsure = task_has_ended(l->task) && !task_is_known(l->task);
    if (is_unsure && (err != NULL || task_is_mirror(l->task)))
        return false;
    if (found->record.len == 0 || lookup_knows(l))
        return true;
    uint64_t rev = task_rev(l->task);
    return task_is_known(l->task) && !found_is_newer(found, task_attempt(l->task), rev) &&
           (!task_is_mirror(l->task) || rev > found->rev);
}

static void found_read_record(struct lookup_found *ret, struct slice record)
{
    static const char *const names[] = {"status", "rev", "nodes", "offered", "attempt"};
    struct slice value[ARRAY_LEN(names)];
    int64_t rev;
    int64_t attempt;
    ret->record = record;
    ret->nodes = SLICE("{}");
    json_pick(record, names, value, ARRAY_LEN(names));
    if (value[0].len > 0 && json_kind(value[0]) == JSON_STRING &&
        value[0].len < sizeof(ret->status))
        slice_copy((struct slice){value[0].ptr + 1, value[0].len - 2}, ret->status,
                   sizeof(ret->status));
    if (value[1].len > 0 && json_to_i64(value[1], &rev) && rev > 0)
        ret->rev = (uint64_t)rev;
    if (value[2].len > 0 && json_kind(value[2]) == JSON_OBJECT)
        ret->nodes = value[2];
    if (value[4].len > 0 && json_to_i64(value[4], &attempt) && attempt > 0)
        ret->attempt = (uint64_t)attempt;
    ret->offered = value[3].len > 0 && json_kind(value[3]) == JSON_TRUE;
}

/* Its end is not to be told yet: what was told before it is, and nothing older. Others may see the
 * end in the store before this process knows that it is there: if it can be read, it is told. */
static bool lookup_before_end(struct lookup *l, const struct lookup_found *found,
                              struct lookup_found *ret)
{
    struct blob *before = l->task != NULL ? task_before_end(l->task) : NULL;
    *ret = (struct lookup_found){.rev = 0};
    if (before == NULL)
        return false;
    found_read_record(ret, blob_slice(before));
    if (found_is_newer(found, ret->attempt, ret->rev))
        return false;
    blob_unref(l->value);
    l->value = blob_ref(before);
    return true;
}

struct slice lookup_newest(struct task *t, struct slice record)
{
    struct blob *here = t != NULL ? task_before_end(t) : NULL;
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX};
    struct lookup_found known = {.rev = 0};
    struct lookup_found stored = {.rev = 0};
    if (here == NULL && t != NULL && task_is_known(t) && !task_is_mirror(t))
        here = task_record(t);
    if (here == NULL)
        return record;
    record = json_trim(record);
    if (json_check(record, &limits, NULL, NULL) != ERR_OK || json_kind(record) != JSON_OBJECT)
        return blob_slice(here);
    found_read_record(&known, blob_slice(here));
    found_read_record(&stored, record);
    return found_is_newer(&stored, known.attempt, known.rev) ? record : blob_slice(here);
}

static void lookup_free(struct lookup *l)
{
    if (l->task != NULL)
        task_unref(l->task);
    blob_unref(l->value);
    free(l);
}

static void lookup_tell(struct lookup *l, const struct lookup_found *found, const struct err *err)
{
    const struct lookup_found here = {.task = l->task};
    struct lookup_found before;
    if (lookup_before_end(l, found, &before)) {
        found = &before;
        err = NULL;
    } else if (lookup_is_here(l, found, err)) {
        found = &here;
        err = NULL;
    }
    l->cb(l->ctx, found, err);
    lookup_free(l);
}

static void lookup_on_answer(struct later_item *item)
{
    struct lookup *l = CONTAINER_OF(item, struct lookup, answer);
    lookup_tell(l, &l->found, NULL);
}

/* --- what is kept ---------------------------------------------------------------------------- */

static struct list_node *bucket_of(struct lookups *ls, struct slice id)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < id.len; i++)
        h = (h ^ (unsigned char)id.ptr[i]) * 16777619u;
    return &ls->bucket[h % LOOKUP_BUCKETS];
}

static size_t entry_bytes(const struct entry *e)
{
    return sizeof(*e) + (e->value != NULL ? blob_slice(e->value).len : 0);
}

static bool entry_is_kept(const struct entry *e)
{
    return !list_is_empty(&e->kept);
}

static void entry_free(struct entry *e)
{
    if (entry_is_kept(e))
        e->owner->kept_bytes -= entry_bytes(e);
    list_remove(&e->kept);
    list_remove(&e->bucket);
    blob_unref(e->value);
    free(e);
}

/* What is being read is for those who wait for it already. */
static void entry_forget(struct entry *e)
{
    if (entry_is_kept(e))
        entry_free(e);
    else
        list_remove(&e->bucket);
}

static bool entry_is_old(const struct entry *e)
{
    uint64_t age_ms = clock_mono_ms() - e->read_at;
    return age_ms >= (entry_is_kept(e) ? LOOKUP_FRESH_MS : LOOKUP_JOIN_MS);
}

static void lookups_tidy(struct lookups *ls)
{
    LIST_FOREACH_SAFE (node, next, &ls->kept) {
        struct entry *e = CONTAINER_OF(node, struct entry, kept);
        if (!entry_is_old(e) && ls->kept_bytes <= LOOKUP_BYTES_MAX)
            break;
        entry_free(e);
    }
}

static void lookups_arm(struct lookups *ls);

static void lookups_on_timer(uv_timer_t *timer)
{
    struct lookups *ls = timer->data;
    lookups_tidy(ls);
    lookups_arm(ls);
}

static void lookups_arm(struct lookups *ls)
{
    if (!list_is_empty(&ls->kept) && !uv_is_active((uv_handle_t *)&ls->timer))
        ASSERT(uv_timer_start(&ls->timer, lookups_on_timer, LOOKUP_FRESH_MS, 0) == 0);
}

static void entry_keep(struct entry *e)
{
    struct lookups *ls = e->owner;
    list_add(&ls->kept, &e->kept);
    ls->kept_bytes += entry_bytes(e);
    lookups_tidy(ls);
    lookups_arm(ls);
}

static struct entry *lookups_find(struct lookups *ls, struct slice id, bool nodes_too)
{
    LIST_FOREACH (node, bucket_of(ls, id)) {
        struct entry *e = CONTAINER_OF(node, struct entry, bucket);
        if (e->nodes_too == nodes_too && slice_is(id, e->id) && !entry_is_old(e))
            return e;
    }
    return NULL;
}

static void lookups_forget_id(struct lookups *ls, struct slice id)
{
    LIST_FOREACH_SAFE (node, next, bucket_of(ls, id)) {
        struct entry *e = CONTAINER_OF(node, struct entry, bucket);
        if (slice_is(id, e->id))
            entry_forget(e);
    }
}

void lookups_forget(struct lookups *ls, const char *id)
{
    lookups_forget_id(ls, slice_of(id));
}

void lookups_thaw(struct lookups *ls)
{
    for (size_t i = 0; i < LOOKUP_BUCKETS; i++)
        LIST_FOREACH_SAFE (node, next, &ls->bucket[i])
            entry_forget(CONTAINER_OF(node, struct entry, bucket));
}

/* This process writes a document: "<id>" or "<id>~…". */
static void lookups_on_write(void *ctx, const char *key)
{
    lookups_forget_id(ctx, (struct slice){key, strcspn(key, "~")});
}

/* --- reading --------------------------------------------------------------------------------- */

static void entry_read(struct entry *e);

static enum err_code entry_take(struct entry *e, struct blob *value, struct err *err)
{
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX};
    struct slice text = json_trim(blob_slice(value));
    e->value = value;
    if (json_check(text, &limits, NULL, NULL) != ERR_OK || json_kind(text) != JSON_OBJECT)
        return err_set(err, ERR_CORRUPT, "the stored document is not what was stored");
    if (e->want_nodes)
        e->found.nodes = text;
    else
        found_read_record(&e->found, text);
    return ERR_OK;
}

/* Callbacks may ask for the same task again: they find it kept, or read it anew. */
static void entry_end(struct entry *e, const struct err *err)
{
    struct list_node waiting;
    struct blob *value = e->value != NULL ? blob_ref(e->value) : NULL;
    const struct lookup_found found = err == NULL ? e->found : (struct lookup_found){.rev = 0};
    list_take(&waiting, &e->waiting);
    if (err == NULL && !list_is_empty(&e->bucket))
        entry_keep(e);
    else
        entry_free(e);
    while (!list_is_empty(&waiting)) {
        struct lookup *l = CONTAINER_OF(waiting.next, struct lookup, link);
        list_remove(&l->link);
        lookup_tell(l, &found, err);
    }
    blob_unref(value);
}

static void entry_on_read(struct store_op *op)
{
    struct entry *e = op->ctx;
    struct store_doc *doc = &op->doc[0];
    struct err err = op->err;
    if (doc->result == ERR_OK) {
        enum err_code code = entry_take(e, doc->value, &err);
        entry_end(e, code != ERR_OK ? &err : NULL);
    } else if (doc->result != ERR_NOT_FOUND) {
        entry_end(e, &err);
    } else if (e->nodes_too && !e->want_nodes) {
        e->want_nodes = true;
        entry_read(e);
    } else {
        entry_end(e, NULL);
    }
}

static void entry_read(struct entry *e)
{
    e->op =
        (struct store_op){.n = 1, .deadline_ms = e->deadline_ms, .done = entry_on_read, .ctx = e};
    e->op.doc[0].verb = STORE_GET;
    (void)snprintf(e->op.doc[0].key, sizeof(e->op.doc[0].key), "%s%s", e->id,
                   e->want_nodes ? "" : "~task");
    store_run(e->owner->store, &e->op);
}

static struct entry *entry_new(struct lookups *ls, struct slice id, bool nodes_too,
                               enum lookup_how how, uint64_t deadline_ms)
{
    struct entry *e = xcalloc(1, sizeof(*e));
    e->owner = ls;
    slice_copy(id, e->id, sizeof(e->id));
    e->nodes_too = nodes_too;
    e->deadline_ms = deadline_ms;
    e->read_at = clock_mono_ms();
    list_init(&e->bucket);
    list_init(&e->kept);
    list_init(&e->waiting);
    if (how == LOOKUP_SHARED)
        list_push(bucket_of(ls, id), &e->bucket);
    entry_read(e);
    return e;
}

/* --- asking ---------------------------------------------------------------------------------- */

static void lookup_ask_store(struct lookup *l, struct slice id, bool nodes_too, enum lookup_how how)
{
    struct lookups *ls = l->owner;
    struct entry *e = how == LOOKUP_SHARED ? lookups_find(ls, id, nodes_too) : NULL;
    if (e == NULL)
        e = entry_new(ls, id, nodes_too, how, l->task != NULL ? LOOKUP_HERE_MS : LOOKUP_MS);
    if (!entry_is_kept(e)) {
        list_add(&e->waiting, &l->link);
        return;
    }
    l->value = e->value != NULL ? blob_ref(e->value) : NULL;
    l->found = e->found;
    later_add(ls->later, &l->answer);
}

struct lookup *lookup_start(struct api *api, struct slice id, bool nodes_too, enum lookup_how how,
                            lookup_cb cb, void *ctx)
{
    struct lookup *l = xcalloc(1, sizeof(*l));
    struct task *t = task_hub_find(api->hub, id);
    l->owner = api->lookups;
    l->cb = cb;
    l->ctx = ctx;
    list_init(&l->link);
    later_item_init(&l->answer, lookup_on_answer);
    if (t != NULL)
        l->task = task_ref(t);
    if (lookup_knows(l))
        later_add(api->later, &l->answer);
    else
        lookup_ask_store(l, id, nodes_too, how);
    return l;
}

void lookup_cancel(struct lookup *l)
{
    list_remove(&l->link);
    later_cancel(l->owner->later, &l->answer);
    lookup_free(l);
}

/* --- life ------------------------------------------------------------------------------------ */

struct lookups *lookups_new(uv_loop_t *loop, struct later *later, struct store *store)
{
    struct lookups *ls = xcalloc(1, sizeof(*ls));
    ls->loop = loop;
    ls->later = later;
    ls->store = store;
    for (size_t i = 0; i < LOOKUP_BUCKETS; i++)
        list_init(&ls->bucket[i]);
    list_init(&ls->kept);
    ASSERT(uv_timer_init(loop, &ls->timer) == 0);
    ls->timer.data = ls;
    store_on_write(store, lookups_on_write, ls);
    return ls;
}

static void lookups_on_closed(uv_handle_t *timer)
{
    struct lookups *ls = timer->data;
    void (*closed)(void *ctx) = ls->closed;
    void *ctx = ls->closed_ctx;
    free(ls);
    closed(ctx);
}

void lookups_free(struct lookups *ls, void (*closed)(void *ctx), void *ctx)
{
    LIST_FOREACH_SAFE (node, next, &ls->kept)
        entry_free(CONTAINER_OF(node, struct entry, kept));
    ls->closed = closed;
    ls->closed_ctx = ctx;
    uv_close((uv_handle_t *)&ls->timer, lookups_on_closed);
}
