/* Keys that are taken and refused, and store URLs taken apart. */
#include "store_url.h"
#include "unit.h"

#include <stdlib.h>

static char key_room[STORE_KEY_MAX + 8];

static struct slice letters(size_t n, const char *behind)
{
    memset(key_room, 'a', n);
    memcpy(key_room + n, behind, strlen(behind) + 1);
    return slice_of(key_room);
}

static void ids_are_refused_never_cleaned(void **state)
{
    (void)state;
    static const char *const good[] = {"a",   "_",    "A-b_c.d", "0",  "a.tmp.b", "tmp",
                                       "a.t", "atmp", "x.TMP",   "a-", "a."};
    static const char *const bad[] = {"",      ".a",  "-a",       "a..b", "..",
                                      "a/b",   "a b", "a~b",      "a\\b", ".tmp",
                                      "a.tmp", "a\n", "\xc3\xa9", "a%2e", "a:b"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(store_id_ok(slice_of(good[i])) && store_key_ok(slice_of(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(store_id_ok(slice_of(bad[i])));
    assert_false(store_id_ok((struct slice){"a\0b", 3}));
    assert_true(store_id_ok(letters(128, "")));
    assert_false(store_id_ok(letters(129, "")));
}

static void keys_are_ids_with_a_suffix(void **state)
{
    (void)state;
    static const char *const good[] = {"a~task", "a~end.1", "a~.", "_~0"};
    static const char *const bad[] = {"a~",    "~task", "a~~task", "a~task~",    "a~Task",
                                      "a~t_k", "a~t-k", ".~task",  "a.tmp~task", "a~t/k"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(store_key_ok(slice_of(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(store_key_ok(slice_of(bad[i])));
    assert_true(store_key_ok(letters(128, "~end.123456789012345678901234567")));
    assert_false(store_key_ok(letters(128, "~end.1234567890123456789012345678")));
    assert_false(store_key_ok(letters(129, "~task")));
}

static void check_text(const char *is, const char *expected)
{
    if (expected == NULL)
        assert_null(is);
    else
        assert_string_equal(is, expected);
}

static void urls_are_taken_apart(void **state)
{
    (void)state;
    static const struct {
        const char *url, *scheme, *user, *password, *host;
        unsigned port;
        const char *path;
    } rows[] = {
        {"mem:", "mem", NULL, NULL, NULL, 0, NULL},
        {"file:///a/b", "file", NULL, NULL, NULL, 0, "/a/b"},
        {"file:/a/b", "file", NULL, NULL, NULL, 0, "/a/b"},
        {"file:a", "file", NULL, NULL, NULL, 0, "a"},
        {"file:///a%20b%2fc", "file", NULL, NULL, NULL, 0, "/a b/c"},
        {"redis://h", "redis", NULL, NULL, "h", 0, NULL},
        {"redis://h:", "redis", NULL, NULL, "h", 0, NULL},
        {"redis://:p%40ss@h:6379/2", "redis", NULL, "p@ss", "h", 6379, "/2"},
        {"redis://u:a:b@h/", "redis", "u", "a:b", "h", 0, "/"},
        {"mysql://u@[::1]:3306/db", "mysql", "u", NULL, "::1", 3306, "/db"},
        {"mysql://[::1]", "mysql", NULL, NULL, "::1", 0, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct store_url url;
        assert_int_equal(store_url_parse(&url, rows[i].url, NULL), ERR_OK);
        check_text(url.scheme, rows[i].scheme);
        check_text(url.user, rows[i].user);
        check_text(url.password, rows[i].password);
        check_text(url.host, rows[i].host);
        check_text(url.path, rows[i].path);
        assert_int_equal(url.port, rows[i].port);
        store_url_done(&url);
    }
}

/* Whatever is wrong with them: "hunter2" is never said. */
static void bad_urls_are_refused_and_passwords_kept(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "hunter2",
        ":hunter2",
        "/hunter2",
        "hunter2:x",
        "Redis://h",
        "redis://u:hunter2 @h",
        "redis://u:hunter2\t@h",
        "redis://u:hunter2#@h",
        "redis://u:hunter2%@h",
        "redis://u:hunter2%4@h",
        "redis://u:hunter2%zz@h",
        "redis://u:hunter2%00@h",
        "redis://u:p@hunter2@h",
        "redis://:a/hunter2@h/0",
        "redis://h:hunter2/0",
        "redis://h:0",
        "redis://h:65536",
        "redis://h:-1",
        "redis://[::1",
        "redis://[::1]hunter2",
        "redis://h/%",
        "redis://h/%2",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct store_url url;
        struct err err = {.code = ERR_OK};
        assert_int_equal(store_url_parse(&url, bad[i], &err), ERR_INVALID);
        assert_int_equal(err.code, ERR_INVALID);
        assert_null(strstr(err.msg, "hunter2"));
    }
}

static void parameters_must_be_asked_for(void **state)
{
    (void)state;
    struct store_url url;
    struct err err;
    unsigned number = 7;
    assert_int_equal(store_url_parse(&url, "x:?b=1&a=%41%2B+&c=3&a=2", NULL), ERR_OK);
    char *value = store_url_param(&url, "a");
    assert_string_equal(value, "A++");
    free(value);
    assert_null(store_url_param(&url, "none"));
    assert_int_equal(store_url_param_uint(&url, "c", 1, 2, &number, &err), ERR_INVALID);
    assert_int_equal(number, 7);
    assert_int_equal(store_url_param_uint(&url, "b", 1, 2, &number, &err), ERR_OK);
    assert_int_equal(number, 1);
    assert_int_equal(store_url_param_uint(&url, "b", 1, 2, &number, &err), ERR_OK);
    assert_int_equal(store_url_check_rest(&url, &err), ERR_INVALID); /* a was given twice */
    assert_non_null(strstr(err.msg, " a "));
    free(store_url_param(&url, "a"));
    assert_int_equal(store_url_check_rest(&url, &err), ERR_OK);
    store_url_done(&url);
}

static void what_may_be_a_password_is_no_name_to_repeat(void **state)
{
    (void)state;
    static const char *const urls[] = {"redis://u:p?hunter=1@h", "redis://u:p@h?hunter=1",
                                       "redis://h?hunter2", "redis://h?Hunter2=1"};
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        struct store_url url;
        struct err err;
        assert_int_equal(store_url_parse(&url, urls[i], &err), i == 0 ? ERR_INVALID : ERR_OK);
        if (i != 0) {
            assert_int_equal(store_url_check_rest(&url, &err), ERR_INVALID);
            store_url_done(&url);
        }
        assert_null(strstr(err.msg, "unter"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_refused_never_cleaned),
        cmocka_unit_test(keys_are_ids_with_a_suffix),
        cmocka_unit_test(urls_are_taken_apart),
        cmocka_unit_test(bad_urls_are_refused_and_passwords_kept),
        cmocka_unit_test(parameters_must_be_asked_for),
        cmocka_unit_test(what_may_be_a_password_is_no_name_to_repeat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
