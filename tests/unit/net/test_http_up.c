/* One call of the plain-HTTP client: what it sends, what it makes of good and bad answers, and both
 * directions of streaming. */
#include "http_up_fixture.h"
#include "unit.h"

#include <stdio.h>
#include <unistd.h>

/* --- requests -------------------------------------------------------------------------------- */

static void test_get(void **state)
{
    (void)state;
    char expected[128];
    fixture_open_one(serve);
    struct watched_call *one = call_get(0);
    call_check_body(one, 200, "hello");
    assert_int_equal(one->length, 5);
    assert_string_equal(one->type, "text/plain");
    assert_true(one->call.sent);
    assert_null(one->call.driver);
    (void)snprintf(expected, sizeof(expected), "GET /x HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n\r\n",
                   fix.peer.port);
    assert_string_equal(fixture_received(0), expected);
    fixture_close();
}

static void test_headers(void **state)
{
    (void)state;
    struct http_headers headers;
    http_headers_init(&headers);
    assert_int_equal(http_headers_add(&headers, SLICE("X-A"), SLICE("b c")), ERR_OK);
    assert_int_equal(http_headers_add(&headers, SLICE("content-length"), SLICE("7")), ERR_OK);
    assert_int_equal(http_headers_add(&headers, SLICE("Connection"), SLICE("close, x-a")), ERR_OK);
    assert_int_equal(http_headers_add(&headers, SLICE("Expect"), SLICE("100-continue")), ERR_OK);
    assert_int_equal(http_headers_add(&headers, SLICE("HOST"), SLICE("else.where")), ERR_OK);
    fixture_open_one(serve);
    struct watched_call *one = call_prepare(0, "POST", "/x");
    one->call.headers = &headers;
    call_start(one);
    call_check_body(one, 200, "hello");
    assert_string_equal(fixture_received(0), "POST /x HTTP/1.1\r\nX-A: b c\r\nHOST: else.where\r\n"
                                             "Content-Length: 0\r\n\r\n");
    http_headers_done(&headers);
    fixture_close();
}

static void test_bad_target(void **state)
{
    (void)state;
    static const char *const targets[] = {"", "x", "/a b", "/a\r\nX:y", "/a\x7f"};
    fixture_open_one(serve);
    for (unsigned i = 0; i < ARRAY_LEN(targets); i++) {
        struct watched_call *one = call_prepare(i, "GET", targets[i]);
        call_start(one);
        call_check(one, ERR_INVALID, "target");
        assert_false(one->call.sent);
    }
    fixture_close();
}

static void test_content(void **state)
{
    (void)state;
    static char large[3 * 1024 * 1024];
    static const struct peer_step script[] = {DOES(PEER_STOP),    WAITS(20),    DOES(PEER_READ),
                                              EXPECTS("the end"), SENDS(HELLO), DOES(PEER_AGAIN)};
    memset(large, 'x', sizeof(large));
    memcpy(large + sizeof(large) - 7, "the end", 7);
    fixture_open_one(script);
    struct watched_call *small = call_prepare(0, "POST", "/x");
    small->call.content = SLICE("all to the end");
    call_start(small);
    call_check_body(small, 200, "hello");
    assert_non_null(strstr(fixture_received(0), "\r\nContent-Length: 14\r\n\r\nall to the end"));
    struct watched_call *much = call_prepare(1, "PUT", "/x");
    much->call.content = (struct slice){large, sizeof(large)};
    call_start(much);
    call_check_body(much, 200, "hello");
    assert_int_equal(fix.peer.accepted, 1);
    const char *second = strstr(fixture_received(0), "PUT /x");
    size_t head = (size_t)(strstr(second, "\r\n\r\n") + 4 - fixture_received(0));
    assert_int_equal(fix.peer.conns[0].in.len - head, sizeof(large));
    fixture_close();
}

/* --- streamed content ------------------------------------------------------------------------ */

