/* A hand-driven checker (no recursion: what is open lies in a bit stack) and, for text that has
 * passed it, a few functions that skip from value to value.
 *
 * Keys of one object are compared unescaped: with each other while they are few and simple, which
 * most objects' are. The keys of all other open objects share one open-addressing table; an entry
 * names its object by the number of its opening brace, so closing an object needs no removal.
 * Hashes are keyed by a random seed: keys chosen to collide do not. */
#include "json_scan.h"

#include "codec.h"
#include "eight.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

const struct json_limits json_from_client = {
    .depth = 64, .values = JSON_VALUES_MAX, .unique_keys = true, .python = false};
const struct json_limits json_from_comfyui = {
    .depth = JSON_DEPTH_MAX, .values = 0, .unique_keys = false, .python = true};

/* --- strings --------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Four hex digits at s, which must be there; -1 if they are not hex. */
static int hex_unit(const char *s)
{
    int unit = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(s[i]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

static bool is_high(int unit)
{
    return unit >= 0xd800 && unit <= 0xdbff;
}

static bool is_low(int unit)
{
    return unit >= 0xdc00 && unit <= 0xdfff;
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* One character of a checked string: the bytes it stands for go to out (at most 4), how many to
 * *ret_len; the end of its spelling is returned. */
static const char *next_char(const char *at, const char *end, char *out, size_t *ret_len)
{
    static const char plain[] = "\"\\/bfnrt";
    static const char meant[] = "\"\\/\b\f\n\r\t";
    if (*at != '\\') {
        out[0] = *at;
        *ret_len = 1;
        return at + 1;
    }
    const char *found = strchr(plain, at[1]);
    if (found != NULL) {
        out[0] = meant[found - plain];
        *ret_len = 1;
        return at + 2;
    }
    int unit = hex_unit(at + 2);
    at += 6;
    if (is_high(unit) && end - at >= 6 && at[0] == '\\' && at[1] == 'u' &&
        is_low(hex_unit(at + 2))) {
        uint32_t c =
            0x10000u + (((uint32_t)unit & 0x3ffu) << 10) + ((uint32_t)hex_unit(at + 2) & 0x3ffu);
        *ret_len = put_utf8(out, c);
        return at + 6;
    }
    if (unit >= 0xdc80 && unit <= 0xdcff) { /* as Python's surrogateescape */
        out[0] = (char)(unit - 0xdc00);
        *ret_len = 1;
    } else {
        bool lone = is_high(unit) || is_low(unit);
        *ret_len = put_utf8(out, lone ? 0xfffd : (uint32_t)unit);
    }
    return at;
}

static struct slice inside(struct slice token)
{
    ASSERT(token.len >= 2 && token.ptr[0] == '"');
    return (struct slice){token.ptr + 1, token.len - 2};
}

static bool has_escape(struct slice s)
{
    return memchr(s.ptr, '\\', s.len) != NULL;
}

/* False nearly always, and so nothing else needs to be looked at. */
static inline bool may_be(struct slice token, const char *text)
{
    return token.ptr[1] == text[0] || token.ptr[1] == '\\' || text[0] == '\0';
}

bool json_string_is(struct slice token, const char *text)
{
    struct slice s = inside(token);
    if (!may_be(token, text))
        return false;
    if (!has_escape(s))
        return slice_is(s, text);
    const char *at = s.ptr;
    const char *end = s.ptr + s.len;
    while (at < end) {
        char out[4];
        size_t len;
        at = next_char(at, end, out, &len);
        if (strncmp(text, out, len) != 0 || memchr(out, '\0', len) != NULL)
            return false;
        text += len;
    }
    return *text == '\0';
}

/* The bytes that a spelling stands for, one by one: a character may come at once as an escape, byte
 * by byte as UTF-8, or as the escapes of its bytes (\udcc3\udca9). */
struct spelled {
    const char *at, *end;
    char out[4];
    size_t len, used;
};

/* -1: there are no more. */
static int spelled_next(struct spelled *s)
{
    if (s->used == s->len) {
        if (s->at == s->end)
            return -1;
        s->at = next_char(s->at, s->end, s->out, &s->len);
        s->used = 0;
    }
    return (unsigned char)s->out[s->used++];
}

/* Both inside their quotes. */
static bool spelled_equal(struct slice a, struct slice b)
{
    struct spelled x = {.at = a.ptr, .end = a.ptr + a.len};
    struct spelled y = {.at = b.ptr, .end = b.ptr + b.len};
    int from_x;
    int from_y;
    if (!has_escape(a) && !has_escape(b))
        return slice_eq(a, b);
    do {
        from_x = spelled_next(&x);
        from_y = spelled_next(&y);
    } while (from_x == from_y && from_x >= 0);
    return from_x == from_y;
}

bool json_strings_equal(struct slice a, struct slice b)
{
    return spelled_equal(inside(a), inside(b));
}

enum err_code json_unescape(struct slice token, struct buf *out)
{
    struct slice s = inside(token);
    const char *at = s.ptr;
    const char *end = s.ptr + s.len;
    while (at < end) {
        const char *escape = memchr(at, '\\', (size_t)(end - at));
        size_t plain = (size_t)((escape != NULL ? escape : end) - at);
        enum err_code code = buf_append(out, (struct slice){at, plain});
        if (code != ERR_OK)
            return code;
        at += plain;
        if (at == end)
            break;
        char text[4];
        size_t len;
        at = next_char(at, end, text, &len);
        code = buf_append(out, (struct slice){text, len});
        if (code != ERR_OK)
            return code;
    }
    return ERR_OK;
}

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
        at = next_char(at, end, out, &len);
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
        if (t->entries[at].object == object && spelled_equal(t->entries[at].key, key))
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
    if (c->end - c->at < 6 || hex_unit(c->at + 2) < 0)
        return refuse(c, ERR_INVALID, "a \\u escape needs four hex digits");
    c->at += 6;
    return true;
}

/* ASCII that may stand in a string as it is. */
static bool are_plain(uint64_t bytes)
{
    return ((eight_below(bytes, 0x20) | eight_equal(bytes, '"') | eight_equal(bytes, '\\') |
             (bytes & EIGHT_OF(0x80))) == 0);
}

static const char *plain_end(const char *at, const char *end)
{
    while (end - at >= 8 && are_plain(eight_load(at)))
        at += 8;
    while (at < end && (unsigned char)*at >= 0x20 && (unsigned char)*at < 0x80 && *at != '"' &&
           *at != '\\')
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
    bool fits = row->count < ROW_KEYS && key.len <= ROW_KEY_BYTES && !has_escape(key);
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

/* `"key" :` of the innermost object. */
static bool check_key(struct checker *c)
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
    return *ret_empty || !is_object || check_key(c);
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
            return !is_object || check_key(c);
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

/* --- walking what was checked ---------------------------------------------------------------- */

static const char *space_end(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t'))
        at++;
    return at;
}

struct slice json_trim(struct slice text)
{
    const char *from = space_end(text.ptr, text.ptr + text.len);
    const char *to = text.ptr + text.len;
    while (to > from && (to[-1] == ' ' || to[-1] == '\n' || to[-1] == '\r' || to[-1] == '\t'))
        to--;
    return (struct slice){from, (size_t)(to - from)};
}

enum json_kind json_kind(struct slice value)
{
    ASSERT(value.len > 0);
    switch (value.ptr[0]) {
    case '{': return JSON_OBJECT;
    case '[': return JSON_ARRAY;
    case '"': return JSON_STRING;
    case 't': return JSON_TRUE;
    case 'f': return JSON_FALSE;
    case 'n': return JSON_NULL;
    default: return JSON_NUMBER;
    }
}

/* Most strings are shorter than a call of memchr() is long. */
static const char *find_quote(const char *at, const char *end)
{
    for (unsigned words = 0; words < 3 && end - at >= 8; words++, at += 8) {
        uint64_t found = eight_equal(eight_load(at), '"');
        if (found != 0)
            return at + eight_first(found);
    }
    const char *quote = memchr(at, '"', (size_t)(end - at));
    ASSERT(quote != NULL);
    return quote;
}

/* A quote that an even number of backslashes precedes. */
static const char *string_end(const char *at, const char *end)
{
    for (at++;;) {
        const char *quote = find_quote(at, end);
        const char *plain = quote;
        while (plain > at && plain[-1] == '\\')
            plain--;
        if ((quote - plain) % 2 == 0)
            return quote + 1;
        at = quote + 1;
    }
}

static const char *container_end(const char *at, const char *end)
{
    unsigned depth = 0;
    while (at < end) {
        if (*at == '"') {
            at = string_end(at, end);
            continue;
        }
        if (*at == '{' || *at == '[')
            depth++;
        else if ((*at == '}' || *at == ']') && --depth == 0)
            return at + 1;
        at++;
    }
    assert_failed("the text was checked", __FILE__, __LINE__);
}

static bool ends_scalar(char c)
{
    return c == ',' || c == ']' || c == '}' || c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static const char *value_end(const char *at, const char *end)
{
    ASSERT(at < end);
    if (*at == '"')
        return string_end(at, end);
    if (*at == '{' || *at == '[')
        return container_end(at, end);
    while (at < end && !ends_scalar(*at))
        at++;
    return at;
}

void json_iter_init(struct json_iter *it, struct slice container)
{
    enum json_kind kind = json_kind(container);
    ASSERT(kind == JSON_OBJECT || kind == JSON_ARRAY);
    it->is_object = kind == JSON_OBJECT;
    it->at = container.ptr + 1;
    it->end = container.ptr + container.len - 1;
}

bool json_next(struct json_iter *it, struct slice *ret_key, struct slice *ret_value)
{
    const char *at = space_end(it->at, it->end);
    if (at < it->end && *at == ',')
        at = space_end(at + 1, it->end);
    if (at >= it->end)
        return false;
    if (ret_key != NULL)
        *ret_key = SLICE_EMPTY;
    if (it->is_object) {
        const char *key_end = string_end(at, it->end);
        if (ret_key != NULL)
            *ret_key = (struct slice){at, (size_t)(key_end - at)};
        at = space_end(key_end, it->end);
        ASSERT(at < it->end && *at == ':');
        at = space_end(at + 1, it->end);
    }
    const char *to = value_end(at, it->end);
    *ret_value = (struct slice){at, (size_t)(to - at)};
    it->at = to;
    return true;
}

bool json_get(struct slice object, const char *key, struct slice *ret_value)
{
    struct json_iter it;
    struct slice name;
    struct slice value;
    bool found = false;
    if (json_kind(object) != JSON_OBJECT)
        return false;
    json_iter_init(&it, object);
    while (json_next(&it, &name, &value)) {
        if (json_string_is(name, key)) {
            *ret_value = value;
            found = true;
        }
    }
    return found;
}

void json_pick(struct slice object, const char *const *keys, struct slice *values, size_t count)
{
    struct json_iter it;
    struct slice name;
    struct slice value;
    for (size_t i = 0; i < count; i++)
        values[i] = SLICE_EMPTY;
    if (json_kind(object) != JSON_OBJECT)
        return;
    json_iter_init(&it, object);
    while (json_next(&it, &name, &value))
        for (size_t i = 0; i < count; i++)
            if (may_be(name, keys[i]) && json_string_is(name, keys[i]))
                values[i] = value;
}

bool json_get_path(struct slice object, struct slice *ret_value, ...)
{
    va_list keys;
    const char *key;
    struct slice value = object;
    bool found = true;
    va_start(keys, ret_value);
    while (found && (key = va_arg(keys, const char *)) != NULL)
        found = json_get(value, key, &value);
    va_end(keys);
    if (found)
        *ret_value = value;
    return found;
}

/* --- numbers --------------------------------------------------------------------------------- */

bool json_to_i64(struct slice token, int64_t *ret)
{
    bool negative = token.len > 0 && token.ptr[0] == '-';
    struct slice digits = {token.ptr + negative, token.len - negative};
    uint64_t value;
    if (!slice_to_u64(digits, (uint64_t)INT64_MAX + negative, &value))
        return false;
    *ret = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

bool json_to_double(struct slice token, double *ret)
{
    char text[512]; /* a longer spelling has more digits than any double: nobody means it */
    char *end;
    if (token.len == 0 || token.len >= sizeof(text))
        return false;
    memcpy(text, token.ptr, token.len);
    text[token.len] = '\0';
    double value = strtod(text, &end);
    if (*end != '\0' || !isfinite(value))
        return false;
    *ret = value;
    return true;
}
