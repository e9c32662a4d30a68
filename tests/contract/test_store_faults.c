/* Faults under the file store: each system call of a write fails in turn, in each way. Whatever
 * happens, a reader sees a whole document, the caller is told the truth, nothing is left over. */
#include "backends.h"
#include "fault.h"
#include "store_ask.h"
#include "store_file_io.h"
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LONG_MS = 60000,
    SOON_MS = 40,
    CALLS_MAX = 40,
    HANGS_MS = 200,
    GAP_MAX_US = 50000,
    ROUNDS = 3, /* a machine that does other things now and then is no fault of the store */
    NOBODY = 65534,
};

struct room {
    struct loop_fixture f;
    struct store *s;
};

static char dir[BACKEND_URL_MAX];

static void open_room(struct room *r)
{
    char url[BACKEND_URL_MAX + 16];
    backend_make_dir(dir);
    loop_fixture_open(&r->f);
    (void)snprintf(url, sizeof(url), "file://%s", dir);
    assert_int_equal(store_open(&r->s, &r->f.loop, &r->f.later, url, NULL), ERR_OK);
}

static int set_up_unswept(void **state)
{
    static struct room r;
    open_room(&r);
    *state = &r;
    return 0;
}

/* The first operation has leftovers looked for, beside it. A list comes after that on the same
 * thread; then nobody else makes calls that could take a fault. */
static int set_up(void **state)
{
    static struct store_page page = {.limit = 1};
    struct ask a = {.op = {.page = &page}};
    (void)set_up_unswept(state);
    struct room *r = *state;
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    return 0;
}

static int tear_down(void **state)
{
    struct room *r = *state;
    (void)fault_disarm();
    fault_pretend_nfs(false);
    if (r->s != NULL)
        ask_close(&r->f, r->s, LONG_MS);
    loop_fixture_close(&r->f);
    backend_remove_dir(dir);
    return 0;
}

static unsigned count_entries(const char *path, const char *suffix)
{
    struct dirent *entry;
    unsigned count = 0;
    DIR *d = opendir(path);
    assert_non_null(d);
    while ((entry = readdir(d)) != NULL) {
        size_t len = strlen(entry->d_name);
        size_t suffix_len = strlen(suffix);
        count += len >= suffix_len && strcmp(entry->d_name + len - suffix_len, suffix) == 0;
    }
    (void)closedir(d);
    return count;
}

static unsigned count_fds(void)
{
    return count_entries("/proc/self/fd", "");
}

static const char *path_in(const char *name)
{
    static char path[2 * BACKEND_URL_MAX];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name, const char *text, int age_s)
{
    const char *path = path_in(name);
    struct timespec times[2] = {{.tv_sec = time(NULL) - age_s}, {.tv_sec = time(NULL) - age_s}};
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

/* --- each call fails ------------------------------------------------------------------------- */

static enum err_code do_durable(struct room *r, enum store_verb verb, const char *value)
{
    struct ask a = {.done = false};
    ask_add(&a, verb, "k", value);
    a.op.doc[0].durable = true;
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.err.code, a.op.doc[0].result);
    ask_done(&a);
    return a.op.doc[0].result;
}

/* Every call from the first to the last, until one run passes without a fault. */
static void torture(struct room *r, enum store_verb verb, const char *before, int errnum,
                    bool forever)
{
    unsigned fds = count_fds();
    for (unsigned nth = 1;; nth++) {
        assert_true(nth < CALLS_MAX);
        assert_int_equal(ask_remove(&r->f, r->s, "k"), ERR_OK);
        if (before != NULL)
            assert_int_equal(ask_put(&r->f, r->s, "k", before), ERR_OK);
        fault_arm(FAULT_ANY, nth, errnum, forever, false);
        enum err_code code = do_durable(r, verb, verb == STORE_REMOVE ? NULL : "new document");
        unsigned hits = fault_disarm();
        const char *after = verb == STORE_REMOVE ? NULL : "new document";
        if (code == ERR_OK)
            assert_true(ask_is(&r->f, r->s, "k", after));
        else /* not told as done: the old one or the new one, whole */
            assert_true(ask_is(&r->f, r->s, "k", before) || ask_is(&r->f, r->s, "k", after));
        assert_true(code == ERR_OK || code == ERR_UNAVAILABLE);
        assert_int_equal(count_entries(dir, ".tmp"), 0);
        assert_int_equal(count_fds(), fds);
        if (hits == 0) {
            assert_int_equal(code, ERR_OK);
            return;
        }
    }
}

