/* A WebSocket client: TCP connect, handshake, then a `ws` endpoint with pings. To numeric
 * addresses.
 *
 * Each step has a deadline; silence does too: a ping after ping_ms without a byte, and after two
 * unanswered ones the peer is dead. The socket is always drained: messages are handed on as they
 * come and whoever takes them may not wait. */
#ifndef WS_CLIENT_H
#define WS_CLIENT_H

#include "ws.h"

#include <uv.h>

struct later;
struct ws_client;

struct ws_client_options {
    const char *host; /* in numbers; copied, as is target */
    unsigned port;
    struct slice target; /* "/ws?clientId=…" */
    uint64_t connect_ms, handshake_ms, ping_ms, close_ms;
    size_t message_max; /* larger ones are read past: the rest of the news is worth more */
    unsigned frames_max;
    void (*on_open)(struct ws_client *c);
    void (*on_text)(struct ws_client *c, struct slice text);
    void (*on_binary)(struct ws_client *c, struct slice bytes);
    void (*on_skipped)(struct ws_client *c); /* a text of more than message_max; or NULL */
    /* Once, whatever ends it: refused, handshake failed (err says which status), lost, closed in
     * form (err->code ERR_CLOSED). Nothing follows. The owner then frees it, also inside. */
    void (*on_end)(struct ws_client *c, const struct err *err);
    void *ctx;
};
#define WS_CLIENT_DEFAULTS                                                                         \
    .connect_ms = 5000, .handshake_ms = 10000, .ping_ms = 20000, .close_ms = 5000,                 \
    .message_max = 8u << 20, .frames_max = 1024

struct ws_client *ws_client_new(uv_loop_t *loop, struct later *later,
                                const struct ws_client_options *options);
void *ws_client_ctx(const struct ws_client *c);
void ws_client_send_text(struct ws_client *c, struct slice text); /* after on_open */
/* Close frame, wait for the peer's (close_ms), on_end. Before on_open: cut at once, on_end. */
void ws_client_shut(struct ws_client *c);
/* After on_end, or at any time (then without on_end). `closed` (may be NULL) comes from the loop
 * when the socket is gone: only then may the same clientId be used again. */
void ws_client_free(struct ws_client *c, void (*closed)(void *ctx), void *ctx);

#endif
