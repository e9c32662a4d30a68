/* The guard: a small process between us and the command, which leaves no orphan whoever dies first.
 *
 *     program ──socket── guard ──fork── command (session of its own) ── descendants
 *
 * Why a process that stays, and not a death signal alone: PR_SET_PDEATHSIG reaches the direct child
 * only, and its grandchildren (workers of custom nodes) would live on. The guard is
 *
 *   - in a session of its own with all signals blocked: what hits the program's or the command's
 *     group does not hit it;
 *   - told of the program's death in whatever way by the end of the socket, of which only the
 *     program has the other end;
 *   - the subreaper of all descendants: who leaves the group by setsid(), or loses his parent, ends
 *     up as our child, so that "nobody is left" is the kernel's ECHILD and not a guess;
 *   - the only one who waits for the command, and the only one who signals it. Its pid and group
 *     cannot be given to somebody else before the group was killed, since the guard waits for it
 *     with WNOWAIT until then.
 *
 * Should the guard itself be killed, the command dies by its death signal (the guard has one
 * thread, so this one does work) and the program sees to the rest of the group. */
#include "process_guard.h"

#include "base.h"
#include "proc_table.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    EXIT_NO_GUARD = 64,
    EXIT_NOT_EXECUTABLE = 126,
    EXIT_NOT_FOUND = 127,
    GUARD_LOOK_MS = 20, /* between two looks for descendants that are left */
};

struct guard {
    pid_t child;
    int deaths; /* signalfd for SIGCHLD */
};

/* A program that is gone does not listen: that is no reason to stop. */
static void guard_tell(enum guard_news news, int value)
{
    struct guard_message message = {.news = (int32_t)news, .value = value};
    ssize_t n = send(GUARD_FD, &message, sizeof(message), MSG_NOSIGNAL);
    (void)n;
}

static void guard_signal(const struct guard *g, int signum)
{
    if (kill(-g->child, signum) != 0)
        (void)kill(g->child, signum); /* not in its own session yet */
    if (signum == SIGTERM || signum == SIGKILL)
        (void)kill(-g->child, SIGCONT); /* a stopped one would not hear it */
}

/* --- the end --------------------------------------------------------------------------------- */

/* Only we wait for our children, so none of their pids can have become somebody else's. */
static bool guard_kill_own(const struct proc_entry *entry, void *ctx)
{
    (void)ctx;
    if (entry->parent == getpid())
        (void)kill(entry->pid, SIGKILL);
    return true;
}

static void guard_wait_for_death(const struct guard *g)
{
    struct signalfd_siginfo info;
    struct pollfd wait = {.fd = g->deaths, .events = POLLIN};
    if (poll(&wait, 1, GUARD_LOOK_MS) > 0) {
        ssize_t n = read(g->deaths, &info, sizeof(info));
        (void)n;
    }
}

/* The command has exited and is not waited for yet. One SIGKILL is enough for the group: no member
 * can fork with it pending. */
NORETURN static void guard_end(const struct guard *g, const siginfo_t *exited)
{
    guard_tell(exited->si_code == CLD_EXITED ? GUARD_EXITED : GUARD_KILLED, exited->si_status);
    (void)kill(-g->child, SIGKILL);
    for (;;) {
        pid_t pid;
        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
            ;
        if (pid < 0 && errno == ECHILD)
            _exit(0);
        proc_table_walk(guard_kill_own, NULL);
        guard_wait_for_death(g);
    }
}

/* --- life ------------------------------------------------------------------------------------ */

static void guard_on_deaths(const struct guard *g)
{
    struct signalfd_siginfo signal;
    siginfo_t info;
    while (read(g->deaths, &signal, sizeof(signal)) > 0)
        ;
    for (;;) {
        info.si_pid = 0;
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0)
            return;
        if (info.si_pid == g->child)
            guard_end(g, &info);
        (void)waitpid(info.si_pid, NULL, 0); /* an orphan of the command's */
    }
}

/* False: the program is gone. */
static bool guard_on_words(const struct guard *g)
{
    unsigned char signums[16];
    ssize_t n = recv(GUARD_FD, signums, sizeof(signums), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    for (ssize_t i = 0; i < n; i++)
        guard_signal(g, signums[i]);
    return n > 0;
}

NORETURN static void guard_watch(const struct guard *g)
{
    struct pollfd wait[2] = {{.fd = g->deaths, .events = POLLIN},
                             {.fd = GUARD_FD, .events = POLLIN}};
    for (;;) {
        if (poll(wait, 2, -1) < 0)
            continue;
        if (wait[1].revents != 0 && !guard_on_words(g)) {
            guard_signal(g, SIGKILL);
            wait[1].fd = -1;
        }
        if (wait[0].revents != 0)
            guard_on_deaths(g);
    }
}

/* --- start ----------------------------------------------------------------------------------- */

static void guard_limit_descriptors(rlim_t soft)
{
    struct rlimit limit;
    if (soft == 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = soft;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

NORETURN static void guard_become_command(pid_t guard, char **command, rlim_t descriptors)
{
    sigset_t none;
    (void)setsid();
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != guard)
        _exit(EXIT_NO_GUARD);            /* it died before we could ask for the signal */
    guard_tell(GUARD_STARTED, getpid()); /* not by the guard, which may die before it comes to it */
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    guard_limit_descriptors(descriptors);
    (void)execvp(command[0], command);
    int why = errno;
    (void)dprintf(STDERR_FILENO, "cannot execute %s: %s\n", command[0], strerror(why));
    _exit(why == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

/* The output is the command's alone: its end must not wait for us. */
static void guard_let_output_go(void)
{
    (void)dup2(STDIN_FILENO, STDOUT_FILENO); /* /dev/null */
    (void)dup2(STDIN_FILENO, STDERR_FILENO);
}

NORETURN static void guard_run(char **command, rlim_t descriptors)
{
    struct guard g;
    sigset_t all, deaths;
    pid_t self = getpid();
    closefrom(GUARD_FD + 1); /* whatever leaked into us shall not leak into the command */
    (void)fcntl(GUARD_FD, F_SETFD, FD_CLOEXEC);
    (void)prctl(PR_SET_NAME, GUARD_ARGV0);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    (void)sigemptyset(&deaths);
    (void)sigaddset(&deaths, SIGCHLD);
    g.deaths = signalfd(-1, &deaths, SFD_CLOEXEC | SFD_NONBLOCK);
    g.child = g.deaths < 0 ? -1 : fork();
    if (g.child == 0)
        guard_become_command(self, command, descriptors);
    if (g.child < 0) {
        (void)dprintf(STDERR_FILENO, "cannot start %s: %s\n", command[0], strerror(errno));
        guard_tell(GUARD_EXITED, EXIT_NOT_EXECUTABLE);
        _exit(0);
    }
    guard_let_output_go();
    guard_watch(&g);
}

void process_guard_main(int argc, char **argv)
{
    struct stat st;
    if (argc <= GUARD_COMMAND || strcmp(argv[1], GUARD_MARK) != 0)
        return;
    if (fstat(GUARD_FD, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        (void)fputs(GUARD_ARGV0 ": this is started by the program itself only\n", stderr);
        _exit(EXIT_NO_GUARD);
    }
    guard_run(argv + GUARD_COMMAND, strtoull(argv[GUARD_DESCRIPTORS], NULL, 10));
}
