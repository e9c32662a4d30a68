/* Inside the room: what the files of a task share. */
#ifndef TASK_PRIVATE_H
#define TASK_PRIVATE_H

#include "closer.h"
#include "history.h"
#include "later.h"
#include "task_hub.h"

enum {
    TASK_HEADS_MAX = 8,  /* outputs asked for at once */
    TASK_LOOK_MS = 5000, /* silence on a healthy socket before history is asked */
    TASK_LOOK_MAX_MS = 30000,
    TASK_DEAF_LOOK_MS = 250, /* the same when no news can come: the socket was replaced */
    TASK_DEAF_LOOK_MAX_MS = 2000,
    TASK_LOOK_TRIES_MAX = 10, /* in a row, of no use: odd answers, no socket to submit under */
    TASK_ANSWER_MS = 60000,   /* the HTTP client's bound for an answer to begin */
    TASK_RETRY_MS = 100,
    TASK_RETRY_MAX_MS = 5000,
    TASK_SUBMITS_MAX = 2,
    TASK_RERUNS_MAX = 2, /* of what was cached: the first may begin before the cache is forgotten */
    TASK_INPUTS_TRIES_MAX = 6, /* more than three seconds altogether */
    TASK_CANCEL_MS = 30000,    /* then the task ends without it: left.c */
    TASK_INTERRUPT_AGAIN_MS = 2000,
    TASK_END_STORE_MS = 30000,
    TASK_LIVE_AFTER_MS = 200,
    TASK_CLAIM_MS = 10000, /* the store answers within this, or the task goes on without it */
    TASK_CLAIM_PROMPT_MAX = 64 * 1024, /* with all that came: a larger one has its own document */
    TASK_CLAIM_REST = 2048,            /* what is in such a document beside what callers sent */
    TASK_OFFER_PROMPT_MAX = 15 * 1024 * 1024,
    TASK_OFFER_KEEP_MS = 60000, /* a NAS that has not written the inputs by then is dead */
    TASK_MIRROR_MS = 20,        /* between looks at a record that changes … */
    TASK_MIRROR_MAX_MS = 1000,  /* … and at one that does not */
    TASK_CTL_AFTER_MS = 2000,   /* a run that takes so long may be cancelled from elsewhere */
    TASK_CTL_MS = 1000,
    TASK_PROMPT_ID_MAX = 64,
    TASK_INSTANCE_MAX = 127,
};

enum task_state {
    STATE_CLAIMING, /* asking the store whether this attempt is ours: task_claim.c */
    STATE_MIRROR,   /* somebody else runs it, we follow the record: task_mirror.c */
    STATE_RETREAT,  /* another attempt follows when the present one's request has ended */
    STATE_WAITING,
    STATE_INPUTS, /* files among its inputs are fetched and uploaded: task_inputs.c */
    STATE_SUBMITTING,
    STATE_RUNNING,
    STATE_LOOKING,
    STATE_CANCELLING,
    STATE_COLLECTING,
    STATE_STORING,
    STATE_ENDED,
};

enum task_place { PLACE_NONE, PLACE_CLAIMING, PLACE_WAITING, PLACE_ACTIVE, PLACE_STORING };

enum look_step { LOOK_HISTORY, LOOK_QUEUE, LOOK_HISTORY_AGAIN, LOOK_PAUSE };
enum mirror_step { MIRROR_LOOK, MIRROR_FENCE, MIRROR_END, MIRROR_PROMPT, MIRROR_PAUSE };
enum cancel_step { CANCEL_DELETE, CANCEL_LOOK, CANCEL_INTERRUPT, CANCEL_HISTORY, CANCEL_PAUSE };

/* What the store is asked for. */
enum task_op_use {
    TASK_OP_LOOK,  /* claim or mirror */
    TASK_OP_LEASE, /* lease or call */
    TASK_OP_END,
    TASK_OP_USES,
};

/* Does RUN_URL know that it shall run an offered task? */
enum task_calling {
    CALLING_NOT,   /* not asked by us */
    CALLING_LOOK,  /* asking the store whether it was asked */
    CALLING_ASKS,  /* the owner of `caller` is at it */
    CALLING_NOTES, /* it took the call, which is being noted */
    CALLING_ASKED, /* it took the call */
};

