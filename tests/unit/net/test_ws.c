/* The WebSocket endpoint: both roles talking to each other, and raw frames of bad peers, given
 * whole and byte by byte with the same result. */
#include "unit.h"
#include "ws.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IS_ASAN 1
#include <sanitizer/allocator_interface.h>
#endif
#endif
#ifndef IS_ASAN
#define IS_ASAN 0
#endif

/* --- one side, writing down what it is told --------------------------------------------------- */

struct side {
    struct ws *ws;
    struct buf told;
    struct buf out; /* not yet taken to the other side */
    unsigned outputs;
    void (*inside)(struct side *side); /* called in each on_text */
    bool free_inside;
};

static void free_if_wanted(struct side *side)
{
    if (!side->free_inside)
        return;
    ws_free(side->ws);
    side->ws = NULL;
}

static void on_text(struct ws *ws, struct slice text)
{
    struct side *side = ws_owner(ws);
    if (text.len > 100)
        buf_addf(&side->told, "text#%zu ", text.len);
    else
        buf_addf(&side->told, "text:%.*s ", SLICE_ARGS(text));
    if (side->inside != NULL)
        side->inside(side);
    free_if_wanted(side);
}

static void on_binary(struct ws *ws, struct slice bytes)
{
    struct side *side = ws_owner(ws);
    buf_addf(&side->told, "binary#%zu ", bytes.len);
    free_if_wanted(side);
}

static void on_skipped(struct ws *ws)
{
    struct side *side = ws_owner(ws);
    buf_addf(&side->told, "skipped ");
    free_if_wanted(side);
}

static void on_pong(struct ws *ws)
{
    struct side *side = ws_owner(ws);
    buf_addf(&side->told, "pong ");
    free_if_wanted(side);
}

static void on_output(struct ws *ws, struct slice bytes)
{
    struct side *side = ws_owner(ws);
    buf_add(&side->out, bytes);
    side->outputs++;
    free_if_wanted(side);
}

static void on_close(struct ws *ws, unsigned code, struct slice reason)
{
    struct side *side = ws_owner(ws);
    buf_addf(&side->told, "close:%u:%.*s ", code, SLICE_ARGS(reason));
    free_if_wanted(side);
}

static const struct ws_events events = {on_text, on_binary, on_skipped,
                                        on_pong, on_output, on_close};

static void side_open(struct side *side, enum ws_role role, bool skip)
{
    struct ws_options options = {
        .role = role, .message_max = 1000, .skip_oversize = skip, .frames_max = 4};
    *side = (struct side){.ws = NULL};
    buf_init(&side->told, SIZE_MAX);
    buf_init(&side->out, SIZE_MAX);
    side->ws = ws_new(&options, &events, side);
}

static void side_done(struct side *side)
{
    ws_free(side->ws);
    buf_done(&side->told);
    buf_done(&side->out);
}

static const char *told(struct side *side)
{
    return side->told.ptr != NULL ? side->told.ptr : "";
}

/* What one has said goes to the other until nobody has anything to say. */
static void talk(struct side *a, struct side *b)
{
    while (a->out.len > 0 || b->out.len > 0) {
        struct side *from = a->out.len > 0 ? a : b, *to = from == a ? b : a;
        struct buf bytes = from->out;
        buf_init(&from->out, SIZE_MAX);
        ws_feed(to->ws, buf_slice(&bytes));
        buf_done(&bytes);
    }
}

static void feed(struct side *side, struct slice bytes, size_t piece)
{
    while (bytes.len > 0 && side->ws != NULL) {
        size_t n = bytes.len < piece ? bytes.len : piece;
        char *copy = malloc(n); /* so that reading past a piece is seen */
        memcpy(copy, bytes.ptr, n);
        ws_feed(side->ws, (struct slice){copy, n});
        free(copy);
        bytes.ptr += n;
        bytes.len -= n;
    }
}

/* A client is fed frames of a bad or good server; what is told is the same whatever the pieces. */
static void check_frames(struct slice frames, bool skip, const char *expected)
{
    static const size_t pieces[] = {SIZE_MAX, 1, 2, 3, 7};
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        struct side side;
        side_open(&side, WS_CLIENT, skip);
        feed(&side, frames, pieces[i]);
        assert_string_equal(told(&side), expected);
        side_done(&side);
    }
}

