/* What ComfyUI says while it runs a prompt and when it is asked afterwards. The first line is the
 * prompt; each further one is a message of its WebSocket ('\1' in front: a binary one), an answer
 * to GET /history/p ('H' in front), or one to GET /queue ('Q').
 *
 * Whatever it says, spelled in another way it says the same, and whatever it said before; what is
 * found in a message lies there; and the progress stays one: its counts are those of its nodes, and
 * a reader of its node map comes to the same one. */
#include "history.h"
#include "inputs_private.h"
#include "json_tell.h"
#include "progress.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool lies_in(struct slice part, struct slice whole)
{
    return part.len == 0 || (part.ptr >= whole.ptr && part.ptr + part.len <= whole.ptr + whole.len);
}

/* A whole value of that kind, or none. */
static void check_part(struct slice part, enum json_kind kind, struct slice whole)
{
    ASSERT(lies_in(part, whole));
    if (part.len > 0)
        ASSERT(json_check(part, &json_from_comfyui, NULL, NULL) == ERR_OK &&
               json_kind(part) == kind);
}

static bool same_value(struct slice a, struct slice b)
{
    struct buf x, y;
    if (a.len == 0 || b.len == 0)
        return a.len == b.len;
    buf_init(&x, SIZE_MAX);
    buf_init(&y, SIZE_MAX);
    json_tell(&x, a);
    json_tell(&y, b);
    bool same = slice_eq(buf_slice(&x), buf_slice(&y));
    buf_done(&x);
    buf_done(&y);
    return same;
}

/* False: it is no document. */
static bool respell(struct slice text, struct buf *ret)
{
    /* Strings in escapes are longer and no deeper; what is told of Python's NaN stays as it is. */
    buf_init(ret, SIZE_MAX);
    if (json_check(text, &json_from_comfyui, NULL, NULL) != ERR_OK)
        return false;
    json_respell(ret, json_trim(text));
    return true;
}

/* --- one event ------------------------------------------------------------------------------- */

/* Only one type is known by its first bytes, so only there the spelling counts. */
static bool is_skipped(struct slice message)
{
    struct slice type;
    return json_get(json_trim(message), "type", &type) && json_kind(type) == JSON_STRING &&
           json_string_is(type, "progress_state");
}

static void check_spelling(const struct event *e, struct slice message)
{
    struct buf text;
    struct event other;
    bool is_document = respell(message, &text);
    if (!is_document)
        ASSERT(e->type == EVENT_ODD ||
               slice_starts(message, SLICE("{\"type\": \"progress_state\"")));
    if (is_document && !is_skipped(message)) {
        event_parse(&other, buf_slice(&text));
        ASSERT(e->type == other.type && e->is_blocked == other.is_blocked &&
               e->is_greeting == other.is_greeting);
        ASSERT(same_value(e->prompt_id, other.prompt_id) && same_value(e->node, other.node) &&
               same_value(e->display_node, other.display_node) &&
               same_value(e->nodes, other.nodes) && same_value(e->output, other.output) &&
               same_value(e->data, other.data));
        ASSERT(e->value >= other.value && e->value <= other.value && e->max >= other.max &&
               e->max <= other.max);
    }
    buf_done(&text);
}

static void check_event(const struct event *e, struct slice message)
{
    check_part(e->prompt_id, JSON_STRING, message);
    check_part(e->node, JSON_STRING, message);
    check_part(e->display_node, JSON_STRING, message);
    check_part(e->nodes, JSON_ARRAY, message);
    check_part(e->output, JSON_OBJECT, message);
    check_part(e->data, JSON_OBJECT, message);
    ASSERT(lies_in(e->image, message) && (e->image.len == 0 || e->type == EVENT_PREVIEW));
    ASSERT((e->type == EVENT_PREVIEW) == (e->media_type != NULL));
    ASSERT(e->type != EVENT_EXECUTING || e->node.len > 0);
    ASSERT(e->type != EVENT_CACHED || e->nodes.len > 0);
    ASSERT(e->type != EVENT_FOREIGN || e->prompt_id.len == 0);
}

static bool same_place(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || a.ptr == b.ptr);
}

/* Whatever was read before. */
static void check_reader(struct event_reader *r, const struct event *e, struct slice message)
{
    struct event read;
    event_read(r, &read, message);
    ASSERT(read.type == e->type && read.is_blocked == e->is_blocked &&
           read.is_greeting == e->is_greeting);
    ASSERT(same_place(read.prompt_id, e->prompt_id) && same_place(read.node, e->node) &&
           same_place(read.display_node, e->display_node) && same_place(read.nodes, e->nodes) &&
           same_place(read.output, e->output) && same_place(read.data, e->data));
    ASSERT(read.value >= e->value && read.value <= e->value && read.max >= e->max &&
           read.max <= e->max);
}

/* --- the progress ---------------------------------------------------------------------------- */

static void check_counts(const struct progress *p)
{
    unsigned done = 0;
    unsigned files = 0;
    size_t bytes = 0;
    for (unsigned i = 0; i < p->count; i++) {
        const struct progress_node *n = &p->nodes[i];
        ASSERT(progress_find(p, n->id) >= 0 && n->value >= 0 && n->value <= n->max);
        ASSERT(n->state == PROGRESS_IDLE || n->max > 0);
        done += n->state == PROGRESS_DONE;
        files += n->file_count;
        bytes += n->output_bytes;
    }
    ASSERT(done == p->done && files == p->file_total && bytes == p->output_bytes);
    ASSERT(files <= PROGRESS_FILES_MAX && bytes <= PROGRESS_OUTPUTS_MAX);
    ASSERT(p->running <= p->count);
    ASSERT(p->running == 0 || p->nodes[p->running - 1].state == PROGRESS_RUNNING);
    ASSERT(progress_share(p) >= 0 && progress_share(p) <= 1);
}

