/* The first lines of the requests that we make, by http_up and by ws_client alike. Pure. */
#ifndef HTTP_REQUEST_H
#define HTTP_REQUEST_H

#include "http_msg.h"

enum { HTTP_AUTHORITY_MAX = 80 }; /* numeric addresses only */

/* "127.0.0.1:80", "[::1]:80", NUL-terminated; longer ones are cut. */
void http_request_authority(const char *host, unsigned port, char ret[HTTP_AUTHORITY_MAX]);
/* "GET /x HTTP/1.1" and, unless `authority` is NULL, the line of the Host. ERR_INVALID for a target
 * that is no path, has blanks or control characters (it could end the line and begin another) or
 * is longer than HTTP_TARGET_MAX. */
enum err_code http_request_begin(struct buf *out, const char *method, struct slice target,
                                 const char *authority, struct err *err) MUST_CHECK;

#endif
