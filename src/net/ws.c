/* Frames are wslay's business (its frame layer: heads, lengths, masks), messages are ours.
 *
 * wslay's event layer, which puts messages together, is not used. Of version 1.1.1 it reserves a
 * message's memory by its announced length, sends control frames before data that was queued
 * earlier, closes without a code after a broken frame head, takes a close frame of one byte, and
 * checks the text of a close frame differently depending on how the network has cut it.
 *
 *   ws_feed ─► wslay_frame_recv ─► frame starts ─► parts ─► frame ends ─► on_text, on_pong, …
 *
 * What is sent gathers in `out` and leaves as one piece when a call from outside is about to
 * return, always before on_close. The peer's faults end the conversation by ws_fail(): a close
 * frame, then on_close. After our own close frame messages are still delivered until the peer's
 * answer.
 *
 * Most endpoints are silent most of the time and hold no buffer then: wslay's context, which has
 * 4 KiB for input, lives only while a call is being worked on or part of a frame has come.
 */
#include "ws.h"

#include "codec.h"
#include "utf8.h"

#include <stdlib.h>

#include <wslay/wslay.h>

enum {
    WS_CONTROL_MAX = 125, /* RFC 6455, 5.5; wslay refuses longer ones */
    WS_FRAME_HEAD_MAX = 14,
    WS_KEEP_MAX = 64 * 1024, /* of a message's memory, for the next one */
    WS_PROTOCOL_ERROR = 1002,
    WS_NO_CODE = 1005,
    WS_BAD_TEXT = 1007,
    WS_POLICY = 1008,
    WS_TOO_BIG = 1009,
    WS_TRY_LATER = 1013,
};

struct ws {
    struct ws_options options;
    const struct ws_events *events;
    void *owner;
    struct wslay_frame_context *frames; /* NULL: between calls and frames */
    unsigned depth;                     /* calls into the endpoint that have not returned */
    bool freed;                         /* inside one of them: the outermost frees */
    bool feeding;
    bool sending_parts; /* of a message whose last fragment has not been sent */
    bool close_sent;
    bool over;       /* on_close was called */
    struct slice in; /* what ws_feed() was given and wslay has not taken */
    size_t held;     /* bytes that wslay has taken and not told of as (part of) a frame */
    struct buf out;

    /* the frame that is being read */
    bool in_frame;
    bool frame_fin;
    unsigned opcode;
    uint64_t frame_left;
    /* the message that its frames belong to: a control frame may come between them */
    bool in_message;
    bool message_is_text;
    bool skipping;
    unsigned message_frames;
    struct buf message;
    size_t text_checked; /* bytes of it that are UTF-8 */
    struct buf control;  /* payload */
};

/* --- wslay's context -------------------------------------------------------------------------- */

static ssize_t ws_on_frame_send(const uint8_t *data, size_t len, int flags, void *user_data)
{
    struct ws *ws = user_data;
    (void)flags;
    buf_add(&ws->out, (struct slice){(const char *)data, len});
    return (ssize_t)len;
}

static int ws_on_mask(uint8_t *buf, size_t len, void *user_data)
{
    (void)user_data;
    random_bytes(buf, len);
    return 0;
}

static ssize_t ws_on_frame_recv(uint8_t *buf, size_t len, int flags, void *user_data)
{
    struct ws *ws = user_data;
    (void)flags;
    size_t n = ws->in.len < len ? ws->in.len : len;
    if (n == 0)
        return -1; /* wslay: wants to read */
    memcpy(buf, ws->in.ptr, n);
    ws->in.ptr += n;
    ws->in.len -= n;
    ws->held += n;
    return (ssize_t)n;
}

static void ws_need_frames(struct ws *ws)
{
    static const struct wslay_frame_callbacks callbacks = {
        .send_callback = ws_on_frame_send,
        .recv_callback = ws_on_frame_recv,
        .genmask_callback = ws_on_mask,
    };
    if (ws->frames == NULL)
        ASSERT(wslay_frame_context_init(&ws->frames, &callbacks, ws) == 0);
}

static void ws_drop_frames(struct ws *ws)
{
    if (ws->frames != NULL)
        wslay_frame_context_free(ws->frames);
    ws->frames = NULL;
}

/* --- calls into the endpoint ------------------------------------------------------------------ */

