/* Files beneath a directory: names that lead elsewhere are refused, links are not followed, and
 * what is kept is whole and takes nobody's place. */
#include "dir_file.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/dir_file.XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    char command[128];
    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

static const char *at(const char *path)
{
    static char text[2][512];
    static unsigned n;
    n = 1 - n;
    (void)snprintf(text[n], sizeof(text[n]), "%s/%s", dir, path);
    return text[n];
}

static void write_file(const char *path, const char *content)
{
    FILE *file = fopen(at(path), "w");
    assert_non_null(file);
    assert_true(fputs(content, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void check_file(const char *path, const char *content)
{
    char text[64] = "";
    FILE *file = fopen(at(path), "r");
    assert_non_null(file);
    size_t n = fread(text, 1, sizeof(text) - 1, file);
    text[n] = '\0';
    assert_string_equal(text, content);
    (void)fclose(file);
}

static unsigned files_in(const char *path)
{
    char command[256];
    unsigned count = 0;
    (void)snprintf(command, sizeof(command), "find '%s' -mindepth 1 | wc -l", at(path));
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_int_equal(fscanf(pipe, "%u", &count), 1);
    (void)pclose(pipe);
    return count;
}

static enum err_code keep(const char *folder, const char *name, const char *content,
                          enum dir_keep how, char *ret_name)
{
    struct err err;
    assert_true(dir_path_ok(slice_of(folder), slice_of(name)));
    const struct dir_path path = {dir, folder, name};
    return dir_keep(&path, slice_of(content), how, ret_name, &err);
}

static enum err_code open_file(const char *folder, const char *name)
{
    int fd = -1;
    const struct dir_path path = {dir, folder, name};
    enum err_code code = dir_open(&path, &fd, NULL);
    assert_int_equal(code == ERR_OK, fd >= 0);
    if (fd >= 0)
        (void)close(fd);
    return code;
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *name;
        bool ok;
    } cases[] = {
        {"", "a.png", true}, {"x", "a.png", true}, {"x/y z", "..a", true}, {"", "", false},
        {"", ".", false},    {"", "..", false},    {"", "a/b", false},     {"", "/a", false},
        {"", "a\\b", false}, {"", "a\nb", false},  {"", "a\x7f", false},   {"/x", "a", false},
        {"x/", "a", false},  {"x//y", "a", false}, {"..", "a", false},     {"x/../y", "a", false},
        {"x/.", "a", false}, {"./x", "a", false},  {"x\\y", "a", false},   {"/", "a", false},
    };
    char name[DIR_PATH_MAX + 1];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (dir_path_ok(slice_of(cases[i].folder), slice_of(cases[i].name)) != cases[i].ok)
            fail_msg("folder '%s', name '%s'", cases[i].folder, cases[i].name);
    assert_false(dir_path_ok(SLICE(""), SLICE("a\0b")));
    memset(name, 'a', sizeof(name));
    assert_true(dir_path_ok(SLICE(""), (struct slice){name, DIR_NAME_MAX}));
    assert_false(dir_path_ok(SLICE(""), (struct slice){name, DIR_NAME_MAX + 1}));
    assert_false(dir_path_ok((struct slice){name, DIR_PATH_MAX}, SLICE("a")));
}

static void test_only_files_beneath_are_opened(void **state)
{
    (void)state;
    assert_int_equal(mkdir(at("in"), 0777), 0);
    assert_int_equal(mkdir(at("in/x"), 0777), 0);
    write_file("in/x/a", "a");
    write_file("secret", "s");
    assert_int_equal(symlink("../secret", at("in/link")), 0);
    assert_int_equal(symlink("..", at("in/up")), 0);
    assert_int_equal(mkfifo(at("in/pipe"), 0666), 0);
    (void)strcat(dir, "/in");
    assert_int_equal(open_file("x", "a"), ERR_OK);
    assert_int_equal(open_file("", "a"), ERR_NOT_FOUND);
    assert_int_equal(open_file("y", "a"), ERR_NOT_FOUND);
    assert_int_equal(open_file("x/a", "b"), ERR_NOT_FOUND);
    assert_int_equal(open_file("", "link"), ERR_NOT_FOUND);
    assert_int_equal(open_file("up", "secret"), ERR_NOT_FOUND);
    assert_int_equal(open_file("", "pipe"), ERR_NOT_FOUND);
    assert_int_equal(open_file("", "x"), ERR_NOT_FOUND);
    *strrchr(dir, '/') = '\0';
}

static void test_what_is_made_of_its_content_is_kept_once(void **state)
{
    char name[DIR_NAME_MAX + 1];
    (void)state;
    assert_int_equal(keep("", "h.png", "content", DIR_KEEP_AS_IS, name), ERR_OK);
    assert_string_equal(name, "h.png");
    check_file("h.png", "content");
    assert_int_equal(keep("", "h.png", "content", DIR_KEEP_AS_IS, name), ERR_OK);
    assert_int_equal(files_in(""), 1);
    write_file("h.png", "con"); /* whoever wrote it was interrupted */
    assert_int_equal(keep("", "h.png", "content", DIR_KEEP_AS_IS, name), ERR_OK);
    check_file("h.png", "content");
    assert_int_equal(files_in(""), 1);
}

static void test_nobodys_place_is_taken(void **state)
{
    char name[DIR_NAME_MAX + 1];
    (void)state;
    assert_int_equal(keep("x/y", "a.png", "one", DIR_KEEP_BOTH, name), ERR_OK);
    assert_string_equal(name, "a.png");
    assert_int_equal(keep("x/y", "a.png", "two", DIR_KEEP_BOTH, name), ERR_OK);
    assert_string_equal(name, "a (1).png");
    assert_int_equal(keep("x/y", "a.png", "two", DIR_KEEP_BOTH, name), ERR_OK);
    assert_string_equal(name, "a (1).png");
    assert_int_equal(keep("x/y", "a.png", "one", DIR_KEEP_BOTH, name), ERR_OK);
    assert_string_equal(name, "a.png");
    assert_int_equal(keep("x/y", "a.png", "new", DIR_KEEP_REPLACE, name), ERR_OK);
    assert_string_equal(name, "a.png");
    check_file("x/y/a.png", "new");
    check_file("x/y/a (1).png", "two");
    assert_int_equal(keep("", "noending", "1", DIR_KEEP_BOTH, name), ERR_OK);
    assert_int_equal(keep("", "noending", "2", DIR_KEEP_BOTH, name), ERR_OK);
    assert_string_equal(name, "noending (1)");
    assert_int_equal(files_in("x/y"), 2);
    assert_int_equal(files_in(""), 6);
}

static void test_nothing_is_kept_elsewhere(void **state)
{
    char name[DIR_NAME_MAX + 1];
    (void)state;
    assert_int_equal(mkdir(at("in"), 0777), 0);
    assert_int_equal(mkdir(at("out"), 0777), 0);
    assert_int_equal(symlink("../out", at("in/link")), 0);
    write_file("secret", "s");
    assert_int_equal(symlink("../secret", at("in/a")), 0);
    (void)strcat(dir, "/in");
    assert_int_equal(keep("link", "a", "x", DIR_KEEP_BOTH, name), ERR_UNAVAILABLE);
    assert_int_equal(keep("", "a", "x", DIR_KEEP_BOTH, name), ERR_OK);
    assert_string_equal(name, "a (1)");
    assert_int_equal(keep("", "a", "x", DIR_KEEP_REPLACE, name), ERR_OK); /* the link itself */
    *strrchr(dir, '/') = '\0';
    check_file("secret", "s");
    assert_int_equal(files_in("out"), 0);
}

static void test_a_directory_that_is_not_there(void **state)
{
    char name[DIR_NAME_MAX + 1];
    (void)state;
    (void)strcat(dir, "/no");
    assert_int_equal(keep("", "a", "x", DIR_KEEP_BOTH, name), ERR_UNAVAILABLE);
    assert_int_equal(open_file("", "a"), ERR_UNAVAILABLE);
    *strrchr(dir, '/') = '\0';
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_names),
        TEST(test_only_files_beneath_are_opened),
        TEST(test_what_is_made_of_its_content_is_kept_once),
        TEST(test_nobodys_place_is_taken),
        TEST(test_nothing_is_kept_elsewhere),
        TEST(test_a_directory_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