/* --- conversations --------------------------------------------------------------------------- */

static void test_both_roles(void **state)
{
    (void)state;
    struct side client, server;
    char large[1000];
    memset(large, 'x', sizeof(large));
    side_open(&client, WS_CLIENT, false);
    side_open(&server, WS_SERVER, false);
    ws_send_text(client.ws, SLICE("hällo"));
    ws_send_text(client.ws, SLICE(""));
    ws_send_binary(client.ws, (struct slice){large, sizeof(large)});
    ws_send_ping(client.ws);
    ws_send_text(server.ws, (struct slice){large, sizeof(large)});
    ws_send_ping(server.ws);
    talk(&client, &server);
    assert_string_equal(told(&server), "text:hällo text: binary#1000 pong ");
    assert_string_equal(told(&client), "text#1000 pong ");
    ws_close(client.ws, 1000, SLICE("bye"));
    talk(&client, &server);
    assert_string_equal(told(&server), "text:hällo text: binary#1000 pong close:1000:bye ");
    assert_string_equal(told(&client), "text#1000 pong close:1000: ");
    ws_send_text(client.ws, SLICE("too late"));
    ws_close(server.ws, 1000, SLICE_EMPTY);
    assert_int_equal(client.out.len + server.out.len, 0);
    side_done(&client);
    side_done(&server);
}

/* What was said before the close frame arrives before it, and the peer may go on until it answers.
 */
static void test_close_comes_last(void **state)
{
    (void)state;
    struct side client, server;
    side_open(&client, WS_CLIENT, false);
    side_open(&server, WS_SERVER, false);
    ws_send_text(server.ws, SLICE("result"));
    ws_send_ping(server.ws);
    ws_close(server.ws, 1001, SLICE_EMPTY);
    ws_send_text(client.ws, SLICE("crossed"));
    talk(&client, &server);
    assert_string_equal(told(&client), "text:result close:1001: ");
    assert_string_equal(told(&server), "text:crossed pong close:1001: ");
    side_done(&client);
    side_done(&server);
}

static void answer_twice(struct side *side)
{
    ws_send_text(side->ws, SLICE("one"));
    ws_send_text(side->ws, SLICE("two"));
}

static void test_sending_inside(void **state)
{
    (void)state;
    struct side client, server;
    side_open(&client, WS_CLIENT, false);
    side_open(&server, WS_SERVER, false);
    server.inside = answer_twice;
    ws_send_text(client.ws, SLICE("a"));
    ws_send_ping(client.ws);
    talk(&client, &server);
    assert_string_equal(told(&client), "text:one text:two pong ");
    assert_int_equal(server.outputs, 1); /* one piece, so one write */
    side_done(&client);
    side_done(&server);
}

static void test_masks_differ(void **state)
{
    (void)state;
    struct side client;
    char first[4];
    side_open(&client, WS_CLIENT, false);
    ws_send_ping(client.ws);
    memcpy(first, client.out.ptr + 2, 4);
    ws_send_ping(client.ws);
    assert_int_equal(client.out.len, 12);
    assert_int_equal(client.out.ptr[1] & 0x80, 0x80);
    assert_memory_not_equal(first, client.out.ptr + 8, 4);
    side_done(&client);
}

static void test_free_inside(void **state)
{
    (void)state;
    const struct slice frames[] = {
        {"\x81\x01"
         "a\x81\x01"
         "b",
         6},
        {"\x82\x01"
         "a\x89\x00",
         5},
        {"\x8a\x00\x8a\x00", 4},
        {"\x88\x00\x81\x01"
         "a",
         5},
        {"\x89\x00\x81\x01"
         "a",
         5}, /* frees in on_output or in on_text, as the pieces fall */
        {"\xff\x00", 2},
    };
    for (size_t i = 0; i < ARRAY_LEN(frames); i++)
        for (size_t piece = 1; piece < 8; piece++) {
            struct side side;
            side_open(&side, WS_CLIENT, false);
            side.free_inside = true;
            feed(&side, frames[i], piece);
            assert_null(side.ws);
            side_done(&side);
        }
}