struct task_head { /* one output that is being asked for */
    struct comfy_request req;
    struct task *task;
    unsigned output;
    bool looked; /* by GET of its beginning: somebody looks on, and it is one of TASK_KEPT_MAX */
};

struct task {
    struct task_hub *hub;
    struct list_node link;   /* in the hub's waiting, active or storing list */
    struct list_node bucket; /* in the hub's index */
    unsigned refs;
    struct closer closer;
    uv_timer_t timer;
    struct list_node watches;
    struct later_item notice;
    bool change_told; /* is on_change due? */

    char *id, *record_key; /* of its documents: `<id>` and `<id>~task` */
    bool given;
    bool redelivered; /* asked for again by the platform, not by a person */
    bool must_store;
    uint64_t deadline_ms; /* of the callers who know one: task_extend() */
    bool adopted;         /* found in the store without an owner: goes on though nobody watches */
    bool follows;         /* a view for who only looks on: takes nothing over */
    char *request_id;     /* "": none */
    char *instance;       /* who runs it */
    unsigned attempt;
    enum task_place place;
    uint64_t rev;
    uint64_t created_ms, started_ms, finished_ms, updated_ms;         /* wall clock */
    uint64_t queued_at, open_at, submitted_at, over_at, collected_at; /* monotonic; 0: not yet */
    struct prompt prompt;
    struct buf metadata;
    struct progress progress;
    enum task_status status, status_before; /* before it ended */
    enum task_state state;
    struct failure *failure;
    struct blob *nodes_blob, *record_blob;
    struct blob *before; /* the record as it was told last, while the end is being stored */
    uint64_t nodes_rev, record_rev;

    char prompt_id[TASK_PROMPT_ID_MAX + 1];
    bool guessed;  /* prompt_id was taken from an event before the answer told it */
    bool id_known; /* ours, or told by the answer; else only guessed from an event */
    unsigned link_no;
    unsigned submits;

    /* facts */
    bool over;        /* executing null was seen */
    bool saw_success; /* execution_success was seen */
    bool missed;      /* a message may have been lost: it is looked for sooner than else */
    bool gap; /* one was too large to be kept: no reason to look, but what was told is not all */
    bool timer_fired, answered;
    bool post_lost;        /* POST /prompt ended without any answer */
    struct failure *doubt; /* what to say if the prompt cannot be found after an odd answer */
    struct failure *told;  /* what the socket said went wrong; history decides */
    struct failure *wish;  /* why the prompt shall not go on */
    struct failure *fate;  /* why it cannot go on: ComfyUI died, we stop */

    struct inputs_job *inputs_job;
    uint64_t inputs_at; /* monotonic; 0: it had none */
    unsigned inputs_tries;
    bool has_fetched;
    bool requeue; /* nothing of it had reached ComfyUI: the attempt begins again */

    struct comfy_request *req; /* NULL: nothing is asked, and no answer is of use; task_ask() */
    enum look_step look;
    enum cancel_step cancel;
    unsigned look_tries;
    uint64_t news_at, look_ms, cancel_at, interrupt_at;

    struct task_output *outputs;
    unsigned output_count, output_next;
    struct task_head *heads;
    unsigned head_count, heads_busy;
    struct blob *kept[TASK_KEPT_MAX]; /* what the first outputs hold, until the end was told; NULL:
                                         not known */
    unsigned collect_tries;
    bool collect_again;
    bool collect_cached; /* what is missing was made by an earlier run: it can be made again */
    struct failure *collect_failure;

    /* claim, lease, mirror */
    struct err *refused;    /* NULL: it was not */
    bool fence;             /* the claim to come ends the attempt before, which was ours */
    bool lost;              /* the end of our attempt was refused */
    bool left_over;         /* nothing is written of it any more: somebody else will find it */
    bool live_due;          /* changed, but too young to be written again */
    bool free_first;        /* ComfyUI is to free its memory and cache before the next attempt */
    bool freed;             /* it will, behind the prompt that it takes first at the latest */
    unsigned reruns;        /* attempts because of a missing file */
    unsigned first_attempt; /* of the call that made it: what MAX_ATTEMPTS counts from */
    unsigned wished_from;   /* others' wishes of this attempt or a later one concern it */
    bool claimed;           /* the claim of this attempt is in the store, and ours */
    uint64_t verified_at;   /* the last moment at which the attempt was known to be ours */
    uint64_t thawed_at;     /* what was known before this says nothing; 0: it never was frozen */
    uint64_t suspect_until; /* it was frozen: somebody may be taking it over just now … */
    uint64_t asked_at;      /* … so it is asked again and again whether that has happened */
    uint64_t beat_at;       /* when the record was last touched for the sake of the lease */
    bool ctl_made;
    uint64_t ctl_at;
    unsigned ops[TASK_OP_USES]; /* operations under way */
    struct blob *source;        /* the stored record that a mirrored task is a view of */
    struct blob *end_text;      /* an end that was read, while the record is asked for */
    uint64_t seen_at, seen_rev, poll_ms;
    unsigned seen_attempt;
    enum mirror_step mirror;

