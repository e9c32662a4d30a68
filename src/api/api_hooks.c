/* What Function Compute calls in an instance's life. Only the platform gets here (router.c).
 *
 * POST /initialize: once, before the first call. Waits until ComfyUI can take prompts and runs
 * WARMUP_PROMPT. Answers 200 shortly before the hook's limit, ready or not: a hook that fails costs
 * another instance, while the first call can wait for the rest. (The instance is frozen in between,
 * ComfyUI's start too.)
 *
 * GET /pre-stop: the last call. Stops like SIGTERM, and answers when the tasks have ended and are
 * stored.
 *
 * GET /pre-freeze: FC 2.0 only. There is nothing to do: pause.h sees to it afterwards. */
#include "answer.h"
#include "api.h"
#include "invoked.h"
#include "log.h"
#include "warmup.h"

#include <stdlib.h>

enum { ANSWER_EARLIER_MS = 10000, LOOK_MS = 50 };

static void hook_answer(struct http_req *req)
{
    answer_json(req, 200, SLICE("{}"), NULL);
}

/* --- /initialize ----------------------------------------------------------------------------- */

struct initialize {
    struct api *api;
    struct http_req *req; /* NULL: answered, or the platform has left */
    uv_timer_t timer;
    uint64_t until; /* on the loop's clock */
};

static void initialize_on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void initialize_end(struct initialize *i)
{
    uv_close((uv_handle_t *)&i->timer, initialize_on_closed);
}

static void initialize_on_abort(struct http_req *req)
{
    initialize_end(http_req_data(req));
}

/* Is there nothing to wait for any more? */
static bool initialize_step(struct initialize *i)
{
    if (i->api->door != NULL)
        return true;
    if (!comfy_is_open(i->api->comfy))
        return supervisor_state(i->api->supervisor) == SUPERVISOR_GAVE_UP;
    warmup_start(i->api->warmup);
    return warmup_is_over(i->api->warmup);
}

static void initialize_on_look(uv_timer_t *timer)
{
    struct initialize *i = timer->data;
    bool over = initialize_step(i);
    if (!over && uv_now(timer->loop) < i->until)
        return;
    if (!over)
        log_warn("fc", "the Initializer's time is nearly over: the first call waits for the rest");
    hook_answer(i->req);
    initialize_end(i);
}

static uint64_t initialize_patience(const struct api *api, struct http_req *req)
{
    struct invocation inv;
    invoked_read(req, &inv);
    uint64_t limit = inv.initialize_ms != 0 ? inv.initialize_ms : api->initialize_ms;
    return limit / 2 > ANSWER_EARLIER_MS ? limit - ANSWER_EARLIER_MS : limit / 2;
}

void api_initialize(struct api *api, struct http_req *req, struct slice param)
{
    struct initialize *i = xcalloc(1, sizeof(*i));
    (void)param;
    i->api = api;
    i->req = req;
    ASSERT(uv_timer_init(api->loop, &i->timer) == 0);
    i->timer.data = i;
    i->until = uv_now(api->loop) + initialize_patience(api, req);
    http_req_set_data(req, i);
    http_on_abort(req, initialize_on_abort);
    ASSERT(uv_timer_start(&i->timer, initialize_on_look, 0, LOOK_MS) == 0);
}

/* --- /pre-stop ------------------------------------------------------------------------------- */

struct pre_stop {
    struct list_node link; /* in api->stops */
    struct http_req *req;
};

static void pre_stop_on_abort(struct http_req *req)
{
    struct pre_stop *p = http_req_data(req);
    list_remove(&p->link);
    free(p);
}

void api_pre_stop(struct api *api, struct http_req *req, struct slice param)
{
    struct pre_stop *p = xcalloc(1, sizeof(*p));
    (void)param;
    p->req = req;
    list_init(&p->link);
    list_add(&api->stops, &p->link);
    http_req_set_data(req, p);
    http_on_abort(req, pre_stop_on_abort);
    api->stop(api->stop_ctx, "PreStop");
}

void api_stopped(struct api *api)
{
    LIST_FOREACH_SAFE (node, next, &api->stops) {
        struct pre_stop *p = CONTAINER_OF(node, struct pre_stop, link);
        list_remove(&p->link);
        hook_answer(p->req);
        free(p);
    }
}

/* --- /pre-freeze ----------------------------------------------------------------------------- */

void api_pre_freeze(struct api *api, struct http_req *req, struct slice param)
{
    (void)api;
    (void)param;
    hook_answer(req);
}
