/* Lists of a directory: every task once, in order, whatever is kept of a walk and for how long. */
#include "backends.h"
#include "store_ask.h"
#include "store_file_list.h"
#include "unit.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LONG_MS = 60000,
    TASKS = 500,
    EPOCH_S = 1000000000,
    FEW_ENTRIES = 2 * STORE_PAGE_MAX + 2,
};

static char dir[BACKEND_URL_MAX];
static struct store_page page;
static atomic_bool stop;

static int set_up(void **state)
{
    (void)state;
    backend_make_dir(dir);
    atomic_store(&stop, false);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    backend_remove_dir(dir);
    return 0;
}

static const char *path_in(const char *name)
{
    static char path[2 * BACKEND_URL_MAX];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void make(const char *name, int age_s)
{
    struct timespec at = {.tv_sec = EPOCH_S - age_s};
    struct timespec times[2] = {at, at};
    int fd = open(path_in(name), O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(futimens(fd, times), 0);
    (void)close(fd);
}

/* In an order that is not that of the list; two of each age. */
static void make_tasks(void)
{
    for (unsigned i = 0; i < TASKS; i++) {
        unsigned n = i * 377 % TASKS;
        char name[16];
        (void)snprintf(name, sizeof(name), "t%04u~task", n);
        make(name, (int)n / 2);
    }
}

static void remove_tasks(void)
{
    for (unsigned n = 0; n < TASKS; n++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "t%04u~task", n);
        assert_int_equal(unlink(path_in(name)), 0);
    }
}

static struct file_list list_of(unsigned entries_max, uint64_t keep_ms)
{
    return (struct file_list){.dir = dir,
                              .page = &page,
                              .asked_ms = UINT64_MAX,
                              .give_up_ms = UINT64_MAX,
                              .stop = &stop,
                              .entries_max = entries_max,
                              .keep_ms = keep_ms};
}

static void take_page(struct file_list *list, unsigned limit, const char *cursor)
{
    struct err err;
    char copy[sizeof(page.cursor)];
    (void)snprintf(copy, sizeof(copy), "%s", cursor);
    memset(&page, 0xee, sizeof(page));
    memcpy(page.cursor, copy, sizeof(copy));
    page.limit = limit;
    assert_int_equal(file_list_work(list, &err), ERR_OK);
}

static void take_all(struct file_list *list, unsigned limit)
{
    unsigned count = 0;
    page.next[0] = '\0';
    do {
        take_page(list, limit, page.next);
        for (unsigned i = 0; i < page.count; i++) {
            char name[16];
            (void)snprintf(name, sizeof(name), "t%04u~task", count++);
            assert_string_equal(page.keys[i], name);
        }
        assert_true(page.count == limit || page.next[0] == '\0');
    } while (page.next[0] != '\0');
    assert_int_equal(count, TASKS);
    file_listing_free(list->kept);
}

static void every_task_is_listed_once_and_in_order(void **state)
{
    static const struct {
        unsigned limit, entries_max;
        uint64_t keep_ms;
    } ways[] = {
        {STORE_PAGE_MAX, FILE_LISTING_ENTRIES_MAX, LONG_MS}, /* one walk */
        {STORE_PAGE_MAX, FILE_LISTING_ENTRIES_MAX, 0},       /* a walk for each page */
        {STORE_PAGE_MAX, FEW_ENTRIES, LONG_MS},              /* when what is kept is at its end */
        {7, FEW_ENTRIES, LONG_MS},
        {7, TASKS, LONG_MS}, /* exactly what there is room for */
        {7, TASKS - 1, LONG_MS},
    };
    (void)state;
    make_tasks();
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        struct file_list list = list_of(ways[i].entries_max, ways[i].keep_ms);
        take_all(&list, ways[i].limit);
    }
}

static void pages_that_follow_take_no_walk(void **state)
{
    char cursor[STORE_KEY_MAX + 1];
    struct file_list list = list_of(TASKS, LONG_MS);
    (void)state;
    make_tasks();
    take_page(&list, 10, "");
    memcpy(cursor, page.next, sizeof(cursor));
    remove_tasks();
    take_page(&list, 10, cursor);
    assert_string_equal(page.keys[0], "t0010~task");
    file_listing_free(list.kept);
    list.kept = NULL;
    take_page(&list, 10, cursor);
    assert_int_equal(page.count, 0);
    file_listing_free(list.kept);
}

