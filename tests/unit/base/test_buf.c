/* Slices, capped buffers, counted blobs, errors, and log lines' escaping of what comes from
 * outside. */
#include "buf.h"
#include "json_scan.h"
#include "log.h"
#include "unit.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void a_buf_stops_at_its_cap_and_stays_as_it_was(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 5);
    assert_int_equal(buf_append(&b, SLICE("abc")), ERR_OK);
    assert_int_equal(buf_append(&b, SLICE("def")), ERR_TOO_LARGE);
    assert_int_equal(buf_printf(&b, "%d", 123456), ERR_TOO_LARGE);
    assert_string_equal(b.ptr, "abc");
    assert_int_equal(buf_append(&b, SLICE("de")), ERR_OK);
    assert_int_equal(buf_append(&b, SLICE("f")), ERR_TOO_LARGE);
    assert_int_equal(b.len, 5);
    buf_consume(&b, 2);
    assert_string_equal(b.ptr, "cde");
    buf_done(&b);
}

static void json_strings_are_always_valid(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, SIZE_MAX);
    buf_add_json_string(&b, SLICE("a\"\\\n\x01\x7f\xc3\xa9\xff"));
    assert_string_equal(b.ptr, "\"a\\\"\\\\\\n\\u0001\\u007f\xc3\xa9\xef\xbf\xbd\"");
    buf_done(&b);
}

