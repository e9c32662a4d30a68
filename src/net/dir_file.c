/* Each step is taken from the folder before it, by openat() without following links: a link that is
 * put there meanwhile is not followed either. A new file is written under a name of its own and
 * then linked or renamed, so nobody reads half of it. */
#include "dir_file.h"

#include "codec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DIR_TRIES_MAX = 1000, DIR_COMPARE = 64 * 1024 };

/* --- names ----------------------------------------------------------------------------------- */

static bool part_ok(struct slice part)
{
    if (part.len == 0 || part.len > DIR_NAME_MAX || slice_is(part, ".") || slice_is(part, ".."))
        return false;
    for (size_t i = 0; i < part.len; i++) {
        unsigned char c = (unsigned char)part.ptr[i];
        if (c < ' ' || c == 0x7f || c == '/' || c == '\\')
            return false;
    }
    return true;
}

bool dir_path_ok(struct slice folder, struct slice name)
{
    if (folder.len + name.len >= DIR_PATH_MAX || !part_ok(name))
        return false;
    while (folder.len > 0) {
        const char *slash = memchr(folder.ptr, '/', folder.len);
        size_t len = slash != NULL ? (size_t)(slash - folder.ptr) : folder.len;
        if (!part_ok((struct slice){folder.ptr, len}) || (slash != NULL && len + 1 == folder.len))
            return false;
        len += slash != NULL ? 1 : 0;
        folder = (struct slice){folder.ptr + len, folder.len - len};
    }
    return true;
}

/* --- folders --------------------------------------------------------------------------------- */

static enum err_code failed(struct err *err, const char *what)
{
    bool missing = errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == ENAMETOOLONG;
    return err_sys(err, missing ? ERR_NOT_FOUND : ERR_UNAVAILABLE, errno, "%s", what);
}

static int step_into(int from, const char *part, bool make)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(from, part, flags);
    if (fd < 0 && errno == ENOENT && make && (mkdirat(from, part, 0777) == 0 || errno == EEXIST))
        fd = openat(from, part, flags);
    return fd;
}

/* That the directory itself is missing (a NAS that is not mounted) says nothing of what is in it.
 */
static enum err_code open_folder(const struct dir_path *path, bool make, int *ret_fd,
                                 struct err *err)
{
    char part[DIR_NAME_MAX + 1];
    const char *folder = path->folder;
    ASSERT(dir_path_ok(slice_of(folder), slice_of(path->name)));
    int fd = open(path->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, ERR_UNAVAILABLE, errno, "the directory cannot be opened");
    while (folder[0] != '\0') {
        size_t len = strcspn(folder, "/");
        memcpy(part, folder, len);
        part[len] = '\0';
        int inner = step_into(fd, part, make);
        int why = errno;
        (void)close(fd);
        errno = why;
        if (inner < 0)
            return failed(err, "opening the folder");
        fd = inner;
        folder += len + (folder[len] == '/' ? 1 : 0);
    }
    *ret_fd = fd;
    return ERR_OK;
}

enum err_code dir_open(const struct dir_path *path, int *ret_fd, struct err *err)
{
    struct stat st;
    int at = -1;
    enum err_code code = open_folder(path, false, &at, err);
    if (code != ERR_OK)
        return code;
    /* Without O_NONBLOCK opening a pipe would wait for its other end. */
    int fd = openat(at, path->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int why = errno;
    (void)close(at);
    errno = why;
    if (fd < 0)
        return failed(err, "opening the file");
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)close(fd);
        return err_set(err, ERR_NOT_FOUND, "it is not a file");
    }
    *ret_fd = fd;
    return ERR_OK;
}

/* --- keeping --------------------------------------------------------------------------------- */

/* False: errno says why. close() tells what a NAS could not write. */
static bool fill(int fd, struct slice content)
{
    bool ok = true;
    while (ok && content.len > 0) {
        ssize_t n = write(fd, content.ptr, content.len);
        if (n < 0 && errno == EINTR)
            continue;
        ok = n > 0;
        if (ok)
            content = (struct slice){content.ptr + n, content.len - (size_t)n};
    }
    ok = ok && fsync(fd) == 0;
    int why = errno;
    bool closed = close(fd) == 0;
    if (!ok)
        errno = why;
    return ok && closed;
}

