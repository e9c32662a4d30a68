/* Edits on bytes: a list of "instead of these bytes put those", applied in one pass. What is not
 * named stays as it is to the byte. */
#ifndef SPLICE_H
#define SPLICE_H

#include "buf.h"

struct splice_edit {
    size_t at, len;  /* the bytes of the text that go */
    char *take_text; /* what comes, NUL-terminated; owned by the splice */
};

struct splice {
    struct splice_edit *edits;
    size_t count, cap;
};

void splice_init(struct splice *s);
void splice_done(struct splice *s);
/* `span` must lie in the text that splice_apply() will be given; spans may come in any order but
 * must not overlap. */
void splice_replace(struct splice *s, struct slice text, struct slice span, const char *with);
/* Appends the edited text. ERR_TOO_LARGE past the buf's cap. */
enum err_code splice_apply(struct splice *s, struct slice text, struct buf *out) MUST_CHECK;

#endif
