/* What browsers and scripts send as uploads, and what is none. */
#include "multipart.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

static const char type[] = "multipart/form-data; boundary=b";

static void check_part(struct multipart *m, const char *name, const char *filename,
                       const char *content)
{
    struct multipart_part part;
    assert_int_equal(multipart_next(m, &part), ERR_OK);
    assert_true(slice_is(part.name, name));
    assert_true(slice_is(part.filename, filename));
    assert_true(slice_is(part.content, content));
}

static void test_parts(void **state)
{
    (void)state;
    static const char body[] = "--b\r\nContent-Disposition: form-data; name=\"image\"; "
                               "filename=\"a b;c.png\"\r\nContent-Type: image/png\r\n\r\n"
                               "x\r\n--c\r\n--\r\n\r\n--b\r\n"
                               "content-disposition:form-data;name=type\r\n\r\ninput\r\n--b  \r\n"
                               "X-A: b\r\nContent-Disposition: form-data; NAME=\"e\"\r\n\r\n\r\n"
                               "--b--\r\n";
    struct multipart m;
    struct multipart_part part;
    assert_int_equal(multipart_begin(&m, slice_of(type), slice_of(body)), ERR_OK);
    check_part(&m, "image", "a b;c.png", "x\r\n--c\r\n--\r\n");
    check_part(&m, "type", "", "input");
    check_part(&m, "e", "", "");
    assert_int_equal(multipart_next(&m, &part), ERR_NOT_FOUND);
    assert_int_equal(multipart_next(&m, &part), ERR_NOT_FOUND);
}

static void test_types(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        enum err_code code;
    } cases[] = {
        {"multipart/form-data; boundary=b", ERR_OK},
        {"Multipart/Form-Data;charset=utf-8;  Boundary=\"b\"", ERR_OK},
        {"multipart/form-data", ERR_INVALID},
        {"multipart/form-data; boundary=", ERR_INVALID},
        {"multipart/form-data; boundary=\"b", ERR_INVALID},
        {"multipart/mixed; boundary=b", ERR_INVALID},
        {"multipart/form-data; boundary=other", ERR_INVALID},
        {"multipart/form-data; "
         "boundary=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
         ERR_INVALID},
        {"", ERR_INVALID},
    };
    struct multipart m;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (multipart_begin(&m, slice_of(cases[i].type), SLICE("--b\r\n\r\n\r\n--b--")) !=
            cases[i].code)
            fail_msg("%s", cases[i].type);
    assert_int_equal(multipart_begin(&m, slice_of(type), SLICE("")), ERR_INVALID);
    assert_int_equal(multipart_begin(&m, slice_of(type), SLICE("x\r\n--b\r\n")), ERR_INVALID);
}

/* Whatever is broken off is broken; and nothing is read that is not there. */
static void test_every_beginning(void **state)
{
    (void)state;
    static const char body[] =
        "--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a\"\r\n\r\nxy\r\n--b--";
    for (size_t len = 0; len < strlen(body); len++) {
        struct multipart m;
        struct multipart_part part;
        char *copy = xmalloc(len + 1); /* of its own: a read beyond it is seen */
        memcpy(copy, body, len);
        copy[len] = '\0';
        enum err_code code = multipart_begin(&m, slice_of(type), (struct slice){copy, len});
        unsigned parts = 0;
        while (code == ERR_OK && (code = multipart_next(&m, &part)) == ERR_OK)
            parts++;
        assert_int_equal(code, ERR_INVALID);
        assert_true(parts <= 1);
        free(copy);
    }
}

static void test_too_many_parts(void **state)
{
    (void)state;
    struct buf body;
    struct multipart m;
    struct multipart_part part;
    enum err_code code;
    unsigned parts = 0;
    buf_init(&body, SIZE_MAX);
    for (unsigned i = 0; i <= MULTIPART_PARTS_MAX; i++)
        buf_adds(&body, "--b\r\n\r\n\r\n");
    buf_adds(&body, "--b--");
    assert_int_equal(multipart_begin(&m, slice_of(type), buf_slice(&body)), ERR_OK);
    while ((code = multipart_next(&m, &part)) == ERR_OK)
        parts++;
    assert_int_equal(code, ERR_TOO_LARGE);
    assert_int_equal(parts, MULTIPART_PARTS_MAX);
    buf_done(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_every_beginning),
        cmocka_unit_test(test_too_many_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
