/* Uploads: the first line is the Content-Type, the rest the body. Parts lie in the body, one behind
 * the other, each between two delimiters; what was read is written again and read as the same; and
 * a part made of the body's bytes is read as what it was made of. */
#include "multipart.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool has(struct slice s, const char *bytes)
{
    return memmem(s.ptr, s.len, bytes, strlen(bytes)) != NULL;
}

/* What stands between quotes. */
static bool is_writable(struct slice name)
{
    return !has(name, "\"") && !has(name, "\r") && !has(name, "\n");
}

static void write_part(struct buf *out, const struct multipart *m, const struct multipart_part *p)
{
    buf_adds(out, m->delimiter);
    buf_adds(out, "\r\nContent-Disposition: form-data; name=\"");
    buf_add(out, p->name);
    buf_adds(out, "\"; filename=\"");
    buf_add(out, p->filename);
    buf_adds(out, "\"\r\n\r\n");
    buf_add(out, p->content);
}

static void check_again(struct slice type, struct slice written, struct slice told)
{
    struct multipart m;
    struct multipart_part p;
    struct buf again;
    buf_init(&again, SIZE_MAX);
    ASSERT(multipart_begin(&m, type, (struct slice){written.ptr + 2, written.len - 2}) == ERR_OK);
    while (multipart_next(&m, &p) == ERR_OK)
        write_part(&again, &m, &p);
    ASSERT(slice_eq(buf_slice(&again), told));
    ASSERT(multipart_next(&m, &p) == ERR_NOT_FOUND);
    buf_done(&again);
}

static bool lies_in(struct slice part, struct slice whole)
{
    return part.len == 0 || (part.ptr >= whole.ptr && part.ptr + part.len <= whole.ptr + whole.len);
}

static void check_body(struct slice type, struct slice body)
{
    struct multipart m;
    struct multipart_part p;
    struct buf told, written;
    bool writable = true;
    unsigned count = 0;
    enum err_code code;
    if (multipart_begin(&m, type, body) != ERR_OK)
        return;
    buf_init(&told, SIZE_MAX);
    buf_init(&written, SIZE_MAX);
    while ((code = multipart_next(&m, &p)) == ERR_OK) {
        struct slice rest = m.rest;
        ASSERT(++count <= MULTIPART_PARTS_MAX && lies_in(rest, body));
        ASSERT(lies_in(p.name, body) && lies_in(p.filename, body) && lies_in(p.content, body));
        ASSERT(!has(p.content, m.delimiter));
        ASSERT(p.content.ptr + p.content.len + strlen(m.delimiter) == rest.ptr);
        ASSERT(!has(p.name, "\r\n") && !has(p.filename, "\r\n"));
        writable = writable && is_writable(p.name) && is_writable(p.filename);
        write_part(&told, &m, &p);
    }
    ASSERT(code == ERR_NOT_FOUND || code == ERR_INVALID || code == ERR_TOO_LARGE);
    if (writable && count > 0) {
        buf_add(&written, buf_slice(&told));
        buf_adds(&written, m.delimiter);
        buf_adds(&written, "--\r\n");
        check_again(type, buf_slice(&written), buf_slice(&told));
    }
    buf_done(&told);
    buf_done(&written);
}

static struct slice cut(struct slice *from, size_t len)
{
    struct slice part = {from->ptr, from->len < len ? from->len : len};
    *from = (struct slice){from->ptr + part.len, from->len - part.len};
    return part;
}

static void check_made(struct slice bytes)
{
    static const struct slice type = {"multipart/form-data; boundary=xyz", 33};
    struct multipart m = {.delimiter = "\r\n--xyz"};
    struct multipart_part made, read;
    struct buf body;
    made.name = cut(&bytes, 8);
    made.filename = cut(&bytes, 12);
    made.content = bytes;
    if (!is_writable(made.name) || !is_writable(made.filename) || has(bytes, m.delimiter))
        return;
    buf_init(&body, SIZE_MAX);
    write_part(&body, &m, &made);
    buf_adds(&body, "\r\n--xyz--");
    ASSERT(multipart_begin(&m, type, (struct slice){body.ptr + 2, body.len - 2}) == ERR_OK);
    ASSERT(multipart_next(&m, &read) == ERR_OK);
    ASSERT(slice_eq(made.name, read.name) && slice_eq(made.filename, read.filename) &&
           slice_eq(made.content, read.content));
    ASSERT(multipart_next(&m, &read) == ERR_NOT_FOUND);
    buf_done(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = {size > 0 ? (const char *)data : "", size};
    const char *end = size > 0 ? memchr(rest.ptr, '\n', rest.len) : NULL;
    if (end == NULL)
        return 0;
    struct slice type = {rest.ptr, (size_t)(end - rest.ptr)};
    check_made((struct slice){end + 1, rest.len - type.len - 1});
    check_body(type, (struct slice){end + 1, rest.len - type.len - 1});
    return 0;
}
