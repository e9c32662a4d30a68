/* file:///directory[?threads=1..8]: a document is the plain file <directory>/<key>.
 *
 * An operation is one job on a thread of this store, from the first system call to the last: a
 * mount that hangs holds a thread and the few operations that it was given, never the loop; further
 * ones wait in the core until their deadlines. A thread is given more than one so that it goes on
 * without being woken for each, which costs as much as writing a small document. One thread by
 * default, because on one disk two writers only get in each other's way; a NAS has latency to hide.
 * Walks through the directory, which can be long, have a thread to themselves and hold up no
 * document; the core asks for one at a time.
 *
 * What a walk has found is kept for a while, for the pages that follow. It is the loop's, which
 * lends it to the walk that runs.
 *
 * The directory is made by the first write that finds it missing; opening the store touches
 * nothing.
 */
#include "later.h"
#include "log.h"
#include "store_file_io.h"
#include "store_file_list.h"
#include "store_file_place.h"
#include "store_order.h"
#include "store_url.h"
#include "workers.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    THREADS_DEFAULT = 1,
    THREADS_MAX = 8,
    OPS_A_THREAD = 8, /* one that it does, others that are ready for it, lest it sleep between
                         them. What is more urgent, an end, waits for these; what hangs, too */
    DIR_MAX = 2048,
};

