/* Header lists, targets, queries and the small tables of HTTP. */
#include "http_msg.h"
#include "unit.h"

static void each_byte_is_of_a_name_of_a_value_or_of_none(void **state)
{
    (void)state;
    static const char others[] = "!#$%&'*+-.^_`|~";
    for (unsigned byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        assert_int_equal(http_is_token_char(c), alnum || (c != '\0' && strchr(others, c) != NULL));
        assert_int_equal(http_is_value_char(c), c == '\t' || (byte >= ' ' && byte != 0x7f));
        for (size_t at = 0; at < 20; at++) {
            char text[20];
            memset(text, (int)(0x20 + at * 11), sizeof(text));
            text[at] = c;
            size_t span = http_is_value_char(c) ? sizeof(text) : at;
            assert_int_equal(http_value_span((struct slice){text, sizeof(text)}), span);
            assert_int_equal(http_value_span((struct slice){text, at}), at);
        }
    }
}

static void headers_keep_order_and_find_in_any_case(void **state)
{
    (void)state;
    struct http_headers h;
    struct slice value;
    http_headers_init(&h);
    assert_int_equal(http_headers_add(&h, SLICE("Host"), SLICE("a")), ERR_OK);
    assert_int_equal(http_headers_add(&h, SLICE("Accept"), SLICE("  x, y\t")), ERR_OK);
    assert_int_equal(http_headers_add(&h, SLICE("ACCEPT"), SLICE("")), ERR_OK);
    assert_true(http_headers_get(&h, "accept", &value));
    assert_true(slice_is(value, "x, y"));
    assert_int_equal(http_headers_count(&h, "accept", &value), 2);
    assert_true(slice_is(value, "x, y"));
    assert_int_equal(http_headers_count(&h, "accepted", &value), 0);
    assert_true(http_headers_has(&h, "HOST") && !http_headers_has(&h, "hos"));
    assert_true(slice_is(http_headers_name(&h, 2), "ACCEPT"));
    assert_int_equal(http_headers_value(&h, 2).len, 0);
    assert_false(http_headers_get(&h, "accep", &value));
    http_headers_reset(&h);
    assert_false(http_headers_get(&h, "host", &value));
    http_headers_done(&h);
}

static void headers_refuse_what_would_break_a_message(void **state)
{
    (void)state;
    static const struct {
        struct slice name, value;
    } bad[] = {
        {{"", 0}, {"a", 1}},      {{"a b", 3}, {"a", 1}},       {{"a:", 2}, {"a", 1}},
        {{"a\x80", 2}, {"a", 1}}, {{"a", 1}, {"a\r\nb: c", 7}}, {{"a", 1}, {"a\nb", 3}},
        {{"a", 1}, {"a\0b", 3}},  {{"a", 1}, {"a\x7f", 2}},     {{"a\0", 2}, {"a", 1}},
    };
    struct http_headers h;
    http_headers_init(&h);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(http_headers_add(&h, bad[i].name, bad[i].value), ERR_INVALID);
    assert_int_equal(http_headers_add(&h, SLICE("a"), SLICE("\xc3\xa9 \t x")), ERR_OK);
    assert_int_equal(h.count, 1);
    http_headers_done(&h);
}

static void headers_are_bounded(void **state)
{
    (void)state;
    struct http_headers h;
    http_headers_init(&h);
    for (unsigned i = 0; i < HTTP_HEADERS_MAX; i++)
        assert_int_equal(http_headers_add(&h, SLICE("a"), SLICE("b")), ERR_OK);
    assert_int_equal(http_headers_add(&h, SLICE("a"), SLICE("b")), ERR_TOO_LARGE);
    http_headers_reset(&h);
    static char big[HTTP_HEAD_MAX];
    memset(big, 'x', sizeof(big));
    struct slice fits = {big, sizeof(big) - 1}, too_long = {big, sizeof(big)};
    assert_int_equal(http_headers_add(&h, SLICE("a"), too_long), ERR_TOO_LARGE);
    assert_int_equal(http_headers_add(&h, SLICE("a"), fits), ERR_OK);
    assert_int_equal(http_headers_add(&h, SLICE("a"), SLICE("")), ERR_TOO_LARGE);
    http_headers_done(&h);
}

static bool is_of_x(struct slice name, const void *ctx)
{
    assert_string_equal(ctx, "context");
    return name.ptr[0] == 'x';
}

static void names_of_any_length_are_found(void **state)
{
    static char name[100];
    (void)state;
    memset(name, 'n', sizeof(name));
    for (size_t len = 1; len <= sizeof(name); len++) {
        struct http_headers h;
        http_headers_init(&h);
        assert_int_equal(http_headers_add(&h, (struct slice){name, len}, SLICE("v")), ERR_OK);
        assert_int_equal(http_headers_find(&h, (struct slice){name, len}, 0), 0);
        assert_int_equal(http_headers_find(&h, (struct slice){name, len - 1}, 0), 1);
        http_headers_done(&h);
    }
}

