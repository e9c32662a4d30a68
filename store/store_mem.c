/* mem:[?delay_ms=N&fail_every=N] keeps documents in this process: for trying things out, and the
 * measure of what a backend must do. At most MEM_BYTES_MAX, then writes are refused; nothing that
 * was stored is dropped to make room.
 *
 * delay_ms: each operation takes so long; fail_every: each Nth is refused. Both are for tests. An
 * operation takes effect at its end, in the order in which they were asked for.
 */
#include "later.h"
#include "store_private.h"
#include "store_url.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    MEM_BYTES_MAX = 256 * 1024 * 1024,
    MEM_BUCKETS = 16384,
    MEM_DELAY_MAX_MS = 60000,
    MEM_FAIL_MAX = 1000000,
};

struct mem_doc {
    struct list_node bucket, age;
    char key[STORE_KEY_MAX + 1];
    struct blob *value;
    uint64_t order;
    uint64_t written; /* grows with every write of any document */
};

struct mem_job {
    struct list_node link;
    struct store_op *op;
    uint64_t due_ms;
};

struct mem_backend {
    struct store_backend base;
    struct closer closer;
    struct later *later;
    struct later_item work; /* operations are due */
    uv_timer_t timer;
    unsigned delay_ms, fail_every;
    uint64_t asked, writes;
    struct list_node jobs; /* in order of asking, which is that of their times too */
    struct list_node age;  /* newest first */
    size_t bytes;
    void (*closed)(void *ctx);
    void *closed_ctx;
    struct list_node bucket[MEM_BUCKETS];
};

static struct mem_backend *backend_of(struct store_backend *b)
{
    return CONTAINER_OF(b, struct mem_backend, base);
}

/* --- documents ------------------------------------------------------------------------------- */

static size_t doc_bytes(const struct blob *value)
{
    return sizeof(struct mem_doc) + sizeof(*value) + value->len;
}

static struct mem_doc *mem_find(struct mem_backend *b, const char *key)
{
    LIST_FOREACH (node, &b->bucket[store_key_hash(key) % MEM_BUCKETS]) {
        struct mem_doc *d = CONTAINER_OF(node, struct mem_doc, bucket);
        if (strcmp(d->key, key) == 0)
            return d;
    }
    return NULL;
}

static void mem_remove(struct mem_backend *b, struct mem_doc *d)
{
    b->bytes -= doc_bytes(d->value);
    list_remove(&d->bucket);
    list_remove(&d->age);
    blob_unref(d->value);
    free(d);
}

static enum err_code mem_write(struct mem_backend *b, const struct store_doc *doc, struct err *err)
{
    struct mem_doc *d = mem_find(b, doc->key);
    if (d != NULL && doc->verb == STORE_CREATE)
        return ERR_EXISTS;
    if (d != NULL && doc->order != 0 && doc->order < d->order)
        return ERR_OK; /* a newer one is stored */
    size_t before = d != NULL ? doc_bytes(d->value) : 0;
    if (b->bytes - before + doc_bytes(doc->value) > MEM_BYTES_MAX)
        return err_set(err, ERR_UNAVAILABLE, "the memory for documents is full");
    if (d == NULL) {
        d = xcalloc(1, sizeof(*d));
        (void)snprintf(d->key, sizeof(d->key), "%s", doc->key);
        list_add(&b->bucket[store_key_hash(doc->key) % MEM_BUCKETS], &d->bucket);
    } else {
        list_remove(&d->age);
        blob_unref(d->value);
    }
    b->bytes += doc_bytes(doc->value) - before;
    d->value = blob_ref(doc->value);
    d->order = doc->order;
    d->written = ++b->writes;
    list_push(&b->age, &d->age);
    return ERR_OK;
}

static enum err_code mem_do_doc(struct mem_backend *b, struct store_doc *doc, uint64_t not_after_ms,
                                struct err *err)
{
    struct mem_doc *d;
    if (doc->verb != STORE_GET && not_after_ms != 0 && clock_mono_ms() > not_after_ms)
        return err_set(err, ERR_CANCELLED, "not written: its time was over");
    switch (doc->verb) {
    case STORE_PUT:
    case STORE_CREATE: return mem_write(b, doc, err);
    case STORE_GET:
        d = mem_find(b, doc->key);
        if (d == NULL)
            return ERR_NOT_FOUND;
        doc->value = blob_ref(d->value);
        return ERR_OK;
    case STORE_REMOVE:
        d = mem_find(b, doc->key);
        if (d != NULL)
            mem_remove(b, d);
        return ERR_OK;
    }
    return ERR_INVALID;
}

static bool mem_is_listed(const struct mem_doc *d)
{
    size_t len = strlen(d->key);
    return len > 5 && strcmp(d->key + len - 5, "~task") == 0;
}

/* The order is that of the writes. */
static enum err_code mem_list(struct mem_backend *b, struct store_page *page, struct err *err)
{
    uint64_t before = UINT64_MAX;
    const char *key;
    if (page->cursor[0] != '\0' && !store_cursor_read(page->cursor, &before, &key))
        return err_set(err, ERR_INVALID, "not a cursor of this store");
    page->count = 0;
    page->next[0] = '\0';
    LIST_FOREACH (node, &b->age) {
        const struct mem_doc *d = CONTAINER_OF(node, struct mem_doc, age);
        if (d->written >= before || !mem_is_listed(d))
            continue;
        if (page->count == page->limit) {
            store_page_cursor(page, page->count - 1, page->next);
            break;
        }
        page->stamps[page->count] = d->written;
        memcpy(page->keys[page->count++], d->key, sizeof(d->key));
    }
    return ERR_OK;
}

