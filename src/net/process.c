/* The program's side of a child: starts the guard (process_guard.c), hears from it what becomes of
 * the command, and drains the command's output.
 *
 * The command's end is told by the guard's message; the guard's own exit says that no descendant is
 * left. If the guard is killed, the command dies with it by its death signal; we kill the rest of
 * the group ourselves and look for it in /proc, where zombies that init has not waited for yet can
 * be told from the living. */
#include "process.h"

#include "closer.h"
#include "line_reader.h"
#include "proc_table.h"
#include "process_guard.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PROCESS_READ = 64 * 1024,
    PROCESS_LAST_WORDS = 1024 * 1024, /* read after the exit from each pipe, at most */
    PROCESS_GROUP_LOOK_MS = 10,
    PROCESS_WINDOW_MS = 1000,
};

enum process_state { PROCESS_NEW, PROCESS_RUNNING, PROCESS_EMPTYING, PROCESS_ENDED };

struct process_output {
    uv_pipe_t pipe;
    struct line_reader lines;
    bool closed;
};

struct process {
    struct process_options options;
    uv_loop_t *loop;
    struct closer closer;
    void (*closed)(void *ctx);
    void *closed_ctx;
    bool freeing;

    enum process_state state;
    uv_process_t guard;
    bool guard_closed; /* its handle needs no uv_close() (any more) */
    uv_pipe_t control;
    char heard[sizeof(struct guard_message)]; /* a message that has not come whole yet */
    size_t heard_len;
    int pid;
    int code, signal; /* how it ended */
    bool told;        /* the guard has said so */
    uv_timer_t gone;  /* the bounded wait for the group's end */
    uint64_t gone_by;

    struct process_output outputs[2];
    uv_timer_t tick; /* rows that are held, lines that were dropped */
    uint64_t window_at;
    unsigned window_lines, dropped;
    char room[PROCESS_READ];
};

static void process_end(struct process *p, bool group_gone);

/* --- lines ----------------------------------------------------------------------------------- */

static void process_on_tick(uv_timer_t *timer);

static void process_want_tick(struct process *p)
{
    if (!uv_is_active((uv_handle_t *)&p->tick) && p->state != PROCESS_ENDED)
        ASSERT(uv_timer_start(&p->tick, process_on_tick, PROCESS_ROW_MS, 0) == 0);
}

static void process_tell_dropped(struct process *p)
{
    char text[96];
    if (p->dropped == 0)
        return;
    int n = snprintf(text, sizeof(text), "(%u lines dropped: more than %d in a second)", p->dropped,
                     PROCESS_LINES_PER_S);
    p->dropped = 0;
    if (!p->freeing)
        p->options.on_line(p, (struct slice){text, (size_t)n});
}

static void process_turn_window(struct process *p)
{
    uint64_t now = uv_now(p->loop);
    if (now - p->window_at < PROCESS_WINDOW_MS)
        return;
    p->window_at = now;
    p->window_lines = 0;
    process_tell_dropped(p);
}

static void process_on_line(struct line_reader *r, struct slice line)
{
    struct process *p = r->ctx;
    if (p->freeing)
        return;
    process_turn_window(p);
    if (p->freeing)
        return; /* by whoever heard how many lines were dropped */
    if (p->window_lines < PROCESS_LINES_PER_S) {
        p->window_lines++;
        p->options.on_line(p, line);
        return;
    }
    p->dropped++;
    process_want_tick(p);
    if (p->options.on_excess != NULL)
        p->options.on_excess(p, line);
}

static void process_on_tick(uv_timer_t *timer)
{
    struct process *p = timer->data;
    for (size_t i = 0; i < ARRAY_LEN(p->outputs); i++)
        line_reader_tick(&p->outputs[i].lines);
    process_turn_window(p);
    if (p->dropped > 0)
        process_want_tick(p);
}

/* --- output ---------------------------------------------------------------------------------- */

static void process_on_output_closed(uv_handle_t *handle)
{
    struct process *p = handle->data;
    closer_release(&p->closer);
}

static void process_close_output(struct process_output *o)
{
    if (!o->closed)
        uv_close((uv_handle_t *)&o->pipe, process_on_output_closed);
    o->closed = true;
}

