/* HTTP/1.1 parsing for both directions: llhttp behind a byte guard, with our bounds. Pure: bytes
 * in, callbacks out; no sockets. Only http_parser.c includes llhttp.
 *
 * The guard refuses, in a message's head, CR without LF, LF without CR and a line that begins with
 * a blank (CVE-2023-30589, CVE-2024-27982, llhttp#877: all present in the 8.1.0 of Debian 12), a
 * name that is no token, and more or fewer than two single spaces in a request line.
 * Refused too: HTTP versions other than 1.0 and 1.1, a request without exactly one Host (1.1),
 * Content-Length and Transfer-Encoding together, any transfer coding but "chunked".
 * After a complete message the parser stops; http_parser_next() arms it for the following one, and
 * unread bytes stay the caller's.
 */
#ifndef HTTP_PARSER_H
#define HTTP_PARSER_H

#include "http_msg.h"

enum http_parser_kind { HTTP_PARSE_REQUEST, HTTP_PARSE_RESPONSE };

struct http_head {
    struct slice method, target; /* requests */
    int status;                  /* responses */
    unsigned minor;              /* HTTP/1.<minor> */
    struct http_headers headers;
    bool keep_alive; /* may another message follow on this connection? */
    bool upgrade;    /* requests: Connection: upgrade with Upgrade; an offer, parsed like any
                        other request unless on_head stops it. Responses: 101 */
    bool expect_100;
    bool chunked;
    bool has_length;  /* Content-Length given */
    bool until_close; /* responses: the body ends with the connection */
    uint64_t length;
};

struct http_parser;
struct http_parser_events {
    /* The head is whole. May return false: stop here, as after a complete message. Then
     * http_parser_next() drops the message, http_parser_feed() goes on with its body. */
    bool (*on_head)(struct http_parser *p, const struct http_head *head);
    void (*on_body)(struct http_parser *p, struct slice part);
    void (*on_end)(struct http_parser *p);
};

struct http_parser *http_parser_new(enum http_parser_kind kind,
                                    const struct http_parser_events *events, void *owner);
void http_parser_free(struct http_parser *p);
void *http_parser_owner(const struct http_parser *p);
void http_parser_set_owner(struct http_parser *p, void *owner); /* one that is used again */

enum http_parse_result {
    HTTP_PARSE_MORE,     /* all bytes used; wants more */
    HTTP_PARSE_COMPLETE, /* a message has ended; *used bytes belong to it */
    HTTP_PARSE_UPGRADED, /* the head of a 101 has ended; what follows is not HTTP */
    HTTP_PARSE_FAILED
};
/* On failure *err says why and `*ret_status` (NULL allowed) what a server should answer: 400, 413
 * (length beyond 2^63, too many bytes around the chunks), 414, 431, 501 (transfer coding), 505. */
enum http_parse_result http_parser_feed(struct http_parser *p, struct slice bytes, size_t *used,
                                        int *ret_status, struct err *err);
/* The stream has ended. COMPLETE if that is how the body ends, MORE if nothing had begun, else
 * FAILED. */
enum http_parse_result http_parser_eof(struct http_parser *p, struct err *err);
void http_parser_next(struct http_parser *p);
/* From on_body: this was the last part of this feed, which returns MORE with *used telling how far
 * it got. on_end may still follow at once. */
void http_parser_pause(struct http_parser *p);
/* After on_head, until http_parser_next(). */
const struct http_head *http_parser_head(const struct http_parser *p);
/* From on_head until http_parser_next(): the headers are the caller's, who ends the list. The
 * head's own list is empty from now on. */
void http_parser_take_headers(struct http_parser *p, struct http_headers *ret);
/* After the head: is there a body of which the end has not been seen? */
bool http_parser_has_body(const struct http_parser *p);
/* At least so many of its bytes are still to come; 0 where nobody knows. */
uint64_t http_parser_body_left(const struct http_parser *p);
/* How much to read: least, or up to most of what is left of a body that is longer than that. */
size_t http_parser_read_room(const struct http_parser *p, size_t least, size_t most);
/* Responses: the answer to a HEAD has no body, whatever its headers say. Call before the head. */
void http_parser_expect_no_body(struct http_parser *p);
/* Has any byte of the present message been seen? */
bool http_parser_started(const struct http_parser *p);

#endif
