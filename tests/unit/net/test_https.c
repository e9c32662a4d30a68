/* One request outside: what is sent, what is made of good and bad answers, bounds and deadlines. */
#include "https_fixture.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#define LOOPBACK "127.0.0.0/8"

/* --- requests -------------------------------------------------------------------------------- */

static void test_get(void **state)
{
    (void)state;
    char expected[256];
    fixture_open(LOOPBACK, serve);
    struct watched_call *one = call_get(0, "127.0.0.1", "/a%20b?c=d");
    call_check_body(one, 200, "hello");
    assert_int_equal(one->call.res_length, 5);
    assert_string_equal(one->call.media_type, "text/plain");
    assert_true(one->call.sent);
    (void)snprintf(expected, sizeof(expected),
                   "GET /a%%20b?c=d HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUser-Agent: test/1\r\n"
                   "Accept: */*\r\n\r\n",
                   fix.peer.port);
    assert_string_equal(fixture_received(0), expected);
    assert_int_equal(fix.asked, 0);
    fixture_close();
}

/* The name means nothing to the system: the connection shows that the checked address was taken. */
static void test_name(void **state)
{
    (void)state;
    char host[64];
    fixture_open(LOOPBACK, serve);
    fix.names[0] = (struct known_name){"images.public.test", "127.0.0.1"};
    call_check_body(call_get(0, "IMAGES.public.test", "/"), 200, "hello");
    (void)snprintf(host, sizeof(host), "Host: IMAGES.public.test:%u\r\n", fix.peer.port);
    assert_non_null(strstr(fixture_received(0), host));
    call_check(call_get(1, "unknown.test", "/"), ERR_NOT_FOUND, "unknown.test");
    fixture_close();
}

static void test_headers(void **state)
{
    (void)state;
    struct http_headers headers;
    http_headers_init(&headers);
    assert_int_equal(http_headers_add(&headers, SLICE("X-One"), SLICE("1; a=\"b\"")), ERR_OK);
    assert_int_equal(http_headers_add(&headers, SLICE("X-Empty"), SLICE("")), ERR_OK);
    assert_int_equal(http_headers_add(&headers, SLICE("Host"), SLICE("evil")), ERR_OK);
    assert_int_equal(http_headers_add(&headers, SLICE("Content-Length"), SLICE("77")), ERR_OK);
    assert_int_equal(http_headers_add(&headers, SLICE("Expect"), SLICE("100-continue")), ERR_OK);
    fixture_open(LOOPBACK, serve);
    struct watched_call *one = call_prepare(0, "GET", "127.0.0.1", "/");
    one->call.headers = &headers;
    call_start(one);
    call_check_body(one, 200, "hello");
    const char *got = fixture_received(0);
    assert_non_null(strstr(got, "\r\nX-One: 1; a=\"b\"\r\n"));
    assert_non_null(strstr(got, "\r\nX-Empty:\r\n"));
    assert_null(strstr(got, "evil"));
    assert_null(strstr(got, "Content-Length"));
    assert_null(strstr(got, "Expect"));
    fixture_close();
    http_headers_done(&headers);
}

/* Over the size from which libcurl would ask for a "100 Continue" and wait. */
static void test_post(void **state)
{
    (void)state;
    enum { SIZE = 2 * 1024 * 1024 };
    static const struct peer_step script[] = {EXPECTS("END"), SENDS(HELLO), DOES(PEER_SILENT)};
    static const struct peer_step empty[] = {EXPECTS("\r\nContent-Length: 0\r\n"), SENDS(HELLO),
                                             DOES(PEER_SILENT)};
    char *content = malloc(SIZE);
    assert_non_null(content);
    memset(content, 'x', SIZE);
    memcpy(content + SIZE - 3, "END", 3);
    fixture_open(LOOPBACK, script);
    struct watched_call *one = call_prepare(0, "POST", "127.0.0.1", "/");
    one->call.content = (struct slice){content, SIZE};
    call_start(one);
    call_check_body(one, 200, "hello");
    const char *got = fixture_received(0);
    assert_non_null(strstr(got, "POST / HTTP/1.1\r\n"));
    assert_non_null(strstr(got, "\r\nContent-Length: 2097152\r\n"));
    assert_null(memmem(got, 500, "Content-Type", 12));
    assert_null(memmem(got, 500, "Expect", 6));
    fixture_close();
    fixture_open(LOOPBACK, empty);
    one = call_prepare(0, "POST", "127.0.0.1", "/");
    call_start(one);
    call_check_body(one, 200, "hello");
    fixture_close();
    free(content);
}

