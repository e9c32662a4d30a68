/* Keeps one ComfyUI alive, and knows how it is.
 *
 *     STOPPED ─start─► STARTING ─answers─► READY ─exit─► BACKOFF ─timer─► STARTING
 *                         │  exit, too slow  ▲               │ budget used up
 *                         └──► BACKOFF       └───────        └──► GAVE_UP
 *     any ─stop─► STOPPING ─group gone─► STOPPED
 *
 * Before each start it is made sure that nobody else listens on the port, who would be taken for
 * ours; if somebody does, BACKOFF lasts until he has left.
 * READY means that GET /system_stats was answered 200. While ComfyUI runs a prompt its silence is
 * no reason to act (a long native call keeps HTTP silent): only the exit of the process, its port
 * refusing connections for good, or a verdict of the task layer (supervisor_condemn()) is. A
 * second ComfyUI is never started while a process of the first one's group may live: each start
 * empties the temp directory that the first one still uses.
 *
 * With an address given instead of a command (attach) there is no process: READY and BACKOFF follow
 * from probes alone, restarts and condemnations change nothing but the state.
 */
#ifndef SUPERVISOR_H
#define SUPERVISOR_H

#include "buf.h"

#include <uv.h>

struct later;
struct supervisor;

#define SUPERVISOR_STATES(X)                                                                       \
    X(SUPERVISOR_STOPPED, "stopped")                                                               \
    X(SUPERVISOR_STARTING, "starting")                                                             \
    X(SUPERVISOR_READY, "ready")                                                                   \
    X(SUPERVISOR_BACKOFF, "backoff") /* dead or condemned; another start follows */                \
    X(SUPERVISOR_STOPPING, "stopping")                                                             \
    X(SUPERVISOR_GAVE_UP, "gave_up") /* too many exits; the process should end non-zero */

enum supervisor_state {
#define X(id, name) id,
    SUPERVISOR_STATES(X)
#undef X
};
const char *supervisor_state_name(enum supervisor_state s);

enum { SUPERVISOR_TAIL_LINES = 20, SUPERVISOR_VERSION_MAX = 64 };

/* How the last ComfyUI ended; all zero while none has. Texts are borrowed until the next exit. */
struct supervisor_exit {
    bool happened;
    int code, signal;   /* signal != 0: killed by it */
    bool out_of_memory; /* the kernel's OOM killer, or the log says so */
    bool condemned;     /* we killed it: why is in `reason`. Told as by SIGTERM from the verdict on,
                           until the exit has been seen */
    const char *reason; /* one sentence for people: "ComfyUI was killed by signal 9 (often out of
                           memory)" */
    struct slice log_tail; /* its last lines, '\n' between them */
};

struct supervisor_options {
    char *const *argv;    /* NULL: attach */
    char *const *env;     /* NULL: ours */
    uint64_t descriptors; /* as in process_options */
    const char *host;     /* in numbers */
    unsigned port;
    uint64_t startup_ms;
    uint64_t probe_ms; /* between probes while STARTING and nobody listens */
    uint64_t watch_ms; /* between probes while READY; attached: at most 3 s */
    uint64_t backoff_min_ms, backoff_max_ms;
    unsigned exits_max; /* in exits_window_ms; beyond: GAVE_UP */
    uint64_t exits_window_ms;
    uint64_t stop_int_ms, stop_term_ms; /* SIGINT, then after so long SIGTERM, then SIGKILL */
    void (*on_state)(struct supervisor *s, enum supervisor_state now, enum supervisor_state before);
    /* "Exception in thread … (prompt_worker)" was printed: the worker thread is dead behind
     * healthy HTTP. The owner decides (supervisor_condemn()). */
    void (*on_worker_dead)(struct supervisor *s);
    void *ctx;
};
#define SUPERVISOR_DEFAULTS                                                                        \
    .startup_ms = 300000, .probe_ms = 3, .watch_ms = 5000, .backoff_min_ms = 1000,                 \
    .backoff_max_ms = 30000, .exits_max = 5, .exits_window_ms = 600000, .stop_int_ms = 5000,       \
    .stop_term_ms = 3000

/* on_state comes from the loop, after the call or event that made the move; supervisor_state() has
 * moved by then. Moves are told one by one, in their order. */
struct supervisor *supervisor_new(uv_loop_t *loop, struct later *later,
                                  const struct supervisor_options *options);
void *supervisor_ctx(const struct supervisor *s);
void supervisor_start(struct supervisor *s); /* from STOPPED; ignored otherwise */
/* on_state(STOPPED) follows, from the loop, unless it is STOPPED or GAVE_UP already. Idempotent. */
void supervisor_stop(struct supervisor *s);
/* ComfyUI lives but is of no use any more; kill and start again. `why` is shown to people. */
void supervisor_condemn(struct supervisor *s, const char *why);
enum supervisor_state supervisor_state(const struct supervisor *s);
bool supervisor_is_attached(const struct supervisor *s); /* to a ComfyUI that outlives us */
const struct supervisor_exit *supervisor_last_exit(const struct supervisor *s);
/* As /system_stats tells it, "" before the first READY. */
const char *supervisor_version(const struct supervisor *s);
/* Grows with each READY: what was true of an earlier ComfyUI need not be true of this one. */
unsigned supervisor_generation(const struct supervisor *s);
unsigned supervisor_restarts(const struct supervisor *s);
int supervisor_pid(const struct supervisor *s);
/* Must be STOPPED, GAVE_UP (then its group is gone) or never started. */
void supervisor_free(struct supervisor *s, void (*closed)(void *ctx), void *ctx);

#endif
