/* The record of a task as JSON: see ARCHITECTURE.md for its members. */
#include "task_private.h"

/* `before` is what stands before the number, a comma and the name. Without printf(): a record is
 * rendered several times a run. */
static void add_number(struct buf *out, const char *before, uint64_t n)
{
    buf_adds(out, before);
    buf_add_u64(out, n);
}

static void add_phase(struct buf *out, const char *before, uint64_t from, uint64_t to)
{
    add_number(out, before, from != 0 && to > from ? to - from : 0);
}

static void add_text(struct buf *out, const char *before, const char *text)
{
    buf_adds(out, before);
    buf_adds(out, text);
}

/* What is not over yet counts up to now. */
static uint64_t or_now(uint64_t at, uint64_t now)
{
    return at != 0 ? at : now;
}

static void add_phases(const struct task *t, struct buf *out)
{
    uint64_t now = clock_mono_ms();
    uint64_t sent = or_now(t->submitted_at, now);
    uint64_t begun = t->inputs_at != 0 ? t->inputs_at : sent;
    uint64_t open = t->open_at != 0 && t->open_at < begun ? t->open_at : begun;
    add_phase(out, ",\"phases\":{\"queued_ms\":", open, begun);
    add_phase(out, ",\"boot_ms\":", t->queued_at, open);
    add_phase(out, ",\"inputs_ms\":", begun, sent);
    add_phase(out, ",\"run_ms\":", t->submitted_at, or_now(t->over_at, now));
    add_phase(out, ",\"collect_ms\":", t->over_at, or_now(t->collected_at, now));
    buf_adds(out, "}");
}

static void add_output(const struct task *t, unsigned index, struct buf *out)
{
    const struct task_output *o = &t->outputs[index];
    const struct progress_node *n = &t->progress.nodes[o->node];
    const struct progress_file *f = &n->files[o->file];
    buf_adds(out, index > 0 ? ",{\"node_id\":" : "{\"node_id\":");
    buf_add(out, n->id);
    add_number(out, ",\"index\":", index);
    add_text(out, ",\"filename\":", f->filename);
    add_text(out, ",\"subfolder\":", f->subfolder);
    add_text(out, ",\"type\":", f->type);
    buf_adds(out, ",\"media_type\":");
    buf_add_json_string(out, slice_of(o->media_type));
    buf_adds(out, ",\"etag\":");
    buf_add_json_string(out, slice_of(o->etag));
    add_number(out, ",\"size\":", o->size);
    add_text(out, ",\"url\":\"/api/tasks/", t->id);
    add_number(out, "/outputs/", index);
    buf_adds(out, "\"}");
}

static void add_outputs(const struct task *t, struct buf *out)
{
    const struct task_output *outputs;
    unsigned count = task_outputs(t, &outputs);
    buf_adds(out, ",\"outputs\":[");
    for (unsigned i = 0; i < count; i++)
        add_output(t, i, out);
    buf_adds(out, "]");
}

static void add_progress(const struct task *t, struct buf *out)
{
    double share = t->status == TASK_SUCCEEDED ? 1 : progress_share(&t->progress);
    if (share > 0 && share < 1)
        buf_addf(out, ",\"progress\":%.4g", share);
    else
        add_number(out, ",\"progress\":", share >= 1);
}

/* As task_nodes() has rendered them for somebody else, if it has. */
static void add_nodes(const struct task *t, struct buf *out)
{
    buf_adds(out, ",\"nodes\":");
    if (t->nodes_blob != NULL && t->nodes_rev == t->progress.rev)
        buf_add(out, blob_slice(t->nodes_blob));
    else
        progress_render(&t->progress, out);
}

void record_render(const struct task *t, struct buf *out)
{
    add_text(out, "{\"id\":\"", t->id);
    add_text(out, "\",\"status\":\"", task_status_name(t->status));
    add_number(out, "\",\"attempt\":", t->attempt);
    add_text(out, ",\"prompt_id\":\"", t->prompt_id);
    add_number(out, "\",\"rev\":", t->rev);
    add_number(out, ",\"created\":", t->created_ms);
    add_number(out, ",\"started\":", t->started_ms);
    add_number(out, ",\"finished\":", t->finished_ms);
    add_number(out, ",\"updated\":", t->updated_ms);
    buf_adds(out, ",\"instance\":");
    buf_add_json_string(out, slice_of(t->instance));
    add_text(out, ",\"request_id\":\"", t->request_id);
    add_text(out, "\",\"prompt_sha256\":\"", t->prompt.sha256);
    add_text(out, "\",\"seeds\":", t->prompt.seeds.len > 0 ? t->prompt.seeds.ptr : "{}");
    add_phases(t, out);
    if (task_offers(t))
        buf_adds(out, ",\"offered\":true");
    add_progress(t, out);
    buf_adds(out, ",\"error\":");
    if (t->failure != NULL)
        failure_render(t->failure, out);
    else
        buf_adds(out, "null");
    buf_adds(out, ",\"metadata\":");
    buf_adds(out, t->metadata.len > 0 ? t->metadata.ptr : "null");
    add_outputs(t, out);
    if (t->progress.truncated)
        buf_adds(out, ",\"truncated\":true");
    add_nodes(t, out);
    buf_adds(out, "}");
}
