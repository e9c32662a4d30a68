/* What the guard says of a head does not depend on how it comes: byte by byte it goes the slow way,
 * as a whole most of it is skipped many bytes at once. */
#include "http_guard.h"
#include "http_msg.h"
#include "unit.h"

struct verdict {
    enum http_guard_result result;
    size_t used;
    int status;
};

static struct verdict judge(enum http_guard_kind kind, struct slice head, size_t piece)
{
    struct verdict v = {HTTP_GUARD_MORE, 0, 0};
    struct http_guard g;
    http_guard_init(&g, kind);
    while (v.used < head.len && v.result == HTTP_GUARD_MORE) {
        size_t left = head.len - v.used;
        size_t used = 0;
        struct slice part = {head.ptr + v.used, left < piece ? left : piece};
        v.result = http_guard_feed(&g, part, &used);
        v.used += used;
    }
    v.status = v.result == HTTP_GUARD_BAD ? g.status : 0;
    return v;
}

static void check_same(enum http_guard_kind kind, struct slice head)
{
    struct verdict slow = judge(kind, head, 1);
    for (size_t piece = 7; piece <= head.len; piece = piece < head.len ? head.len : piece + 1) {
        struct verdict fast = judge(kind, head, piece);
        assert_int_equal(fast.result, slow.result);
        assert_int_equal(fast.used, slow.used);
        assert_int_equal(fast.status, slow.status);
    }
}

/* Each byte in each place of it. */
static void check_each_byte(enum http_guard_kind kind, const char *head)
{
    char text[256];
    struct slice whole = {text, strlen(head)};
    memcpy(text, head, whole.len);
    assert_int_equal(judge(kind, whole, whole.len).result, HTTP_GUARD_END);
    for (size_t at = 0; at < whole.len; at++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            text[at] = (char)byte;
            check_same(kind, whole);
        }
        text[at] = head[at];
    }
}

static void a_head_is_judged_alike_in_one_piece_and_in_many(void **state)
{
    (void)state;
    check_each_byte(HTTP_GUARD_REQUEST,
                    "\r\nDELETE /api/tasks/t123456789?x=%20y HTTP/1.1\r\n"
                    "Host: a.example\r\nX-Long-Name_1: some value\tof it\r\n\r\n");
    check_each_byte(HTTP_GUARD_RESPONSE, "HTTP/1.1 404 Not Found, as it were\r\nA: b\r\n\r\n");
    check_each_byte(HTTP_GUARD_TRAILER, "Checksum: 0123456789abcdef\r\n\r\n");
}

/* Where a line is refused: a control character in it, wherever it stands. */
static void control_characters_are_refused_in_the_first_line(void **state)
{
    static const char control[] = "\t\n\x01\x1f\x7f";
    const char *request = "GET /0123456789abcdef HTTP/1.1\r\n\r\n";
    const char *response = "HTTP/1.1 200 0123456789abcdef\r\n\r\n";
    (void)state;
    for (size_t i = 0; i < sizeof(control) - 1; i++)
        for (size_t at = 0; at < 16; at++) {
            char text[64];
            struct slice head = {text, strlen(request)};
            memcpy(text, request, head.len);
            text[5 + at] = control[i];
            assert_int_equal(judge(HTTP_GUARD_REQUEST, head, head.len).status, 400);
            head.len = strlen(response);
            memcpy(text, response, head.len);
            text[13 + at] = control[i];
            enum http_guard_result result = judge(HTTP_GUARD_RESPONSE, head, head.len).result;
            assert_int_equal(result, control[i] == '\t' ? HTTP_GUARD_END : HTTP_GUARD_BAD);
        }
}

static void a_target_is_bounded_in_one_piece_too(void **state)
{
    static char text[HTTP_TARGET_MAX + 64];
    const char *after = " HTTP/1.1\r\n\r\n";
    (void)state;
    for (unsigned more = 0; more < 2; more++) {
        struct slice head = {text, strlen("GET ") + HTTP_TARGET_MAX + more + strlen(after)};
        memset(text, 'a', sizeof(text));
        memcpy(text, "GET ", strlen("GET "));
        memcpy(text + head.len - strlen(after), after, strlen(after));
        assert_int_equal(judge(HTTP_GUARD_REQUEST, head, head.len).status, more == 0 ? 0 : 414);
        check_same(HTTP_GUARD_REQUEST, head);
    }
}

/* Lines that come whole are counted like any others. */
static void headers_are_bounded_in_one_piece_too(void **state)
{
    (void)state;
    for (unsigned more = 0; more < 2; more++) {
        struct buf head;
        buf_init(&head, SIZE_MAX);
        for (unsigned i = 0; i < HTTP_HEADERS_MAX + more; i++)
            buf_adds(&head, "a: b\r\n");
        buf_adds(&head, "\r\n");
        struct verdict v = judge(HTTP_GUARD_TRAILER, buf_slice(&head), head.len);
        assert_int_equal(v.result, more == 0 ? HTTP_GUARD_END : HTTP_GUARD_BAD);
        assert_int_equal(v.status, more == 0 ? 0 : 431);
        check_same(HTTP_GUARD_TRAILER, buf_slice(&head));
        buf_done(&head);
    }
}

/* The bound falls behind the head, into its end, or into its only line. */
static void a_head_is_bounded_in_one_piece_too(void **state)
{
    enum { OVER = 6 };
    static char text[HTTP_HEAD_MAX + OVER];
    (void)state;
    for (unsigned more = 0; more <= OVER; more++) {
        struct slice head = {text, HTTP_HEAD_MAX + more};
        memset(text, 'v', sizeof(text));
        memcpy(text, "a:", 2);
        memcpy(text + head.len - 4, "\r\n\r\n", 4);
        assert_int_equal(judge(HTTP_GUARD_TRAILER, head, head.len).status, more == 0 ? 0 : 431);
        check_same(HTTP_GUARD_TRAILER, head);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_head_is_judged_alike_in_one_piece_and_in_many),
        cmocka_unit_test(control_characters_are_refused_in_the_first_line),
        cmocka_unit_test(a_target_is_bounded_in_one_piece_too),
        cmocka_unit_test(headers_are_bounded_in_one_piece_too),
        cmocka_unit_test(a_head_is_bounded_in_one_piece_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