static void ws_release(struct ws *ws)
{
    ws_drop_frames(ws);
    buf_done(&ws->out);
    buf_done(&ws->message);
    buf_done(&ws->control);
    free(ws);
}

static bool ws_is_done(const struct ws *ws)
{
    return ws->over || ws->freed;
}

/* on_output may send more, which then comes as a further piece, and may free. */
static void ws_flush(struct ws *ws)
{
    while (ws->out.len > 0 && !ws->freed) {
        struct buf piece = ws->out;
        buf_init(&ws->out, SIZE_MAX);
        ws->events->on_output(ws, buf_slice(&piece));
        buf_done(&piece);
    }
}

static void ws_enter(struct ws *ws)
{
    ASSERT(!ws->freed);
    ws->depth++;
    ws_need_frames(ws);
}

/* May be the end of ws. */
static void ws_leave(struct ws *ws)
{
    if (ws->depth == 1)
        ws_flush(ws);
    if (--ws->depth > 0)
        return;
    if (ws->freed)
        ws_release(ws);
    else if (!ws->in_frame && ws->held == 0)
        ws_drop_frames(ws);
}

/* --- sending --------------------------------------------------------------------------------- */

/* Everything has its place in `out` at once, so nothing overtakes anything. After the close frame
 * there is nothing to say any more. */
static void ws_send_part(struct ws *ws, unsigned opcode, struct slice payload, bool last)
{
    if (ws->close_sent || ws_is_done(ws))
        return;
    struct wslay_frame_iocb frame = {
        .fin = last,
        .opcode = (uint8_t)opcode,
        .payload_length = payload.len,
        .mask = ws->options.role == WS_CLIENT,
        .data = (const uint8_t *)payload.ptr,
        .data_length = payload.len,
    };
    ASSERT(buf_reserve(&ws->out, payload.len + WS_FRAME_HEAD_MAX) == ERR_OK);
    ASSERT(wslay_frame_send(ws->frames, &frame) == (ssize_t)payload.len);
    ws->close_sent = opcode == WSLAY_CONNECTION_CLOSE;
}

static void ws_send_frame(struct ws *ws, unsigned opcode, struct slice payload)
{
    ws_send_part(ws, opcode, payload, true);
}

static void ws_send_close(struct ws *ws, unsigned code, struct slice reason)
{
    char payload[WS_CONTROL_MAX];
    ASSERT(reason.len <= sizeof(payload) - 2);
    if (code == WS_NO_CODE) {
        ws_send_frame(ws, WSLAY_CONNECTION_CLOSE, SLICE_EMPTY);
        return;
    }
    payload[0] = (char)(code >> 8);
    payload[1] = (char)(code & 0xff);
    memcpy(payload + 2, reason.ptr, reason.len);
    ws_send_frame(ws, WSLAY_CONNECTION_CLOSE, (struct slice){payload, reason.len + 2});
}

/* --- receiving ------------------------------------------------------------------------------- */

static void ws_end(struct ws *ws, unsigned code, struct slice reason)
{
    ws_flush(ws);
    if (ws_is_done(ws))
        return;
    ws->over = true;
    ws->events->on_close(ws, code, reason);
}

/* `why` is for both sides to read. */
static void ws_fail(struct ws *ws, unsigned code, const char *why)
{
    ws_send_close(ws, code, slice_of(why));
    ws_end(ws, code, slice_of(why));
}

static bool is_control(unsigned opcode)
{
    return (opcode & 8) != 0;
}

static bool is_close_code(unsigned code)
{
    return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code <= 4999);
}

static void ws_on_close_frame(struct ws *ws)
{
    struct slice payload = buf_slice(&ws->control);
    unsigned code = WS_NO_CODE;
    struct slice reason = SLICE_EMPTY;
    if (payload.len == 1) {
        ws_fail(ws, WS_PROTOCOL_ERROR, "close frame with half a code");
        return;
    }
    if (payload.len >= 2) {
        code = (unsigned)(unsigned char)payload.ptr[0] << 8 | (unsigned char)payload.ptr[1];
        reason = (struct slice){payload.ptr + 2, payload.len - 2};
        if (!is_close_code(code)) {
            ws_fail(ws, WS_PROTOCOL_ERROR, "no such close code");
            return;
        }
        if (utf8_span(reason) < reason.len) {
            ws_fail(ws, WS_BAD_TEXT, "close reason is not UTF-8");
            return;
        }
    }
    ws_send_close(ws, code, SLICE_EMPTY);
    ws_end(ws, code, reason);
}

