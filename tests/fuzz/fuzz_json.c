/* Documents from anywhere. What the scanner takes jansson takes, and the reverse, and both find the
 * same in it; keys that are equal are found out whatever their spelling; and the same document
 * spelled in another way is the same document. */
#include "jansson_tell.h"
#include "json_tell.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct json_limits plain = {.depth = JSON_DEPTH_MAX};
static const struct json_limits unique = {.depth = JSON_DEPTH_MAX, .unique_keys = true};

static bool has_equal_keys(struct slice value)
{
    struct json_iter it;
    struct slice inner;
    struct told_member *all = NULL;
    bool has = false;
    size_t count = json_kind(value) == JSON_OBJECT ? members_sorted(value, &all) : 0;
    for (size_t i = 0; i < count; i++)
        has = has || (i > 0 && same_key(&all[i - 1], &all[i]));
    for (size_t i = 0; i < count; i++)
        buf_done(&all[i].key);
    free(all);
    if (json_kind(value) != JSON_OBJECT && json_kind(value) != JSON_ARRAY)
        return false;
    json_iter_init(&it, value);
    while (!has && json_next(&it, NULL, &inner))
        has = has_equal_keys(inner);
    return has;
}

static size_t values_in(struct slice value)
{
    struct json_iter it;
    struct slice inner;
    size_t count = 1;
    if (json_kind(value) != JSON_OBJECT && json_kind(value) != JSON_ARRAY)
        return count;
    json_iter_init(&it, value);
    while (json_next(&it, NULL, &inner))
        count += values_in(inner);
    return count;
}

static unsigned depth_of(struct slice value)
{
    struct json_iter it;
    struct slice inner;
    unsigned deepest = 0;
    if (json_kind(value) != JSON_OBJECT && json_kind(value) != JSON_ARRAY)
        return 0;
    json_iter_init(&it, value);
    while (json_next(&it, NULL, &inner)) {
        unsigned depth = depth_of(inner);
        deepest = depth > deepest ? depth : deepest;
    }
    return deepest + 1;
}

/* Where something is wrong, a person can find it. */
static void check_fault(struct slice text, const struct json_fault *fault)
{
    unsigned line = 1;
    unsigned column = 1;
    ASSERT(fault->offset <= text.len);
    for (size_t i = 0; i < fault->offset; i++) {
        column = text.ptr[i] == '\n' ? 1 : column + 1;
        line += text.ptr[i] == '\n';
    }
    ASSERT(fault->line == line && fault->column == column);
}

/* A limit is reached exactly where counting says so. */
static void check_limits(struct slice text, struct slice value)
{
    size_t values = values_in(value);
    unsigned depth = depth_of(value);
    struct json_limits fits = {.depth = depth, .values = (unsigned)values};
    ASSERT(json_check(text, &fits, NULL, NULL) == ERR_OK);
    if (values > 1) {
        fits.values--;
        ASSERT(json_check(text, &fits, NULL, NULL) == ERR_TOO_LARGE);
        fits.values++;
    }
    if (depth > 0) {
        fits.depth--;
        ASSERT(json_check(text, &fits, NULL, NULL) == ERR_TOO_LARGE);
    }
}

static void check_respelled(struct slice value, struct slice told, bool equal_keys)
{
    struct buf anew, again;
    buf_init(&anew, SIZE_MAX);
    buf_init(&again, SIZE_MAX);
    json_respell(&anew, value);
    ASSERT(json_check(buf_slice(&anew), &plain, NULL, NULL) == ERR_OK);
    ASSERT((json_check(buf_slice(&anew), &unique, NULL, NULL) == ERR_OK) == !equal_keys);
    json_tell(&again, json_trim(buf_slice(&anew)));
    ASSERT(slice_eq(buf_slice(&again), told));
    buf_done(&again);
    buf_done(&anew);
}

