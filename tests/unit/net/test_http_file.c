/* Calls answered from directories: heads, ranges, conditions; and ends at every moment. */
#include "http_file.h"
#include "loop_fixture.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LARGE = 300000 };

static struct loop_fixture f;
static struct http_files *files;
static char dir[64];

struct asked {
    struct http_call call;
    struct http_headers headers;
    bool inside, ended, pauses, cancels_in_head, cancels_in_part;
    enum err_code code;
    int status;
    unsigned parts;
    char etag[96], type[96], range[96];
    int64_t length;
    struct buf body;
};
static bool closed;

static void copy_header(struct http_call *call, const char *name, char *to)
{
    struct slice value = SLICE_EMPTY;
    (void)http_headers_get(&call->res_headers, name, &value);
    (void)snprintf(to, 96, "%.*s", SLICE_ARGS(value));
}

static void on_head(struct http_call *call)
{
    struct asked *a = call->ctx;
    assert_false(a->inside);
    copy_header(call, "etag", a->etag);
    copy_header(call, "content-type", a->type);
    copy_header(call, "content-range", a->range);
    a->length = call->res_length;
    if (a->cancels_in_head)
        http_files_cancel(call);
}

static void on_part(struct http_call *call, struct slice part)
{
    struct asked *a = call->ctx;
    assert_false(a->inside);
    a->parts++;
    buf_add(&a->body, part);
    if (a->pauses)
        http_files_pause(call);
    if (a->cancels_in_part)
        http_files_cancel(call);
}

static void on_end(struct http_call *call, const struct err *err)
{
    struct asked *a = call->ctx;
    assert_false(a->inside || a->ended);
    assert_null(call->driver);
    a->ended = true;
    a->code = err != NULL ? err->code : ERR_OK;
    a->status = call->status;
}

static struct asked *prepare(const char *method, const char *query)
{
    struct asked *a = xcalloc(1, sizeof(*a));
    char *target = xmalloc(512);
    (void)snprintf(target, 512, "/view?%s", query);
    http_headers_init(&a->headers);
    buf_init(&a->body, SIZE_MAX);
    a->call = (struct http_call){.method = method,
                                 .target = slice_of(target),
                                 .headers = &a->headers,
                                 .on_head = on_head,
                                 .on_part = on_part,
                                 .on_end = on_end,
                                 .ctx = a};
    return a;
}

static void start(struct asked *a)
{
    a->inside = true;
    http_files_start(files, &a->call);
    a->inside = false;
}

static void await(struct asked *a)
{
    loop_run_until(&f, &a->ended, "the end of the call");
}

static void drop(struct asked *a)
{
    free((char *)a->call.target.ptr);
    http_headers_done(&a->headers);
    buf_done(&a->body);
    free(a);
}

static struct asked *ask(const char *method, const char *query, const char *name, const char *value)
{
    struct asked *a = prepare(method, query);
    if (name != NULL)
        assert_int_equal(http_headers_add(&a->headers, slice_of(name), slice_of(value)), ERR_OK);
    start(a);
    await(a);
    assert_int_equal(a->code, ERR_OK);
    return a;
}

static void write_file(const char *path, size_t size)
{
    char text[256];
    (void)snprintf(text, sizeof(text), "%s/%s", dir, path);
    FILE *file = fopen(text, "w");
    assert_non_null(file);
    for (size_t i = 0; i < size; i++)
        assert_true(fputc((int)('a' + i % 26), file) != EOF);
    assert_int_equal(fclose(file), 0);
}

static void on_closed(void *ctx)
{
    (void)ctx;
    closed = true;
}

