#include "progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* --- ids ------------------------------------------------------------------------------------- */

/* Ids are compared unescaped: "\u0033" is "3". Almost no id has an escape, so the bytes between the
 * quotes are the fast way. */
static bool has_escape(struct slice token)
{
    return memchr(token.ptr, '\\', token.len) != NULL;
}

static struct slice inside(struct slice token)
{
    return (struct slice){token.ptr + 1, token.len - 2};
}

/* The id's plain bytes: inside the token, or unescaped into *room. */
static struct slice id_bytes(struct slice token, struct buf *room)
{
    if (!has_escape(token))
        return inside(token);
    return json_unescape(token, room) == ERR_OK ? buf_slice(room) : SLICE_EMPTY;
}

static int find_bytes(const struct progress *p, struct slice bytes)
{
    uint64_t h = hash_bytes(p->seed, bytes.ptr, bytes.len);
    for (uint32_t at = (uint32_t)h & p->index_mask;; at = (at + 1) & p->index_mask) {
        if (p->index[at] == 0)
            return -1;
        struct progress_node *n = &p->nodes[p->index[at] - 1];
        struct buf room;
        buf_init(&room, SIZE_MAX);
        bool same = slice_eq(id_bytes(n->id, &room), bytes);
        buf_done(&room);
        if (same)
            return (int)p->index[at] - 1;
    }
}

int progress_find(const struct progress *p, struct slice id)
{
    struct buf room;
    if (id.len < 2)
        return -1;
    buf_init(&room, SIZE_MAX);
    int at = find_bytes(p, id_bytes(id, &room));
    buf_done(&room);
    return at;
}

static void index_add(struct progress *p, unsigned position)
{
    struct buf room;
    buf_init(&room, SIZE_MAX);
    struct slice bytes = id_bytes(p->nodes[position].id, &room);
    uint32_t at = (uint32_t)hash_bytes(p->seed, bytes.ptr, bytes.len) & p->index_mask;
    while (p->index[at] != 0)
        at = (at + 1) & p->index_mask;
    p->index[at] = position + 1;
    buf_done(&room);
}

/* --- life ------------------------------------------------------------------------------------ */

/* Room for `count` nodes whose ids are set by the caller, who then calls index_add() for each. */
static void make_room(struct progress *p, unsigned count)
{
    *p = (struct progress){.count = count, .rev = 1};
    uint32_t size = 8;
    while (size < count * 2)
        size *= 2;
    p->nodes = xcalloc(count, sizeof(*p->nodes));
    p->index = xcalloc(size, sizeof(*p->index));
    p->index_mask = size - 1;
    random_bytes(&p->seed, sizeof(p->seed));
    buf_init(&p->inner, SIZE_MAX);
}

void progress_init(struct progress *p, const struct prompt *prompt)
{
    make_room(p, prompt->count);
    for (unsigned i = 0; i < prompt->count; i++) {
        p->nodes[i].id = prompt->nodes[i].id;
        index_add(p, i);
    }
}

static void node_clear_outputs(struct progress *p, struct progress_node *n)
{
    for (unsigned i = 0; i < n->file_count; i++) {
        free(n->files[i].filename);
        free(n->files[i].subfolder);
        free(n->files[i].type);
    }
    p->file_total -= n->file_count;
    p->output_bytes -= n->output_bytes;
    n->output_bytes = 0;
    free(n->files);
    free(n->texts);
    n->files = NULL;
    n->file_count = 0;
    n->texts = NULL;
}

void progress_done(struct progress *p)
{
    for (unsigned i = 0; i < p->count; i++)
        node_clear_outputs(p, &p->nodes[i]);
    free(p->nodes);
    free(p->index);
    buf_done(&p->inner);
    *p = (struct progress){.rev = p->rev};
}

void progress_reset(struct progress *p)
{
    for (unsigned i = 0; i < p->count; i++) {
        node_clear_outputs(p, &p->nodes[i]);
        p->nodes[i] = (struct progress_node){.id = p->nodes[i].id};
    }
    p->running = 0;
    p->done = 0;
    p->truncated = false;
    buf_reset(&p->inner);
    p->rev++;
}

/* --- outputs --------------------------------------------------------------------------------- */

