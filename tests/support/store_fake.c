#include "store_fake.h"

#include "store_url.h"

#include <stdio.h>
#include <stdlib.h>

struct store_fake store_fake;

struct fake_op {
    struct list_node link; /* in held, from the start to the end */
    struct later_item end;
    struct store_op *op;
};

struct fake_doc {
    struct list_node link;
    char key[STORE_KEY_MAX + 1];
    struct blob *value;
};

struct fake_backend {
    struct store_backend base;
    uv_idle_t handle; /* something to close */
    void (*closed)(void *ctx);
    void *ctx;
};

void store_fake_reset(void)
{
    store_fake = (struct store_fake){.fail_code = ERR_UNAVAILABLE};
    list_init(&store_fake.held);
    list_init(&store_fake.docs);
}

static struct fake_doc *fake_find(const char *key)
{
    LIST_FOREACH (node, &store_fake.docs) {
        struct fake_doc *d = CONTAINER_OF(node, struct fake_doc, link);
        if (strcmp(d->key, key) == 0)
            return d;
    }
    return NULL;
}

const char *store_fake_value(const char *key)
{
    struct fake_doc *d = fake_find(key);
    return d != NULL ? d->value->bytes : NULL;
}

static void fake_forget(struct fake_doc *d)
{
    list_remove(&d->link);
    blob_unref(d->value);
    free(d);
}

static enum err_code fake_do_doc(struct store_doc *doc)
{
    struct fake_doc *d = fake_find(doc->key);
    if (doc->verb == STORE_GET) {
        if (d == NULL)
            return ERR_NOT_FOUND;
        doc->value = blob_ref(d->value);
        return ERR_OK;
    }
    if (doc->verb == STORE_CREATE && d != NULL)
        return ERR_EXISTS;
    if (d != NULL)
        fake_forget(d);
    if (doc->verb == STORE_REMOVE)
        return ERR_OK;
    d = xcalloc(1, sizeof(*d));
    (void)snprintf(d->key, sizeof(d->key), "%s", doc->key);
    d->value = blob_ref(doc->value);
    list_add(&store_fake.docs, &d->link);
    return ERR_OK;
}

static void fake_do(struct store_op *op)
{
    bool fails = store_fake.fail > 0;
    store_fake.fail -= fails;
    unsigned at = store_fake.fail_doc < op->n ? store_fake.fail_doc : 0;
    for (unsigned i = 0; i < op->n && (!fails || i < at || store_fake.lose_replies); i++) {
        struct err err = {.code = ERR_OK};
        op->doc[i].result = fake_do_doc(&op->doc[i]);
        if (!store_op_goes_on(op, i, &err))
            break;
    }
    if (!fails)
        return;
    if (op->n > 0) {
        blob_unref(op->doc[at].verb == STORE_GET ? op->doc[at].value : NULL);
        if (op->doc[at].verb == STORE_GET)
            op->doc[at].value = NULL;
        op->doc[at].result = store_fake.fail_code;
    }
    (void)err_set(&op->err, store_fake.fail_code, "the fake store fails");
}

static void fake_on_end(struct later_item *item)
{
    struct fake_op *f = CONTAINER_OF(item, struct fake_op, end);
    struct store_op *op = f->op;
    list_remove(&f->link);
    free(f);
    store_fake.running--;
    fake_do(op);
    store_op_done(op);
}

void store_fake_finish(void)
{
    ASSERT(!list_is_empty(&store_fake.held));
    struct fake_op *f = CONTAINER_OF(store_fake.held.next, struct fake_op, link);
    fake_on_end(&f->end);
}

void store_fake_finish_all(void)
{
    store_fake.hold = false;
    while (!list_is_empty(&store_fake.held))
        store_fake_finish();
}

static void fake_check_overlap(const struct store_op *op)
{
    LIST_FOREACH (node, &store_fake.held) {
        const struct store_op *other = CONTAINER_OF(node, struct fake_op, link)->op;
        for (unsigned i = 0; i < op->n; i++)
            for (unsigned k = 0; k < other->n; k++)
                if (strcmp(op->doc[i].key, other->doc[k].key) == 0)
                    store_fake.overlap = true;
    }
}

static void fake_log(const struct store_op *op)
{
    static const char *const names[] = {"put", "create", "get", "remove"};
    size_t len = strlen(store_fake.log);
    for (unsigned i = 0; i < op->n; i++) {
        const struct store_doc *doc = &op->doc[i];
        (void)snprintf(store_fake.log + len, FAKE_LOG_MAX - len, "%s %s%s%s;", names[doc->verb],
                       doc->key, doc->value != NULL ? "=" : "",
                       doc->value != NULL ? doc->value->bytes : "");
        len = strlen(store_fake.log);
    }
    if (op->page != NULL)
        (void)snprintf(store_fake.log + len, FAKE_LOG_MAX - len, "list;");
}

static void fake_run(struct store_backend *backend, struct store_op *op)
{
    struct fake_op *f = xcalloc(1, sizeof(*f));
    (void)backend;
    f->op = op;
    later_item_init(&f->end, fake_on_end);
    fake_check_overlap(op);
    fake_log(op);
    list_add(&store_fake.held, &f->link);
    store_fake.runs++;
    if (++store_fake.running > store_fake.running_max)
        store_fake.running_max = store_fake.running;
    if (!store_fake.hold)
        later_add(store_fake.later, &f->end);
}

static enum err_code fake_open(struct store_backend **ret, uv_loop_t *loop, struct later *later,
                               struct store_url *url, struct err *err)
{
    unsigned parallel = 0;
    if (store_url_param_uint(url, "parallel", 1, 64, &parallel, err) != ERR_OK)
        return ERR_INVALID;
    struct fake_backend *b = xcalloc(1, sizeof(*b));
    b->base.parallel = parallel;
    store_fake.later = later;
    ASSERT(uv_idle_init(loop, &b->handle) == 0);
    b->handle.data = b;
    *ret = &b->base;
    return ERR_OK;
}

static void fake_on_closed(uv_handle_t *handle)
{
    struct fake_backend *b = handle->data;
    void (*closed)(void *ctx) = b->closed;
    void *ctx = b->ctx;
    while (!list_is_empty(&store_fake.docs))
        fake_forget(CONTAINER_OF(store_fake.docs.next, struct fake_doc, link));
    free(b);
    closed(ctx);
}

static void fake_close(struct store_backend *backend, uint64_t wait_ms, void (*closed)(void *ctx),
                       void *ctx)
{
    struct fake_backend *b = CONTAINER_OF(backend, struct fake_backend, base);
    store_fake.closes++;
    store_fake.close_wait_ms = wait_ms;
    store_fake_finish_all(); /* a real one would leave them; here they must not leak */
    b->closed = closed;
    b->ctx = ctx;
    uv_close((uv_handle_t *)&b->handle, fake_on_closed);
}

const struct store_ops store_fake_ops = {
    .scheme = "fake",
    .parallel = FAKE_PARALLEL,
    .interval_ms = FAKE_INTERVAL_MS,
    .value_max = FAKE_VALUE_MAX,
    .open = fake_open,
    .run = fake_run,
    .close = fake_close,
};