static void whatever_fails_a_document_is_whole(void **state)
{
    static const int errnums[] = {ENOSPC, EIO, EROFS, EDQUOT, EACCES, ESTALE, EINTR};
    struct room *r = *state;
    for (size_t k = 0; k < 2 * ARRAY_LEN(errnums); k++) {
        size_t i = k / 2;
        fault_pretend_nfs(k % 2 != 0);
        for (unsigned forever = 0; forever < (errnums[i] == EINTR ? 1 : 2); forever++) {
            torture(r, STORE_PUT, NULL, errnums[i], forever != 0);
            torture(r, STORE_PUT, "old document", errnums[i], forever != 0);
            torture(r, STORE_CREATE, NULL, errnums[i], forever != 0);
            torture(r, STORE_REMOVE, "old document", errnums[i], forever != 0);
        }
    }
}

static void what_is_interrupted_goes_on(void **state)
{
    struct room *r = *state;
    static const struct {
        enum fault_call call;
        int errnum;
    } rows[] = {{FAULT_WRITE, EINTR}, {FAULT_FSYNC, EINTR}, {FAULT_WRITE, FAULT_SHORT_WRITE}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        fault_arm(rows[i].call, 1, rows[i].errnum, false, false);
        assert_int_equal(do_durable(r, STORE_PUT, "a document"), ERR_OK);
        assert_int_equal(fault_disarm(), 1);
        assert_true(ask_is(&r->f, r->s, "k", "a document"));
    }
}

/* Network file systems say at close() what they could not write. */
static void an_error_at_close_is_an_error(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_put(&r->f, r->s, "k", "old"), ERR_OK);
    fault_arm(FAULT_CLOSE, 1, EDQUOT, false, false);
    assert_int_equal(ask_put(&r->f, r->s, "k", "new"), ERR_UNAVAILABLE);
    assert_int_equal(fault_disarm(), 1);
    assert_true(ask_is(&r->f, r->s, "k", "old"));
    assert_int_equal(count_entries(dir, ".tmp"), 0);
}

/* The document and the directory that names it; where nobody asked for it, neither. */
static void only_what_is_durable_is_synced(void **state)
{
    struct room *r = *state;
    for (unsigned nth = 1; nth <= 2; nth++) {
        fault_arm(FAULT_FSYNC, nth, EIO, false, false);
        assert_int_equal(do_durable(r, STORE_PUT, "1"), ERR_UNAVAILABLE);
        assert_int_equal(fault_disarm(), 1);
    }
    fault_arm(FAULT_FSYNC, 1, EIO, false, false);
    assert_int_equal(do_durable(r, STORE_REMOVE, NULL), ERR_UNAVAILABLE);
    assert_int_equal(fault_disarm(), 1);
    fault_arm(FAULT_FSYNC, 1, EIO, true, false);
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
    assert_int_equal(fault_disarm(), 0);
}

static void a_full_disk_is_told_and_forgiven(void **state)
{
    struct room *r = *state;
    struct err why;
    fault_arm(FAULT_WRITE, 1, ENOSPC, true, false);
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_UNAVAILABLE);
    assert_false(store_healthy(r->s, &why));
    assert_non_null(strstr(why.msg, "No space left"));
    (void)fault_disarm();
    assert_int_equal(ask_put(&r->f, r->s, "k", "2"), ERR_OK);
    assert_true(store_healthy(r->s, NULL));
}

/* --- replies that are lost (NFS) ------------------------------------------------------------- */

static void a_rename_that_happened_is_no_failure(void **state)
{
    struct room *r = *state;
    fault_arm(FAULT_RENAME, 1, ENOENT, false, true);
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
    assert_int_equal(fault_disarm(), 1);
    assert_true(ask_is(&r->f, r->s, "k", "1"));
    fault_arm(FAULT_RENAME, 1, ENOENT, false, false);
    assert_int_equal(ask_put(&r->f, r->s, "k", "2"), ERR_UNAVAILABLE);
    assert_int_equal(fault_disarm(), 1);
    assert_true(ask_is(&r->f, r->s, "k", "1"));
}

