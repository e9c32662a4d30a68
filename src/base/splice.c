#include "splice.h"

#include <stdlib.h>

void splice_init(struct splice *s)
{
    *s = (struct splice){.count = 0};
}

void splice_done(struct splice *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->edits[i].take_text);
    free(s->edits);
    splice_init(s);
}

void splice_replace(struct splice *s, struct slice text, struct slice span, const char *with)
{
    ASSERT(span.ptr >= text.ptr && span.ptr + span.len <= text.ptr + text.len);
    if (s->count == s->cap) {
        s->cap = s->cap > 0 ? s->cap * 2 : 8;
        s->edits = xrealloc(s->edits, s->cap * sizeof(*s->edits));
    }
    s->edits[s->count++] = (struct splice_edit){
        .at = (size_t)(span.ptr - text.ptr), .len = span.len, .take_text = xstrdup(with)};
}

static int by_place(const void *a, const void *b)
{
    const struct splice_edit *x = a;
    const struct splice_edit *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

enum err_code splice_apply(struct splice *s, struct slice text, struct buf *out)
{
    size_t at = 0;
    size_t more = text.len;
    if (s->count > 0)
        qsort(s->edits, s->count, sizeof(*s->edits), by_place);
    for (size_t i = 0; i < s->count; i++)
        more += strlen(s->edits[i].take_text) - s->edits[i].len;
    enum err_code code = buf_reserve(out, more);
    for (size_t i = 0; i < s->count && code == ERR_OK; i++) {
        const struct splice_edit *e = &s->edits[i];
        ASSERT(e->at >= at && e->at + e->len <= text.len);
        code = buf_append(out, (struct slice){text.ptr + at, e->at - at});
        if (code == ERR_OK)
            code = buf_append(out, slice_of(e->take_text));
        at = e->at + e->len;
    }
    if (code == ERR_OK)
        code = buf_append(out, (struct slice){text.ptr + at, text.len - at});
    return code;
}
