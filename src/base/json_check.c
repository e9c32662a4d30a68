/* A hand-driven checker: no recursion, what is open lies on a stack of bounded depth.
 *
 * Keys of one object are compared unescaped: with each other while they are few and simple, which
 * most objects' are. The keys of all other open objects share one open-addressing table; an entry
 * names its object by the number of its opening brace, so closing an object needs no removal.
 * Hashes are keyed by a random seed: keys chosen to collide do not. */
#include "codec.h"
#include "eight.h"
#include "json_string.h"

#include <stdio.h>
#include <stdlib.h>

const struct json_limits json_from_client = {
    .depth = 64, .values = JSON_VALUES_MAX, .unique_keys = true, .python = false};
const struct json_limits json_from_comfyui = {
    .depth = JSON_DEPTH_MAX, .values = 0, .unique_keys = false, .python = true};

/* --- the table of keys ----------------------------------------------------------------------- */

struct key_entry {
    struct slice key; /* inside its quotes; ptr NULL: free */
    uint32_t object;
};

struct key_table {
    struct key_entry *entries;
    uint32_t size, used;
    uint64_t seed;
};

static uint64_t key_hash(const struct key_table *t, struct slice key, uint32_t object)
{
    uint64_t h = t->seed ^ ((uint64_t)object * 0x9e3779b97f4a7c15u);
    const char *at = key.ptr;
    const char *end = key.ptr + key.len;
    while (at < end) {
        char out[4];
        size_t len;
        at = json_next_char(at, end, out, &len);
        for (size_t i = 0; i < len; i++) {
            h = (h ^ (unsigned char)out[i]) * 0xff51afd7ed558ccdu;
            h ^= h >> 32;
        }
    }
    return h;
}

static void table_grow(struct key_table *t);

/* False: it is there already. */
static bool table_add(struct key_table *t, struct slice key, uint32_t object)
{
    if (t->used * 2 >= t->size)
        table_grow(t);
    uint32_t at = (uint32_t)key_hash(t, key, object) & (t->size - 1);
    for (; t->entries[at].key.ptr != NULL; at = (at + 1) & (t->size - 1))
        if (t->entries[at].object == object && json_spelled_equal(t->entries[at].key, key))
            return false;
    t->entries[at] = (struct key_entry){key, object};
    t->used++;
    return true;
}

static void table_grow(struct key_table *t)
{
    struct key_table old = *t;
    t->size = old.size > 0 ? old.size * 2 : 64;
    t->used = 0;
    t->entries = xcalloc(t->size, sizeof(*t->entries));
    if (old.size == 0)
        random_bytes(&t->seed, sizeof(t->seed));
    for (uint32_t i = 0; i < old.size; i++)
        if (old.entries[i].key.ptr != NULL)
            ASSERT(table_add(t, old.entries[i].key, old.entries[i].object));
    free(old.entries);
}

/* --- the checker ----------------------------------------------------------------------------- */

enum { ROW_KEYS = 12, ROW_KEY_BYTES = 64 };

/* The keys of an open object, while they are few, short and without escapes. */
struct key_row {
    unsigned count;
    bool in_table; /* they are not, or not any more */
    struct slice key[ROW_KEYS];
};

struct checker {
    const char *start, *at, *end;
    const struct json_limits *limits;
    struct key_row *rows; /* one for each depth */
    struct key_table keys;
    uint32_t objects[JSON_DEPTH_MAX + 1]; /* number of the open object; 0: an array */
    uint32_t object_count;
    unsigned depth, values;
    enum err_code code;
    char why[96];
};

static bool refuse(struct checker *c, enum err_code code, const char *why)
{
    c->code = code;
    (void)snprintf(c->why, sizeof(c->why), "%s", why);
    return false;
}

static void skip_space(struct checker *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\r' || *c->at == '\t'))
        c->at++;
}

static bool check_escape(struct checker *c)
{
    if (c->end - c->at < 2)
        return refuse(c, ERR_INVALID, "a string has no end");
    if (c->at[1] != '\0' && strchr("\"\\/bfnrt", c->at[1]) != NULL) {
        c->at += 2;
        return true;
    }
    if (c->at[1] != 'u')
        return refuse(c, ERR_INVALID, "a string has an unknown escape");
    if (c->end - c->at < 6 || json_hex_unit(c->at + 2) < 0)
        return refuse(c, ERR_INVALID, "a \\u escape needs four hex digits");
    c->at += 6;
    return true;
}

/* The high bit of each byte that may not stand in a string as it is, or is not ASCII; above the
 * first of them others may be set, too. */
