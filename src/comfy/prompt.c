/* Order of work: check the grammar once (json_check), find the prompt inside the body, check every
 * node's shape, then write the text that goes out with the seeds filled in. Everything after the
 * check walks text that is known to be well-formed. */
#include "prompt.h"

#include "splice.h"

#include <stdio.h>
#include <stdlib.h>

static enum err_code refuse(struct prompt_fault *fault, const char *code, const char *why,
                            const char *hint)
{
    fault->code = code;
    fault->hint = hint;
    return err_set(&fault->err, ERR_INVALID, "%s", why);
}

static enum err_code refuse_node(struct prompt_fault *fault, struct slice id, const char *why)
{
    fault->node_id = id;
    return refuse(fault, "not_a_prompt", why,
                  "every node needs a string class_type and an object inputs");
}

static bool is_object(struct slice value)
{
    return json_kind(value) == JSON_OBJECT;
}

/* What tells the kinds of bodies apart. */
enum mark { MARK_PROMPT, MARK_NODES, MARK_LINKS, MARK_CLASS_TYPE, MARK_TASK_ID, MARKS };

static void read_marks(struct slice object, struct slice *ret)
{
    static const char *const names[MARKS] = {"prompt", "nodes", "links", "class_type", "task_id"};
    json_pick(object, names, ret, MARKS);
}

/* A workflow as the editor saves it: {"nodes": […], "links": […], …}. */
static bool is_ui_format(const struct slice *marks)
{
    return marks[MARK_NODES].len > 0 && json_kind(marks[MARK_NODES]) == JSON_ARRAY &&
           marks[MARK_LINKS].len > 0;
}

static enum err_code read_envelope(struct prompt *p, struct slice top, struct prompt_fault *fault)
{
    struct slice value;
    if (json_get(top, "callback", &value) && json_kind(value) != JSON_NULL)
        return refuse(fault, "bad_envelope", "callback is not supported yet", NULL);
    if (json_get(top, "extra_data", &value)) {
        if (!is_object(value))
            return refuse(fault, "bad_envelope", "extra_data must be an object", NULL);
        p->extra_data = value;
    }
    if (json_get(top, "partial_execution_targets", &value) && json_kind(value) != JSON_NULL) {
        if (json_kind(value) != JSON_ARRAY)
            return refuse(fault, "bad_envelope", "partial_execution_targets must be an array",
                          NULL);
        p->targets = value;
    }
    if (json_get(top, "metadata", &value) && json_kind(value) != JSON_NULL) {
        if (value.len > PROMPT_METADATA_MAX)
            return refuse(fault, "bad_envelope", "metadata has more than 64 KiB", NULL);
        p->metadata = value;
    }
    if (json_get(top, "task_id", &value) && json_kind(value) != JSON_NULL &&
        json_kind(value) != JSON_STRING)
        return refuse(fault, "bad_envelope", "task_id must be a string", NULL);
    if (json_get(top, "results", &value) && json_kind(value) != JSON_NULL) {
        enum json_kind kind = json_kind(value);
        bool none = kind == JSON_FALSE || (kind == JSON_STRING && json_string_is(value, "none"));
        if (!none && kind != JSON_TRUE)
            return refuse(fault, "bad_envelope", "results must be \"none\", true or false", NULL);
        p->says_results = true;
        p->want_results = !none;
    }
    return ERR_OK;
}

static enum err_code check_node(struct prompt_node *node, struct slice value,
                                struct prompt_fault *fault)
{
    static const char *const names[] = {"class_type", "inputs"};
    struct slice found[ARRAY_LEN(names)];
    if (node->id.len > PROMPT_NODE_ID_MAX)
        return refuse_node(fault, SLICE_EMPTY, "a node id has more than 256 bytes");
    if (!is_object(value))
        return refuse_node(fault, node->id, "a node is not an object");
    json_pick(value, names, found, ARRAY_LEN(names));
    if (found[0].len == 0 || json_kind(found[0]) != JSON_STRING)
        return refuse_node(fault, node->id, "a node has no string class_type");
    if (found[1].len == 0 || !is_object(found[1]))
        return refuse_node(fault, node->id, "a node has no object inputs");
    node->class_type = found[0];
    node->inputs = found[1];
    return ERR_OK;
}

/* At most: an entry of the node map, and two seeds. */
static size_t record_bytes(struct slice id)
{
    enum { AROUND = 200 };
    return 3 * id.len + AROUND;
}

