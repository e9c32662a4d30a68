/* Which headers of a message pass a relay, and which are put in their place. Pure.
 *
 * Neither way: what belongs to one hop (RFC 9110, 7.6.1, with all that Connection names), what
 * frames a message or dates it (the next hop says so itself), and extensions of WebSockets, which
 * would change the frames that a tunnel must not touch. Nor X-Fc-*: they are between us and
 * Function Compute's gateway, and keys are among them. Towards the server: Host, Origin and
 * Sec-Fetch-*, by which a server behind a relay would take every page for a foreign one (who drops
 * them must have looked at them), Expect, which is answered here, and X-Api-Key, which is meant for
 * us. Sec-Fetch-Dest goes on: it says what for, not for whom, and ComfyUI shows an SVG to an <img>
 * only. X-Forwarded-For is continued; -Host and -Proto stay what a relay in front of us said, if
 * one did. Towards the client: Access-Control-*: which pages may call is decided here alone. */
#ifndef HTTP_RELAY_H
#define HTTP_RELAY_H

#include "http_parser.h"

/* Adds to `ret`. ERR_TOO_LARGE: more than a header list takes. */
enum err_code http_relay_request(const struct http_head *head, const char *peer,
                                 struct http_headers *ret) MUST_CHECK;
/* Leaves in the list what goes on. */
void http_relay_response(struct http_headers *headers);

#endif
