#include "multipart.h"

#include <stdio.h>

static struct slice after(struct slice s, size_t n)
{
    return (struct slice){s.ptr + n, s.len - n};
}

/* Everything before `mark`, which leaves *rest with it. False: it is not there. */
static bool take_until(struct slice *rest, struct slice mark, struct slice *ret)
{
    const char *found = memmem(rest->ptr, rest->len, mark.ptr, mark.len);
    if (found == NULL)
        return false;
    *ret = (struct slice){rest->ptr, (size_t)(found - rest->ptr)};
    *rest = after(*rest, ret->len + mark.len);
    return true;
}

/* The value of a parameter behind "; name=", a token or a quoted string without escapes. */
static bool parameter(struct slice value, const char *name, struct slice *ret)
{
    (void)slice_next(&value, ';');
    while (value.len > 0) {
        struct slice key = slice_next(&value, '=');
        struct slice text = value;
        if (value.len > 0 && value.ptr[0] == '"') {
            value = after(value, 1);
            if (!take_until(&value, SLICE("\""), &text))
                return false;
            (void)slice_next(&value, ';');
        } else {
            text = slice_next(&value, ';');
        }
        if (slice_eq_nocase(key, slice_of(name))) {
            *ret = text;
            return true;
        }
        value = slice_trim(value);
    }
    return false;
}

enum err_code multipart_begin(struct multipart *m, struct slice type, struct slice body)
{
    struct slice rest = type;
    struct slice boundary;
    if (!slice_eq_nocase(slice_next(&rest, ';'), SLICE("multipart/form-data")) ||
        !parameter(type, "boundary", &boundary) || boundary.len == 0 ||
        boundary.len > MULTIPART_BOUNDARY_MAX)
        return ERR_INVALID;
    (void)snprintf(m->delimiter, sizeof(m->delimiter), "\r\n--%.*s", SLICE_ARGS(boundary));
    m->parts = 0;
    struct slice first = after(slice_of(m->delimiter), strlen("\r\n"));
    if (!slice_starts(body, first))
        return ERR_INVALID;
    m->rest = after(body, first.len);
    return ERR_OK;
}

static bool read_header(struct slice line, struct multipart_part *part)
{
    struct slice value = line;
    struct slice name = slice_next(&value, ':');
    if (!slice_eq_nocase(name, SLICE("content-disposition")))
        return true;
    if (!parameter(value, "name", &part->name))
        return false;
    if (!parameter(value, "filename", &part->filename))
        part->filename = SLICE_EMPTY;
    return true;
}

enum err_code multipart_next(struct multipart *m, struct multipart_part *ret)
{
    struct slice line;
    *ret = (struct multipart_part){SLICE_EMPTY, SLICE_EMPTY, SLICE_EMPTY};
    if (slice_starts(m->rest, SLICE("--")))
        return ERR_NOT_FOUND;
    if (m->parts++ == MULTIPART_PARTS_MAX)
        return ERR_TOO_LARGE;
    if (!take_until(&m->rest, SLICE("\r\n"), &line) || slice_trim(line).len > 0)
        return ERR_INVALID;
    do {
        if (!take_until(&m->rest, SLICE("\r\n"), &line) || !read_header(line, ret))
            return ERR_INVALID;
    } while (line.len > 0);
    if (!take_until(&m->rest, slice_of(m->delimiter), &ret->content))
        return ERR_INVALID;
    return ERR_OK;
}
