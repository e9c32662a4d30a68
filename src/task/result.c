/* Of outputs that were made earlier or elsewhere each is asked for by HEAD first: what is gone
 * since is told before the answer begins. Then one node after the other, of each one output after
 * the other:
 *
 *     {"9":{"max":1,…,"images":[…] ,"results":[" base64 "," base64 "]} , "3":{…} }
 *                                  └── GET /view, part by part ──┘
 *
 * but for the small ones that the task has still got from when it was told that they are there.
 *
 * result_pump() writes until the sink is full or a transfer has to be waited for. */
#include "result.h"

#include "codec.h"

#include <stdlib.h>

enum {
    RESULT_PART = 48 * 1024, /* bytes encoded at once: a multiple of 3 */
    RESULT_LEAD = 3000,      /* as much as a small result has */
    RESULT_ENTRY = 500,      /* and a node of it */
};

struct result {
    struct task *task;
    struct comfy *comfy;
    struct later *later;
    struct later_item step;
    struct result_sink sink;

    unsigned node;   /* the one that is being written */
    unsigned output; /* the next one, in the order of the node map */
    bool node_open;  /* its entry has begun */
    bool checking;   /* `output` is the one that is asked for by HEAD */
    bool begun;
    bool told;       /* sink.begin() was called: not before the first bytes of a file are here, */
    struct buf lead; /* and this was written by then: a small result is one piece */
    bool full;       /* the sink has no room */
    bool finished, cancelled;
    struct err err;

    struct http_call call;
    uint64_t wait_ms; /* for ComfyUI, before it is asked for anything; 0: it was */
    struct buf target;
    bool fetching, fetched;
    bool retried, again; /* nothing was answered: once more */
    uint64_t received;
    struct base64_encoder encoder;
    struct blob *kept[TASK_KEPT_MAX]; /* NULL: to be fetched */
    char *text;                       /* BASE64_ROOM() of the largest part so far; NULL: none yet */
    size_t text_part;
};

static char *result_text(struct result *r, size_t part)
{
    if (r->text == NULL || r->text_part < part) {
        free(r->text);
        r->text = xmalloc(BASE64_ROOM(part));
        r->text_part = part;
    }
    return r->text;
}

static void result_tell(struct result *r)
{
    if (r->told)
        return;
    r->told = true;
    r->sink.begin(r->sink.ctx);
    r->full = !r->sink.write(r->sink.ctx, buf_slice(&r->lead));
    buf_done(&r->lead);
}

static void result_write(struct result *r, struct slice part)
{
    if (!r->told) {
        buf_add(&r->lead, part);
        if (r->lead.len > RESULT_PART)
            result_tell(r);
        return;
    }
    if (!r->sink.write(r->sink.ctx, part))
        r->full = true;
}

static void result_step_later(struct result *r)
{
    later_add(r->later, &r->step);
}

/* --- one output ------------------------------------------------------------------------------ */

/* NULL: that was the last one. */
static const struct task_output *result_next(const struct result *r)
{
    const struct task_output *outputs;
    unsigned count = task_outputs(r->task, &outputs);
    return r->output < count ? &outputs[r->output] : NULL;
}

/* The one that is being asked for. */
static const struct task_output *result_output(const struct result *r)
{
    const struct task_output *o = result_next(r);
    ASSERT(o != NULL);
    return o;
}

static void result_fail(struct result *r, enum err_code code, const char *why)
{
    if (r->err.code == ERR_OK)
        (void)err_set(&r->err, code, "output %u: %s", r->output, why);
}

/* Bytes of the same number may be another picture's: the tag tells. */
static bool result_is_the_one(const struct task_output *o, const struct http_call *call)
{
    struct slice etag;
    if (call->res_length >= 0 && (uint64_t)call->res_length != o->size)
        return false;
    return o->etag[0] == '\0' || !http_headers_get(&call->res_headers, "etag", &etag) ||
           slice_is(etag, o->etag);
}

