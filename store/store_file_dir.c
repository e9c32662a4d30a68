/* Walks through the directory: listing, and clearing up after writers that were killed. Names that
 * are no keys of ours (dot files, what an NFS client calls .nfs…, foreign files) are passed over.
 */
#include "store_file_io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOOK_AT_CLOCK_EVERY = 64, STALE_S = 3600, TMP_HEX = 16 };

static uint64_t ns_of(const struct stat *st)
{
    return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
}

/* --- a page ---------------------------------------------------------------------------------- */

struct listed {
    uint64_t ns;
    char key[STORE_KEY_MAX + 1];
};

struct listing {
    struct listed *best; /* newest first, at most `want` */
    unsigned count, want;
    struct listed after; /* the last of the page before */
    bool has_after;
};

/* Newest first; of one moment by name. */
static bool comes_before(const struct listed *a, const struct listed *b)
{
    return a->ns != b->ns ? a->ns > b->ns : strcmp(a->key, b->key) < 0;
}

static void listing_add(struct listing *l, const struct listed *e)
{
    if (l->has_after && !comes_before(&l->after, e))
        return;
    if (l->count == l->want && !comes_before(e, &l->best[l->count - 1]))
        return;
    unsigned low = 0;
    unsigned high = l->count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (comes_before(e, &l->best[middle]))
            high = middle;
        else
            low = middle + 1;
    }
    if (l->count < l->want)
        l->count++;
    memmove(&l->best[low + 1], &l->best[low], (l->count - 1 - low) * sizeof(*e));
    l->best[low] = *e;
}

/* A cursor is the last entry of its page, "<16 hex of its time>:<key>"; it came through hands that
 * may have changed it. */
static bool listing_read_cursor(struct listing *l, const char *cursor)
{
    static const char digits[] = "0123456789abcdef";
    if (cursor[0] == '\0')
        return true;
    for (unsigned i = 0; i < TMP_HEX; i++) {
        const char *digit = cursor[i] != '\0' ? strchr(digits, cursor[i]) : NULL;
        if (digit == NULL)
            return false;
        l->after.ns = l->after.ns << 4 | (uint64_t)(digit - digits);
    }
    if (cursor[TMP_HEX] != ':' || !store_key_ok(slice_of(cursor + TMP_HEX + 1)))
        return false;
    (void)snprintf(l->after.key, sizeof(l->after.key), "%s", cursor + TMP_HEX + 1);
    l->has_after = true;
    return true;
}

static bool is_listed(const char *name)
{
    static const struct slice suffix = {"~task", 5};
    struct slice key = slice_of(name);
    return key.len > suffix.len &&
           memcmp(name + key.len - suffix.len, suffix.ptr, suffix.len) == 0 && store_key_ok(key);
}

static enum err_code listing_walk(struct listing *l, DIR *d, uint64_t give_up_ms,
                                  const _Atomic bool *stop, struct err *err)
{
    struct dirent *entry;
    unsigned seen = 0;
    while (errno = 0, (entry = readdir(d)) != NULL) {
        struct stat st;
        struct listed e;
        if (atomic_load(stop))
            return err_set(err, ERR_CANCELLED, "closing");
        if (++seen % LOOK_AT_CLOCK_EVERY == 0 && clock_mono_ms() > give_up_ms)
            return err_set(err, ERR_TIMEOUT, "the directory could not be read in time");
        if (!is_listed(entry->d_name) ||
            fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        e.ns = ns_of(&st);
        (void)snprintf(e.key, sizeof(e.key), "%s", entry->d_name);
        listing_add(l, &e);
    }
    return errno == 0 ? ERR_OK : err_sys(err, ERR_UNAVAILABLE, errno, "reading the directory");
}

static void listing_fill(const struct listing *l, struct store_page *page)
{
    page->count = l->count < page->limit ? l->count : page->limit;
    page->next[0] = '\0';
    for (unsigned i = 0; i < page->count; i++)
        memcpy(page->keys[i], l->best[i].key, sizeof(page->keys[i]));
    if (l->count > page->limit) {
        const struct listed *last = &l->best[page->count - 1];
        (void)snprintf(page->next, sizeof(page->next), "%016llx:%s", (unsigned long long)last->ns,
                       last->key);
    }
}

enum err_code file_list_work(const char *dir, struct store_page *page, uint64_t give_up_ms,
                             const _Atomic bool *stop, struct err *err)
{
    struct listing l = {.want = page->limit + 1}; /* one more: is there another page? */
    enum err_code code = ERR_OK;
    if (!listing_read_cursor(&l, page->cursor))
        return err_set(err, ERR_INVALID, "not a cursor of this store");
    DIR *d = opendir(dir);
    if (d == NULL && errno != ENOENT)
        return err_sys(err, ERR_UNAVAILABLE, errno, "opening the directory");
    l.best = xcalloc(l.want, sizeof(*l.best));
    if (d != NULL) {
        code = listing_walk(&l, d, give_up_ms, stop, err);
        (void)closedir(d);
    }
    if (code == ERR_OK)
        listing_fill(&l, page);
    free(l.best);
    return code;
}

/* --- leftovers ------------------------------------------------------------------------------- */

/* ".<key>.<16 hex>.tmp" */
static bool is_tmp(const char *name)
{
    size_t len = strlen(name);
    size_t behind = 1 + TMP_HEX + 4;
    if (len <= 1 + behind || name[0] != '.' || strcmp(name + len - 4, ".tmp") != 0 ||
        name[len - behind] != '.' || strspn(name + len - behind + 1, "0123456789abcdef") != TMP_HEX)
        return false;
    return store_key_ok((struct slice){name + 1, len - behind - 1});
}

/* What time is it where the files are? A NAS has a clock of its own, and ours may be wrong after a
 * boot; removing the file under a writer's hands would fail his write. */
static bool file_server_now(int dir, time_t *ret)
{
    char name[FILE_NAME_ROOM];
    struct stat st;
    file_tmp_name("_", name);
    int fd = openat(dir, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool ok = fstat(fd, &st) == 0;
    (void)close(fd);
    (void)unlinkat(dir, name, 0);
    if (ok)
        *ret = st.st_mtim.tv_sec;
    return ok;
}

unsigned file_sweep_work(const char *dir, const _Atomic bool *stop)
{
    struct dirent *entry;
    unsigned removed = 0;
    time_t now = 0;
    DIR *d = opendir(dir);
    if (d == NULL)
        return 0;
    while (!atomic_load(stop) && (entry = readdir(d)) != NULL) {
        struct stat st;
        if (!is_tmp(entry->d_name) ||
            fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        if (now == 0 && !file_server_now(dirfd(d), &now))
            break; /* where nothing can be made, nothing can be removed */
        if (now - st.st_mtim.tv_sec > STALE_S && unlinkat(dirfd(d), entry->d_name, 0) == 0)
            removed++;
    }
    (void)closedir(d);
    return removed;
}