/* --- frames ---------------------------------------------------------------------------------- */

#define FRAMES(literal) ((struct slice){(literal), sizeof(literal) - 1})

static void test_good_frames(void **state)
{
    (void)state;
    check_frames(FRAMES("\x81\x02hi\x82\x00\x8a\x03xyz"), false, "text:hi binary#0 pong ");
    check_frames(FRAMES("\x01\x02he\x89\x01p\x00\x01l\x80\x02lo\x81\x01!"), false,
                 "text:hello text:! ");
    check_frames(FRAMES("\x01\x01\xc3\x80\x01\xa4"), false,
                 "text:\xc3\xa4 "); /* cut in the letter */
    check_frames(
        FRAMES("\x81\x07\xed\x9f\xbf\xf0\x90\x80\x80"), false,
        "text:\xed\x9f\xbf\xf0\x90\x80\x80 "); /* followed by low ones, by high ones only */
    check_frames(FRAMES("\x88\x00\x81\x01x"), false, "close:1005: ");
    check_frames(FRAMES("\x88\x05\x03\xe8\xe2\x82\xac"), false, "close:1000:\xe2\x82\xac ");
    check_frames(FRAMES("\x88\x02\x0f\xa0"), false, "close:4000: ");
}

static void test_bad_frames(void **state)
{
    (void)state;
    const struct {
        struct slice frames;
        const char *told;
    } cases[] = {
        {FRAMES("\xc1\x01x"), "close:1002:reserved bits are set "},
        {FRAMES("\x83\x01x"), "close:1002:unknown opcode "},
        {FRAMES("\x8b\x01x"), "close:1002:unknown opcode "},
        {FRAMES("\x81\x81zzzzx"), "close:1002:masked by a server "},
        {FRAMES("\x80\x01x"), "close:1002:continuation of nothing "},
        {FRAMES("\x01\x01x\x81\x01y"), "close:1002:message inside a message "},
        {FRAMES("\x09\x00"), "close:1002:malformed frame "},
        {FRAMES("\x89\x7e\x00\x7e"), "close:1002:malformed frame "},
        {FRAMES("\x81\x7e\x00\x7d"), "close:1002:malformed frame "},
        {FRAMES("\x81\x7f\x80\x00\x00\x00\x00\x00\x00\x00"), "close:1002:malformed frame "},
        {FRAMES("\x81\x01\xff"), "close:1007:text is not UTF-8 "},
        {FRAMES("\x01\x01\xc3\x80\x01x"), "close:1007:text is not UTF-8 "},
        {FRAMES("\x81\x03\xed\xa0\x80"), "close:1007:text is not UTF-8 "},
        {FRAMES("\x81\x02\xe2\x82"), "close:1007:text ends within a character "},
        /* … before the message has come to its end */
        {FRAMES("\x81\x05\xf4\x90"), "close:1007:text is not UTF-8 "},
        {FRAMES("\x81\x05z\xc1"), "close:1007:text is not UTF-8 "},
        {FRAMES("\x01\x01\xe0\x00\x01\x9f"), "close:1007:text is not UTF-8 "},
        {FRAMES("\x88\x01\x03"), "close:1002:close frame with half a code "},
        {FRAMES("\x88\x02\x03\xed"), "close:1002:no such close code "},
        {FRAMES("\x88\x02\x00\x00"), "close:1002:no such close code "},
        {FRAMES("\x88\x03\x03\xe8\xff"), "close:1007:close reason is not UTF-8 "},
        {FRAMES("\x01\x00\x00\x00\x00\x00\x00\x00\x80\x00"),
         "close:1008:message of too many frames "},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        check_frames(cases[i].frames, true, cases[i].told);
}

/* The server role, seen from a client that breaks its rule: the close frame is there and says why.
 */
static void test_server_refuses(void **state)
{
    (void)state;
    struct side server;
    side_open(&server, WS_SERVER, false);
    feed(&server, FRAMES("\x81\x01x"), SIZE_MAX);
    assert_string_equal(told(&server), "close:1002:not masked ");
    assert_memory_equal(server.out.ptr, "\x88\x0c\x03\xeanot masked", 14);
    assert_int_equal(server.out.len, 14);
    feed(&server, FRAMES("\x81\x81zzzzx"), SIZE_MAX); /* nothing further */
    assert_string_equal(told(&server), "close:1002:not masked ");
    side_done(&server);
}

/* --- bounds ---------------------------------------------------------------------------------- */

static void add_frame(struct buf *out, int first, size_t len)
{
    char head[4] = {(char)first, 126, (char)(len >> 8), (char)(len & 0xff)};
    buf_add(out, (struct slice){head, sizeof(head)});
    for (size_t i = 0; i < len; i++)
        buf_add(out, SLICE("x"));
}

static void test_oversize(void **state)
{
    (void)state;
    struct buf frames;
    buf_init(&frames, SIZE_MAX);
    add_frame(&frames, 0x81, 1000); /* just fits */
    add_frame(&frames, 0x81, 1001);
    add_frame(&frames, 0x01, 600); /* too large together, and by frames that each fit */
    add_frame(&frames, 0x00, 600);
    add_frame(&frames, 0x80, 600);
    add_frame(&frames, 0x82, 1001); /* no news */
    buf_add(&frames, SLICE("\x82\x01x"));
    check_frames(buf_slice(&frames), true, "text#1000 skipped skipped binary#1 ");
    check_frames(buf_slice(&frames), false, "text#1000 close:1009:message too big ");
    buf_done(&frames);
}

static size_t allocated(void)
{
#if IS_ASAN
    return __sanitizer_get_current_allocated_bytes();
#else
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
#endif
}

/* 15 bytes that announce 1.5 GiB, with a limit above it. */
static void test_announced_length_costs_nothing(void **state)
{
    (void)state;
    struct ws_options options = {.role = WS_CLIENT, .message_max = 1u << 31, .frames_max = 4};
    struct side side;
    side_open(&side, WS_CLIENT, false);
    ws_free(side.ws);
    side.ws = ws_new(&options, &events, &side);
    size_t before = allocated();
    feed(&side, FRAMES("\x82\x7f\x00\x00\x00\x00\x60\x00\x00\x00xxxxx"), SIZE_MAX);
    assert_true(allocated() < before + 1024 * 1024);
    assert_string_equal(told(&side), "");
    side_done(&side);
}

static void test_a_budget_for_all(void **state)
{
    (void)state;
    struct budget budget = {.max = 1500};
    struct ws_options options = {
        .role = WS_CLIENT, .message_max = 1000, .frames_max = 4, .budget = &budget};
    struct side sides[2];
    struct buf frame;
    buf_init(&frame, SIZE_MAX);
    add_frame(&frame, 0x81, 900);
    for (size_t i = 0; i < ARRAY_LEN(sides); i++) {
        side_open(&sides[i], WS_CLIENT, false);
        ws_free(sides[i].ws);
        sides[i].ws = ws_new(&options, &events, &sides[i]);
    }
    feed(&sides[0], (struct slice){frame.ptr, frame.len - 1}, SIZE_MAX);
    feed(&sides[1], buf_slice(&frame), SIZE_MAX);
    assert_string_equal(told(&sides[1]), "close:1013:too many messages at the moment ");
    feed(&sides[0], SLICE("x"), SIZE_MAX);
    assert_string_equal(told(&sides[0]), "text#900 ");
    side_done(&sides[1]);
    assert_int_equal(budget.used, 0); /* nor does who stays keep any of it */
    side_done(&sides[0]);
    buf_done(&frame);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_roles),
        cmocka_unit_test(test_close_comes_last),
        cmocka_unit_test(test_sending_inside),
        cmocka_unit_test(test_masks_differ),
        cmocka_unit_test(test_free_inside),
        cmocka_unit_test(test_good_frames),
        cmocka_unit_test(test_bad_frames),
        cmocka_unit_test(test_server_refuses),
        cmocka_unit_test(test_oversize),
        cmocka_unit_test(test_announced_length_costs_nothing),
        cmocka_unit_test(test_a_budget_for_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