static void test_chunked_content(void **state)
{
    (void)state;
    static const char *const pieces[] = {"abc", "-", "defghijklmnopqrstuv", NULL};
    static const struct peer_step script[] = {EXPECTS("\r\n0\r\n\r\n"), SENDS(HELLO), REQUEST,
                                              SENDS(HELLO), DOES(PEER_SILENT)};
    fixture_open_one(script);
    struct watched_call *one = call_prepare(0, "POST", "/x");
    one->pieces = pieces;
    one->call.read_content = call_read_content;
    one->call.content_length = -1;
    call_start(one);
    loop_run_for(&fix.loop, 20);
    assert_false(one->ended);
    assert_non_null(strstr(fixture_received(0), "abc\r\n"));
    fix.inside = true;
    http_up_more(&one->call);
    fix.inside = false;
    call_check_body(one, 200, "hello");
    assert_non_null(strstr(fixture_received(0), "\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
                                                "13\r\ndefghijklmnopqrstuv\r\n0\r\n\r\n"));
    assert_null(strstr(fixture_received(0), "Content-Length"));
    call_check_body(call_get(1), 200, "hello"); /* its connection goes on */
    assert_int_equal(fix.peer.accepted, 1);
    fixture_close();
}

static void test_declared_content(void **state)
{
    (void)state;
    static const char *const pieces[] = {"abc", "defgh", "ij", NULL};
    static const char *const broken[] = {"abc", "!", NULL};
    static const struct peer_step script[] = {EXPECTS("defgh"), SENDS(HELLO), DOES(PEER_AGAIN)};
    static const struct peer_step empty[] = {REQUEST, SENDS(HELLO), DOES(PEER_SILENT)};
    static const struct peer_step *const scripts[] = {script, silent, silent, silent, empty};
    fixture_open(scripts, 5);
    call_check_body(call_start_stream(0, pieces, 8), 200, "hello"); /* more is not asked for */
    assert_non_null(strstr(fixture_received(0), "\r\nContent-Length: 8\r\n\r\nabcdefgh"));
    http_up_forget(fix.up);
    call_check(call_start_stream(1, pieces, 11), ERR_INVALID, "shorter");
    call_check(call_start_stream(2, broken, 8), ERR_CANCELLED, "broken off");
    call_check(call_start_stream(3, pieces, 7), ERR_INVALID, "longer");
    call_check_body(call_start_stream(4, pieces, 0), 200, "hello");
    fixture_close();
}

/* A server may refuse an upload in the middle of it. */
static void test_early_answer(void **state)
{
    (void)state;
    static const char *const pieces[] = {"abc", "-", NULL};
    static char large[32 * 1024 * 1024]; /* more than the kernel's buffers take */
    static const struct peer_step refuse[] = {
        REQUEST, DOES(PEER_STOP), SENDS("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno."),
        DOES(PEER_SILENT)};
    static const struct peer_step *const scripts[] = {refuse, refuse, serve};
    fixture_open(scripts, 3);
    struct watched_call *one = call_start_stream(0, pieces, 100);
    call_check_body(one, 413, "no.");
    struct watched_call *much = call_prepare(1, "POST", "/x");
    much->call.content = (struct slice){large, sizeof(large)};
    call_start(much);
    call_check_body(much, 413, "no.");
    call_check_body(call_get(2), 200, "hello"); /* not on those connections */
    assert_int_equal(fix.peer.accepted, 3);
    fixture_close();
}

/* --- answers --------------------------------------------------------------------------------- */

static void check_answer(const struct peer_step *script, int status, const char *body)
{
    fixture_open_one(script);
    call_check_body(call_get(0), status, body);
    fixture_close();
    fixture_open_one(script); /* and in parts */
    struct watched_call *one = call_prepare_stream(1);
    call_start(one);
    call_check_body(one, status, body);
    fixture_close();
}