static void utf8_has_one_form_for_each_character(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len;
    } table[] = {
        {"a", 1},
        {"\xc3\xa9", 2},
        {"\xe2\x82\xac", 3},
        {"\xf0\x9f\x98\x80", 4},
        {"\x80", 0},
        {"\xc0\x80", 0},
        {"\xc3", 0},
        {"\xe0\x80\x80", 0},
        {"\xed\xa0\x80", 0},
        {"\xf4\x90\x80\x80", 0},
        {"\xf5\x80\x80\x80", 0},
        {"\xff", 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        assert_int_equal(utf8_char_len(table[i].text, strlen(table[i].text)), table[i].len);
}

static void whole_numbers_have_bounds(void **state)
{
    (void)state;
    uint64_t n = 7;
    assert_true(slice_to_u64(SLICE("18446744073709551615"), UINT64_MAX, &n) && n == UINT64_MAX);
    assert_false(slice_to_u64(SLICE("18446744073709551616"), UINT64_MAX, &n));
    assert_false(slice_to_u64(SLICE(""), UINT64_MAX, &n));
    assert_false(slice_to_u64(SLICE("-1"), UINT64_MAX, &n));
    assert_false(slice_to_u64(SLICE("11"), 10, &n));
}

static void errors_keep_the_cause_behind_the_context(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(err_set(&err, ERR_IO, "no room for %s", "x"), ERR_IO);
    assert_int_equal(err_prefix(&err, "saving"), ERR_IO);
    assert_string_equal(err.msg, "saving: no room for x");
    assert_int_equal(err_set(NULL, ERR_BUSY, "nobody listens"), ERR_BUSY);
    assert_string_equal(err_name(ERR_BUSY), "busy");
}

/* What log_*() wrote since the last call, by way of a pipe in place of stderr. */
static void logged(void (*say)(void), char *ret, size_t room)
{
    int ends[2];
    int old = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    say();
    log_flush();
    assert_true(dup2(old, STDERR_FILENO) >= 0);
    (void)close(old);
    (void)close(ends[1]);
    ssize_t n = read(ends[0], ret, room - 1);
    ret[n > 0 ? n : 0] = '\0';
    (void)close(ends[0]);
}

static void say_hostile(void)
{
    const struct log_field fields[] = {{"task", SLICE("a b\n\"=\x1b[31m")}, {NULL, SLICE_EMPTY}};
    log_fields(LOG_INFO, "test", fields, "said");
}

static void say_long(void)
{
    static char text[5000];
    memset(text, 'x', sizeof(text) - 1);
    log_info("test", "%s", text);
}

static void log_lines_are_bounded_and_escaped(void **state)
{
    (void)state;
    char text[8192];
    logged(say_hostile, text, sizeof(text));
    assert_non_null(strstr(text, "info test said task=\"a b\\x0a\\x22=\\x1b[31m\"\n"));
    logged(say_long, text, sizeof(text));
    assert_int_equal(strlen(text), LOG_LINE_MAX);
    assert_int_equal(text[LOG_LINE_MAX - 1], '\n');
}

static void say_nothing(void)
{
    log_info("test", "nothing");
}

static double time_now(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return (double)ts.tv_sec + (double)(ts.tv_nsec / 1000000) / 1e3;
}

/* In seconds. */
static double time_of(const char *line)
{
    struct tm tm = {.tm_isdst = 0};
    char *end = strptime(line, "%Y-%m-%dT%H:%M:%S", &tm);
    assert_true(end != NULL && *end == '.' && end[4] == 'Z' && end[5] == ' ');
    return (double)timegm(&tm) + strtod(end, NULL);
}

static void log_lines_tell_when(void **state)
{
    (void)state;
    char text[8192];
    for (unsigned n = 0; n < 24; n++) { /* more than a second */
        double before = time_now();
        logged(say_nothing, text, sizeof(text));
        assert_true(time_of(text) > before - 1e-4 && time_of(text) < time_now() + 1e-4);
        (void)usleep(47000);
    }
}

static void say_json(void)
{
    const struct log_field fields[] = {{"task", SLICE("a\"b\n\xff")}, {NULL, SLICE_EMPTY}};
    log_set_json(true);
    log_fields(LOG_WARN, "test", fields, "said \\ it");
    log_child("comfyui", SLICE("\x1b[31mred"));
    log_set_json(false);
}

static void json_lines_are_json(void **state)
{
    (void)state;
    char text[8192];
    struct slice value;
    logged(say_json, text, sizeof(text));
    char *second = strchr(text, '\n') + 1;
    struct slice first = {text, (size_t)(second - text)};
    assert_int_equal(json_check(first, &json_from_client, NULL, NULL), ERR_OK);
    assert_true(json_get(json_trim(first), "task", &value));
    assert_true(slice_is(value, "\"a\\\"b\\n\xef\xbf\xbd\""));
    assert_true(json_get(json_trim(first), "message", &value) &&
                json_string_is(value, "said \\ it"));
    assert_int_equal(json_check(slice_of(second), &json_from_client, NULL, NULL), ERR_OK);
    assert_true(json_get(json_trim(slice_of(second)), "module", &value) &&
                json_string_is(value, "comfyui"));
}

static void bufs_share_a_budget(void **state)
{
    struct budget budget = {.max = 1000};
    struct buf a;
    struct buf b;
    struct buf c;
    (void)state;
    buf_init_within(&a, 599, &budget);
    buf_init_within(&b, SIZE_MAX, &budget);
    assert_int_equal(budget.used, 0);
    assert_int_equal(buf_reserve(&a, 500), ERR_OK);
    assert_int_equal(buf_append(&a, SLICE("abc")), ERR_OK);
    assert_int_equal(budget.used, 501);
    assert_int_equal(buf_reserve(&a, 500), ERR_OK); /* not twice as much: it may never be larger */
    assert_int_equal(budget.used, 600);
    assert_int_equal(buf_reserve(&b, 400), ERR_BUSY);
    assert_int_equal(budget.refused, 1);
    assert_null(b.ptr);
    assert_int_equal(buf_reserve(&b, 399), ERR_OK);
    assert_int_equal(budget_left(&budget), 0);
    assert_int_equal(buf_reserve(&a, 600), ERR_TOO_LARGE);
    assert_true(slice_is(buf_slice(&a), "abc"));
    c = a; /* handed over with its part */
    buf_init(&a, 0);
    buf_done(&a);
    assert_int_equal(budget.used, 1000);
    buf_done(&c);
    assert_int_equal(budget.used, 400);
    assert_int_equal(buf_append(&c, SLICE("again")), ERR_OK);
    assert_int_equal(budget.used, 464);
    buf_init(&a, SIZE_MAX);
    assert_int_equal(buf_reserve(&a, 999), ERR_OK);
    buf_charge(&a, &budget); /* is there already */
    assert_int_equal(budget.used, 1464);
    assert_int_equal(budget_left(&budget), 0);
    buf_done(&a);
    buf_done(&b);
    buf_done(&c);
    assert_int_equal(budget.used, 0);
}

static void blobs_are_counted(void **state)
{
    (void)state;
    struct blob *b = blob_new(SLICE("abc"));
    assert_ptr_equal(blob_ref(b), b);
    blob_unref(b);
    assert_true(slice_is(blob_slice(b), "abc"));
    blob_unref(b);
    blob_unref(NULL);
}

/* The linker puts these in the place of realloc() and malloc(). */
static bool no_memory;

void *__real_realloc(void *ptr, size_t size);
void *__wrap_realloc(void *ptr, size_t size);
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_realloc(void *ptr, size_t size)
{
    return no_memory ? NULL : __real_realloc(ptr, size);
}

void *__wrap_malloc(size_t size)
{
    return no_memory ? NULL : __real_malloc(size);
}

static void without_memory_it_is_busy_and_stays_as_it_was(void **state)
{
    (void)state;
    struct budget budget = {.max = 1000};
    struct buf b;
    char more[200] = "";
    buf_init_within(&b, 900, &budget);
    assert_int_equal(buf_append(&b, SLICE("abc")), ERR_OK);
    size_t used = budget.used;
    no_memory = true;
    enum err_code code = buf_append(&b, (struct slice){more, sizeof(more)});
    struct blob *blob = blob_try_new(SLICE("abc"));
    no_memory = false;
    assert_int_equal(code, ERR_BUSY); /* not "too large": it may do later */
    assert_null(blob);
    assert_int_equal(budget.used, used);
    assert_true(slice_is(buf_slice(&b), "abc"));
    assert_int_equal(buf_append(&b, (struct slice){more, sizeof(more)}), ERR_OK);
    buf_done(&b);
}

static void numbers_are_written_as_printf_does(void **state)
{
    (void)state;
    struct buf b;
    char text[32];
    buf_init(&b, SIZE_MAX);
    for (uint64_t n = 0; n < 1000; n++) {
        (void)snprintf(text, sizeof(text), "%" PRIu64, n);
        buf_reset(&b);
        buf_add_u64(&b, n);
        assert_string_equal(b.ptr, text);
    }
    for (uint64_t from = 1; from <= UINT64_MAX / 10; from *= 10) {
        const uint64_t numbers[] = {from - 1, from, from + 1, from * 7, UINT64_MAX / from};
        for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
            (void)snprintf(text, sizeof(text), "%" PRIu64, numbers[i]);
            buf_reset(&b);
            buf_add_u64(&b, numbers[i]);
            assert_string_equal(b.ptr, text);
        }
    }
    buf_done(&b);
}

