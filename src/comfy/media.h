/* What kind of file bytes are, by their first bytes; for what callers give as inputs. Pure. */
#ifndef MEDIA_H
#define MEDIA_H

#include "buf.h"

/* "png", "jpg", "webp", …: the usual ending of a known picture, video or audio format; NULL: none
 * of them. */
const char *media_ending(struct slice bytes);

#endif