    /* the front door: task_offer.c */
    bool offered;    /* so says the record: this attempt is for whoever takes it first */
    bool taken;      /* somebody has; the record does not say so yet */
    bool takes;      /* the claim under way is for an offered attempt */
    unsigned called; /* a front door asks, or asked, for this attempt; 0: who asks has the prompt */
    enum task_calling calling;

    struct store_live live_record, live_nodes;
    bool live;
    unsigned live_ends;
    bool stored, store_failed;
    bool end_created; /* <id>~end.<n> is ours and there; the copies may still be missing */
};

/* Sent, and nobody has told under which id. */
static inline bool task_awaits_id(const struct task *t)
{
    return !t->id_known && (t->state == STATE_SUBMITTING || t->state == STATE_LOOKING);
}

/* task.c */
void task_set_text(char **text, struct slice to); /* a text of the task's, which has its memory */
struct task *task_new(struct task_hub *h, struct task_spec *spec);
void task_step(struct task *t);
bool task_is_deaf(const struct task *t); /* no socket that its news would come to */
void task_changed(struct task *t);
void task_take_prompt(struct task *t, struct prompt *take_prompt); /* and forgets its own */
/* Its progress is none yet, of the prompt's nodes, whose ids lie in the prompt's text. */
void task_show_prompt(struct task *t);
void task_set_status(struct task *t, enum task_status status);
/* No sign of life of its prompt within STALL_TIMEOUT, where one could have come. */
bool task_is_stalled(const struct task *t);
void task_condemn(struct task *t, const char *why); /* its ComfyUI, if it is ours to kill */
void task_finish_stalled(struct task *t);           /* and condemns */
/* A moment that has been, after a gap: it was inside the gap if it came late in it, and never lies
 * in the future, from where every age would be immense. */
static inline uint64_t moment_put_off(uint64_t at, uint64_t gap_ms)
{
    uint64_t now = clock_mono_ms();
    return at + gap_ms < now ? at + gap_ms : now;
}
void task_put_off(struct task *t, uint64_t gap_ms); /* the process did not run for so long */
/* How long that was to others is not known: the clock may have stood still as well. The lease holds
 * again when it has been looked after. */
void task_doubt_lease(struct task *t);
void task_set_timer(struct task *t, uint64_t ms); /* or when its time is up, if that is earlier */
void task_wake_in(struct task *t, uint64_t ms);
/* Everything is over but the storing. Takes the failure (NULL: succeeded). */
void task_finish(struct task *t, enum task_status status, struct failure *take_failure);
void task_on_event(struct task *t, const struct event *e);
void task_take_fate(struct task *t, struct failure *take_fate);
void task_start(struct task *t); /* leaves the queue */

/* task_inputs.c */
void task_prepare(struct task *t); /* its inputs first, then task_submit() */
void task_inputs_step(struct task *t);

/* task_submit.c */
void task_submit(struct task *t);
void task_submit_step(struct task *t);
void task_was_taken(struct task *t); /* ComfyUI has it, whatever was feared */

/* task_look.c */
void task_look_start(struct task *t);
void task_look_step(struct task *t);
void task_cancel_start(struct task *t);
void task_cancel_step(struct task *t);
/* It ends without having seen the end of its prompt, which goes on in ComfyUI for nobody. */
void task_leave_prompt(struct task *t, bool absent); /* left_add() */
void task_leave_if_there(struct task *t);            /* from the POST until its end is known */
void task_settle(struct task *t, const struct history *h);
/* What the socket told decides, if it told the end without a gap. */
bool task_settle_by_news(struct task *t);
/* The same as soon as the end is told, if it is a success of which the history knows no more. */
bool task_settle_undoubted(struct task *t);
struct failure *task_node_failure(struct task *t, struct slice data);
uint64_t task_retry_ms(unsigned tries);
/* What the next question goes out with; when it was answered, `answered` is set and task_step()
 * called, with the answer in t->req. */