static void who_asks_for_the_newest_sees_what_is_new(void **state)
{
    struct file_list list = list_of(TASKS, LONG_MS);
    (void)state;
    make("old~task", 10);
    take_page(&list, 10, "");
    make("new~task", 0);
    list.asked_ms = clock_mono_ms();
    take_page(&list, 10, "");
    assert_string_equal(page.keys[0], "new~task");
    make("newer~task", -1);
    list.asked_ms = 1; /* before that walk began: what was there then is seen */
    take_page(&list, 10, "");
    assert_string_equal(page.keys[0], "new~task");
    file_listing_free(list.kept);
}

/* What another caller's page has left begins behind the place where ours goes on. */
static void a_listing_that_begins_too_late_serves_nobody_before(void **state)
{
    struct file_list list = list_of(TASKS, 0);
    char cursor[2][STORE_KEY_MAX + 1];
    (void)state;
    make_tasks();
    take_page(&list, 10, "");
    memcpy(cursor[0], page.next, sizeof(cursor[0]));
    take_page(&list, 10, page.next);
    memcpy(cursor[1], page.next, sizeof(cursor[1]));
    list.keep_ms = LONG_MS;
    take_page(&list, 10, cursor[1]);
    assert_string_equal(page.keys[0], "t0020~task");
    take_page(&list, 10, cursor[0]);
    assert_string_equal(page.keys[0], "t0010~task");
    file_listing_free(list.kept);
}

static void what_is_not_ours_is_passed_over(void **state)
{
    static const char *const foreign[] = {
        "a~tasks",  ".nfs0001~task", ".a~task.0123456789abcdef.tmp",
        "a b~task", "~task",         "a..b~task"};
    struct file_list list = list_of(TASKS, LONG_MS);
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++)
        make(foreign[i], 0);
    assert_int_equal(mkdir(path_in("folder~task"), 0700), 0);
    make("older~task", 100);
    make("b~task", 50);
    make("a~task", 50); /* of one moment: by name */
    take_page(&list, 10, "");
    assert_int_equal(page.count, 3);
    assert_string_equal(page.keys[0], "a~task");
    assert_string_equal(page.keys[1], "b~task");
    assert_string_equal(page.keys[2], "older~task");
    file_listing_free(list.kept);
}

static void a_walk_ends_when_nobody_waits(void **state)
{
    struct file_list list = list_of(TASKS, LONG_MS);
    struct err err;
    (void)state;
    make_tasks();
    page = (struct store_page){.limit = 1};
    atomic_store(&stop, true);
    assert_int_equal(file_list_work(&list, &err), ERR_CANCELLED);
    atomic_store(&stop, false);
    list.give_up_ms = clock_mono_ms() - 1;
    assert_int_equal(file_list_work(&list, &err), ERR_TIMEOUT);
    assert_null(list.kept);
}

/* What is kept between two pages is lost with the store at the latest. */
static void a_store_keeps_it(void **state)
{
    struct loop_fixture f;
    struct store *s;
    char url[BACKEND_URL_MAX + 16];
    struct ask a[2] = {{.op = {.page = &page}}, {.op = {.page = &page}}};
    (void)state;
    make_tasks();
    loop_fixture_open(&f);
    (void)snprintf(url, sizeof(url), "file://%s", dir);
    assert_int_equal(store_open(&s, &f.loop, &f.later, url, NULL), ERR_OK);
    page = (struct store_page){.limit = 10};
    ask_start(&a[0], s);
    ask_wait(&a[0], &f);
    assert_string_equal(page.keys[0], "t0000~task");
    remove_tasks();
    memcpy(page.cursor, page.next, sizeof(page.cursor));
    ask_start(&a[1], s);
    ask_wait(&a[1], &f);
    assert_string_equal(page.keys[0], "t0010~task");
    ask_close(&f, s, LONG_MS);
    loop_fixture_close(&f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_task_is_listed_once_and_in_order),
        TEST(pages_that_follow_take_no_walk),
        TEST(who_asks_for_the_newest_sees_what_is_new),
        TEST(a_listing_that_begins_too_late_serves_nobody_before),
        TEST(what_is_not_ours_is_passed_over),
        TEST(a_walk_ends_when_nobody_waits),
        TEST(a_store_keeps_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