static char *token_copy(struct slice token)
{
    char *copy = xmalloc(token.len + 1);
    memcpy(copy, token.ptr, token.len);
    copy[token.len] = '\0';
    return copy;
}

static struct slice string_or(struct slice object, const char *key, const char *fallback)
{
    struct slice value;
    if (json_get(object, key, &value) && json_kind(value) == JSON_STRING)
        return value;
    return slice_of(fallback);
}

static bool take_bytes(struct progress *p, struct progress_node *n, size_t bytes)
{
    if (p->output_bytes + bytes > PROGRESS_OUTPUTS_MAX) {
        p->truncated = true;
        return false;
    }
    p->output_bytes += bytes;
    n->output_bytes += bytes;
    return true;
}

/* A file is told twice, in the node map and in the list of outputs: tokens, and what is around
 * them (media type, tag, address, names of members). */
static size_t file_bytes(const struct progress_node *n, size_t tokens)
{
    enum { AROUND = 512 };
    return 2 * tokens + n->id.len + AROUND;
}

/* A file is an object with a string `filename`, under whatever key. */
static void add_file(struct progress *p, struct progress_node *n, struct slice item)
{
    struct slice filename;
    if (!json_get(item, "filename", &filename) || json_kind(filename) != JSON_STRING)
        return;
    struct slice subfolder = string_or(item, "subfolder", "\"\"");
    struct slice type = string_or(item, "type", "\"output\"");
    if (p->file_total >= PROGRESS_FILES_MAX) {
        p->truncated = true;
        return;
    }
    if (!take_bytes(p, n, file_bytes(n, filename.len + subfolder.len + type.len)))
        return;
    n->files = xrealloc(n->files, (n->file_count + 1) * sizeof(*n->files));
    n->files[n->file_count++] = (struct progress_file){
        .filename = token_copy(filename),
        .subfolder = token_copy(subfolder),
        .type = token_copy(type),
    };
    p->file_total++;
}

static void add_text(struct progress *p, struct progress_node *n, struct buf *texts,
                     struct slice item)
{
    if (texts->len + item.len + 1 > PROGRESS_TEXT_MAX) {
        p->truncated = true;
        return;
    }
    if (!take_bytes(p, n, item.len + 1))
        return;
    if (texts->len > 0)
        buf_adds(texts, ",");
    buf_add(texts, item);
}

static void add_items(struct progress *p, struct progress_node *n, struct slice list, bool is_text,
                      struct buf *texts)
{
    struct json_iter it;
    struct slice item;
    json_iter_init(&it, list);
    while (json_next(&it, NULL, &item)) {
        if (json_kind(item) == JSON_OBJECT)
            add_file(p, n, item);
        else if (is_text && json_kind(item) == JSON_STRING)
            add_text(p, n, texts, item);
    }
}

/* {key: [items], …}: files of any key in its order, strings of the key "text". */
static void node_add_output(struct progress *p, struct progress_node *n, struct slice output)
{
    struct json_iter it;
    struct slice key;
    struct slice value;
    struct buf texts;
    buf_init(&texts, SIZE_MAX);
    if (n->texts != NULL)
        buf_adds(&texts, n->texts);
    json_iter_init(&it, output);
    while (json_next(&it, &key, &value)) {
        bool is_text = json_string_is(key, "text");
        if (json_kind(value) == JSON_ARRAY)
            add_items(p, n, value, is_text, &texts);
        else if (is_text && json_kind(value) == JSON_STRING)
            add_text(p, n, &texts, value);
    }
    free(n->texts);
    n->texts = texts.len > 0 ? token_copy(buf_slice(&texts)) : NULL;
    buf_done(&texts);
}

/* --- events ---------------------------------------------------------------------------------- */

static void node_start(struct progress *p, struct progress_node *n, uint64_t now_s)
{
    if (n->state == PROGRESS_DONE)
        p->done--;
    n->state = PROGRESS_RUNNING;
    n->cached = false;
    n->ran = true;
    if (n->start_s == 0)
        n->start_s = now_s;
    n->updated_s = now_s;
    if (n->max <= 0)
        n->max = 1;
    p->running = (unsigned)(n - p->nodes) + 1;
}

