/* Reading and writing one document.
 *
 * A reader sees a document whole or not at all, the old one or the new one: what is written goes to
 * a file of its own name beside it, is complete, and then takes the name by rename(), or by link()
 * where nothing may be replaced. On this machine's own file systems the kernel sees to that in one
 * step (RENAME_NOREPLACE); of others it is not known whether they look at that flag.
 *
 * On a NAS mounted by NFS: errors of writing may show only at close(), so it is checked. A reply
 * can be lost and the repeated request fail although the first one happened. rename: ENOENT; it is
 * done if the document says what it was to say. link: EEXIST; the name is ours if it stands for the
 * file that we wrote. A file replaced under a
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
#include "store_file_place.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Prompts are their callers' own: not for everybody on the machine. Less the umask. */
enum { FILE_MODE = 0640 };

struct file_path {
    char text[PATH_MAX];
};

/* Of what is in it, for the calls that take its fd, too. */
static const char *path_of(struct file_path *p, const struct file_place *place, const char *name)
{
    const char *dir = place->dir;
    if (place->fd != AT_FDCWD)
        return name;
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

/* --- writing --------------------------------------------------------------------------------- */

static bool file_is_same(const struct file_place *place, const char *a, const char *b)
{
    struct stat one, other;
    return fstatat(place->fd, a, &one, AT_SYMLINK_NOFOLLOW) == 0 &&
           fstatat(place->fd, b, &other, AT_SYMLINK_NOFOLLOW) == 0 && one.st_dev == other.st_dev &&
           one.st_ino == other.st_ino;
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

/* Fills and closes fd. An interrupted close() has closed, but may not have written (NFS): that it
 * failed is the safe answer. */
static enum err_code file_fill(int fd, const struct store_doc *doc, struct err *err)
{
    const char *what = "writing";
    int errnum = file_write_all(fd, doc->value);
    if (errnum == 0 && doc->durable) {
        what = "fsync";
        errnum = file_sync(fd);
    }
    if (close(fd) != 0 && errnum == 0) {
        what = "close";
        errnum = errno;
    }
    return errnum != 0 ? file_failed(err, errnum, what) : ERR_OK;
}

enum { FILE_NEW = O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC };

static int file_open_tmp(struct file_place *place, const char *tmp, struct err *err)
{
    int fd = openat(place->fd, tmp, FILE_NEW, FILE_MODE);
    if (fd < 0 && errno == ENOENT) {
        if (file_place_make(place, err) != ERR_OK)
            return -1;
        fd = openat(place->fd, tmp, FILE_NEW, FILE_MODE);
    }
    if (fd < 0)
        (void)file_failed(err, errno, "a new file cannot be made");
    return fd;
}

struct file_writing {
    const struct file_place *place;
    const struct store_doc *doc;
    const char *tmp, *target;
    bool moved; /* there is no tmp any more */
};

static bool file_says(const struct file_place *place, const char *target, const struct blob *value);

static bool file_was_moved(const struct file_writing *w)
{
    struct stat st;
    return fstatat(w->place->fd, w->tmp, &st, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT &&
           file_says(w->place, w->target, w->doc->value);
}

static enum err_code file_put_as(struct file_writing *w, struct err *err)
{
    int fd = w->place->fd;
    w->moved = renameat(fd, w->tmp, fd, w->target) == 0;
    if (w->moved)
        return ERR_OK;
    int errnum = errno;
    w->moved = file_was_moved(w);
    return w->moved ? ERR_OK : file_failed(err, errnum, "rename");
}

/* The weak form; see the top. */
static enum err_code file_create_in_place(const struct file_writing *w, struct err *err)
{
    int fd = openat(w->place->fd, w->target, FILE_NEW, FILE_MODE);
    if (fd < 0)
        return errno == EEXIST ? ERR_EXISTS : file_failed(err, errno, "creating");
    enum err_code code = file_fill(fd, w->doc, err);
    if (code != ERR_OK)
        (void)unlinkat(w->place->fd, w->target, 0);
    return code;
}

static enum err_code file_create_by_link(const struct file_writing *w, struct err *err)
{
    int fd = w->place->fd;
    if (linkat(fd, w->tmp, fd, w->target, 0) == 0)
        return ERR_OK;
    int errnum = errno;
    if (file_is_same(w->place, w->tmp, w->target))
        return ERR_OK;
    if (errnum == EEXIST)
        return ERR_EXISTS;
    if (errnum == EPERM || errnum == ENOTSUP || errnum == ENOSYS || errnum == EMLINK)
        return file_create_in_place(w, err);
    return file_failed(err, errnum, "link");
}

static enum err_code file_create_as(struct file_writing *w, struct err *err)
{
    int fd = w->place->fd;
    bool one_step = file_place_renames_anew(w->place);
    w->moved = one_step && renameat2(fd, w->tmp, fd, w->target, RENAME_NOREPLACE) == 0;
    if (w->moved)
        return ERR_OK;
    if (one_step && errno == EEXIST)
        return ERR_EXISTS;
    return file_create_by_link(w, err);
}

static enum err_code file_write(struct file_place *place, const struct store_doc *doc,
                                uint64_t not_after_ms, struct err *err)
{
    struct file_path tmp, target;
    char name[FILE_NAME_ROOM];
    file_tmp_name(doc->key, name);
    struct file_writing w = {.place = place,
                             .doc = doc,
                             .tmp = path_of(&tmp, place, name),
                             .target = path_of(&target, place, doc->key)};
    int fd = file_open_tmp(place, w.tmp, err);
    if (fd < 0)
        return ERR_UNAVAILABLE;
    enum err_code code = file_fill(fd, doc, err);
    if (code == ERR_OK && is_too_late(not_after_ms))
        code = too_late(err);
    if (code == ERR_OK)
        code = doc->verb == STORE_PUT ? file_put_as(&w, err) : file_create_as(&w, err);
    if (!w.moved)
        (void)unlinkat(place->fd, w.tmp, 0);
    if (code == ERR_OK && doc->durable)
        code = file_place_sync(place, err);
    return code;
}

static int file_unlink(const struct file_place *place, const char *key)
{
    struct file_path path;
    return unlinkat(place->fd, path_of(&path, place, key), 0) == 0 ? 0 : errno;
}

static enum err_code file_remove(struct file_place *place, const struct store_doc *doc,
                                 uint64_t not_after_ms, struct err *err)
{
    if (is_too_late(not_after_ms))
        return too_late(err);
    int errnum = file_unlink(place, doc->key);
    if (errnum == ENOENT) {
        file_place_look_again(place);
        errnum = file_unlink(place, doc->key);
    }
    if (errnum != 0)
        return errnum == ENOENT ? ERR_OK : file_failed(err, errnum, "unlink");
    return doc->durable ? file_place_sync(place, err) : ERR_OK;
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
static int file_read_once(const struct file_place *place, const char *path, struct blob **ret,
                          enum err_code *ret_code)
{
    int fd = openat(place->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno;
    int errnum = file_read_open(fd, ret, ret_code);
    (void)close(fd);
    return errnum;
}

static bool file_says(const struct file_place *place, const char *target, const struct blob *value)
{
    struct blob *found = NULL;
    enum err_code code = ERR_OK;
    if (file_read_once(place, target, &found, &code) != 0 || found == NULL)
        return false;
    bool same = slice_eq(blob_slice(found), blob_slice(value));
    blob_unref(found);
    return same;
}

static enum err_code file_read(struct file_place *place, const char *key, struct blob **ret,
                               struct err *err)
{
    struct file_path p;
    const char *path = path_of(&p, place, key);
    enum err_code code = ERR_OK;
    int errnum = file_read_once(place, path, ret, &code);
    if (errnum == ENOENT || errnum == ESTALE) {
        if (errnum == ENOENT)
            file_place_look_again(place);
        errnum = file_read_once(place, path, ret, &code);
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

void file_do_work(struct file_place *place, struct store_doc *doc, uint64_t not_after_ms,
                  struct err *err)
{
    switch (doc->verb) {
    case STORE_PUT:
    case STORE_CREATE: doc->result = file_write(place, doc, not_after_ms, err); return;
    case STORE_GET: doc->result = file_read(place, doc->key, &doc->value, err); return;
    case STORE_REMOVE: doc->result = file_remove(place, doc, not_after_ms, err); return;
    }
}
