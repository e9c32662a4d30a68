/* file:///directory[?threads=1..8]: a document is the plain file <directory>/<key>.
 *
 * An operation is one job on a thread of this store, from the first system call to the last: a
 * mount that hangs holds a thread and an operation, never the loop; further operations wait in the
 * core until their deadlines. One thread by default, because on one disk two writers only get in
 * each other's way; a NAS has latency to hide. Walks through the directory, which can be long, have
 * a thread to themselves and hold up no document; the core asks for one at a time.
 *
 * The directory is made by the first write that finds it missing; opening the store touches
 * nothing.
 */
#include "later.h"
#include "log.h"
#include "store_file_io.h"
#include "store_order.h"
#include "store_url.h"
#include "workers.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { THREADS_DEFAULT = 1, THREADS_MAX = 8, DIR_MAX = 2048 };

struct file_backend {
    struct store_backend base;
    char *dir;
    struct workers *writers; /* and readers of one document */
    struct workers *walkers;
    struct store_orders *orders;
    bool swept;
    struct work sweep;
    unsigned swept_count;
    _Atomic bool closing; /* ends walks early */
    unsigned open_workers, stuck;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

struct file_job {
    struct work work;
    struct file_backend *b;
    struct store_op *op;           /* the backend's until done */
    uint64_t give_up_ms;           /* the core may put off the op's deadline meanwhile */
    bool outdated[STORE_DOCS_MAX]; /* a newer order has been written */
};

static struct file_backend *backend_of(struct store_backend *b)
{
    return CONTAINER_OF(b, struct file_backend, base);
}

/* --- on a worker thread ---------------------------------------------------------------------- */

static void job_docs_work(struct work *w)
{
    struct file_job *job = CONTAINER_OF(w, struct file_job, work);
    struct store_op *op = job->op;
    for (unsigned i = 0; i < op->n; i++) {
        struct err err = {.code = ERR_OK};
        if (job->outdated[i])
            op->doc[i].result = ERR_OK;
        else
            file_do_work(job->b->dir, &op->doc[i], op->not_after_ms, &err);
        if (!store_op_goes_on(op, i, &err))
            return;
    }
}

static void job_list_work(struct work *w)
{
    struct file_job *job = CONTAINER_OF(w, struct file_job, work);
    struct store_op *op = job->op;
    struct err err;
    enum err_code code =
        file_list_work(job->b->dir, op->page, job->give_up_ms, &job->b->closing, &err);
    if (code != ERR_OK)
        op->err = err;
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

static void file_on_job_done(struct work *w)
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

static void file_run(struct store_backend *backend, struct store_op *op)
{
    struct file_backend *b = backend_of(backend);
    struct file_job *job = xcalloc(1, sizeof(*job));
    job->b = b;
    job->op = op;
    job->give_up_ms = op->started_ms + op->deadline_ms;
    job->work.run = op->page != NULL ? job_list_work : job_docs_work;
    job->work.done = file_on_job_done;
    for (unsigned i = 0; i < op->n; i++)
        job->outdated[i] = file_is_outdated(b, &op->doc[i]);
    if (!b->swept) {
        b->swept = true;
        workers_add(b->walkers, &b->sweep);
    }
    workers_add(op->page != NULL ? b->walkers : b->writers, &job->work);
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
    b->base.parallel = threads;
    b->dir = xstrdup(url->path);
    for (size_t len = strlen(b->dir); b->dir[len - 1] == '/'; len--)
        b->dir[len - 1] = '\0';
    b->orders = store_orders_new();
    b->writers = workers_new(loop, threads);
    b->walkers = workers_new(loop, 1);
    b->open_workers = 2;
    b->sweep = (struct work){.run = sweep_work, .done = file_on_swept};
    atomic_init(&b->closing, false);
    *ret = &b->base;
    return ERR_OK;
}

static void file_on_workers_closed(void *ctx, unsigned stuck)
{
    struct file_backend *b = ctx;
    b->stuck += stuck;
    if (--b->open_workers > 0)
        return;
    void (*closed)(void *ctx) = b->closed;
    void *closed_ctx = b->closed_ctx;
    store_orders_free(b->orders);
    b->orders = NULL;
    if (b->stuck == 0) { /* else a thread that is stuck in the system still looks at it */
        free(b->dir);
        free(b);
    }
    closed(closed_ctx);
}

static void file_close(struct store_backend *backend, uint64_t wait_ms, void (*closed)(void *ctx),
                       void *ctx)
{
    struct file_backend *b = backend_of(backend);
    b->closed = closed;
    b->closed_ctx = ctx;
    atomic_store(&b->closing, true);
    workers_close(b->writers, wait_ms, file_on_workers_closed, b);
    workers_close(b->walkers, wait_ms, file_on_workers_closed, b);
}

const struct store_ops store_file_ops = {
    .scheme = "file",
    .parallel = THREADS_DEFAULT,
    .interval_ms = 200,
    .value_max = STORE_VALUE_MAX,
    .open = file_open,
    .run = file_run,
    .close = file_close,
};
