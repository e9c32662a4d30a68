#include "line_reader.h"

void line_reader_init(struct line_reader *r, void (*on_line)(struct line_reader *r, struct slice),
                      void *ctx)
{
    r->on_line = on_line;
    r->ctx = ctx;
    r->after_cr = r->skip_lf = false;
    r->len = r->row_len = 0;
}

static void reader_hand_on_row(struct line_reader *r)
{
    struct slice row = {r->row, r->row_len};
    r->row_len = 0;
    if (row.len > 0)
        r->on_line(r, row);
}

/* An empty row only moves the cursor. */
static void reader_hold(struct line_reader *r)
{
    if (r->len > 0) {
        memcpy(r->row, r->line, r->len);
        r->row_len = r->len;
    }
    r->len = 0;
    r->after_cr = false;
}

/* A line takes the place of the row before it; an empty one leaves it standing. */
static void reader_end_line(struct line_reader *r)
{
    struct slice line = {r->line, r->len};
    r->len = 0;
    r->after_cr = false;
    if (line.len == 0 && r->row_len > 0) {
        reader_hand_on_row(r);
        return;
    }
    r->row_len = 0;
    r->on_line(r, line);
}

static void reader_add(struct line_reader *r, const char *text, size_t len)
{
    size_t room = sizeof(r->line) - r->len;
    size_t n = len < room ? len : room;
    memcpy(r->line + r->len, text, n);
    r->len += n;
}

static size_t text_len(struct slice bytes)
{
    size_t n = 0;
    while (n < bytes.len && bytes.ptr[n] != '\n' && bytes.ptr[n] != '\r')
        n++;
    return n;
}

void line_reader_feed(struct line_reader *r, struct slice bytes)
{
    while (bytes.len > 0) {
        if (bytes.ptr[0] != '\n' && r->after_cr)
            reader_hold(r);
        size_t n = text_len(bytes);
        reader_add(r, bytes.ptr, n);
        if (n > 0)
            r->skip_lf = false;
        if (n == bytes.len)
            return;
        if (bytes.ptr[n] == '\r')
            r->after_cr = true;
        else if (!r->skip_lf)
            reader_end_line(r);
        r->skip_lf = false;
        bytes.ptr += n + 1;
        bytes.len -= n + 1;
    }
}

bool line_reader_holds(const struct line_reader *r)
{
    return r->after_cr || r->row_len > 0;
}

void line_reader_tick(struct line_reader *r)
{
    if (r->after_cr) {
        reader_hold(r);
        r->skip_lf = true;
    }
    reader_hand_on_row(r);
}

void line_reader_finish(struct line_reader *r)
{
    if (r->after_cr)
        reader_hold(r);
    if (r->len > 0)
        reader_end_line(r);
    reader_hand_on_row(r);
}
