/* For text that has passed json_check(): skips from value to value. */
#include "json_scan.h"

#include "eight.h"
#include "json_string.h"

#include <math.h>
#include <stdlib.h>

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
        json_pick_member(name, value, keys, values, count);
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
