/* The opening of a WebSocket over HTTP/1.1 (RFC 6455, section 4), without the HTTP: which headers
 * ask for it and which ones answer. No extensions, no subprotocols. Pure. */
#ifndef WS_HANDSHAKE_H
#define WS_HANDSHAKE_H

#include "http_parser.h"

enum { WS_KEY_TEXT = 24, WS_ACCEPT_TEXT = 28 }; /* base64 of 16 bytes and of a SHA-1 */

/* Random, NUL-terminated. */
void ws_handshake_key(char ret[WS_KEY_TEXT + 1]);
/* What a WebSocket server makes of a key, NUL-terminated. */
void ws_handshake_accept(const char *key, char ret[WS_ACCEPT_TEXT + 1]);
/* The headers of a client's request, with the empty line behind them. */
void ws_handshake_ask(struct buf *out, const char *key);
/* Does this request open a WebSocket? 0: yes. Else the status of the refusal, 400 or 426, and why;
 * a 426 wants `upgrade: websocket` and `sec-websocket-version: 13` beside it. */
int ws_handshake_judge(const struct http_head *head, const char **ret_why);
/* The headers that answer it with a 101, but for `connection`. */
void ws_handshake_answer(const struct http_head *head, struct http_headers *out);
/* Does this answer to a request with that key open the WebSocket? */
bool ws_handshake_is_answer(const struct http_head *head, const char *key);

#endif