static void remove_tmp(void)
{
    struct dirent *entry;
    DIR *d = opendir(dir);
    assert_non_null(d);
    while ((entry = readdir(d)) != NULL)
        if (strstr(entry->d_name, ".tmp") != NULL)
            assert_int_equal(unlink(path_in(entry->d_name)), 0);
    (void)closedir(d);
}

/* It hung for so long that somebody took its file for a killed writer's. */
static void a_rename_that_had_nothing_to_rename_is_a_failure(void **state)
{
    struct room *r = *state;
    struct ask a = {.done = false};
    assert_int_equal(ask_put(&r->f, r->s, "k", "old"), ERR_OK);
    fault_arm(FAULT_RENAME, 1, FAULT_HANG, false, false);
    ask_add(&a, STORE_PUT, "k", "new");
    ask_start(&a, r->s);
    while (fault_hits() == 0)
        loop_run_for(&r->f, 1);
    remove_tmp();
    (void)fault_disarm();
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.doc[0].result, ERR_UNAVAILABLE);
    assert_true(ask_is(&r->f, r->s, "k", "old"));
    ask_done(&a);
}

static void a_link_that_happened_is_ours(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_create(&r->f, r->s, "before", "local"), ERR_OK);
    fault_pretend_nfs(true); /* it is mounted over that */
    fault_arm(FAULT_LINK, 1, EEXIST, false, true);
    assert_int_equal(ask_create(&r->f, r->s, "k", "mine"), ERR_OK);
    assert_int_equal(fault_disarm(), 1);
    assert_int_equal(ask_create(&r->f, r->s, "k", "theirs"), ERR_EXISTS);
    assert_true(ask_is(&r->f, r->s, "k", "mine"));
    assert_int_equal(count_entries(dir, ".tmp"), 0);
}

static void where_links_are_refused_creating_goes_another_way(void **state)
{
    struct room *r = *state;
    static const int errnums[] = {EPERM, ENOTSUP, EMLINK, ENOSYS};
    for (size_t i = 0; i < ARRAY_LEN(errnums); i++) {
        fault_arm(FAULT_LINK, 1, errnums[i], true, false);
        assert_int_equal(ask_create(&r->f, r->s, "k", "mine"), ERR_OK);
        assert_int_equal(ask_create(&r->f, r->s, "k", "theirs"), ERR_EXISTS);
        assert_true(fault_disarm() >= 4); /* the rename and the link of each */
        assert_true(ask_is(&r->f, r->s, "k", "mine"));
        assert_int_equal(count_entries(dir, ".tmp"), 0);
        assert_int_equal(ask_remove(&r->f, r->s, "k"), ERR_OK);
    }
}

/* --- what asks for no file ------------------------------------------------------------------- */

static void what_is_wrong_by_itself_touches_no_file(void **state)
{
    struct room *r = *state;
    static const char *const keys[] = {"", "..", "a/b", ".a", "a b", "a.tmp", "../k"};
    struct ask a = {.done = false};
    char *bytes = xcalloc(1, STORE_VALUE_MAX + 1);
    fault_arm(FAULT_ANY, 1, EIO, true, false);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        assert_int_equal(ask_put(&r->f, r->s, keys[i], "1"), ERR_INVALID);
    ask_add_bytes(&a, STORE_PUT, "k", (struct slice){bytes, STORE_VALUE_MAX + 1});
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.doc[0].result, ERR_TOO_LARGE);
    assert_int_equal(fault_disarm(), 0);
    assert_true(store_healthy(r->s, NULL));
    ask_done(&a);
    free(bytes);
}

/* --- a directory that goes, or is none ------------------------------------------------------- */

static void a_directory_that_was_removed_is_made_again(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
    backend_remove_dir(dir);
    assert_true(ask_is(&r->f, r->s, "k", NULL));
    assert_int_equal(ask_remove(&r->f, r->s, "k"), ERR_OK);
    assert_int_equal(ask_put(&r->f, r->s, "k", "2"), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "k", "2"));
}

