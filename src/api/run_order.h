/* What a caller of /api/run orders, whichever way it comes: ids and wishes from the head of the
 * request, the prompt from its body or its first message. And why the order is not taken. */
#ifndef RUN_ORDER_H
#define RUN_ORDER_H

#include "api.h"
#include "run_wishes.h"

struct run_order {
    struct api *api;
    char id[TASK_ID_MAX + 1]; /* given, or a fresh one */
    char request_id[TASK_ID_MAX + 1];
    bool given;
    bool chosen;  /* by the caller's own header or query */
    bool lasting; /* its task goes on when the caller has left: he can ask for it again */
    bool redelivered;
    bool async;      /* answered 202 as soon as the task is in the store */
    bool held;       /* the platform has answered 202 already: nobody reads our answer */
    unsigned called; /* by a front door, to run this attempt; 0: it is no such call */
    bool want_results;
    struct run_wishes wishes;
    uint64_t limit_at, margin_ms; /* clock_mono_ms() at which it has to end; 0: never */
    bool expired;
};

/* Why not: an HTTP status, and what the envelope says. */
struct refusal {
    int status;
    const char *message;
    struct buf error; /* JSON object */
};

void refusal_init(struct refusal *r);
void refusal_done(struct refusal *r);
void refusal_set(struct refusal *r, int status, const char *code, const char *detail);
/* Of what task_hub_create() or task_refused() says. */
void refusal_set_err(struct refusal *r, const struct err *err);
/* Of a body or a prompt that finds no room. */
void refusal_set_full(struct refusal *r, const struct err *err);
/* Of a result that ended before it began. */
void refusal_set_result(struct refusal *r, const struct err *err);

/* The id that a request to run something gives in its head, for who refuses it unread; "": none. */
void run_order_id_of(struct http_req *req, char ret[TASK_ID_MAX + 1]);
/* False: refused. */
bool run_order_read(struct run_order *o, struct api *api, struct http_req *req,
                    struct refusal *ret_why);
/* Takes the body, which is a prompt, an envelope or a front door's call, whatever the result. NULL:
 * refused. Else a reference; *ret_joined: the task was here already. */
struct task *run_order_place(struct run_order *o, struct buf *take_body, bool *ret_joined,
                             struct refusal *ret_why);
/* It is no order. Where nobody reads the answer, whoever asks for the task later must learn why
 * there is none: a reference to a task that is claimed and recorded like any other and ends with
 * *why. `body` is what came of it, if it came. NULL: refused, as *why has it. */
struct task *run_order_refuse(struct run_order *o, struct slice body, struct refusal *why);

/* How long from now until run_order_expire() is due; 0: never. */
uint64_t run_order_left_ms(const struct run_order *o);
/* How long this caller can wait for ComfyUI; UINT64_MAX: as long as anybody. */
uint64_t run_order_patience_ms(const struct run_order *o);
/* This caller's time is nearly over. False: so is the task's, which ends now: first ComfyUI is
 * asked to stop; again after half the margin, it ends whatever ComfyUI does. True: another caller
 * has more time, or another instance runs it: it goes on, and this caller is told *ret_why. */
bool run_order_expire(struct run_order *o, struct task *t, struct refusal *ret_why);

/* The caller has left and watches no more. A task that he cannot ask for has nobody else to live
 * for: it is cancelled. */
void run_order_leave(const struct run_order *o, struct task *t);

#endif
