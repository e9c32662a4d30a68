/* Back from a record as record.c writes it. Whoever wrote it may be of another version, or no
 * program of ours at all: what is not there is empty, what is wrong is refused. */
#include "task_private.h"

#include <stdlib.h>

static struct slice member(struct slice object, const char *key, enum json_kind kind)
{
    struct slice value;
    if (json_get(object, key, &value) && json_kind(value) == kind)
        return value;
    return SLICE_EMPTY;
}

/* A string without escapes, inside its quotes; empty otherwise. */
static struct slice plain_member(struct slice object, const char *key)
{
    struct slice token = member(object, key, JSON_STRING);
    if (token.len < 2 || memchr(token.ptr, '\\', token.len) != NULL)
        return SLICE_EMPTY;
    return (struct slice){token.ptr + 1, token.len - 2};
}

static uint64_t number_member(struct slice object, const char *key)
{
    int64_t number;
    struct slice value = member(object, key, JSON_NUMBER);
    return value.len > 0 && json_to_i64(value, &number) && number > 0 ? (uint64_t)number : 0;
}

enum err_code record_parse(struct record *ret, struct slice text, struct err *err)
{
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX};
    struct err why;
    *ret = (struct record){.attempt = 0};
    if (json_check(text, &limits, NULL, &why) != ERR_OK)
        return err_set(err, ERR_CORRUPT, "a stored record is no JSON: %s", why.msg);
    struct slice top = json_trim(text);
    if (json_kind(top) != JSON_OBJECT ||
        !task_status_read(plain_member(top, "status"), &ret->status))
        return err_set(err, ERR_CORRUPT, "a stored record has no status");
    ret->attempt = (unsigned)(number_member(top, "attempt") & UINT32_MAX);
    ret->rev = number_member(top, "rev");
    if (ret->attempt == 0 || ret->rev == 0)
        return err_set(err, ERR_CORRUPT, "a stored record has no attempt or revision");
    ret->prompt_sha256 = plain_member(top, "prompt_sha256");
    ret->request_id = plain_member(top, "request_id");
    ret->instance = plain_member(top, "instance");
    ret->error = member(top, "error", JSON_OBJECT);
    ret->nodes = member(top, "nodes", JSON_OBJECT);
    ret->outputs = member(top, "outputs", JSON_ARRAY);
    ret->seeds = member(top, "seeds", JSON_OBJECT);
    ret->prompt_id = plain_member(top, "prompt_id");
    ret->id = plain_member(top, "id");
    ret->finished_ms = number_member(top, "finished");
    ret->created_ms = number_member(top, "created");
    ret->started_ms = number_member(top, "started");
    ret->updated_ms = number_member(top, "updated");
    ret->offered = member(top, "offered", JSON_TRUE).len > 0;
    if (!json_get(top, "metadata", &ret->metadata))
        ret->metadata = SLICE_EMPTY;
    return ERR_OK;
}

static void read_etag(struct slice item, struct task_output *o)
{
    struct buf text;
    struct slice token = member(item, "etag", JSON_STRING);
    buf_init(&text, sizeof(o->etag) - 1);
    if (token.len > 0 && json_unescape(token, &text) == ERR_OK)
        slice_copy(buf_slice(&text), o->etag, sizeof(o->etag));
    buf_done(&text);
}

/* The list names its files in the order of the node map. */
static void show_outputs(struct task *t, struct slice list)
{
    struct json_iter it;
    struct slice item;
    const struct progress *p = &t->progress;
    free(t->outputs);
    t->outputs = xcalloc(p->file_total, sizeof(*t->outputs));
    t->output_count = 0;
    json_iter_init(&it, list);
    for (unsigned n = 0; n < p->count; n++) {
        for (unsigned f = 0; f < p->nodes[n].file_count; f++) {
            struct task_output *o = &t->outputs[t->output_count];
            if (!json_next(&it, NULL, &item) || json_kind(item) != JSON_OBJECT)
                return;
            struct slice type = plain_member(item, "media_type");
            *o = (struct task_output){.node = n, .file = f, .size = number_member(item, "size")};
            slice_copy(type, o->media_type, sizeof(o->media_type));
            read_etag(item, o);
            t->output_count++;
        }
    }
}

/* What is too long is left out: a part of it may not even be text. */
static void copy(char *to, size_t size, struct slice from)
{
    slice_copy(from.len < size ? from : SLICE_EMPTY, to, size);
}

static void copy_if_empty(char *to, size_t size, struct slice from)
{
    if (to[0] == '\0')
        copy(to, size, from);
}

/* What the task does not know of itself, because it was found in the store. */
static void show_origin(struct task *t, const struct record *r)
{
    copy_if_empty(t->prompt.sha256, sizeof(t->prompt.sha256), r->prompt_sha256);
    if (t->request_id[0] == '\0')
        task_set_text(&t->request_id,
                      r->request_id.len <= TASK_ID_MAX ? r->request_id : SLICE_EMPTY);
    copy(t->prompt_id, sizeof(t->prompt_id), r->prompt_id);
    task_set_text(&t->instance, r->instance.len <= TASK_INSTANCE_MAX ? r->instance : SLICE_EMPTY);
    t->created_ms = r->created_ms;
    t->updated_ms = r->updated_ms;
    t->started_ms = r->started_ms;
    buf_reset(&t->prompt.seeds); /* a caller's own prompt got others, which nobody runs */
    buf_add(&t->prompt.seeds, r->seeds.len > 0 ? r->seeds : SLICE("{}"));
    if (t->metadata.len == 0)
        buf_add(&t->metadata, r->metadata);
}

void task_show_record(struct task *t, const struct record *r, struct blob *text)
{
    const struct task_hub_options *o = task_hub_options(t->hub);
    struct slice nodes = r->nodes.len > 0 ? r->nodes : SLICE("{}");
    struct blob *source = blob_ref(text);
    progress_done(&t->progress);
    progress_read(&t->progress, nodes);
    if (r->outputs.len > 0)
        show_outputs(t, r->outputs);
    failure_free(t->failure);
    t->failure = NULL;
    if (r->error.len > 0)
        t->failure = failure_read(r->error);
    else if (r->status == TASK_FAILED || r->status == TASK_CANCELLED)
        t->failure = failure_new(FAILURE_COMFYUI_ERROR, "the record does not say what went wrong");
    show_origin(t, r);
    t->status = r->status;
    t->offered = r->offered && !task_status_is_end(r->status);
    t->attempt = r->attempt;
    t->rev = r->rev;
    blob_unref(t->source);
    blob_unref(t->record_blob);
    blob_unref(t->nodes_blob);
    t->source = source;
    t->record_blob = blob_ref(source);
    t->record_rev = t->rev;
    t->nodes_blob = blob_new(nodes);
    t->nodes_rev = t->progress.rev;
    if (o->on_shown != NULL)
        o->on_shown(o->ctx, t->id);
}