/* json_get() and json_pick() find the member that counts. */
static void check_get(struct slice value)
{
    static const char *const names[] = {"", "a", "seed", "prompt"};
    struct slice picked[ARRAY_LEN(names)];
    json_pick(value, names, picked, ARRAY_LEN(names));
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct slice got = SLICE_EMPTY;
        struct json_iter it;
        struct slice key, inner, last = SLICE_EMPTY;
        if (json_kind(value) == JSON_OBJECT) {
            json_iter_init(&it, value);
            while (json_next(&it, &key, &inner)) {
                struct buf name = unescaped(key);
                if (slice_is(buf_slice(&name), names[i]))
                    last = inner;
                ASSERT(slice_is(buf_slice(&name), names[i]) == json_string_is(key, names[i]));
                buf_done(&name);
            }
        }
        ASSERT(json_get(value, names[i], &got) == (last.len > 0));
        ASSERT(slice_eq(got, last) && slice_eq(picked[i], last));
    }
}

static void check_good(struct slice text, struct slice told_by_jansson, enum jansson_says says)
{
    struct buf told;
    struct slice value = json_trim(text);
    bool equal_keys = has_equal_keys(value);
    buf_init(&told, SIZE_MAX);
    json_tell(&told, value);
    ASSERT(says != JANSSON_REFUSES);
    if (says == JANSSON_OK && memmem(told.ptr, told.len, "r?", 2) == NULL)
        ASSERT(slice_eq(buf_slice(&told), told_by_jansson));
    ASSERT((json_check(text, &unique, NULL, NULL) == ERR_OK) == !equal_keys);
    check_limits(text, value);
    check_respelled(value, buf_slice(&told), equal_keys);
    check_get(value);
    buf_done(&told);
}

/* What Python prints besides can be walked like everything else. */
static void check_python(struct slice text, enum err_code as_plain)
{
    static const struct json_limits python = {.depth = JSON_DEPTH_MAX, .python = true};
    struct buf told;
    enum err_code code = json_check(text, &python, NULL, NULL);
    ASSERT(as_plain == ERR_INVALID || code == as_plain);
    if (code != ERR_OK || as_plain == ERR_OK)
        return;
    buf_init(&told, SIZE_MAX);
    json_tell(&told, json_trim(text));
    ASSERT(memmem(text.ptr, text.len, "NaN", 3) != NULL ||
           memmem(text.ptr, text.len, "Infinity", 8) != NULL);
    buf_done(&told);
}

/* What json_pick_flat() takes is an object without containers, and it finds what json_pick() does;
 * and it takes each of them. */
static void check_flat(struct slice text)
{
    static const struct json_limits python = {.depth = 1, .python = true};
    static const char *const names[] = {"", "a", "seed", "prompt"};
    struct slice flat[ARRAY_LEN(names)], picked[ARRAY_LEN(names)];
    size_t len;
    bool is_flat = json_pick_flat(text, names, flat, ARRAY_LEN(names), &len);
    if (!is_flat) {
        ASSERT(text.len == 0 || text.ptr[0] != '{' ||
               json_check(text, &python, NULL, NULL) != ERR_OK || depth_of(json_trim(text)) > 1);
        return;
    }
    struct slice object = {text.ptr, len};
    ASSERT(len <= text.len && json_check(object, &python, NULL, NULL) == ERR_OK);
    ASSERT(json_kind(object) == JSON_OBJECT && depth_of(object) == 1);
    json_pick(object, names, picked, ARRAY_LEN(names));
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        ASSERT(slice_eq(flat[i], picked[i]) && (flat[i].len == 0 || flat[i].ptr == picked[i].ptr));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = {size > 0 ? (const char *)data : "", size};
    struct json_fault fault;
    struct buf by_jansson;
    buf_init(&by_jansson, SIZE_MAX);
    enum jansson_says says = jansson_tell(text, false, &by_jansson);
    enum err_code code = json_check(text, &plain, &fault, NULL);
    if (code == ERR_OK)
        check_good(text, buf_slice(&by_jansson), says);
    else
        check_fault(text, &fault);
    ASSERT(code != ERR_INVALID || says != JANSSON_OK);
    check_python(text, code);
    check_flat(text);
    buf_done(&by_jansson);
    return 0;
}