static enum err_code read_nodes(struct prompt *p, struct slice prompt, struct prompt_fault *fault)
{
    struct json_iter it;
    struct slice key;
    struct slice value;
    unsigned cap = 0;
    size_t bytes = 0;
    p->count = 0;
    json_iter_init(&it, prompt);
    while (json_next(&it, &key, &value)) {
        if (p->count == cap) {
            cap = cap > 0 ? cap * 2 : 16;
            p->nodes = xrealloc(p->nodes, cap * sizeof(*p->nodes));
        }
        struct prompt_node *node = &p->nodes[p->count];
        *node = (struct prompt_node){.id = key};
        enum err_code code = check_node(node, value, fault);
        if (code != ERR_OK)
            return code;
        p->count++;
        bytes += record_bytes(key);
        if (bytes > PROMPT_RECORD_MAX)
            return refuse(fault, "json_too_complex", "the prompt has too many nodes", NULL);
    }
    if (p->count == 0)
        return refuse(fault, "not_a_prompt", "the prompt has no nodes", NULL);
    p->nodes = xrealloc(p->nodes, p->count * sizeof(*p->nodes));
    return ERR_OK;
}

static bool is_minus_one(struct slice value)
{
    double number;
    return value.ptr[0] == '-' && json_to_double(value, &number) && number == -1;
}

static void add_seed(struct prompt *p, const struct prompt_node *node, struct slice key,
                     const char *text)
{
    /* Both are tokens: "3" and "seed" become "3.seed". */
    buf_addf(&p->seeds, "%s%.*s.%.*s:%s", p->seeds.len > 1 ? "," : "", (int)node->id.len - 1,
             node->id.ptr, (int)key.len - 1, key.ptr + 1, text);
}

static void fill_seeds(struct prompt *p, struct slice prompt, struct splice *edits)
{
    for (unsigned i = 0; i < p->count; i++) {
        struct json_iter it;
        struct slice key;
        struct slice value;
        struct slice inputs = p->nodes[i].inputs;
        ASSERT(inputs.len > 0); /* check_node() refuses a node without */
        if (memchr(inputs.ptr, '-', inputs.len) == NULL)
            continue; /* no number below zero: most nodes */
        json_iter_init(&it, inputs);
        while (json_next(&it, &key, &value)) {
            if (!is_minus_one(value))
                continue;
            if (!json_string_is(key, "seed") && !json_string_is(key, "noise_seed"))
                continue;
            uint32_t seed;
            char text[16];
            random_bytes(&seed, sizeof(seed));
            (void)snprintf(text, sizeof(text), "%u", seed & 0x7fffffffu);
            splice_replace(edits, prompt, value, text);
            add_seed(p, &p->nodes[i], key, text);
        }
    }
}

static void move_slice(struct slice *s, struct slice from, struct slice to)
{
    s->ptr = to.ptr + (s->ptr - from.ptr);
}

/* The same bytes lie elsewhere. */
static void move_nodes(struct prompt *p, struct slice from, struct slice to)
{
    for (unsigned i = 0; i < p->count; i++) {
        move_slice(&p->nodes[i].id, from, to);
        move_slice(&p->nodes[i].class_type, from, to);
        move_slice(&p->nodes[i].inputs, from, to);
    }
}

/* What makes another call the same one: what it has run is, and which of its outputs are. */
static void digest(struct prompt *p, struct slice prompt)
{
    struct buf both;
    if (p->targets.len == 0) {
        sha256_hex(prompt, p->sha256);
        return;
    }
    buf_init(&both, SIZE_MAX);
    buf_add(&both, prompt);
    buf_add(&both, p->targets);
    sha256_hex(buf_slice(&both), p->sha256);
    buf_done(&both);
}

/* The text that goes out; the nodes then point into it. */
static enum err_code write_text(struct prompt *p, struct slice prompt, struct prompt_fault *fault)
{
    struct splice edits;
    splice_init(&edits);
    buf_adds(&p->seeds, "{");
    fill_seeds(p, prompt, &edits);
    buf_adds(&p->seeds, "}");
    enum err_code code = splice_apply(&edits, prompt, &p->text);
    bool edited = edits.count > 0;
    splice_done(&edits);
    if (code == ERR_BUSY)
        return err_set(&fault->err, code, "prompts take too much memory at the moment");
    if (code != ERR_OK)
        return refuse(fault, "json_too_complex", "the prompt does not fit into memory", NULL);
    digest(p, prompt);
    if (edited)
        return read_nodes(p, buf_slice(&p->text), fault);
    move_nodes(p, prompt, buf_slice(&p->text));
    return ERR_OK;
}