static int set_up(void **state)
{
    char text[128];
    (void)state;
    closed = false;
    (void)snprintf(dir, sizeof(dir), "/tmp/http_file.XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    (void)snprintf(text, sizeof(text), "%s/in", dir);
    (void)mkdir(text, 0777);
    write_file("a.png", 10);
    write_file("large", LARGE);
    write_file("empty", 0);
    write_file("page.html", 3);
    write_file("in/i.png", 5);
    loop_fixture_open(&f);
    files = http_files_new(&f.loop, &f.later, dir, text);
    return 0;
}

static int tear_down(void **state)
{
    char command[128];
    (void)state;
    http_files_free(files, on_closed, NULL);
    loop_run_until(&f, &closed, "the close");
    loop_fixture_close(&f);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

static void test_a_file(void **state)
{
    (void)state;
    struct asked *a = ask("GET", "filename=a.png&subfolder=&type=output", NULL, NULL);
    assert_int_equal(a->status, 200);
    assert_int_equal(a->length, 10);
    assert_string_equal(a->type, "image/png");
    assert_string_equal(a->body.ptr, "abcdefghij");
    char etag[96];
    (void)snprintf(etag, sizeof(etag), "%s", a->etag);
    assert_int_equal(strcmp(etag + strlen(etag) - 3, "-a\""), 0); /* its length, in hex */
    drop(a);
    a = ask("GET", "filename=a.png", "if-none-match", etag);
    assert_int_equal(a->status, 304);
    assert_int_equal(a->body.len, 0);
    drop(a);
    a = ask("HEAD", "filename=a.png", NULL, NULL);
    assert_int_equal(a->status, 200);
    assert_int_equal(a->length, 10);
    assert_int_equal(a->body.len, 0);
    drop(a);
    a = ask("GET", "filename=a.png&x=1", "if-range", "\"other\"");
    assert_int_equal(a->status, 200);
    drop(a);
}

static void test_which_file(void **state)
{
    (void)state;
    static const struct {
        const char *query;
        int status;
    } cases[] = {
        {"filename=i.png&type=input", 200},
        {"filename=i.png%20[input]", 200},
        {"filename=i.png&subfolder=in", 200},
        {"filename=empty", 200},
        {"filename=i.png", 404},
        {"filename=a.png&type=temp", 404},
        {"filename=a.png&type=x", 404},
        {"filename=in", 404},
        {"filename=..%2fa.png&type=input", 404},
        {"filename=a.png&subfolder=..&type=input", 404},
        {"filename=%00", 404},
        {"filename=%zz", 404},
        {"", 404},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct asked *a = ask("GET", cases[i].query, NULL, NULL);
        if (a->status != cases[i].status)
            fail_msg("%s: %d", cases[i].query, a->status);
        drop(a);
    }
    struct asked *page = ask("GET", "filename=page.html", NULL, NULL);
    assert_string_equal(page->type, "application/octet-stream");
    drop(page);
}

static void test_ranges(void **state)
{
    (void)state;
    static const struct {
        const char *range;
        int status;
        const char *body, *told;
    } cases[] = {
        {"bytes=0-3", 206, "abcd", "bytes 0-3/10"},
        {"bytes=8-", 206, "ij", "bytes 8-9/10"},
        {"bytes=-2", 206, "ij", "bytes 8-9/10"},
        {"bytes=-20", 206, "abcdefghij", "bytes 0-9/10"},
        {"bytes=8-99", 206, "ij", "bytes 8-9/10"},
        {"bytes=10-", 416, "", "bytes */10"},
        {"bytes=-0", 416, "", "bytes */10"},
        {"bytes=3-2", 200, "abcdefghij", ""},
        {"bytes=a-b", 200, "abcdefghij", ""},
        {"bytes=0-1,3-4", 200, "abcdefghij", ""},
        {"lines=0-1", 200, "abcdefghij", ""},
        {"bytes=-", 200, "abcdefghij", ""},
        {"bytes=99999999999999999999-", 200, "abcdefghij", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct asked *a = ask("GET", "filename=a.png", "range", cases[i].range);
        buf_adds(&a->body, "");
        if (a->status != cases[i].status || strcmp(a->body.ptr, cases[i].body) != 0 ||
            strcmp(a->range, cases[i].told) != 0)
            fail_msg("%s: %d '%s' '%s'", cases[i].range, a->status, a->body.ptr, a->range);
        drop(a);
    }
}

static void test_a_reader_who_is_slow(void **state)
{
    (void)state;
    struct asked *a = prepare("GET", "filename=large");
    a->pauses = true;
    start(a);
    for (unsigned parts = 1; !a->ended; parts++) {
        for (unsigned turns = 0; a->parts < parts && !a->ended && turns < 10000; turns++)
            loop_run_for(&f, 1);
        assert_true(a->ended || a->parts == parts);
        a->inside = true;
        http_files_resume(&a->call);
        a->inside = false;
    }
    assert_int_equal(a->code, ERR_OK);
    assert_int_equal(a->body.len, LARGE);
    assert_true(a->parts > 2);
    drop(a);
}

static void test_an_end_at_every_moment(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 8; n++) {
        unsigned when = n % 4;
        struct asked *a = prepare("GET", n < 4 ? "filename=large" : "filename=none");
        a->cancels_in_head = when == 1;
        a->cancels_in_part = when == 2;
        start(a);
        if (when == 3)
            loop_run_for(&f, 1);
        a->inside = true;
        if ((when == 0 || when == 3) && !a->ended)
            http_files_cancel(&a->call);
        a->inside = false;
        await(a);
        assert_true(a->code == ERR_CANCELLED || (a->code == ERR_OK && (when == 3 || n == 6)));
        assert_true(a->body.len < LARGE || a->code == ERR_OK);
        drop(a);
    }
}

static void test_a_file_that_gets_shorter(void **state)
{
    char path[128];
    (void)state;
    struct asked *a = prepare("GET", "filename=large");
    a->pauses = true;
    start(a);
    while (a->parts == 0)
        loop_run_for(&f, 1);
    (void)snprintf(path, sizeof(path), "%s/large", dir);
    assert_int_equal(truncate(path, 10), 0);
    a->pauses = false;
    http_files_resume(&a->call);
    await(a);
    assert_int_equal(a->code, ERR_CLOSED);
    drop(a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_file),
        TEST(test_which_file),
        TEST(test_ranges),
        TEST(test_a_reader_who_is_slow),
        TEST(test_an_end_at_every_moment),
        TEST(test_a_file_that_gets_shorter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