static void result_on_head(struct http_call *call)
{
    struct result *r = call->ctx;
    if (r->cancelled)
        return;
    if (call->status == 404)
        result_fail(r, ERR_NOT_FOUND, "it is not there any more");
    else if (call->status != 200)
        result_fail(r, ERR_PROTOCOL, "ComfyUI does not give it");
    else if (!result_is_the_one(result_output(r), call))
        result_fail(r, ERR_CORRUPT, "it was overwritten: it is not the file that was made");
    if (r->err.code != ERR_OK)
        comfy_view_cancel(r->comfy, call);
}

static void result_encode(struct result *r, struct slice part)
{
    result_tell(r);
    while (part.len > 0) {
        size_t take = part.len < RESULT_PART ? part.len : RESULT_PART;
        char *text = result_text(r, RESULT_PART);
        size_t n = base64_feed(&r->encoder, (struct slice){part.ptr, take}, text);
        result_write(r, (struct slice){text, n});
        part.ptr += take;
        part.len -= take;
    }
}

static void result_on_part(struct http_call *call, struct slice part)
{
    struct result *r = call->ctx;
    if (r->cancelled || r->err.code != ERR_OK)
        return;
    r->received += part.len;
    if (r->received > result_output(r)->size) {
        result_fail(r, ERR_PROTOCOL, "it is not the file that was made");
        comfy_view_cancel(r->comfy, call);
        return;
    }
    result_encode(r, part);
    if (r->full)
        comfy_view_pause(r->comfy, call);
}

/* A connection could not be had, as when descriptors are short, or broke: that says nothing of the
 * file. */
static bool result_was_not_answered(const struct http_call *call, const struct err *err)
{
    return call->status == 0 && (err->code == ERR_UNAVAILABLE || err->code == ERR_CLOSED);
}

static void result_on_end(struct http_call *call, const struct err *err)
{
    struct result *r = call->ctx;
    r->fetching = false;
    r->again =
        err != NULL && !r->retried && comfy_is_open(r->comfy) && result_was_not_answered(call, err);
    r->retried = r->retried || r->again;
    r->fetched = !r->checking && !r->again;
    if (err != NULL && !r->again)
        result_fail(r, err->code, err->msg);
    else if (err == NULL && r->checking)
        r->output++;
    else if (err == NULL && r->received != result_output(r)->size)
        result_fail(r, ERR_PROTOCOL, "it is not the file that was made");
    result_step_later(r);
}

static void result_fetch(struct result *r, const struct task_output *o, const char *method)
{
    const struct progress *p = task_progress(r->task);
    if (comfy_view_target(&p->nodes[o->node].files[o->file], &r->target) != ERR_OK) {
        result_fail(r, ERR_INVALID, "its name is no name");
        return;
    }
    base64_init(&r->encoder);
    r->received = 0;
    r->fetching = true;
    r->call = (struct http_call){
        .method = method,
        .target = buf_slice(&r->target),
        .on_head = result_on_head,
        .on_part = result_on_part,
        .on_end = result_on_end,
        .ctx = r,
    };
    comfy_view_start(r->comfy, &r->call, r->told ? 0 : r->wait_ms);
    r->wait_ms = 0;
}

static bool result_write_kept(struct result *r)
{
    const struct blob *kept = r->output < TASK_KEPT_MAX ? r->kept[r->output] : NULL;
    if (kept == NULL)
        return false;
    base64_init(&r->encoder);
    char *text = result_text(r, kept->len);
    size_t n = base64_feed(&r->encoder, blob_slice(kept), text);
    result_write(r, (struct slice){text, n});
    r->fetched = true;
    return true;
}

static void result_end_output(struct result *r)
{
    char text[BASE64_ROOM(1)];
    size_t n = base64_finish(&r->encoder, text);
    result_write(r, (struct slice){text, n});
    result_write(r, SLICE("\""));
    r->fetched = false;
    r->output++;
}

/* --- the document ---------------------------------------------------------------------------- */

