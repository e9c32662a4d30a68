/* The scanner: grammar, limits, duplicate keys, walking. */
#include "json_scan.h"
#include "splice.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

static enum err_code check(const char *text, const struct json_limits *limits)
{
    /* An exact copy, so that a byte read behind the end is seen. */
    size_t len = strlen(text);
    char *exact = xmalloc(len);
    memcpy(exact, text, len);
    enum err_code code = json_check((struct slice){exact, len}, limits, NULL, NULL);
    free(exact);
    return code;
}

static void the_grammar_of_rfc_8259(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{}",
        "[]",
        "0",
        "-0",
        "1e5",
        "1E+5",
        "1.5e-3",
        "\"\"",
        "true",
        "null",
        " \t\r\n[ ] ",
        "[1,2,[3]]",
        "{\"a\":{\"b\":[]}}",
        "\"\\u00e9\\n\\\\\"",
        "\"\xc3\xa9\"",
        "18446744073709551615",
        "1e400",
        "\"\\ud800\"",
        "\"\\u0000\"",
        "[true,false,null]",
    };
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "[",
        "[1,]",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{'a':1}",
        "01",
        "+1",
        ".5",
        "1.",
        "1e",
        "-",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "\"\xc3\"",
        "\"\xed\xa0\x80\"",
        "\"\xc0\x80\"",
        "nul",
        "True",
        "[1 2]",
        "{\"a\" 1}",
        "[1]]",
        "1 2",
        "\xef\xbb\xbf{}",
        "NaN",
        "Infinity",
        "-Infinity",
        "[}",
        "{]",
        "\"\\",
        "\"\\u",
        "// x\n1",
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_int_equal(check(good[i], &json_from_client), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(check(bad[i], &json_from_client), ERR_INVALID);
}

static void what_python_prints_is_read_from_comfyui_only(void **state)
{
    (void)state;
    assert_int_equal(check("[NaN,Infinity,-Infinity]", &json_from_comfyui), ERR_OK);
    assert_int_equal(check("{\"a\":1,\"a\":2}", &json_from_comfyui), ERR_OK);
    assert_int_equal(check("[Nan]", &json_from_comfyui), ERR_INVALID);
}

static void duplicate_keys_are_found_after_unescaping(void **state)
{
    (void)state;
    static const char *const twice[] = {
        "{\"a\":1,\"a\":2}",
        "{\"a\":1,\"\\u0061\":2}",
        "{\"\xc3\xa9\":1,\"\\u00e9\":2}",
        "{\"\xf0\x9f\x98\x80\":1,\"\\ud83d\\ude00\":2}",
        "{\"x\":{\"k\":1,\"b\":[{}],\"k\":2}}",
        "{\"/\":1,\"\\/\":2}",
        "{\"\xc3\xa9\":1,\"\\udcc3\\udca9\":2}",
        "{\"\\u00e9\":1,\"\\udcc3\\udca9\":2}",
    };
    static const char *const once[] = {
        "{\"a\":1,\"A\":2}",         "{\"a\":{\"a\":{\"a\":1}}}", "[{\"a\":1},{\"a\":1}]",
        "{\"a\":1,\"\\\\u0061\":2}", "{\"\":1,\" \":2}",
    };
    for (size_t i = 0; i < ARRAY_LEN(twice); i++)
        assert_int_equal(check(twice[i], &json_from_client), ERR_INVALID);
    for (size_t i = 0; i < ARRAY_LEN(once); i++)
        assert_int_equal(check(once[i], &json_from_client), ERR_OK);
}

/* An object of n keys, of which the last is called like number `again` (-1: like none), and number
 * `escaped` is spelled with an escape (-1: none). Every third value is an object with such keys. */
static void add_object(struct buf *out, int n, int again, int escaped)
{
    for (int i = 0; i < n; i++) {
        int name = i == n - 1 && again >= 0 ? again : i;
        buf_addf(out, "%s\"%s%d\":", i > 0 ? "," : "{", i == escaped ? "\\u006b" : "k", name);
        buf_adds(out, i % 3 == 1 ? "{\"k0\":{\"k1\":1},\"k1\":2}" : "1");
    }
    buf_adds(out, "}");
}

