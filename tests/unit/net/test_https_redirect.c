/* Chains of redirects: each hop is checked like a first one, and what is told to one origin is not
 * told to another. */
#include "https_fixture.h"
#include "unit.h"

#include <stdio.h>

#define MOVED(number)                                                                              \
    "HTTP/1.1 " number " Moved\r\nLocation: /next\r\nContent-Length: 5\r\n\r\nmoved"

static const struct peer_step moves[] = {REQUEST, CALLS(fixture_redirect), DOES(PEER_SILENT)};

/* One script a connection, in the order of their coming; the last one serves all further ones. */
static void open_chain(const char *allow, const struct peer_step *const *scripts, unsigned count)
{
    fixture_open(allow, scripts[0]);
    fix.peer.scripts = scripts;
    fix.peer.script_count = count;
}

static void locate(const char *host, const char *path)
{
    (void)snprintf(fix.location, sizeof(fix.location), "http://%s:%u%s", host, fix.peer.port, path);
}

/* --- followed -------------------------------------------------------------------------------- */

static void test_kinds(void **state)
{
    (void)state;
    static const struct peer_step all[][3] = {
        {REQUEST, SENDS(MOVED("301")), DOES(PEER_SILENT)},
        {REQUEST, SENDS(MOVED("302")), DOES(PEER_SILENT)},
        {REQUEST, SENDS(MOVED("303")), DOES(PEER_SILENT)},
        {REQUEST, SENDS(MOVED("307")), DOES(PEER_SILENT)},
        {REQUEST, SENDS(MOVED("308")), DOES(PEER_SILENT)},
    };
    static const char *const methods[] = {"GET", "HEAD"};
    for (unsigned i = 0; i < 2 * ARRAY_LEN(all); i++) {
        const struct peer_step *scripts[] = {all[i / 2], serve};
        open_chain("127.0.0.1", scripts, 2);
        struct watched_call *one = call_prepare(0, methods[i % 2], "127.0.0.1", "/moved?a=b");
        call_start(one);
        call_check_body(one, 200, i % 2 == 0 ? "hello" : "");
        assert_int_equal(one->call.redirects, 1);
        assert_non_null(strstr(fixture_received(1), " /next HTTP/1.1\r\n"));
        assert_memory_equal(fixture_received(1), methods[i % 2], 3);
        fixture_close();
    }
}

static void test_only_the_last_answer_is_told(void **state)
{
    (void)state;
    static const struct peer_step endless[] = {
        REQUEST,
        SENDS("HTTP/1.1 302 Found\r\nLocation: next\r\nX: y\r\n"
              "Content-Length: 99999999999\r\n\r\nmuch"),
        DOES(PEER_SILENT)};
    static const struct peer_step *const scripts[] = {endless, serve};
    open_chain("127.0.0.1", scripts, 2);
    struct watched_call *one = call_prepare(0, "GET", "127.0.0.1", "/a/b");
    call_take_parts(one);
    call_start(one);
    call_check_body(one, 200, "hello");
    assert_false(one->has_x);
    assert_non_null(strstr(fixture_received(1), "GET /a/next HTTP/1.1\r\n"));
    fixture_close();
}

static void test_how_many(void **state)
{
    (void)state;
    static const struct peer_step *const three[] = {moves, moves, moves, serve};
    static const struct peer_step *const endless[] = {moves};
    open_chain("127.0.0.1", three, 4);
    locate("127.0.0.1", "/again");
    struct watched_call *one = call_get(0, "127.0.0.1", "/");
    call_check_body(one, 200, "hello");
    assert_int_equal(one->call.redirects, 3);
    fixture_close();
    open_chain("127.0.0.1", endless, 1);
    locate("127.0.0.1", "/again");
    call_check(call_get(0, "127.0.0.1", "/"), ERR_PROTOCOL, "more than 3 redirects");
    assert_int_equal(fix.peer.accepted, 4);
    fixture_close();
}

static void test_answers_that_are_not_followed(void **state)
{
    (void)state;
    static const struct peer_step nowhere[] = {
        REQUEST, SENDS("HTTP/1.1 302 Found\r\nContent-Length: 5\r\n\r\nmoved"), DOES(PEER_SILENT)};
    static const struct peer_step created[] = {
        REQUEST, SENDS("HTTP/1.1 201 Created\r\nLocation: /x\r\nContent-Length: 5\r\n\r\nmoved"),
        DOES(PEER_SILENT)};
    static const struct peer_step *const scripts[] = {moves, moves, nowhere, created};
    open_chain("127.0.0.1", scripts, 4);
    locate("127.0.0.1", "/next");
    struct watched_call *one = call_prepare(0, "GET", "127.0.0.1", "/");
    one->call.redirects_max = 0;
    call_start(one);
    call_check_body(one, 302, "moved");
    one = call_prepare(1, "POST", "127.0.0.1", "/");
    call_start(one);
    call_check_body(one, 302, "moved");
    call_check_body(call_get(2, "127.0.0.1", "/"), 302, "moved");
    call_check_body(call_get(3, "127.0.0.1", "/"), 201, "moved");
    assert_int_equal(fix.peer.accepted, 4);
    fixture_close();
}

/* --- what is told to whom -------------------------------------------------------------------- */