static void result_open_node(struct result *r)
{
    const struct progress_node *n = &task_progress(r->task)->nodes[r->node];
    struct buf entry;
    buf_init(&entry, SIZE_MAX);
    buf_expect(&entry, RESULT_ENTRY);
    buf_adds(&entry, r->node == 0 ? "{" : ",");
    progress_render_node(n, &entry);
    result_write(r, buf_slice(&entry));
    buf_done(&entry);
    r->node_open = true;
}

/* True: more can be done at once. */
static bool result_turn_before(struct result *r)
{
    const struct task_output *o = result_next(r);
    if (r->checking && o != NULL) {
        result_fetch(r, o, "HEAD");
        return !r->fetching;
    }
    r->checking = false;
    r->output = 0;
    r->begun = true;
    return true;
}

static bool result_turn(struct result *r)
{
    const struct progress *p = task_progress(r->task);
    const struct task_output *o = result_next(r);
    if (r->again) {
        r->again = false;
        result_fetch(r, result_output(r), r->checking ? "HEAD" : "GET");
        return !r->fetching;
    }
    if (!r->begun)
        return result_turn_before(r);
    if (r->fetched) {
        result_end_output(r);
        return true;
    }
    if (r->node == p->count) {
        result_write(r, SLICE("}"));
        r->finished = true;
        return false;
    }
    if (!r->node_open) {
        result_open_node(r);
        return true;
    }
    if (o != NULL && o->node == r->node) {
        result_write(r, o->file == 0 ? SLICE(",\"results\":[\"") : SLICE(",\""));
        if (!result_write_kept(r))
            result_fetch(r, o, "GET");
        return !r->fetching;
    }
    result_write(r, p->nodes[r->node].file_count > 0 ? SLICE("]}") : SLICE("}"));
    r->node_open = false;
    r->node++;
    return true;
}

static void result_free(struct result *r)
{
    later_cancel(r->later, &r->step);
    task_unref(r->task);
    for (unsigned i = 0; i < TASK_KEPT_MAX; i++)
        blob_unref(r->kept[i]);
    buf_done(&r->target);
    buf_done(&r->lead);
    free(r->text);
    free(r);
}

static void result_on_step(struct later_item *item)
{
    struct result *r = CONTAINER_OF(item, struct result, step);
    if (r->fetching)
        return;
    if (r->cancelled) {
        result_free(r);
        return;
    }
    while (r->err.code == ERR_OK && !r->full && !r->finished && result_turn(r))
        ;
    if (r->err.code == ERR_OK && !r->finished)
        return; /* result_resume() or result_on_end() goes on */
    if (r->err.code == ERR_OK)
        result_tell(r);
    struct result_sink sink = r->sink;
    struct err err = r->err;
    result_free(r);
    sink.end(sink.ctx, err.code != ERR_OK ? &err : NULL);
}

struct result *result_start(struct task *t, struct comfy *comfy, struct later *later,
                            const struct result_sink *sink, uint64_t wait_ms)
{
    ASSERT(task_status(t) == TASK_SUCCEEDED);
    struct result *r = xcalloc(1, sizeof(*r));
    r->task = task_ref(t);
    r->comfy = comfy;
    r->later = later;
    r->sink = *sink;
    r->wait_ms = wait_ms;
    r->checking = !task_saw_outputs(t);
    for (unsigned i = 0; i < TASK_KEPT_MAX; i++) {
        struct blob *kept = task_output_bytes(t, i);
        r->kept[i] = kept != NULL ? blob_ref(kept) : NULL;
    }
    buf_init(&r->target, SIZE_MAX);
    buf_init(&r->lead, SIZE_MAX);
    buf_expect(&r->lead, RESULT_LEAD);
    later_item_init(&r->step, result_on_step);
    result_step_later(r);
    return r;
}

void result_resume(struct result *r)
{
    r->full = false;
    if (r->fetching)
        comfy_view_resume(r->comfy, &r->call);
    else
        result_step_later(r);
}

void result_cancel(struct result *r)
{
    r->cancelled = true;
    if (r->fetching)
        comfy_view_cancel(r->comfy, &r->call);
    else
        result_step_later(r);
}
