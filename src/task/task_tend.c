#include "task_tend.h"

#include "closer.h"
#include "log.h"
#include "task_files.h"
#include "task_private.h"
#include "workers.h"

#include <stdio.h>
#include <stdlib.h>

enum { TEND_LIST_MS = 60000 };

/* A list may take long, and the end does not wait for it: what the store works with is apart. */
struct tend_list {
    struct store_op op;
    struct store_page page;
    bool asked;
    struct task_tend *tend; /* NULL: has ended meanwhile */
};

/* What a thread works with, which may be stuck in the system when everything ends. */
struct tend_job {
    struct work work;
    struct task_files files;
    struct task_tend *tend;
};

struct task_tend {
    struct task_tend_options options;
    struct closer closer;
    uv_timer_t timer;
    struct workers *workers; /* files may lie on a NAS that hangs */
    struct store_op op;
    struct tend_list *list;
    unsigned at;                       /* next key of the page */
    unsigned seen, under_way, removed; /* in this round */
    struct blob *old[STORE_DOCS_MAX];  /* records of tasks that are to be removed */
    unsigned old_count;
    char id[TASK_ID_MAX + 1]; /* of the one that is being removed … */
    unsigned attempts;        /* … with so many attempts … */
    unsigned next_doc;        /* … of whose documents this is the next */
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
    r->list->page.cursor[0] = '\0';
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
    static const char *const each[] = {"run", "call", "take", "end"};
    static const char *const rest[] = {"~prompt", "~ctl", "", "~task"};
    unsigned kinds = ARRAY_LEN(each);
    if (n < r->attempts * kinds)
        (void)snprintf(key, STORE_KEY_MAX + 1, "%s~%s.%u", r->id, each[n % kinds], n / kinds + 1);
    else if (n - r->attempts * kinds < ARRAY_LEN(rest))
        (void)snprintf(key, STORE_KEY_MAX + 1, "%s%s", r->id, rest[n - r->attempts * kinds]);
    else
        return false;
    return true;
}

static void tend_on_files_work(struct work *work)
{
    task_files_remove(&CONTAINER_OF(work, struct tend_job, work)->files);
}

static void tend_on_files_removed(struct work *work)
{
    struct tend_job *job = CONTAINER_OF(work, struct tend_job, work);
    struct task_tend *r = job->tend;
    task_files_done(&job->files);
    free(job);
    tend_remove_old(r);
}

static void tend_remove_files(struct task_tend *r, struct slice outputs)
{
    struct tend_job *job = xcalloc(1, sizeof(*job));
    job->work.run = tend_on_files_work;
    job->work.done = tend_on_files_removed;
    job->tend = r;
    task_files_init(&job->files, r->options.output_dir, r->id, outputs);
    workers_add(r->workers, &job->work);
}

/* The next task of those found: its files first. */
static void tend_begin_removal(struct task_tend *r)
{
    struct record record;
    struct blob *text = r->old[--r->old_count];
    ASSERT(record_parse(&record, blob_slice(text), NULL) == ERR_OK);
    slice_copy(record.id, r->id, sizeof(r->id));
    r->attempts = record.attempt;
    r->next_doc = 0;
    if (task_hub_find(r->options.hub, slice_of(r->id)) != NULL) { /* asked for again just now */
        r->next_doc = UINT32_MAX;
        tend_remove_old(r);
    } else {
        r->removed++;
        tend_remove_files(r, record.outputs);
    }
    blob_unref(text);
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
        slice_copy(record.id, id, sizeof(id));
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
    const struct store_page *page = &r->list->page;
    for (; r->op.n < STORE_DOCS_MAX && r->at < page->count; r->at++) {
        struct store_doc *doc = &r->op.doc[r->op.n];
        r->seen++;
        if (task_hub_find(r->options.hub, id_of(page->keys[r->at])) != NULL)
            continue;
        doc->verb = STORE_GET;
        (void)snprintf(doc->key, sizeof(doc->key), "%s", page->keys[r->at]);
        r->op.n++;
    }
    if (r->op.n > 0) {
        tend_run(r, tend_on_read);
    } else if (page->next[0] != '\0') {
        memcpy(r->list->page.cursor, page->next, sizeof(page->cursor));
        tend_list(r);
    } else {
        tend_pause(r);
    }
}

static void tend_on_list(struct store_op *op)
{
    struct tend_list *list = op->ctx;
    struct task_tend *r = list->tend;
    if (r == NULL) {
        free(list);
        return;
    }
    list->asked = false;
    r->at = 0;
    if (op->err.code != ERR_OK) {
        log_warn("task", "stored tasks cannot be listed: %s", op->err.msg);
        list->page.count = 0;
        list->page.next[0] = '\0';
    }
    tend_read(r);
}

static void tend_list(struct task_tend *r)
{
    struct tend_list *list = r->list;
    list->asked = true;
    list->page.limit = STORE_PAGE_MAX;
    list->op = (struct store_op){
        .page = &list->page, .deadline_ms = TEND_LIST_MS, .done = tend_on_list, .ctx = list};
    store_run(r->options.store, &list->op);
}

/* --- life ------------------------------------------------------------------------------------ */

struct task_tend *task_tend_start(uv_loop_t *loop, const struct task_tend_options *options)
{
    struct task_tend *r = xcalloc(1, sizeof(*r));
    r->options = *options;
    r->list = xcalloc(1, sizeof(*r->list));
    r->list->tend = r;
    r->workers = workers_new(loop, 1);
    closer_init(&r->closer, loop);
    ASSERT(uv_timer_init(loop, &r->timer) == 0);
    r->timer.data = r;
    closer_hold(&r->closer);
    closer_hold(&r->closer); /* the workers */
    tend_list(r);
    return r;
}

static void tend_on_timer_closed(uv_handle_t *handle)
{
    struct task_tend *r = handle->data;
    closer_release(&r->closer);
}

static void tend_on_workers_closed(void *ctx, unsigned stuck)
{
    struct task_tend *r = ctx;
    if (stuck > 0)
        log_warn("task", "the files of task %s could not be removed in time", r->id);
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
    if (r->list->asked)
        r->list->tend = NULL;
    else
        free(r->list);
    uv_close((uv_handle_t *)&r->timer, tend_on_timer_closed);
    workers_close(r->workers, r->options.stop_ms, tend_on_workers_closed, r);
    closer_begin(&r->closer, tend_on_closed);
}
