/* Documents of a task that are read back from a store, where anybody may have written them:
 * records, claims, wishes; and what of ComfyUI's answers goes into a record. The same bytes are
 * taken for each of them.
 *
 * A record that was read is written, read and written as the same. A prompt that was taken from a
 * client is in the claim, and whoever reads the claim has the same one. */
#include "hub_room.h"
#include "json_tell.h"
#include "task_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct json_limits stored = {.depth = JSON_DEPTH_MAX};

static struct hub_room *room_open(void)
{
    static struct hub_room room;
    if (room.hub == NULL)
        hub_room_open(&room, &store_mem_ops, "mem:");
    return &room;
}

static struct task *task_of(struct slice record)
{
    return task_of_record(room_open()->hub, "t-1", record);
}

static void task_end(struct task *t)
{
    task_unref(t);
    (void)uv_run(&room_open()->f.loop, UV_RUN_NOWAIT);
}

/* --- records --------------------------------------------------------------------------------- */

/* All but the phases, which go on while it is looked at. */
static void render_still(const struct task *t, struct buf *out)
{
    struct json_iter it;
    struct slice key, value;
    struct buf all;
    buf_init(&all, SIZE_MAX);
    record_render(t, &all);
    ASSERT(json_check(buf_slice(&all), &stored, NULL, NULL) == ERR_OK);
    buf_init(out, SIZE_MAX);
    json_iter_init(&it, buf_slice(&all));
    while (json_next(&it, &key, &value)) {
        if (slice_is(key, "\"phases\""))
            continue;
        buf_addf(out, "%s%.*s:", out->len > 0 ? "," : "{", SLICE_ARGS(key));
        buf_add(out, value);
    }
    buf_adds(out, "}");
    buf_done(&all);
}

static void check_outputs(const struct task *t)
{
    const struct progress *p = task_progress(t);
    const struct task_output *outputs;
    unsigned count = task_outputs(t, &outputs);
    ASSERT(count <= p->file_total);
    for (unsigned i = 0; i < count; i++) {
        ASSERT(outputs[i].node < p->count);
        ASSERT(outputs[i].file < p->nodes[outputs[i].node].file_count);
    }
}

static void check_record(struct slice text)
{
    struct record r, again;
    struct buf first, second;
    struct task *t = task_of(text);
    if (t == NULL) {
        ASSERT(record_parse(&r, text, NULL) == ERR_CORRUPT);
        return;
    }
    ASSERT(record_parse(&r, text, NULL) == ERR_OK);
    ASSERT(slice_eq(blob_slice(task_record(t)), text));
    check_outputs(t);
    ASSERT((task_failure(t) != NULL) ==
           (r.error.len > 0 || r.status == TASK_FAILED || r.status == TASK_CANCELLED));
    render_still(t, &first);
    ASSERT(record_parse(&again, buf_slice(&first), NULL) == ERR_OK);
    ASSERT(r.status == again.status && r.attempt == again.attempt && r.rev == again.rev &&
           r.created_ms == again.created_ms && r.started_ms == again.started_ms &&
           r.updated_ms == again.updated_ms);
    task_end(t);
    t = task_of(buf_slice(&first));
    render_still(t, &second);
    ASSERT(slice_eq(buf_slice(&first), buf_slice(&second)));
    task_end(t);
    buf_done(&first);
    buf_done(&second);
}

/* --- claims ---------------------------------------------------------------------------------- */

static struct task *task_blank(void)
{
    return task_of(SLICE("{\"status\":\"queued\",\"attempt\":1,\"rev\":1}"));
}

/* What is not there points nowhere. */
static bool same(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || slice_eq(a, b));
}

static void check_same_prompt(const struct task *a, const struct task *b)
{
    const struct prompt *x = &a->prompt;
    const struct prompt *y = &b->prompt;
    ASSERT(slice_eq(buf_slice(&x->text), buf_slice(&y->text)) && x->count == y->count);
    ASSERT(slice_eq(buf_slice(&x->seeds), buf_slice(&y->seeds)));
    ASSERT(strcmp(x->sha256, y->sha256) == 0);
    ASSERT(same(x->extra_data, y->extra_data) && same(x->targets, y->targets));
    ASSERT(slice_eq(buf_slice(&a->metadata), buf_slice(&b->metadata)));
}

/* What t has of a prompt, as another process finds it. */
static void check_handed_over(const struct task *t)
{
    struct task *other = task_blank();
    struct buf document;
    buf_init(&document, SIZE_MAX);
    task_claim_document(t, true, &document);
    ASSERT(task_claim_read_prompt(other, buf_slice(&document), NULL) == ERR_OK);
    check_same_prompt(t, other);
    buf_done(&document);
    task_end(other);
}

static void check_claim(struct slice text)
{
    struct task *t = task_blank();
    struct err err;
    if (task_claim_read_prompt(t, text, &err) == ERR_OK)
        check_handed_over(t);
    else
        ASSERT(err.code == ERR_CORRUPT);
    task_end(t);
}

/* Of a client. */
static void check_prompt(struct slice text)
{
    struct prompt p;
    struct prompt_fault fault;
    struct buf body;
    buf_init(&body, SIZE_MAX);
    buf_add(&body, text);
    if (prompt_parse(&p, &body, &fault) != ERR_OK) {
        prompt_done(&p);
        return;
    }
    struct task *t = task_blank();
    task_take_prompt(t, &p);
    check_handed_over(t);
    task_end(t);
}

/* --- wishes ---------------------------------------------------------------------------------- */

static void check_wishes(struct slice text)
{
    struct buf anew;
    int64_t attempt = 0;
    int64_t other = 0;
    bool asks = task_wishes_read(text, &attempt);
    if (json_check(text, &stored, NULL, NULL) != ERR_OK) {
        ASSERT(!asks);
        return;
    }
    buf_init(&anew, SIZE_MAX);
    json_respell(&anew, json_trim(text));
    ASSERT(task_wishes_read(buf_slice(&anew), &other) == asks && attempt == other);
    buf_done(&anew);
}

/* --- failures -------------------------------------------------------------------------------- */

/* What ComfyUI says of an error is JSON in a record, whatever Python printed, or is not there. */
static void check_failure(struct slice text)
{
    struct buf record, said, kept;
    struct slice value;
    char detail[64];
    if (json_check(text, &json_from_comfyui, NULL, NULL) != ERR_OK)
        return;
    struct slice given = json_trim(text);
    failure_detail_of(given, "?", detail, sizeof(detail));
    struct failure *f = failure_new(FAILURE_NODE, "%s", detail);
    failure_add_json(f, "value", given);
    buf_init(&record, SIZE_MAX);
    buf_adds(&record, "{\"error\":");
    failure_render(f, &record);
    buf_adds(&record, "}");
    failure_free(f);
    ASSERT(json_check(buf_slice(&record), &stored, NULL, NULL) == ERR_OK);
    if (json_check(given, &stored, NULL, NULL) == ERR_OK &&
        json_get_path(buf_slice(&record), &value, "error", "value", (char *)NULL)) {
        buf_init(&said, SIZE_MAX);
        buf_init(&kept, SIZE_MAX);
        json_tell(&said, given);
        json_tell(&kept, value);
        ASSERT(slice_eq(buf_slice(&said), buf_slice(&kept)));
        buf_done(&said);
        buf_done(&kept);
    }
    buf_done(&record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = {size > 0 ? (const char *)data : "", size};
    check_record(text);
    check_claim(text);
    check_prompt(text);
    check_wishes(text);
    check_failure(text);
    return 0;
}