static enum err_code check_text(struct slice text, const struct json_limits *limits,
                                struct prompt_fault *fault)
{
    enum err_code code = json_check(text, limits, &fault->position, &fault->err);
    if (code == ERR_OK)
        return ERR_OK;
    fault->code = code == ERR_TOO_LARGE ? "json_too_complex" : "invalid_json";
    fault->has_position = true;
    return code;
}

void prompt_init_empty(struct prompt *ret)
{
    *ret = (struct prompt){.count = 0};
    buf_init(&ret->body, SIZE_MAX);
    buf_init(&ret->text, SIZE_MAX);
    buf_init(&ret->seeds, SIZE_MAX);
}

static enum err_code parse(struct prompt *ret, struct buf *take_body,
                           const struct json_limits *limits, struct prompt_fault *fault)
{
    prompt_init_empty(ret);
    ret->body = *take_body;
    buf_init_within(&ret->text, SIZE_MAX, ret->body.budget);
    ret->want_results = true;
    *take_body = (struct buf){.max = 0};
    *fault = (struct prompt_fault){.code = "not_a_prompt"};

    enum err_code code = check_text(buf_slice(&ret->body), limits, fault);
    if (code != ERR_OK)
        return code;
    struct slice top = json_trim(buf_slice(&ret->body));
    struct slice prompt = top;
    struct slice marks[MARKS];
    struct slice inner[MARKS];
    if (!is_object(top))
        return refuse(fault, "not_a_prompt", "the body is not a JSON object", NULL);
    read_marks(top, marks);
    if (marks[MARK_TASK_ID].len > 0 && json_kind(marks[MARK_TASK_ID]) == JSON_STRING)
        ret->task_id = marks[MARK_TASK_ID]; /* a node is no string */
    if (marks[MARK_PROMPT].len > 0 && is_object(marks[MARK_PROMPT])) {
        read_marks(marks[MARK_PROMPT], inner);
        if (inner[MARK_CLASS_TYPE].len == 0) { /* no node that is called so */
            prompt = marks[MARK_PROMPT];
            memcpy(marks, inner, sizeof(marks));
            code = read_envelope(ret, top, fault);
            if (code != ERR_OK)
                return code;
        }
    }
    if (is_ui_format(marks))
        return refuse(fault, "ui_format", "this is a workflow as ComfyUI's editor saves it",
                      "export it with \"Export (API)\" in ComfyUI's menu (older versions: enable "
                      "dev mode options, then \"Save (API Format)\")");
    code = read_nodes(ret, prompt, fault);
    return code != ERR_OK ? code : write_text(ret, prompt, fault);
}

enum err_code prompt_parse(struct prompt *ret, struct buf *take_body, struct prompt_fault *fault)
{
    return parse(ret, take_body, &json_from_client, fault);
}

enum err_code prompt_parse_kept(struct prompt *ret, struct buf *take_body,
                                struct prompt_fault *fault)
{
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX, .unique_keys = true};
    return parse(ret, take_body, &limits, fault);
}

enum err_code prompt_set_text(struct prompt *p, struct buf *take_text)
{
    struct prompt_fault fault;
    struct budget *budget = p->text.budget;
    buf_done(&p->text);
    p->text = *take_text;
    buf_charge(&p->text, budget);
    buf_init(take_text, SIZE_MAX);
    free(p->nodes);
    p->nodes = NULL;
    return read_nodes(p, buf_slice(&p->text), &fault);
}

enum err_code prompt_set_folder(struct prompt *p, const char *folder)
{
    struct splice edits;
    struct buf text;
    struct buf with;
    struct slice all = buf_slice(&p->text);
    splice_init(&edits);
    buf_init(&text, SIZE_MAX);
    buf_init(&with, SIZE_MAX);
    buf_addf(&with, "\"%s/", folder);
    for (unsigned i = 0; i < p->count; i++) {
        struct slice value;
        if (json_get(p->nodes[i].inputs, "filename_prefix", &value) &&
            json_kind(value) == JSON_STRING)
            splice_replace(&edits, all, (struct slice){value.ptr, 1}, with.ptr);
    }
    enum err_code code = splice_apply(&edits, all, &text);
    if (code == ERR_OK)
        code = prompt_set_text(p, &text);
    splice_done(&edits);
    buf_done(&with);
    buf_done(&text);
    return code;
}

void prompt_done(struct prompt *p)
{
    buf_done(&p->body);
    buf_done(&p->text);
    buf_done(&p->seeds);
    free(p->nodes);
    p->nodes = NULL;
    p->count = 0;
}