static void a_directory_that_cannot_be_made_is_told(void **state)
{
    struct room *r = *state;
    struct store *s;
    struct err why;
    char url[BACKEND_URL_MAX + 32];
    write_file("file", "x", 0);
    (void)snprintf(url, sizeof(url), "file://%s/file/tasks", dir);
    assert_int_equal(store_open(&s, &r->f.loop, &r->f.later, url, NULL), ERR_OK); /* no I/O */
    assert_true(store_healthy(s, NULL));
    assert_int_equal(ask_put(&r->f, s, "k", "1"), ERR_UNAVAILABLE);
    assert_false(store_healthy(s, &why));
    assert_non_null(strstr(why.msg, "directory"));
    assert_int_equal(unlink(path_in("file")), 0);
    assert_int_equal(ask_put(&r->f, s, "k", "1"), ERR_OK); /* without being opened again */
    assert_true(store_healthy(s, NULL));
    ask_close(&r->f, s, LONG_MS);
}

/* --- a directory of others ------------------------------------------------------------------- */

static int access_of_parent(void)
{
    char parent[BACKEND_URL_MAX];
    (void)snprintf(parent, sizeof(parent), "%s", dir);
    *strrchr(parent, '/') = '\0';
    return faccessat(AT_FDCWD, parent, X_OK, AT_EACCESS);
}

/* For root no directory is read-only. glibc changes the user of all threads. Where temporary files
 * are root's alone, nobody else gets as far as the directory. */
static void become(uid_t user)
{
    if (getuid() != 0)
        return;
    assert_int_equal(seteuid(user), 0);
    if (user != 0 && access_of_parent() != 0) {
        assert_int_equal(seteuid(0), 0);
        skip();
    }
}

static void check_refused(struct room *r, const char *value)
{
    struct err why;
    assert_int_equal(ask_put(&r->f, r->s, "k", "new"), ERR_UNAVAILABLE);
    assert_int_equal(ask_create(&r->f, r->s, "k~end.1", "new"), ERR_UNAVAILABLE);
    assert_int_equal(ask_remove(&r->f, r->s, "k"), ERR_UNAVAILABLE);
    assert_false(store_healthy(r->s, &why));
    assert_non_null(strstr(why.msg, "Permission denied"));
    if (value != NULL)
        assert_true(ask_is(&r->f, r->s, "k", value));
}

static void a_directory_that_may_not_be_written_is_told_and_read(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_put(&r->f, r->s, "k", "old"), ERR_OK);
    assert_int_equal(chmod(path_in("k"), 0644), 0);
    assert_int_equal(chmod(dir, 0555), 0);
    become(NOBODY);
    check_refused(r, "old");
    become(0);
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(ask_put(&r->f, r->s, "k", "new"), ERR_OK);
    assert_true(store_healthy(r->s, NULL));
}

/* Who may not look does not know what is there: it is not "not found". */
static void a_directory_of_somebody_else_is_told(void **state)
{
    struct room *r = *state;
    struct blob *value = NULL;
    assert_int_equal(ask_put(&r->f, r->s, "k", "old"), ERR_OK);
    assert_int_equal(chmod(dir, getuid() == 0 ? 0700 : 0), 0);
    become(NOBODY);
    check_refused(r, NULL);
    assert_int_equal(ask_get(&r->f, r->s, "k", &value), ERR_UNAVAILABLE);
    assert_int_equal(ask_get(&r->f, r->s, "none", &value), ERR_UNAVAILABLE);
    become(0);
    assert_int_equal(chmod(dir, 0700), 0);
    assert_true(ask_is(&r->f, r->s, "k", "old"));
}

/* Written by a neighbour under another user: its directory decides. */
static void a_document_of_somebody_else_is_told_and_replaced(void **state)
{
    struct room *r = *state;
    struct blob *value = NULL;
    assert_int_equal(ask_put(&r->f, r->s, "k", "old"), ERR_OK);
    assert_int_equal(chmod(path_in("k"), getuid() == 0 ? 0600 : 0), 0);
    assert_int_equal(chmod(dir, 0777), 0);
    become(NOBODY);
    assert_int_equal(ask_get(&r->f, r->s, "k", &value), ERR_UNAVAILABLE);
    assert_int_equal(ask_create(&r->f, r->s, "k", "new"), ERR_EXISTS);
    assert_int_equal(ask_put(&r->f, r->s, "k", "new"), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "k", "new"));
    become(0);
}

