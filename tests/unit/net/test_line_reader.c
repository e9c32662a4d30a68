/* Output into lines: every input is fed whole and byte by byte, with the same result. */
#include "line_reader.h"
#include "unit.h"

static struct buf seen;

static void on_line(struct line_reader *r, struct slice line)
{
    (void)r;
    buf_adds(&seen, "[");
    buf_add(&seen, line);
    buf_adds(&seen, "]");
}

static struct line_reader *begin(void)
{
    static struct line_reader r;
    buf_reset(&seen);
    line_reader_init(&r, on_line, NULL);
    return &r;
}

static void check_seen(const char *expected)
{
    assert_string_equal(seen.len > 0 ? seen.ptr : "", expected);
}

static void lines_end_with_lf_cr_or_crlf(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"", ""},
        {"a\nb\n", "[a][b]"},
        {"a\r\nb\r\n", "[a][b]"},
        {"\n\na", "[][][a]"},
        {"no end", "[no end]"},
        {"\r\n", "[]"},
        /* a progress bar: what a terminal would show when it has stood still */
        {"\r 1%\r 2%\r 3%\nnext\n", "[ 3%][next]"},
        {"1%\r2%\r3%\r", "[3%]"},
        {"1%\r2%\r3%\r\nnext\n", "[3%][next]"},
        {"1%\r2%\r\r\n\r\r", "[2%]"},
        {"1%\r2%", "[2%]"},
        {"1%\rdone\r\n", "[done]"},
        {"bar\rTraceback\n", "[Traceback]"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct line_reader *r = begin();
        line_reader_feed(r, slice_of(cases[i].in));
        line_reader_finish(r);
        check_seen(cases[i].out);
        r = begin();
        for (const char *at = cases[i].in; *at != '\0'; at++)
            line_reader_feed(r, (struct slice){at, 1});
        line_reader_finish(r);
        check_seen(cases[i].out);
    }
}

static void a_tick_hands_on_the_newest_row_once(void **state)
{
    (void)state;
    struct line_reader *r = begin();
    line_reader_feed(r, SLICE("1%\r2%\r3"));
    assert_true(line_reader_holds(r));
    line_reader_tick(r);
    check_seen("[2%]");
    assert_false(line_reader_holds(r));
    line_reader_tick(r);
    check_seen("[2%]");
    line_reader_feed(r, SLICE("%\r"));
    assert_true(line_reader_holds(r)); /* CR's or CRLF's: not known yet */
    line_reader_tick(r);
    check_seen("[2%][3%]");
    line_reader_feed(r, SLICE("\nnext\n")); /* the LF belonged to it */
    check_seen("[2%][3%][next]");
    line_reader_feed(r, SLICE("4%\r"));
    line_reader_tick(r);
    line_reader_feed(r, SLICE("\r\r5%\n\n"));
    check_seen("[2%][3%][next][4%][5%][]");
}

static void a_line_is_cut_at_its_bound(void **state)
{
    (void)state;
    static char text[3 * PROCESS_LINE_MAX];
    for (size_t len = PROCESS_LINE_MAX - 1; len <= PROCESS_LINE_MAX + 1; len++) {
        struct line_reader *r = begin();
        memset(text, 'x', sizeof(text));
        memcpy(text + len, "\nb\n", 4);
        line_reader_feed(r, slice_of(text));
        size_t kept = len < PROCESS_LINE_MAX ? len : PROCESS_LINE_MAX;
        assert_int_equal(seen.len, kept + strlen("[][b]"));
        assert_string_equal(seen.ptr + kept + 1, "][b]");
    }
    struct line_reader *r = begin();
    memset(text, 'y', sizeof(text));
    for (int i = 0; i < 100; i++)
        line_reader_feed(r, (struct slice){text, sizeof(text)});
    line_reader_feed(r, SLICE("\r\nafter\n"));
    assert_int_equal(seen.len, PROCESS_LINE_MAX + strlen("[][after]"));
}

static void bytes_pass_as_they_are(void **state)
{
    (void)state;
    struct line_reader *r = begin();
    line_reader_feed(r, (struct slice){"a\0b\xff\n", 5});
    assert_int_equal(seen.len, 6);
    assert_memory_equal(seen.ptr, "[a\0b\xff]", 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_end_with_lf_cr_or_crlf),
        cmocka_unit_test(a_tick_hands_on_the_newest_row_once),
        cmocka_unit_test(a_line_is_cut_at_its_bound),
        cmocka_unit_test(bytes_pass_as_they_are),
    };
    buf_init(&seen, SIZE_MAX);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    buf_done(&seen);
    return failed;
}
