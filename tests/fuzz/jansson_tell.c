#include "jansson_tell.h"

#include <stdlib.h>

#include <jansson.h>

static void tell_bytes(struct buf *out, const char *bytes, size_t len)
{
    buf_addf(out, "s%zu:", len);
    buf_add(out, (struct slice){bytes, len});
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void tell(struct buf *out, const json_t *value);

static void tell_object(struct buf *out, const json_t *object)
{
    size_t count = json_object_size(object);
    const char **names = xcalloc(count + 1, sizeof(*names));
    size_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)object, key, value)
        names[n++] = key;
    qsort(names, n, sizeof(*names), by_name);
    buf_adds(out, "{");
    for (size_t i = 0; i < n; i++) {
        tell_bytes(out, names[i], strlen(names[i]));
        buf_adds(out, ":");
        tell(out, json_object_get(object, names[i]));
        buf_adds(out, ",");
    }
    buf_adds(out, "}");
    free(names);
}

static void tell(struct buf *out, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: tell_object(out, value); break;
    case JSON_ARRAY:
        buf_adds(out, "[");
        for (size_t i = 0; i < json_array_size(value); i++) {
            tell(out, json_array_get(value, i));
            buf_adds(out, ",");
        }
        buf_adds(out, "]");
        break;
    case JSON_STRING: tell_bytes(out, json_string_value(value), json_string_length(value)); break;
    case JSON_INTEGER: buf_addf(out, "i%lld", (long long)json_integer_value(value)); break;
    case JSON_REAL: buf_addf(out, "r%a", json_real_value(value)); break;
    case JSON_TRUE: buf_adds(out, "t"); break;
    case JSON_FALSE: buf_adds(out, "f"); break;
    case JSON_NULL: buf_adds(out, "n"); break;
    }
}

enum jansson_says jansson_tell(struct slice text, bool unique_keys, struct buf *out)
{
    json_error_t error;
    if (memchr(text.ptr, '\0', text.len) != NULL)
        return JANSSON_REFUSES; /* 2.14 takes it for the end */
    size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL | (unique_keys ? JSON_REJECT_DUPLICATES : 0);
    json_t *root = json_loadb(text.ptr, text.len, flags, &error);
    if (root != NULL) {
        tell(out, root);
        json_decref(root);
        return JANSSON_OK;
    }
    enum json_error_code code = json_error_code(&error);
    bool cannot = code == json_error_numeric_overflow || code == json_error_null_byte_in_key ||
                  code == json_error_stack_overflow || strstr(error.text, "invalid Unicode");
    return cannot ? JANSSON_CANNOT : JANSSON_REFUSES;
}