static void test_answers(void **state)
{
    (void)state;
    static const struct peer_step dribbled[] = {
        REQUEST,
        DRIBBLES(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
        DOES(PEER_SILENT)};
    static const struct peer_step until_close[] = {REQUEST, SENDS(OK_HEAD "\r\nabc"), WAITS(5),
                                                   SENDS("de"), DOES(PEER_CLOSE)};
    static const struct peer_step interim[] = {
        REQUEST,
        SENDS("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" HELLO),
        DOES(PEER_SILENT)};
    static const struct peer_step none[] = {REQUEST, SENDS("HTTP/1.1 204 No Content\r\n\r\n"),
                                            DOES(PEER_SILENT)};
    static const struct peer_step unasked[] = {SENDS(HELLO), DOES(PEER_SILENT)};
    check_answer(dribbled, 200, "abcde");
    check_answer(until_close, 200, "abcde");
    check_answer(interim, 200, "hello");
    check_answer(none, 204, "");
    check_answer(unasked, 200, "hello");
}

static void test_head(void **state)
{
    (void)state;
    static const struct peer_step script[] = {
        REQUEST, SENDS(OK_HEAD "Content-Length: 500000\r\n\r\n"), DOES(PEER_AGAIN)};
    fixture_open_one(script);
    for (unsigned i = 0; i < 2; i++) {
        struct watched_call *one = call_prepare(i, "HEAD", "/x");
        call_start(one);
        call_check_body(one, 200, "");
        assert_int_equal(one->length, 500000);
    }
    assert_int_equal(fix.peer.accepted, 1);
    fixture_close();
}

static void check_fault(const struct peer_step *script, enum err_code code, const char *text)
{
    fixture_open_one(script);
    call_check(call_get(0), code, text);
    fixture_close();
    fixture_open_one(script);
    struct watched_call *one = call_prepare_stream(1);
    call_start(one);
    call_check(one, code, text);
    fixture_close();
}

static void test_bad_answers(void **state)
{
    (void)state;
    static const struct peer_step no_http[] = {REQUEST, SENDS("SSH-2.0-x\r\n\r\n"),
                                               DOES(PEER_SILENT)};
    static const struct peer_step upgrade[] = {
        REQUEST,
        SENDS("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        DOES(PEER_SILENT)};
    static const struct peer_step cut[] = {
        REQUEST, SENDS(OK_HEAD "Content-Length: 10\r\n\r\nhello"), DOES(PEER_CLOSE)};
    static const struct peer_step cut_chunk[] = {
        REQUEST, SENDS(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"), DOES(PEER_CLOSE)};
    static const struct peer_step reset[] = {REQUEST, SENDS(OK_HEAD "\r\nabc"), WAITS(5),
                                             DOES(PEER_RESET)};
    static const struct peer_step cut_head[] = {REQUEST, SENDS("HTTP/1.1 20"), DOES(PEER_SHUT),
                                                DOES(PEER_SILENT)};
    static const struct peer_step gone[] = {REQUEST, DOES(PEER_CLOSE)};
    check_fault(no_http, ERR_PROTOCOL, "");
    check_fault(upgrade, ERR_PROTOCOL, "upgrade");
    check_fault(cut, ERR_CLOSED, "in the middle");
    check_fault(cut_chunk, ERR_CLOSED, "in the middle");
    check_fault(reset, ERR_CLOSED, "in the middle"); /* not the end of an until-close body */
    check_fault(cut_head, ERR_CLOSED, "in the middle");
    check_fault(gone, ERR_CLOSED, "before an answer");
}

static void test_body_max(void **state)
{
    (void)state;
    static const struct peer_step declared[] = {REQUEST, SENDS(OK_HEAD "Content-Length: 6\r\n\r\n"),
                                                DOES(PEER_SILENT)};
    static const struct peer_step chunked[] = {
        REQUEST, SENDS(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n"),
        DOES(PEER_SILENT)};
    static const struct peer_step *const scripts[] = {declared, chunked, serve};
    fixture_open(scripts, 3);
    for (unsigned i = 0; i < 3; i++) {
        struct watched_call *one = call_prepare(i, "GET", "/x");
        one->call.body_max = 5;
        call_start(one);
        if (i < 2)
            call_check(one, ERR_TOO_LARGE, "answer of");
        else
            call_check_body(one, 200, "hello");
    }
    fixture_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_bad_target),
        cmocka_unit_test(test_content),
        cmocka_unit_test(test_chunked_content),
        cmocka_unit_test(test_declared_content),
        cmocka_unit_test(test_early_answer),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_bad_answers),
        cmocka_unit_test(test_body_max),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
