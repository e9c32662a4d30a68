/* mysql://user[:password]@host[:port]/database[?table=…&create=1&tls=…&ca=…&pool=…&ttl=…&wait_ms=…&timeout_ms=…]
 *
 * A document is a row of one table, see store_mysql_work.c; each write is one statement, committed
 * by itself. Operations (store_mysql_job.c) wait for connections (store_mysql_link.c), which are
 * made when operations wait, up to `pool`, and go when they are not used.
 *
 * A document whose answer was lost is sent again: what was put is put once more, unless a newer one
 * is there; what was created may stand there already, and is ours if it has our bytes. Without a
 * connection an operation waits wait_ms for the next one, which outlasts a restart or a
 * failover; a server that has been away for longer, or that refuses us (a password, a table), is
 * not waited for.
 *
 * Documents expire ttl seconds after their last write, and are purged. What decides who may run a
 * task outlives what tells of it: the ends by a day, the claims by two, so that a task does not run
 * again because half of it is forgotten. */
#include "codec.h"
#include "log.h"
#include "store_mysql_job.h"

#include <limits.h>
#include <stdlib.h>

enum {
    PAUSE_MS = 100, /* after the first failure in a row; doubles */
    PAUSE_MAX_MS = 5000,
    HANDSHAKES_LOST = 3, /* in a row: it is the certificate, and not the network */
    PURGE_MS = 10 * 60 * 1000,
};

enum { CLASS_PURGE = SQL_CLASSES, CLASSES };

struct sql_backend {
    struct store_backend base;
    struct sql_options options;
    struct sql_jobs jobs;
    struct sql_lane {
        struct sql_link link;
        struct sql_backend *b;
        struct sql_job *job; /* that has the link */
    } lane[SQL_LINKS_MAX];
    unsigned lanes;
    struct workers *workers;
    struct deadlines deadlines;
    struct deadline_class class[CLASSES];
    uv_timer_t timer;
    bool is_hard;           /* waiting will not help */
    unsigned failures;      /* to connect, in a row */
    unsigned handshakes;    /* of them the last ones, in TLS */
    uint64_t not_before_ms; /* while failures > 0 */
    uint64_t down_since;    /* nobody is connected since the first of them; 0: not so */

    struct deadline purge_due;
    struct work purge;
    bool purging;
    _Atomic bool stop; /* ends a purge early */
    uint64_t purged;
    struct err purge_err;