/* --- what others put there ------------------------------------------------------------------- */

static void what_is_no_document_is_corrupt(void **state)
{
    struct room *r = *state;
    struct blob *value;
    write_file("empty", "", 0);
    assert_int_equal(mkdir(path_in("folder"), 0700), 0);
    assert_int_equal(mkfifo(path_in("fifo"), 0600), 0);
    assert_int_equal(symlink("/etc/passwd", path_in("link")), 0);
    assert_int_equal(ask_get(&r->f, r->s, "empty", &value), ERR_CORRUPT);
    assert_int_equal(ask_get(&r->f, r->s, "folder", &value), ERR_CORRUPT);
    assert_int_equal(ask_get(&r->f, r->s, "fifo", &value), ERR_CORRUPT);
    assert_int_equal(ask_get(&r->f, r->s, "link", &value), ERR_CORRUPT);
    assert_true(store_healthy(r->s, NULL));
    write_file("huge", "x", 0);
    assert_int_equal(truncate(path_in("huge"), STORE_VALUE_MAX + 1), 0);
    assert_int_equal(ask_get(&r->f, r->s, "huge", &value), ERR_TOO_LARGE);
}

/* … and concerns those behind it in the same op no more than what is not there. */
static void an_unreadable_document_hides_no_other(void **state)
{
    struct room *r = *state;
    struct ask a = {.done = false};
    write_file("empty", "", 0);
    write_file("huge", "x", 0);
    assert_int_equal(truncate(path_in("huge"), STORE_VALUE_MAX + 1), 0);
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
    ask_add(&a, STORE_GET, "empty", NULL);
    ask_add(&a, STORE_GET, "huge", NULL);
    ask_add(&a, STORE_GET, "none", NULL);
    ask_add(&a, STORE_GET, "k", NULL);
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.doc[0].result, ERR_CORRUPT);
    assert_int_equal(a.op.doc[1].result, ERR_TOO_LARGE);
    assert_int_equal(a.op.doc[2].result, ERR_NOT_FOUND);
    assert_int_equal(a.op.doc[3].result, ERR_OK);
    assert_int_equal(a.op.err.code, ERR_CORRUPT); /* the first */
    assert_true(store_healthy(r->s, NULL));
    ask_done(&a);
}

static void a_store_that_fails_behind_an_unreadable_document_fails(void **state)
{
    struct room *r = *state;
    struct ask a = {.done = false};
    struct err why;
    write_file("empty", "", 0);
    ask_add(&a, STORE_GET, "empty", NULL);
    ask_add(&a, STORE_GET, "k", NULL);
    ask_add(&a, STORE_GET, "behind", NULL);
    fault_arm(FAULT_OPEN, 2, EIO, true, false);
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(fault_disarm(), 1);
    assert_int_equal(a.op.doc[0].result, ERR_CORRUPT);
    assert_int_equal(a.op.doc[1].result, ERR_UNAVAILABLE);
    assert_int_equal(a.op.doc[2].result, ERR_CANCELLED);
    assert_int_equal(a.op.err.code, ERR_UNAVAILABLE); /* what ended it is told */
    assert_false(store_healthy(r->s, &why));
    assert_non_null(strstr(why.msg, "reading"));
    ask_done(&a);
}

static void a_stale_handle_is_opened_again(void **state)
{
    struct room *r = *state;
    struct blob *value;
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
    fault_arm(FAULT_OPEN, 1, ESTALE, false, false);
    assert_true(ask_is(&r->f, r->s, "k", "1"));
    assert_int_equal(fault_disarm(), 1);
    fault_arm(FAULT_OPEN, 1, ESTALE, true, false);
    assert_int_equal(ask_get(&r->f, r->s, "k", &value), ERR_UNAVAILABLE); /* not for ever */
    assert_int_equal(fault_disarm(), 2);
    fault_arm(FAULT_OPEN, 1, EIO, false, false);
    assert_int_equal(ask_get(&r->f, r->s, "k", &value), ERR_UNAVAILABLE);
    assert_int_equal(fault_disarm(), 1);
    fault_arm(FAULT_READ, 1, ESTALE, false, false); /* it was replaced under the reader */
    assert_true(ask_is(&r->f, r->s, "k", "1"));
    assert_int_equal(fault_disarm(), 1);
    fault_arm(FAULT_READ, 1, ESTALE, true, false);
    assert_int_equal(ask_get(&r->f, r->s, "k", &value), ERR_UNAVAILABLE);
    assert_int_equal(fault_disarm(), 2);
}