/* Names of lengths that have the same bit, before and behind what goes. */
static void dropped_headers_are_gone(void **state)
{
    static const char *const names[] = {"x-1",
                                        "abc",
                                        "x-of-a-name-with-three-more-than-32",
                                        "x",
                                        "a-name-with-just-as-many-letters-in",
                                        "last"};
    struct http_headers h;
    struct slice found;
    (void)state;
    http_headers_init(&h);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_int_equal(http_headers_add(&h, slice_of(names[i]), slice_of(names[i])), ERR_OK);
    http_headers_drop(&h, is_of_x, "context");
    assert_int_equal(h.count, 3);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_true(http_headers_get(&h, names[i], &found) == (names[i][0] != 'x'));
    assert_true(slice_is(http_headers_value(&h, 0), "abc"));
    assert_true(slice_is(http_headers_value(&h, 2), "last"));
    http_headers_done(&h);
}

/* A few are kept in the list itself, more of them elsewhere. */
static void headers_of_any_number_keep_their_order(void **state)
{
    enum { MANY = 3 * HTTP_HEADERS_FEW };
    struct http_headers h, copy;
    struct slice found;
    (void)state;
    http_headers_init(&h);
    http_headers_init(&copy);
    for (unsigned n = 0; n < MANY; n++) {
        char name[] = {(char)('a' + n), '\0'};
        char value[] = {' ', (char)('A' + n), ' ', '\0'};
        assert_int_equal(http_headers_add_known(&h, slice_of(name), slice_of(value)), ERR_OK);
        for (unsigned i = 0; i <= n; i++) {
            char then[] = {(char)('A' + i), '\0'};
            assert_true(slice_is(http_headers_value(&h, i), then));
        }
    }
    for (unsigned n = MANY; n-- > 0;)
        assert_int_equal(http_headers_copy(&copy, &h, n), ERR_OK);
    assert_int_equal(copy.count, MANY);
    assert_true(http_headers_get(&copy, "A", &found) && slice_is(found, "A"));
    assert_true(slice_is(http_headers_name(&copy, 0), "x"));
    http_headers_reset(&h);
    assert_int_equal(http_headers_add(&h, SLICE("again"), SLICE("1")), ERR_OK);
    assert_true(http_headers_get(&h, "again", &found) && slice_is(found, "1"));
    http_headers_done(&copy);
    http_headers_done(&h);
}

static void list_headers_are_searched_over_all_lines(void **state)
{
    (void)state;
    struct http_headers h;
    http_headers_init(&h);
    assert_int_equal(http_headers_add(&h, SLICE("Connection"), SLICE(" keep-alive ,,x")), ERR_OK);
    assert_int_equal(http_headers_add(&h, SLICE("connection"), SLICE("Upgrade")), ERR_OK);
    assert_true(http_headers_has_token(&h, "connection", "Keep-Alive"));
    assert_true(http_headers_has_token(&h, "connection", "x"));
    assert_true(http_headers_has_token(&h, "connection", "upgrade"));
    assert_false(http_headers_has_token(&h, "connection", "alive"));
    assert_false(http_headers_has_token(&h, "connection", "close"));

    static const char *const elements[] = {"keep-alive", "x", "Upgrade"};
    struct http_list list = http_list_begin(&h, "Connection");
    struct slice element;
    for (size_t i = 0; i < ARRAY_LEN(elements); i++) {
        assert_true(http_list_next(&list, &element));
        assert_true(slice_is(element, elements[i]));
    }
    assert_false(http_list_next(&list, &element));
    assert_false(http_list_next(&list, &element));
    list = http_list_begin(&h, "accept");
    assert_false(http_list_next(&list, &element));
    http_headers_done(&h);
}

