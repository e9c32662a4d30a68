/* Reading and writing one document.
 *
 * A reader sees a document whole or not at all, the old one or the new one: what is written goes to
 * a file of its own name beside it, is complete, and then takes the name by rename(), or by link()
 * where nothing may be replaced.
 *
 * On a NAS mounted by NFS: errors of writing may show only at close(), so it is checked. A reply
 * can be lost and the repeated request fail although the first one happened (rename: ENOENT, link:
 * EEXIST); the name is ours if it stands for the inode that we wrote. A file replaced under a
 * reader is ESTALE: opened again, once. That holds for a name that a client has cached, too, if the
 * file is really gone: so documents that say the same, as a run's end and its record, are never two
 * names of one file. A name can be cached as missing; opening the directory asks the server again.
 * A mount that hangs hangs us: that is what the threads are for.
 *
 * Where link() is refused (some network and user-space file systems), CREATE writes in place under
 * O_EXCL. Who comes first is still decided by the file system, but a reader may then see the
 * document incomplete, and a crash in that moment leaves it so. No rename can be avoided there:
 * rename() replaces.
 */
#include "store_file_io.h"

#include "codec.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Prompts are their callers' own: not for everybody on the machine. Less the umask. */
enum { FILE_MODE = 0640, DIR_MODE = 0750 };

struct file_path {
    char text[PATH_MAX];
};

static const char *path_of(struct file_path *p, const char *dir, const char *name)
{
    size_t dir_len = strlen(dir), name_len = strlen(name);
    ASSERT(dir_len + name_len + 2 <= sizeof(p->text)); /* store_file.c bounds the directory's */
    memcpy(p->text, dir, dir_len);
    p->text[dir_len] = '/';
    memcpy(p->text + dir_len + 1, name, name_len + 1);
    return p->text;
}

void file_tmp_name(const char *key, char ret[FILE_NAME_ROOM])
{
    size_t len = strlen(key);
    ASSERT(len <= STORE_KEY_MAX);
    ret[0] = '.';
    memcpy(ret + 1, key, len + 1);
    ret[1 + len] = '.';
    random_hex(ret + 2 + len, 8);
    memcpy(ret + 2 + len + 16, ".tmp", sizeof(".tmp"));
}

static enum err_code file_failed(struct err *err, int errnum, const char *what)
{
    return err_sys(err, ERR_UNAVAILABLE, errnum, "%s", what);
}

/* mkdir -p. Others may do it at the same time. */
static enum err_code file_make_dir(const char *dir, struct err *err)
{
    struct file_path p;
    (void)snprintf(p.text, sizeof(p.text), "%s", dir);
    for (char *at = p.text + 1;; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        bool last = *at == '\0';
        *at = '\0';
        if (mkdir(p.text, DIR_MODE) != 0 && errno != EEXIST) {
            int errnum = errno;
            struct stat st; /* a read-only file system says EROFS of what is there, too */
            if (stat(p.text, &st) != 0 || !S_ISDIR(st.st_mode))
                return file_failed(err, errnum, "the store's directory cannot be made");
        }
        if (last)
            return ERR_OK;
        *at = '/';
    }
}

/* --- writing --------------------------------------------------------------------------------- */

struct file_id { /* which file a name stands for */
    dev_t dev;
    ino_t ino;
};

static bool file_is(const char *path, const struct file_id *id)
{
    struct stat st;
    return lstat(path, &st) == 0 && st.st_dev == id->dev && st.st_ino == id->ino;
}

static bool is_too_late(uint64_t not_after_ms)
{
    return not_after_ms != 0 && clock_mono_ms() > not_after_ms;
}

static enum err_code too_late(struct err *err)
{
    return err_set(err, ERR_CANCELLED, "not written: its time was over");
}

