#include "left.h"

#include "closer.h"
#include "history.h"
#include "log.h"
#include "task_private.h"

#include <stdio.h>
#include <stdlib.h>

enum { LEFT_LOOK_MS = 2000 };

struct left_prompt {
    char id[TASK_PROMPT_ID_MAX + 1];
    uint64_t since;
    bool absent; /* at the last look; its request may be on the way, or it is on its way out */
    bool asked;  /* since left_hurry() */
};

struct left {
    struct left_options options;
    struct left_prompt prompts[LEFT_MAX]; /* the oldest first */
    unsigned count;
    uint64_t emptied_at; /* 0: never was */
    bool hurries;
    uv_timer_t timer; /* runs while there are any */
    struct comfy_request req;
    struct closer closer;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* --- the list -------------------------------------------------------------------------------- */

static void left_remove(struct left *l, unsigned at)
{
    l->count--;
    memmove(&l->prompts[at], &l->prompts[at + 1], (l->count - at) * sizeof(l->prompts[0]));
}

static void left_end_if_empty(struct left *l)
{
    if (l->count > 0 || !uv_is_active((uv_handle_t *)&l->timer))
        return;
    (void)uv_timer_stop(&l->timer);
    l->emptied_at = clock_mono_ms();
}

unsigned left_count(const struct left *l)
{
    return l->count;
}

uint64_t left_emptied_at(const struct left *l)
{
    return l->emptied_at;
}

void left_forget(struct left *l)
{
    l->count = 0;
    left_end_if_empty(l);
}

void left_thaw(struct left *l, uint64_t gap_ms)
{
    for (unsigned i = 0; i < l->count; i++)
        l->prompts[i].since = moment_put_off(l->prompts[i].since, gap_ms);
    if (l->emptied_at != 0)
        l->emptied_at = moment_put_off(l->emptied_at, gap_ms);
}

/* --- asking them away ------------------------------------------------------------------------ */

static void left_on_answer(struct comfy_request *r, const struct err *err);

static void left_start_look(struct left *l)
{
    l->req.done = left_on_answer;
    closer_hold(&l->closer);
    comfy_get_queue(l->options.comfy, &l->req);
}

static void left_on_asked_away(struct comfy_request *r, const struct err *err)
{
    struct left *l = r->ctx;
    (void)err; /* the next look tells */
    if (l->hurries)
        left_start_look(l);
    closer_release(&l->closer);
}

static void left_ask_away(struct left *l, struct left_prompt *p, enum queue_place place)
{
    p->asked = true;
    l->req.done = left_on_asked_away;
    closer_hold(&l->closer);
    if (place == QUEUE_PENDING)
        comfy_delete_pending(l->options.comfy, &l->req, p->id);
    else
        comfy_interrupt(l->options.comfy, &l->req, p->id);
}

static void left_condemn(struct left *l)
{
    left_forget(l);
    supervisor_condemn(l->options.supervisor, "a prompt that was to stop did not stop");
}

/* What a look has not shown is forgotten by the next one. If ComfyUI answers none, that is not its
 * fault. */
static void left_end_overdue(struct left *l)
{
    uint64_t now = clock_mono_ms();
    for (unsigned i = l->count; i-- > 0;) {
        const struct left_prompt *p = &l->prompts[i];
        if (now - p->since < l->options.patience_ms)
            continue;
        if (!p->absent) {
            left_condemn(l);
            return;
        }
        left_remove(l, i);
    }
    left_end_if_empty(l);
}

/* Forgets what is gone and asks one of the others away: those that wait first, so that none of
 * them begins. */
static void left_look(struct left *l, struct slice queue)
{
    struct left_prompt *next = NULL;
    enum queue_place next_place = QUEUE_ABSENT;
    for (unsigned i = l->count; i-- > 0;) {
        struct left_prompt *p = &l->prompts[i];
        enum queue_place place;
        if (queue_parse(&place, queue, p->id, NULL) != ERR_OK)
            return;
        bool gone = place == QUEUE_ABSENT && p->absent;
        p->absent = place == QUEUE_ABSENT;
        if (gone) {
            left_remove(l, i);
            if (next != NULL)
                next--; /* it has moved up */
        } else if (!p->absent && !(l->hurries && p->asked) &&
                   (next == NULL || place == QUEUE_PENDING)) {
            next = p;
            next_place = place;
        }
    }
    if (next != NULL)
        left_ask_away(l, next, next_place);
}

static void left_on_answer(struct comfy_request *r, const struct err *err)
{
    struct left *l = r->ctx;
    if (err == NULL && r->status == 200) {
        struct buf body = comfy_request_take_body(r); /* the request is used again */
        left_look(l, buf_slice(&body));
        buf_done(&body);
    }
    left_end_overdue(l);
    if (l->hurries && !r->busy) {
        l->hurries = false;
        l->options.hurried(l->options.ctx);
    }
    closer_release(&l->closer);
}

void left_hurry(struct left *l)
{
    if (l->count == 0 || l->hurries)
        return;
    for (unsigned i = 0; i < l->count; i++)
        l->prompts[i].asked = false;
    l->hurries = true;
    if (!l->req.busy)
        left_start_look(l);
}

bool left_hurries(const struct left *l)
{
    return l->hurries;
}

static void left_on_timer(uv_timer_t *timer)
{
    struct left *l = timer->data;
    if (!l->req.busy)
        left_start_look(l);
}

void left_add(struct left *l, const char *prompt_id, bool absent)
{
    if (l->closed != NULL)
        return;
    if (l->count == LEFT_MAX)
        left_remove(l, 0);
    struct left_prompt *p = &l->prompts[l->count++];
    (void)snprintf(p->id, sizeof(p->id), "%s", prompt_id);
    p->since = clock_mono_ms();
    p->absent = absent;
    p->asked = false;
    log_warn("task", "prompt %s %s ComfyUI: asked away until it is gone", prompt_id,
             absent ? "may come yet to" : "is still in");
    if (!uv_is_active((uv_handle_t *)&l->timer))
        ASSERT(uv_timer_start(&l->timer, left_on_timer, LEFT_LOOK_MS, LEFT_LOOK_MS) == 0);
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
    left_forget(l);
    comfy_request_cancel(&l->req);
    uv_close((uv_handle_t *)&l->timer, left_on_timer_closed);
    closer_begin(&l->closer, left_on_closed);
}
