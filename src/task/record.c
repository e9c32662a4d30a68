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
    buf_addf(out, "%s{\"node_id\":%.*s,\"index\":%u,\"filename\":%s,\"subfolder\":%s,\"type\":%s",
             index > 0 ? "," : "", SLICE_ARGS(n->id), index, f->filename, f->subfolder, f->type);
    buf_adds(out, ",\"media_type\":");
    buf_add_json_string(out, slice_of(o->media_type));
    buf_adds(out, ",\"etag\":");
    buf_add_json_string(out, slice_of(o->etag));
    buf_addf(out, ",\"size\":%llu,\"url\":\"/api/tasks/%s/outputs/%u\"}",
             (unsigned long long)o->size, t->id, index);
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
    if (t->status == TASK_SUCCEEDED)
        buf_adds(out, ",\"progress\":1");
    else
        buf_addf(out, ",\"progress\":%.4g", progress_share(&t->progress));
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
    buf_adds(out, ",\"nodes\":");
    progress_render(&t->progress, out);
    buf_adds(out, "}");
}
