/* redis://[[user]:password@]host[:port][/database][?prefix=…&ttl=…&publish=…&timeout_ms=…&wait_ms=…]
 *
 * An operation is one document after the other; operations share one connection and do not wait for
 * each other. A document whose answer was lost is sent again: what was put is put once more, unless
 * a newer one is there; what was created may stand there already, and is ours if it has our bytes.
 * Without a connection an operation waits wait_ms for the next one, which outlasts a restart or a
 * failover; when there has been none for longer, no longer than for the attempt that is due. */
#include "later.h"
#include "store_redis_command.h"
#include "store_url.h"

#include <stdlib.h>

enum {
    PORT_DEFAULT = 6379,
    DB_MAX = 65535,
    TTL_DEFAULT_S = 7 * 24 * 3600,
    TTL_MAX_S = 10 * 366 * 24 * 3600,
    TIMEOUT_DEFAULT_MS = 5000,
    WAIT_DEFAULT_MS = 2000,
};

struct redis_backend {
    struct store_backend base;
    struct redis_link link;
    struct later *later;
    struct later_item work; /* the only place where anything is sent */
    struct redis_names names;
    struct list_node waiting; /* in the order of asking */
    struct deadlines deadlines;
    struct deadline_class class[1];
    unsigned open_parts;
    bool closing;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

struct redis_job { /* an operation, one document at a time */
    struct redis_request request;
    struct list_node link; /* in `waiting`, or in none while it is under way */
    struct deadline wait;
    struct redis_backend *b;
    struct store_op *op;
    unsigned doc;
    bool in_doubt; /* this document may have been done */
};

static struct redis_backend *backend_of(struct store_backend *b)
{
    return CONTAINER_OF(b, struct redis_backend, base);
}

/* --- the end of an operation ----------------------------------------------------------------- */

static void job_end(struct redis_job *job)
{
    struct store_op *op = job->op;
    deadline_clear(&job->wait);
    list_remove(&job->link);
    free(job);
    store_op_done(op);
}

static void job_wait(struct redis_job *job)
{
    struct redis_backend *b = job->b;
    list_add(&b->waiting, &job->link);
    deadline_set(&b->deadlines, 0, &job->wait);
    later_add(b->later, &b->work);
}

/* The document that the job is at, and what is wrong with it (NULL: nothing). */
static void job_doc_done(struct redis_job *job, enum err_code result, const char *why)
{
    struct store_op *op = job->op;
    struct err err = {.code = ERR_OK};
    if (why != NULL)
        (void)err_set(&err, result, "%s", why);
    op->doc[job->doc].result = result;
    job->in_doubt = false;
    if (store_op_goes_on(op, job->doc, &err) && ++job->doc < op->n)
        job_wait(job);
    else
        job_end(job);
}

static void job_fail(struct redis_job *job, enum err_code code, const char *why)
{
    if (job->op->page == NULL) {
        job_doc_done(job, code, why);
    } else {
        (void)err_set(&job->op->err, code, "%s", why);
        job_end(job);
    }
}

/* Not done this time, but perhaps before. */
static void job_fail_now(struct redis_job *job, enum err_code code, const char *why)
{
    job_fail(job, job->in_doubt ? ERR_TIMEOUT : code, why);
}

static void job_give_up(struct redis_job *job)
{
    const struct err *why = &job->b->link.why;
    job_fail_now(job, ERR_UNAVAILABLE,
                 why->msg[0] != '\0' ? why->msg : "there is no connection to the server yet");
}

/* No connection came. */
static void job_on_waited(struct deadline *d)
{
    job_give_up(CONTAINER_OF(d, struct redis_job, wait));
}

/* --- answers --------------------------------------------------------------------------------- */

/* Errors that say: not now, or not I. The next connection may lead to somebody else. */
static bool error_passes(struct slice text)
{
    static const char *const words[] = {"LOADING",    "BUSY ",       "READONLY",
                                        "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN",
                                        "NOREPLICAS", "UNBLOCKED",   "ERR max number of clients"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (slice_starts(text, slice_of(words[i])))
            return true;
    return false;
}

static const char *error_advice(struct slice text)
{
    static const struct {
        const char *word, *advice;
    } rows[] = {
        {"MOVED", " (a node of a cluster: give the address of its proxy)"},
        {"ASK", " (a node of a cluster: give the address of its proxy)"},
        {"CROSSSLOT", " (a cluster: put the prefix in braces)"},
        {"OOM", " (the server's memory is full)"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (slice_starts(text, slice_of(rows[i].word)))
            return rows[i].advice;
    return "";
}

static void job_on_error(struct redis_job *job, const struct redis_answer *error)
{
    struct redis_link *l = &job->b->link;
    struct slice text = redis_link_text(l, error);
    struct err err;
    (void)err_set(&err, ERR_UNAVAILABLE, "the server says %.*s%s", SLICE_ARGS(text),
                  error_advice(text));
    if (error_passes(error->text)) {
        redis_link_drop(l, &err);
        job_wait(job);
    } else {
        job_fail_now(job, slice_starts(text, SLICE("WRONGTYPE")) ? ERR_CORRUPT : err.code, err.msg);
    }
}

static void job_on_nonsense(struct redis_job *job)
{
    struct err err;
    (void)err_set(&err, ERR_UNAVAILABLE, "the server's answer is of a wrong kind");
    redis_link_drop(&job->b->link, &err);
    job_fail_now(job, ERR_UNAVAILABLE, err.msg);
}

static void job_on_found(struct redis_job *job, const struct redis_answer *answer)
{
    struct store_doc *doc = &job->op->doc[job->doc];
    if (answer->kind != REDIS_TEXT) {
        job_on_nonsense(job);
    } else if (answer->text.len == 0) { /* nobody can have stored that here */
        job_doc_done(job, ERR_NOT_FOUND, NULL);
    } else if (answer->text.len > STORE_VALUE_MAX) {
        job_fail(job, ERR_TOO_LARGE, "a document that is larger than any of ours");
    } else {
        doc->value = blob_new(answer->text);
        job_doc_done(job, ERR_OK, NULL);
    }
}

static void job_on_written(struct redis_job *job, const struct redis_answer *answer)
{
    if (answer->kind != REDIS_TEXT) {
        job_on_nonsense(job);
    } else if (slice_is(answer->text, "done")) {
        job_doc_done(job, ERR_OK, NULL);
    } else if (slice_is(answer->text, "exists")) {
        job_fail(job, ERR_EXISTS, "it exists");
    } else if (slice_is(answer->text, "late")) {
        redis_link_measure(&job->b->link); /* if it was the clock, only this one suffers */
        job_fail_now(job, ERR_CANCELLED, "its time was over on the server's clock");
    } else {
        job_on_nonsense(job);
    }
}

/* Every entry is followed by its score. One that is no key of ours is passed over. */
static void job_on_listed(struct redis_job *job, const struct redis_answer *answer)
{
    struct store_page *page = job->op->page;
    size_t pairs = answer->count / 2;
    page->count = 0;
    page->next[0] = '\0';
    if (answer->kind != REDIS_LIST || answer->count % 2 != 0 || pairs > page->limit + 1) {
        job_on_nonsense(job);
        return;
    }
    for (size_t i = 0; i < pairs && i < page->limit; i++) {
        struct slice key = redis_answer_item(answer, 2 * i).text;
        struct slice score = redis_answer_item(answer, 2 * i + 1).text;
        char *text = page->keys[page->count];
        if (!store_key_ok(key) || !slice_to_u64(score, UINT64_MAX, &page->stamps[page->count]))
            continue;
        slice_copy(key, text, STORE_KEY_MAX + 1);
        page->count += redis_key_is_listed(text);
    }
    if (pairs > page->limit && page->count > 0)
        store_page_cursor(page, page->count - 1, page->next);
    job_end(job);
}

static void job_on_answer(struct redis_request *r, const struct redis_answer *answer)
{
    struct redis_job *job = CONTAINER_OF(r, struct redis_job, request);
    struct store_op *op = job->op;
    if (answer == NULL) {
        job->in_doubt = job->in_doubt || (op->page == NULL && op->doc[job->doc].verb != STORE_GET);
        if (job->b->closing)
            job_fail_now(job, ERR_CANCELLED, "closing");
        else
            job_wait(job);
    } else if (answer->kind == REDIS_ERROR) {
        job_on_error(job, answer);
    } else if (op->page != NULL) {
        job_on_listed(job, answer);
    } else if (op->doc[job->doc].verb == STORE_GET) {
        job_on_found(job, answer);
    } else {
        job_on_written(job, answer);
    }
}

/* --- questions ------------------------------------------------------------------------------- */

static bool job_is_too_late(const struct redis_job *job, uint64_t now)
{
    const struct store_op *op = job->op;
    return op->page == NULL && op->doc[job->doc].verb != STORE_GET && op->not_after_ms != 0 &&
           now > op->not_after_ms;
}

static void job_send(struct redis_job *job)
{
    struct redis_backend *b = job->b;
    struct store_op *op = job->op;
    const struct redis_write write = {
        .doc = &op->doc[job->doc], .not_after_ms = op->not_after_ms, .again = job->in_doubt};
    uint64_t now = clock_mono_ms();
    uint64_t before = UINT64_MAX;
    const char *behind;
    if (job_is_too_late(job, now)) {
        job_fail_now(job, ERR_CANCELLED, "its time was over");
    } else if (now > op->started_ms + op->deadline_ms) { /* its caller has been told */
        job_fail_now(job, ERR_CANCELLED, "nobody waits any more");
    } else if (op->page == NULL) {
        if (op->doc[job->doc].verb == STORE_GET)
            redis_send_get(&b->names, &b->link, &job->request, op->doc[job->doc].key);
        else
            redis_send_write(&b->names, &b->link, &job->request, &write);
    } else if (op->page->cursor[0] != '\0' &&
               !store_cursor_read(op->page->cursor, &before, &behind)) {
        job_fail(job, ERR_INVALID, "not a cursor of this store");
    } else {
        redis_send_list(&b->names, &b->link, &job->request,
                        &(struct redis_range){.limit = op->page->limit + 1, .before = before});
    }
}

static void redis_on_work(struct later_item *item)
{
    struct redis_backend *b = CONTAINER_OF(item, struct redis_backend, work);
    struct list_node waiting;
    if (list_is_empty(&b->waiting))
        return;
    bool is_lost = redis_link_is_lost(&b->link, b->class[0].ms);
    if (b->link.state != REDIS_OPEN && !is_lost) {
        redis_link_want(&b->link);
        return;
    }
    list_take(&waiting, &b->waiting);
    while (!list_is_empty(&waiting)) {
        struct redis_job *job = CONTAINER_OF(waiting.next, struct redis_job, link);
        list_remove(&job->link);
        deadline_clear(&job->wait);
        if (is_lost)
            job_give_up(job);
        else
            job_send(job);
    }
}

static void redis_on_changed(struct redis_link *l)
{
    struct redis_backend *b = CONTAINER_OF(l, struct redis_backend, link);
    later_add(b->later, &b->work);
}

static void redis_run(struct store_backend *backend, struct store_op *op)
{
    struct redis_job *job = xcalloc(1, sizeof(*job));
    job->b = backend_of(backend);
    job->op = op;
    job->request.done = job_on_answer;
    list_init(&job->link);
    list_init(&job->request.link);
    deadline_init(&job->wait);
    job_wait(job);
}

/* --- life ------------------------------------------------------------------------------------ */

/* Names of ours that are put into commands: nothing that is hard to type. */
static enum err_code redis_take_name(struct store_url *url, const char *name, const char *fallback,
                                     char **ret, struct err *err)
{
    char *text = store_url_param(url, name);
    if (text == NULL) {
        *ret = fallback != NULL ? xstrdup(fallback) : NULL;
        return ERR_OK;
    }
    size_t len = strlen(text);
    bool ok = len > 0 && len <= REDIS_NAME_MAX;
    for (size_t i = 0; i < len; i++)
        ok = ok && text[i] > ' ' && text[i] <= '~';
    if (ok) {
        *ret = text;
        return ERR_OK;
    }
    free(text);
    return err_set(err, ERR_INVALID, "store URL: %s must be 1 to %d characters without blanks",
                   name, REDIS_NAME_MAX);
}

static enum err_code redis_check_url(const struct store_url *url, unsigned *ret_db, struct err *err)
{
    uint64_t db = 0;
    if (url->host == NULL)
        return err_set(err, ERR_INVALID, "store URL: redis://host[:port][/database]");
    if (url->user != NULL && url->password == NULL)
        return err_set(err, ERR_INVALID,
                       "store URL: a user without a password; a password alone is :password@");
    if (url->path != NULL && strcmp(url->path, "/") != 0 &&
        !slice_to_u64(slice_of(url->path + 1), DB_MAX, &db))
        return err_set(err, ERR_INVALID, "store URL: the database is a number, as in /0");
    *ret_db = (unsigned)db;
    return ERR_OK;
}

static enum err_code redis_read_url(struct redis_backend *b, struct store_url *url,
                                    struct redis_link_options *link, struct err *err)
{
    unsigned wait_ms = WAIT_DEFAULT_MS;
    b->names.ttl_s = TTL_DEFAULT_S;
    if (redis_check_url(url, &link->db, err) != ERR_OK ||
        redis_take_name(url, "prefix", "comfy:task:", &b->names.prefix, err) != ERR_OK ||
        redis_take_name(url, "publish", NULL, &b->names.channel, err) != ERR_OK ||
        store_url_param_uint(url, "ttl", 0, TTL_MAX_S, &b->names.ttl_s, err) != ERR_OK ||
        store_url_param_uint(url, "timeout_ms", 10, 60000, &link->timeout_ms, err) != ERR_OK ||
        store_url_param_uint(url, "wait_ms", 10, 60000, &wait_ms, err) != ERR_OK)
        return ERR_INVALID;
    b->class[0] = (struct deadline_class){.ms = wait_ms, .over = job_on_waited};
    link->host = url->host;
    link->user = url->user;
    link->password = url->password;
    link->port = url->port != 0 ? url->port : PORT_DEFAULT;
    return ERR_OK;
}

static void redis_free(struct redis_backend *b)
{
    free(b->names.prefix);
    free(b->names.channel);
    free(b);
}

static enum err_code redis_open(struct store_backend **ret, uv_loop_t *loop, struct later *later,
                                struct store_url *url, struct err *err)
{
    struct redis_backend *b = xcalloc(1, sizeof(*b));
    struct redis_link_options link = {.timeout_ms = TIMEOUT_DEFAULT_MS};
    if (redis_read_url(b, url, &link, err) != ERR_OK) {
        redis_free(b);
        return ERR_INVALID;
    }
    b->later = later;
    later_item_init(&b->work, redis_on_work);
    list_init(&b->waiting);
    redis_link_init(&b->link, loop, &link);
    b->link.changed = redis_on_changed;
    deadlines_init(&b->deadlines, loop, b->class, 1);
    b->open_parts = 2;
    *ret = &b->base;
    return ERR_OK;
}

static void redis_part_closed(struct redis_backend *b)
{
    if (--b->open_parts > 0)
        return;
    void (*closed)(void *ctx) = b->closed;
    void *ctx = b->closed_ctx;
    redis_free(b);
    closed(ctx);
}

static void redis_on_link_closed(struct redis_link *l)
{
    redis_part_closed(CONTAINER_OF(l, struct redis_backend, link));
}

/* Given up: the core waits for nothing any more. */
static void redis_on_deadlines_closed(struct deadlines *ds)
{
    struct redis_backend *b = CONTAINER_OF(ds, struct redis_backend, deadlines);
    LIST_FOREACH_SAFE (node, next, &b->waiting) {
        job_fail_now(CONTAINER_OF(node, struct redis_job, link), ERR_CANCELLED, "closing");
    }
    redis_part_closed(b);
}

static void redis_close(struct store_backend *backend, uint64_t wait_ms, void (*closed)(void *ctx),
                        void *ctx)
{
    struct redis_backend *b = backend_of(backend);
    (void)wait_ms;
    b->closing = true;
    b->closed = closed;
    b->closed_ctx = ctx;
    later_cancel(b->later, &b->work);
    redis_link_close(&b->link, redis_on_link_closed);
    deadlines_close(&b->deadlines, redis_on_deadlines_closed);
}

const struct store_ops store_redis_ops = {
    .scheme = "redis",
    .parallel = 32,
    .interval_ms = 50,
    .value_max = STORE_VALUE_MAX,
    .open = redis_open,
    .run = redis_run,
    .close = redis_close,
};
