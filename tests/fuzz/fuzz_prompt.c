/* Bodies that callers post as prompts. What goes out is what came in but for the bytes that an edit
 * names: seeds, folders, inputs that became files. And a prompt that was taken is taken again. */
#include "inputs_private.h"
#include "prompt.h"
#include "splice.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool lies_in(struct slice part, struct slice whole)
{
    return part.ptr >= whole.ptr && part.ptr + part.len <= whole.ptr + whole.len;
}

static struct buf copy_of(struct slice text)
{
    struct buf copy;
    buf_init(&copy, SIZE_MAX);
    buf_add(&copy, text);
    return copy;
}

/* The prompt inside a body that is one, as prompt.h tells them apart. */
static struct slice prompt_in(struct slice body)
{
    struct slice top = json_trim(body);
    struct slice inner, class_type;
    if (json_get(top, "prompt", &inner) && json_kind(inner) == JSON_OBJECT &&
        !json_get(inner, "class_type", &class_type))
        return inner;
    return top;
}

static size_t members_of(struct slice object)
{
    struct json_iter it;
    struct slice value;
    size_t count = 0;
    json_iter_init(&it, object);
    while (json_next(&it, NULL, &value))
        count++;
    return count;
}

static void check_fault(const struct prompt *p, const struct prompt_fault *fault)
{
    static const char *const codes[] = {"invalid_json", "json_too_complex", "not_a_prompt",
                                        "ui_format", "bad_envelope"};
    bool known = false;
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        known = known || strcmp(fault->code, codes[i]) == 0;
    ASSERT(known && fault->err.msg[0] != '\0');
    ASSERT(fault->node_id.len == 0 || lies_in(fault->node_id, buf_slice(&p->body)));
    ASSERT(!fault->has_position || fault->position.offset <= p->body.len);
}

static void check_nodes(const struct prompt *p)
{
    struct slice text = buf_slice(&p->text);
    ASSERT(p->count > 0 && p->count == members_of(text));
    for (unsigned i = 0; i < p->count; i++) {
        const struct prompt_node *n = &p->nodes[i];
        ASSERT(lies_in(n->id, text) && lies_in(n->class_type, text) && lies_in(n->inputs, text));
        ASSERT(json_kind(n->id) == JSON_STRING && json_kind(n->class_type) == JSON_STRING &&
               json_kind(n->inputs) == JSON_OBJECT && n->id.len <= PROMPT_NODE_ID_MAX);
    }
}

static size_t digits_at(struct slice text, size_t at)
{
    size_t n = 0;
    while (at + n < text.len && text.ptr[at + n] >= '0' && text.ptr[at + n] <= '9')
        n++;
    return n;
}

/* Byte by byte: where the two differ there was a -1, and there is a seed. */
static void check_seeds(struct slice before, struct slice after, struct slice seeds)
{
    size_t i = 0;
    size_t j = 0;
    size_t filled = 0;
    while (i < before.len && j < after.len) {
        double number = 0;
        size_t len = 1;
        if (before.ptr[i] == after.ptr[j]) {
            i++;
            j++;
            continue;
        }
        while (i + len < before.len && strchr("0123456789.eE+-", before.ptr[i + len]) != NULL)
            len++;
        ASSERT(json_to_double((struct slice){before.ptr + i, len}, &number) && number == -1);
        i += len;
        len = digits_at(after, j);
        ASSERT(len > 0 && len <= 10 && strtoull(after.ptr + j, NULL, 10) < 0x80000000u);
        j += len;
        filled++;
    }
    ASSERT(i == before.len && j == after.len && members_of(seeds) == filled);
}

/* What was sent on is a prompt, in which nothing is left to fill in. */
static void check_again(const struct prompt *p)
{
    struct prompt again;
    struct prompt_fault fault;
    struct buf body = copy_of(buf_slice(&p->text));
    ASSERT(prompt_parse(&again, &body, &fault) == ERR_OK);
    ASSERT(slice_eq(buf_slice(&again.text), buf_slice(&p->text)));
    ASSERT(again.count == p->count && slice_is(buf_slice(&again.seeds), "{}"));
    prompt_done(&again);
}

