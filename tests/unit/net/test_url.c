/* Which URLs are taken and how they are read: every way to make two readers see two hosts that we
 * know of, and references as servers write them. */
#include "unit.h"
#include "url.h"

struct good {
    const char *text, *host, *asked;
    unsigned port;
    bool is_tls;
};

static void check_good(const struct good *g)
{
    struct url u;
    struct err err;
    if (url_parse(slice_of(g->text), &u, &err) != ERR_OK)
        fail_msg("%s: %s", g->text, err.msg);
    assert_string_equal(u.host, g->host);
    assert_string_equal(u.text, g->asked);
    assert_int_equal(u.port, g->port);
    assert_int_equal(u.is_tls, g->is_tls);
    url_done(&u);
}

static void test_good(void **state)
{
    (void)state;
    static const struct good rows[] = {
        {"http://example.com", "example.com", "http://example.com/", 80, false},
        {"https://example.com/a?b=c", "example.com", "https://example.com/a?b=c", 443, true},
        {"HTTPS://Example.COM:8443/A", "example.com", "https://Example.COM:8443/A", 8443, true},
        {"http://8.8.8.8:8080/", "8.8.8.8", "http://8.8.8.8:8080/", 8080, false},
        {"http://[2001:DB8::1]/x", "2001:db8::1", "http://[2001:DB8::1]/x", 80, false},
        {"http://[::1]:81", "::1", "http://[::1]:81/", 81, false},
        {"http://a.b/c#d@e/f", "a.b", "http://a.b/c", 80, false},
        {"http://a.b?x@c.d/", "a.b", "http://a.b/?x@c.d/", 80, false},
        {"http://a.b/x@y:z//w", "a.b", "http://a.b/x@y:z//w", 80, false},
        {"http://a.b/1/../../2/./3", "a.b", "http://a.b/2/3", 80, false},
        {"http://a.b/\xe5\x9b\xbe 1.png", "a.b", "http://a.b/%e5%9b%be%201.png", 80, false},
        {"http://a.b/%2e%2E/%00?q=%zz", "a.b", "http://a.b/%2e%2E/%00?q=%zz", 80, false},
        {"http://a.b:080/", "a.b", "http://a.b:80/", 80, false},
        {"http://a.b:/", "a.b", "http://a.b/", 80, false},
        {"http://xn--fsq.cn/", "xn--fsq.cn", "http://xn--fsq.cn/", 80, false},
        {"http://a_b.c-d/", "a_b.c-d", "http://a_b.c-d/", 80, false},
        {"http://1.2.3.4.example/", "1.2.3.4.example", "http://1.2.3.4.example/", 80, false},
        {"http://127.0.0.1/", "127.0.0.1", "http://127.0.0.1/", 80, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check_good(&rows[i]);
}

static const char *const bad[] = {
    /* schemes */
    "",
    "example.com/a.png",
    "//example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_x",
    "dict://127.0.0.1:11211/",
    "data:text/plain,x",
    "http:",
    "http://",
    "https://",
    "http:/example.com/",
    "http:example.com/",
    "http:///example.com/",
    "http:////example.com/",
    "httpx://example.com/",
    " http://example.com/",
    /* credentials, and who hides behind them */
    "http://user@example.com/",
    "http://user:pass@example.com/",
    "http://@example.com/",
    "http://:@example.com/",
    "http://example.com@127.0.0.1/",
    "http://example.com:80@127.0.0.1/",
    "http://example.com%40@127.0.0.1/",
    "http://127.0.0.1\\@example.com/",
    "http://example.com\\@127.0.0.1/",
    "http://example.com\\.evil.example/",
    /* addresses as only some read them */
    "http://127.1/",
    "http://127.0.1/",
    "http://0/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0x0.0x0.0x1/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://127.0.0.01/",
    "http://134744072/",
    "http://08.8.8.8/",
    "http://127.0.0.1./",
    "http://256.256.256.256/",
    "http://1.2.3.4.5/",
    "http://a.b.0x1/",
    "http://%31%32%37.0.0.1/",
    "http://127%2e0%2e0%2e1/",
    "http://127.0.0.1%00.example.com/",
    "http://127\xe3\x80\x82"
    "0\xe3\x80\x82"
    "0\xe3\x80\x82"
    "1/",
    "http://\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.0.0.1/",
    "http://\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.0.0.1/",
    "http://\xe2\x93\x81ocalhost/",
    "http://[::1%25lo]/",
    "http://[fe80::1%eth0]/",
    "http://[::ffff:127.1]/",
    "http://[::1",
    "http://[::1]x/",
    "http://[::1]a.b/",
    "http://::1/",
    "http://[127.0.0.1]/",
    "http://[localhost]/",
    "http://[]/",
    /* names */
    "http://localhost./",
    "http://%6cocalhost/",
    "http://a..b/",
    "http://.a/",
    "http://a b/",
    "http://a,b/",
    "http://a;b/",
    "http://a|b/",
    "http://*/",
    "http://\xc3\xa9.example/",
    /* ports and bytes */
    "http://a.b:0/",
    "http://a.b:65536/",
    "http://a.b:80x/",
    "http://a.b:-1/",
    "http://a.b:80:80/",
    "http://a.b:8	0/",
    "http://a.b/\r\nX: y",
    "http://a.b/\x01",
    "http://a.b/\x7f",
    "http://a.b/c\\d",
    "ht\ntp://a.b/",
};

static void test_bad(void **state)
{
    (void)state;
    struct url u = {.port = 77};
    struct err err;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        err = (struct err){.code = ERR_OK};
        if (url_parse(slice_of(bad[i]), &u, &err) != ERR_INVALID || err.code != ERR_INVALID)
            fail_msg("%s: taken", bad[i]);
    }
    assert_int_equal(u.port, 77);
    assert_int_equal(url_parse((struct slice){"http://a.b/\0c", 13}, &u, &err), ERR_INVALID);
}

static void test_secrets_are_not_told(void **state)
{
    (void)state;
    struct url u;
    struct err err;
    assert_int_equal(url_parse(SLICE("http://me:secret@a.b/?secret"), &u, &err), ERR_INVALID);
    assert_null(strstr(err.msg, "secret"));
    assert_non_null(strstr(err.msg, "password"));
    assert_int_equal(url_parse(SLICE("http://a.b:0/?secret"), &u, &err), ERR_INVALID);
    assert_null(strstr(err.msg, "secret"));
}

static void test_length(void **state)
{
    (void)state;
    char text[URL_TEXT_MAX + 1];
    struct url u;
    struct err err;
    memset(text, 'a', sizeof(text));
    memcpy(text, "http://a.b/", 11);
    assert_int_equal(url_parse((struct slice){text, URL_TEXT_MAX + 1}, &u, &err), ERR_INVALID);
    assert_int_equal(url_parse((struct slice){text, URL_TEXT_MAX}, &u, &err), ERR_OK);
    assert_int_equal(strlen(u.text), URL_TEXT_MAX);
    url_done(&u);
    memset(text + 7, 'a', 300); /* a host that does not fit */
    assert_int_equal(url_parse((struct slice){text, 307}, &u, &err), ERR_INVALID);
}

struct step {
    const char *from, *reference, *to; /* NULL: refused */
};

static void test_follow(void **state)
{
    (void)state;
    static const struct step rows[] = {
        {"http://a.b/c/d?e", "f", "http://a.b/c/f"},
        {"http://a.b/c/d?e", "/f?g#h", "http://a.b/f?g"},
        {"http://a.b/c/d?e", "?g", "http://a.b/c/d?g"},
        {"http://a.b/c/d?e", "../../../f", "http://a.b/f"},
        {"http://a.b:81/c", "//d.e/f", "http://d.e/f"},
        {"https://a.b/c", "//d.e:82/f", "https://d.e:82/f"},
        {"https://a.b/c", "http://d.e", "http://d.e/"},
        {"https://a.b/c", "HTTP://d.e/f g", "http://d.e/f%20g"},
        {"http://a.b/c", "./x:y", "http://a.b/x:y"},
        {"http://a.b/c", "//user@d.e/", NULL},
        {"http://a.b/c", "http://user@d.e/", NULL},
        {"http://a.b/c", "//0x7f.1/", NULL},
        {"http://a.b/c", "//134744072/", NULL},
        {"http://a.b/c", "http://127.1/", NULL},
        {"http://a.b/c", "ftp://d.e/", NULL},
        {"http://a.b/c", "file:///etc/passwd", NULL},
        {"http://a.b/c", "javascript:x", NULL},
        {"http://a.b/c", "http:d", NULL},
        {"http://a.b/c", "\\\\d.e/", NULL},
        {"http://a.b/c", "/\\d.e/", NULL},
        {"http://a.b/c", "/\r\nX: y", NULL},
    };
    struct err err;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct url from, to;
        assert_int_equal(url_parse(slice_of(rows[i].from), &from, &err), ERR_OK);
        enum err_code code = url_follow(&from, slice_of(rows[i].reference), &to, &err);
        if ((code == ERR_OK) != (rows[i].to != NULL))
            fail_msg("%s: %s", rows[i].reference, code == ERR_OK ? to.text : err.msg);
        if (code == ERR_OK) {
            assert_string_equal(to.text, rows[i].to);
            url_done(&to);
        }
        url_done(&from);
    }
}

static bool same(const char *one, const char *other)
{
    struct url a, b;
    assert_int_equal(url_parse(slice_of(one), &a, NULL), ERR_OK);
    assert_int_equal(url_parse(slice_of(other), &b, NULL), ERR_OK);
    bool ret = url_same_origin(&a, &b);
    url_done(&a);
    url_done(&b);
    return ret;
}

static void test_origins(void **state)
{
    (void)state;
    assert_true(same("http://A.b/x", "http://a.b:80/y"));
    assert_false(same("http://a.b/", "https://a.b/"));
    assert_false(same("http://a.b/", "https://a.b:80/"));
    assert_false(same("http://a.b/", "http://a.b:81/"));
    assert_false(same("http://a.b/", "http://c.a.b/"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_secrets_are_not_told),
        cmocka_unit_test(test_length),
        cmocka_unit_test(test_follow),
        cmocka_unit_test(test_origins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
