/* Files of ComfyUI's for clients, who may be slow: on connections of their own, so that no task
 * waits for one. A front door has no ComfyUI and reads them itself (http_file.h).
 *
 * While ComfyUI starts, a call that waits for it is kept here:
 *
 *     comfy_view_start() ─► kept ─ comfy_up() ─► on its way
 *                             └─ its time is over, comfy_give_up(), cancelled ─► on_end
 */
#include "comfy_private.h"
#include "http_file.h"

#include <stdlib.h>

struct view_wait {
    struct list_node link;
    struct comfy *comfy;
    struct http_call *call;
    uv_timer_t timer;
    struct later_item over;
    struct err err; /* set: its end is on its way */
};

static void view_on_timer_closed(uv_handle_t *handle)
{
    struct view_wait *w = handle->data;
    struct comfy *c = w->comfy;
    free(w);
    closer_release(&c->closer);
}

static void view_wait_free(struct view_wait *w)
{
    list_remove(&w->link);
    uv_close((uv_handle_t *)&w->timer, view_on_timer_closed);
}

static void view_on_over(struct later_item *item)
{
    struct view_wait *w = CONTAINER_OF(item, struct view_wait, over);
    struct http_call *call = w->call;
    struct err err = w->err;
    view_wait_free(w);
    call->on_end(call, &err);
}

static void view_wait_end(struct view_wait *w, enum err_code code, const char *why)
{
    if (w->err.code != ERR_OK)
        return;
    (void)err_set(&w->err, code, "%s", why);
    later_add(w->comfy->later, &w->over);
}

static void view_on_time_over(uv_timer_t *timer)
{
    view_wait_end(timer->data, ERR_UNAVAILABLE, "ComfyUI has not started in time");
}

static void view_wait(struct comfy *c, struct http_call *call, uint64_t wait_ms)
{
    struct view_wait *w = xcalloc(1, sizeof(*w));
    uint64_t most = c->options.startup_ms;
    w->comfy = c;
    w->call = call;
    call->status = 0;
    later_item_init(&w->over, view_on_over);
    list_add(&c->waits, &w->link);
    closer_hold(&c->closer);
    ASSERT(uv_timer_init(c->loop, &w->timer) == 0);
    w->timer.data = w;
    ASSERT(uv_timer_start(&w->timer, view_on_time_over, wait_ms < most ? wait_ms : most, 0) == 0);
    if (c->gave_up != NULL)
        view_wait_end(w, ERR_UNAVAILABLE, c->gave_up);
}

void comfy_view_release(struct comfy *c)
{
    c->gave_up = NULL;
    LIST_FOREACH_SAFE (node, next, &c->waits) {
        struct view_wait *w = CONTAINER_OF(node, struct view_wait, link);
        struct http_call *call = w->call;
        if (w->err.code != ERR_OK)
            continue;
        view_wait_free(w);
        http_up_start(c->views, call);
    }
}

void comfy_give_up(struct comfy *c, const char *why)
{
    if (c->state != COMFY_DOWN)
        return;
    c->gave_up = why;
    LIST_FOREACH (node, &c->waits)
        view_wait_end(CONTAINER_OF(node, struct view_wait, link), ERR_UNAVAILABLE, why);
}

/* NULL: it does not wait. */
static struct view_wait *view_wait_of(const struct comfy *c, const struct http_call *call)
{
    LIST_FOREACH (node, &c->waits) {
        struct view_wait *w = CONTAINER_OF(node, struct view_wait, link);
        if (w->call == call)
            return w;
    }
    return NULL;
}

/* --- public ---------------------------------------------------------------------------------- */

void comfy_view_start(struct comfy *c, struct http_call *call, uint64_t wait_ms)
{
    if (c->options.files != NULL)
        http_files_start(c->options.files, call);
    else if (c->state == COMFY_DOWN && wait_ms > 0)
        view_wait(c, call, wait_ms);
    else
        http_up_start(c->views, call);
}

void comfy_view_cancel(struct comfy *c, struct http_call *call)
{
    struct view_wait *w = view_wait_of(c, call);
    if (w != NULL)
        view_wait_end(w, ERR_CANCELLED, "cancelled");
    else if (c->options.files != NULL)
        http_files_cancel(call);
    else
        http_up_cancel(call);
}

void comfy_view_pause(struct comfy *c, struct http_call *call)
{
    if (c->options.files != NULL)
        http_files_pause(call);
    else
        http_up_pause(call);
}

void comfy_view_resume(struct comfy *c, struct http_call *call)
{
    if (view_wait_of(c, call) != NULL)
        return; /* nothing has come */
    if (c->options.files != NULL)
        http_files_resume(call);
    else
        http_up_resume(call);
}
