/* JSON as text: checked once, then cut into slices. Nothing is decoded that nobody asked for, so
 * the digits, spaces and escapes of what passes through us stay what they were.
 *
 * First json_check() the whole document (only json_pick_flat() does its own checking): it enforces
 * the grammar of RFC 8259 and the limits, and in strict mode refuses two keys of one object that
 * are equal after unescaping. What was checked may be walked with the functions below, which assert
 * what a check has promised. All results are slices of the text given, alive as long as it is.
 * Memory: O(depth), with unique_keys also O(keys of the open objects). Time: linear.
 */
#ifndef JSON_SCAN_H
#define JSON_SCAN_H

#include "buf.h"

enum { JSON_DEPTH_MAX = 128, JSON_VALUES_MAX = 200000 };

struct json_limits {
    unsigned depth;   /* at most JSON_DEPTH_MAX; a scalar has depth 0 */
    unsigned values;  /* scalars, objects and arrays, keys not counted; 0: no limit */
    bool unique_keys; /* what clients send: a key given twice is an error */
    bool python;      /* what Python's encoder prints besides JSON: NaN, Infinity, -Infinity */
};

extern const struct json_limits json_from_client;  /* depth 64, 200,000 values, unique keys */
extern const struct json_limits json_from_comfyui; /* depth 128, no count, python */

/* Where and why a document was refused. Line and column count from 1, columns in bytes. */
struct json_fault {
    size_t offset;
    unsigned line, column;
};

/* ERR_INVALID (grammar, UTF-8, duplicate key) or ERR_TOO_LARGE (depth, values). `fault` may be
 * NULL. Lone surrogate escapes (\ud800) are grammar-conforming and pass. */
enum err_code json_check(struct slice text, const struct json_limits *limits,
                         struct json_fault *fault, struct err *err) MUST_CHECK;

enum json_kind {
    JSON_OBJECT,
    JSON_ARRAY,
    JSON_STRING,
    JSON_NUMBER, /* with json_limits.python also NaN and the infinities */
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL
};

/* A value without the white space around it: of the whole document, or as json_next() gave it. */
struct slice json_trim(struct slice text);
enum json_kind json_kind(struct slice value);

struct json_iter {
    const char *at, *end;
    bool is_object;
};

/* Of an object or an array. */
void json_iter_init(struct json_iter *it, struct slice container);
/* The next member or element. `ret_key` (NULL allowed) is the key's token with its quotes, empty in
 * arrays. The value is a whole token or container. */
bool json_next(struct json_iter *it, struct slice *ret_key, struct slice *ret_value);

/* The value of a key, compared unescaped; the last one if it was given twice (as Python reads it).
 * False if it is missing or `object` is no object. */
bool json_get(struct slice object, const char *key, struct slice *ret_value);
/* Several keys in one walk: values[i] becomes that of keys[i], empty where it is missing. */
void json_pick(struct slice object, const char *const *keys, struct slice *values, size_t count);
/* The same for the object that `text` begins with, whether or not anything follows, and checked in
 * the same walk: one of scalars only, as most of ComfyUI's messages have. *ret_len: how long it is.
 * False: it is none, or not JSON, or has a container inside; values and *ret_len say nothing then.
 * Python's numbers are allowed. */
bool json_pick_flat(struct slice text, const char *const *keys, struct slice *values, size_t count,
                    size_t *ret_len) MUST_CHECK;
/* As json_get(), along a path of keys, ended by NULL. */
bool json_get_path(struct slice object, struct slice *ret_value, ...) __attribute__((sentinel));

/* Does a string token (with its quotes) say exactly this? */
bool json_string_is(struct slice token, const char *text);
/* Do two string tokens say the same, however they spell it? */
bool json_strings_equal(struct slice a, struct slice b);
/* Appends the UTF-8 of a string token. As Python's `surrogateescape`: \udc80..\udcff become the
 * bytes 0x80..0xff, other lone surrogates U+FFFD. ERR_TOO_LARGE past the buf's cap. */
enum err_code json_unescape(struct slice token, struct buf *out) MUST_CHECK;
/* A whole number in range, in any JSON spelling of it without fraction and exponent. */
bool json_to_i64(struct slice token, int64_t *ret);
/* Any number of less than 512 characters, rounded; NaN and infinities are refused. */
bool json_to_double(struct slice token, double *ret);

#endif