static void a_copy_has_what_fits_and_an_end(void **state)
{
    (void)state;
    char to[5] = "zzzz";
    for (size_t len = 4; len <= 6; len++) {
        slice_copy((struct slice){"abcdef", len}, to, 4);
        assert_memory_equal(to, "abc\0\0", 5);
    }
    slice_copy((struct slice){"abcdef", 3}, to, 4);
    assert_string_equal(to, "abc");
    slice_copy((struct slice){NULL, 0}, to, 1);
    assert_memory_equal(to, "\0bc\0\0", 5);
}

/* Each byte in each place of a name that is longer than a word. */
static void only_letters_have_two_cases(void **state)
{
    static const char name[] = "Sec-WebSocket-Key[1";
    char other[sizeof(name)];
    (void)state;
    for (size_t at = 0; at < sizeof(name) - 1; at++) {
        memcpy(other, name, sizeof(name));
        for (unsigned byte = 0; byte < 256; byte++) {
            other[at] = (char)byte;
            bool same = byte < 128 && tolower((int)byte) == tolower(name[at]);
            assert_true(slice_eq_nocase(slice_of(name), (struct slice){other, strlen(name)}) ==
                        same);
        }
    }
    assert_false(slice_eq_nocase(SLICE("a"), SLICE("ab")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_buf_stops_at_its_cap_and_stays_as_it_was),
        cmocka_unit_test(json_strings_are_always_valid),
        cmocka_unit_test(utf8_has_one_form_for_each_character),
        cmocka_unit_test(whole_numbers_have_bounds),
        cmocka_unit_test(only_letters_have_two_cases),
        cmocka_unit_test(numbers_are_written_as_printf_does),
        cmocka_unit_test(a_copy_has_what_fits_and_an_end),
        cmocka_unit_test(log_lines_tell_when),
        cmocka_unit_test(errors_keep_the_cause_behind_the_context),
        cmocka_unit_test(log_lines_are_bounded_and_escaped),
        cmocka_unit_test(json_lines_are_json),
        cmocka_unit_test(bufs_share_a_budget),
        cmocka_unit_test(blobs_are_counted),
        cmocka_unit_test(without_memory_it_is_busy_and_stays_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