struct comfy_request *task_ask(struct task *t);
void task_forget_answer(struct task *t); /* gives its memory back */

/* task_collect.c */
void task_collect_start(struct task *t);
void task_forget_kept(struct task *t);
void task_collect_step(struct task *t);

/* task_store.c */
void task_store_begin(struct task *t); /* its record is in the store or on its way */
void task_store_first(struct task *t); /* puts it on its way, for a task that needs no claim */
void task_beat(struct task *t);        /* a new revision for the lease's sake */
void task_store_live(struct task *t, uint64_t now); /* something changed: soon, or at once */
void task_store_end(struct task *t);
/* No live writes from now on. False: one is under way, task_step() follows. */
bool task_store_pause(struct task *t);
/* It shows an end that is in the store as <id>~end.<n> while its copies may be missing. */
void task_store_copies(struct task *t);
void task_store_again(struct task *t);

/* task_op.c: an operation lives until `done` has returned, and so do the values that its GETs have
 * found. Its deadline is TASK_CLAIM_MS, if nothing else is said. */
typedef void (*task_op_cb)(struct task *t, struct store_op *op);
struct store_op *task_op_new(struct task *t, enum task_op_use use, task_op_cb done);
/* <id>~what.attempt; without attempt (0): <id>~what; without both: <id>. Its order is 0. */
struct store_doc *task_op_add(struct store_op *op, enum store_verb verb, const char *what,
                              unsigned attempt);
struct store_doc *task_op_add_text(struct store_op *op, enum store_verb verb, const char *what,
                                   unsigned attempt, struct buf *take_text);
/* `make` gives a new reference, and is called when the operation begins, if it does. */
void task_op_add_made(struct store_op *op, enum store_verb verb, const char *what, unsigned attempt,
                      struct blob *(*make)(struct task *t));
void task_op_add_prompt(struct store_op *op, const struct task *t, struct blob *take_prompt);
void task_op_run(struct store_op *op);
/* The order of what the task writes of itself. */
static inline uint64_t task_order(const struct task *t)
{
    return (uint64_t)t->attempt << 32 | (t->rev & UINT32_MAX);
}

/* record.c */
void record_render(const struct task *t, struct buf *out);

/* record_read.c: what a stored record says, for those who did not run the task. */
struct record {
    enum task_status status;
    unsigned attempt;
    uint64_t rev;
    bool given;
    bool offered; /* by a front door; nobody has taken the attempt yet */
    uint64_t created_ms, started_ms, finished_ms, updated_ms;
    struct slice id;
    struct slice prompt_sha256, request_id, instance,
        prompt_id;                                       /* inside their quotes; plain characters */
    struct slice error, nodes, outputs, seeds, metadata; /* JSON values; empty: missing */
};
/* ERR_CORRUPT: not a record of ours. Slices point into text. */
enum err_code record_parse(struct record *ret, struct slice text, struct err *err) MUST_CHECK;
/* The task becomes what the record says: status, error, node map, outputs. Its progress is a view
 * of *text, of which it takes a reference. */
void task_show_record(struct task *t, const struct record *r, struct blob *text);

/* task_again.c */
/* Another attempt, if one is left: what ComfyUI had of this one is gone or of no use. False: it is
 * not, and *why is still the caller's. */
bool task_try_again(struct task *t, const struct failure *why);
void task_retreat_step(struct task *t);
void task_begin_again(struct task *t);                     /* as if it had never been submitted */
void task_supersede(struct task *t);                       /* somebody else owns it now */
void task_leave_to_others(struct task *t);                 /* we stop, and it does not end */
void task_wish(struct task *t, struct failure *take_wish); /* the first one counts */
void task_finish_unwanted(struct task *t);                 /* as its wish or fate has it */

