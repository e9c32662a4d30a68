/* An operation of the store for a task. A task that waits or runs has none most of the time, so
 * they are made when they are needed. */
#include "task_private.h"

#include <stdio.h>
#include <stdlib.h>

struct task_op {
    struct store_op op;
    struct task *task;
    enum task_op_use use;
    task_op_cb done;
    struct blob *(*make[STORE_DOCS_MAX])(struct task *t); /* values that are made when it begins */
};

static struct task_op *of(struct store_op *op)
{
    return CONTAINER_OF(op, struct task_op, op);
}

static void op_on_done(struct store_op *op)
{
    struct task_op *o = of(op);
    struct task *t = o->task;
    t->ops[o->use]--;
    o->done(t, op);
    for (unsigned i = 0; i < op->n; i++)
        if (op->doc[i].verb == STORE_GET && op->doc[i].result == ERR_OK)
            blob_unref(op->doc[i].value);
    free(o);
    closer_release(&t->closer);
}

struct store_op *task_op_new(struct task *t, enum task_op_use use, task_op_cb done)
{
    struct task_op *o = xcalloc(1, sizeof(*o));
    o->op.deadline_ms = TASK_CLAIM_MS;
    o->op.done = op_on_done;
    o->task = t;
    o->use = use;
    o->done = done;
    return &o->op;
}

struct store_doc *task_op_add(struct store_op *op, enum store_verb verb, const char *what,
                              unsigned attempt)
{
    struct store_doc *doc = &op->doc[op->n++];
    const char *id = of(op)->task->id;
    doc->verb = verb;
    if (attempt > 0)
        (void)snprintf(doc->key, sizeof(doc->key), "%s~%s.%u", id, what, attempt);
    else if (what != NULL)
        (void)snprintf(doc->key, sizeof(doc->key), "%s~%s", id, what);
    else
        (void)snprintf(doc->key, sizeof(doc->key), "%s", id);
    return doc;
}

static void op_on_prepare(struct store_op *op)
{
    struct task_op *o = of(op);
    for (unsigned i = 0; i < op->n; i++) {
        if (o->make[i] != NULL)
            op->doc[i].value = o->make[i](o->task);
    }
}

void task_op_add_made(struct store_op *op, enum store_verb verb, const char *what, unsigned attempt,
                      struct blob *(*make)(struct task *t))
{
    of(op)->make[op->n] = make;
    op->prepare = op_on_prepare;
    task_op_add(op, verb, what, attempt)->order = task_order(of(op)->task);
}

struct store_doc *task_op_add_text(struct store_op *op, enum store_verb verb, const char *what,
                                   unsigned attempt, struct buf *take_text)
{
    struct store_doc *doc = task_op_add(op, verb, what, attempt);
    doc->value = blob_new(buf_slice(take_text));
    buf_done(take_text);
    return doc;
}

void task_op_add_prompt(struct store_op *op, const struct task *t, struct blob *take_prompt)
{
    struct store_doc *doc = task_op_add(op, STORE_PUT, "prompt", 0);
    doc->value = take_prompt;
    doc->order = task_order(t);
}

void task_op_run(struct store_op *op)
{
    struct task *t = of(op)->task;
    t->ops[of(op)->use]++;
    closer_hold(&t->closer);
    store_run(task_hub_options(t->hub)->store, op);
}
