/* The WebSocket endpoint under arbitrary bytes, in both roles: cut into pieces in any way it tells
 * the same and sends as much, and what it hands on keeps the bounds. */
#include "ws.h"

#include <stdio.h>
#include <stdlib.h>

enum { MESSAGE_MAX = 300, FRAMES_MAX = 5 };

struct side {
    struct buf told;
    size_t sent; /* masks are random, lengths are not */
    bool closed;
};

static void tell(struct ws *ws, const char *what, struct slice bytes)
{
    struct side *side = ws_owner(ws);
    ASSERT(!side->closed);
    buf_addf(&side->told, "%s %zu ", what, bytes.len);
    buf_add(&side->told, bytes);
}

static void on_text(struct ws *ws, struct slice text)
{
    ASSERT(text.len <= MESSAGE_MAX);
    for (size_t at = 0; at < text.len;) {
        size_t len = utf8_char_len(text.ptr + at, text.len - at);
        ASSERT(len > 0);
        at += len;
    }
    tell(ws, "text", text);
}

static void on_binary(struct ws *ws, struct slice bytes)
{
    ASSERT(bytes.len <= MESSAGE_MAX);
    tell(ws, "binary", bytes);
}

static void on_pong(struct ws *ws)
{
    tell(ws, "pong", SLICE_EMPTY);
}

static void on_output(struct ws *ws, struct slice bytes)
{
    struct side *side = ws_owner(ws);
    ASSERT(!side->closed);
    side->sent += bytes.len;
}

static void on_close(struct ws *ws, unsigned code, struct slice reason)
{
    struct side *side = ws_owner(ws);
    char text[16];
    (void)snprintf(text, sizeof(text), "close %u", code);
    tell(ws, text, reason);
    side->closed = true;
}

static const struct ws_events events = {on_text, on_binary, on_pong, on_output, on_close};

/* `cuts` decides where the pieces end; 0: nowhere. */
static void run(struct side *side, unsigned mode, struct slice bytes, unsigned cuts)
{
    struct ws_options options = {
        .role = (mode & 1) != 0 ? WS_SERVER : WS_CLIENT,
        .message_max = MESSAGE_MAX,
        .skip_oversize = (mode & 2) != 0,
        .frames_max = FRAMES_MAX,
    };
    *side = (struct side){.sent = 0};
    buf_init(&side->told, SIZE_MAX);
    struct ws *ws = ws_new(&options, &events, side);
    while (bytes.len > 0) {
        size_t n = bytes.len;
        if (cuts != 0) {
            cuts = cuts * 1103515245u + 12345u;
            n = 1 + (cuts >> 16) % 9;
            n = n < bytes.len ? n : bytes.len;
        }
        char *copy = malloc(n); /* so that reading past a piece is seen */
        ASSERT(copy != NULL);
        memcpy(copy, bytes.ptr, n);
        ws_feed(ws, (struct slice){copy, n});
        free(copy);
        bytes.ptr += n;
        bytes.len -= n;
    }
    ws_free(ws);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct side whole, cut;
    if (size < 2)
        return 0;
    struct slice bytes = {(const char *)data + 2, size - 2};
    run(&whole, data[0], bytes, 0);
    run(&cut, data[0], bytes, 1u + data[1]);
    ASSERT(slice_eq(buf_slice(&whole.told), buf_slice(&cut.told)));
    ASSERT(whole.sent == cut.sent && whole.closed == cut.closed);
    buf_done(&whole.told);
    buf_done(&cut.told);
    return 0;
}