static struct process_output *output_of(uv_handle_t *handle)
{
    return CONTAINER_OF(handle, struct process_output, pipe);
}

static void process_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct process *p = handle->data;
    (void)suggested;
    *buf = uv_buf_init(p->room, sizeof(p->room));
}

static void process_on_output(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct process *p = stream->data;
    struct process_output *o = output_of((uv_handle_t *)stream);
    if (n == 0)
        return; /* nothing yet */
    if (n < 0) {
        line_reader_finish(&o->lines);
        process_close_output(o);
        return;
    }
    line_reader_feed(&o->lines, (struct slice){buf->base, (size_t)n});
    if (line_reader_holds(&o->lines))
        process_want_tick(p);
}

/* What was printed last is in the pipe when the exit is known. Nobody who still holds the pipe can
 * make us wait or read for ever. */
static void process_read_last_words(struct process *p, struct process_output *o)
{
    uv_os_fd_t fd;
    size_t all = 0;
    if (o->closed)
        return;
    ASSERT(uv_fileno((uv_handle_t *)&o->pipe, &fd) == 0);
    while (all < PROCESS_LAST_WORDS) {
        ssize_t n = read(fd, p->room, sizeof(p->room));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        line_reader_feed(&o->lines, (struct slice){p->room, (size_t)n});
        all += (size_t)n;
    }
    line_reader_finish(&o->lines);
    process_close_output(o);
}

/* --- what becomes of it ---------------------------------------------------------------------- */

static void process_say(struct process *p, int signum)
{
    char byte = (char)signum;
    uv_buf_t buf = uv_buf_init(&byte, 1);
    (void)uv_try_write((uv_stream_t *)&p->control, &buf, 1); /* a guard that is gone needs none */
}

/* UNTESTED: takes a process that the kernel cannot kill. */
static void process_on_time_up(uv_timer_t *timer)
{
    process_end(timer->data, false);
}

static void process_exited(struct process *p, int code, int signum)
{
    p->told = true;
    p->code = code;
    p->signal = signum;
    if (p->state != PROCESS_RUNNING)
        return;
    p->state = PROCESS_EMPTYING;
    ASSERT(uv_timer_start(&p->gone, process_on_time_up, PROCESS_GONE_MS, 0) == 0);
}

static void process_hear(struct process *p, struct slice bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        struct guard_message message;
        p->heard[p->heard_len++] = bytes.ptr[i];
        if (p->heard_len < sizeof(message))
            continue;
        p->heard_len = 0;
        memcpy(&message, p->heard, sizeof(message));
        switch ((enum guard_news)message.news) {
        case GUARD_STARTED: p->pid = message.value; break;
        case GUARD_EXITED: process_exited(p, message.value, 0); break;
        case GUARD_KILLED: process_exited(p, 0, message.value); break;
        }
    }
}

static void process_on_news(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct process *p = stream->data;
    if (n > 0)
        process_hear(p, (struct slice){buf->base, (size_t)n});
    else if (n < 0)
        (void)uv_read_stop(stream); /* its exit says the rest */
}

/* The guard's exit may be seen before its last message. */
static void process_read_last_news(struct process *p)
{
    uv_os_fd_t fd;
    ssize_t n;
    ASSERT(uv_fileno((uv_handle_t *)&p->control, &fd) == 0);
    while ((n = recv(fd, p->room, sizeof(p->room), MSG_DONTWAIT)) > 0)
        process_hear(p, (struct slice){p->room, (size_t)n});
}

struct group_search {
    int group;
    bool lives;
};

static bool group_search_look(const struct proc_entry *entry, void *ctx)
{
    struct group_search *s = ctx;
    s->lives = s->lives || (entry->group == s->group && !entry->is_dead);
    return !s->lives;
}

static bool group_is_gone(int group)
{
    struct group_search s = {.group = group};
    proc_table_walk(group_search_look, &s);
    return !s.lives;
}

static void process_on_group_look(uv_timer_t *timer)
{
    struct process *p = timer->data;
    if (p->pid == 0 || (kill(-p->pid, SIGKILL) != 0 && errno == ESRCH) || group_is_gone(p->pid))
        process_end(p, true);
    else if (uv_now(p->loop) >= p->gone_by)
        process_end(p, false);
}

