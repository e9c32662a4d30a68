/* The supervisor carries out what its table (supervisor_table.c) says: each callback turns what has
 * happened into an event, the table gives the action and the next state, and each action arms what
 * brings the next event. One timer, one probe and at most one process serve all states.
 *
 *     STARTING   the probe asks whether the port is free, then whether ComfyUI answers; the timer
 *                is startup_ms
 *     READY      the probe asks now and then whether anybody listens
 *     BACKOFF    the timer is the escalation against a condemned one, then the back-off; attached:
 *                the probe asks for its return
 *     STOPPING   the timer is the escalation
 *
 * News of the state goes to the owner by `later`, so that nothing calls him back from his own call.
 */
#include "log.h"
#include "process.h"
#include "supervisor_private.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    PORT_AGAIN_MS = 250,
    STUCK_MS = 10000, /* no exit so long after SIGKILL */
};

static const char *const state_names[] = {
#define X(id, name) [id] = name,
    SUPERVISOR_STATES(X)
#undef X
};

const char *supervisor_state_name(enum supervisor_state s)
{
    return state_names[s];
}

static void supervisor_set_timer(struct supervisor *s, uv_timer_cb cb, uint64_t ms)
{
    ASSERT(uv_timer_start(&s->timer, cb, ms, 0) == 0);
}

/* --- the escalation -------------------------------------------------------------------------- */

static void supervisor_gone(struct supervisor *s, int code, int signum, bool group_gone);
static void supervisor_escalate(struct supervisor *s);

static void supervisor_on_grace_over(uv_timer_t *timer)
{
    supervisor_escalate(timer->data);
}

static void supervisor_escalate(struct supervisor *s)
{
    switch (s->stage) {
    case STAGE_INT:
        process_signal(s->process, SIGINT);
        supervisor_set_timer(s, supervisor_on_grace_over, s->options.stop_int_ms);
        s->stage = STAGE_TERM;
        break;
    case STAGE_TERM:
        process_signal(s->process, SIGTERM);
        supervisor_set_timer(s, supervisor_on_grace_over, s->options.stop_term_ms);
        s->stage = STAGE_KILL;
        break;
    case STAGE_KILL:
        process_signal(s->process, SIGKILL);
        supervisor_set_timer(s, supervisor_on_grace_over, STUCK_MS);
        s->stage = STAGE_STUCK;
        break;
    case STAGE_STUCK: /* UNTESTED: takes a process that the kernel cannot kill */
        supervisor_gone(s, 0, SIGKILL, false);
        break;
    }
}

/* --- the process ----------------------------------------------------------------------------- */

static bool slice_has(struct slice text, const char *what)
{
    return memmem(text.ptr, text.len, what, strlen(what)) != NULL;
}

static void supervisor_look_at_line(struct supervisor *s, struct slice line)
{
    ending_add_line(&s->ending, line);
    if (s->worker_dead_told || !slice_has(line, "Exception in thread") ||
        !slice_has(line, "(prompt_worker)"))
        return;
    s->worker_dead_told = true;
    if (s->options.on_worker_dead != NULL)
        s->options.on_worker_dead(s);
}

static void supervisor_on_line(struct process *p, struct slice line)
{
    log_child("comfyui", line);
    supervisor_look_at_line(process_ctx(p), line);
}

static void supervisor_on_excess(struct process *p, struct slice line)
{
    supervisor_look_at_line(process_ctx(p), line);
}

static void supervisor_on_part_closed(void *ctx)
{
    struct supervisor *s = ctx;
    closer_release(&s->closer);
}

static void supervisor_let_process_go(struct supervisor *s)
{
    process_free(s->process, supervisor_on_part_closed, s);
    s->process = NULL;
}

/* How long to wait now. True: there were too many. */
static bool supervisor_count_exit(struct supervisor *s)
{
    uint64_t now = uv_now(s->loop), ready_ms = s->ready_at != 0 ? now - s->ready_at : 0;
    enum backoff_life life = s->verdict         ? BACKOFF_CONDEMNED
                             : s->ready_at != 0 ? BACKOFF_WAS_READY
                                                : BACKOFF_NEVER_READY;
    struct backoff_verdict v = backoff_after_exit(&s->backoff, now, life, ready_ms);
    s->delay_ms = v.delay_ms;
    return v.too_many;
}

static void supervisor_gone(struct supervisor *s, int code, int signum, bool group_gone)
{
    enum ending_hand hand = s->state == SUPERVISOR_STOPPING ? ENDING_BY_US : ENDING_BY_ITSELF;
    supervisor_let_process_go(s);
    ending_seen(&s->ending, code, signum, hand, s->ready_at != 0);
    bool last = s->state != SUPERVISOR_STOPPING && supervisor_count_exit(s);
    if (hand == ENDING_BY_ITSELF && !s->ending.exit.condemned)
        log_warn("comfyui", "%s", s->ending.exit.reason);
    if (!group_gone)
        log_error("comfyui",
                  "something of ComfyUI cannot be killed: no other is started beside it");
    else if (last)
        log_error("comfyui", "%u exits within %llu s: not started again", s->options.exits_max + 1,
                  (unsigned long long)(s->options.exits_window_ms / 1000));
    supervisor_event(s, last || !group_gone ? SUPERVISOR_ON_LAST_EXIT : SUPERVISOR_ON_EXIT);
}

