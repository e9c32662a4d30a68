/* Clearing up after writers that were killed. */
#include "store_file_io.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STALE_S = 3600, TMP_HEX = 16 };

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