/* The guard was killed, or could not even begin. The command ends as it did. */
static void process_without_guard(struct process *p, int code, int signum)
{
    if (!p->told)
        process_exited(p, code, signum);
    p->gone_by = uv_now(p->loop) + PROCESS_GONE_MS;
    ASSERT(uv_timer_start(&p->gone, process_on_group_look, 0, PROCESS_GROUP_LOOK_MS) == 0);
}

static void process_on_guard_closed(uv_handle_t *handle)
{
    struct process *p = handle->data;
    closer_release(&p->closer);
}

static void process_on_guard_exit(uv_process_t *guard, int64_t code, int signum)
{
    struct process *p = guard->data;
    p->guard_closed = true;
    uv_close((uv_handle_t *)guard, process_on_guard_closed);
    if (p->state == PROCESS_ENDED)
        return; /* it had taken too long */
    process_read_last_news(p);
    if (p->told && code == 0 && signum == 0)
        process_end(p, true);
    else
        process_without_guard(p, (int)code, signum);
}

/* --- life ------------------------------------------------------------------------------------ */

static void process_on_handle_closed(uv_handle_t *handle)
{
    struct process *p = handle->data;
    closer_release(&p->closer);
}

static void process_on_closed(struct closer *closer)
{
    struct process *p = CONTAINER_OF(closer, struct process, closer);
    void (*closed)(void *ctx) = p->closed;
    void *ctx = p->closed_ctx;
    free(p);
    if (closed != NULL)
        closed(ctx);
}

/* A guard that still runs sees the end of the socket and goes on killing; its exit is then seen by
 * the reaper or by init. */
static void process_close(struct process *p)
{
    for (size_t i = 0; i < ARRAY_LEN(p->outputs); i++)
        process_close_output(&p->outputs[i]);
    uv_close((uv_handle_t *)&p->control, process_on_handle_closed);
    uv_close((uv_handle_t *)&p->tick, process_on_handle_closed);
    uv_close((uv_handle_t *)&p->gone, process_on_handle_closed);
    if (!p->guard_closed)
        uv_close((uv_handle_t *)&p->guard, process_on_guard_closed);
    p->guard_closed = true;
    closer_begin(&p->closer, process_on_closed);
}

static void process_end(struct process *p, bool group_gone)
{
    p->pid = 0;
    (void)uv_timer_stop(&p->gone);
    for (size_t i = 0; i < ARRAY_LEN(p->outputs); i++)
        process_read_last_words(p, &p->outputs[i]);
    process_tell_dropped(p);
    (void)uv_timer_stop(&p->tick);
    p->state = PROCESS_ENDED;
    if (p->freeing)
        process_close(p);
    else
        p->options.on_exit(p, p->code, p->signal, group_gone);
}

struct process *process_new(uv_loop_t *loop, const struct process_options *options)
{
    struct process *p = xcalloc(1, sizeof(*p));
    p->options = *options;
    p->loop = loop;
    p->guard_closed = true;
    p->window_at = uv_now(loop);
    closer_init(&p->closer, loop);
    for (size_t i = 0; i < ARRAY_LEN(p->outputs); i++) {
        ASSERT(uv_pipe_init(loop, &p->outputs[i].pipe, 0) == 0);
        p->outputs[i].pipe.data = p;
        line_reader_init(&p->outputs[i].lines, process_on_line, p);
        closer_hold(&p->closer);
    }
    ASSERT(uv_pipe_init(loop, &p->control, 0) == 0);
    ASSERT(uv_timer_init(loop, &p->tick) == 0);
    ASSERT(uv_timer_init(loop, &p->gone) == 0);
    p->control.data = p->tick.data = p->gone.data = p->guard.data = p;
    for (int i = 0; i < 3; i++)
        closer_hold(&p->closer);
    return p;
}

void *process_ctx(const struct process *p)
{
    return p->options.ctx;
}

static size_t count_of(char *const *list)
{
    size_t n = 0;
    while (list[n] != NULL)
        n++;
    return n;
}