static bool is_same(int at, const char *name, struct slice content, bool by_length)
{
    struct stat st;
    char part[DIR_COMPARE];
    int fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    bool same = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
                (uint64_t)st.st_size == content.len;
    while (same && !by_length && content.len > 0) {
        ssize_t n = read(fd, part, content.len < sizeof(part) ? content.len : sizeof(part));
        same = n > 0 && memcmp(part, content.ptr, (size_t)n) == 0;
        if (same)
            content = (struct slice){content.ptr + n, content.len - (size_t)n};
    }
    if (fd >= 0)
        (void)close(fd);
    return same;
}

/* "a (2).png" */
static bool numbered(const char *name, unsigned n, char ret[DIR_NAME_MAX + 1])
{
    const char *dot = strrchr(name, '.');
    size_t stem = dot != NULL && dot != name ? (size_t)(dot - name) : strlen(name);
    int len = n == 0
                  ? snprintf(ret, DIR_NAME_MAX + 1, "%s", name)
                  : snprintf(ret, DIR_NAME_MAX + 1, "%.*s (%u)%s", (int)stem, name, n, name + stem);
    return len > 0 && len <= DIR_NAME_MAX;
}

/* tmp gets a name that nobody has. False: errno says why, EEXIST: somebody has it. Where there is
 * no link() the name is made first; who reads it in that moment finds nothing in it. */
static bool give_free_name(int at, const char *tmp, const char *name)
{
    if (linkat(at, tmp, at, name, 0) == 0)
        return true;
    if (errno != EPERM && errno != ENOTSUP && errno != ENOSYS && errno != EMLINK)
        return false;
    int fd = openat(at, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    if (fd < 0)
        return false;
    (void)close(fd);
    return renameat(at, tmp, at, name) == 0;
}

static enum err_code give_name(int at, const char *tmp, const char *name, struct slice content,
                               enum dir_keep how, char ret_name[DIR_NAME_MAX + 1])
{
    for (unsigned n = 0; how == DIR_KEEP_BOTH && n < DIR_TRIES_MAX; n++) {
        if (!numbered(name, n, ret_name))
            return ERR_INVALID;
        if (is_same(at, ret_name, content, false) || give_free_name(at, tmp, ret_name))
            return ERR_OK; /* else errno is that of the naming */
        if (errno != EEXIST)
            return ERR_UNAVAILABLE;
    }
    if (how == DIR_KEEP_BOTH)
        return ERR_EXISTS;
    return renameat(at, tmp, at, name) == 0 ? ERR_OK : ERR_UNAVAILABLE;
}

enum err_code dir_keep(const struct dir_path *path, struct slice content, enum dir_keep how,
                       char ret_name[DIR_NAME_MAX + 1], struct err *err)
{
    char tmp[32], random[17];
    int at = -1;
    if (open_folder(path, true, &at, err) != ERR_OK)
        return err_set(err, ERR_UNAVAILABLE, "the folder for it cannot be opened or made");
    (void)snprintf(ret_name, DIR_NAME_MAX + 1, "%s", path->name);
    if (how == DIR_KEEP_AS_IS && is_same(at, path->name, content, true)) {
        (void)close(at);
        return ERR_OK;
    }
    random_hex(random, 8);
    (void)snprintf(tmp, sizeof(tmp), ".%s.tmp", random);
    int fd = openat(at, tmp, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    enum err_code code = ERR_UNAVAILABLE;
    if (fd >= 0 && fill(fd, content))
        code = give_name(at, tmp, path->name, content, how, ret_name);
    if (code != ERR_OK)
        (void)err_sys(err, code, errno, "the file cannot be written");
    if (fd >= 0)
        (void)unlinkat(at, tmp, 0); /* gone already if it was renamed */
    (void)close(at);
    return code;
}