/* --- operations ------------------------------------------------------------------------------ */

static void mem_do(struct mem_backend *b, struct store_op *op)
{
    if (b->fail_every != 0 && ++b->asked % b->fail_every == 0) {
        if (op->n > 0)
            op->doc[0].result = ERR_UNAVAILABLE;
        (void)err_set(&op->err, ERR_UNAVAILABLE, "fail_every=%u", b->fail_every);
        return;
    }
    if (op->page != NULL) {
        struct err err;
        if (mem_list(b, op->page, &err) != ERR_OK)
            op->err = err;
        return;
    }
    for (unsigned i = 0; i < op->n; i++) {
        struct err err = {.code = ERR_OK};
        op->doc[i].result = mem_do_doc(b, &op->doc[i], op->not_after_ms, &err);
        if (!store_op_goes_on(op, i, &err))
            return;
    }
}

static void mem_on_timer(uv_timer_t *timer)
{
    struct mem_backend *b = timer->data;
    later_add(b->later, &b->work);
}

static void mem_arm(struct mem_backend *b, uint64_t wait_ms)
{
    if (wait_ms == 0)
        later_add(b->later, &b->work);
    else
        ASSERT(uv_timer_start(&b->timer, mem_on_timer, wait_ms, 0) == 0);
}

static struct store_op *mem_take_job(struct mem_job *job)
{
    struct store_op *op = job->op;
    list_remove(&job->link);
    free(job);
    return op;
}

static void mem_on_work(struct later_item *item)
{
    struct mem_backend *b = CONTAINER_OF(item, struct mem_backend, work);
    uint64_t now = clock_mono_ms();
    /* Nothing is added meanwhile: the core starts operations in turns of its own. */
    LIST_FOREACH_SAFE (node, next, &b->jobs) {
        struct mem_job *job = CONTAINER_OF(node, struct mem_job, link);
        if (job->due_ms > now) {
            mem_arm(b, job->due_ms - now);
            return;
        }
        struct store_op *op = mem_take_job(job);
        mem_do(b, op);
        store_op_done(op);
    }
}

static void mem_run(struct store_backend *backend, struct store_op *op)
{
    struct mem_backend *b = backend_of(backend);
    struct mem_job *job = xcalloc(1, sizeof(*job));
    bool is_first = list_is_empty(&b->jobs);
    job->op = op;
    job->due_ms = clock_mono_ms() + b->delay_ms;
    list_add(&b->jobs, &job->link);
    if (is_first)
        mem_arm(b, b->delay_ms);
}

/* --- life ------------------------------------------------------------------------------------ */

static enum err_code mem_open(struct store_backend **ret, uv_loop_t *loop, struct later *later,
                              struct store_url *url, struct err *err)
{
    unsigned delay_ms = 0;
    unsigned fail_every = 0;
    if (url->user != NULL || url->password != NULL || url->host != NULL || url->path != NULL)
        return err_set(err, ERR_INVALID, "store URL: mem: has neither host nor path");
    if (store_url_param_uint(url, "delay_ms", 0, MEM_DELAY_MAX_MS, &delay_ms, err) != ERR_OK ||
        store_url_param_uint(url, "fail_every", 0, MEM_FAIL_MAX, &fail_every, err) != ERR_OK)
        return ERR_INVALID;
    struct mem_backend *b = xcalloc(1, sizeof(*b));
    b->later = later;
    b->delay_ms = delay_ms;
    b->fail_every = fail_every;
    list_init(&b->jobs);
    list_init(&b->age);
    for (unsigned i = 0; i < MEM_BUCKETS; i++)
        list_init(&b->bucket[i]);
    later_item_init(&b->work, mem_on_work);
    closer_init(&b->closer, loop);
    ASSERT(uv_timer_init(loop, &b->timer) == 0);
    b->timer.data = b;
    closer_hold(&b->closer);
    *ret = &b->base;
    return ERR_OK;
}

static void mem_on_closed(struct closer *closer)
{
    struct mem_backend *b = CONTAINER_OF(closer, struct mem_backend, closer);
    void (*closed)(void *ctx) = b->closed;
    void *ctx = b->closed_ctx;
    LIST_FOREACH_SAFE (node, next, &b->age) {
        mem_remove(b, CONTAINER_OF(node, struct mem_doc, age));
    }
    free(b);
    closed(ctx);
}

static void mem_on_timer_closed(uv_handle_t *handle)
{
    struct mem_backend *b = handle->data;
    LIST_FOREACH_SAFE (node, next, &b->jobs) { /* given up */
        store_op_done(mem_take_job(CONTAINER_OF(node, struct mem_job, link)));
    }
    closer_release(&b->closer);
}

static void mem_close(struct store_backend *backend, uint64_t wait_ms, void (*closed)(void *ctx),
                      void *ctx)
{
    struct mem_backend *b = backend_of(backend);
    (void)wait_ms;
    b->closed = closed;
    b->closed_ctx = ctx;
    later_cancel(b->later, &b->work);
    uv_close((uv_handle_t *)&b->timer, mem_on_timer_closed);
    closer_begin(&b->closer, mem_on_closed);
}

const struct store_ops store_mem_ops = {
    .scheme = "mem",
    .parallel = 64,
    .interval_ms = 20,
    .value_max = STORE_VALUE_MAX,
    .open = mem_open,
    .run = mem_run,
    .close = mem_close,
};
