/* multipart/form-data (RFC 7578) that lies in memory, taken apart. Pure; slices point into the
 * body.
 */
#ifndef MULTIPART_H
#define MULTIPART_H

#include "buf.h"

enum { MULTIPART_BOUNDARY_MAX = 70, MULTIPART_PARTS_MAX = 32 };

struct multipart {
    struct slice rest;                          /* behind the last part that was read */
    char delimiter[MULTIPART_BOUNDARY_MAX + 5]; /* "\r\n--boundary" */
    unsigned parts;
};

struct multipart_part {
    struct slice name, filename; /* as sent, between their quotes; filename: empty if none */
    struct slice content;
};

/* `type` is the Content-Type's value. ERR_INVALID: another type, no boundary, or the body does not
 * begin with it. */
enum err_code multipart_begin(struct multipart *m, struct slice type, struct slice body) MUST_CHECK;
/* ERR_NOT_FOUND: that was the last one. ERR_INVALID: the body is broken off or no such body.
 * ERR_TOO_LARGE: more than MULTIPART_PARTS_MAX. */
enum err_code multipart_next(struct multipart *m, struct multipart_part *ret) MUST_CHECK;

#endif