static void check_secret(const char *from, const char *to, bool told)
{
    static const struct peer_step *const scripts[] = {moves, serve};
    struct http_headers headers;
    http_headers_init(&headers);
    assert_int_equal(http_headers_add(&headers, SLICE("Authorization"), SLICE("secret")), ERR_OK);
    open_chain("127.0.0.0/8", scripts, 2);
    fix.names[0] = (struct known_name){"a.test", "127.0.0.1"};
    fix.names[1] = (struct known_name){"b.test", "127.0.0.1"};
    if (to[0] == '/')
        (void)snprintf(fix.location, sizeof(fix.location), "%s", to);
    else
        locate(to, "/");
    struct watched_call *one = call_prepare(0, "GET", from, "/");
    one->call.headers = &headers;
    call_start(one);
    call_check_body(one, 200, "hello");
    assert_non_null(strstr(fixture_received(0), "Authorization: secret\r\n"));
    assert_true((strstr(fixture_received(1), "secret") != NULL) == told);
    assert_null(strstr(fixture_received(1), "Referer"));
    fixture_close();
    http_headers_done(&headers);
}

static void test_headers_stay_with_their_origin(void **state)
{
    (void)state;
    check_secret("a.test", "/other", true);
    check_secret("a.test", "A.test", true);
    check_secret("a.test", "b.test", false);
    check_secret("a.test", "127.0.0.1", false);
}

/* --- refused --------------------------------------------------------------------------------- */

static void test_where_no_redirect_leads(void **state)
{
    (void)state;
    static const char *const locations[] = {
        "http://127.0.0.2:PORT/",
        "//127.0.0.2:PORT/",
        "//[::1]:PORT/",
        "http://[::1]:PORT/",
        "http://[::ffff:127.0.0.2]:PORT/",
        "http://[::ffff:7f00:2]:PORT/",
        "http://[::127.0.0.1]:PORT/",
        "http://0.0.0.0:PORT/",
        "http://[::]:PORT/",
        "http://127.1:PORT/",
        "http://0x7f.1:PORT/",
        "http://2130706433:PORT/",
        "//2130706433:PORT/",
        "http://0177.0.0.1:PORT/",
        "http://127%2e0.0.1:PORT/",
        "http://inner.test:PORT/",
        "http://mapped.test:PORT/",
        "http://meta.test:PORT/",
        "https://inner.test:PORT/",
        "http://user@127.0.0.1:PORT/",
        "http://user:pass@127.0.0.1:PORT/",
        "//@127.0.0.1:PORT/",
        "http://127.0.0.1\\@b.test:PORT/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.100.100.200/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://10.0.0.1/",
        "ftp://127.0.0.1:PORT/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:PORT/_x",
        "dict://127.0.0.1:PORT/",
        "data:text/plain,x",
        "http://127.0.0.1:0/",
        "http://",
        "http:///127.0.0.1:PORT/",
    };
    for (size_t i = 0; i < ARRAY_LEN(locations); i++) {
        fixture_open("127.0.0.1", moves);
        fix.names[0] = (struct known_name){"inner.test", "127.0.0.2"};
        fix.names[1] = (struct known_name){"mapped.test", "::ffff:127.0.0.2"};
        fix.names[2] = (struct known_name){"meta.test", "169.254.169.254"};
        fixture_fill_port(locations[i], fix.location, sizeof(fix.location));
        struct watched_call *one = call_get(0, "127.0.0.1", "/");
        loop_run_until(&fix.loop, &one->ended, "on_end");
        bool refused = one->err.code == ERR_INVALID || one->err.code == ERR_FORBIDDEN;
        if (!refused || fix.peer.accepted != 1)
            fail_msg("%s: %s: %s", fix.location, err_name(one->err.code), one->err.msg);
        fixture_close();
    }
}

/* The same name has another answer for the second hop, and only the newest answer counts. */
static void test_a_name_that_changes_its_answer(void **state)
{
    (void)state;
    static const struct peer_step *const scripts[] = {moves, serve};
    open_chain("127.0.0.1", scripts, 2);
    fix.names[0] = (struct known_name){"rebind.test", "127.0.0.1 127.0.0.2"};
    (void)snprintf(fix.location, sizeof(fix.location), "/next");
    call_check(call_get(0, "rebind.test", "/"), ERR_FORBIDDEN, "loopback");
    assert_int_equal(fix.asked, 2);
    assert_int_equal(fix.peer.accepted, 1);
    fixture_close();
    open_chain("127.0.0.0/8", scripts, 2);
    fix.names[0] = (struct known_name){"rebind.test", "127.0.0.1 127.0.0.2"};
    (void)snprintf(fix.location, sizeof(fix.location), "/next");
    call_check(call_get(0, "rebind.test", "/"), ERR_UNAVAILABLE, "rebind.test"); /* none is at .2 */
    assert_int_equal(fix.peer.accepted, 1);
    fixture_close();
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_only_the_last_answer_is_told),
        cmocka_unit_test(test_how_many),
        cmocka_unit_test(test_answers_that_are_not_followed),
        cmocka_unit_test(test_headers_stay_with_their_origin),
        cmocka_unit_test(test_where_no_redirect_leads),
        cmocka_unit_test(test_a_name_that_changes_its_answer),
    };
    if (https_global_init(NULL) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