/* The same members in the same order, and all but strings of that name as they were. */
static void check_inputs(struct slice before, struct slice after, const char *folder)
{
    struct json_iter old, now;
    struct slice key, value, new_key, new_value;
    json_iter_init(&old, before);
    json_iter_init(&now, after);
    while (json_next(&old, &key, &value)) {
        ASSERT(json_next(&now, &new_key, &new_value) && slice_eq(key, new_key));
        if (json_kind(value) == JSON_STRING && json_string_is(key, "filename_prefix")) {
            size_t more = new_value.len - value.len;
            ASSERT(more == strlen(folder) + 1 && new_value.ptr[more] == '/');
            ASSERT(memcmp(new_value.ptr + 1, folder, more - 1) == 0);
            value = (struct slice){value.ptr + 1, value.len - 1};
            new_value = (struct slice){new_value.ptr + more + 1, value.len};
        }
        ASSERT(slice_eq(value, new_value));
    }
    ASSERT(!json_next(&now, &new_key, &new_value));
}

static void check_folder(struct prompt *p)
{
    struct prompt before;
    struct prompt_fault fault;
    struct buf body = copy_of(buf_slice(&p->text));
    ASSERT(prompt_parse(&before, &body, &fault) == ERR_OK);
    ASSERT(prompt_set_folder(p, "task-1") == ERR_OK);
    check_nodes(p);
    ASSERT(p->count == before.count);
    for (unsigned i = 0; i < p->count; i++) {
        ASSERT(slice_eq(p->nodes[i].id, before.nodes[i].id));
        ASSERT(slice_eq(p->nodes[i].class_type, before.nodes[i].class_type));
        check_inputs(before.nodes[i].inputs, p->nodes[i].inputs, "task-1");
    }
    prompt_done(&before);
}

/* Everything that looks like a file becomes the name of one, as inputs.c does it. */
static void check_files(struct prompt *p)
{
    struct input found[INPUTS_MAX];
    struct splice edits;
    struct buf edited;
    struct slice text = buf_slice(&p->text);
    unsigned all = inputs_find(p, found);
    unsigned count = all < INPUTS_MAX ? all : INPUTS_MAX;
    size_t len = text.len;
    splice_init(&edits);
    buf_init(&edited, SIZE_MAX);
    for (unsigned i = count; i > 0; i--) { /* in any order */
        ASSERT(found[i - 1].kind != INPUT_NAME && lies_in(found[i - 1].value, text));
        splice_replace(&edits, text, found[i - 1].value, "\"a.png\"");
        len += strlen("\"a.png\"") - found[i - 1].value.len;
    }
    ASSERT(splice_apply(&edits, text, &edited) == ERR_OK && edited.len == len);
    splice_done(&edits);
    ASSERT(prompt_set_text(p, &edited) == ERR_OK);
    check_nodes(p);
    ASSERT(inputs_find(p, found) == all - count);
    buf_done(&edited);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct prompt p;
    struct prompt_fault fault;
    struct slice given = {size > 0 ? (const char *)data : "", size};
    struct buf body = copy_of(given);
    if (prompt_parse(&p, &body, &fault) != ERR_OK) {
        check_fault(&p, &fault);
        prompt_done(&p);
        return 0;
    }
    char digest[SHA256_TEXT + 1];
    struct slice prompt = prompt_in(given);
    ASSERT(slice_eq(buf_slice(&p.body), given));
    sha256_hex(prompt, digest); /* of a prompt without targets it is no other than of itself */
    ASSERT((strcmp(digest, p.sha256) == 0) == (p.targets.len == 0));
    check_nodes(&p);
    check_seeds(prompt, buf_slice(&p.text), buf_slice(&p.seeds));
    check_again(&p);
    check_folder(&p);
    check_files(&p);
    prompt_done(&p);
    return 0;
}
