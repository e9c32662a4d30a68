#include "failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const names[] = {
#define X(id, name) [id] = name,
    FAILURES(X)
#undef X
};

const char *failure_name(enum failure_code code)
{
    ASSERT((size_t)code < ARRAY_LEN(names));
    return names[code];
}

struct failure *failure_new(enum failure_code code, const char *fmt, ...)
{
    struct failure *f = xcalloc(1, sizeof(*f));
    char detail[1024];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(detail, sizeof(detail), fmt, args);
    va_end(args);
    f->code = code;
    buf_init(&f->json, SIZE_MAX);
    buf_addf(&f->json, "{\"code\":\"%s\",\"detail\":", failure_name(code));
    buf_add_json_string(&f->json, slice_of(detail));
    return f;
}

struct failure *failure_read(struct slice object)
{
    struct failure *f = xcalloc(1, sizeof(*f));
    struct slice code;
    f->code = FAILURE_COMFYUI_ERROR;
    if (json_get(object, "code", &code) && json_kind(code) == JSON_STRING)
        for (size_t i = 0; i < ARRAY_LEN(names); i++)
            if (json_string_is(code, names[i]))
                f->code = (enum failure_code)i;
    buf_init(&f->json, SIZE_MAX);
    buf_add(&f->json, (struct slice){object.ptr, object.len - 1});
    return f;
}

bool failure_is_passing(enum failure_code code)
{
    return code == FAILURE_COMFYUI_DIED || code == FAILURE_STARTING || code == FAILURE_GAVE_UP ||
           code == FAILURE_STOPPING || code == FAILURE_OWNER_DIED || code == FAILURE_CALLER_LEFT ||
           code == FAILURE_GPU_UNREACHABLE;
}

bool failure_is_doors(enum failure_code code)
{
    return code == FAILURE_CALLER_LEFT || code == FAILURE_GPU_UNREACHABLE;
}

bool failure_is_cancel(enum failure_code code)
{
    return code == FAILURE_CANCELLED || code == FAILURE_CALLER_LEFT;
}

bool failure_is_refusal(enum failure_code code)
{
    return code >= FAILURE_INVALID_JSON && code <= FAILURE_ENCODING;
}

void failure_free(struct failure *f)
{
    if (f == NULL)
        return;
    buf_done(&f->json);
    free(f);
}

void failure_add_text(struct failure *f, const char *name, struct slice text)
{
    if (text.len == 0)
        return;
    buf_addf(&f->json, ",\"%s\":", name);
    buf_add_json_string(&f->json, text);
}

void failure_add_number(struct failure *f, const char *name, int64_t number)
{
    buf_addf(&f->json, ",\"%s\":%lld", name, (long long)number);
}

/* In checked text a letter N or I outside a string begins NaN or Infinity and nothing else. */
static void add_without_nan(struct buf *out, struct slice value)
{
    bool in_string = false;
    for (size_t i = 0; i < value.len; i++) {
        char c = value.ptr[i];
        bool escaped = in_string && c == '\\';
        if (c == '"')
            in_string = !in_string;
        if (!in_string && (c == 'N' || c == 'I')) {
            if (c == 'I' && out->ptr[out->len - 1] == '-')
                out->ptr[--out->len] = '\0';
            buf_adds(out, "null");
            i += (c == 'N' ? strlen("NaN") : strlen("Infinity")) - 1;
            continue;
        }
        size_t take = escaped ? 2 : 1;
        buf_add(out, (struct slice){value.ptr + i, take});
        i += take - 1;
    }
}

void failure_add_json(struct failure *f, const char *name, struct slice value)
{
    const struct json_limits limits = {.depth = FAILURE_DEPTH_MAX, .python = true};
    if (value.len == 0 || value.len > FAILURE_VALUE_MAX ||
        json_check(value, &limits, NULL, NULL) != ERR_OK)
        return;
    buf_addf(&f->json, ",\"%s\":", name);
    add_without_nan(&f->json, value);
}

void failure_detail_of(struct slice token, const char *fallback, char *ret, size_t room)
{
    struct buf text;
    buf_init(&text, SIZE_MAX);
    if (token.len == 0 || json_kind(token) != JSON_STRING ||
        json_unescape(token, &text) != ERR_OK || text.len == 0) {
        buf_reset(&text);
        buf_adds(&text, fallback);
    }
    size_t len = text.len < room - 1 ? text.len : room - 1;
    while (len > 0 && (text.ptr[len - 1] == '\n' || text.ptr[len - 1] == ' '))
        len--;
    memcpy(ret, text.ptr, len);
    ret[len] = '\0';
    buf_done(&text);
}

void failure_render(const struct failure *f, struct buf *out)
{
    buf_add(out, buf_slice(&f->json));
    buf_adds(out, "}");
}