static void supervisor_on_exit(struct process *p, int code, int signum, bool group_gone)
{
    supervisor_gone(process_ctx(p), code, signum, group_gone);
}

/* --- the actions ----------------------------------------------------------------------------- */

static void supervisor_on_startup_over(uv_timer_t *timer)
{
    struct supervisor *s = timer->data;
    char why[96];
    (void)snprintf(why, sizeof(why), "it did not answer within %llu s of its start",
                   (unsigned long long)(s->options.startup_ms / 1000));
    if (s->attached)
        log_warn("comfyui", "%s port %u does not answer", s->host, s->options.port);
    else
        ending_condemn(&s->ending, why);
    supervisor_event(s, SUPERVISOR_ON_TOO_SLOW);
}

static void supervisor_begin(struct supervisor *s)
{
    s->began_at = uv_now(s->loop);
    supervisor_set_timer(s, supervisor_on_startup_over, s->options.startup_ms);
    supervisor_ask_how_it_is(s);
}

static void supervisor_check_port(struct supervisor *s)
{
    if (s->attached) {
        supervisor_begin(s);
        return;
    }
    supervisor_ask_for_port(s);
}

static void supervisor_launch(struct supervisor *s)
{
    struct err err;
    struct process_options options = {.argv = s->options.argv,
                                      .env = s->options.env,
                                      .descriptors = s->options.descriptors,
                                      .on_line = supervisor_on_line,
                                      .on_excess = supervisor_on_excess,
                                      .on_exit = supervisor_on_exit,
                                      .ctx = s};
    s->avoiding_port = s->verdict = s->worker_dead_told = false;
    s->ready_at = 0;
    s->launches++;
    ending_begin(&s->ending);
    s->process = process_new(s->loop, &options);
    closer_hold(&s->closer);
    if (process_start(s->process, &err) == ERR_OK) {
        supervisor_begin(s);
        return;
    }
    supervisor_let_process_go(s);
    ending_not_started(&s->ending, &err);
    log_error("comfyui", "%s", s->ending.exit.reason);
    supervisor_event(s, supervisor_count_exit(s) ? SUPERVISOR_ON_LAST_EXIT : SUPERVISOR_ON_EXIT);
}

static void supervisor_on_backoff_over(uv_timer_t *timer)
{
    supervisor_event(timer->data, SUPERVISOR_ON_TIMER);
}

static void supervisor_avoid(struct supervisor *s)
{
    if (!s->avoiding_port)
        log_warn("comfyui", "somebody else listens on %s port %u: waiting for him to leave",
                 s->host, s->options.port);
    s->avoiding_port = true;
    supervisor_set_timer(s, supervisor_on_backoff_over, PORT_AGAIN_MS);
}

static void supervisor_greet(struct supervisor *s)
{
    s->ready_at = uv_now(s->loop);
    s->generation++;
    log_info("comfyui", "ready after %llu ms, version %s",
             (unsigned long long)(s->ready_at - s->began_at),
             s->version[0] != '\0' ? s->version : "not told");
    supervisor_watch(s);
}

static void supervisor_kill(struct supervisor *s)
{
    if (s->attached) {
        s->began_at = uv_now(s->loop);
        supervisor_await_return(s);
        return;
    }
    log_warn("comfyui", "%s", s->ending.exit.reason);
    s->stage = STAGE_TERM;
    supervisor_escalate(s);
}

static void supervisor_interrupt(struct supervisor *s)
{
    if (s->process == NULL) {
        supervisor_event(s, SUPERVISOR_ON_EXIT);
        return;
    }
    s->stage = s->ending.condemned ? STAGE_KILL : STAGE_INT; /* that one was asked before */
    supervisor_escalate(s);
}

static void supervisor_wait(struct supervisor *s)
{
    log_info("comfyui", "starting it again in %llu ms", (unsigned long long)s->delay_ms);
    supervisor_set_timer(s, supervisor_on_backoff_over, s->delay_ms);
}

static void supervisor_rest(struct supervisor *s)
{
    ASSERT(s->process == NULL);
}

static void (*const supervisor_actions[SUPERVISOR_ACTION_COUNT])(struct supervisor *s) = {
    [SUPERVISOR_CHECK_PORT] = supervisor_check_port,
    [SUPERVISOR_LAUNCH] = supervisor_launch,
    [SUPERVISOR_AVOID] = supervisor_avoid,
    [SUPERVISOR_GREET] = supervisor_greet,
    [SUPERVISOR_KILL] = supervisor_kill,
    [SUPERVISOR_INTERRUPT] = supervisor_interrupt,
    [SUPERVISOR_WAIT] = supervisor_wait,
    [SUPERVISOR_REST] = supervisor_rest,
};

/* --- events ---------------------------------------------------------------------------------- */

