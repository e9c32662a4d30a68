/* Keys and headers of the WebSocket handshake. The key proves that whoever answers has understood
 * the question: its answer is base64(SHA-1(key + a GUID of the RFC)). */
#include "ws_handshake.h"

#include "codec.h"

#include <stdio.h>

enum { WS_KEY_RAW = 16 };

/* `ret` has room for the text and a NUL only. */
static void encode(const void *raw, size_t len, char *ret, size_t text_len)
{
    char text[BASE64_ROOM(SHA1_RAW)];
    struct base64_encoder base64;
    ASSERT(BASE64_ROOM(len) <= sizeof(text));
    base64_init(&base64);
    size_t n = base64_feed(&base64, (struct slice){raw, len}, text);
    n += base64_finish(&base64, text + n);
    ASSERT(n == text_len);
    memcpy(ret, text, n);
    ret[n] = '\0';
}

void ws_handshake_key(char ret[WS_KEY_TEXT + 1])
{
    unsigned char raw[WS_KEY_RAW];
    random_bytes(raw, sizeof(raw));
    encode(raw, sizeof(raw), ret, WS_KEY_TEXT);
}

void ws_handshake_accept(const char *key, char ret[WS_ACCEPT_TEXT + 1])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char text[WS_KEY_TEXT + sizeof(guid)];
    unsigned char hash[SHA1_RAW];
    ASSERT(strlen(key) == WS_KEY_TEXT);
    (void)snprintf(text, sizeof(text), "%s%s", key, guid);
    sha1_raw(slice_of(text), hash);
    encode(hash, sizeof(hash), ret, WS_ACCEPT_TEXT);
}

void ws_handshake_ask(struct buf *out, const char *key)
{
    buf_addf(out,
             "Upgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n",
             key);
}

static bool is_key(struct slice text)
{
    struct buf raw;
    buf_init(&raw, WS_KEY_RAW);
    bool ok = text.len == WS_KEY_TEXT && base64_decode(text, &raw) == ERR_OK; /* not more */
    buf_done(&raw);
    return ok;
}

int ws_handshake_judge(const struct http_head *head, const char **ret_why)
{
    const struct http_headers *h = &head->headers;
    struct slice value;
    if (head->minor != 1 || !http_headers_has_token(h, "connection", "upgrade") ||
        !http_headers_has_token(h, "upgrade", "websocket")) {
        *ret_why = "this route speaks WebSocket only";
        return 426;
    }
    if (http_headers_count(h, "sec-websocket-version", &value) != 1 || !slice_is(value, "13")) {
        *ret_why = "only version 13 of the WebSocket protocol is spoken here";
        return 426;
    }
    if (!slice_is(head->method, "GET") || head->chunked || head->length > 0) {
        *ret_why = "a WebSocket is opened by a GET without a body";
        return 400;
    }
    if (http_headers_count(h, "sec-websocket-key", &value) != 1 || !is_key(value)) {
        *ret_why = "sec-websocket-key must be 16 bytes in base64";
        return 400;
    }
    return 0;
}

void ws_handshake_answer(const struct http_head *head, struct http_headers *out)
{
    char key[WS_KEY_TEXT + 1];
    char accept[WS_ACCEPT_TEXT + 1];
    struct slice value;
    ASSERT(http_headers_get(&head->headers, "sec-websocket-key", &value) &&
           value.len == WS_KEY_TEXT);
    slice_copy(value, key, sizeof(key));
    ws_handshake_accept(key, accept);
    ASSERT(http_headers_add(out, SLICE("upgrade"), SLICE("websocket")) == ERR_OK);
    ASSERT(http_headers_add(out, SLICE("sec-websocket-accept"), slice_of(accept)) == ERR_OK);
}

bool ws_handshake_is_answer(const struct http_head *head, const char *key)
{
    const struct http_headers *h = &head->headers;
    char expected[WS_ACCEPT_TEXT + 1];
    struct slice accept;
    ws_handshake_accept(key, expected);
    return head->status == 101 && http_headers_has_token(h, "upgrade", "websocket") &&
           http_headers_has_token(h, "connection", "upgrade") &&
           http_headers_count(h, "sec-websocket-accept", &accept) == 1 &&
           slice_is(accept, expected) && !http_headers_has(h, "sec-websocket-extensions") &&
           !http_headers_has(h, "sec-websocket-protocol");
}
