/* An operation on its way, one document after the other; a document is one statement or a few:
 *
 *     put      PUT
 *     create   CREATE ── it exists ──► EXPIRE ── removed ──► CREATE
 *                                         └── not ──► in doubt: LOOK ── ours, or not, or gone
 *     get      GET
 *     remove   REMOVE ── nothing there ──► LOOK ── is there: it was too late
 *
 * A statement whose answer was lost is made again, from the first of its document. */
#include "store_mysql_job.h"

#include <stdlib.h>

enum {
    END_OUTLIVES_S = 24 * 3600,
    CLAIM_OUTLIVES_S = 2 * 24 * 3600,
    FOR_EVER_S = 60 * 366 * 24 * 3600, /* fits, and nobody will be there to see */
    TRIES_MAX = 10,                    /* of one document */
    PACKET_EXTRA = 1024,
};

static bool key_has(const char *key, const char *suffix)
{
    const char *tilde = strchr(key, '~');
    return tilde != NULL && strncmp(tilde, suffix, strlen(suffix)) == 0;
}

static bool key_is_listed(const char *key)
{
    const char *tilde = strchr(key, '~');
    return tilde != NULL && strcmp(tilde, "~task") == 0;
}

static uint64_t key_life_us(unsigned ttl_s, const char *key)
{
    uint64_t s = ttl_s;
    if (s == 0)
        s = FOR_EVER_S;
    else if (key_has(key, "~end"))
        s += END_OUTLIVES_S;
    else if (key_has(key, "~run") || key_has(key, "~prompt"))
        s += CLAIM_OUTLIVES_S;
    return s * 1000000;
}

/* --- jobs ------------------------------------------------------------------------------------ */

static void job_end(struct sql_job *job)
{
    struct store_op *op = job->op;
    list_remove(&job->link);
    free(job);
    store_op_done(op);
}

/* At the head of the row: it has waited already. */
static void job_wait(struct sql_job *job)
{
    list_push(&job->jobs->waiting, &job->link);
    later_add(job->jobs->later, &job->jobs->turn);
}

/* The document that the job is at, and what is wrong with it (NULL: nothing). */
static void job_doc_done(struct sql_job *job, enum err_code result, const char *why)
{
    struct store_op *op = job->op;
    struct err err = {.code = ERR_OK};
    if (why != NULL)
        (void)err_set(&err, result, "%s", why);
    op->doc[job->doc].result = result;
    job->in_doubt = job->expired = false;
    job->tries = 0;
    job->step = JOB_DO;
    if (store_op_goes_on(op, job->doc, &err) && ++job->doc < op->n)
        job_wait(job);
    else
        job_end(job);
}

static void job_fail(struct sql_job *job, enum err_code code, const char *why)
{
    if (job->op->page == NULL) {
        job_doc_done(job, code, why);
    } else {
        (void)err_set(&job->op->err, code, "%s", why);
        job_end(job);
    }
}

void sql_job_give_up(struct sql_job *job, enum err_code code, const char *why)
{
    job_fail(job, job->in_doubt ? ERR_TIMEOUT : code, why);
}

static bool job_writes(const struct sql_job *job)
{
    return job->op->page == NULL && job->op->doc[job->doc].verb != STORE_GET;
}

uint64_t sql_job_deadline(const struct sql_job *job)
{
    return job->op->started_ms + job->op->deadline_ms;
}

/* Until when a write may be done: nothing of an op may happen after its end was told. */
static uint64_t job_last_ms(const struct sql_job *job)
{
    uint64_t not_after = job->op->not_after_ms;
    uint64_t deadline = sql_job_deadline(job);
    return not_after != 0 && not_after < deadline ? not_after : deadline;
}

bool sql_job_is_over(struct sql_job *job)
{
    uint64_t now = clock_mono_ms();
    const struct store_page *page = job->op->page;
    uint64_t stamp;
    const char *key;
    if (page != NULL && page->cursor[0] != '\0' && !store_cursor_read(page->cursor, &stamp, &key))
        job_fail(job, ERR_INVALID, "not a cursor of this store");
    else if (job_writes(job) && job->op->not_after_ms != 0 && now > job->op->not_after_ms)
        sql_job_give_up(job, ERR_CANCELLED, "not written: its time was over");
    else if (now > sql_job_deadline(job))
        sql_job_give_up(job, ERR_UNAVAILABLE,
                        job->jobs->why.code != ERR_OK ? job->jobs->why.msg
                                                      : "the server is too slow");
    else if (job->tries > TRIES_MAX)
        sql_job_give_up(job, ERR_UNAVAILABLE, "the server gives no answer that lasts");
    else
        return false;
    return true;
}

/* The key is the one thing every statement begins with. */
static void job_start_write(struct sql_job *job, struct sql_link *l)
{
    const struct store_doc *doc = &job->op->doc[job->doc];
    uint64_t last_us = sql_link_server_us(l, job_last_ms(job));
    const struct sql_param params[] = {
        {.text = slice_of(doc->key)},
        {.text = doc->value != NULL ? blob_slice(doc->value) : SLICE_EMPTY, .is_binary = true},
        {.number = doc->order},
        {.number = key_is_listed(doc->key)},
        {.number = last_us},
        {.number = key_life_us(job->jobs->ttl_s, doc->key)},
    };
    const struct sql_param remove[] = {params[0], {.number = last_us}};
    if (doc->verb == STORE_REMOVE)
        sql_link_start(l, SQL_REMOVE, remove, ARRAY_LEN(remove));
    else
        sql_link_start(l, doc->verb == STORE_PUT ? SQL_PUT : SQL_CREATE, params, ARRAY_LEN(params));
}

