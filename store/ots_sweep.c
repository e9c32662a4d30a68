/* Removing a document takes away whatever parts of it there are, also those that no row names:
 *
 *     look: which parts are there? ── none ─────────────────────────────► delete the row
 *                 └► which of them does its row name? ─► drop the others ───┘
 *
 * What no row names may be of a writer who has not come to the row yet, so it must be older than
 * any operation lasts. (Who is frozen in the middle of one for so long, and whose document is
 * removed meanwhile, then writes what nobody looks for any more.) */
#include "ots_sweep.h"

#include "ots_message.h"

enum { PARTS_SEEN_MAX = 64, ABANDONED_MS = 60 * 60 * 1000 };

static const char *sweep_key(const struct ots_job *job)
{
    return job->op->doc[job->at].key;
}

/* --- looking --------------------------------------------------------------------------------- */

static void sweep_take_row(struct ots_job *job, const struct ots_row *row)
{
    const struct ots_cell *order = ots_row_column(row, ots_order_columns[0]);
    struct slice name = row->key.bytes;
    if (order == NULL || !order->has_time || order->time_ms < 0 ||
        (uint64_t)order->time_ms + ABANDONED_MS >= clock_wall_ms() || name.len > OTS_NAME_MAX ||
        !slice_starts(name, slice_of(ots_name_before_parts(sweep_key(job)).text)) ||
        memchr(name.ptr, '\0', name.len) != NULL)
        return;
    buf_add(&job->parts, name);
    buf_add(&job->parts, (struct slice){"", 1}); /* and its NUL */
}

static enum err_code sweep_take_rows(struct ots_job *job, struct slice body)
{
    struct ots_rows rows;
    struct ots_row row;
    struct slice bytes, next;
    bool any = false;
    enum err_code code;
    if (ots_range_read(body, &bytes, &next) != ERR_OK || ots_rows_begin(&rows, bytes) != ERR_OK)
        return ERR_CORRUPT;
    for (; (code = ots_rows_next(&rows, &row)) == ERR_OK; any = true)
        sweep_take_row(job, &row);
    return code == ERR_NOT_FOUND && any ? ERR_OK : code;
}

static void sweep_on_looked(struct ots_ask *ask)
{
    struct ots_job *job = ots_job_of(ask);
    if (ots_job_makes_table(job))
        return;
    enum err_code code = ask->verdict == OTS_OK ? sweep_take_rows(job, buf_slice(&ask->answer))
                                                : ots_job_fail(job, ask->verdict);
    buf_done(&ask->answer);
    if (code == ERR_CORRUPT)
        code = err_set(&job->err, ERR_UNAVAILABLE, "a list of parts came damaged");
    job->looked(job, code);
}

void ots_sweep_look(struct ots_job *job, void (*looked)(struct ots_job *job, enum err_code code))
{
    struct ots_name from = ots_name_before_parts(sweep_key(job));
    struct ots_name behind = ots_name_behind_parts(sweep_key(job));
    struct buf first, last;
    buf_init(&first, SIZE_MAX);
    buf_init(&last, SIZE_MAX);
    ots_key_write(&first, from.text, false);
    ots_key_write(&last, behind.text, false);
    struct ots_range range = {buf_slice(&first), buf_slice(&last), ots_order_columns,
                              PARTS_SEEN_MAX};
    buf_init(&job->ask.body, SIZE_MAX);
    ots_range_body(&job->ask.body, job->place->table, &range);
    buf_done(&first);
    buf_done(&last);
    buf_reset(&job->parts);
    job->swept = 0;
    job->looked = looked;
    ots_job_ask(job, "/GetRange", false, sweep_on_looked);
}

/* --- dropping -------------------------------------------------------------------------------- */

static void sweep_next(struct ots_job *job);

/* It is no failure of the removal's when they stay. */
static void sweep_on_dropped(struct ots_ask *ask)
{
    struct ots_job *job = ots_job_of(ask);
    buf_done(&ask->answer);
    if (ask->verdict == OTS_OK)
        sweep_next(job);
    else
        job->dropped_all(job);
}

static bool is_of_row(const struct ots_job *job, const char *name)
{
    struct ots_name part = ots_name_of_part(sweep_key(job), job->old_set, 0);
    return job->old_set[0] != '\0' && strncmp(name, part.text, strlen(part.text) - 1) == 0;
}

static void sweep_next(struct ots_job *job)
{
    while (job->swept < job->parts.len) {
        const char *name = job->parts.ptr + job->swept;
        job->swept += strlen(name) + 1;
        if (!is_of_row(job, name)) {
            ots_job_ask_delete(job, name, false, sweep_on_dropped);
            return;
        }
    }
    job->dropped_all(job);
}

void ots_sweep_drop(struct ots_job *job, void (*dropped)(struct ots_job *job))
{
    job->dropped_all = dropped;
    sweep_next(job);
}

/* --- requests -------------------------------------------------------------------------------- */

void ots_job_ask_delete(struct ots_job *job, const char *name, bool is_seen,
                        void (*done)(struct ots_ask *ask))
{
    struct ots_condition condition = {OTS_IGNORE, NULL, 0};
    struct buf row;
    buf_init(&row, SIZE_MAX);
    buf_init(&job->ask.body, SIZE_MAX);
    ots_key_write(&row, name, true);
    ots_write_body(&job->ask.body, job->place->table, buf_slice(&row), &condition);
    buf_done(&row);
    ots_job_ask(job, "/DeleteRow", is_seen, done);
}
