/* The directory of a file store: kept open where that is safe, and never the wrong one for long. */
#include "store_file_io.h"
#include "store_file_place.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LONG_MS = 60000, SKIPPED = 77 };

static const char *local; /* a directory of the kernel's own */
static char base[PATH_MAX / 2], dir[PATH_MAX], other[PATH_MAX];

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(base, sizeof(base), "%s/place.XXXXXX", local);
    assert_non_null(mkdtemp(base));
    (void)snprintf(dir, sizeof(dir), "%s/tasks", base);
    (void)snprintf(other, sizeof(other), "%s/old", base);
    assert_int_equal(mkdir(dir, 0700), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)rmdir(dir);
    (void)rmdir(other);
    return rmdir(base);
}

static bool is_of(const struct file_place *place, const char *path)
{
    struct stat one, two;
    assert_int_equal(stat(path, &two), 0);
    return fstat(place->fd, &one) == 0 && one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* Writes one document, without writing one. */
static void use(struct file_place *place, bool durable, bool has_failed)
{
    file_place_open(place, true, durable);
    file_place_leave(place, has_failed);
}

static void begin(struct file_place *place)
{
    file_place_init(place, dir);
    use(place, false, false);
    assert_true(is_of(place, dir));
}

static void it_is_kept_where_it_was_opened(void **state)
{
    struct file_place place;
    (void)state;
    begin(&place);
    place.old_at = UINT64_MAX;
    assert_int_equal(rename(dir, other), 0);
    assert_int_equal(mkdir(dir, 0700), 0);
    use(&place, false, false);
    assert_true(is_of(&place, other));
    file_place_close(&place);
    assert_int_equal(rmdir(other), 0);
}

static void it_is_kept_until_it_is_closed(void **state)
{
    struct file_place place;
    (void)state;
    begin(&place);
    int fd = place.fd;
    assert_true(file_place_renames_anew(&place));
    use(&place, true, false);
    assert_int_equal(place.fd, fd);
    file_place_close(&place);
    assert_false(is_open(fd));
    assert_false(file_place_renames_anew(&place));
    file_place_close(&place);
    use(&place, false, false); /* and can be opened again */
    assert_true(is_of(&place, dir));
    file_place_close(&place);
}

static void another_directory_that_takes_the_path_is_soon_used(void **state)
{
    struct file_place place;
    (void)state;
    begin(&place);
    assert_int_equal(rename(dir, other), 0);
    assert_int_equal(mkdir(dir, 0700), 0);
    uint64_t end = clock_mono_ms() + LONG_MS;
    for (unsigned uses = 0; !is_of(&place, dir); uses++) {
        assert_true(clock_mono_ms() < end);
        use(&place, uses % 2 != 0, false);
        (void)usleep(1000);
    }
    file_place_close(&place);
}

static enum err_code do_work(struct file_place *place, enum store_verb verb, struct blob **ret)
{
    struct store_doc doc = {.verb = verb, .key = "k"};
    struct err err;
    file_place_open(place, verb != STORE_GET, false);
    file_do_work(place, &doc, 0, &err);
    file_place_leave(place, false);
    *ret = doc.value;
    return doc.result;
}

static void what_is_missing_is_looked_for_where_the_path_leads(void **state)
{
    struct file_place place;
    char path[PATH_MAX + 8];
    struct blob *value;
    (void)state;
    (void)snprintf(path, sizeof(path), "%s/k", dir);
    for (unsigned reads = 0; reads < 2; reads++) {
        begin(&place);
        assert_int_equal(rename(dir, other), 0);
        assert_int_equal(mkdir(dir, 0700), 0);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        assert_true(fputs("1", file) >= 0);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(do_work(&place, reads ? STORE_GET : STORE_REMOVE, &value), ERR_OK);
        assert_true((value != NULL) == (reads != 0));
        blob_unref(value);
        assert_int_equal(unlink(path), reads ? 0 : -1);
        file_place_close(&place);
        assert_int_equal(rmdir(other), 0);
    }
}

/* Also if it has the number that the other had before it was unmounted. */
static void another_file_system_is_noticed_with_it(void **state)
{
    struct file_place place;
    struct stat st;
    (void)state;
    assert_int_equal(stat("/proc/self", &st), 0);
    assert_int_equal(rename(dir, other), 0);
    for (unsigned same_number = 0; same_number < 2; same_number++) {
        assert_int_equal(symlink(other, dir), 0);
        begin(&place);
        if (same_number)
            place.dev = st.st_dev;
        assert_int_equal(unlink(dir), 0);
        assert_int_equal(symlink("/proc/self", dir), 0);
        file_place_look_again(&place);
        assert_true(is_of(&place, dir));
        assert_false(file_place_renames_anew(&place));
        file_place_leave(&place, false);
        assert_int_equal(place.fd, AT_FDCWD);
        assert_int_equal(unlink(dir), 0);
    }
}

static void it_is_not_kept_after_a_failure(void **state)
{
    struct file_place place;
    (void)state;
    begin(&place);
    int fd = place.fd;
    use(&place, false, true);
    assert_int_equal(place.fd, AT_FDCWD);
    assert_false(is_open(fd));
}

static void a_directory_that_was_removed_is_made_and_used(void **state)
{
    struct file_place place;
    struct err err;
    (void)state;
    begin(&place);
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(file_place_make(&place, &err), ERR_OK);
    assert_true(is_of(&place, dir));
    file_place_close(&place);
    assert_int_equal(rmdir(dir), 0);
    file_place_open(&place, true, true); /* of what is not there, only the path is known */
    assert_int_equal(place.fd, AT_FDCWD);
    assert_int_equal(file_place_sync(&place, &err), ERR_UNAVAILABLE);
    assert_int_equal(file_place_make(&place, &err), ERR_OK);
    assert_int_equal(file_place_sync(&place, &err), ERR_OK);
    file_place_leave(&place, false);
    file_place_close(&place);
}

static void who_only_reads_does_without(void **state)
{
    struct file_place place;
    (void)state;
    file_place_init(&place, dir);
    file_place_open(&place, false, false);
    assert_int_equal(place.fd, AT_FDCWD);
    file_place_leave(&place, false);
}

/* /proc is no place for documents, and that it may be one is known to nobody. */
static void elsewhere_it_is_open_for_what_is_durable_only(void **state)
{
    struct file_place place;
    (void)state;
    file_place_init(&place, "/proc/self");
    file_place_open(&place, true, true);
    int fd = place.fd;
    assert_true(fd >= 0);
    assert_false(file_place_renames_anew(&place));
    file_place_leave(&place, false);
    assert_false(is_open(fd));
    file_place_open(&place, true, false);
    assert_int_equal(place.fd, AT_FDCWD);
    file_place_leave(&place, false);
}

static bool is_local(const char *path)
{
    struct file_place place;
    if (path == NULL)
        return false;
    file_place_init(&place, path);
    file_place_open(&place, true, false);
    bool yes = file_place_renames_anew(&place);
    file_place_close(&place);
    return yes;
}

int main(void)
{
    const char *const paths[] = {getenv("TMPDIR"), "/tmp", "/dev/shm"};
    for (size_t i = 0; i < ARRAY_LEN(paths) && local == NULL; i++)
        local = is_local(paths[i]) ? paths[i] : NULL;
    if (local == NULL) {
        (void)puts("skipped: neither TMPDIR nor /tmp nor /dev/shm is of the kernel's own");
        return SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_is_kept_where_it_was_opened, set_up, tear_down),
        cmocka_unit_test_setup_teardown(it_is_kept_until_it_is_closed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_directory_that_takes_the_path_is_soon_used, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_is_missing_is_looked_for_where_the_path_leads, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(another_file_system_is_noticed_with_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(it_is_not_kept_after_a_failure, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_directory_that_was_removed_is_made_and_used, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(who_only_reads_does_without, set_up, tear_down),
        cmocka_unit_test_setup_teardown(elsewhere_it_is_open_for_what_is_durable_only, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