/* Real pipes, not libuv's sockets: a command may open /dev/stderr by its name. */
static int process_open_pipes(struct process *p, int ret_ends[2])
{
    for (size_t i = 0; i < ARRAY_LEN(p->outputs); i++) {
        uv_file fds[2];
        int rc = uv_pipe(fds, UV_NONBLOCK_PIPE, 0);
        if (rc != 0)
            return rc;
        ret_ends[i] = fds[1];
        rc = uv_pipe_open(&p->outputs[i].pipe, fds[0]);
        if (rc != 0) {
            (void)close(fds[0]);
            return rc;
        }
    }
    return 0;
}

static int process_spawn(struct process *p, const int ends[2])
{
    size_t count = count_of(p->options.argv);
    char **args = xcalloc(GUARD_COMMAND + count + 1, sizeof(*args));
    char argv0[] = GUARD_ARGV0, mark[] = GUARD_MARK, self[] = "/proc/self/exe";
    char descriptors[24];
    (void)snprintf(descriptors, sizeof(descriptors), "%llu",
                   (unsigned long long)p->options.descriptors);
    args[0] = argv0;
    args[1] = mark;
    args[GUARD_DESCRIPTORS] = descriptors;
    memcpy(args + GUARD_COMMAND, p->options.argv, count * sizeof(*args));
    uv_stdio_container_t stdio[4] = {{.flags = UV_IGNORE}};
    for (int i = 0; i < 2; i++) {
        stdio[i + 1].flags = UV_INHERIT_FD;
        stdio[i + 1].data.fd = ends[i];
    }
    stdio[GUARD_FD].flags = UV_CREATE_PIPE | UV_READABLE_PIPE | UV_WRITABLE_PIPE;
    stdio[GUARD_FD].data.stream = (uv_stream_t *)&p->control;
    uv_process_options_t options = {
        .exit_cb = process_on_guard_exit,
        .file = self,
        .args = args,
        .env = (char **)p->options.env,
        .flags = UV_PROCESS_DETACHED,
        .stdio_count = 4,
        .stdio = stdio,
    };
    int rc = uv_spawn(p->loop, &p->guard, &options);
    p->guard_closed = false; /* the handle is there even if there is no process */
    closer_hold(&p->closer);
    free(args);
    return rc;
}

enum err_code process_start(struct process *p, struct err *err)
{
    int ends[2] = {-1, -1};
    ASSERT(p->state == PROCESS_NEW && p->options.argv[0] != NULL);
    int rc = process_open_pipes(p, ends);
    if (rc == 0)
        rc = process_spawn(p, ends);
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        if (ends[i] >= 0)
            (void)close(ends[i]);
    }
    if (rc != 0) {
        p->state = PROCESS_ENDED;
        return err_sys(err, rc == UV_ENOENT ? ERR_NOT_FOUND : ERR_IO, -rc,
                       "the guard of %s cannot be started", p->options.argv[0]);
    }
    p->state = PROCESS_RUNNING;
    for (size_t i = 0; i < ARRAY_LEN(p->outputs); i++)
        ASSERT(uv_read_start((uv_stream_t *)&p->outputs[i].pipe, process_on_alloc,
                             process_on_output) == 0);
    ASSERT(uv_read_start((uv_stream_t *)&p->control, process_on_alloc, process_on_news) == 0);
    return ERR_OK;
}

int process_pid(const struct process *p)
{
    return p->state == PROCESS_RUNNING ? p->pid : 0;
}

void process_signal(struct process *p, int signum)
{
    if (p->state == PROCESS_RUNNING)
        process_say(p, signum);
}

void process_free(struct process *p, void (*closed)(void *ctx), void *ctx)
{
    ASSERT(!p->freeing);
    p->freeing = true;
    p->closed = closed;
    p->closed_ctx = ctx;
    if (p->state == PROCESS_NEW || p->state == PROCESS_ENDED) {
        process_close(p);
        return;
    }
    process_signal(p, SIGKILL);
    if (!uv_is_active((uv_handle_t *)&p->gone))
        ASSERT(uv_timer_start(&p->gone, process_on_time_up, PROCESS_GONE_MS, 0) == 0);
}
