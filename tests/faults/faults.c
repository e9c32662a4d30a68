/* Loaded before a program (LD_PRELOAD), counts its calls of the system and makes one of them fail.
 *
 *     FAULT_COUNTS=file     a table of struct row, kept up to date however the program ends
 *     FAULT=write:3         the third write() to a file fails; "write:3+": and all after it
 *     FAULT_ERRNO=28        with this; with 0 the program is killed (SIGKILL) where it would begin
 *     FAULT_MALLOC=65536    allocations from this size on are counted: the small ones abort by
 * design
 *
 * Only the program itself is touched, with what it does between fork() and exec(): its children get
 * neither the library nor a table. Writes are told apart by what they go to: a file is the disk's
 * to refuse, a socket the peer's, and stdout and stderr are the log; a pipe or an eventfd inside
 * the program cannot fail and is left alone. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum call {
    OPEN,
    WRITE,
    LOG,
    SEND,
    FSYNC,
    RENAME,
    LINK,
    SOCKET,
    CONNECT,
    ACCEPT,
    THREAD,
    FORK,
    EXEC,
    EPOLL,
    MALLOC,
    CALLS
};

/* test_faults.py reads it. */
struct row {
    char name[16];
    _Atomic uint64_t calls, failed;
};

static const char *const names[CALLS] = {"open",   "write", "log",    "send",    "fsync",
                                         "rename", "link",  "socket", "connect", "accept",
                                         "thread", "fork",  "exec",   "epoll",   "malloc"};
static struct row *rows; /* shared with the child of a fork(), so that one fault stays one */
static const char *chosen = "";
static uint64_t chosen_nth;
static bool chosen_later;
static int chosen_errno;
static size_t malloc_least = SIZE_MAX;

static uint64_t number_of(const char *variable)
{
    const char *text = getenv(variable);
    return text != NULL ? strtoull(text, NULL, 10) : 0;
}

