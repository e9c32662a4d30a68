/* The server from outside: requests and answers, and what is no request. */
#include "http_server_fixture.h"

#include <stdio.h>

static void respond_hello(struct http_req *req, void *ctx)
{
    (void)ctx;
    http_respond(req, 200, "text/plain", SLICE("hello"), NULL);
}

static void requests_are_answered_one_after_the_other(void **state)
{
    (void)state;
    struct peer p;
    start(respond_hello, usual);
    peer_open(&p);
    for (unsigned i = 0; i < 3; i++) {
        peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        wait_for(peer_has(&p, "hello"));
        peer_got(&p, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n"
                     "date: DATE\r\n\r\nhello");
    }
    assert_int_equal(http_server_stats(t.server).requests, 3);
    assert_int_equal(http_server_stats(t.server).accepted, 1);
    assert_int_equal(http_server_stats(t.server).in_flight, 0);
    peer_close(&p);
    wait_for(http_server_stats(t.server).connections == 0);
    stop();
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    struct peer p;
    start(respond_path, usual);
    peer_open(&p);
    peer_send(&p, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
                  "POST /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
                  "GET /4 HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(peer_has(&p, "/4"));
    peer_got(&p, HEAD_OF("2") "\r\n/1" HEAD_OF("2") "\r\n/2" HEAD_OF("2") "\r\n/3" HEAD_OF(
                     "2") "\r\n/4");
    peer_send_slowly(&p,
                     "GET /5 HTTP/1.1\r\nHost: h\r\n\r\n\r\nGET /6 HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(peer_has(&p, "/6"));
    peer_close(&p);
    stop();
}

static void respond_target(struct http_req *req, void *ctx)
{
    (void)ctx;
    http_respond(req, 200, NULL, http_req_target(req), NULL);
}

static void targets_are_told_as_the_next_server_is_asked(void **state)
{
    (void)state;
    static const struct {
        const char *asked, *told;
    } table[] = {
        {"/", "/"},        {"/a%20b?x=1?y", "/a%20b?x=1?y"}, {"http://h/a?b", "/a?b"},
        {"http://h", "/"}, {"http://h?x=1", "/?x=1"},        {"*", "*"},
    };
    struct peer p;
    start(respond_target, usual);
    peer_open(&p);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        char text[128];
        (void)snprintf(text, sizeof(text), "OPTIONS %s HTTP/1.1\r\nHost: h\r\n\r\n",
                       table[i].asked);
        peer_send(&p, text);
        (void)snprintf(text, sizeof(text), HEAD_OF("%zu") "\r\n%s", strlen(table[i].told),
                       table[i].told);
        wait_for(peer_has(&p, "\r\n\r\n") && peer_has(&p, table[i].told));
        peer_got(&p, text);
    }
    peer_close(&p);
    stop();
}

static void one_request_at_a_time(void **state)
{
    (void)state;
    struct peer p;
    start(keep, usual);
    peer_open(&p);
    peer_send(&p, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(t.req != NULL);
    loop_run_for(&t.f, 20);
    assert_int_equal(t.calls, 1);
    http_respond(t.req, 200, NULL, SLICE("one"), NULL);
    assert_int_equal(t.calls, 1); /* the next handler is not called inside */
    wait_for(t.calls == 2);
    assert_true(slice_is(http_req_path(t.req), "/2"));
    assert_string_equal(http_req_peer(t.req), "127.0.0.1");
    http_respond(t.req, 200, NULL, SLICE("two"), NULL);
    wait_for(peer_has(&p, "two"));
    peer_close(&p);
    stop();
}

static void head_has_the_length_of_get_and_no_body(void **state)
{
    (void)state;
    struct peer p;
    start(respond_hello, usual);
    peer_open(&p);
    peer_send(&p, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\nHEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(http_server_stats(t.server).requests == 2);
#define HELLO_HEAD                                                                                 \
    "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\ndate: DATE\r\n\r\n"
    peer_got(&p, HELLO_HEAD HELLO_HEAD);
    peer_close(&p);
    stop();
}

static void the_older_version_keeps_alive_only_if_asked(void **state)
{
    (void)state;
    struct peer p;
    start(respond_path, usual);
    peer_open(&p);
    peer_send(&p, "GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n");
    wait_for(peer_ended(&p));
    assert_false(p.reset);
    peer_got(&p, HEAD_OF("2") "connection: keep-alive\r\n\r\n/1" HEAD_OF(
                     "2") "connection: close\r\n\r\n/2");
    peer_close(&p);
    stop();
}

static void a_client_may_ask_to_close(void **state)
{
    (void)state;
    struct peer p;
    start(respond_path, usual);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    wait_for(peer_ended(&p));
    peer_got(&p, HEAD_OF("1") "connection: close\r\n\r\n/");
    peer_close(&p);
    stop();
}

static void respond_204(struct http_req *req, void *ctx)
{
    struct http_headers extra;
    (void)ctx;
    http_headers_init(&extra);
    assert_int_equal(http_headers_add(&extra, SLICE("x-a"), SLICE("b")), ERR_OK);
    http_respond(req, t.calls == 1 ? 204 : 304, NULL, SLICE_EMPTY, &extra);
    http_headers_done(&extra);
}

static void answers_without_a_body_declare_none(void **state)
{
    (void)state;
    struct peer p;
    start(respond_204, usual);
    peer_open(&p);
    peer_send(&p, "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(t.calls == 2);
    peer_got(&p, "HTTP/1.1 204 No Content\r\ndate: DATE\r\nx-a: b\r\n\r\n"
                 "HTTP/1.1 304 Not Modified\r\ndate: DATE\r\nx-a: b\r\n\r\n");
    peer_close(&p);
    stop();
}

static void offers_of_an_upgrade_are_served(void **state)
{
    (void)state;
    struct peer p;
    start(respond_path, usual);
    peer_open(&p);
    for (unsigned i = 1; i <= 2; i++) {
        peer_send(&p, "GET /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                      "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n");
        wait_for(peer_has(&p, "/x"));
        peer_got(&p, HEAD_OF("2") "\r\n/x");
    }
    peer_close(&p);
    stop();
}

static void heads_that_are_no_http_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        size_t fill; /* bytes of 'a' behind it */
        int status;
        const char *code;
    } table[] = {
        {"\x16\x03\x01", 0, 400, "bad_request"},
        {"GET / HTTP/1.1\r\n\r\n", 0, 400, "bad_request"},
        {"GET a HTTP/1.1\r\nHost: h\r\n\r\n", 0, 400, "bad_request"},
        {"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 0, 501, "not_implemented"},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9223372036854775808\r\n\r\n", 0, 413,
         "body_too_large"},
        {"GET /", HTTP_TARGET_MAX, 414, "target_too_long"},
        {"GET / HTTP/1.1\r\nA: ", HTTP_HEAD_MAX, 431, "head_too_large"},
        {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 0, 501,
         "not_implemented"},
        {"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 0, 505, "http_version"},
    };
    start(echo, usual);
    memset(filler, 'a', sizeof(filler));
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct peer p;
        char line[64], error[128];
        peer_open(&p);
        peer_send(&p, table[i].in);
        peer_send_bytes(&p, (struct slice){filler, table[i].fill});
        wait_for(peer_ended(&p));
        assert_false(p.reset);
        (void)snprintf(line, sizeof(line), "HTTP/1.1 %d %s\r\ncontent-type: application/json\r\n",
                       table[i].status, http_reason(table[i].status));
        (void)snprintf(error, sizeof(error),
                       "\r\nconnection: close\r\n\r\n{\"message\":\"RequestParamsError\","
                       "\"error\":{\"code\":\"%s\",\"detail\":\"",
                       table[i].code);
        assert_true(peer_has(&p, line));
        assert_true(peer_has(&p, error));
        peer_close(&p);
    }
    assert_int_equal(t.calls, 0);
    assert_int_equal(http_server_stats(t.server).refused, ARRAY_LEN(table));
    stop();
}

static void a_refusal_follows_the_answers_before_it(void **state)
{
    (void)state;
    struct peer p;
    start(respond_path, usual);
    peer_open(&p);
    peer_send(&p, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\n\r\n"
                  "GET /3 HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(peer_ended(&p));
    assert_int_equal(peer_count(&p, "HTTP/1.1 "), 2);
    assert_true(strstr(p.in.ptr, "/1") < strstr(p.in.ptr, "400 Bad"));
    peer_close(&p);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_answered_one_after_the_other),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(targets_are_told_as_the_next_server_is_asked),
        cmocka_unit_test(one_request_at_a_time),
        cmocka_unit_test(head_has_the_length_of_get_and_no_body),
        cmocka_unit_test(the_older_version_keeps_alive_only_if_asked),
        cmocka_unit_test(a_client_may_ask_to_close),
        cmocka_unit_test(answers_without_a_body_declare_none),
        cmocka_unit_test(offers_of_an_upgrade_are_served),
        cmocka_unit_test(heads_that_are_no_http_are_refused),
        cmocka_unit_test(a_refusal_follows_the_answers_before_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
