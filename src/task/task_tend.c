#include "task_tend.h"

#include "closer.h"
#include "log.h"
#include "task_files.h"
#include "task_private.h"

#include <stdio.h>
#include <stdlib.h>

struct task_tend {
    struct task_tend_options options;
    uv_loop_t *loop;
    struct closer closer;
    uv_timer_t timer;
    struct store_op op;
    struct store_page page;
    unsigned at;                       /* next key of the page */
    unsigned seen, under_way, removed; /* in this round */
    struct blob *old[STORE_DOCS_MAX];  /* records of tasks that are to be removed */
    unsigned old_count;
    char id[TASK_ID_MAX + 1]; /* of the one that is being removed … */
    unsigned attempts;        /* … with so many attempts … */
    unsigned next_doc;        /* … of whose documents this is the next */
    uv_work_t work;
    struct task_files files;
    bool closing;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static void tend_list(struct task_tend *r);
static void tend_read(struct task_tend *r);
static void tend_remove_old(struct task_tend *r);

static void tend_run(struct task_tend *r, void (*done)(struct store_op *op))
{
    r->op.done = done;
    r->op.ctx = r;
    closer_hold(&r->closer);
    store_run(r->options.store, &r->op);
}

static void tend_on_timer(uv_timer_t *timer)
{
    struct task_tend *r = timer->data;
    r->seen = r->under_way = r->removed = 0;
    r->page.cursor[0] = '\0';
    tend_list(r);
}

static void tend_pause(struct task_tend *r)
{
    if (r->under_way > 0)
        log_info("task", "%u of %u stored tasks are under way: following them", r->under_way,
                 r->seen);
    if (r->removed > 0)
        log_info("task", "%u tasks were kept long enough and are removed", r->removed);
    ASSERT(uv_timer_start(&r->timer, tend_on_timer, TEND_EVERY_MS, 0) == 0);
}

/* The id of a key that ends in "~task". */
static struct slice id_of(const char *key)
{
    return (struct slice){key, strcspn(key, "~")};
}

/* --- removing -------------------------------------------------------------------------------- */

static void tend_on_removed(struct store_op *op)
{
    struct task_tend *r = op->ctx;
    if (op->err.code != ERR_OK) {
        log_warn("task", "task %s cannot be removed: %s", r->id, op->err.msg);
        r->next_doc = UINT32_MAX;
    }
    tend_remove_old(r);
    closer_release(&r->closer);
}

/* The n-th document of the task: its claims and ends, then what there is one of, the record last.
 */
static bool tend_key(const struct task_tend *r, unsigned n, char key[STORE_KEY_MAX + 1])
{
    static const char *const rest[] = {"~prompt", "~ctl", "", "~task"};
    if (n < r->attempts * 2)
        (void)snprintf(key, STORE_KEY_MAX + 1, "%s~%s.%u", r->id, n % 2 == 0 ? "run" : "end",
                       n / 2 + 1);
    else if (n - r->attempts * 2 < ARRAY_LEN(rest))
        (void)snprintf(key, STORE_KEY_MAX + 1, "%s%s", r->id, rest[n - r->attempts * 2]);
    else
        return false;
    return true;
}

static void tend_on_files_work(uv_work_t *work)
{
    task_files_remove(&CONTAINER_OF(work, struct task_tend, work)->files);
}

static void tend_on_files_removed(uv_work_t *work, int status)
{
    struct task_tend *r = CONTAINER_OF(work, struct task_tend, work);
    (void)status; /* it is never cancelled */
    task_files_done(&r->files);
    tend_remove_old(r);
    closer_release(&r->closer);
}

/* The next task of those found: its files first. */
static void tend_begin_removal(struct task_tend *r)
{
    struct record record;
    struct blob *text = r->old[--r->old_count];
    ASSERT(record_parse(&record, blob_slice(text), NULL) == ERR_OK);
    (void)snprintf(r->id, sizeof(r->id), "%.*s", SLICE_ARGS(record.id));
    r->attempts = record.attempt;
    r->next_doc = 0;
    r->removed++;
    task_files_init(&r->files, r->options.output_dir, r->id, record.outputs);
    blob_unref(text);
    if (task_hub_find(r->options.hub, slice_of(r->id)) != NULL) { /* asked for again just now */
        task_files_done(&r->files);
        r->removed--;
        r->next_doc = UINT32_MAX;
        tend_remove_old(r);
        return;
    }
    closer_hold(&r->closer);
    ASSERT(uv_queue_work(r->loop, &r->work, tend_on_files_work, tend_on_files_removed) == 0);
}

static void tend_remove_old(struct task_tend *r)
{
    r->op = (struct store_op){.n = 0};
    if (r->closing)
        return;
    while (r->op.n < STORE_DOCS_MAX && tend_key(r, r->next_doc, r->op.doc[r->op.n].key)) {
        r->op.doc[r->op.n++].verb = STORE_REMOVE;
        r->next_doc++;
    }
    if (r->op.n > 0) {
        tend_run(r, tend_on_removed);
    } else if (r->old_count > 0) {
        tend_begin_removal(r);
    } else {
        r->id[0] = '\0';
        tend_read(r);
    }
}

/* --- reading --------------------------------------------------------------------------------- */

static bool tend_is_old(const struct task_tend *r, const struct record *record)
{
    return r->options.keep_ms > 0 && record->finished_ms > 0 &&
           record->finished_ms + r->options.keep_ms < clock_wall_ms();
}

static void tend_judge(struct task_tend *r, const struct store_doc *doc)
{
    struct record record;
    struct err err;
    char id[TASK_ID_MAX + 1];
    if (record_parse(&record, blob_slice(doc->value), &err) != ERR_OK) {
        log_warn("task", "%s cannot be read: %s", doc->key, err.msg);
        return;
    }
    if (!slice_eq(record.id, id_of(doc->key)))
        return;
    if (!task_status_is_end(record.status)) {
        (void)snprintf(id, sizeof(id), "%.*s", SLICE_ARGS(record.id));
        r->under_way++;
        task_hub_adopt(r->options.hub, id);
    } else if (tend_is_old(r, &record)) {
        r->old[r->old_count++] = blob_ref(doc->value);
    }
}

static void tend_on_read(struct store_op *op)
{
    struct task_tend *r = op->ctx;
    r->old_count = 0;
    for (unsigned i = 0; i < op->n; i++) {
        enum err_code result = op->doc[i].result;
        if (result == ERR_CORRUPT || result == ERR_TOO_LARGE)
            log_warn("task", "%s cannot be read: %s", op->doc[i].key,
                     result == ERR_CORRUPT ? "it is no document" : "it is too large");
        if (result != ERR_OK)
            continue;
        if (!r->closing)
            tend_judge(r, &op->doc[i]);
        blob_unref(op->doc[i].value);
    }
    r->attempts = 0;
    r->next_doc = UINT32_MAX; /* nothing is being removed yet */
    tend_remove_old(r);
    closer_release(&r->closer);
}

/* The next few records of the page, or the next page. */
static void tend_read(struct task_tend *r)
{
    r->op = (struct store_op){.n = 0};
    for (; r->op.n < STORE_DOCS_MAX && r->at < r->page.count; r->at++) {
        struct store_doc *doc = &r->op.doc[r->op.n];
        r->seen++;
        if (task_hub_find(r->options.hub, id_of(r->page.keys[r->at])) != NULL)
            continue;
        doc->verb = STORE_GET;
        (void)snprintf(doc->key, sizeof(doc->key), "%s", r->page.keys[r->at]);
        r->op.n++;
    }
    if (r->op.n > 0) {
        tend_run(r, tend_on_read);
    } else if (r->page.next[0] != '\0') {
        memcpy(r->page.cursor, r->page.next, sizeof(r->page.cursor));
        tend_list(r);
    } else {
        tend_pause(r);
    }
}

static void tend_on_list(struct store_op *op)
{
    struct task_tend *r = op->ctx;
    r->at = 0;
    if (op->err.code != ERR_OK) {
        log_warn("task", "stored tasks cannot be listed: %s", op->err.msg);
        r->page.count = 0;
        r->page.next[0] = '\0';
    }
    if (!r->closing)
        tend_read(r);
    closer_release(&r->closer);
}

static void tend_list(struct task_tend *r)
{
    r->op = (struct store_op){.page = &r->page};
    r->page.limit = STORE_PAGE_MAX;
    tend_run(r, tend_on_list);
}

/* --- life ------------------------------------------------------------------------------------ */

struct task_tend *task_tend_start(uv_loop_t *loop, const struct task_tend_options *options)
{
    struct task_tend *r = xcalloc(1, sizeof(*r));
    r->options = *options;
    r->loop = loop;
    closer_init(&r->closer, loop);
    ASSERT(uv_timer_init(loop, &r->timer) == 0);
    r->timer.data = r;
    closer_hold(&r->closer);
    tend_list(r);
    return r;
}

static void tend_on_timer_closed(uv_handle_t *handle)
{
    struct task_tend *r = handle->data;
    closer_release(&r->closer);
}

static void tend_on_closed(struct closer *closer)
{
    struct task_tend *r = CONTAINER_OF(closer, struct task_tend, closer);
    void (*closed)(void *ctx) = r->closed;
    void *ctx = r->closed_ctx;
    while (r->old_count > 0)
        blob_unref(r->old[--r->old_count]);
    free(r);
    closed(ctx);
}

void task_tend_free(struct task_tend *r, void (*closed)(void *ctx), void *ctx)
{
    r->closing = true;
    r->closed = closed;
    r->closed_ctx = ctx;
    uv_close((uv_handle_t *)&r->timer, tend_on_timer_closed);
    closer_begin(&r->closer, tend_on_closed);
}