static void targets_are_split(void **state)
{
    (void)state;
    static const struct {
        const char *target, *path, *query; /* path NULL: refused */
    } table[] = {
        {"/", "/", ""},
        {"/a/b?x=1?y", "/a/b", "x=1?y"},
        {"/?", "/", ""},
        {"//a", "//a", ""},
        {"/%2e%2e/%00", "/%2e%2e/%00", ""},
        {"http://h/a?b", "/a", "b"},
        {"HTTPS://h:1", "/", ""},
        {"http://h?b", "/", "b"},
        {"*", "*", ""},
        {"", NULL, NULL},
        {"a", NULL, NULL},
        {"host:80", NULL, NULL},
        {"http://", NULL, NULL},
        {"http:///a", NULL, NULL},
        {"ftp://h/a", NULL, NULL},
        {"/a#b", NULL, NULL},
        {"/a b", NULL, NULL},
        {"/\xc3\xa9", NULL, NULL},
        {"/\x7f", NULL, NULL},
        {"**", NULL, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct http_target t;
        enum err_code code = http_target_split(slice_of(table[i].target), &t);
        assert_int_equal(code, table[i].path != NULL ? ERR_OK : ERR_INVALID);
        if (code != ERR_OK)
            continue;
        assert_true(slice_is(t.path, table[i].path));
        assert_true(slice_is(t.query, table[i].query));
    }
}

static void query_values_are_decoded(void **state)
{
    (void)state;
    static const struct {
        const char *query, *key, *value;
        enum err_code code;
    } table[] = {
        {"a=1&b=2", "b", "2", ERR_OK},
        {"a=1&a=2", "a", "1", ERR_OK},
        {"a=x%20y+z%2B", "a", "x y z+", ERR_OK},
        {"%61=1", "a", "1", ERR_OK},
        {"a", "a", "", ERR_OK},
        {"a=", "a", "", ERR_OK},
        {"&&a=b=c&", "a", "b=c", ERR_OK},
        {"aa=1", "a", "", ERR_NOT_FOUND},
        {"", "a", "", ERR_NOT_FOUND},
        {"%=1&a=2", "a", "2", ERR_OK},
        {"a=%", "a", "", ERR_INVALID},
        {"a=%4", "a", "", ERR_INVALID},
        {"a=%zz", "a", "", ERR_INVALID},
        {"a=%00", "a", "", ERR_INVALID},
        {"a=123456789", "a", "", ERR_TOO_LARGE},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct buf out;
        buf_init(&out, 8);
        assert_int_equal(http_query_get(slice_of(table[i].query), table[i].key, &out),
                         table[i].code);
        if (table[i].code == ERR_OK)
            assert_true(slice_is(buf_slice(&out), table[i].value));
        buf_done(&out);
    }
}

static void a_key_is_taken_out_of_a_query(void **state)
{
    (void)state;
    static const char *const table[][2] = {
        {"", ""},
        {"a=1", ""},
        {"a=1&b=2", "b=2"},
        {"b=2&a=1", "b=2"},
        {"b&%61&c", "b&c"},
        {"a&a=&a=%zz&b=a", "b=a"},
        {"aa=1&A=%&=a", "aa=1&A=%&=a"},
        {"b&&a", "b&"},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct buf out;
        buf_init(&out, SIZE_MAX);
        http_query_without(slice_of(table[i][0]), "a", &out);
        buf_adds(&out, ".");
        assert_int_equal(out.len, strlen(table[i][1]) + 1);
        assert_memory_equal(out.ptr, table[i][1], out.len - 1);
        buf_done(&out);
    }
}

static void percent_encoding_keeps_the_unreserved(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, SIZE_MAX);
    http_percent_encode(&out, (struct slice){"aZ0-._~/ +%\xc3\0", 13});
    assert_string_equal(out.ptr, "aZ0-._~%2F%20%2B%25%C3%00");
    buf_done(&out);
}

static void parts_of_paths_are_decoded(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum err_code code;
        const char *value;
    } table[] = {
        {"", ERR_OK, ""},
        {"a+b", ERR_OK, "a+b"},
        {"a%20%2f", ERR_OK, "a /"},
        {"%2", ERR_INVALID, NULL},
        {"%zz", ERR_INVALID, NULL},
        {"a%00", ERR_INVALID, NULL},
        {"%41%", ERR_INVALID, ""},
        {"12345678", ERR_OK, "12345678"},
        {"123456789", ERR_TOO_LARGE, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct buf out;
        buf_init(&out, 8);
        assert_int_equal(http_percent_decode(slice_of(table[i].text), &out), table[i].code);
        if (table[i].code == ERR_OK)
            assert_true(slice_is(buf_slice(&out), table[i].value));
        buf_done(&out);
    }
}

static void tables_have_answers_for_the_unknown(void **state)
{
    (void)state;
    assert_string_equal(http_media_type(SLICE("ComfyUI_0001_.PNG")), "image/png");
    assert_string_equal(http_media_type(SLICE("png")), "application/octet-stream");
    assert_string_equal(http_media_type(SLICE("")), "application/octet-stream");
    assert_string_equal(http_reason(200), "OK");
    assert_string_equal(http_reason(299), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_byte_is_of_a_name_of_a_value_or_of_none),
        cmocka_unit_test(headers_keep_order_and_find_in_any_case),
        cmocka_unit_test(headers_refuse_what_would_break_a_message),
        cmocka_unit_test(headers_are_bounded),
        cmocka_unit_test(names_of_any_length_are_found),
        cmocka_unit_test(dropped_headers_are_gone),
        cmocka_unit_test(headers_of_any_number_keep_their_order),
        cmocka_unit_test(list_headers_are_searched_over_all_lines),
        cmocka_unit_test(targets_are_split),
        cmocka_unit_test(query_values_are_decoded),
        cmocka_unit_test(a_key_is_taken_out_of_a_query),
        cmocka_unit_test(percent_encoding_keeps_the_unreserved),
        cmocka_unit_test(parts_of_paths_are_decoded),
        cmocka_unit_test(tables_have_answers_for_the_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
