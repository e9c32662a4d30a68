/* ots://…: Alibaba Cloud's Tablestore. How its parts fit together:
 *
 *     store_ots   the backend: its URL, its credentials, lists
 *       ots_job     documents; what follows what            ots_url
 *         ots_sweep   what is left of a removed one
 *         ots_client  one request, signed, tried again
 *           ots_sign    headers and signatures                 ┐
 *           ots_reply   what an answer means                   │ pure
 *         ots_doc     documents as rows                        │
 *           ots_message ots_row   bytes                        ┘
 *
 * A list walks through the rows of all "~task" keys, which lie side by side: there is no order but
 * that of keys. It reads nothing but a small column of each, which comes with the time at which the
 * server wrote it. */
#include "ots_job.h"
#include "ots_message.h"
#include "ots_url.h"

#include <stdlib.h>

enum { LIST_ROWS = 1000 };

struct ots_backend {
    struct store_backend base;
    struct ots_place place;
    bool fixed; /* the credentials are the URL's: none that come replace them */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static struct ots_backend *backend_of(struct store_backend *b)
{
    return CONTAINER_OF(b, struct ots_backend, base);
}

/* --- lists ----------------------------------------------------------------------------------- */

static void list_take_row(struct ots_job *job, const struct ots_row *row)
{
    const struct ots_cell *order = ots_row_column(row, ots_order_columns[0]);
    struct ots_listed e;
    if (order == NULL || !order->has_time || order->time_ms < 0 ||
        !ots_key_of_name(row->key.bytes, e.key))
        return; /* none of ours */
    e.stamp = (uint64_t)order->time_ms;
    ots_list_add(&job->list, &e);
}

/* The rows of one answer; where the next one begins goes to job->from. */
static enum err_code list_take_rows(struct ots_job *job, struct slice body)
{
    struct ots_rows rows;
    struct ots_row row;
    struct slice bytes, next;
    enum err_code code;
    if (ots_range_read(body, &bytes, &next) != ERR_OK || ots_rows_begin(&rows, bytes) != ERR_OK)
        return ERR_CORRUPT;
    while ((code = ots_rows_next(&rows, &row)) == ERR_OK)
        list_take_row(job, &row);
    if (code != ERR_NOT_FOUND)
        return code;
    buf_reset(&job->from);
    buf_add(&job->from, next);
    return ERR_OK;
}

static void list_ask_range(struct ots_job *job);

static void list_on_range(struct ots_ask *ask)
{
    struct ots_job *job = ots_job_of(ask);
    if (ots_job_makes_table(job))
        return;
    enum err_code code = ask->verdict == OTS_OK ? list_take_rows(job, buf_slice(&ask->answer))
                                                : ots_job_fail(job, ask->verdict);
    buf_done(&ask->answer);
    if (code == ERR_OK && job->from.len > 0) {
        list_ask_range(job);
        return;
    }
    if (code == ERR_CORRUPT)
        (void)err_set(&job->err, code, "a list came damaged");
    else if (code == ERR_OK)
        ots_list_fill(&job->list, job->op->page);
    ots_job_end_list(job);
}

static void list_ask_range(struct ots_job *job)
{
    struct buf before;
    buf_init(&before, SIZE_MAX);
    ots_key_write(&before, OTS_LIST_BEFORE, false);
    struct ots_range range = {buf_slice(&job->from), buf_slice(&before), ots_order_columns,
                              LIST_ROWS};
    buf_init(&job->ask.body, SIZE_MAX);
    ots_range_body(&job->ask.body, job->place->table, &range);
    buf_done(&before);
    ots_job_ask(job, "/GetRange", false, list_on_range);
}

static void list_start(struct ots_job *job)
{
    job->restart = list_start;
    buf_reset(&job->from);
    ots_key_write(&job->from, OTS_LIST_FROM, false);
    list_ask_range(job);
}

static void list_on_refused(struct ots_ask *ask)
{
    struct ots_job *job = ots_job_of(ask);
    job->err = ask->err;
    ots_job_end_list(job);
}

static void ots_run(struct store_backend *backend, struct store_op *op)
{
    struct ots_job *job = ots_job_new(&backend_of(backend)->place, op);
    if (op->page == NULL) {
        ots_job_start_doc(job);
    } else if (ots_list_init(&job->list, op->page, &job->ask.err) == ERR_OK) {
        list_start(job);
    } else {
        buf_init(&job->ask.body, 0);
        job->ask.done = list_on_refused;
        ots_ask_refuse(job->place->client, &job->ask);
    }
}

/* --- credentials ----------------------------------------------------------------------------- */

static struct slice variable(const char *name)
{
    const char *value = name != NULL ? getenv(name) : NULL;
    return value != NULL ? slice_of(value) : SLICE_EMPTY;
}

/* A function's role comes in the first three; they age, and what requests bring replaces them. */
static void ots_read_environment(struct ots_backend *b)
{
    static const char *const names[][3] = {
        {"ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
         "ALIBABA_CLOUD_SECURITY_TOKEN"},
        {"TABLESTORE_ACCESS_KEY_ID", "TABLESTORE_ACCESS_KEY_SECRET", "TABLESTORE_SESSION_TOKEN"},
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (ots_client_credentials(b->place.client, variable(names[i][0]), variable(names[i][1]),
                                   variable(names[i][2])) == ERR_OK)
            return;
}

static void ots_credentials(struct store_backend *backend, const struct store_credentials *c)
{
    struct ots_backend *b = backend_of(backend);
    if (!b->fixed && ots_client_credentials(b->place.client, c->id, c->secret, c->token) != ERR_OK)
        return; /* a part is missing: those that we have are better */
}

/* --- life ------------------------------------------------------------------------------------ */

static struct ots_backend *ots_new(uv_loop_t *loop, struct later *later,
                                   const struct store_url *url, const struct ots_url *u)
{
    struct ots_backend *b = xcalloc(1, sizeof(*b));
    struct ots_client_options options = {
        .host = url->host,
        .port = url->port != 0 ? url->port
                : u->plain     ? 80
                               : 443,
        .plain = u->plain,
        .instance = u->instance,
        .region = u->region,
        .ca_file = u->ca_file,
        .connections = u->connections + 1, /* and a list */
    };
    b->base.parallel = u->connections;
    b->place.table = xstrdup(u->table);
    b->place.create_table = u->create;
    b->place.ttl_s = u->ttl_s;
    b->place.client = ots_client_new(loop, later, &options);
    return b;
}

static void ots_close(struct store_backend *backend, uint64_t wait_ms, void (*closed)(void *ctx),
                      void *ctx);

static void ots_on_unwanted_closed(void *ctx)
{
    (void)ctx;
}

static enum err_code ots_open(struct store_backend **ret, uv_loop_t *loop, struct later *later,
                              struct store_url *url, struct err *err)
{
    struct ots_url u;
    if (ots_url_read(&u, url, err) != ERR_OK)
        return ERR_INVALID;
    struct ots_backend *b = ots_new(loop, later, url, &u);
    ots_url_done(&u);
    b->fixed = url->user != NULL;
    if (!b->fixed) {
        ots_read_environment(b);
    } else if (ots_client_credentials(b->place.client, slice_of(url->user), slice_of(url->password),
                                      SLICE_EMPTY) != ERR_OK) {
        ots_close(&b->base, 0, ots_on_unwanted_closed, NULL);
        return err_set(
            err, ERR_INVALID,
            "store URL: key id and secret have no blanks, and the id is no temporary one");
    }
    *ret = &b->base;
    return ERR_OK;
}

static void ots_on_client_closed(void *ctx)
{
    struct ots_backend *b = ctx;
    void (*closed)(void *ctx) = b->closed;
    void *closed_ctx = b->closed_ctx;
    free(b->place.table);
    free(b);
    closed(closed_ctx);
}

static void ots_close(struct store_backend *backend, uint64_t wait_ms, void (*closed)(void *ctx),
                      void *ctx)
{
    struct ots_backend *b = backend_of(backend);
    (void)wait_ms;
    b->closed = closed;
    b->closed_ctx = ctx;
    ots_client_close(b->place.client, ots_on_client_closed, b);
}

const struct store_ops store_ots_ops = {
    .scheme = "ots",
    .parallel = OTS_CONNECTIONS,
    .interval_ms = 1000, /* each write is paid for, by its size */
    .value_max = STORE_VALUE_MAX,
    .open = ots_open,
    .run = ots_run,
    .credentials = ots_credentials,
    .close = ots_close,
};
