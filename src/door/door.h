/* A front door's way to the ComfyUI that is elsewhere: asks RUN_URL to run tasks that lie in the
 * store. What the store has to do with it is told in task_offer.c; this is the call alone.
 *
 *     POST <RUN_URL>/api/run          task-id, x-fc-invocation-type: Async, x-api-key
 *     {"task_id": "…", "attempt": 1}
 *
 * On Function Compute the gateway in front of the GPU function answers 202, keeps the call and
 * delivers it when there is an instance, at least once; without the platform the agent at RUN_URL
 * answers 202 when it has taken the task. No `x-fc-async-task-id` is sent: the gateway takes one
 * once and says 409 for ever after, also when the first call never arrived.
 *
 *     CALLING ─ 2xx ─► taken over
 *        ▲  │ no answer, 408, 429, 5xx ─► WAITING, longer each time ─► CALLING
 *        │  │                                  └ `patience_ms` are over ─► gpu_unreachable
 *        └──┘ anything else ─► gpu_refused: again would be no better
 *
 * A call whose answer was lost is made again: it names the attempt, so the second one finds it
 * taken. An offer that is taken or ended meanwhile needs no more calls. */
#ifndef DOOR_H
#define DOOR_H

#include "task_hub.h"

struct door;

struct door_options {
    const char *url;      /* http(s)://host[:port][/path], of the function; may be inside */
    struct slice key;     /* empty: none */
    uint64_t patience_ms; /* for one task, all calls together */
    const char *user_agent;
    uint64_t call_ms; /* for one call */
};
#define DOOR_DEFAULTS .call_ms = 20000

/* Could these be called, and with this? */
enum err_code door_check(const char *url, struct slice key, struct err *err) MUST_CHECK;
/* With what door_check() has taken. */
struct door *door_new(uv_loop_t *loop, struct later *later, const struct door_options *options);
/* For task_hub_options; lives as long as the door. */
const struct task_caller *door_caller(struct door *d);
/* The process did not run for so long: nobody could have answered. */
void door_thaw(struct door *d, uint64_t gap_ms);
unsigned door_calls(const struct door *d); /* under way or waiting */
/* Calls that are under way end unanswered, none begins any more: the tasks' references go, and they
 * hear nothing. Idempotent. */
void door_stop(struct door *d);
/* When no task is left that could ask for a call. */
void door_free(struct door *d, void (*closed)(void *ctx), void *ctx);

#endif