static void leftovers_of_killed_writers_are_removed(void **state)
{
    struct room *r = *state;
    _Atomic bool stop;
    (void)r;
    write_file(".old.0123456789abcdef.tmp", "half", 2 * 3600);
    write_file(".old~task.0123456789abcdef.tmp", "half", 2 * 3600);
    write_file(".young.0123456789abcdef.tmp", "half", 1800);
    write_file(".foreign.tmp", "x", 2 * 3600);
    write_file(".foreign.0123456789abcde.tmp", "x", 2 * 3600);
    write_file("old.0123456789abcdef.tmp", "x", 2 * 3600);
    write_file("old", "a document", 2 * 3600);
    atomic_init(&stop, true);
    assert_int_equal(file_sweep_work(dir, &stop), 0);
    atomic_store(&stop, false);
    assert_int_equal(file_sweep_work(dir, &stop), 2);
    assert_int_equal(file_sweep_work(dir, &stop), 0);
    assert_int_equal(count_entries(dir, ".tmp"), 4);
    assert_true(ask_is(&r->f, r->s, "old", "a document"));
}

static void they_are_removed_by_the_first_operation(void **state)
{
    struct room *r = *state;
    uint64_t end = clock_mono_ms() + LONG_MS;
    write_file(".old.0123456789abcdef.tmp", "half", 2 * 3600);
    assert_true(ask_is(&r->f, r->s, "k", NULL));
    while (count_entries(dir, ".tmp") > 0 && clock_mono_ms() < end)
        loop_run_for(&r->f, 1);
    assert_int_equal(count_entries(dir, ".tmp"), 0);
}

/* --- a mount that hangs ---------------------------------------------------------------------- */

static void a_dead_mount_holds_no_caller(void **state)
{
    struct room *r = *state;
    struct ask stuck = {.op = {.deadline_ms = SOON_MS}};
    struct ask other = {.op = {.deadline_ms = SOON_MS}};
    struct ask patient = {.done = false};
    uint64_t begin = clock_mono_ms();
    fault_arm(FAULT_RENAME, 1, FAULT_HANG, true, false);
    ask_add(&stuck, STORE_PUT, "k", "1");
    ask_add(&other, STORE_GET, "other", NULL);
    ask_add(&patient, STORE_PUT, "k", "2");
    ask_start(&stuck, r->s);
    ask_start(&other, r->s);
    ask_start(&patient, r->s);
    ask_wait(&stuck, &r->f);
    ask_wait(&other, &r->f);
    assert_true(clock_mono_ms() - begin >= SOON_MS);
    assert_int_equal(stuck.op.doc[0].result, ERR_TIMEOUT);
    assert_int_equal(other.op.doc[0].result, ERR_TIMEOUT); /* the only thread hangs */
    assert_false(patient.done);
    (void)fault_disarm(); /* it comes back */
    ask_wait(&patient, &r->f);
    assert_int_equal(patient.op.doc[0].result, ERR_OK);
    assert_true(ask_is(&r->f, r->s, "k", "2"));
    ask_done(&stuck);
    ask_done(&other);
    ask_done(&patient);
}

static uint64_t last_us, worst_us;

static void on_tick(uv_timer_t *timer)
{
    uint64_t now = uv_hrtime() / 1000;
    (void)timer;
    if (last_us != 0 && now - last_us > worst_us)
        worst_us = now - last_us;
    last_us = now;
}

static void a_dead_mount_holds_no_loop(void **state)
{
    struct room *r = *state;
    bool good = false;
    for (unsigned i = 0; i < ROUNDS && !good; i++) {
        struct ask a = {.op = {.deadline_ms = HANGS_MS}};
        uv_timer_t tick;
        last_us = worst_us = 0;
        fault_arm(FAULT_ANY, 1, FAULT_HANG, true, false);
        assert_int_equal(uv_timer_init(&r->f.loop, &tick), 0);
        assert_int_equal(uv_timer_start(&tick, on_tick, 1, 1), 0);
        ask_add(&a, STORE_PUT, "k", "1");
        ask_start(&a, r->s);
        ask_wait(&a, &r->f);
        (void)fault_disarm();
        uv_close((uv_handle_t *)&tick, NULL);
        loop_run_for(&r->f, 1);
        assert_int_equal(a.op.doc[0].result, ERR_TIMEOUT);
        ask_done(&a);
        good = worst_us <= GAP_MAX_US;
    }
    assert_true(good);
}