static void supervisor_on_news(struct later_item *item)
{
    struct supervisor *s = CONTAINER_OF(item, struct supervisor, news_item);
    unsigned count = s->news_count;
    for (unsigned i = 0; i < count && !s->freeing; i++)
        s->options.on_state(s, s->news[i].now, s->news[i].before);
    /* What the owner did meanwhile was put behind those. */
    s->news_count -= count;
    memmove(s->news, s->news + count, s->news_count * sizeof(s->news[0]));
    if (s->news_count > 0 && !s->freeing)
        later_add(s->later, item);
}

static void supervisor_move(struct supervisor *s, enum supervisor_state next)
{
    if (s->news_count == SUPERVISOR_NEWS_MAX) {
        s->news[SUPERVISOR_NEWS_MAX - 1].now = next;
    } else {
        s->news[s->news_count].before = s->state;
        s->news[s->news_count++].now = next;
    }
    s->state = next;
    later_add(s->later, &s->news_item);
}

/* The action comes last: it may bring the next event. */
void supervisor_event(struct supervisor *s, enum supervisor_event event)
{
    struct supervisor_cell cell = supervisor_cell(s->state, event);
    if (cell.action == SUPERVISOR_IGNORE)
        return;
    probe_stop(s->probe);
    (void)uv_timer_stop(&s->timer);
    s->checking_port = false;
    if (cell.next != s->state)
        supervisor_move(s, cell.next);
    supervisor_actions[cell.action](s);
}

/* --- the owner's calls ----------------------------------------------------------------------- */

struct supervisor *supervisor_new(uv_loop_t *loop, struct later *later,
                                  const struct supervisor_options *options)
{
    struct supervisor *s = xcalloc(1, sizeof(*s));
    s->options = *options;
    s->host = xstrdup(options->host);
    s->attached = options->argv == NULL;
    s->loop = loop;
    s->later = later;
    s->backoff = (struct backoff){.min_ms = options->backoff_min_ms,
                                  .max_ms = options->backoff_max_ms,
                                  .window_ms = options->exits_window_ms,
                                  .exits_max = options->exits_max};
    backoff_init(&s->backoff);
    ending_init(&s->ending);
    later_item_init(&s->news_item, supervisor_on_news);
    closer_init(&s->closer, loop);
    ASSERT(uv_timer_init(loop, &s->timer) == 0);
    s->timer.data = s;
    closer_hold(&s->closer);
    struct probe_options probe = {
        .host = s->host, .port = options->port, .done = supervisor_on_probe, .ctx = s};
    s->probe = probe_new(loop, later, &probe);
    closer_hold(&s->closer);
    return s;
}

void *supervisor_ctx(const struct supervisor *s)
{
    return s->options.ctx;
}

void supervisor_start(struct supervisor *s)
{
    supervisor_event(s, SUPERVISOR_ON_START);
}

void supervisor_stop(struct supervisor *s)
{
    supervisor_event(s, SUPERVISOR_ON_STOP);
}

void supervisor_condemn(struct supervisor *s, const char *why)
{
    bool works = s->state == SUPERVISOR_READY || s->state == SUPERVISOR_STARTING;
    if (!works || (s->process == NULL && !s->attached))
        return; /* none that could be of no use */
    if (!s->attached)
        ending_condemn(&s->ending, why);
    s->verdict = true;
    supervisor_event(s, SUPERVISOR_ON_CONDEMN);
}

enum supervisor_state supervisor_state(const struct supervisor *s)
{
    return s->state;
}

bool supervisor_is_attached(const struct supervisor *s)
{
    return s->attached;
}

const struct supervisor_exit *supervisor_last_exit(const struct supervisor *s)
{
    return &s->ending.exit;
}

const char *supervisor_version(const struct supervisor *s)
{
    return s->version;
}

unsigned supervisor_generation(const struct supervisor *s)
{
    return s->generation;
}

unsigned supervisor_restarts(const struct supervisor *s)
{
    return s->launches > 0 ? s->launches - 1 : 0;
}

int supervisor_pid(const struct supervisor *s)
{
    return s->process != NULL ? process_pid(s->process) : 0;
}

static void supervisor_on_timer_closed(uv_handle_t *handle)
{
    struct supervisor *s = handle->data;
    closer_release(&s->closer);
}

static void supervisor_on_closed(struct closer *closer)
{
    struct supervisor *s = CONTAINER_OF(closer, struct supervisor, closer);
    void (*closed)(void *ctx) = s->closed;
    void *ctx = s->closed_ctx;
    ending_done(&s->ending);
    backoff_done(&s->backoff);
    free(s->host);
    free(s);
    if (closed != NULL)
        closed(ctx);
}

void supervisor_free(struct supervisor *s, void (*closed)(void *ctx), void *ctx)
{
    ASSERT(s->state == SUPERVISOR_STOPPED || s->state == SUPERVISOR_GAVE_UP);
    s->freeing = true;
    s->closed = closed;
    s->closed_ctx = ctx;
    later_cancel(s->later, &s->news_item);
    uv_close((uv_handle_t *)&s->timer, supervisor_on_timer_closed);
    probe_free(s->probe, supervisor_on_part_closed, s);
    closer_begin(&s->closer, supervisor_on_closed);
}
