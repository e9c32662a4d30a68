/* Requests to addresses outside, above all those that a caller of ours names: only to public ones
 * and to what the list FETCH_ALLOW opens (address.h), over http and https.
 *
 * Redirects of GET and HEAD are followed here, each hop like a first one: its URL is read strictly
 * (url.h), its host resolved, every address checked (resolve.h), and the connection is made to a
 * checked address and to nothing else (hop.h). So neither a redirect nor a name that changes its
 * answer leads inside. A hop to another origin gets none of the caller's headers. Proxies named in
 * the environment are not used; no cookies, no credentials in URLs, no kept-alive connections but
 * for calls that ask for them.
 *
 * Every call has an end: bounds on its parts (connect_ms for each hop: name, connection, TLS;
 * head_ms from there to the answer's head; then at least rate_min bytes a second, looked at every
 * idle_ms) and total_ms on the whole, waiting for a free slot included. All begin anew after a time
 * in which the loop did not run.
 */
#ifndef HTTPS_H
#define HTTPS_H

#include "http_msg.h"
#include "resolve.h"

enum {
    HTTPS_CONNECT_MS = 10000, /* what 0 means in a call */
    HTTPS_HEAD_MS = 30000,
    HTTPS_IDLE_MS = 15000,
    HTTPS_TOTAL_MS = 60000,
    HTTPS_RATE_MIN = 1024,
    HTTPS_MEDIA_TYPE_MAX = 95,
};

struct https;

struct https_options {
    const struct address_allow *allow; /* NULL: public addresses only; outlives the client */
    unsigned connections_max;          /* further calls wait in order */
    const char *user_agent;            /* NULL: none. A literal */
    const char *ca_file;               /* NULL: the system's certificates. Copied */
    /* Who resolves names; NULL: the system. See resolve.h. */
    void (*ask)(struct resolve_lookup *lookup, void *ctx);
    void *ctx;
};
#define HTTPS_DEFAULTS .connections_max = 8

/* One request and its answer. The struct and all it points to is the caller's until on_end, which
 * comes exactly once after a start, from `later`; it is not looked at after that, so on_end may
 * free it or start it again. The text of an error names hosts, but never a URL, which may hold a
 * signature, nor an address inside.
 *
 * Errors: ERR_INVALID: the URL is not valid; ERR_FORBIDDEN: it leads where it may not;
 * ERR_NOT_FOUND: no such host; ERR_UNAVAILABLE: no connection; ERR_TIMEOUT; ERR_TOO_LARGE;
 * ERR_PROTOCOL: certificate, no HTTP, too many redirects; ERR_CLOSED: cut off; ERR_CANCELLED. Any
 * status is an answer. */
struct https_call {
    /* request */
    const char *url;
    const char *method;                 /* "GET", "HEAD" or "POST" */
    const struct http_headers *headers; /* NULL: none */
    struct slice content;
    uint64_t connect_ms, head_ms, idle_ms, total_ms; /* 0: see above */
    uint64_t rate_min;
    size_t body_max;        /* of the answer, collected or in parts; beyond: ERR_TOO_LARGE */
    unsigned redirects_max; /* 0: a redirect is an answer like any other */
    /* Go on a connection that such a call has left open, and leave it open. The request may then
     * arrive twice: for those that bear it. */
    bool reuse;
    /* NULL, or asked when there is a connection, just before the request leaves on it, perhaps more
     * than once; false: nothing leaves, the call ends with ERR_CANCELLED. It asks nothing of us. */
    bool (*may_send)(struct https_call *call);

    /* answer. on_head and on_part may be NULL; https_cancel() may be called in them. */
    void (*on_head)(struct https_call *call); /* the last hop's; status and headers are there */
    void (*on_part)(struct https_call *call, struct slice part);    /* NULL: collected in `body` */
    void (*on_end)(struct https_call *call, const struct err *err); /* NULL: whole */
    void *ctx;

    int status;                                /* 0 until the head has come */
    const struct http_headers *res_headers;    /* from on_head on; dies after on_end */
    int64_t res_length;                        /* -1: not declared */
    char media_type[HTTPS_MEDIA_TYPE_MAX + 1]; /* "" if none */
    struct buf body;    /* in on_end without an error: what was collected, now the caller's; free it
                           with buf_done(). Else empty */
    unsigned redirects; /* followed */
    bool sent;          /* had a request left, whole or in part? */

    void *driver; /* NULL when idle */
};

/* main() calls it before any thread exists. */
enum err_code https_global_init(struct err *err) MUST_CHECK;

struct https *https_new(uv_loop_t *loop, struct later *later, const struct https_options *options);
void https_start(struct https *h, struct https_call *call);
/* on_end follows with ERR_CANCELLED, later, from the loop. Idle: fine. */
void https_cancel(struct https_call *call);
/* Cancels what runs, then frees; `closed` comes after every on_end. */
void https_free(struct https *h, void (*closed)(void *ctx), void *ctx);

#endif