static void a_key_given_twice_is_found_wherever_it_stands(void **state)
{
    (void)state;
    struct buf text;
    buf_init(&text, SIZE_MAX);
    for (int n = 2; n <= 30; n++) {
        for (int again = -1; again < n - 1; again++) {
            for (int escaped = -1; escaped < n; escaped++) {
                buf_reset(&text);
                buf_adds(&text, "[");
                add_object(&text, 30, -1, escaped);
                buf_adds(&text, ",");
                add_object(&text, n, again, escaped);
                buf_adds(&text, "]");
                assert_int_equal(json_check(buf_slice(&text), &json_from_client, NULL, NULL),
                                 again < 0 ? ERR_OK : ERR_INVALID);
            }
        }
    }
    buf_done(&text);
}

/* Text is looked at in words of eight bytes, wherever they fall. */
static void strings_end_where_they_end(void **state)
{
    (void)state;
    static const char *const odd[] = {"\\\"", "\\\\", "\xc3\xa9", "]", ""};
    static const char *const bad[] = {"\x1f", "\xc3", "\\x", "\""};
    for (size_t len = 0; len < 40; len++) {
        for (size_t at = 0; at <= len; at++) {
            for (size_t i = 0; i < ARRAY_LEN(odd) + ARRAY_LEN(bad); i++) {
                const char *what = i < ARRAY_LEN(odd) ? odd[i] : bad[i - ARRAY_LEN(odd)];
                char room[64];
                int size = snprintf(room, sizeof(room), "[\"%.*s%s%.*s\",\"b\"]", (int)at,
                                    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", what,
                                    (int)(len - at), "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
                char *exact = memcpy(xmalloc((size_t)size), room, (size_t)size);
                struct slice text = {exact, (size_t)size};
                bool ok = json_check(text, &json_from_client, NULL, NULL) == ERR_OK;
                assert_int_equal(ok, i < ARRAY_LEN(odd));
                if (ok) {
                    struct json_iter it;
                    struct slice value;
                    json_iter_init(&it, text);
                    assert_true(json_next(&it, NULL, &value));
                    assert_int_equal(value.len, text.len - strlen("[,\"b\"]"));
                    assert_true(json_next(&it, NULL, &value));
                    assert_true(json_string_is(value, "b"));
                }
                free(exact);
            }
        }
    }
}

static void many_keys_stay_linear_and_right(void **state)
{
    (void)state;
    struct buf text;
    buf_init(&text, SIZE_MAX);
    buf_adds(&text, "{");
    for (int i = 0; i < 100000; i++)
        buf_addf(&text, "%s\"key%d\":%d", i > 0 ? "," : "", i, i);
    size_t before = text.len;
    buf_adds(&text, "}");
    assert_int_equal(json_check(buf_slice(&text), &json_from_client, NULL, NULL), ERR_OK);
    text.len = before;
    buf_adds(&text, ",\"key77777\":0}");
    assert_int_equal(json_check(buf_slice(&text), &json_from_client, NULL, NULL), ERR_INVALID);
    buf_done(&text);
}

static void bombs_are_refused(void **state)
{
    (void)state;
    struct buf text;
    struct json_fault fault;
    buf_init(&text, SIZE_MAX);
    for (int i = 0; i < 64; i++)
        buf_adds(&text, "[");
    for (int i = 0; i < 64; i++)
        buf_adds(&text, "]");
    assert_int_equal(json_check(buf_slice(&text), &json_from_client, NULL, NULL), ERR_OK);
    buf_reset(&text);
    for (int i = 0; i < 1000000; i++)
        buf_adds(&text, "[");
    assert_int_equal(json_check(buf_slice(&text), &json_from_client, &fault, NULL), ERR_TOO_LARGE);
    assert_int_equal(fault.offset, 64);
    buf_reset(&text);
    buf_adds(&text, "[");
    for (int i = 0; i < JSON_VALUES_MAX; i++)
        buf_adds(&text, "1,");
    buf_adds(&text, "1]");
    assert_int_equal(json_check(buf_slice(&text), &json_from_client, NULL, NULL), ERR_TOO_LARGE);
    buf_done(&text);
}

static void a_fault_has_a_place(void **state)
{
    (void)state;
    struct json_fault fault;
    struct err err;
    enum err_code code = json_check(SLICE("{\n  \"a\": tru\n}"), &json_from_client, &fault, &err);
    assert_int_equal(code, ERR_INVALID);
    assert_int_equal(fault.offset, 9);
    assert_int_equal(fault.line, 2);
    assert_int_equal(fault.column, 8);
    assert_non_null(strstr(err.msg, "line 2, column 8"));
}

static void walking_gives_the_bytes_as_they_stand(void **state)
{
    (void)state;
    struct slice doc = SLICE(" { \"a\" : [ 1 , \"x,]\" , { \"b\\\"\" : 18446744073709551615 } ] ,"
                             "\"\\u0063\":null } ");
    struct slice value;
    struct slice key;
    struct json_iter it;
    assert_int_equal(json_check(doc, &json_from_client, NULL, NULL), ERR_OK);
    struct slice top = json_trim(doc);
    assert_true(json_get(top, "c", &value));
    assert_true(slice_is(value, "null"));
    assert_false(json_get(top, "d", &value));
    assert_true(json_get(top, "a", &value));
    json_iter_init(&it, value);
    assert_true(json_next(&it, &key, &value));
    assert_int_equal(key.len, 0);
    assert_true(slice_is(value, "1"));
    assert_true(json_next(&it, NULL, &value));
    assert_true(slice_is(value, "\"x,]\""));
    assert_true(json_next(&it, NULL, &value));
    struct slice number;
    assert_true(json_get(value, "b\"", &number));
    assert_true(slice_is(number, "18446744073709551615"));
    assert_false(json_next(&it, NULL, &value));
    assert_false(json_get_path(top, &value, "a", "b", (char *)NULL));
}

static void several_keys_are_picked_in_one_walk(void **state)
{
    (void)state;
    static const char *const keys[] = {"a", "b", "none"};
    struct slice found[3];
    json_pick(SLICE("{\"b\" : [1], \"a\":1, \"c\":{\"none\":1}, \"\\u0061\": 2}"), keys, found, 3);
    assert_true(slice_is(found[0], "2")); /* the last one, in any spelling */
    assert_true(slice_is(found[1], "[1]"));
    assert_int_equal(found[2].len, 0);
    json_pick(SLICE("[\"a\"]"), keys, found, 3);
    assert_int_equal(found[0].len, 0);
}

/* In memory as long as it is and no longer. */
static bool is_flat(const char *text, struct slice *ret, size_t count, size_t *ret_len)
{
    static const char *const keys[] = {"a", "b"};
    size_t len = strlen(text);
    char *copy = malloc(len + (len == 0));
    assert_non_null(copy);
    memcpy(copy, text, len);
    bool ok = json_pick_flat((struct slice){copy, len}, keys, ret, count, ret_len);
    for (size_t i = 0; ok && i < count; i++)
        if (ret[i].len > 0)
            ret[i].ptr = text + (ret[i].ptr - copy);
    free(copy);
    return ok;
}

static void scalars_are_checked_and_picked_in_one_walk(void **state)
{
    (void)state;
    static const char *const others[] = {
        "",
        "[]",
        " {}",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{\"a\":01}",
        "{\"a\" 1}",
        "{\"a\":1]",
        "{\"a\":1 2}",
        "{a:1}",
        "{\"a\":\"x}",
        "{\"a\":{}}",
        "{\"a\":[1]}",
        "{\"a\":\"\xff\"}",
        "{,}",
        "{\"a\":nil}",
        "{\"a\":1;\"b\":2}",
    };
    struct slice found[2];
    size_t len;
    assert_true(is_flat("{\"b\" : NaN, \"a\":1, \"c\":{", found, 0, &len) == false);
    assert_true(is_flat("{\"b\" : NaN, \"a\":1 , \"\\u0061\": \"}\\\"\"}, {", found, 2, &len));
    assert_int_equal(len, strlen("{\"b\" : NaN, \"a\":1 , \"\\u0061\": \"}\\\"\"}"));
    assert_true(slice_is(found[0], "\"}\\\"\"")); /* the last one, in any spelling */
    assert_true(slice_is(found[1], "NaN"));
    assert_true(is_flat("{ }", found, 2, &len));
    assert_int_equal(len, 3);
    assert_int_equal(found[0].len, 0);
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        assert_false(is_flat(others[i], found, 2, &len));
}

static void strings_unescape_as_python_would(void **state)
{
    (void)state;
    static const struct {
        const char *token, *text;
    } table[] = {
        {"\"\"", ""},
        {"\"a\\n\\t\\\"\\\\\\/\"", "a\n\t\"\\/"},
        {"\"\\u00e9\\u20ac\"", "\xc3\xa9\xe2\x82\xac"},
        {"\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80"},
        {"\"\\ud83d\"", "\xef\xbf\xbd"},
        {"\"\\ud83dx\"", "\xef\xbf\xbdx"},
        {"\"\\udcff\"", "\xff"},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct buf out;
        buf_init(&out, 100);
        assert_int_equal(json_unescape(slice_of(table[i].token), &out), ERR_OK);
        assert_true(slice_is(buf_slice(&out), table[i].text));
        assert_true(json_string_is(slice_of(table[i].token), table[i].text));
        assert_false(json_string_is(slice_of(table[i].token), "no"));
        buf_done(&out);
    }
    struct buf small;
    buf_init(&small, 2);
    assert_int_equal(json_unescape(SLICE("\"abc\""), &small), ERR_TOO_LARGE);
    buf_done(&small);
}

static void numbers(void **state)
{
    (void)state;
    int64_t whole;
    double real;
    assert_true(json_to_i64(SLICE("-9223372036854775808"), &whole) && whole == INT64_MIN);
    assert_true(json_to_i64(SLICE("9223372036854775807"), &whole) && whole == INT64_MAX);
    assert_false(json_to_i64(SLICE("9223372036854775808"), &whole));
    assert_false(json_to_i64(SLICE("1.0"), &whole));
    assert_true(json_to_double(SLICE("-1.5e1"), &real) && real == -15);
    assert_false(json_to_double(SLICE("1e400"), &real));
    assert_false(json_to_double(SLICE("NaN"), &real));
}

static void only_what_is_named_changes(void **state)
{
    (void)state;
    struct splice s;
    struct buf out;
    struct slice text = SLICE("{ \"a\":  1 ,\"b\" : 2}");
    splice_init(&s);
    buf_init(&out, SIZE_MAX);
    splice_replace(&s, text, (struct slice){text.ptr + 17, 1}, "22");
    splice_replace(&s, text, (struct slice){text.ptr + 8, 1}, "");
    assert_int_equal(splice_apply(&s, text, &out), ERR_OK);
    assert_string_equal(out.ptr, "{ \"a\":   ,\"b\" : 22}");
    splice_done(&s);
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_grammar_of_rfc_8259),
        cmocka_unit_test(what_python_prints_is_read_from_comfyui_only),
        cmocka_unit_test(duplicate_keys_are_found_after_unescaping),
        cmocka_unit_test(a_key_given_twice_is_found_wherever_it_stands),
        cmocka_unit_test(strings_end_where_they_end),
        cmocka_unit_test(many_keys_stay_linear_and_right),
        cmocka_unit_test(bombs_are_refused),
        cmocka_unit_test(a_fault_has_a_place),
        cmocka_unit_test(walking_gives_the_bytes_as_they_stand),
        cmocka_unit_test(several_keys_are_picked_in_one_walk),
        cmocka_unit_test(scalars_are_checked_and_picked_in_one_walk),
        cmocka_unit_test(strings_unescape_as_python_would),
        cmocka_unit_test(numbers),
        cmocka_unit_test(only_what_is_named_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
