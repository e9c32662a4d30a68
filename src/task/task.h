/* A task: one prompt on its way to its outputs, and whoever looks on. Owned by a task_hub; others
 * hold references. The task does not know who watches.
 *
 *     CLAIMING ─► (MIRROR ─►) WAITING, see task_claim.c and task_mirror.c
 *
 *     WAITING ─► SUBMITTING ─► RUNNING ⇄ LOOKING ─► COLLECTING ─► STORING ─► ENDED
 *        │            └───────────┴────────┴─► CANCELLING ──┐        ▲
 *        └──────────────────────────────────────────────────┴────────┘
 *
 * WAITING in the queue, also while ComfyUI starts. SUBMITTING: POST /prompt. RUNNING: the socket
 * brings news. LOOKING: history and queue decide (the prompt is over, or there is a doubt).
 * COLLECTING: each output is asked for. STORING: the end on its way to the store. Callbacks
 * only record facts and call task_step(), which looks at facts only; no order of outside things is
 * relied on (a whole run can be over on the socket before the POST's answer is read).
 *
 * An ended task never changes again.
 */
#ifndef TASK_H
#define TASK_H

#include "comfy.h"
#include "failure.h"
#include "list.h"

enum { TASK_ID_MAX = 128 };

#define TASK_STATUSES(X)                                                                           \
    X(TASK_QUEUED, "queued")                                                                       \
    X(TASK_PREPARING, "preparing")                                                                 \
    X(TASK_RUNNING, "running")                                                                     \
    X(TASK_SUCCEEDED, "succeeded")                                                                 \
    X(TASK_FAILED, "failed")                                                                       \
    X(TASK_CANCELLED, "cancelled")

enum task_status {
#define X(id, name) id,
    TASK_STATUSES(X)
#undef X
};

enum { TASK_KEPT_MAX = 4 }; /* the first outputs, which are kept for a while if they are small */

struct task;
struct task_output {     /* an output that was there when the task ended */
    unsigned node, file; /* positions in the progress */
    uint64_t size;       /* bytes */
    char media_type[96];
    char etag[96]; /* as ComfyUI gave it then, "" if it gave none: the same file has the same */
};

/* A picture of what is in the making; alive during the call. */
struct task_preview {
    struct slice node_id; /* token of the prompt's node that is at it; empty: not known */
    const char *media_type;
    struct slice image;
};

/* Somebody who looks on; embedded by them. Nothing is called inside task_watch_start(). */
struct task_watch {
    /* NULL allowed. Only for tasks that run in this process, at the pace at which ComfyUI makes
     * them: who cannot take one lets it go. */
    void (*on_preview)(struct task_watch *w, const struct task_preview *p);
    void (*on_change)(struct task_watch *w); /* NULL allowed; the node map or the status changed,
                                                and task_is_known() */
    void (*on_end)(struct task_watch *w);    /* once; nothing follows */
    void *ctx;
    bool is_caller;        /* it is run for him, and not only looked on by him */
    struct list_node link; /* the task's */
    struct task *task;
    bool ended; /* on_end is on its way or was called */
};

/* Holds the task until task_watch_stop(). Of an ended task: on_end follows from the loop. */
void task_watch_start(struct task_watch *w, struct task *t);
void task_watch_stop(struct task_watch *w); /* idempotent; also inside its callbacks */

struct task *task_ref(struct task *t);
void task_unref(struct task *t);

const char *task_id(const struct task *t);
bool task_id_is_given(const struct task *t);
uint64_t task_rev(const struct task *t); /* grows with every change */
enum task_status task_status(const struct task *t);
bool task_status_is_end(enum task_status s);
bool task_has_ended(const struct task *t);
/* Once on_end was called: it could not become a task, and nothing else can be asked of it.
 * ERR_EXISTS: its id has another prompt. ERR_NOT_FOUND: followed, and the store does not know it.
 * ERR_UNAVAILABLE, ERR_CORRUPT: the store. NULL: it was not refused. */
const struct err *task_refused(const struct task *t);
/* The store knows it (or was asked in vain): it will run, or runs, or has ended. At a front door:
 * RUN_URL, too, knows it. */
bool task_is_accepted(const struct task *t);
/* Does it know how it is, and may it be told? Not while the store is asked whose its id is, nor
 * when another instance has it and was not looked at yet: then the record is nearer to the truth
 * than this task. Nor while its end is being stored: who were told of it now would be lied to if we
 * died.
 */
bool task_is_known(const struct task *t);
/* It knows how it is: its lease holds, or its end is stored (or given up). An owner that was frozen
 * knows how the task was. */
bool task_is_certain(const struct task *t);
/* Does nobody know better how it is, not even the store? Who follows another instance's run is as
 * old as the last look at its record. */
bool task_is_authority(const struct task *t);
/* Has it an end that is not stored yet? */
bool task_is_storing(const struct task *t);
/* The status that may be told: that of before the end, while the end is being stored. */
enum task_status task_status_told(const struct task *t);
/* What may be told meanwhile: the record from before the end; borrowed. NULL: ask the store. */
struct blob *task_before_end(const struct task *t);
/* Does another instance run it? */
bool task_is_mirror(const struct task *t);
unsigned task_attempt(const struct task *t);
/* By a front door, and as far as is known nobody has taken it yet. */
bool task_is_offered(const struct task *t);
/* Is the end in the store? Meaningful once it has ended and on_end was called. */
bool task_is_stored(const struct task *t);
const char *task_status_name(enum task_status s);
bool task_status_read(struct slice name, enum task_status *ret); /* false: there is none such */
const struct failure *task_failure(const struct task *t); /* NULL unless failed or cancelled */
const struct progress *task_progress(const struct task *t);
const struct prompt *task_prompt(const struct task *t);
/* Files among its inputs have become names in its prompt; what is stored has them as they came. */
bool task_has_fetched(const struct task *t);
unsigned task_outputs(const struct task *t, const struct task_output **ret);
/* All of a small output, which came along when it was asked for; output < TASK_KEPT_MAX. Borrowed,
 * and gone when the end has been told to who waited for it. NULL: it has to be fetched. */
struct blob *task_output_bytes(const struct task *t, unsigned output);
/* Were they asked for when it ended, just now and by this process? Not if it is known by its record
 * alone. */
bool task_saw_outputs(const struct task *t);
bool task_has_watch(const struct task *t);
bool task_has_caller(const struct task *t);

/* The node map and the whole record as JSON. Borrowed until the loop's next turn: what was rendered
 * may be given to the store. Two renderings of one revision differ in the phases at most. */
struct blob *task_nodes(struct task *t);
struct blob *task_record(struct task *t);

/* Ends it as cancelled unless it ends by itself first: leaves the queue, or interrupts ComfyUI
 * while this very prompt runs. `why` is a sentence. Idempotent. */
void task_cancel(struct task *t, const char *why);
/* The same because nobody is left who could ever have the result. */
void task_leave(struct task *t);
/* The time of whoever wants it is over: ends as timed out, like task_cancel(), or at_once: whatever
 * ComfyUI does. */
void task_expire(struct task *t, bool at_once);
/* Somebody waits for it until then (any clock, the same for all; UINT64_MAX: for ever); the latest
 * counts. */
void task_extend(struct task *t, uint64_t deadline_ms);
uint64_t task_deadline(const struct task *t);

#endif