static void node_finish(struct progress *p, struct progress_node *n, uint64_t now_s)
{
    if (n->state != PROGRESS_DONE)
        p->done++;
    n->state = PROGRESS_DONE;
    if (n->start_s == 0)
        n->start_s = now_s;
    n->updated_s = now_s;
    if (n->max <= 0)
        n->max = 1;
    n->value = n->max;
    if (p->running == (unsigned)(n - p->nodes) + 1)
        p->running = 0;
}

/* The node of the prompt that an event is about: the display node; else the node itself; else the
 * node that executes, if it is the one whose inner node this is; else the prefix of an inner id
 * ("2.0.0.3" lies in "2"). */
static struct progress_node *node_of(struct progress *p, struct slice node, struct slice display)
{
    int at = display.len > 0 ? progress_find(p, display) : -1;
    if (at < 0 && node.len > 0)
        at = progress_find(p, node);
    if (at < 0 && node.len > 0 && p->running > 0 && slice_eq(node, buf_slice(&p->inner)))
        at = (int)p->running - 1;
    if (at < 0 && node.len > 2) {
        struct slice plain = inside(node);
        const char *dot = memchr(plain.ptr, '.', plain.len);
        if (dot != NULL)
            at = find_bytes(p, (struct slice){plain.ptr, (size_t)(dot - plain.ptr)});
    }
    return at >= 0 ? &p->nodes[at] : NULL;
}

static bool apply_executing(struct progress *p, const struct event *e, uint64_t now_s)
{
    struct progress_node *n = node_of(p, e->node, e->display_node);
    if (n == NULL)
        return false;
    if (p->running > 0 && &p->nodes[p->running - 1] != n)
        node_finish(p, &p->nodes[p->running - 1], now_s);
    buf_reset(&p->inner);
    buf_add(&p->inner, e->node);
    node_start(p, n, now_s);
    return true;
}

static bool apply_progress(struct progress *p, const struct event *e, uint64_t now_s)
{
    struct progress_node *n = node_of(p, e->node, SLICE_EMPTY);
    if (n == NULL && p->running > 0)
        n = &p->nodes[p->running - 1];
    if (n == NULL || e->max <= 0)
        return false;
    if (n->state == PROGRESS_IDLE)
        node_start(p, n, now_s);
    n->max = e->max;
    n->value = e->value < 0 ? 0 : e->value > e->max ? e->max : e->value;
    n->updated_s = now_s;
    return true;
}

static bool apply_executed(struct progress *p, const struct event *e, uint64_t now_s)
{
    struct progress_node *n = node_of(p, e->node, e->display_node);
    if (n == NULL)
        return false;
    n->retold = n->told;
    n->told = true;
    if (e->output.len > 0)
        node_add_output(p, n, e->output);
    if (n->state == PROGRESS_IDLE)
        node_finish(p, n, now_s); /* cached: it never executes */
    n->updated_s = now_s;
    return true;
}

static bool apply_cached(struct progress *p, const struct event *e, uint64_t now_s)
{
    struct json_iter it;
    struct slice id;
    bool changed = false;
    json_iter_init(&it, e->nodes);
    while (json_next(&it, NULL, &id)) {
        int at = json_kind(id) == JSON_STRING ? progress_find(p, id) : -1;
        if (at < 0 || p->nodes[at].state != PROGRESS_IDLE)
            continue;
        node_finish(p, &p->nodes[at], now_s);
        p->nodes[at].cached = true;
        changed = true;
    }
    return changed;
}

static bool apply_success(struct progress *p, uint64_t now_s)
{
    if (p->running == 0)
        return false;
    node_finish(p, &p->nodes[p->running - 1], now_s);
    return true;
}

bool progress_apply(struct progress *p, const struct event *e, uint64_t now_s)
{
    bool changed = false;
    switch (e->type) {
    case EVENT_EXECUTING: changed = apply_executing(p, e, now_s); break;
    case EVENT_PROGRESS: changed = apply_progress(p, e, now_s); break;
    case EVENT_EXECUTED: changed = apply_executed(p, e, now_s); break;
    case EVENT_CACHED: changed = apply_cached(p, e, now_s); break;
    case EVENT_SUCCESS: changed = apply_success(p, now_s); break;
    default: break;
    }
    if (changed)
        p->rev++;
    return changed;
}

