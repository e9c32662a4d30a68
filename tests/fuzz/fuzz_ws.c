/* The WebSocket endpoint under arbitrary bytes, in both roles: cut into pieces in any way it tells
 * the same and sends as much, and what it hands on keeps the bounds. And what one endpoint sends
 * arrives at the other as it was. */
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

static void on_skipped(struct ws *ws)
{
    tell(ws, "skipped", SLICE_EMPTY);
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

static const struct ws_events events = {on_text, on_binary, on_skipped,
                                        on_pong, on_output, on_close};

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

/* --- from one to the other ------------------------------------------------------------------- */

struct end {
    struct ws *ws;
    struct buf sent; /* not yet at the other's */
    struct buf got;
    bool is_text;
    unsigned messages, code;
};

static void end_on_text(struct ws *ws, struct slice text)
{
    struct end *e = ws_owner(ws);
    buf_add(&e->got, text);
    e->is_text = true;
    e->messages++;
}

static void end_on_binary(struct ws *ws, struct slice bytes)
{
    struct end *e = ws_owner(ws);
    buf_add(&e->got, bytes);
    e->messages++;
}

static void end_on_output(struct ws *ws, struct slice bytes)
{
    struct end *e = ws_owner(ws);
    buf_add(&e->sent, bytes);
}

static void end_on_close(struct ws *ws, unsigned code, struct slice reason)
{
    struct end *e = ws_owner(ws);
    (void)reason;
    e->code = code;
}

static void end_open(struct end *e, enum ws_role role)
{
    static const struct ws_events end_events = {.on_text = end_on_text,
                                                .on_binary = end_on_binary,
                                                .on_output = end_on_output,
                                                .on_close = end_on_close};
    struct ws_options options = {
        .role = role, .message_max = MESSAGE_MAX, .frames_max = FRAMES_MAX};
    *e = (struct end){.messages = 0};
    buf_init(&e->sent, SIZE_MAX);
    buf_init(&e->got, SIZE_MAX);
    e->ws = ws_new(&options, &end_events, e);
}

static void end_done(struct end *e)
{
    ws_free(e->ws);
    buf_done(&e->sent);
    buf_done(&e->got);
}

static void carry(struct end *from, struct end *to)
{
    struct buf bytes = from->sent;
    buf_init(&from->sent, SIZE_MAX);
    ws_feed(to->ws, buf_slice(&bytes));
    buf_done(&bytes);
}

static bool is_text(struct slice bytes)
{
    for (size_t at = 0; at < bytes.len;) {
        size_t len = utf8_char_len(bytes.ptr + at, bytes.len - at);
        if (len == 0)
            return false;
        at += len;
    }
    return true;
}

/* In at most FRAMES_MAX fragments, which may end within a character. */
static void send_text(struct ws *ws, struct slice text)
{
    size_t piece = text.len / FRAMES_MAX + 1;
    bool first = true;
    do {
        size_t n = text.len < piece ? text.len : piece;
        ws_send_text_part(ws, (struct slice){text.ptr, n}, first, n == text.len);
        first = n == text.len; /* that was the last one */
        text = (struct slice){text.ptr + n, text.len - n};
    } while (!first);
}

static void check_sent(unsigned mode, struct slice bytes)
{
    struct end from, to;
    bool text = is_text(bytes);
    bool fits = bytes.len <= MESSAGE_MAX;
    end_open(&from, (mode & 1) != 0 ? WS_SERVER : WS_CLIENT);
    end_open(&to, (mode & 1) != 0 ? WS_CLIENT : WS_SERVER);
    if (text && (mode & 4) != 0)
        send_text(from.ws, bytes);
    else if (text)
        ws_send_text(from.ws, bytes);
    else
        ws_send_binary(from.ws, bytes);
    ws_close(from.ws, 1000, SLICE("bye"));
    carry(&from, &to);
    ASSERT(to.messages == fits && to.code == (fits ? 1000u : 1009u));
    ASSERT(!fits || (to.is_text == text && slice_eq(buf_slice(&to.got), bytes)));
    carry(&to, &from);
    ASSERT(from.code == to.code && from.messages == 0 && from.sent.len == 0);
    end_done(&from);
    end_done(&to);
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
    check_sent(data[0], bytes);
    buf_done(&whole.told);
    buf_done(&cut.told);
    return 0;
}
