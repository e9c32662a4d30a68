/* All tasks of this process: the queue, who is in ComfyUI's hands, and the way of news to tasks. */
#ifndef TASK_HUB_H
#define TASK_HUB_H

#include "histogram.h"
#include "inputs.h"
#include "store.h"
#include "supervisor.h"
#include "task.h"

struct task_hub;

/* How a front door has its tasks run: task_offer.c. */
struct task_caller {
    /* Asks whoever has a ComfyUI to run this attempt of the task. task_called() follows, once, from
     * the loop; the callee holds a reference meanwhile. */
    void (*call)(void *ctx, struct task *t);
    void *ctx;
};

struct task_hub_options {
    const struct task_caller *caller; /* NULL: prompts are run here */
    struct supervisor *supervisor;
    struct comfy *comfy;
    struct inputs *inputs; /* NULL: inputs that are files are left alone */
    struct store *store;
    bool folder_per_task; /* a task's outputs go into a folder of its id */
    bool left_is_found;   /* whoever comes after us looks for what is under way in the store */
    unsigned max_concurrency, max_queue, max_attempts;
    uint64_t lease_ms; /* a record that stands still for so long has no owner any more */
    uint64_t run_timeout_ms, stall_timeout_ms, startup_timeout_ms;
    const char *instance; /* in records */
    /* NULL allowed. A stored record of this task was read and is told from now on: what others have
     * read of it before is old. Asks the hub and the store for nothing. */
    void (*on_shown)(void *ctx, const char *id);
    void *ctx;
};

struct task_hub *task_hub_new(uv_loop_t *loop, struct later *later,
                              const struct task_hub_options *options);
/* After task_hub_end_all(). What the store has not taken is given up, in the log. `closed` comes
 * when the last reference to the last task is gone. */
void task_hub_free(struct task_hub *h, void (*closed)(void *ctx), void *ctx);

struct task_spec {
    const char *id; /* checked by store_id_ok() */
    bool given;
    const char *request_id;     /* "" if none */
    bool must_store;            /* no record, no task: its caller will have nothing else to ask */
    bool redelivered;           /* the platform says so: a retry count above 0 */
    bool waits;                 /* however many tasks wait before it */
    struct prompt *take_prompt; /* emptied on success */
    /* What came is no prompt: take_prompt has its digest and nothing else, and the task, which is
     * claimed and recorded like any other, ends with this. Taken on success. NULL: it is one. */
    struct failure *take_refusal;
    unsigned called; /* a front door's call: for this attempt, whose prompt lies in the store; then
                        take_prompt is empty. 0: it is none */
};
/* OK: *ret is a reference. *ret_joined: a task of this id and prompt was here already. Whether a
 * given id is free is for the store to say: see task_refused(). ERR_EXISTS: one with another prompt
 * is here. ERR_BUSY: the queue is full. ERR_UNAVAILABLE: stopping. */
enum err_code task_hub_create(struct task_hub *h, struct task_spec *spec, struct task **ret,
                              bool *ret_joined, struct err *err) MUST_CHECK;
/* A task that the store says is under way: it is followed and, when its owner turns out to be dead,
 * taken over or ended. Nothing happens if it is here already. */
void task_hub_adopt(struct task_hub *h, const char *id);
/* A view of a stored record, as a task that nobody runs: for its outputs. The caller's reference;
 * NULL: it is no record. */
struct task *task_of_record(struct task_hub *h, const char *id, struct slice text);
/* A task by its id for who only looks on, wherever it runs: the one of this process, or a view of
 * its record, read again and again while somebody watches. Such a view takes nothing over and is
 * found by nobody else. Until the first look task_is_known() is false; an id that the store does
 * not know ends as refused with ERR_NOT_FOUND. The caller's reference. ERR_BUSY: too many are
 * followed already. ERR_UNAVAILABLE: stopping. */
enum err_code task_hub_follow(struct task_hub *h, const char *id, struct task **ret,
                              struct err *err) MUST_CHECK;
/* A front door only. Somebody has looked at the record of a task that is offered since so long
 * ago: was RUN_URL ever asked to run it? If not, it is asked now. */
void task_hub_remind(struct task_hub *h, const char *id);
/* The same. It is not wanted: ends as cancelled, unless somebody has taken it (who has learned it
 * from its `~ctl` then). */
void task_hub_withdraw(struct task_hub *h, const char *id);
/* The answer to task_caller.call(), from the loop. NULL: taken over. Else the task ends with it
 * unless somebody has taken it all the same. */
void task_called(struct task *t, struct failure *take_why);
/* A task of this process by its id, or NULL; a borrowed pointer. */
struct task *task_hub_find(struct task_hub *h, struct slice id);
/* 0: runs next; -1: does not wait. */
int task_hub_position(const struct task_hub *h, const struct task *t);

/* News, connected by the owner of all. */
void task_hub_on_state(struct task_hub *h, enum supervisor_state now);
void task_hub_on_link(struct task_hub *h, bool open);
void task_hub_on_event(struct task_hub *h, const struct event *e);

/* The process did not run for gap_ms: what is waited for may take so much longer. Leases are not
 * put off: others saw us stand still. */
void task_hub_thaw(struct task_hub *h, uint64_t gap_ms);

/* No new tasks; `drained` from the loop when none is left that has not ended and been
 * stored, and a ComfyUI that stays has been asked once to drop what was given up. */
void task_hub_drain(struct task_hub *h, void (*drained)(void *ctx), void *ctx);
/* Everything that has not ended ends now, as stopped. */
void task_hub_end_all(struct task_hub *h);
/* The store has had its time: whoever waits for an end that it has not taken yet is told the end,
 * and that it is not stored. How many tasks there are. */
unsigned task_hub_tell_ends(struct task_hub *h);

struct task_hub_stats {
    unsigned waiting, active, unstored;
    uint64_t succeeded, failed, cancelled;
    struct histogram queued, run; /* of tasks that ended */
};
struct task_hub_stats task_hub_stats(const struct task_hub *h);

#endif
