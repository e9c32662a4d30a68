/* The chunked coding, read strictly. llhttp 8.1.0, as Debian 12 builds it, takes "5\r\nhelloXX" for
 * a whole chunk and folded lines in trailers: a peer behind us might see another message there.
 * Chunk extensions and trailers are checked, bounded and dropped. Pure. */
#ifndef HTTP_CHUNK_H
#define HTTP_CHUNK_H

#include "http_guard.h"

enum { HTTP_CHUNK_EXTENSIONS_MAX = 16 * 1024 }; /* of one body */

struct http_chunk {
    unsigned char state;
    unsigned digits;   /* of the present size */
    uint64_t left;     /* of the present chunk */
    size_t extensions; /* bytes of them, of all chunks */
    struct http_guard trailer;
    int status; /* after HTTP_CHUNK_BAD: what a server should answer, and why */
    const char *why;
};

enum http_chunk_result {
    HTTP_CHUNK_MORE, /* all of *in was used */
    HTTP_CHUNK_PART, /* *ret_part is a piece of the body, a slice of *in as it was */
    HTTP_CHUNK_END,
    HTTP_CHUNK_BAD
};

void http_chunk_init(struct http_chunk *c);
/* Takes what it uses from the front of *in. */
enum http_chunk_result http_chunk_next(struct http_chunk *c, struct slice *in,
                                       struct slice *ret_part);

#endif