/* ["4", 1]: the second output of node 4. Empty: no link. */
static struct slice link_source(struct slice input)
{
    struct json_iter it;
    struct slice id, output, more;
    if (json_kind(input) != JSON_ARRAY)
        return SLICE_EMPTY;
    json_iter_init(&it, input);
    bool is_link = json_next(&it, NULL, &id) && json_kind(id) == JSON_STRING &&
                   json_next(&it, NULL, &output) && json_kind(output) == JSON_NUMBER &&
                   !json_next(&it, NULL, &more);
    return is_link ? id : SLICE_EMPTY;
}

/* Which nodes feed another. To be freed. */
static bool *find_feeding(const struct progress *p, const struct prompt *prompt)
{
    struct json_iter it;
    struct slice name, input;
    bool *feeds = xcalloc(p->count, sizeof(*feeds));
    for (unsigned i = 0; i < prompt->count; i++) {
        json_iter_init(&it, prompt->nodes[i].inputs);
        while (json_next(&it, &name, &input)) {
            struct slice source = link_source(input);
            int at = source.len > 0 ? progress_find(p, source) : -1;
            if (at >= 0)
                feeds[at] = true;
        }
    }
    return feeds;
}

/* Empty: not known. */
static struct slice class_of(const struct progress *p, const struct prompt *prompt, unsigned i)
{
    bool is_there = i < prompt->count && slice_eq(prompt->nodes[i].id, p->nodes[i].id);
    return is_there ? prompt->nodes[i].class_type : SLICE_EMPTY;
}

bool progress_heard_all(const struct progress *p, const struct prompt *prompt,
                        const struct silent_classes *silent)
{
    for (unsigned i = 0; i < p->count; i++)
        if (p->nodes[i].state != PROGRESS_DONE || !p->nodes[i].ran || p->nodes[i].retold)
            return false;
    bool *feeds = find_feeding(p, prompt);
    bool all = true;
    for (unsigned i = 0; i < p->count; i++)
        all = all && (feeds[i] || p->nodes[i].told || silent_has(silent, class_of(p, prompt, i)));
    free(feeds);
    return all;
}

/* A cached node without outputs is told of, too: that says nothing. */
static bool has_spoken(const struct progress_node *n)
{
    return n->file_count > 0 || n->texts != NULL || (n->ran && (n->told || n->listed));
}

static void learn_silence(const struct progress *p, const struct prompt *prompt,
                          struct silent_classes *silent)
{
    bool *feeds = find_feeding(p, prompt);
    silent_next_run(silent);
    for (unsigned i = 0; i < p->count; i++) {
        struct slice class_type = class_of(p, prompt, i);
        if (p->nodes[i].ran && !has_spoken(&p->nodes[i]) && !feeds[i] && class_type.len > 0)
            silent_add(silent, class_type);
    }
    free(feeds);
}

void progress_learn_classes(const struct progress *p, const struct prompt *prompt, bool whole,
                            struct silent_classes *silent)
{
    for (unsigned i = 0; i < p->count; i++) {
        struct slice class_type = class_of(p, prompt, i);
        if (has_spoken(&p->nodes[i]) && class_type.len > 0)
            silent_rule_out(silent, class_type);
    }
    if (whole && !p->truncated)
        learn_silence(p, prompt, silent);
}

/* Which node of the prompt an output of an unknown id belongs to. */
static struct slice display_of(struct slice meta, struct slice id)
{
    struct json_iter it;
    struct slice key;
    struct slice about;
    if (meta.len == 0)
        return SLICE_EMPTY;
    json_iter_init(&it, meta);
    while (json_next(&it, &key, &about))
        if (slice_eq(key, id))
            return string_or(about, "display_node", "");
    return SLICE_EMPTY;
}

