/* The table of what a caller may write to get us to talk to what is ours: every line is refused
 * before a socket is opened. The server listens on loopback and would answer. */
#include "https_fixture.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const hosts[] = {
    /* loopback */
    "127.0.0.1",
    "127.0.0.2",
    "127.255.255.254",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "017700000001",
    "127.0.0.01",
    "127%2e0.0.1",
    "%31%32%37.0.0.1",
    "127。0。0。1",
    "①27.0.0.1",
    "127.0.0.1.",
    "localhost",
    "localhost.",
    "%6cocalhost",
    "0.0.0.0",
    "0",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "[::1%25lo]",
    /* neighbours */
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "169.254.1.1",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fc00::1]",
    "[fd12:3456::1]",
    "[fec0::1]",
    "[::ffff:10.0.0.1]",
    "[64:ff9b::10.0.0.1]",
    "198.18.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "255.255.255.255",
    "[ff02::1]",
    /* metadata */
    "169.254.169.254",
    "100.100.100.200",
    "169.254.170.2",
    "2852039166",
    "0xa9fea9fe",
    "[fd00:ec2::254]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[::169.254.169.254]",
    /* credentials in front of them */
    "user@127.0.0.1",
    "user:pass@127.0.0.1",
    "example.com@127.0.0.1",
    "127.0.0.1:80@localhost",
    "@127.0.0.1",
    "127.0.0.1\\@localhost",
    "127.0.0.1#@localhost",
    "127.0.0.1?@localhost",
    /* names that lead there */
    "inner.test",
    "mapped.test",
    "zero.test",
    "six.test",
    "private.test",
    "shared.test",
    "meta.test",
    "alibaba.test",
};

static const struct known_name names[] = {
    {"inner.test", "127.0.0.1"},      {"mapped.test", "::ffff:127.0.0.1"},
    {"zero.test", "0.0.0.0"},         {"six.test", "::1"},
    {"private.test", "10.1.2.3"},     {"shared.test", "100.64.9.9"},
    {"meta.test", "169.254.169.254"}, {"alibaba.test", "100.100.100.200"},
    {"localhost", "127.0.0.1"},
};

static void check_refused(const char *allow, const char *scheme, const char *rest)
{
    char text[256], url[256];
    fixture_open(allow, serve);
    memcpy(fix.names, names, sizeof(names));
    (void)snprintf(text, sizeof(text), "%s%s", scheme, rest);
    fixture_fill_port(text, url, sizeof(url));
    struct watched_call *one = call_prepare_url(0, url);
    call_start(one);
    loop_run_until(&fix.loop, &one->ended, "on_end");
    bool refused = one->err.code == ERR_INVALID || one->err.code == ERR_FORBIDDEN;
    if (!refused || one->call.sent || fix.peer.accepted != 0)
        fail_msg("%s: %s: %s", url, err_name(one->err.code), one->err.msg);
    fixture_close();
}

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        char rest[128];
        (void)snprintf(rest, sizeof(rest), "%s:PORT/", hosts[i]);
        check_refused("", "http://", rest);
        check_refused("", "https://", rest);
    }
}

/* A list that opens all networks and these names opens no metadata service. */
static void test_metadata_is_always_refused(void **state)
{
    (void)state;
    static const char everything[] = "0.0.0.0/0 ::/0 meta.test alibaba.test";
    static const char *const metadata[] = {
        "169.254.169.254",      "100.100.100.200",    "[fd00:ec2::254]",     "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[::169.254.169.254]", "meta.test",
        "alibaba.test",
    };
    for (size_t i = 0; i < ARRAY_LEN(metadata); i++)
        check_refused(everything, "http://", metadata[i]);
}

static void test_other_schemes(void **state)
{
    (void)state;
    static const char *const urls[] = {
        "ftp://127.0.0.1:PORT/",    "gopher://127.0.0.1:PORT/_x",
        "dict://127.0.0.1:PORT/",   "file://127.0.0.1:PORT/etc/passwd",
        "ldap://127.0.0.1:PORT/",   "smb://127.0.0.1:PORT/",
        "telnet://127.0.0.1:PORT/", "ws://127.0.0.1:PORT/",
        "//127.0.0.1:PORT/",        "127.0.0.1:PORT/",
        "http:127.0.0.1:PORT/",     "http:/127.0.0.1:PORT/",
        "http:///127.0.0.1:PORT/",  "http://\t127.0.0.1:PORT/",
        " http://127.0.0.1:PORT/",  "http://127.0.0.1:PORT\r\n/",
        "javascript:127.0.0.1PORT", "data:text/html,127.0.0.1PORT"};
    for (size_t i = 0; i < ARRAY_LEN(urls); i++)
        check_refused("127.0.0.0/8", urls[i], "");
}

static void check_passes(const char *allow, const char *host)
{
    fixture_open(allow, serve);
    memcpy(fix.names, names, sizeof(names));
    call_check_body(call_get(0, host, "/"), 200, "hello");
    fixture_close();
}

static void test_what_is_allowed_passes(void **state)
{
    (void)state;
    check_passes("127.0.0.1", "127.0.0.1");
    check_passes("127.0.0.0/8", "[::ffff:127.0.0.1]");
    check_passes("127.0.0.0/8", "inner.test");
    check_passes("127.0.0.0/8", "mapped.test");
    check_passes("inner.test", "inner.test");
    check_passes("inner.test", "INNER.test");
    check_passes(".test", "inner.test");
}

/* What the environment says about proxies is nothing to us: nobody listens there. */
static void test_proxies_of_the_environment(void **state)
{
    (void)state;
    static const char *const variables[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
                                            "ALL_PROXY"};
    for (size_t i = 0; i < ARRAY_LEN(variables); i++)
        assert_int_equal(setenv(variables[i], "http://127.0.0.1:1", 1), 0);
    check_passes("127.0.0.0/8", "inner.test");
    for (size_t i = 0; i < ARRAY_LEN(variables); i++)
        assert_int_equal(unsetenv(variables[i]), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_metadata_is_always_refused),
        cmocka_unit_test(test_other_schemes),
        cmocka_unit_test(test_what_is_allowed_passes),
        cmocka_unit_test(test_proxies_of_the_environment),
    };
    if (https_global_init(NULL) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