static int file_write_all(int fd, const struct blob *value)
{
    size_t at = 0;
    while (at < value->len) {
        ssize_t n = write(fd, value->bytes + at, value->len - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0 ? EIO : errno;
        at += (size_t)n;
    }
    return 0;
}

static int file_sync(int fd)
{
    while (fsync(fd) != 0)
        if (errno != EINTR)
            return errno;
    return 0;
}

/* Fills and closes fd. An interrupted close() has closed, but may not have written (NFS): that it
 * failed is the safe answer. */
static enum err_code file_fill(int fd, const struct store_doc *doc, struct file_id *ret_id,
                               struct err *err)
{
    struct stat st;
    const char *what = "writing";
    int errnum = file_write_all(fd, doc->value);
    if (errnum == 0 && doc->durable) {
        what = "fsync";
        errnum = file_sync(fd);
    }
    if (errnum == 0 && fstat(fd, &st) != 0) {
        what = "fstat";
        errnum = errno;
    }
    if (close(fd) != 0 && errnum == 0) {
        what = "close";
        errnum = errno;
    }
    if (errnum != 0)
        return file_failed(err, errnum, what);
    *ret_id = (struct file_id){st.st_dev, st.st_ino};
    return ERR_OK;
}

/* A rename is durable once its directory is. Some file systems cannot, and say EINVAL. */
static enum err_code file_sync_dir(const char *dir, struct err *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return file_failed(err, errno, "opening the directory");
    int errnum = file_sync(fd);
    (void)close(fd);
    if (errnum != 0 && errnum != EINVAL && errnum != ENOTSUP)
        return file_failed(err, errnum, "fsync of the directory");
    return ERR_OK;
}

static int file_open_tmp(const char *dir, const char *tmp, struct err *err)
{
    int flags = O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC;
    int fd = open(tmp, flags, FILE_MODE);
    if (fd < 0 && errno == ENOENT) {
        if (file_make_dir(dir, err) != ERR_OK)
            return -1;
        fd = open(tmp, flags, FILE_MODE);
    }
    if (fd < 0)
        (void)file_failed(err, errno, "a new file cannot be made");
    return fd;
}

static enum err_code file_put_as(const char *tmp, const char *target, const struct file_id *id,
                                 struct err *err)
{
    if (rename(tmp, target) == 0)
        return ERR_OK;
    int errnum = errno;
    if (file_is(target, id))
        return ERR_OK;
    return file_failed(err, errnum, "rename");
}

/* The weak form; see the top. */
static enum err_code file_create_in_place(const char *target, const struct store_doc *doc,
                                          struct err *err)
{
    struct file_id id;
    int fd = open(target, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, FILE_MODE);
    if (fd < 0)
        return errno == EEXIST ? ERR_EXISTS : file_failed(err, errno, "creating");
    enum err_code code = file_fill(fd, doc, &id, err);
    if (code != ERR_OK)
        (void)unlink(target);
    return code;
}

static enum err_code file_create_as(const char *tmp, const char *target,
                                    const struct store_doc *doc, const struct file_id *id,
                                    struct err *err)
{
    if (link(tmp, target) == 0)
        return ERR_OK;
    int errnum = errno;
    if (file_is(target, id))
        return ERR_OK;
    if (errnum == EEXIST)
        return ERR_EXISTS;
    if (errnum == EPERM || errnum == ENOTSUP || errnum == ENOSYS || errnum == EMLINK)
        return file_create_in_place(target, doc, err);
    return file_failed(err, errnum, "link");
}

static enum err_code file_write(const char *dir, const struct store_doc *doc, uint64_t not_after_ms,
                                struct err *err)
{
    struct file_path tmp_path, target_path;
    struct file_id id = {.ino = 0};
    char name[FILE_NAME_ROOM];
    file_tmp_name(doc->key, name);
    const char *tmp = path_of(&tmp_path, dir, name);
    const char *target = path_of(&target_path, dir, doc->key);
    int fd = file_open_tmp(dir, tmp, err);
    if (fd < 0)
        return ERR_UNAVAILABLE;
    enum err_code code = file_fill(fd, doc, &id, err);
    if (code == ERR_OK && is_too_late(not_after_ms))
        code = too_late(err);
    if (code == ERR_OK && doc->verb == STORE_PUT)
        code = file_put_as(tmp, target, &id, err);
    else if (code == ERR_OK)
        code = file_create_as(tmp, target, doc, &id, err);
    if (code != ERR_OK || doc->verb == STORE_CREATE)
        (void)unlink(tmp);
    if (code == ERR_OK && doc->durable)
        code = file_sync_dir(dir, err);
    return code;
}

static enum err_code file_remove(const char *dir, const struct store_doc *doc,
                                 uint64_t not_after_ms, struct err *err)
{
    struct file_path path;
    if (is_too_late(not_after_ms))
        return too_late(err);
    if (unlink(path_of(&path, dir, doc->key)) != 0)
        return errno == ENOENT ? ERR_OK : file_failed(err, errno, "unlink");
    return doc->durable ? file_sync_dir(dir, err) : ERR_OK;
}

/* --- reading --------------------------------------------------------------------------------- */

/* 0 and the value, or an errno. *ret_code says more where the document is at fault. */
static int file_read_open(int fd, struct blob **ret, enum err_code *ret_code)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return errno;
    *ret_code = !S_ISREG(st.st_mode) || st.st_size == 0 ? ERR_CORRUPT
                : st.st_size > STORE_VALUE_MAX          ? ERR_TOO_LARGE
                                                        : ERR_OK;
    if (*ret_code != ERR_OK)
        return 0;
    size_t len = (size_t)st.st_size;
    size_t at = 0;
    struct blob *value = malloc(sizeof(*value) + len + 1); /* of a size that others chose */
    if (value == NULL)
        return ENOMEM;
    while (at < len) {
        ssize_t n = read(fd, value->bytes + at, len - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int errnum = n == 0 ? 0 : errno;
            free(value);
            *ret_code = ERR_CORRUPT; /* shorter than its size */
            return errnum;
        }
        at += (size_t)n;
    }
    value->refs = 1;
    value->len = len;
    value->bytes[len] = '\0';
    *ret = value;
    return 0;
}