static void test_head(void **state)
{
    (void)state;
    static const struct peer_step script[] = {
        REQUEST, SENDS(OK_HEAD "Content-Length: 123456789\r\n\r\n"), DOES(PEER_SILENT)};
    fixture_open(LOOPBACK, script);
    struct watched_call *one = call_prepare(0, "HEAD", "127.0.0.1", "/");
    call_start(one);
    call_check_body(one, 200, "");
    assert_int_equal(one->call.res_length, 123456789);
    fixture_close();
}

/* --- answers --------------------------------------------------------------------------------- */

static void check_answer(const struct peer_step *script, enum err_code code, const char *text)
{
    fixture_open(LOOPBACK, script);
    struct watched_call *one = call_get(0, "127.0.0.1", "/");
    if (code == ERR_OK)
        call_check_body(one, 200, text);
    else
        call_check(one, code, text);
    fixture_close();
}

static void test_good_answers(void **state)
{
    (void)state;
    static const struct peer_step dribbled[] = {REQUEST, DRIBBLES(HELLO), DOES(PEER_SILENT)};
    static const struct peer_step chunked[] = {
        REQUEST,
        SENDS(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n"
                      "X-Trailer: 1\r\n\r\n"),
        DOES(PEER_SILENT)};
    static const struct peer_step until_close[] = {REQUEST, SENDS("HTTP/1.0 200 OK\r\n\r\nhello"),
                                                   DOES(PEER_CLOSE)};
    static const struct peer_step interim[] = {
        REQUEST, SENDS("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" HELLO), DOES(PEER_SILENT)};
    static const struct peer_step coded[] = {
        REQUEST, SENDS(OK_HEAD "Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"),
        DOES(PEER_SILENT)};
    check_answer(serve, ERR_OK, "hello");
    check_answer(dribbled, ERR_OK, "hello");
    check_answer(chunked, ERR_OK, "hello");
    check_answer(until_close, ERR_OK, "hello");
    check_answer(interim, ERR_OK, "hello");
    check_answer(coded, ERR_OK, "hello"); /* as it came: nobody asked for it */
}

