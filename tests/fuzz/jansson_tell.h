/* What jansson reads in a document, told as json_tell() tells it. In a file of its own because the
 * names of its kinds are ours, too. */
#ifndef JANSSON_TELL_H
#define JANSSON_TELL_H

#include "buf.h"

enum jansson_says {
    JANSSON_OK,
    JANSSON_REFUSES, /* it is no JSON, or (unique_keys) has a key twice */
    JANSSON_CANNOT,  /* numbers without room, halves of pairs, keys with a NUL: JSON all the same */
};
enum jansson_says jansson_tell(struct slice text, bool unique_keys, struct buf *out);

#endif
