/* A child in a session of its own, with its output read line by line.
 *
 * It is started through a guard (process_guard_main(): our own binary as a small process that stays
 * the command's parent, see process_guard.c), which kills the whole group when we die in whatever
 * way, so no orphan is left. Exit and end of output come in either order; the exit counts, and no
 * line comes after it. Output is always drained: lines are bounded (LF, CR and CRLF end one, of a
 * row of CR-ended progress lines only the newest in each interval is handed on), the rate is
 * bounded, what is dropped is counted and told in a line of its own.
 *
 *     NEW ─start─► RUNNING ─exit─► EMPTYING ─nobody left, or time is up─► ENDED */
#ifndef PROCESS_H
#define PROCESS_H

#include "buf.h"

#include <uv.h>

enum {
    PROCESS_LINE_MAX = 4096,
    PROCESS_LINES_PER_S = 1000,
    PROCESS_ROW_MS = 200,   /* of a progress bar, one row in so long */
    PROCESS_GONE_MS = 5000, /* for a group to be empty after its SIGKILL */
};

struct process;
struct process_options {
    char *const *argv;    /* NULL-terminated; argv[0] by PATH */
    char *const *env;     /* NULL: ours */
    uint64_t descriptors; /* its soft limit of them (ulimit -n); 0: ours */
    void (*on_line)(struct process *p, struct slice line);
    /* A line beyond the rate, which counts as dropped: for whoever must know the last words of a
     * flood. NULL is fine. */
    void (*on_excess)(struct process *p, struct slice line);
    /* Once, after a successful start. The whole group has been sent SIGKILL by then; group_gone
     * tells whether it was seen to be empty (bounded wait). code is valid if signal == 0. */
    void (*on_exit)(struct process *p, int code, int signal, bool group_gone);
    void *ctx;
};

struct process *process_new(uv_loop_t *loop, const struct process_options *options);
void *process_ctx(const struct process *p);
/* ERR_NOT_FOUND or ERR_IO when the guard cannot be started; a command that cannot be executed exits
 * with 127 (not found) or 126, as a shell would have it. */
enum err_code process_start(struct process *p, struct err *err) MUST_CHECK;
/* 0 when not running, and for the few milliseconds until the guard has told it; also the group's.
 */
int process_pid(const struct process *p);
void process_signal(struct process *p,
                    int signum); /* the whole group, with SIGCONT for TERM/KILL */
/* Kills what runs, waits for its end (bounded; a guard that still waits then goes on without us),
 * frees. No callback but `closed` (NULL allowed) comes after this call. */
void process_free(struct process *p, void (*closed)(void *ctx), void *ctx);

/* main() calls this first: if argv says that we are a guard, it never returns. */
void process_guard_main(int argc, char **argv);
/* As PID 1, or always: reap orphans that became our children without touching libuv's own. */
void process_reap_start(uv_loop_t *loop);
void process_reap_stop(void (*closed)(void *ctx), void *ctx);

#endif
