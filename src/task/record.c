/* The record of a task as JSON: see ARCHITECTURE.md for its members. */
#include "task_private.h"

static void add_phase(struct buf *out, const char *name, uint64_t from, uint64_t to, bool first)
{
    uint64_t ms = from != 0 && to > from ? to - from : 0;
    buf_addf(out, "%s\"%s\":%llu", first ? "" : ",", name, (unsigned long long)ms);
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
    buf_adds(out, ",\"phases\":{");
    add_phase(out, "queued_ms", open, begun, true);
    add_phase(out, "boot_ms", t->queued_at, open, false);
    add_phase(out, "inputs_ms", begun, sent, false);
    add_phase(out, "run_ms", t->submitted_at, or_now(t->over_at, now), false);
    add_phase(out, "collect_ms", t->over_at, or_now(t->collected_at, now), false);
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
    buf_addf(out,
             "{\"id\":\"%s\",\"status\":\"%s\",\"attempt\":%u,\"prompt_id\":\"%s\",\"rev\":%llu,"
             "\"created\":%llu,\"started\":%llu,\"finished\":%llu,\"updated\":%llu",
             t->id, task_status_name(t->status), t->attempt, t->prompt_id,
             (unsigned long long)t->rev, (unsigned long long)t->created_ms,
             (unsigned long long)t->started_ms, (unsigned long long)t->finished_ms,
             (unsigned long long)t->updated_ms);
    buf_adds(out, ",\"instance\":");
    buf_add_json_string(out, slice_of(t->instance));
    buf_addf(out, ",\"request_id\":\"%s\",\"prompt_sha256\":\"%s\",\"seeds\":%s", t->request_id,
             t->prompt.sha256, t->prompt.seeds.ptr);
    add_phases(t, out);
    if (task_offers(t))
        buf_adds(out, ",\"offered\":true");
    buf_addf(out, ",\"progress\":%.4g",
             t->status == TASK_SUCCEEDED ? 1.0 : progress_share(&t->progress));
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
