/* A checked document told in one way, however it is spelled, and spelled in another way that means
 * the same. Shared by the fuzz targets of what is JSON. */
#ifndef JSON_TELL_H
#define JSON_TELL_H

#include "json_scan.h"

#include <stdlib.h>

/* --- told ------------------------------------------------------------------------------------ */

/* "s<length>:<bytes>" */
static void tell_bytes(struct buf *out, struct slice bytes)
{
    buf_addf(out, "s%zu:", bytes.len);
    buf_add(out, bytes);
}

static struct buf unescaped(struct slice token)
{
    struct buf text;
    buf_init(&text, SIZE_MAX);
    ASSERT(json_unescape(token, &text) == ERR_OK);
    return text;
}

static void tell_string(struct buf *out, struct slice token)
{
    struct buf text = unescaped(token);
    tell_bytes(out, buf_slice(&text));
    buf_done(&text);
}

/* A whole number that fits is a whole number, all others are rounded. */
static void tell_number(struct buf *out, struct slice token)
{
    int64_t whole;
    double number;
    if (json_to_i64(token, &whole))
        buf_addf(out, "i%lld", (long long)whole);
    else if (json_to_double(token, &number))
        buf_addf(out, "r%a", number);
    else
        buf_adds(out, "r?");
}

struct told_member {
    struct buf key;
    struct slice value;
    size_t place;
};

static int by_key(const void *a, const void *b)
{
    const struct told_member *x = a;
    const struct told_member *y = b;
    size_t common = x->key.len < y->key.len ? x->key.len : y->key.len;
    int order = common > 0 ? memcmp(x->key.ptr, y->key.ptr, common) : 0;
    if (order == 0)
        order = x->key.len < y->key.len ? -1 : x->key.len > y->key.len;
    return order != 0 ? order : x->place < y->place ? -1 : 1;
}

/* The members in the order of their keys; *ret: to be freed, each key with buf_done(). */
static size_t members_sorted(struct slice object, struct told_member **ret)
{
    struct json_iter it;
    struct slice key, value;
    struct told_member *all = NULL;
    size_t count = 0;
    size_t cap = 0;
    json_iter_init(&it, object);
    while (json_next(&it, &key, &value)) {
        if (count == cap) {
            cap = cap == 0 ? 8 : cap * 2;
            all = xrealloc(all, cap * sizeof(*all));
        }
        all[count] = (struct told_member){unescaped(key), value, count};
        count++;
    }
    if (count > 0)
        qsort(all, count, sizeof(*all), by_key);
    *ret = all;
    return count;
}

static bool same_key(const struct told_member *a, const struct told_member *b)
{
    return slice_eq(buf_slice(&a->key), buf_slice(&b->key));
}

static void json_tell(struct buf *out, struct slice value);

/* Of a key that is given twice the last one counts. */
static void tell_object(struct buf *out, struct slice object)
{
    struct told_member *all;
    size_t count = members_sorted(object, &all);
    buf_adds(out, "{");
    for (size_t i = 0; i < count; i++) {
        if (i + 1 == count || !same_key(&all[i], &all[i + 1])) {
            tell_bytes(out, buf_slice(&all[i].key));
            buf_adds(out, ":");
            json_tell(out, all[i].value);
            buf_adds(out, ",");
        }
    }
    for (size_t i = 0; i < count; i++)
        buf_done(&all[i].key);
    free(all);
    buf_adds(out, "}");
}

static void tell_array(struct buf *out, struct slice array)
{
    struct json_iter it;
    struct slice value;
    buf_adds(out, "[");
    json_iter_init(&it, array);
    while (json_next(&it, NULL, &value)) {
        json_tell(out, value);
        buf_adds(out, ",");
    }
    buf_adds(out, "]");
}

static void json_tell(struct buf *out, struct slice value)
{
    switch (json_kind(value)) {
    case JSON_OBJECT: tell_object(out, value); break;
    case JSON_ARRAY: tell_array(out, value); break;
    case JSON_STRING: tell_string(out, value); break;
    case JSON_NUMBER: tell_number(out, value); break;
    case JSON_TRUE: buf_adds(out, "t"); break;
    case JSON_FALSE: buf_adds(out, "f"); break;
    case JSON_NULL: buf_adds(out, "n"); break;
    }
}

/* --- spelled anew ---------------------------------------------------------------------------- */

static void respell_unit(struct buf *out, unsigned unit)
{
    buf_addf(out, unit % 2 == 0 ? "\\u%04x" : "\\u%04X", unit);
}

/* Every character as \uXXXX; what is one already stays, as it may be half a pair. */
static void respell_string(struct buf *out, struct slice token)
{
    static const char letters[] = "\"\\/bfnrt";
    static const char meant[] = "\"\\/\b\f\n\r\t";
    const unsigned char *at = (const unsigned char *)token.ptr + 1;
    const unsigned char *end = (const unsigned char *)token.ptr + token.len - 1;
    buf_adds(out, "\"");
    while (at < end) {
        size_t len = utf8_char_len((const char *)at, (size_t)(end - at));
        unsigned c = at[0];
        ASSERT(len > 0);
        if (c == '\\' && at[1] == 'u') {
            len = 6;
            buf_add(out, (struct slice){(const char *)at, len});
            at += len;
            continue;
        }
        if (c == '\\') {
            c = (unsigned char)meant[strchr(letters, at[1]) - letters];
            len = 2;
        } else if (len > 1) {
            c &= 0xffu >> (len + 1);
            for (size_t i = 1; i < len; i++)
                c = c << 6 | (at[i] & 0x3fu);
        }
        if (c >= 0x10000) {
            respell_unit(out, 0xd800 + ((c - 0x10000) >> 10));
            c = 0xdc00 + ((c - 0x10000) & 0x3ff);
        }
        respell_unit(out, c);
        at += len;
    }
    buf_adds(out, "\"");
}

/* The same document with blanks wherever they may stand and all strings in escapes. */
static void json_respell(struct buf *out, struct slice value)
{
    struct json_iter it;
    struct slice key, inner;
    bool first = true;
    enum json_kind kind = json_kind(value);
    if (kind == JSON_STRING) {
        respell_string(out, value);
    } else if (kind != JSON_OBJECT && kind != JSON_ARRAY) {
        buf_add(out, value);
    } else {
        buf_adds(out, kind == JSON_OBJECT ? "{ " : "[\t");
        json_iter_init(&it, value);
        while (json_next(&it, &key, &inner)) {
            buf_adds(out, first ? "\n" : " ,\r\n");
            first = false;
            if (kind == JSON_OBJECT) {
                respell_string(out, key);
                buf_adds(out, " :\t");
            }
            json_respell(out, inner);
        }
        buf_adds(out, kind == JSON_OBJECT ? " }" : " ]");
    }
}

#endif
