#include "lookup.h"

#include <stdio.h>
#include <stdlib.h>

enum { LOOKUP_MS = 5000 };

struct lookup {
    struct api *api;
    char id[TASK_ID_MAX + 1];
    bool nodes_too, want_nodes; /* may look, looks now for the bare node map */
    bool cancelled;
    lookup_cb cb;
    void *ctx;
    struct task *task;
    struct later_item here;
    struct store_op op;
};

/* A task of this process that did not know yet how it is may know now, and is better than nothing
 * if the store has nothing. */
static bool lookup_is_here(const struct lookup *l, const struct lookup_found *found)
{
    return l->task != NULL && task_refused(l->task) == NULL &&
           (task_is_known(l->task) || found->record.len == 0);
}

static void lookup_tell(struct lookup *l, const struct lookup_found *found, const struct err *err)
{
    const struct lookup_found here = {.task = l->task};
    if (lookup_is_here(l, found)) {
        found = &here;
        err = NULL;
    }
    if (!l->cancelled)
        l->cb(l->ctx, found, err);
    if (l->task != NULL)
        task_unref(l->task);
    free(l);
}

static void lookup_on_here(struct later_item *item)
{
    struct lookup *l = CONTAINER_OF(item, struct lookup, here);
    struct lookup_found found = {.task = l->task};
    lookup_tell(l, &found, NULL);
}

static void lookup_read(struct lookup *l);

static void lookup_on_document(struct lookup *l, struct slice text)
{
    struct lookup_found found = {.task = NULL};
    struct err err;
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX};
    if (json_check(text, &limits, NULL, NULL) != ERR_OK ||
        json_kind(json_trim(text)) != JSON_OBJECT) {
        (void)err_set(&err, ERR_CORRUPT, "the stored document is not what was stored");
        lookup_tell(l, &found, &err);
        return;
    }
    if (l->want_nodes)
        found.nodes = json_trim(text);
    else
        found.record = json_trim(text);
    lookup_tell(l, &found, NULL);
}

static void lookup_on_read(struct store_op *op)
{
    struct lookup *l = op->ctx;
    struct store_doc *doc = &op->doc[0];
    const struct lookup_found nothing = {.task = NULL};
    if (doc->result == ERR_OK) {
        struct blob *value = doc->value;
        lookup_on_document(l, blob_slice(value));
        blob_unref(value);
    } else if (doc->result != ERR_NOT_FOUND) {
        struct err err = op->err;
        lookup_tell(l, &nothing, &err);
    } else if (l->nodes_too && !l->want_nodes && !l->cancelled) {
        l->want_nodes = true;
        lookup_read(l);
    } else {
        lookup_tell(l, &nothing, NULL);
    }
}

static void lookup_read(struct lookup *l)
{
    l->op = (struct store_op){.n = 1, .deadline_ms = LOOKUP_MS, .done = lookup_on_read};
    l->op.ctx = l;
    l->op.doc[0].verb = STORE_GET;
    (void)snprintf(l->op.doc[0].key, sizeof(l->op.doc[0].key), "%s%s", l->id,
                   l->want_nodes ? "" : "~task");
    store_run(l->api->store, &l->op);
}

struct lookup *lookup_start(struct api *api, struct slice id, bool nodes_too, lookup_cb cb,
                            void *ctx)
{
    struct lookup *l = xcalloc(1, sizeof(*l));
    struct task *t = task_hub_find(api->hub, id);
    l->api = api;
    (void)snprintf(l->id, sizeof(l->id), "%.*s", SLICE_ARGS(id));
    l->nodes_too = nodes_too;
    l->cb = cb;
    l->ctx = ctx;
    later_item_init(&l->here, lookup_on_here);
    if (t != NULL)
        l->task = task_ref(t);
    if (t != NULL && task_is_known(t))
        later_add(api->later, &l->here);
    else
        lookup_read(l);
    return l;
}

void lookup_cancel(struct lookup *l)
{
    l->cancelled = true; /* what is under way ends, and frees it */
}