void progress_reconcile(struct progress *p, struct slice outputs, struct slice meta, bool success,
                        uint64_t now_s)
{
    struct json_iter it;
    struct slice id;
    struct slice output;
    for (unsigned i = 0; i < p->count; i++)
        node_clear_outputs(p, &p->nodes[i]);
    p->truncated = false;
    json_iter_init(&it, outputs);
    while (json_next(&it, &id, &output)) {
        int at = progress_find(p, id);
        struct progress_node *n = at >= 0 ? &p->nodes[at] : node_of(p, id, display_of(meta, id));
        if (n == NULL || json_kind(output) != JSON_OBJECT)
            continue;
        n->listed = true;
        node_add_output(p, n, output);
        if (success && n->state != PROGRESS_DONE)
            node_finish(p, n, now_s);
    }
    for (unsigned i = 0; success && i < p->count; i++)
        if (p->nodes[i].state == PROGRESS_RUNNING)
            node_finish(p, &p->nodes[i], now_s);
    p->rev++;
}

/* --- back from a node map -------------------------------------------------------------------- */

static double number_of(struct slice entry, const char *key)
{
    struct slice value;
    double number;
    if (json_get(entry, key, &value) && json_kind(value) == JSON_NUMBER &&
        json_to_double(value, &number) && number >= 0)
        return number;
    return 0;
}

static void read_node(struct progress *p, struct progress_node *n, struct slice entry)
{
    if (json_kind(entry) != JSON_OBJECT)
        return;
    n->max = number_of(entry, "max");
    n->value = number_of(entry, "value");
    n->start_s = (uint64_t)fmin(number_of(entry, "start"), 1e15);
    n->updated_s = (uint64_t)fmin(number_of(entry, "last_updated"), 1e15);
    if (n->max > 0 && n->value >= n->max) {
        n->state = PROGRESS_DONE;
        p->done++;
    }
    node_add_output(p, n, entry); /* `images` and `text` are outputs like any other */
}

void progress_read(struct progress *p, struct slice map)
{
    struct json_iter it;
    struct slice id;
    struct slice entry;
    unsigned count = 0;
    json_iter_init(&it, map);
    while (json_next(&it, &id, &entry))
        count++;
    make_room(p, count);
    json_iter_init(&it, map);
    for (unsigned i = 0; json_next(&it, &id, &entry); i++) {
        p->nodes[i].id = id;
        index_add(p, i);
        read_node(p, &p->nodes[i], entry);
    }
}

/* --- out ------------------------------------------------------------------------------------- */

double progress_share(const struct progress *p)
{
    double done = p->done;
    if (p->running > 0) {
        const struct progress_node *n = &p->nodes[p->running - 1];
        if (n->max > 0)
            done += n->value / n->max;
    }
    return p->count > 0 ? done / p->count : 0;
}

/* Whole numbers, as almost all are, without a fraction. */
static void render_number(struct buf *out, double value)
{
    if (value == floor(value) && fabs(value) < 1e15) {
        if (value < 0)
            buf_adds(out, "-");
        buf_add_u64(out, (uint64_t)fabs(value));
    } else {
        buf_addf(out, "%.15g", value);
    }
}

static void render_file(const struct progress_file *file, bool first, struct buf *out)
{
    buf_adds(out, first ? "{\"filename\":" : ",{\"filename\":");
    buf_adds(out, file->filename);
    buf_adds(out, ",\"subfolder\":");
    buf_adds(out, file->subfolder);
    buf_adds(out, ",\"type\":");
    buf_adds(out, file->type);
    buf_adds(out, "}");
}

void progress_render_node(const struct progress_node *n, struct buf *out)
{
    buf_add(out, n->id);
    buf_adds(out, ":{\"max\":");
    render_number(out, n->max);
    buf_adds(out, ",\"value\":");
    render_number(out, n->value);
    buf_adds(out, ",\"start\":");
    buf_add_u64(out, n->start_s);
    buf_adds(out, ",\"last_updated\":");
    buf_add_u64(out, n->updated_s);
    buf_adds(out, ",\"images\":[");
    for (unsigned i = 0; i < n->file_count; i++)
        render_file(&n->files[i], i == 0, out);
    buf_adds(out, "]");
    if (n->texts != NULL) {
        buf_adds(out, ",\"text\":[");
        buf_adds(out, n->texts);
        buf_adds(out, "]");
    }
}

void progress_render(const struct progress *p, struct buf *out)
{
    buf_adds(out, "{");
    for (unsigned i = 0; i < p->count; i++) {
        if (i > 0)
            buf_adds(out, ",");
        progress_render_node(&p->nodes[i], out);
        buf_adds(out, "}");
    }
    buf_adds(out, "}");
}
