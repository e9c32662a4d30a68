/* The server's side of a WebSocket: a request that opens one (ws_handshake.h has judged it), and
 * the messages that follow on its connection.
 *
 * Lives until ws_server_close() or ws_server_reset() was called, or until on_end has run: whichever
 * is first. After that it must not be touched, and nothing is called back. No callback runs inside
 * a call of the owner's. A peer that is silent is pinged every ping_ms and dead after two pings
 * without an answer; one that does not read is cut by its connection (stream_ms). */
#ifndef WS_SERVER_H
#define WS_SERVER_H

#include "http_server.h"

struct ws_server;
struct ws_server_options {
    size_t message_max;    /* beyond: closed with 1009 */
    unsigned frames_max;   /* of one message; beyond: 1008 */
    struct budget *budget; /* of messages that are being read; beyond: 1013; NULL: no bound */
    uint64_t ping_ms;
    uint64_t close_ms; /* until the peer answers a close frame; then it is not waited for */
    void (*on_text)(struct ws_server *s, struct slice text);
    void (*on_binary)(struct ws_server *s, struct slice bytes);
    void (*on_drain)(struct ws_server *s); /* after a send said false; NULL allowed */
    /* The conversation is over: the peer's close code, one for what it did wrong, or 1006: its
     * connection is gone. */
    void (*on_end)(struct ws_server *s, unsigned code);
    void *ctx;
};
#define WS_SERVER_DEFAULTS                                                                         \
    .message_max = 1u << 20, .frames_max = 1024, .ping_ms = 20000, .close_ms = 5000

/* Answers 101; `extra` (NULL allowed) are further headers of that. The request ends. */
struct ws_server *ws_server_accept(struct http_req *req, uv_loop_t *loop,
                                   const struct http_headers *extra,
                                   const struct ws_server_options *options);
void *ws_server_ctx(const struct ws_server *s);
/* Copies what does not leave at once. False: HTTP_WRITE_HIGH bytes wait; what was given is taken
 * nevertheless, but who can goes on only in on_drain. */
bool ws_server_send_text(struct ws_server *s, struct slice text);
bool ws_server_send_binary(struct ws_server *s, struct slice bytes);
/* One text message in fragments: see ws_send_text_part(). */
bool ws_server_send_text_part(struct ws_server *s, struct slice part, bool first, bool last);
bool ws_server_is_clear(struct ws_server *s); /* is everything with the kernel? */
/* A close frame after all that was sent; the rest is seen to here. `reason` is short. */
void ws_server_close(struct ws_server *s, unsigned code, const char *reason);
void ws_server_reset(struct ws_server *s); /* at once; what is queued is lost */

#endif
