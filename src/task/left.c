#include "left.h"

#include "closer.h"
#include "history.h"
#include "log.h"
#include "task_private.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    LEFT_LOOK_MS = 2000,
    LEFT_HOPELESS_LOOK_MS = 10000,
    LEFT_EXPECT_MS = 10000,
    LEFT_HURRY_MS = 2000,
    LEFT_HURRY_LOOK_MS = 200, /* while nothing is to be asked: what was on its way may come */
    LEFT_INTERRUPTS = 2,      /* in a hurry: what begins just then does not hear the first */
};

struct left_prompt {
    char id[TASK_PROMPT_ID_MAX + 1];
    uint64_t since;         /* added, seen at last after all, or ComfyUI is back */
    bool expected;          /* nobody has seen it yet */
    bool missed;            /* by the last look */
    bool hopeless;          /* it does not stop, and its ComfyUI cannot be killed */
    enum queue_place place; /* at the last look; a request may be on its way, or it goes out */
    enum queue_place asked; /* away from there, since left_hurry() … */
    unsigned interrupts;    /* … so often */
};

struct left {
    struct left_options options;
    struct left_prompt *prompts; /* the oldest first */
    unsigned count, capacity;
    unsigned generation;     /* of ComfyUI's returns, for which patience counts */
    uint64_t gone_at;        /* one that has been seen; 0: none */
    uint64_t hurry_until;    /* 0: there is none */
    bool looks_on;           /* at once, when what waits has been deleted; but once a tick */
    enum queue_place asking; /* away from there, by req */
    uv_timer_t timer;        /* runs while there are any, or there is a hurry */
    struct comfy_request req;
    struct closer closer;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* --- the list -------------------------------------------------------------------------------- */

static void left_remove(struct left *l, unsigned at)
{
    if (!l->prompts[at].expected && !l->prompts[at].hopeless)
        l->gone_at = clock_mono_ms();
    l->count--;
    memmove(&l->prompts[at], &l->prompts[at + 1], (l->count - at) * sizeof(l->prompts[0]));
}

static void left_end_if_empty(struct left *l)
{
    if (l->count > 0 || l->capacity == 0)
        return;
    free(l->prompts);
    l->prompts = NULL;
    l->capacity = 0;
    if (l->hurry_until == 0) /* whose end it tells */
        (void)uv_timer_stop(&l->timer);
}

unsigned left_count(const struct left *l)
{
    return l->count;
}

bool left_is_there(const struct left *l)
{
    for (unsigned i = 0; i < l->count; i++)
        if (!l->prompts[i].expected && !l->prompts[i].hopeless)
            return true;
    return false;
}

uint64_t left_gone_at(const struct left *l)
{
    return l->gone_at;
}

void left_forget(struct left *l)
{
    while (l->count > 0)
        left_remove(l, l->count - 1);
    left_end_if_empty(l);
}

void left_thaw(struct left *l, uint64_t gap_ms)
{
    for (unsigned i = 0; i < l->count; i++)
        l->prompts[i].since = moment_put_off(l->prompts[i].since, gap_ms);
    if (l->gone_at != 0)
        l->gone_at = moment_put_off(l->gone_at, gap_ms);
    if (l->hurry_until != 0)
        l->hurry_until += gap_ms;
}

/* --- which, and when ------------------------------------------------------------------------- */

static void left_note_place(void *ctx, struct slice id, enum queue_place place)
{
    struct left *l = ctx;
    for (unsigned i = 0; i < l->count; i++)
        if (json_string_is(id, l->prompts[i].id))
            l->prompts[i].place = place;
}

/* Patience counts while ComfyUI can be asked, and anew when it can be asked again. */
static bool left_counts_patience(struct left *l)
{
    const struct supervisor *s = l->options.supervisor;
    if (supervisor_state(s) != SUPERVISOR_READY)
        return false;
    if (l->generation != supervisor_generation(s)) {
        l->generation = supervisor_generation(s);
        for (unsigned i = 0; i < l->count; i++)
            l->prompts[i].since = clock_mono_ms();
    }
    return true;
}

/* Forgets what is gone. */
static void left_note_places(struct left *l, const struct queue *queue, bool counts_patience)
{
    uint64_t now = clock_mono_ms();
    for (unsigned i = 0; i < l->count; i++)
        l->prompts[i].place = QUEUE_ABSENT;
    queue_each(queue, left_note_place, l);
    for (unsigned i = l->count; i-- > 0;) {
        struct left_prompt *p = &l->prompts[i];
        bool absent = p->place == QUEUE_ABSENT;
        bool waited = !p->expected || (counts_patience && now - p->since >= LEFT_EXPECT_MS);
        if (absent && p->missed && waited) {
            left_remove(l, i);
            continue;
        }
        if (p->expected && !absent)
            p->since = now;
        p->expected = p->expected && absent;
        p->missed = absent;
    }
}

static bool left_asks(const struct left *l, const struct left_prompt *p)
{
    if (l->hurry_until == 0)
        return true;
    return p->place == QUEUE_RUNNING ? p->interrupts < LEFT_INTERRUPTS : p->asked != p->place;
}

/* Those of a place that are to be asked away from it. */
static unsigned left_find(struct left *l, enum queue_place place, const char *ret_ids[LEFT_MAX])
{
    unsigned count = 0;
    for (unsigned i = 0; i < l->count; i++) {
        struct left_prompt *p = &l->prompts[i];
        if (p->place == place && left_asks(l, p)) {
            p->asked = place;
            p->interrupts += place == QUEUE_RUNNING;
            ret_ids[count++] = p->id;
            if (place == QUEUE_RUNNING)
                break; /* it runs one at a time */
        }
    }
    return count;
}

static void left_condemn(struct left *l)
{
    left_forget(l);
    supervisor_condemn(l->options.supervisor, "a prompt that was to stop did not stop");
}

static void left_despair(struct left *l, struct left_prompt *p)
{
    log_warn("task", "prompt %s does not stop, and its ComfyUI is not ours to kill", p->id);
    p->hopeless = true;
    l->gone_at = clock_mono_ms();
}

static bool left_is_overdue(const struct left *l, const struct left_prompt *p)
{
    return !p->expected && !p->hopeless && clock_mono_ms() - p->since >= l->options.patience_ms;
}

/* What the last look has not shown is gone for all one knows, if there is no further answer. */
static void left_end_overdue(struct left *l)
{
    for (unsigned i = l->count; i-- > 0;) {
        struct left_prompt *p = &l->prompts[i];
        if (!left_is_overdue(l, p))
            continue;
        if (p->missed) {
            left_remove(l, i);
        } else if (supervisor_is_attached(l->options.supervisor)) {
            left_despair(l, p);
        } else {
            left_condemn(l);
            return;
        }
    }
}

static bool left_has_asked_all(const struct left *l)
{
    for (unsigned i = 0; i < l->count; i++)
        if (l->prompts[i].asked == QUEUE_ABSENT)
            return false;
    return true;
}

/* --- asking ---------------------------------------------------------------------------------- */

static void left_on_timer(uv_timer_t *timer);

static bool left_is_hopeless(const struct left *l)
{
    for (unsigned i = 0; i < l->count; i++)
        if (!l->prompts[i].hopeless)
            return false;
    return true;
}

static void left_pace(struct left *l)
{
    uint64_t every = l->hurry_until != 0   ? LEFT_HURRY_LOOK_MS
                     : left_is_hopeless(l) ? LEFT_HOPELESS_LOOK_MS
                                           : LEFT_LOOK_MS;
    if (!uv_is_active((uv_handle_t *)&l->timer) || uv_timer_get_repeat(&l->timer) != every)
        ASSERT(uv_timer_start(&l->timer, left_on_timer, every, every) == 0);
}

static void left_end_hurry(struct left *l)
{
    l->hurry_until = 0;
    if (l->count > 0)
        left_pace(l);
    else
        (void)uv_timer_stop(&l->timer);
    l->options.hurried(l->options.ctx);
}

static void left_on_queue(struct comfy_request *r, const struct err *err);

static void left_start_look(struct left *l)
{
    l->req.done = left_on_queue;
    closer_hold(&l->closer);
    comfy_get_queue(l->options.comfy, &l->req);
}

static void left_on_asked_away(struct comfy_request *r, const struct err *err)
{
    struct left *l = r->ctx;
    bool done = err == NULL && r->status >= 200 && r->status < 300;
    for (unsigned i = 0; i < l->count && !done; i++) {
        l->prompts[i].asked = QUEUE_ABSENT; /* by the timer's next look */
        l->prompts[i].interrupts = 0;
    }
    if (done && l->count > 0 && l->asking == QUEUE_PENDING && l->looks_on) {
        l->looks_on = false;
        left_start_look(l);
    }
    closer_release(&l->closer);
}

static void left_start_asking(struct left *l, enum queue_place place)
{
    l->asking = place;
    l->req.done = left_on_asked_away;
    closer_hold(&l->closer);
}

/* Those that wait first, so that none of them begins. */
static void left_ask_away(struct left *l)
{
    const char *ids[LEFT_MAX];
    unsigned waiting = left_find(l, QUEUE_PENDING, ids);
    if (waiting > 0) {
        left_start_asking(l, QUEUE_PENDING);
        comfy_delete_pending(l->options.comfy, &l->req, ids, waiting);
    } else if (left_find(l, QUEUE_RUNNING, ids) > 0) {
        left_start_asking(l, QUEUE_RUNNING);
        comfy_interrupt(l->options.comfy, &l->req, ids[0]);
    } else if (l->hurry_until != 0 && left_has_asked_all(l)) {
        left_end_hurry(l);
    }
}

static void left_on_queue(struct comfy_request *r, const struct err *err)
{
    struct left *l = r->ctx;
    struct queue queue;
    bool counts_patience = left_counts_patience(l);
    if (err == NULL && r->status == 200) {
        struct buf body = comfy_request_take_body(r); /* the request is used again */
        if (queue_parse(&queue, buf_slice(&body), NULL) == ERR_OK) {
            left_note_places(l, &queue, counts_patience);
            left_ask_away(l);
        }
        buf_done(&body);
    }
    if (counts_patience)
        left_end_overdue(l);
    if (l->count > 0)
        left_pace(l);
    else
        left_end_if_empty(l);
    closer_release(&l->closer);
}

static void left_on_timer(uv_timer_t *timer)
{
    struct left *l = timer->data;
    bool hurries = l->hurry_until != 0;
    if (hurries && (l->count == 0 || clock_mono_ms() >= l->hurry_until)) {
        comfy_request_cancel(&l->req);
        left_end_hurry(l);
    } else if (!l->req.busy) {
        l->looks_on = true;
        left_start_look(l);
    }
}

void left_hurry(struct left *l)
{
    if (l->count == 0 || l->hurry_until != 0)
        return;
    for (unsigned i = 0; i < l->count; i++) {
        l->prompts[i].asked = QUEUE_ABSENT;
        l->prompts[i].interrupts = 0;
    }
    l->looks_on = true;
    l->hurry_until = clock_mono_ms() + LEFT_HURRY_MS;
    left_pace(l);
    if (!l->req.busy)
        left_start_look(l);
}

bool left_hurries(const struct left *l)
{
    return l->hurry_until != 0;
}

static bool left_has(const struct left *l, const char *prompt_id)
{
    for (unsigned i = 0; i < l->count; i++)
        if (strcmp(l->prompts[i].id, prompt_id) == 0)
            return true;
    return false;
}

void left_add(struct left *l, const char *prompt_id, bool absent)
{
    if (l->closed != NULL || left_has(l, prompt_id))
        return;
    if (l->count == 0)
        l->generation = supervisor_generation(l->options.supervisor);
    if (l->count == LEFT_MAX)
        left_remove(l, 0);
    if (l->count == l->capacity) {
        l->capacity = l->capacity > 0 ? 2 * l->capacity : 4;
        l->prompts = xrealloc(l->prompts, l->capacity * sizeof(l->prompts[0]));
    }
    struct left_prompt *p = &l->prompts[l->count++];
    *p = (struct left_prompt){.since = clock_mono_ms(), .expected = absent};
    (void)snprintf(p->id, sizeof(p->id), "%s", prompt_id);
    log_warn("task", "prompt %s %s ComfyUI: asked away until it is gone", prompt_id,
             absent ? "may come yet to" : "may still be in");
    left_pace(l);
}

/* --- life ------------------------------------------------------------------------------------ */

struct left *left_new(uv_loop_t *loop, const struct left_options *options)
{
    struct left *l = xcalloc(1, sizeof(*l));
    l->options = *options;
    comfy_request_init(&l->req);
    l->req.ctx = l;
    closer_init(&l->closer, loop);
    ASSERT(uv_timer_init(loop, &l->timer) == 0);
    l->timer.data = l;
    closer_hold(&l->closer);
    return l;
}

static void left_on_timer_closed(uv_handle_t *handle)
{
    struct left *l = handle->data;
    closer_release(&l->closer);
}

static void left_on_closed(struct closer *closer)
{
    struct left *l = CONTAINER_OF(closer, struct left, closer);
    void (*closed)(void *ctx) = l->closed;
    void *ctx = l->closed_ctx;
    comfy_request_done(&l->req);
    free(l);
    closed(ctx);
}

void left_free(struct left *l, void (*closed)(void *ctx), void *ctx)
{
    l->closed = closed;
    l->closed_ctx = ctx;
    l->hurry_until = 0;
    left_forget(l);
    comfy_request_cancel(&l->req);
    uv_close((uv_handle_t *)&l->timer, left_on_timer_closed);
    closer_begin(&l->closer, left_on_closed);
}