/* An owner that was frozen in the middle of a write, and is an owner no more. */
static void who_was_held_up_too_long_stays_silent(void **state)
{
    static const enum store_verb verbs[] = {STORE_PUT, STORE_CREATE};
    struct room *r = *state;
    assert_int_equal(ask_put(&r->f, r->s, "put", "old"), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        struct ask a = {.op = {.not_after_ms = clock_mono_ms() + SOON_MS}};
        fault_arm(FAULT_FSYNC, 1, FAULT_HANG, true, false);
        ask_add(&a, verbs[i], verbs[i] == STORE_PUT ? "put" : "create", "new");
        a.op.doc[0].durable = true;
        ask_start(&a, r->s);
        loop_run_for(&r->f, SOON_MS + 10);
        (void)fault_disarm();
        ask_wait(&a, &r->f);
        assert_int_equal(a.op.doc[0].result, ERR_CANCELLED);
        ask_done(&a);
    }
    assert_true(ask_is(&r->f, r->s, "put", "old"));
    assert_true(ask_is(&r->f, r->s, "create", NULL));
    assert_int_equal(count_entries(dir, ".tmp"), 0);
}

/* Last: its thread hangs until the process ends. */
static void a_dead_mount_holds_up_no_end(void **state)
{
    struct room *r = *state;
    struct ask stuck = {.done = false};
    struct ask waiting = {.done = false};
    fault_arm(FAULT_RENAME, 1, FAULT_HANG, true, false);
    ask_add(&stuck, STORE_PUT, "k", "1");
    ask_add(&waiting, STORE_GET, "k", NULL);
    ask_start(&stuck, r->s);
    ask_start(&waiting, r->s);
    ask_close(&r->f, r->s, SOON_MS);
    r->s = NULL;
    assert_int_equal(stuck.op.doc[0].result, ERR_TIMEOUT);
    assert_int_equal(waiting.op.doc[0].result, ERR_CANCELLED);
    ask_done(&stuck);
    ask_done(&waiting);
}

static int tear_down_stuck(void **state)
{
    struct room *r = *state;
    loop_fixture_close(&r->f);
    backend_remove_dir(dir);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(whatever_fails_a_document_is_whole),
        TEST(what_is_interrupted_goes_on),
        TEST(an_error_at_close_is_an_error),
        TEST(only_what_is_durable_is_synced),
        TEST(a_full_disk_is_told_and_forgiven),
        TEST(a_rename_that_happened_is_no_failure),
        TEST(a_rename_that_had_nothing_to_rename_is_a_failure),
        TEST(a_link_that_happened_is_ours),
        TEST(where_links_are_refused_creating_goes_another_way),
        TEST(what_is_wrong_by_itself_touches_no_file),
        TEST(a_directory_that_was_removed_is_made_again),
        TEST(a_directory_that_cannot_be_made_is_told),
        TEST(a_directory_that_may_not_be_written_is_told_and_read),
        TEST(a_directory_of_somebody_else_is_told),
        TEST(a_document_of_somebody_else_is_told_and_replaced),
        TEST(what_is_no_document_is_corrupt),
        TEST(an_unreadable_document_hides_no_other),
        TEST(a_store_that_fails_behind_an_unreadable_document_fails),
        TEST(a_stale_handle_is_opened_again),
        TEST(leftovers_of_killed_writers_are_removed),
        cmocka_unit_test_setup_teardown(they_are_removed_by_the_first_operation, set_up_unswept,
                                        tear_down),
        TEST(a_dead_mount_holds_no_caller),
        TEST(a_dead_mount_holds_no_loop),
        TEST(who_was_held_up_too_long_stays_silent),
        cmocka_unit_test_setup_teardown(a_dead_mount_holds_up_no_end, set_up, tear_down_stuck),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
