/* What a child prints, cut into lines: the same whether it comes whole or in pieces, and the same
 * as a plain reader that has all of it before its eyes. The first byte chooses the pieces, the
 * second is the letter that stands for a tick (0: none); the rest is the output. */
#include "line_reader.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void tell(struct buf *out, struct slice line)
{
    ASSERT(line.len <= PROCESS_LINE_MAX);
    buf_addf(out, "%zu:", line.len);
    buf_add(out, line);
}

static void on_line(struct line_reader *r, struct slice line)
{
    tell(r->ctx, line);
}

static void feed(struct line_reader *r, struct slice bytes, size_t piece)
{
    while (bytes.len > 0) {
        size_t n = bytes.len < piece ? bytes.len : piece;
        char *copy = malloc(n);
        ASSERT(copy != NULL);
        memcpy(copy, bytes.ptr, n);
        line_reader_feed(r, (struct slice){copy, n});
        free(copy);
        bytes.ptr += n;
        bytes.len -= n;
    }
}

static void run(struct buf *out, struct slice bytes, char tick, size_t piece)
{
    struct line_reader r;
    buf_init(out, SIZE_MAX);
    line_reader_init(&r, on_line, out);
    while (bytes.len > 0) {
        const char *at = tick != '\0' ? memchr(bytes.ptr, tick, bytes.len) : NULL;
        size_t n = at != NULL ? (size_t)(at - bytes.ptr) : bytes.len;
        feed(&r, (struct slice){bytes.ptr, n}, piece);
        bytes.ptr += n;
        bytes.len -= n;
        if (at == NULL)
            break;
        bool holds = line_reader_holds(&r);
        size_t before = out->len;
        line_reader_tick(&r);
        ASSERT(!line_reader_holds(&r) && (holds || out->len == before));
        bytes.ptr++;
        bytes.len--;
    }
    line_reader_finish(&r);
    ASSERT(!line_reader_holds(&r));
}

/* Rows are what CR ends: the last that is not empty stands until a line takes its place. */
static void run_plainly(struct buf *out, struct slice bytes)
{
    struct slice row = SLICE_EMPTY;
    buf_init(out, SIZE_MAX);
    while (bytes.len > 0) {
        struct slice text = {bytes.ptr, 0};
        while (text.len < bytes.len && text.ptr[text.len] != '\n' && text.ptr[text.len] != '\r')
            text.len++;
        bool ends = text.len < bytes.len;
        bool by_cr = ends && text.ptr[text.len] == '\r' &&
                     !(text.len + 1 < bytes.len && text.ptr[text.len + 1] == '\n');
        size_t used = text.len + ends + (ends && !by_cr && text.ptr[text.len] == '\r');
        bytes.ptr += used;
        bytes.len -= used;
        text.len = text.len < PROCESS_LINE_MAX ? text.len : PROCESS_LINE_MAX;
        if (by_cr) {
            row = text.len > 0 ? text : row;
            continue;
        }
        if (text.len > 0 || (ends && row.len == 0))
            tell(out, text);
        else if (row.len > 0)
            tell(out, row);
        row = SLICE_EMPTY;
    }
    if (row.len > 0)
        tell(out, row);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole, pieces, plainly;
    if (size < 2)
        return 0;
    struct slice bytes = {(const char *)data + 2, size - 2};
    run(&whole, bytes, (char)data[1], SIZE_MAX);
    run(&pieces, bytes, (char)data[1], (size_t)(data[0] % 16) + 1);
    ASSERT(slice_eq(buf_slice(&whole), buf_slice(&pieces)));
    if (data[1] == 0) {
        run_plainly(&plainly, bytes);
        ASSERT(slice_eq(buf_slice(&whole), buf_slice(&plainly)));
        buf_done(&plainly);
    }
    buf_done(&whole);
    buf_done(&pieces);
    return 0;
}