    bool closing;
    unsigned open_links, open_parts;
    _Atomic unsigned users; /* the loop, and threads at work; the last one frees */
    uint64_t close_at;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static struct sql_backend *backend_of(struct store_backend *b)
{
    return CONTAINER_OF(b, struct sql_backend, base);
}

static void sql_on_statement_done(struct sql_link *l)
{
    struct sql_lane *lane = CONTAINER_OF(l, struct sql_lane, link);
    struct sql_job *job = lane->job;
    lane->job = NULL;
    sql_job_on_done(job, l);
}

/* --- the turn -------------------------------------------------------------------------------- */

static unsigned sql_count(const struct sql_backend *b, enum sql_link_state state)
{
    unsigned count = 0;
    for (unsigned i = 0; i < b->lanes; i++)
        count += b->lane[i].link.state == state;
    return count;
}

static struct sql_lane *sql_find(struct sql_backend *b, enum sql_link_state state)
{
    for (unsigned i = 0; i < b->lanes; i++)
        if (b->lane[i].link.state == state)
            return &b->lane[i];
    return NULL;
}

/* Who has slept, or was frozen, for long may hold on to nothing but a name. */
static struct sql_lane *sql_find_idle(struct sql_backend *b)
{
    struct sql_lane *lane;
    while ((lane = sql_find(b, SQL_IDLE)) != NULL && sql_link_is_stale(&lane->link))
        sql_link_drop(&lane->link);
    return lane;
}

static unsigned sql_connected(const struct sql_backend *b)
{
    return sql_count(b, SQL_IDLE) + sql_count(b, SQL_BUSY);
}

static void sql_connect_more(struct sql_backend *b, uint64_t now)
{
    unsigned wanted = 0;
    unsigned coming = sql_count(b, SQL_CONNECTING);
    struct sql_lane *lane;
    LIST_FOREACH (node, &b->jobs.waiting) {
        wanted++;
    }
    if (b->failures > 0 && (now < b->not_before_ms || coming > 0))
        return; /* one tries for all */
    while (coming < wanted && (lane = sql_find(b, SQL_DOWN)) != NULL) {
        sql_link_connect(&lane->link);
        coming++;
        if (b->failures > 0)
            return;
    }
}

/* Nobody is connected, nor about to be, and there is no use in waiting. */
static bool sql_is_away(const struct sql_backend *b, uint64_t now)
{
    return b->down_since != 0 && (b->is_hard || now >= b->down_since + b->options.wait_ms) &&
           sql_connected(b) + sql_count(b, SQL_CONNECTING) == 0;
}

static void sql_on_timer(uv_timer_t *timer)
{
    struct sql_backend *b = timer->data;
    later_add(b->jobs.later, &b->jobs.turn);
}

/* The nearest moment at which something has changed for who waits. */
static void sql_arm(struct sql_backend *b, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    LIST_FOREACH (node, &b->jobs.waiting) {
        uint64_t deadline = sql_job_deadline(CONTAINER_OF(node, struct sql_job, link)) + 1;
        next = deadline < next ? deadline : next;
    }
    if (next != UINT64_MAX && b->failures > 0) {
        uint64_t patience = b->down_since != 0 ? b->down_since + b->options.wait_ms : now;
        if (b->not_before_ms > now && b->not_before_ms < next)
            next = b->not_before_ms;
        if (patience > now && patience < next)
            next = patience;
    }
    if (next == UINT64_MAX)
        (void)uv_timer_stop(&b->timer);
    else
        ASSERT(uv_timer_start(&b->timer, sql_on_timer, next > now ? next - now : 1, 0) == 0);
}

static void sql_give_up_waiting(struct sql_backend *b, enum err_code code, const char *why)
{
    while (!list_is_empty(&b->jobs.waiting))
        sql_job_give_up(CONTAINER_OF(b->jobs.waiting.next, struct sql_job, link), code, why);
}

static void sql_on_turn(struct later_item *item)
{
    struct sql_backend *b = CONTAINER_OF(item, struct sql_backend, jobs.turn);
    uint64_t now = clock_mono_ms();
    struct list_node waiting;
    if (b->closing) { /* … and a statement has just ended */
        sql_give_up_waiting(b, ERR_CANCELLED, "closing");
        return;
    }
    list_take(&waiting, &b->jobs.waiting);
    while (!list_is_empty(&waiting)) {
        struct sql_job *job = CONTAINER_OF(waiting.next, struct sql_job, link);
        struct sql_lane *lane;
        list_remove(&job->link);
        if (sql_job_is_over(job))
            continue;
        if ((lane = sql_find_idle(b)) == NULL)
            list_add(&b->jobs.waiting, &job->link);
        else if (sql_job_start(job, &lane->link))
            lane->job = job;
    }
    if (!list_is_empty(&b->jobs.waiting))
        sql_connect_more(b, now);
    if (sql_is_away(b, now))
        sql_give_up_waiting(b, ERR_UNAVAILABLE, b->jobs.why.msg);
    sql_arm(b, now);
}

static void sql_run(struct store_backend *backend, struct store_op *op)
{
    sql_job_new(&backend_of(backend)->jobs, op);
}

/* --- purging --------------------------------------------------------------------------------- */

static void sql_release(struct sql_backend *b);

static void purge_work(struct work *w)
{
    struct sql_backend *b = CONTAINER_OF(w, struct sql_backend, purge);
    struct err err;
    b->purged = 0;
    b->purge_err.code = ERR_OK;
    if (sql_purge_work(&b->options, &b->stop, &b->purged, &err) != ERR_OK)
        b->purge_err = err;
    sql_release(b);
}

static void purge_on_dropped(struct work *w)
{
    sql_release(CONTAINER_OF(w, struct sql_backend, purge));
}

static void purge_on_done(struct work *w)
{
    struct sql_backend *b = CONTAINER_OF(w, struct sql_backend, purge);
    b->purging = false;
    if (b->purge_err.code != ERR_OK)
        log_warn("store", "what has expired could not be removed: %s", b->purge_err.msg);
    else if (b->purged > 0)
        log_info("store", "removed %llu expired documents", (unsigned long long)b->purged);
    if (!b->closing)
        deadline_set(&b->deadlines, CLASS_PURGE, &b->purge_due);
}

static void purge_start(struct sql_backend *b)
{
    if (b->jobs.ttl_s == 0 || b->purging)
        return;
    b->purging = true;
    b->purge = (struct work){.run = purge_work, .done = purge_on_done, .dropped = purge_on_dropped};
    atomic_fetch_add(&b->users, 1);
    workers_add(b->workers, &b->purge);
}

static void purge_on_due(struct deadline *d)
{
    purge_start(CONTAINER_OF(d, struct sql_backend, purge_due));
}

/* --- connections ----------------------------------------------------------------------------- */

static void sql_note_failure(struct sql_backend *b, const struct sql_link *l)
{
    uint64_t now = clock_mono_ms();
    uint64_t pause = PAUSE_MAX_MS;
    uint64_t patience;
    uint16_t jitter;
    b->handshakes = l->is_handshake ? b->handshakes + 1 : 0;
    b->is_hard = l->is_hard && (!l->is_handshake || b->handshakes >= HANDSHAKES_LOST);
    if (b->down_since == 0 && sql_connected(b) == 0)
        b->down_since = now;
    if (!b->is_hard && b->failures < 6)
        pause = (uint64_t)PAUSE_MS << b->failures;
    b->failures++;
    b->jobs.why = l->err;
    random_bytes(&jitter, sizeof(jitter));
    b->not_before_ms = now + pause / 2 + jitter % (pause / 2 + 1);
    patience = b->down_since + b->options.wait_ms;
    if (!b->is_hard && b->down_since != 0 && now < patience && b->not_before_ms > patience)
        b->not_before_ms = patience; /* the last try before those who wait are told */
}

/* A connection that was lost, or not used, is no failure: it is made again when it is wanted, at
 * once if it was the only one that was given. */
static void sql_on_link_changed(struct sql_link *l)
{
    struct sql_backend *b = CONTAINER_OF(l, struct sql_lane, link)->b;
    if (l->state == SQL_IDLE && l->is_new) {
        b->failures = b->handshakes = 0;
        b->down_since = 0;
        b->jobs.why.code = ERR_OK;
        if (!b->purging && b->purge.run == NULL)
            purge_start(b); /* the first connection */
    } else if (l->is_refused) {
        sql_note_failure(b, l);
    } else if (b->down_since == 0 && sql_connected(b) == 0) {
        b->failures = b->handshakes = 0;
    }
    later_add(b->jobs.later, &b->jobs.turn);
}

/* --- opening --------------------------------------------------------------------------------- */

/* A thread that is stuck in the library when the store is closed keeps what it works with. */
static void sql_release(struct sql_backend *b)
{
    if (atomic_fetch_sub(&b->users, 1) > 1)
        return;
    for (unsigned i = 0; i < b->lanes; i++)
        sql_link_done(&b->lane[i].link);
    sql_options_done(&b->options);
    free(b);
}

static void sql_hold_link(struct sql_link *l)
{
    atomic_fetch_add(&CONTAINER_OF(l, struct sql_lane, link)->b->users, 1);
}

static void sql_release_link(struct sql_link *l)
{
    sql_release(CONTAINER_OF(l, struct sql_lane, link)->b);
}

static void sql_start(struct sql_backend *b, uv_loop_t *loop, struct later *later)
{
    struct sql_link_needs needs = {.loop = loop,
                                   .later = later,
                                   .options = &b->options,
                                   .hold = sql_hold_link,
                                   .release = sql_release_link};
    b->lanes = b->options.pool;
    b->base.parallel = b->lanes;
    b->jobs.ttl_s = b->options.ttl_s;
    b->jobs.later = later;
    later_item_init(&b->jobs.turn, sql_on_turn);
    list_init(&b->jobs.waiting);
    atomic_init(&b->stop, false);
    atomic_init(&b->users, 1);
    ASSERT(uv_timer_init(loop, &b->timer) == 0);
    b->timer.data = b;
    sql_link_classes(b->class, b->options.timeout_ms);
    b->class[CLASS_PURGE] = (struct deadline_class){.ms = PURGE_MS, .over = purge_on_due};
    deadlines_init(&b->deadlines, loop, b->class, CLASSES);
    deadline_init(&b->purge_due);
    b->workers = workers_new(loop, b->lanes + 1);
    needs.workers = b->workers;
    needs.deadlines = &b->deadlines;
    for (unsigned i = 0; i < b->lanes; i++) {
        b->lane[i].b = b;
        b->lane[i].link.changed = sql_on_link_changed;
        b->lane[i].link.done = sql_on_statement_done;
        sql_link_init(&b->lane[i].link, &needs);
    }
}

static enum err_code sql_open(struct store_backend **ret, uv_loop_t *loop, struct later *later,
                              struct store_url *url, struct err *err)
{
    static bool library_knows;
    struct sql_backend *b = xcalloc(1, sizeof(*b));
    if (sql_options_read(&b->options, url, err) != ERR_OK) {
        free(b);
        return ERR_INVALID;
    }
    if (!library_knows)
        sql_global_init();
    library_knows = true;
    sql_start(b, loop, later);
    *ret = &b->base;
    return ERR_OK;
}

/* --- closing --------------------------------------------------------------------------------- */

static void sql_part_closed(struct sql_backend *b)
{
    if (--b->open_parts > 0)
        return;
    ASSERT(list_is_empty(&b->jobs.waiting) && !b->jobs.turn.queued);
    void (*closed)(void *ctx) = b->closed;
    void *ctx = b->closed_ctx;
    sql_release(b);
    closed(ctx);
}

static void sql_on_timer_closed(uv_handle_t *handle)
{
    sql_part_closed(handle->data);
}

static void sql_on_deadlines_closed(struct deadlines *ds)
{
    sql_part_closed(CONTAINER_OF(ds, struct sql_backend, deadlines));
}

static void sql_on_workers_closed(void *ctx, unsigned stuck)
{
    struct sql_backend *b = ctx;
    (void)stuck;
    sql_part_closed(b);
}

/* The links are closed, or a thread has them. */
static void sql_end(struct sql_backend *b)
{
    uint64_t now = clock_mono_ms();
    b->open_parts = 3;
    for (unsigned i = 0; i < b->lanes; i++)
        sql_link_abandon(&b->lane[i].link);
    workers_close(b->workers, b->close_at > now ? b->close_at - now : 0, sql_on_workers_closed, b);
    deadlines_close(&b->deadlines, sql_on_deadlines_closed);
    uv_close((uv_handle_t *)&b->timer, sql_on_timer_closed);
}

static void sql_on_link_closed(struct sql_link *l)
{
    struct sql_backend *b = CONTAINER_OF(l, struct sql_lane, link)->b;
    if (--b->open_links == 0)
        sql_end(b);
}

/* A statement that was cut ends very soon, and a handle that is being closed too. */
static void sql_on_close_over(uv_timer_t *timer)
{
    struct sql_backend *b = timer->data;
    for (unsigned i = 0; i < b->lanes; i++) {
        if (sql_link_is_on_loop(&b->lane[i].link)) {
            ASSERT(uv_timer_start(timer, sql_on_close_over, 1, 0) == 0);
            return;
        }
    }
    b->open_links = UINT_MAX; /* whoever comes back now is too late */
    sql_end(b);
}

static void sql_close(struct store_backend *backend, uint64_t wait_ms, void (*closed)(void *ctx),
                      void *ctx)
{
    struct sql_backend *b = backend_of(backend);
    b->closing = true;
    b->closed = closed;
    b->closed_ctx = ctx;
    b->close_at = clock_mono_ms() + wait_ms;
    atomic_store(&b->stop, true);
    sql_give_up_waiting(b, ERR_CANCELLED, "closing");
    deadline_clear(&b->purge_due);
    ASSERT(uv_timer_start(&b->timer, sql_on_close_over, wait_ms, 0) == 0);
    b->open_links = b->lanes;
    for (unsigned i = 0; i < b->lanes; i++)
        sql_link_close(&b->lane[i].link, sql_on_link_closed);
}

const struct store_ops store_mysql_ops = {
    .scheme = "mysql",
    .parallel = 1, /* `pool` */
    .interval_ms = 200,
    .value_max = STORE_VALUE_MAX,
    .open = sql_open,
    .run = sql_run,
    .close = sql_close,
};