static void ws_on_control(struct ws *ws)
{
    switch (ws->opcode) {
    case WSLAY_PING: ws_send_frame(ws, WSLAY_PONG, buf_slice(&ws->control)); break;
    case WSLAY_PONG:
        if (ws->events->on_pong != NULL)
            ws->events->on_pong(ws);
        break;
    default: ws_on_close_frame(ws);
    }
}

/* One large message does not cost its size for ever, nor an idle peer others their room. */
static void ws_reset_message(struct ws *ws)
{
    if (ws->message.cap > WS_KEEP_MAX || ws->message.budget != NULL)
        buf_done(&ws->message);
    else
        buf_reset(&ws->message);
}

static void ws_on_message(struct ws *ws)
{
    ws->in_message = false;
    if (ws->skipping) {
        if (ws->message_is_text && ws->events->on_skipped != NULL)
            ws->events->on_skipped(ws);
        return;
    }
    struct slice all = buf_slice(&ws->message);
    if (!ws->message_is_text)
        ws->events->on_binary(ws, all);
    else if (ws->text_checked == all.len)
        ws->events->on_text(ws, all);
    else
        ws_fail(ws, WS_BAD_TEXT, "text ends within a character");
    ws_reset_message(ws);
}

/* False: the conversation is over. */
static bool ws_start_data(struct ws *ws, uint64_t length)
{
    if ((ws->opcode == WSLAY_CONTINUATION_FRAME) != ws->in_message) {
        ws_fail(ws, WS_PROTOCOL_ERROR,
                ws->in_message ? "message inside a message" : "continuation of nothing");
        return false;
    }
    if (!ws->in_message) {
        ws->in_message = true;
        ws->message_is_text = ws->opcode == WSLAY_TEXT_FRAME;
        ws->skipping = false;
        ws->message_frames = 0;
        ws->text_checked = 0;
    }
    if (++ws->message_frames > ws->options.frames_max) {
        ws_fail(ws, WS_POLICY, "message of too many frames");
        return false;
    }
    if (ws->skipping || length <= ws->options.message_max - ws->message.len)
        return true;
    if (!ws->options.skip_oversize) {
        ws_fail(ws, WS_TOO_BIG, "message too big");
        return false;
    }
    ws->skipping = true;
    ws_reset_message(ws);
    return true;
}

/* Lengths have one form each: wslay refuses the others. */
static size_t ws_head_len(const struct wslay_frame_iocb *frame)
{
    size_t length_bytes = frame->payload_length > UINT16_MAX ? 8
                          : frame->payload_length > 125      ? 2
                                                             : 0;
    return 2 + length_bytes + (frame->mask != 0 ? 4 : 0);
}

static bool ws_start_frame(struct ws *ws, const struct wslay_frame_iocb *frame)
{
    bool masked = frame->mask != 0;
    size_t head_len = ws_head_len(frame);
    ASSERT(head_len + frame->data_length <= ws->held);
    ws->held -= head_len;
    ws->in_frame = true;
    ws->opcode = frame->opcode;
    ws->frame_fin = frame->fin != 0;
    ws->frame_left = frame->payload_length;
    buf_done(&ws->control);
    if (frame->rsv != 0) {
        ws_fail(ws, WS_PROTOCOL_ERROR, "reserved bits are set");
        return false;
    }
    if (masked != (ws->options.role == WS_SERVER)) {
        ws_fail(ws, WS_PROTOCOL_ERROR, masked ? "masked by a server" : "not masked");
        return false;
    }
    switch (frame->opcode) {
    case WSLAY_CONTINUATION_FRAME:
    case WSLAY_TEXT_FRAME:
    case WSLAY_BINARY_FRAME: return ws_start_data(ws, frame->payload_length);
    case WSLAY_CONNECTION_CLOSE:
    case WSLAY_PING:
    case WSLAY_PONG: return true;
    default: ws_fail(ws, WS_PROTOCOL_ERROR, "unknown opcode"); return false;
    }
}