/* O_NONBLOCK: a FIFO somebody put there must not hold a thread. O_NOFOLLOW: nor may a link lead out
 * of the directory. */
static int file_read_once(const char *path, struct blob **ret, enum err_code *ret_code)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno;
    int errnum = file_read_open(fd, ret, ret_code);
    (void)close(fd);
    return errnum;
}

static void file_ask_server_again(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        (void)close(fd);
}

static enum err_code file_read(const char *dir, const char *key, struct blob **ret, struct err *err)
{
    struct file_path p;
    const char *path = path_of(&p, dir, key);
    enum err_code code = ERR_OK;
    int errnum = file_read_once(path, ret, &code);
    if (errnum == ENOENT || errnum == ESTALE) {
        if (errnum == ENOENT)
            file_ask_server_again(dir);
        errnum = file_read_once(path, ret, &code);
    }
    if (errnum == ENOENT)
        return ERR_NOT_FOUND;
    if (errnum == ELOOP || (errnum == 0 && code == ERR_CORRUPT))
        return err_set(err, ERR_CORRUPT, "what is stored is no document");
    if (errnum != 0)
        return file_failed(err, errnum, "reading");
    if (code == ERR_TOO_LARGE)
        return err_set(err, ERR_TOO_LARGE, "what is stored is larger than %d bytes",
                       STORE_VALUE_MAX);
    return ERR_OK;
}

void file_do_work(const char *dir, struct store_doc *doc, uint64_t not_after_ms, struct err *err)
{
    switch (doc->verb) {
    case STORE_PUT:
    case STORE_CREATE: doc->result = file_write(dir, doc, not_after_ms, err); return;
    case STORE_GET: doc->result = file_read(dir, doc->key, &doc->value, err); return;
    case STORE_REMOVE: doc->result = file_remove(dir, doc, not_after_ms, err); return;
    }
}
