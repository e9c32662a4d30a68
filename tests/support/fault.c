#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <unistd.h>

/* The linker's --wrap calls these. */
int __real_open(const char *path, int flags, mode_t mode);
int __real_openat(int dir, const char *path, int flags, mode_t mode);
ssize_t __real_read(int fd, void *bytes, size_t len);
ssize_t __real_write(int fd, const void *bytes, size_t len);
int __real_fsync(int fd);
int __real_renameat(int from_dir, const char *from, int to_dir, const char *to);
int __real_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
int __real_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags);
int __real_fstat(int fd, struct stat *ret);
int __real_fstatfs(int fd, struct statfs *ret);
int __real_close(int fd);
int __wrap_open(const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...);
ssize_t __wrap_read(int fd, void *bytes, size_t len);
ssize_t __wrap_write(int fd, const void *bytes, size_t len);
int __wrap_fsync(int fd);
int __wrap_renameat(int from_dir, const char *from, int to_dir, const char *to);
int __wrap_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
int __wrap_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags);
int __wrap_fstat(int fd, struct stat *ret);
int __wrap_fstatfs(int fd, struct statfs *ret);
int __wrap_close(int fd);

static atomic_bool armed, foreign;
static atomic_uint left, hits;
static enum fault_call kind; /* these are set before `armed` is */
static int number;
static bool goes_on, happens;
static pthread_t spared;

void fault_arm(enum fault_call call, unsigned nth, int errnum, bool forever, bool done)
{
    kind = call;
    number = errnum;
    goes_on = forever;
    happens = done;
    spared = pthread_self();
    atomic_store(&left, nth);
    atomic_store(&hits, 0);
    atomic_store(&armed, true);
}

unsigned fault_hits(void)
{
    return atomic_load(&hits);
}

unsigned fault_disarm(void)
{
    atomic_store(&armed, false);
    return atomic_load(&hits);
}

static bool fails(enum fault_call call)
{
    if (!atomic_load(&armed) || (kind != FAULT_ANY && kind != call) ||
        pthread_equal(spared, pthread_self()))
        return false;
    unsigned n = atomic_load(&left);
    if (n == 0 && !goes_on)
        return false;
    if (n > 0 && atomic_fetch_sub(&left, 1) != 1)
        return false;
    atomic_fetch_add(&hits, 1);
    while (number == FAULT_HANG && atomic_load(&armed))
        (void)usleep(1000);
    if (number == FAULT_HANG)
        return false;
    if (number == FAULT_SHORT_WRITE)
        return call == FAULT_WRITE;
    errno = number;
    return true;
}

#define OPENS(call, parameters, ...)                                                               \
    int __wrap_##call parameters                                                                   \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;                           \
        va_end(args);                                                                              \
        return fails(FAULT_OPEN) ? -1 : __real_##call(__VA_ARGS__, mode);                          \
    }
OPENS(open, (const char *path, int flags, ...), path, flags)
OPENS(openat, (int dir, const char *path, int flags, ...), dir, path, flags)

ssize_t __wrap_read(int fd, void *bytes, size_t len)
{
    return fails(FAULT_READ) ? -1 : __real_read(fd, bytes, len);
}

ssize_t __wrap_write(int fd, const void *bytes, size_t len)
{
    if (!fails(FAULT_WRITE))
        return __real_write(fd, bytes, len);
    return number == FAULT_SHORT_WRITE && len > 1 ? __real_write(fd, bytes, len - 1) : -1;
}

int __wrap_fsync(int fd)
{
    return fails(FAULT_FSYNC) ? -1 : __real_fsync(fd);
}

#define MOVES(call, kind, parameters, ...)                                                         \
    int __wrap_##call parameters                                                                   \
    {                                                                                              \
        if (!fails(kind))                                                                          \
            return __real_##call(__VA_ARGS__);                                                     \
        int errnum = errno;                                                                        \
        if (happens)                                                                               \
            (void)__real_##call(__VA_ARGS__);                                                      \
        errno = errnum;                                                                            \
        return -1;                                                                                 \
    }
MOVES(renameat, FAULT_RENAME, (int from_dir, const char *from, int to_dir, const char *to),
      from_dir, from, to_dir, to)
MOVES(renameat2, FAULT_LINK,
      (int from_dir, const char *from, int to_dir, const char *to, unsigned flags), from_dir, from,
      to_dir, to, flags)
MOVES(linkat, FAULT_LINK, (int from_dir, const char *from, int to_dir, const char *to, int flags),
      from_dir, from, to_dir, to, flags)

void fault_pretend_nfs(bool nfs)
{
    atomic_store(&foreign, nfs);
}

int __wrap_fstat(int fd, struct stat *ret)
{
    int result = __real_fstat(fd, ret);
    ret->st_dev += atomic_load(&foreign); /* another device */
    return result;
}

int __wrap_fstatfs(int fd, struct statfs *ret)
{
    int result = __real_fstatfs(fd, ret);
    if (atomic_load(&foreign))
        ret->f_type = NFS_SUPER_MAGIC;
    return result;
}

int __wrap_close(int fd)
{
    if (!fails(FAULT_CLOSE))
        return __real_close(fd);
    int errnum = errno;
    (void)__real_close(fd);
    errno = errnum;
    return -1;
}
