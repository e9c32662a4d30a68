/* One HTTP exchange with addresses that have been checked: libcurl's multi interface on the loop.
 * With url.c the only file that includes curl. Redirects, deadlines and bounds are not its
 * business: see https.h.
 *
 * A socket is opened to one of the addresses given or not at all, whatever the URL says and
 * whatever libcurl remembers. Nothing is looked up, no proxy is used, certificates are verified,
 * content codings are not asked for.
 *
 * A connection is used again only by requests that say so, and only one that such a request has
 * opened: to that host and port, to an address that was checked then. When it turns out to be
 * closed before any byte of an answer, libcurl sends the request once more on a new one.
 */
#ifndef HOP_H
#define HOP_H

#include "http_msg.h"
#include "resolve.h"
#include "url.h"

struct hop;
struct hops; /* what all of them share */

/* Before the first use, while there is one thread. */
enum err_code hop_global_init(struct err *err) MUST_CHECK;

/* ca_file: certificates to trust instead of the system's; NULL: those. */
struct hops *hops_new(uv_loop_t *loop, struct later *later, const char *ca_file);
/* Every hop must have been freed. */
void hops_free(struct hops *hs, void (*closed)(void *ctx), void *ctx);

/* All but on_end run inside libcurl: hop_start() and hop_free() must not be called there. False
 * breaks the exchange off: on_end follows with ERR_CANCELLED. */
struct hop_events {
    bool (*on_sent)(struct hop *h);             /* connected; the request begins to leave */
    bool (*on_head)(struct hop *h, int status); /* of the final answer; ret_headers is filled */
    bool (*on_part)(struct hop *h, struct slice part);
    /* The last one, from `later`; err == NULL: the answer was whole. */
    void (*on_end)(struct hop *h, const struct err *err);
};

struct hop_request { /* all borrowed until hop_free() */
    const struct url *url;
    const char *method;                 /* "GET", "HEAD" or "POST" */
    const struct http_headers *headers; /* NULL: none. What frames the message is left out */
    const char *user_agent;             /* NULL: none */
    struct slice content;
    bool reuse; /* of connections, see above */
    const struct address *addresses;
    unsigned address_count;
    struct http_headers *ret_headers;
};

struct hop *hop_start(struct hops *hs, const struct hop_request *request,
                      const struct hop_events *events, void *owner);
void *hop_owner(const struct hop *h);
/* At any time but inside libcurl; nothing follows. */
void hop_free(struct hop *h);

#endif
