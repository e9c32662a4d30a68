/* Reaps orphans that became our children: as PID 1 we are everybody's last parent, and a zombie
 * that nobody waits for keeps its pid for ever. libuv waits for its own children by their pids and
 * would lose their exits if we took them, so those are left to it. */
#include "closer.h"
#include "process.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

enum { REAP_AGAIN_MS = 1 };

struct reaper {
    uv_loop_t *loop;
    struct closer closer;
    uv_signal_t death;
    uv_timer_t again;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static struct reaper *reaper; /* a program has one: its children are the program's */

struct search {
    int pid;
    bool found;
};

static void search_on_handle(uv_handle_t *handle, void *arg)
{
    struct search *s = arg;
    if (handle->type == UV_PROCESS && uv_process_get_pid((uv_process_t *)handle) == s->pid)
        s->found = true;
}

static bool is_libuvs(struct reaper *r, int pid)
{
    struct search s = {.pid = pid};
    uv_walk(r->loop, search_on_handle, &s);
    return s.found;
}

static void reaper_on_again(uv_timer_t *timer);

/* waitid() names the same dead child until somebody waits for it: behind one of libuv's, which it
 * takes in this turn or the next, we have to look again. */
static void reaper_reap(struct reaper *r)
{
    siginfo_t info;
    for (;;) {
        info.si_pid = 0;
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0)
            return;
        if (is_libuvs(r, info.si_pid)) {
            ASSERT(uv_timer_start(&r->again, reaper_on_again, REAP_AGAIN_MS, 0) == 0);
            return;
        }
        (void)waitpid(info.si_pid, NULL, WNOHANG);
    }
}

static void reaper_on_again(uv_timer_t *timer)
{
    reaper_reap(timer->data);
}

static void reaper_on_death(uv_signal_t *handle, int signum)
{
    (void)signum;
    reaper_reap(handle->data);
}

void process_reap_start(uv_loop_t *loop)
{
    ASSERT(reaper == NULL);
    struct reaper *r = xcalloc(1, sizeof(*r));
    r->loop = loop;
    closer_init(&r->closer, loop);
    ASSERT(uv_signal_init(loop, &r->death) == 0);
    ASSERT(uv_timer_init(loop, &r->again) == 0);
    r->death.data = r->again.data = r;
    closer_hold(&r->closer);
    closer_hold(&r->closer);
    ASSERT(uv_signal_start(&r->death, reaper_on_death, SIGCHLD) == 0);
    uv_unref((uv_handle_t *)&r->death); /* waiting for nothing keeps no loop alive */
    reaper = r;
    reaper_reap(r);
}

static void reaper_on_handle_closed(uv_handle_t *handle)
{
    struct reaper *r = handle->data;
    closer_release(&r->closer);
}

static void reaper_on_closed(struct closer *closer)
{
    struct reaper *r = CONTAINER_OF(closer, struct reaper, closer);
    void (*closed)(void *ctx) = r->closed;
    void *ctx = r->closed_ctx;
    free(r);
    if (closed != NULL)
        closed(ctx);
}

void process_reap_stop(void (*closed)(void *ctx), void *ctx)
{
    struct reaper *r = reaper;
    ASSERT(r != NULL);
    reaper = NULL;
    r->closed = closed;
    r->closed_ctx = ctx;
    uv_close((uv_handle_t *)&r->death, reaper_on_handle_closed);
    uv_close((uv_handle_t *)&r->again, reaper_on_handle_closed);
    closer_begin(&r->closer, reaper_on_closed);
}
