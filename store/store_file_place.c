/* What may differ between two operations is what the path leads to: another directory, perhaps on
 * another file system. Each fd is asked for its device, and what that is where it is new or was
 * the kernel's own: neither costs a server a question again. */
#include "store_file_place.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum {
    DIR_MODE = 0750, /* less the umask */
    KEEP_MS = 50,
};

enum err_code file_failed(struct err *err, int errnum, const char *what)
{
    return err_sys(err, ERR_UNAVAILABLE, errnum, "%s", what);
}

int file_sync(int fd)
{
    while (fsync(fd) != 0)
        if (errno != EINTR)
            return errno;
    return 0;
}

/* --- which file system ----------------------------------------------------------------------- */

/* What the kernel itself keeps, so that what it promises holds. */
static bool file_system_is_local(int fd)
{
    struct statfs fs;
    if (fstatfs(fd, &fs) != 0)
        return false;
    switch ((unsigned long)fs.f_type) {
    case TMPFS_MAGIC:
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case OVERLAYFS_SUPER_MAGIC: return true;
    default: return false;
    }
}

/* --- its life -------------------------------------------------------------------------------- */

void file_place_init(struct file_place *ret, const char *dir)
{
    *ret = (struct file_place){.dir = dir, .fd = AT_FDCWD, .is_local = true};
}

void file_place_close(struct file_place *place)
{
    if (place->fd != AT_FDCWD)
        (void)close(place->fd);
    place->fd = AT_FDCWD;
}

/* Opening it asks a server for it again. */
static int place_open_dir(const struct file_place *place)
{
    return open(place->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void place_keep(struct file_place *place, int fd, uint64_t now)
{
    struct stat st;
    dev_t dev = fstat(fd, &st) == 0 ? st.st_dev : 0;
    /* A number is given again after an umount: only "not local" may be believed for ever. */
    if (dev == 0 || dev != place->dev || place->is_local)
        place->is_local = dev != 0 && file_system_is_local(fd);
    place->dev = dev;
    place->fd = fd;
    place->old_at = now + KEEP_MS;
}

void file_place_open(struct file_place *place, bool writes, bool durable)
{
    uint64_t now = clock_mono_ms();
    if (place->fd != AT_FDCWD && now < place->old_at)
        return;
    file_place_close(place);
    if (!durable && !(writes && place->is_local))
        return;
    int fd = place_open_dir(place);
    if (fd >= 0)
        place_keep(place, fd, now);
}

void file_place_leave(struct file_place *place, bool has_failed)
{
    if (has_failed || !place->is_local)
        file_place_close(place);
}

bool file_place_renames_anew(const struct file_place *place)
{
    return place->fd != AT_FDCWD && place->is_local;
}

void file_place_look_again(struct file_place *place)
{
    int fd = place_open_dir(place);
    if (fd < 0)
        return;
    (void)close(place->fd != AT_FDCWD ? place->fd : fd);
    if (place->fd != AT_FDCWD)
        place_keep(place, fd, clock_mono_ms());
}

static enum err_code place_make_dirs(const char *dir, struct err *err)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s", dir);
    for (char *at = path + 1;; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        bool last = *at == '\0';
        *at = '\0';
        if (mkdir(path, DIR_MODE) != 0 && errno != EEXIST) {
            int errnum = errno;
            struct stat st; /* a read-only file system says EROFS of what is there, too */
            if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
                return file_failed(err, errnum, "the store's directory cannot be made");
        }
        if (last)
            return ERR_OK;
        *at = '/';
    }
}

enum err_code file_place_make(struct file_place *place, struct err *err)
{
    if (place_make_dirs(place->dir, err) != ERR_OK)
        return ERR_UNAVAILABLE;
    file_place_look_again(place);
    return ERR_OK;
}

/* Some file systems cannot, and say EINVAL. */
enum err_code file_place_sync(const struct file_place *place, struct err *err)
{
    int fd = place->fd != AT_FDCWD ? place->fd : place_open_dir(place);
    if (fd < 0)
        return file_failed(err, errno, "opening the directory");
    int errnum = file_sync(fd);
    if (fd != place->fd)
        (void)close(fd);
    if (errnum != 0 && errnum != EINVAL && errnum != ENOTSUP)
        return file_failed(err, errnum, "fsync of the directory");
    return ERR_OK;
}