static uint64_t not_plain(uint64_t bytes)
{
    return eight_below(bytes, 0x20) | eight_equal(bytes, '"') | eight_equal(bytes, '\\') |
           (bytes & EIGHT_OF(0x80));
}

static const char *plain_end(const char *at, const char *end)
{
    for (; end - at >= 8; at += 8) {
        uint64_t found = not_plain(eight_load(at));
        if (found != 0)
            return at + eight_first(found);
    }
    while (at < end && not_plain(EIGHT_OF((unsigned char)*at)) == 0)
        at++;
    return at;
}

/* From the quote on. */
static bool check_string(struct checker *c)
{
    c->at++;
    while ((c->at = plain_end(c->at, c->end)) < c->end) {
        unsigned char byte = (unsigned char)*c->at;
        if (byte == '"') {
            c->at++;
            return true;
        }
        if (byte < 0x20)
            return refuse(c, ERR_INVALID, "a string has a control character");
        if (byte == '\\') {
            if (!check_escape(c))
                return false;
        } else {
            size_t len = utf8_char_len(c->at, (size_t)(c->end - c->at));
            if (len == 0)
                return refuse(c, ERR_INVALID, "a string is not UTF-8");
            c->at += len;
        }
    }
    return refuse(c, ERR_INVALID, "a string has no end");
}

static bool take_word(struct checker *c, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(c->end - c->at) < len || memcmp(c->at, word, len) != 0)
        return false;
    c->at += len;
    return true;
}

static bool take_digits(struct checker *c)
{
    const char *from = c->at;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9')
        c->at++;
    return c->at > from;
}

static bool check_number(struct checker *c)
{
    if (*c->at == '-')
        c->at++;
    if (c->limits->python && take_word(c, "Infinity"))
        return true;
    if (c->at < c->end && *c->at == '0')
        c->at++;
    else if (!take_digits(c))
        return refuse(c, ERR_INVALID, "a number needs digits");
    if (c->at < c->end && *c->at == '.') {
        c->at++;
        if (!take_digits(c))
            return refuse(c, ERR_INVALID, "a number needs digits behind its point");
    }
    if (c->at < c->end && (*c->at == 'e' || *c->at == 'E')) {
        c->at++;
        if (c->at < c->end && (*c->at == '+' || *c->at == '-'))
            c->at++;
        if (!take_digits(c))
            return refuse(c, ERR_INVALID, "a number needs digits in its exponent");
    }
    return true;
}

static bool check_scalar(struct checker *c)
{
    if (*c->at == '"')
        return check_string(c);
    if (*c->at == '-' || (*c->at >= '0' && *c->at <= '9'))
        return check_number(c);
    if (take_word(c, "true") || take_word(c, "false") || take_word(c, "null"))
        return true;
    if (c->limits->python && (take_word(c, "NaN") || take_word(c, "Infinity")))
        return true;
    return refuse(c, ERR_INVALID, "a value was expected");
}

/* False: the innermost object has it already. */
static bool add_key(struct checker *c, struct slice key)
{
    struct key_row *row = &c->rows[c->depth];
    uint32_t object = c->objects[c->depth];
    bool fits = row->count < ROW_KEYS && key.len <= ROW_KEY_BYTES && !json_has_escape(key);
    if (!row->in_table && !fits) {
        for (unsigned i = 0; i < row->count; i++)
            ASSERT(table_add(&c->keys, row->key[i], object));
        row->in_table = true;
    }
    if (row->in_table)
        return table_add(&c->keys, key, object);
    for (unsigned i = 0; i < row->count; i++)
        if (slice_eq(row->key[i], key))
            return false;
    row->key[row->count++] = key;
    return true;
}

/* `"key" :` of the innermost object. *ret_token (NULL allowed): with its quotes. */
static bool check_key(struct checker *c, struct slice *ret_token)
{
    skip_space(c);
    if (c->at == c->end || *c->at != '"')
        return refuse(c, ERR_INVALID, "a key was expected");
    const char *from = c->at;
    if (!check_string(c))
        return false;
    struct slice key = {from + 1, (size_t)(c->at - from) - 2};
    if (c->limits->unique_keys && !add_key(c, key)) {
        c->at = from;
        return refuse(c, ERR_INVALID, "a key is given twice");
    }
    if (ret_token != NULL)
        *ret_token = (struct slice){from, (size_t)(c->at - from)};
    skip_space(c);
    if (c->at == c->end || *c->at != ':')
        return refuse(c, ERR_INVALID, "a colon was expected");
    c->at++;
    return true;
}

