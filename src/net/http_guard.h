/* The shape of a head, byte by byte, before llhttp sees it: lines end in CRLF, names are tokens,
 * values hold no control characters, nothing is folded, and everything has a bound. The guard says
 * what a line looks like, llhttp what it means. Works on any split of the input. Also checks the
 * trailer section of a chunked body, which nobody else reads. */
#ifndef HTTP_GUARD_H
#define HTTP_GUARD_H

#include "buf.h"

enum http_guard_kind { HTTP_GUARD_REQUEST, HTTP_GUARD_RESPONSE, HTTP_GUARD_TRAILER };

struct http_guard {
    enum http_guard_kind kind;
    unsigned char state;
    unsigned spaces; /* in the request line */
    size_t word;     /* bytes of its present word; of a status line all bytes */
    size_t bytes;    /* of the whole head */
    unsigned fields;
    int status; /* after HTTP_GUARD_BAD: what a server should answer, and why */
    const char *why;
};

enum http_guard_result { HTTP_GUARD_MORE, HTTP_GUARD_END, HTTP_GUARD_BAD };

void http_guard_init(struct http_guard *g, enum http_guard_kind kind);
/* *used: bytes that are in order. END: they include the empty line that ends the head. */
enum http_guard_result http_guard_feed(struct http_guard *g, struct slice bytes, size_t *used);
/* Has a byte come that is not an empty line before the request line? */
bool http_guard_started(const struct http_guard *g);

#endif