/* What is wrong is wrong at once, wherever the message will end. */
static void ws_check_text(struct ws *ws)
{
    struct slice rest = {ws->message.ptr + ws->text_checked, ws->message.len - ws->text_checked};
    size_t span = utf8_span(rest);
    ws->text_checked += span;
    if (span < rest.len && !utf8_is_begun((struct slice){rest.ptr + span, rest.len - span}))
        ws_fail(ws, WS_BAD_TEXT, "text is not UTF-8");
}

/* Memory follows the bytes that have come, not those that were announced. */
static void ws_take_part(struct ws *ws, struct slice part)
{
    ws->frame_left -= part.len;
    ws->held -= part.len;
    if (is_control(ws->opcode)) {
        buf_add(&ws->control, part);
    } else if (!ws->skipping) {
        enum err_code code = buf_append(&ws->message, part);
        if (code == ERR_BUSY)
            ws_fail(ws, WS_TRY_LATER, "too many messages at the moment");
        else if (code != ERR_OK)
            ws_fail(ws, WS_TOO_BIG, "message too big"); /* no memory for it */
        else if (ws->message_is_text)
            ws_check_text(ws);
    }
}

/* Part of one frame; false when there is no more to be had. */
static bool ws_step(struct ws *ws)
{
    struct wslay_frame_iocb frame = {.fin = 0};
    ssize_t got = wslay_frame_recv(ws->frames, &frame);
    if (got == WSLAY_ERR_WANT_READ)
        return false;
    if (got < 0) {
        ws_fail(ws, WS_PROTOCOL_ERROR, "malformed frame");
        return false;
    }
    if (!ws->in_frame && !ws_start_frame(ws, &frame))
        return false;
    ws_take_part(ws, (struct slice){(const char *)frame.data, frame.data_length});
    if (ws_is_done(ws) || ws->frame_left > 0)
        return true;
    ws->in_frame = false;
    if (is_control(ws->opcode)) {
        ws_on_control(ws);
        buf_done(&ws->control);
    } else if (ws->frame_fin)
        ws_on_message(ws);
    return true;
}

/* --- public ---------------------------------------------------------------------------------- */

struct ws *ws_new(const struct ws_options *options, const struct ws_events *events, void *owner)
{
    struct ws *ws = xcalloc(1, sizeof(*ws));
    ws->options = *options;
    ws->events = events;
    ws->owner = owner;
    buf_init(&ws->out, SIZE_MAX);
    buf_init(&ws->control, WS_CONTROL_MAX);
    buf_init_within(&ws->message, options->message_max, options->budget);
    return ws;
}

void ws_free(struct ws *ws)
{
    if (ws == NULL)
        return;
    ASSERT(!ws->freed);
    ws->freed = true;
    if (ws->depth == 0)
        ws_release(ws);
}

void *ws_owner(const struct ws *ws)
{
    return ws->owner;
}

void ws_feed(struct ws *ws, struct slice bytes)
{
    ASSERT(!ws->feeding);
    ws_enter(ws);
    ws->feeding = true;
    ws->in = bytes;
    while (!ws_is_done(ws) && ws_step(ws))
        ;
    ws->in = SLICE_EMPTY;
    ws->feeding = false;
    ws_leave(ws);
}

static void ws_send(struct ws *ws, unsigned opcode, struct slice payload)
{
    ASSERT(!ws->sending_parts || (opcode & 8) != 0);
    ws_enter(ws);
    ws_send_frame(ws, opcode, payload);
    ws_leave(ws);
}

void ws_send_text(struct ws *ws, struct slice text)
{
    ws_send(ws, WSLAY_TEXT_FRAME, text);
}

void ws_send_binary(struct ws *ws, struct slice bytes)
{
    ws_send(ws, WSLAY_BINARY_FRAME, bytes);
}

void ws_send_text_part(struct ws *ws, struct slice part, bool first, bool last)
{
    ASSERT(first != ws->sending_parts);
    ws->sending_parts = !last;
    ws_enter(ws);
    ws_send_part(ws, first ? WSLAY_TEXT_FRAME : WSLAY_CONTINUATION_FRAME, part, last);
    ws_leave(ws);
}

void ws_send_ping(struct ws *ws)
{
    ws_send(ws, WSLAY_PING, SLICE_EMPTY);
}

void ws_close(struct ws *ws, unsigned code, struct slice reason)
{
    ASSERT(code == WS_NO_CODE || is_close_code(code));
    ws_enter(ws);
    ws_send_close(ws, code, reason);
    ws_leave(ws);
}
