/* A URL that we are asked to fetch, taken apart so that nobody can read another host from it.
 *
 * Two readers of one text that do not agree on its host are how checks of addresses are passed by,
 * so there is one reader (libcurl's, which makes the connection), and spellings that it would put
 * right are refused: credentials, %-encoded hosts, addresses such as 0x7f.1, missing or superfluous
 * slashes, hosts that are not ASCII. In path and query blanks and UTF-8 are encoded, as people
 * paste them. Fragments are dropped. */
#ifndef URL_H
#define URL_H

#include "address.h"

enum { URL_TEXT_MAX = 8 * 1024 };

struct url {
    char *text;                      /* to be freed with url_done() */
    char host[ADDRESS_NAME_MAX + 1]; /* lower case; IPv6 without brackets */
    unsigned port;
    bool is_tls;
};

/* ERR_INVALID; its text never repeats the URL, which may hold a signature. */
enum err_code url_parse(struct slice text, struct url *ret, struct err *err) MUST_CHECK;
/* Where a reference (the value of a Location header) found at `from` leads. */
enum err_code url_follow(const struct url *from, struct slice reference, struct url *ret,
                         struct err *err) MUST_CHECK;
void url_done(struct url *u);
bool url_same_origin(const struct url *a, const struct url *b);

#endif