__attribute__((constructor)) static void faults_begin(void)
{
    static char name[sizeof(rows->name)];
    const char *path = getenv("FAULT_COUNTS");
    const char *fault = getenv("FAULT");
    int fd = path != NULL ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    (void)unsetenv("LD_PRELOAD");
    if (fd < 0 || ftruncate(fd, (off_t)(CALLS * sizeof(*rows))) != 0)
        return;
    if (fault != NULL) {
        size_t len = strcspn(fault, ":");
        (void)snprintf(name, sizeof(name), "%.*s", (int)len, fault);
        chosen_nth = fault[len] == ':' ? strtoull(fault + len + 1, NULL, 10) : 0;
        chosen_later = strchr(fault, '+') != NULL;
        chosen_errno = (int)number_of("FAULT_ERRNO");
        chosen = name;
    }
    if (getenv("FAULT_MALLOC") != NULL)
        malloc_least = (size_t)number_of("FAULT_MALLOC");
    void *table = mmap(NULL, CALLS * sizeof(*rows), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (table == MAP_FAILED)
        return;
    for (int i = 0; i < CALLS; i++)
        (void)snprintf(((struct row *)table)[i].name, sizeof(name), "%s", names[i]);
    rows = table;
}

static bool fails(enum call call)
{
    if (rows == NULL)
        return false;
    uint64_t nth = ++rows[call].calls;
    if (strcmp(chosen, names[call]) != 0 || nth < chosen_nth || (nth > chosen_nth && !chosen_later))
        return false;
    rows[call].failed++;
    if (chosen_errno == 0)
        (void)kill(getpid(), SIGKILL);
    errno = chosen_errno;
    return true;
}

static bool fails_to(int fd)
{
    struct stat st;
    int before = errno;
    if (rows == NULL || fstat(fd, &st) != 0)
        return false;
    errno = before;
    if (fd == STDOUT_FILENO || fd == STDERR_FILENO)
        return fails(LOG);
    if (S_ISREG(st.st_mode))
        return fails(WRITE);
    if (!S_ISSOCK(st.st_mode) || !fails(SEND))
        return false;
    (void)shutdown(fd, SHUT_RDWR); /* a peer that cannot be written to is gone */
    errno = chosen_errno;
    return true;
}

/* The function that would have been called without us. */
#define NEXT(function)                                                                             \
    static __typeof__(function) *next;                                                             \
    if (next == NULL)                                                                              \
    *(void **)&next = dlsym(RTLD_NEXT, #function)

#define OPENS(function, parameters, ...)                                                           \
    int function parameters                                                                        \
    {                                                                                              \
        va_list args;                                                                              \
        NEXT(function);                                                                            \
        va_start(args, flags);                                                                     \
        mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;                           \
        va_end(args);                                                                              \
        return fails(OPEN) ? -1 : next(__VA_ARGS__, mode);                                         \
    }
OPENS(open, (const char *path, int flags, ...), path, flags)
OPENS(open64, (const char *path, int flags, ...), path, flags)
OPENS(openat, (int dir, const char *path, int flags, ...), dir, path, flags)
OPENS(openat64, (int dir, const char *path, int flags, ...), dir, path, flags)

#define CALLS_LIKE(type, function, failing, parameters, arguments)                                 \
    type function parameters                                                                       \
    {                                                                                              \
        NEXT(function);                                                                            \
        return failing ? -1 : next arguments;                                                      \
    }
CALLS_LIKE(ssize_t, write, fails_to(fd), (int fd, const void *bytes, size_t n), (fd, bytes, n))
CALLS_LIKE(ssize_t, writev, fails_to(fd), (int fd, const struct iovec *v, int n), (fd, v, n))
CALLS_LIKE(ssize_t, send, fails_to(fd), (int fd, const void *bytes, size_t n, int f),
           (fd, bytes, n, f))
CALLS_LIKE(ssize_t, sendmsg, fails_to(fd), (int fd, const struct msghdr *m, int f), (fd, m, f))
CALLS_LIKE(int, fsync, fails(FSYNC), (int fd), (fd))
CALLS_LIKE(int, rename, fails(RENAME), (const char *a, const char *b), (a, b))
CALLS_LIKE(int, renameat, fails(RENAME), (int d, const char *a, int e, const char *b), (d, a, e, b))
CALLS_LIKE(int, renameat2, fails(LINK),
           /* a link in one step */ (int d, const char *a, int e, const char *b, unsigned f),
           (d, a, e, b, f))
CALLS_LIKE(int, link, fails(LINK), (const char *a, const char *b), (a, b))
CALLS_LIKE(int, linkat, fails(LINK), (int d, const char *a, int e, const char *b, int f),
           (d, a, e, b, f))
CALLS_LIKE(int, socket, fails(SOCKET), (int a, int b, int c), (a, b, c))
CALLS_LIKE(int, socketpair, fails(SOCKET), (int a, int b, int c, int fd[2]), (a, b, c, fd))
CALLS_LIKE(int, connect, fails(CONNECT), (int fd, __CONST_SOCKADDR_ARG a, socklen_t n), (fd, a, n))
CALLS_LIKE(int, accept4, fails(ACCEPT), (int fd, __SOCKADDR_ARG a, socklen_t *n, int f),
           (fd, a, n, f))
CALLS_LIKE(pid_t, fork, fails(FORK), (void), ())
CALLS_LIKE(int, execvp, fails(EXEC), (const char *file, char *const argv[]), (file, argv))
CALLS_LIKE(int, epoll_ctl, fails(EPOLL), (int e, int op, int fd, struct epoll_event *ev),
           (e, op, fd, ev))

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *arg)
{
    NEXT(pthread_create);
    return fails(THREAD) ? chosen_errno : next(thread, how, run, arg);
}

/* glibc's own names: dlsym() allocates. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);

static bool no_room(size_t size)
{
    return size >= malloc_least && fails(MALLOC);
}

void *malloc(size_t size)
{
    return no_room(size) ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return no_room(size != 0 && n > SIZE_MAX / size ? 0 : n * size) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    return no_room(size) ? NULL : __libc_realloc(old, size);
}