static void job_start_list(struct sql_job *job, struct sql_link *l)
{
    struct store_page *page = job->op->page;
    uint64_t stamp = INT64_MAX;
    const char *key = "";
    if (page->cursor[0] != '\0')
        ASSERT(store_cursor_read(page->cursor, &stamp, &key)); /* sql_job_is_over() has looked */
    const struct sql_param params[] = {
        {.number = stamp}, {.number = stamp}, {.text = slice_of(key)}, {.number = page->limit + 1}};
    l->page = page;
    sql_link_start(l, SQL_LIST, params, ARRAY_LEN(params));
}

bool sql_job_start(struct sql_job *job, struct sql_link *l)
{
    if (job->op->page != NULL) {
        job_start_list(job, l);
        return true;
    }
    const struct store_doc *doc = &job->op->doc[job->doc];
    const struct sql_param key = {.text = slice_of(doc->key)};
    if (job->step == JOB_DO && job_writes(job) && doc->value != NULL &&
        doc->value->len + PACKET_EXTRA > l->packet_max) {
        struct err err;
        (void)err_set(&err, ERR_TOO_LARGE,
                      "a document of %zu bytes: the server's max_allowed_packet is %llu",
                      doc->value->len, (unsigned long long)l->packet_max);
        job_fail(job, ERR_TOO_LARGE, err.msg);
        return false;
    }
    if (job->step == JOB_EXPIRE)
        sql_link_start(l, SQL_EXPIRE, &key, 1);
    else if (job->step == JOB_LOOK || !job_writes(job))
        sql_link_start(l, SQL_GET, &key, 1);
    else
        job_start_write(job, l);
    return true;
}

/* --- what a statement came to ---------------------------------------------------------------- */

static void job_step(struct sql_job *job, enum sql_job_step step)
{
    job->step = step;
    job->tries++;
    job_wait(job);
}

static void job_on_found(struct sql_job *job, struct blob *take_value)
{
    struct store_doc *doc = &job->op->doc[job->doc];
    if (take_value == NULL) {
        job_doc_done(job, ERR_NOT_FOUND, NULL);
    } else if (take_value->len == 0) {
        blob_unref(take_value);
        job_fail(job, ERR_CORRUPT, "an empty document");
    } else {
        doc->value = take_value;
        job_doc_done(job, ERR_OK, NULL);
    }
}

/* The row is there: what has expired makes room; what we may have written ourselves is looked at.
 */
static void job_on_exists(struct sql_job *job)
{
    if (!job->expired)
        job_step(job, JOB_EXPIRE);
    else if (job->in_doubt)
        job_step(job, JOB_LOOK);
    else
        job_fail(job, ERR_EXISTS, "it exists");
}

static void job_on_expired(struct sql_job *job, uint64_t rows)
{
    job->expired = true;
    if (rows > 0)
        job_step(job, JOB_DO);
    else
        job_on_exists(job);
}

/* The server refuses a write for its time, which by our clock it has: one of the two clocks was
 * set. A new connection asks for the time anew. */
static void job_on_late(struct sql_job *job, struct sql_link *l)
{
    if (l->state == SQL_IDLE)
        sql_link_drop(l);
    job_step(job, JOB_DO);
}

/* After a create in doubt: is it ours? After a removal of nothing: was there nothing, or no time?
 */
static void job_on_looked(struct sql_job *job, struct sql_link *l, struct blob *take_value)
{
    const struct store_doc *doc = &job->op->doc[job->doc];
    bool found = take_value != NULL;
    bool ours =
        found && doc->value != NULL && slice_eq(blob_slice(take_value), blob_slice(doc->value));
    blob_unref(take_value);
    if (doc->verb == STORE_REMOVE) {
        if (found)
            job_on_late(job, l);
        else
            job_doc_done(job, ERR_OK, NULL);
    } else if (ours) {
        job_doc_done(job, ERR_OK, NULL);
    } else if (found) {
        job_fail(job, ERR_EXISTS, "it exists");
    } else {
        job_step(job, JOB_DO); /* it was removed meanwhile */
    }
}

static void job_on_done(struct sql_job *job, struct sql_link *l)
{
    struct blob *value = l->value;
    l->value = NULL;
    if (job->op->page != NULL)
        job_end(job);
    else if (job->step == JOB_EXPIRE)
        job_on_expired(job, l->rows);
    else if (job->step == JOB_LOOK)
        job_on_looked(job, l, value);
    else if (!job_writes(job))
        job_on_found(job, value);
    else if (job->op->doc[job->doc].verb == STORE_REMOVE && l->rows == 0)
        job_step(job, JOB_LOOK);
    else
        job_doc_done(job, ERR_OK, NULL);
}

static void job_on_lost(struct sql_job *job)
{
    job->in_doubt = job->in_doubt || (job_writes(job) && job->step == JOB_DO);
    job_step(job, JOB_DO);
}

void sql_job_on_done(struct sql_job *job, struct sql_link *l)
{
    switch (l->outcome) {
    case SQL_DONE: job_on_done(job, l); break;
    case SQL_EXISTS: job_on_exists(job); break;
    case SQL_LATE: job_on_late(job, l); break;
    case SQL_AGAIN: job_step(job, job->step); break;
    case SQL_LOST: job_on_lost(job); break;
    case SQL_TOO_LARGE: job_fail(job, ERR_TOO_LARGE, l->err.msg); break;
    case SQL_REFUSED: sql_job_give_up(job, ERR_UNAVAILABLE, l->err.msg); break;
    }
}

void sql_job_new(struct sql_jobs *jobs, struct store_op *op)
{
    struct sql_job *job = xcalloc(1, sizeof(*job));
    job->jobs = jobs;
    job->op = op;
    list_add(&jobs->waiting, &job->link);
    later_add(jobs->later, &jobs->turn);
}
