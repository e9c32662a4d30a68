/* Which headers pass a relay. */
#include "http_relay.h"
#include "unit.h"

static struct http_headers out;

static void add(struct http_headers *h, const char *name, const char *value)
{
    assert_int_equal(http_headers_add(h, slice_of(name), slice_of(value)), ERR_OK);
}

static void headers_of(struct http_headers *h, const char *const (*pairs)[2])
{
    http_headers_init(h);
    for (; (*pairs)[0] != NULL; pairs++)
        add(h, (*pairs)[0], (*pairs)[1]);
}

static void assert_out(const char *want)
{
    struct buf text;
    buf_init(&text, SIZE_MAX);
    for (unsigned i = 0; i < out.count; i++)
        buf_addf(&text, "%.*s: %.*s\n", SLICE_ARGS(http_headers_name(&out, i)),
                 SLICE_ARGS(http_headers_value(&out, i)));
    assert_string_equal(buf_slice(&text).ptr, want);
    buf_done(&text);
    http_headers_done(&out);
}

static void relay_request(const char *const (*pairs)[2])
{
    struct http_head head = {.minor = 1};
    headers_of(&head.headers, pairs);
    http_headers_init(&out);
    assert_int_equal(http_relay_request(&head, "10.0.0.7", &out), ERR_OK);
    http_headers_done(&head.headers);
}

static void relay_response(const char *const (*pairs)[2])
{
    headers_of(&out, pairs);
    http_relay_response(&out);
}

static void what_says_where_it_came_from_is_taken_off_and_put_on(void **state)
{
    static const char *const asked[][2] = {{"Host", "pictures.example"},
                                           {"Origin", "http://pictures.example"},
                                           {"Sec-Fetch-Site", "same-origin"},
                                           {"sec-fetch-mode", "cors"},
                                           {"Sec-Fetch-Dest", "image"},
                                           {"X-Fc-Access-Key-Secret", "s"},
                                           {"X-Api-Key", "k"},
                                           {"x-fc-request-id", "1"},
                                           {"Accept", "*/*"},
                                           {"Cookie", "a=b"},
                                           {NULL, NULL}};
    (void)state;
    relay_request(asked);
    assert_out("Sec-Fetch-Dest: image\nAccept: */*\nCookie: a=b\nx-forwarded-for: 10.0.0.7\n"
               "x-forwarded-host: pictures.example\nx-forwarded-proto: http\n");
}

static void a_relay_in_front_of_us_is_believed(void **state)
{
    static const char *const asked[][2] = {
        {"X-Forwarded-For", "1.2.3.4"},        {"Host", "h"},
        {"X-Forwarded-For", "5.6.7.8"},        {"X-Forwarded-Proto", "https"},
        {"X-Forwarded-Host", "outer.example"}, {NULL, NULL}};
    (void)state;
    relay_request(asked);
    assert_out("x-forwarded-for: 1.2.3.4, 5.6.7.8, 10.0.0.7\nx-forwarded-host: outer.example\n"
               "x-forwarded-proto: https\n");
}

static void what_is_of_one_hop_goes_no_further(void **state)
{
    static const char *const asked[][2] = {{"Host", "h"},
                                           {"Connection", "keep-alive, X-One"},
                                           {"X-One", "1"},
                                           {"x-two", "2"},
                                           {"connection", "x-TWO"},
                                           {"X-Three", "3"},
                                           {"Keep-Alive", "timeout=5"},
                                           {"TE", "trailers"},
                                           {"Transfer-Encoding", "chunked"},
                                           {"Content-Length", "5"},
                                           {"Upgrade", "websocket"},
                                           {"Expect", "100-continue"},
                                           {"Proxy-Authorization", "x"},
                                           {"Proxy-Connection", "x"},
                                           {"Trailer", "x"},
                                           {"Sec-WebSocket-Extensions", "permessage-deflate"},
                                           {"Sec-WebSocket-Key", "k"},
                                           {NULL, NULL}};
    (void)state;
    relay_request(asked);
    assert_out("X-Three: 3\nSec-WebSocket-Key: k\nx-forwarded-for: 10.0.0.7\nx-forwarded-host: h\n"
               "x-forwarded-proto: http\n");
}

static void answers_lose_theirs_and_their_cors(void **state)
{
    static const char *const answered[][2] = {{"Connection", "close, connection, x-hop"},
                                              {"Cache-Control", "no-store"},
                                              {"X-Early", "1"},
                                              {"X-Hop", "1"},
                                              {"Date", "today"},
                                              {"connection", "x-EARLY"},
                                              {"Content-Length", "3"},
                                              {"Content-Type", "image/png"},
                                              {"ETag", "\"x\""},
                                              {"Access-Control-Allow-Origin", "*"},
                                              {"access-control-max-age", "1"},
                                              {"x-fc-status", "404"},
                                              {"Set-Cookie", "a=1"},
                                              {"Set-Cookie", "b=2"},
                                              {"Transfer-Encoding", "chunked"},
                                              {"Sec-WebSocket-Accept", "a"},
                                              {"Sec-WebSocket-Extensions", "x"},
                                              {"Content-Encoding", "gzip"},
                                              {"Vary", "Origin"},
                                              {NULL, NULL}};
    (void)state;
    relay_response(answered);
    assert_out("Cache-Control: no-store\nContent-Type: image/png\nETag: \"x\"\nSet-Cookie: "
               "a=1\nSet-Cookie: b=2\n"
               "Sec-WebSocket-Accept: a\nContent-Encoding: gzip\nVary: Origin\n");
}

static void more_than_a_list_takes_is_an_error(void **state)
{
    struct http_head head = {.minor = 1};
    (void)state;
    http_headers_init(&head.headers);
    for (unsigned i = 0; i < HTTP_HEADERS_MAX; i++)
        add(&head.headers, "x", "y");
    http_headers_init(&out);
    assert_int_equal(http_relay_request(&head, "10.0.0.7", &out), ERR_TOO_LARGE);
    http_headers_done(&out);
    http_headers_done(&head.headers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_says_where_it_came_from_is_taken_off_and_put_on),
        cmocka_unit_test(a_relay_in_front_of_us_is_believed),
        cmocka_unit_test(what_is_of_one_hop_goes_no_further),
        cmocka_unit_test(answers_lose_theirs_and_their_cors),
        cmocka_unit_test(more_than_a_list_takes_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