static void test_bad_answers(void **state)
{
    (void)state;
    static const struct peer_step no_answer[] = {REQUEST, DOES(PEER_CLOSE)};
    static const struct peer_step reset[] = {REQUEST, DOES(PEER_RESET)};
    static const struct peer_step cut_head[] = {REQUEST, SENDS(OK_HEAD "X: y"), DOES(PEER_CLOSE)};
    static const struct peer_step cut_body[] = {
        REQUEST, SENDS(OK_HEAD "Content-Length: 10\r\n\r\nhello"), DOES(PEER_CLOSE)};
    static const struct peer_step reset_body[] = {
        REQUEST, SENDS(OK_HEAD "Content-Length: 10\r\n\r\nhello"), WAITS(10), DOES(PEER_RESET)};
    static const struct peer_step cut_chunk[] = {
        REQUEST, SENDS(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        DOES(PEER_CLOSE)};
    static const struct peer_step no_http[] = {REQUEST, SENDS("SSH-2.0-OpenSSH_9\r\n"),
                                               DOES(PEER_CLOSE)};
    static const struct peer_step no_field[] = {REQUEST, SENDS(OK_HEAD "nonsense\r\n\r\n"),
                                                DOES(PEER_SILENT)};
    static const struct peer_step folded[] = {REQUEST, SENDS(OK_HEAD "X: y\r\n z\r\n\r\n"),
                                              DOES(PEER_SILENT)};
    static const struct peer_step bad_name[] = {REQUEST, SENDS(OK_HEAD "a b: c\r\n\r\n"),
                                                DOES(PEER_SILENT)};
    check_answer(no_answer, ERR_CLOSED, "127.0.0.1");
    check_answer(reset, ERR_CLOSED, "127.0.0.1");
    check_answer(cut_head, ERR_CLOSED, "127.0.0.1");
    check_answer(cut_body, ERR_CLOSED, "127.0.0.1");
    check_answer(reset_body, ERR_CLOSED, "127.0.0.1");
    check_answer(cut_chunk, ERR_CLOSED, "127.0.0.1");
    check_answer(no_http, ERR_PROTOCOL, "127.0.0.1");
    check_answer(no_field, ERR_PROTOCOL, "127.0.0.1");
    check_answer(folded, ERR_PROTOCOL, "head");
    check_answer(bad_name, ERR_PROTOCOL, "head");
}

static void test_statuses_are_answers(void **state)
{
    (void)state;
    static const struct peer_step script[] = {
        REQUEST, SENDS("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"),
        DOES(PEER_SILENT)};
    fixture_open(LOOPBACK, script);
    call_check_body(call_get(0, "127.0.0.1", "/"), 404, "gone");
    fixture_close();
}

static void test_large_head(void **state)
{
    (void)state;
    static const char line[] = "X-Filling: 0123456789012345678901234567890123456789\r\n";
    static const struct peer_step script[] = {REQUEST,
                                              SENDS(OK_HEAD),
                                              {.act = PEER_SEND_MANY,
                                               .text = line,
                                               .len = sizeof(line) - 1,
                                               .number = HTTP_HEADERS_MAX + 1},
                                              DOES(PEER_SILENT)};
    check_answer(script, ERR_TOO_LARGE, "head");
}

static void test_parts(void **state)
{
    (void)state;
    static const struct peer_step script[] = {
        REQUEST,       SENDS(OK_HEAD "Content-Length: 8\r\n\r\n"),
        SENDS("part"), WAITS(10),
        SENDS("part"), DOES(PEER_SILENT)};
    fixture_open(LOOPBACK, script);
    struct watched_call *one = call_prepare(0, "GET", "127.0.0.1", "/");
    call_take_parts(one);
    call_start(one);
    call_check_body(one, 200, "partpart");
    assert_true(one->parts >= 2);
    fixture_close();
}

/* --- bounds ---------------------------------------------------------------------------------- */

static void check_size(const struct peer_step *script, size_t max, bool fits, bool parts)
{
    fixture_open(LOOPBACK, script);
    struct watched_call *one = call_prepare(0, "GET", "127.0.0.1", "/");
    one->call.body_max = max;
    if (parts)
        call_take_parts(one);
    call_start(one);
    if (fits)
        call_check_body(one, 200, "hello");
    else
        call_check(one, ERR_TOO_LARGE, "127.0.0.1");
    assert_true(one->body.len <= max);
    fixture_close();
}

static void test_size(void **state)
{
    (void)state;
    static const struct peer_step declared[] = {
        /* and never sent */
        REQUEST, SENDS(OK_HEAD "Content-Length: 99999999999\r\n\r\n"), DOES(PEER_SILENT)};
    static const struct peer_step chunked[] = {
        REQUEST,
        SENDS(OK_HEAD "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        DOES(PEER_SILENT)};
    static const struct peer_step undeclared[] = {REQUEST, SENDS(OK_HEAD "\r\nhello"),
                                                  DOES(PEER_CLOSE)};
    check_size(declared, 1000, false, false);
    for (unsigned parts = 0; parts < 2; parts++) {
        check_size(serve, 5, true, parts);
        check_size(serve, 4, false, parts);
        check_size(chunked, 5, true, parts);
        check_size(chunked, 4, false, parts);
        check_size(undeclared, 5, true, parts);
        check_size(undeclared, 4, false, parts);
        check_size(undeclared, 0, false, parts);
    }
}

static void check_time(const struct peer_step *script, const struct https_call *limits,
                       const char *text)
{
    fixture_open(LOOPBACK, script);
    struct watched_call *one = call_prepare(0, "GET", "127.0.0.1", "/");
    one->call.connect_ms = limits->connect_ms;
    one->call.head_ms = limits->head_ms;
    one->call.idle_ms = limits->idle_ms;
    one->call.total_ms = limits->total_ms;
    one->call.rate_min = limits->rate_min;
    call_start(one);
    if (text != NULL)
        call_check(one, ERR_TIMEOUT, text);
    else
        call_check_body(one, 200, "0123456789");
    fixture_close();
}

static void test_deadlines(void **state)
{
    (void)state;
    static const struct peer_step stuck[] = {
        REQUEST, SENDS(OK_HEAD "Content-Length: 10\r\n\r\n0123456"), DOES(PEER_SILENT)};
    static const struct peer_step slow[] = {
        REQUEST,     SENDS(OK_HEAD "Content-Length: 10\r\n\r\n"),
        SENDS("01"), WAITS(30),
        SENDS("23"), WAITS(30),
        SENDS("45"), WAITS(30),
        SENDS("67"), WAITS(30),
        SENDS("89"), DOES(PEER_SILENT)};
    check_time(silent, &(struct https_call){.head_ms = 30}, "no answer within 30 ms");
    check_time(silent, &(struct https_call){.total_ms = 30}, "not done within 30 ms");
    check_time(stuck, &(struct https_call){.idle_ms = 30}, "for 30 ms");
    check_time(stuck, &(struct https_call){.idle_ms = 30, .rate_min = 1, .total_ms = 3000},
               "for 30 ms");
    check_time(stuck, &(struct https_call){.total_ms = 60}, "not done within 60 ms");
    check_time(slow, &(struct https_call){.idle_ms = 60, .rate_min = 1000}, "less than 1000");
    check_time(slow, &(struct https_call){.idle_ms = 2000, .rate_min = 1}, NULL);
}

static void test_name_deadline(void **state)
{
    (void)state;
    fixture_open(LOOPBACK, serve);
    struct watched_call *one = call_prepare(0, "GET", "held.test", "/");
    one->call.connect_ms = 30;
    call_start(one);
    call_check(one, ERR_TIMEOUT, "no connection within 30 ms");
    one = call_prepare(1, "GET", "held.test", "/");
    one->call.total_ms = 30;
    struct resolve_lookup *first = fix.held;
    call_start(one);
    call_check(one, ERR_TIMEOUT, "not done within 30 ms");
    resolve_answer(first, NULL, 0, NULL);
    resolve_answer(fix.held, NULL, 0, NULL);
    assert_int_equal(fix.peer.accepted, 0);
    fixture_close();
}

/* The fastest of some: a busy machine makes one slow, what guards this makes all wait 200 ms. */
static void test_refused_at_once(void **state)
{
    (void)state;
    uint64_t best = UINT64_MAX;
    for (unsigned i = 0; i < 5; i++) {
        fixture_open(LOOPBACK, NULL);
        uint64_t begin = clock_mono_ms();
        call_check(call_get(0, "127.0.0.1", "/"), ERR_UNAVAILABLE, "127.0.0.1");
        uint64_t took = clock_mono_ms() - begin;
        best = took < best ? took : best;
        assert_false(fix.ones[0].call.sent);
        fixture_close();
    }
    assert_true(best < 150);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get),           cmocka_unit_test(test_name),
        cmocka_unit_test(test_headers),       cmocka_unit_test(test_post),
        cmocka_unit_test(test_head),          cmocka_unit_test(test_good_answers),
        cmocka_unit_test(test_bad_answers),   cmocka_unit_test(test_statuses_are_answers),
        cmocka_unit_test(test_large_head),    cmocka_unit_test(test_parts),
        cmocka_unit_test(test_size),          cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_name_deadline), cmocka_unit_test(test_refused_at_once),
    };
    if (https_global_init(NULL) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