static bool check_open(struct checker *c, bool *ret_empty)
{
    bool is_object = *c->at == '{';
    if (c->depth >= c->limits->depth)
        return refuse(c, ERR_TOO_LARGE, "the document is nested too deeply");
    c->objects[++c->depth] = is_object ? ++c->object_count : 0;
    if (is_object && c->limits->unique_keys) {
        c->rows[c->depth].count = 0;
        c->rows[c->depth].in_table = false;
    }
    c->at++;
    skip_space(c);
    *ret_empty = c->at < c->end && *c->at == (is_object ? '}' : ']');
    return *ret_empty || !is_object || check_key(c, NULL);
}

/* A value has ended: closes what ends with it. *ret_done: that was the document. */
static bool check_after(struct checker *c, bool *ret_done)
{
    for (;;) {
        skip_space(c);
        *ret_done = c->depth == 0;
        if (*ret_done)
            return c->at == c->end ||
                   refuse(c, ERR_INVALID, "something follows the end of the document");
        bool is_object = c->objects[c->depth] != 0;
        if (c->at == c->end)
            return refuse(c, ERR_INVALID, "the document ends too early");
        if (*c->at == ',') {
            c->at++;
            return !is_object || check_key(c, NULL);
        }
        if (*c->at != (is_object ? '}' : ']'))
            return refuse(c, ERR_INVALID,
                          is_object ? "a comma or } was expected" : "a comma or ] was expected");
        c->at++;
        c->depth--;
    }
}

static bool check_document(struct checker *c)
{
    bool done = false;
    while (!done) {
        bool empty = true;
        skip_space(c);
        if (c->at == c->end)
            return refuse(c, ERR_INVALID, "the document ends too early");
        if (c->limits->values > 0 && c->values++ >= c->limits->values)
            return refuse(c, ERR_TOO_LARGE, "the document has too many values");
        bool is_container = *c->at == '{' || *c->at == '[';
        if (is_container ? !check_open(c, &empty) : !check_scalar(c))
            return false;
        if (is_container && !empty)
            continue; /* its first value follows */
        if (!check_after(c, &done))
            return false;
    }
    return true;
}

/* From the brace on; false at the first container inside it, too. */
static bool pick_flat(struct checker *c, const char *const *keys, struct slice *values,
                      size_t count)
{
    bool empty;
    if (c->at == c->end || *c->at != '{')
        return false;
    c->at++;
    skip_space(c);
    empty = c->at < c->end && *c->at == '}';
    while (!empty) {
        struct slice key;
        if (!check_key(c, &key))
            return false;
        skip_space(c);
        const char *from = c->at;
        if (c->at == c->end || !check_scalar(c))
            return false;
        json_pick_member(key, (struct slice){from, (size_t)(c->at - from)}, keys, values, count);
        skip_space(c);
        if (c->at == c->end || *c->at != ',')
            break;
        c->at++;
    }
    if (c->at == c->end || *c->at != '}')
        return false;
    c->at++;
    return true;
}

bool json_pick_flat(struct slice text, const char *const *keys, struct slice *values, size_t count,
                    size_t *ret_len)
{
    const struct json_limits limits = {.python = true};
    struct checker c = {
        .start = text.ptr, .at = text.ptr, .end = text.ptr + text.len, .limits = &limits};
    for (size_t i = 0; i < count; i++)
        values[i] = SLICE_EMPTY;
    bool ok = pick_flat(&c, keys, values, count);
    *ret_len = (size_t)(c.at - c.start);
    return ok;
}

static void find_position(const struct checker *c, struct json_fault *ret)
{
    *ret = (struct json_fault){.offset = (size_t)(c->at - c->start), .line = 1, .column = 1};
    for (const char *p = c->start; p < c->at; p++) {
        ret->column++;
        if (*p == '\n') {
            ret->line++;
            ret->column = 1;
        }
    }
}

enum err_code json_check(struct slice text, const struct json_limits *limits,
                         struct json_fault *fault, struct err *err)
{
    struct key_row rows[JSON_DEPTH_MAX + 1]; /* 26 KB of the stack, of which little is touched */
    struct checker c = {.start = text.ptr,
                        .at = text.ptr,
                        .end = text.ptr + text.len,
                        .limits = limits,
                        .rows = rows};
    ASSERT(limits->depth <= JSON_DEPTH_MAX);
    bool ok = check_document(&c);
    free(c.keys.entries);
    if (ok)
        return ERR_OK;
    struct json_fault where;
    find_position(&c, &where);
    if (fault != NULL)
        *fault = where;
    return err_set(err, c.code, "line %u, column %u: %s", where.line, where.column, c.why);
}
