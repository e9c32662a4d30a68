/* WebSockets through us: the handshake of a client's request is passed on to one server over a
 * connection of its own, the server's answer is passed back, then bytes go both ways untouched.
 *
 * Towards the server there is back-pressure: a client is read only as fast as the server takes it.
 * The server itself is read whatever the client does, because one that writes to all its sockets in
 * turn would stand still for all of them. Only a client that catches up within hold_ms may make it
 * wait, so that large messages pass to those who read at 5 MB/s or more; others are read past, and
 * cut when they are too far behind or take nothing (stream_max, stream_ms of the HTTP server).
 *
 * One that never reads is told from one that is slow by what its system says: it has taken no more
 * than systems take for a program that is not looking, and its window has been closed for as long
 * as it was held. It is cut at unread_max already. Who has read once may be behind by stream_max,
 * as the beginning of a flood is a large picture; but all together by queued_max only, beyond which
 * the one that is furthest behind is cut. */
#ifndef TUNNEL_H
#define TUNNEL_H

#include "http_server.h"

struct tunnels;

struct tunnels_options {
    const char *host; /* in numbers */
    unsigned port;
    unsigned max;                /* open at once */
    uint64_t shake_ms, stuck_ms; /* connect and handshake; bytes that the server does not take */
    uint64_t hold_ms;
    size_t unread_max; /* bytes that wait for a client that has not read yet */
    size_t queued_max; /* bytes that wait for all clients together */
};
#define TUNNELS_DEFAULTS                                                                           \
    .max = 1024, .shake_ms = 60000, .stuck_ms = 60000, .hold_ms = 50, .unread_max = 512u << 10,    \
    .queued_max = 16u << 20
enum { TUNNEL_REFUSAL_MAX = 64 * 1024 }; /* of the body; a longer one is ERR_PROTOCOL */

struct tunnels *tunnels_new(uv_loop_t *loop, const struct tunnels_options *options);

struct tunnel_ask {
    struct slice target;
    const struct http_headers *headers; /* all but Host and those that ask for the upgrade */
    /* Once or, if it succeeds, not at all, from the loop: the request is the caller's again, to be
     * answered. The server said this, instead of 101; the headers may be changed and are gone after
     * the call. */
    void (*on_refused)(struct http_req *req, void *ctx, int status, struct http_headers *headers,
                       struct slice body);
    /* ERR_UNAVAILABLE: could not connect; ERR_TIMEOUT, ERR_CLOSED, ERR_PROTOCOL: no answer. */
    void (*on_failed)(struct http_req *req, void *ctx, const struct err *err);
    void *ctx;
};
/* For a GET that may upgrade. What `ask` points to is copied; the request, its data and its abort
 * callback are the tunnel's. ERR_INVALID (no target), ERR_BUSY, ERR_UNAVAILABLE: nothing was begun.
 */
enum err_code tunnel_open(struct tunnels *ts, struct http_req *req, const struct tunnel_ask *ask,
                          struct err *err) MUST_CHECK;
unsigned tunnels_count(const struct tunnels *ts);
/* The HTTP server must have closed: its end is the end of every tunnel's client. */
void tunnels_free(struct tunnels *ts, void (*closed)(void *ctx), void *ctx);

#endif