/* task_claim.c */
void task_claim_marker(const struct task *t, struct buf *out);
void task_shown_end(struct task *t);
void task_claim_start(struct task *t); /* of t->attempt, whose prompt is t->prompt */
/* Takes the offered attempt t->attempt: to run it, or at a front door to end it. */
void task_take(struct task *t);
void task_claim_look(struct task *t); /* the claim is taken: by whom, and how far is it? */
struct record;
void task_claim_judge(struct task *t, const struct record *r, struct blob *text);
void task_refuse(struct task *t, enum err_code code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* {"prompt":…, …}: everything that another process needs to go on with it. */
void task_claim_document(const struct task *t, bool with_prompt, struct buf *out);
/* It as a document of its own; NULL: larger than a store keeps, or than there is memory for. */
struct blob *task_claim_prompt(const struct task *t);
/* Both as one document, made when it is written: for a prompt that is not large. */
struct blob *task_make_small_prompt(struct task *t);
bool task_prompt_is_large(const struct task *t);
/* Back from such a document: the prompt of t with the same digest and seeds. */
enum err_code task_claim_read_prompt(struct task *t, struct slice document,
                                     struct err *err) MUST_CHECK;

/* task_mirror.c */
void task_mirror_start(struct task *t, unsigned attempt);
void task_mirror_start_later(struct task *t, unsigned attempt);
void task_mirror_follow(struct task *t, unsigned attempt);
void task_mirror_step(struct task *t);  /* its timer has fired */
void task_mirror_hurry(struct task *t); /* somebody waits for it now */
void task_mirror_take(struct task *t);  /* leaves the record to take what it offers */
/* The end of our attempt was refused: somebody else ended it, or took it over. */
void task_mirror_after_loss(struct task *t);

/* task_offer.c */
/* A call of a front door: whose prompt lies in the store. */
void task_call_start(struct task *t);
/* The prompt of a front door's own task: what of it is large goes to INPUT_DIR, then it is claimed.
 */
void task_offer_start(struct task *t);
void task_offer_claiming(struct task *t); /* its timer has fired, or its fate is known */
/* A claim was won where nothing runs: of a new attempt, or of one that is withdrawn. */
void task_offer_claimed(struct task *t);
bool task_is_at_door(const struct task *t);
bool task_offers(const struct task *t); /* the record says "offered" */
/* The record was looked at and does not tell the end. True: the mirror was left. */
bool task_offer_step(struct task *t, bool is_still);

/* task_lease.c */
/* The wishes in <id>~ctl, {"cancel": {"attempt": n, …}}: which attempt is not wanted any more. */
bool task_wishes_read(struct slice text, int64_t *ret_attempt);
void task_obey(struct task *t, struct slice text);
void task_lease_tick(struct task *t, uint64_t now);
bool task_lease_holds(const struct task *t, uint64_t now);
uint64_t task_lease_end(const struct task *t); /* for store operations' not_after_ms */

/* task_hub.c */
void task_hub_remove(struct task_hub *h, struct task *t); /* from lists and index; drops its ref */
void task_hub_enqueue(struct task_hub *h, struct task *t);
void task_hub_enqueue_first(struct task_hub *h, struct task *t);
bool task_hub_is_draining(const struct task_hub *h);
/* A prompt is still in ComfyUI, and of no use to anybody. */
void task_hub_left(struct task_hub *h, const char *prompt_id, bool absent); /* left_add() */
/* A prompt whose id we do not know may still be in ComfyUI, under the present client id. */
void task_hub_left_unknown(struct task_hub *h);
void task_hub_count_mirror(struct task_hub *h, int by);
void task_hub_place(struct task_hub *h, struct task *t, enum task_place place);
void task_hub_stored(struct task_hub *h, struct task *t);
void task_hub_pump(struct task_hub *h);
const struct task_hub_options *task_hub_options(const struct task_hub *h);
struct later *task_hub_later(struct task_hub *h);
uv_loop_t *task_hub_loop(struct task_hub *h);
struct closer *task_hub_closer(struct task_hub *h); /* one hold a task */
struct silent_classes *task_hub_silent(struct task_hub *h);
/* An empty buf for a text that becomes a blob; nobody else may ask for it in between. */
struct buf *task_hub_draft(struct task_hub *h);
struct blob *task_hub_draft_blob(struct task_hub *h);
void task_hub_count(struct task_hub *h, const struct task *t); /* it has ended */

#endif