/* Its node map is a document like those of clients, and tells all of it. */
static void check_map(const struct progress *p)
{
    const struct json_limits limits = {.depth = 4, .unique_keys = true};
    struct progress again;
    struct buf map, other;
    buf_init(&map, SIZE_MAX);
    buf_init(&other, SIZE_MAX);
    progress_render(p, &map);
    ASSERT(json_check(buf_slice(&map), &limits, NULL, NULL) == ERR_OK);
    progress_read(&again, buf_slice(&map));
    check_counts(&again);
    ASSERT(again.count == p->count && again.file_total == p->file_total);
    progress_render(&again, &other);
    ASSERT(slice_eq(buf_slice(&map), buf_slice(&other)));
    progress_done(&again);
    buf_done(&other);
    buf_done(&map);
}

static void apply(struct progress *p, const struct event *e)
{
    uint64_t rev = p->rev;
    bool changed = progress_apply(p, e, 1700000000);
    ASSERT(p->rev == rev + changed);
    check_counts(p);
}

/* --- answers --------------------------------------------------------------------------------- */

static void on_history(struct progress *p, struct slice body)
{
    struct history h, other;
    struct buf text;
    struct err err;
    if (history_parse(&h, body, "p", &err) != ERR_OK) {
        ASSERT(err.code == ERR_PROTOCOL || err.msg[0] != '\0');
        return;
    }
    check_part(h.meta, JSON_OBJECT, body);
    check_part(h.last, JSON_OBJECT, body);
    check_part(h.cached, JSON_ARRAY, body);
    ASSERT(h.end != HISTORY_NONE || (h.last.len == 0 && slice_is(h.outputs, "{}")));
    ASSERT(respell(body, &text) && history_parse(&other, buf_slice(&text), "p", NULL) == ERR_OK);
    ASSERT(h.end == other.end && same_value(h.outputs, other.outputs) &&
           same_value(h.meta, other.meta) && same_value(h.last, other.last) &&
           same_value(h.cached, other.cached));
    buf_done(&text);
    if (h.cached.len > 0)
        apply(p, &(struct event){.type = EVENT_CACHED, .nodes = h.cached});
    progress_reconcile(p, h.outputs, h.meta, h.end == HISTORY_SUCCESS, 1700000001);
    check_counts(p);
}

static void on_queue(struct slice body)
{
    struct queue queue, other;
    struct buf text;
    if (queue_parse(&queue, body, NULL) != ERR_OK)
        return;
    ASSERT(respell(body, &text) && queue_parse(&other, buf_slice(&text), NULL) == ERR_OK);
    ASSERT(queue_place_of(&queue, "p") == queue_place_of(&other, "p"));
    buf_done(&text);
}

/* Python tells names in escapes, prompts may have them plain. */
static void on_object_info(struct slice body)
{
    static const struct slice plain = {"\"é\"", 4}, escaped = {"\"\\u00e9\"", 8};
    struct buf text;
    if (respell(body, &text)) {
        struct slice info = json_trim(body);
        struct slice other = json_trim(buf_slice(&text));
        bool takes = inputs_class_takes(info, plain, SLICE("\"image\""));
        ASSERT(inputs_class_takes(info, escaped, SLICE("\"im\\u0061ge\"")) == takes);
        ASSERT(inputs_class_takes(other, plain, SLICE("\"image\"")) == takes);
    }
    buf_done(&text);
}

static void on_line(struct progress *p, struct event_reader *r, struct slice line)
{
    struct event e;
    struct slice rest = {line.ptr + 1, line.len - 1};
    if (line.ptr[0] == 'H') {
        on_history(p, rest);
    } else if (line.ptr[0] == 'Q') {
        on_queue(rest);
    } else if (line.ptr[0] == 'O') {
        on_object_info(rest);
    } else if (line.ptr[0] == '\1') {
        event_parse_binary(&e, rest);
        check_event(&e, rest);
        apply(p, &e);
    } else {
        event_parse(&e, line);
        check_event(&e, line);
        check_spelling(&e, line);
        check_reader(r, &e, line);
        apply(p, &e);
    }
}

static struct slice take_line(struct slice *text)
{
    const char *end = memchr(text->ptr, '\n', text->len);
    struct slice line = {text->ptr, end != NULL ? (size_t)(end - text->ptr) : text->len};
    size_t used = line.len + (end != NULL ? 1 : 0);
    *text = (struct slice){text->ptr + used, text->len - used};
    return line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = {size > 0 ? (const char *)data : "", size};
    struct prompt prompt;
    struct prompt_fault fault;
    struct progress p;
    struct event_reader reader = {.len = 0};
    struct buf body;
    buf_init(&body, SIZE_MAX);
    buf_add(&body, take_line(&text));
    if (prompt_parse(&prompt, &body, &fault) == ERR_OK) {
        progress_init(&p, &prompt);
        while (text.len > 0) {
            struct slice line = take_line(&text);
            if (line.len > 0)
                on_line(&p, &reader, line);
        }
        check_map(&p);
        progress_reset(&p);
        check_counts(&p);
        progress_done(&p);
    }
    prompt_done(&prompt);
    return 0;
}