struct file_backend {
    struct store_backend base;
    char *dir;
    struct workers *writers; /* and readers of one document */
    struct workers *walkers;
    struct file_listing *listing; /* of the last walk; lent while a list runs */
    uv_timer_t forget;            /* … it */
    struct store_orders *orders;
    bool swept;
    struct work sweep;
    unsigned swept_count;
    _Atomic bool closing; /* ends walks early */
    unsigned open_parts, stuck;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

struct file_job {
    struct work work;
    struct file_backend *b;
    struct store_op *op;   /* the backend's until done */
    struct file_list list; /* with copies: the core may put off the op's deadline meanwhile */
    bool outdated[STORE_DOCS_MAX]; /* a newer order has been written */
};

static struct file_backend *backend_of(struct store_backend *b)
{
    return CONTAINER_OF(b, struct file_backend, base);
}

/* --- on a worker thread ---------------------------------------------------------------------- */

/* A thread works for one backend only. */
static _Thread_local struct file_place place = {.fd = AT_FDCWD};

static void job_docs_work(struct work *w)
{
    struct file_job *job = CONTAINER_OF(w, struct file_job, work);
    struct store_op *op = job->op;
    bool writes = false, durable = false;
    for (unsigned i = 0; i < op->n; i++) {
        bool is_written = op->doc[i].verb != STORE_GET && !job->outdated[i];
        writes = writes || is_written;
        durable = durable || (is_written && op->doc[i].durable);
    }
    if (place.dir == NULL)
        file_place_init(&place, job->b->dir);
    file_place_open(&place, writes, durable);
    for (unsigned i = 0; i < op->n; i++) {
        struct err err = {.code = ERR_OK};
        if (job->outdated[i])
            op->doc[i].result = ERR_OK;
        else
            file_do_work(&place, &op->doc[i], op->not_after_ms, &err);
        if (!store_op_goes_on(op, i, &err))
            break;
    }
    file_place_leave(&place, op->err.code != ERR_OK);
}

static void docs_rest(void)
{
    file_place_close(&place);
}

static void job_list_work(struct work *w)
{
    struct file_job *job = CONTAINER_OF(w, struct file_job, work);
    struct err err;
    if (file_list_work(&job->list, &err) != ERR_OK)
        job->op->err = err;
}

static void sweep_work(struct work *w)
{
    struct file_backend *b = CONTAINER_OF(w, struct file_backend, sweep);
    b->swept_count = file_sweep_work(b->dir, &b->closing);
}

/* --- on the loop ----------------------------------------------------------------------------- */

static void file_on_swept(struct work *w)
{
    struct file_backend *b = CONTAINER_OF(w, struct file_backend, sweep);
    if (b->swept_count > 0)
        log_info("store", "removed %u files of writers that were killed", b->swept_count);
}

/* Only what was stored counts: were the order of a failed write remembered, an older value would be
 * called stored although nothing is. */
static void file_note_order(const struct file_job *job, const struct store_doc *doc)
{
    if (doc->result != ERR_OK || doc->verb == STORE_GET)
        return;
    if (doc->verb == STORE_REMOVE)
        store_orders_set(job->b->orders, doc->key, 0);
    else if (doc->order != 0)
        store_orders_set(job->b->orders, doc->key, doc->order);
}

static void file_on_forget(uv_timer_t *timer)
{
    struct file_backend *b = timer->data;
    file_listing_free(b->listing);
    b->listing = NULL;
}

static void file_on_list_done(struct work *w)
{
    struct file_job *job = CONTAINER_OF(w, struct file_job, work);
    struct file_backend *b = job->b;
    struct store_op *op = job->op;
    uint64_t now = clock_mono_ms();
    b->listing = job->list.kept;
    if (b->listing != NULL && !atomic_load(&b->closing)) {
        uint64_t end = file_listing_end(b->listing);
        ASSERT(uv_timer_start(&b->forget, file_on_forget, end > now ? end - now : 0, 0) == 0);
    }
    free(job);
    store_op_done(op);
}

static void file_on_docs_done(struct work *w)
{
    struct file_job *job = CONTAINER_OF(w, struct file_job, work);
    struct store_op *op = job->op;
    for (unsigned i = 0; i < op->n; i++)
        if (!job->outdated[i])
            file_note_order(job, &op->doc[i]);
    free(job);
    store_op_done(op);
}

static bool file_is_outdated(const struct file_backend *b, const struct store_doc *doc)
{
    return doc->verb == STORE_PUT && doc->order != 0 &&
           doc->order < store_orders_get(b->orders, doc->key);
}

static void file_run_list(struct file_backend *b, struct file_job *job)
{
    struct store_op *op = job->op;
    job->list = (struct file_list){.dir = b->dir,
                                   .page = op->page,
                                   .asked_ms = op->started_ms,
                                   .give_up_ms = op->started_ms + op->deadline_ms,
                                   .stop = &b->closing,
                                   .entries_max = FILE_LISTING_ENTRIES_MAX,
                                   .keep_ms = FILE_LISTING_KEEP_MS,
                                   .kept = b->listing};
    b->listing = NULL;
    job->work.run = job_list_work;
    job->work.done = file_on_list_done;
    workers_add(b->walkers, &job->work);
}

static void file_run_docs(struct file_backend *b, struct file_job *job)
{
    struct store_op *op = job->op;
    for (unsigned i = 0; i < op->n; i++)
        job->outdated[i] = file_is_outdated(b, &op->doc[i]);
    job->work.run = job_docs_work;
    job->work.done = file_on_docs_done;
    workers_add(b->writers, &job->work);
}

static void file_run(struct store_backend *backend, struct store_op *op)
{
    struct file_backend *b = backend_of(backend);
    struct file_job *job = xcalloc(1, sizeof(*job));
    job->b = b;
    job->op = op;
    if (!b->swept) {
        b->swept = true;
        workers_add(b->walkers, &b->sweep);
    }
    if (op->page != NULL)
        file_run_list(b, job);
    else
        file_run_docs(b, job);
}

static enum err_code file_check_url(const struct store_url *url, struct err *err)
{
    if (url->user != NULL || url->password != NULL || url->port != 0 ||
        (url->host != NULL && strcmp(url->host, "localhost") != 0))
        return err_set(err, ERR_INVALID, "store URL: a file has no host; write file:///directory");
    if (url->path == NULL || url->path[0] != '/')
        return err_set(err, ERR_INVALID, "store URL: the directory must be absolute");
    if (strlen(url->path) > DIR_MAX)
        return err_set(err, ERR_INVALID, "store URL: a directory name over %d bytes", DIR_MAX);
    if (url->path[strspn(url->path, "/")] == '\0')
        return err_set(err, ERR_INVALID, "store URL: the root directory is no place for tasks");
    return ERR_OK;
}

static enum err_code file_open(struct store_backend **ret, uv_loop_t *loop, struct later *later,
                               struct store_url *url, struct err *err)
{
    unsigned threads = THREADS_DEFAULT;
    (void)later;
    if (file_check_url(url, err) != ERR_OK ||
        store_url_param_uint(url, "threads", 1, THREADS_MAX, &threads, err) != ERR_OK)
        return ERR_INVALID;
    struct file_backend *b = xcalloc(1, sizeof(*b));
    b->base.parallel = threads * OPS_A_THREAD;
    b->dir = xstrdup(url->path);
    for (size_t len = strlen(b->dir); b->dir[len - 1] == '/'; len--)
        b->dir[len - 1] = '\0';
    b->orders = store_orders_new();
    b->writers = workers_new(loop, threads);
    workers_on_rest(b->writers, docs_rest);
    b->walkers = workers_new(loop, 1);
    ASSERT(uv_timer_init(loop, &b->forget) == 0);
    b->forget.data = b;
    b->open_parts = 3; /* the timer and the workers */
    b->sweep = (struct work){.run = sweep_work, .done = file_on_swept};
    atomic_init(&b->closing, false);
    *ret = &b->base;
    return ERR_OK;
}

static void file_on_part_closed(struct file_backend *b)
{
    if (--b->open_parts > 0)
        return;
    void (*closed)(void *ctx) = b->closed;
    void *closed_ctx = b->closed_ctx;
    store_orders_free(b->orders);
    b->orders = NULL;
    file_listing_free(b->listing);
    b->listing = NULL;
    if (b->stuck == 0) { /* else a thread that is stuck in the system still looks at it */
        free(b->dir);
        free(b);
    }
    closed(closed_ctx);
}

static void file_on_workers_closed(void *ctx, unsigned stuck)
{
    struct file_backend *b = ctx;
    b->stuck += stuck;
    file_on_part_closed(b);
}

static void file_on_timer_closed(uv_handle_t *handle)
{
    file_on_part_closed(handle->data);
}

static void file_close(struct store_backend *backend, uint64_t wait_ms, void (*closed)(void *ctx),
                       void *ctx)
{
    struct file_backend *b = backend_of(backend);
    b->closed = closed;
    b->closed_ctx = ctx;
    atomic_store(&b->closing, true);
    uv_close((uv_handle_t *)&b->forget, file_on_timer_closed);
    workers_close(b->writers, wait_ms, file_on_workers_closed, b);
    workers_close(b->walkers, wait_ms, file_on_workers_closed, b);
}

const struct store_ops store_file_ops = {
    .scheme = "file",
    .parallel = THREADS_DEFAULT * OPS_A_THREAD,
    .interval_ms = 200,
    .value_max = STORE_VALUE_MAX,
    .open = file_open,
    .run = file_run,
    .close = file_close,
};
