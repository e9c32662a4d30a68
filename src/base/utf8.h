/* Is a text UTF-8 (RFC 3629), as far as it has come? */
#ifndef UTF8_H
#define UTF8_H

#include "buf.h"

/* How many bytes from the first on are whole, well-formed characters. */
size_t utf8_span(struct slice s);
/* Is all of it a character that lacks bytes at its end? */
bool utf8_is_begun(struct slice s);

#endif
