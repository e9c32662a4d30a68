/* A WebSocket endpoint as a pure protocol object on wslay: bytes in, messages and bytes out; no
 * sockets, no timers, no handshake. The only file that includes wslay.
 *
 * After on_close nothing further is delivered. Freeing inside a callback is allowed (it is deferred
 * until the call into the endpoint returns). No extensions, ever.
 */
#ifndef WS_H
#define WS_H

#include "buf.h"

enum ws_role { WS_CLIENT, WS_SERVER };

struct ws;
struct ws_events {
    void (*on_text)(struct ws *ws, struct slice text); /* valid UTF-8 */
    void (*on_binary)(struct ws *ws, struct slice bytes);
    void (*on_skipped)(struct ws *ws); /* a text that was read past, see skip_oversize; or NULL */
    void (*on_pong)(struct ws *ws);    /* NULL allowed */
    void (*on_output)(struct ws *ws, struct slice bytes); /* to be written to the peer, in order */
    /* The conversation is over: the peer's close code (1005: none given), or 1002, 1007, 1008,
     * 1009 for what the peer did wrong, 1013 when there is no room for its message at the moment.
     * Output that was given before must still be written. */
    void (*on_close)(struct ws *ws, unsigned code, struct slice reason);
};
struct ws_options {
    enum ws_role role;
    size_t message_max;    /* beyond: a text or binary message is refused with 1009 … */
    bool skip_oversize;    /* … or, for a peer whose other messages are worth more, read past */
    unsigned frames_max;   /* of one message; beyond: 1008 */
    struct budget *budget; /* of messages that are being read; beyond: 1013; or NULL */
};

struct ws *ws_new(const struct ws_options *options, const struct ws_events *events, void *owner);
void ws_free(struct ws *ws);
void *ws_owner(const struct ws *ws);
void ws_feed(struct ws *ws, struct slice bytes);
void ws_send_text(struct ws *ws, struct slice text);
void ws_send_binary(struct ws *ws, struct slice bytes);
/* One text message as fragments: first, then any number, then last (both for a whole one). Control
 * frames may be sent in between, other messages not. */
void ws_send_text_part(struct ws *ws, struct slice part, bool first, bool last);
void ws_send_ping(struct ws *ws);
/* Sends a close frame after everything queued; the peer's answer comes as on_close. */
void ws_close(struct ws *ws, unsigned code, struct slice reason);

#endif
