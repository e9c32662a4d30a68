/* Documents, one after another:
 *
 *     get      read the row [, its parts]
 *     put      [read which parts the row names, write new parts,] write the row [, drop the old]
 *     create   [write parts,] write the row if there is none; refused, or not answered: read it
 *     remove   look for parts, [read which of them the row names,] delete the row [, drop them]
 *
 * What stands in brackets is for documents of more than one row. The server itself compares orders
 * (a condition on a column) and sees to it that a create finds no row. When a create is refused or
 * not answered, the row is read and compared: an earlier attempt of ours may have made it, and its
 * bytes hold a nonce.
 *
 * A set of parts that a row has ceased to name is never named again, so whoever saw it there and
 * then wrote or deleted the row may drop it, and a reader whose parts go meanwhile looks again. Who
 * fails before a row can name his parts drops them himself.
 *
 * What stays is of no use to anybody, and goes with the document (ots_sweep.c) or with the ttl of
 * the table: parts of a writer that was killed before it had written the row, of a write whose fate
 * is not known, of two who replaced the same version at once, and of a version that a small one
 * replaced: to read what a write is about to replace would make each one cost twice. */
#include "ots_job.h"

#include "codec.h"
#include "log.h"
#include "ots_message.h"
#include "ots_sweep.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const set_columns[] = {"o", "p", "n", NULL};

static struct store_doc *job_doc(const struct ots_job *job)
{
    return &job->op->doc[job->at];
}

static unsigned part_count(size_t len)
{
    return (unsigned)((len + OTS_PART_MAX - 1) / OTS_PART_MAX);
}

/* --- the end of an op ------------------------------------------------------------------------ */

struct ots_job *ots_job_new(const struct ots_place *place, struct store_op *op)
{
    struct ots_job *job = xcalloc(1, sizeof(*job));
    job->place = place;
    job->op = op;
    buf_init(&job->from, SIZE_MAX);
    buf_init(&job->parts, SIZE_MAX);
    buf_init(&job->value, STORE_VALUE_MAX);
    return job;
}

void ots_job_end(struct ots_job *job)
{
    struct store_op *op = job->op;
    ots_list_done(&job->list);
    buf_done(&job->from);
    buf_done(&job->parts);
    buf_done(&job->value);
    free(job);
    store_op_done(op);
}

void ots_job_end_list(struct ots_job *job)
{
    job->op->err = job->err;
    ots_job_end(job);
}

static void job_end_doc(struct ots_job *job, enum err_code code)
{
    if (code == ERR_OK || code == ERR_NOT_FOUND)
        job->err.code = ERR_OK;
    job_doc(job)->result = code;
    if (store_op_goes_on(job->op, job->at, &job->err) && ++job->at < job->op->n)
        ots_job_start_doc(job);
    else
        ots_job_end(job);
}

enum err_code ots_job_fail(struct ots_job *job, enum ots_verdict verdict)
{
    const struct ots_ask *ask = &job->ask;
    struct err *err = &job->err;
    switch (verdict) {
    case OTS_LATE:
        if (ask->maybe || clock_mono_ms() >= ots_ask_gives_up_at(ask))
            return err_set(err, ERR_TIMEOUT, "not answered in time");
        return err_set(err, ERR_CANCELLED, "not written: its time was over");
    case OTS_NO_TABLE:
        return err_set(err, ERR_UNAVAILABLE, "there is no table %.64s; create=1 makes it",
                       job->place->table);
    case OTS_TOO_LARGE: return err_set(err, ERR_TOO_LARGE, "%.160s", ask->err.msg);
    default:
        return err_set(err, ask->err.code == ERR_TIMEOUT ? ERR_TIMEOUT : ERR_UNAVAILABLE, "%.160s",
                       ask->err.msg);
    }
}

/* --- requests -------------------------------------------------------------------------------- */

void ots_job_ask(struct ots_job *job, const char *path, bool writes,
                 void (*done)(struct ots_ask *ask))
{
    job->ask.path = path;
    job->ask.asked_at = job->op->started_ms;
    job->ask.patience_ms = &job->op->deadline_ms;
    job->ask.not_after_ms = writes ? job->op->not_after_ms : 0;
    job->ask.done = done;
    ots_ask_start(job->place->client, &job->ask);
}

static void job_ask_row(struct ots_job *job, const char *name, const char *const columns[],
                        void (*done)(struct ots_ask *ask))
{
    struct buf key;
    buf_init(&key, SIZE_MAX);
    buf_init(&job->ask.body, SIZE_MAX);
    ots_key_write(&key, name, false);
    ots_get_body(&job->ask.body, job->place->table, buf_slice(&key), columns);
    buf_done(&key);
    ots_job_ask(job, "/GetRow", false, done);
}

static void job_ask_put(struct ots_job *job, const char *name, const struct ots_doc *doc,
                        const struct ots_condition *condition, void (*done)(struct ots_ask *ask))
{
    struct buf row;
    buf_init(&row, SIZE_MAX);
    buf_init(&job->ask.body, SIZE_MAX);
    ots_doc_write(&row, name, doc);
    ots_write_body(&job->ask.body, job->place->table, buf_slice(&row), condition);
    buf_done(&row);
    ots_job_ask(job, "/PutRow", true, done);
}

/* --- a table that is not there --------------------------------------------------------------- */

static void job_on_table(struct ots_ask *ask)
{
    struct ots_job *job = ots_job_of(ask);
    buf_done(&ask->answer);
    if (ask->verdict == OTS_OK)
        log_info("store", "ots: made the table %s", job->place->table);
    if (ask->verdict == OTS_OK || ask->verdict == OTS_TABLE_EXISTS) {
        job->restart(job);
        return;
    }
    enum err_code code = ots_job_fail(job, ask->verdict);
    (void)err_prefix(&job->err, "making the table");
    if (job->op->page != NULL)
        ots_job_end_list(job);
    else
        job_end_doc(job, code);
}

bool ots_job_makes_table(struct ots_job *job)
{
    const struct ots_place *place = job->place;
    if (job->ask.verdict != OTS_NO_TABLE || !place->create_table || job->made_table)
        return false;
    buf_done(&job->ask.answer);
    job->made_table = true;
    buf_init(&job->ask.body, SIZE_MAX);
    ots_create_table_body(&job->ask.body, place->table, "k", place->ttl_s);
    ots_job_ask(job, "/CreateTable", false, job_on_table);
    return true;
}

/* --- reading --------------------------------------------------------------------------------- */

static void job_on_row_read(struct ots_ask *ask);
static void job_on_part_read(struct ots_ask *ask);

static void job_read_end(struct ots_job *job, enum err_code code)
{
    if (code == ERR_CORRUPT)
        (void)err_set(&job->err, code, "what is stored under %.128s is damaged", job_doc(job)->key);
    job->on_read(job, code);
}

static void job_read_part(struct ots_job *job)
{
    struct ots_name name = ots_name_of_part(job_doc(job)->key, job->set, job->part);
    job_ask_row(job, name.text, ots_doc_columns, job_on_part_read);
}

static void job_read_row(struct ots_job *job)
{
    job_ask_row(job, ots_name_of_key(job_doc(job)->key).text, ots_doc_columns, job_on_row_read);
}

/* Whoever replaces a document drops its parts while others read them: then its row names others.
 * Each time round there was a newer version, and the op's own end is theirs, too. */
static void job_read_again(struct ots_job *job)
{
    memcpy(job->lost, job->set, sizeof(job->lost));
    buf_reset(&job->value);
    job_read_row(job);
}

/* An answer that was damaged says nothing of what is stored. */
static enum err_code job_read_code(struct ots_job *job)
{
    return job->ask.verdict == OTS_OK ? ERR_OK : ots_job_fail(job, job->ask.verdict);
}

static void job_on_part_read(struct ots_ask *ask)
{
    struct ots_job *job = ots_job_of(ask);
    struct ots_doc part;
    struct ots_name name = ots_name_of_part(job_doc(job)->key, job->set, job->part);
    enum err_code code = job_read_code(job);
    if (code == ERR_OK)
        code = ots_doc_read(buf_slice(&ask->answer), name.text, &part);
    if (code == ERR_OK &&
        (part.len > job->len - job->value.len || buf_append(&job->value, part.bytes) != ERR_OK))
        code = ERR_CORRUPT;
    buf_done(&ask->answer);
    job->part++;
    if (code == ERR_NOT_FOUND)
        job_read_again(job);
    else if (code != ERR_OK || job->value.len == job->len)
        job_read_end(job, code);
    else if (job->part == part_count(job->len))
        job_read_end(job, ERR_CORRUPT);
    else
        job_read_part(job);
}

static void job_on_row_read(struct ots_ask *ask)
{
    struct ots_job *job = ots_job_of(ask);
    struct ots_doc doc = {.set = ""};
    if (ots_job_makes_table(job))
        return;
    enum err_code code = job_read_code(job);
    if (code == ERR_OK)
        code = ots_doc_read(buf_slice(&ask->answer), ots_name_of_key(job_doc(job)->key).text, &doc);
    if (code == ERR_OK && buf_append(&job->value, doc.bytes) != ERR_OK)
        code = ERR_CORRUPT;
    buf_done(&ask->answer);
    if (code == ERR_OK && doc.set[0] != '\0' && strcmp(doc.set, job->lost) == 0)
        code = ERR_CORRUPT; /* it still names what is not there */
    if (code != ERR_OK || doc.set[0] == '\0') {
        job_read_end(job, code);
        return;
    }
    memcpy(job->set, doc.set, sizeof(job->set));
    job->len = doc.len;
    job->part = 0;
    job_read_part(job);
}

static void job_read(struct ots_job *job, void (*on_read)(struct ots_job *job, enum err_code code))
{
    buf_reset(&job->value);
    job->lost[0] = '\0';
    job->on_read = on_read;
    job_read_row(job);
}

static void job_get_end(struct ots_job *job, enum err_code code)
{
    if (code == ERR_OK)
        job_doc(job)->value = blob_new(buf_slice(&job->value));
    job_end_doc(job, code);
}

/* --- dropping parts -------------------------------------------------------------------------- */

static void job_drop_next(struct ots_job *job);

/* It is no failure of the document's when its old parts stay. */
static void job_on_dropped(struct ots_ask *ask)
{
    struct ots_job *job = ots_job_of(ask);
    buf_done(&ask->answer);
    job->part++;
    if (ask->verdict == OTS_OK)
        job_drop_next(job);
    else
        job_end_doc(job, job->result);
}

static void job_drop_next(struct ots_job *job)
{
    if (job->part < part_count(job->dropped_len))
        ots_job_ask_delete(job, ots_name_of_part(job_doc(job)->key, job->dropped, job->part).text,
                           false, job_on_dropped);
    else
        job_end_doc(job, job->result);
}

static void job_drop(struct ots_job *job, const char set[OTS_SET_LEN + 1], size_t len,
                     enum err_code result)
{
    memcpy(job->dropped, set, sizeof(job->dropped));
    job->dropped_len = set[0] != '\0' ? len : 0;
    job->result = result;
    job->part = 0;
    job_drop_next(job);
}

/* --- creating -------------------------------------------------------------------------------- */

/* Fails; parts whose row was not written, and will not be, are dropped. */
static void job_fail_write(struct ots_job *job)
{
    enum err_code code = ots_job_fail(job, job->ask.verdict);
    size_t len = job_doc(job)->value->len;
    job_drop(job, job->set, job->ask.maybe ? 0 : len, code);
}

/* Whose is the row that a create found, or perhaps made? Parts of ours that it does not name are
 * dropped; job->old_set has kept their name. (An earlier op of the same bytes has its own.) */
static void job_on_compared(struct ots_job *job, enum err_code code)
{
    struct store_doc *doc = job_doc(job);
    struct err *err = &job->err;
    bool named = strcmp(job->set, job->old_set) == 0;
    if (code == ERR_OK && slice_eq(buf_slice(&job->value), blob_slice(doc->value)))
        job_drop(job, job->old_set, named ? 0 : doc->value->len, ERR_OK);
    else if (code == ERR_OK || (job->was_refused && code == ERR_NOT_FOUND))
        job_drop(job, job->old_set, doc->value->len,
                 err_set(err, ERR_EXISTS, "another one exists"));
    else
        job_end_doc(job, err_set(err, ERR_UNAVAILABLE, "whether it was created is not known"));
}

static void job_on_created(struct ots_ask *ask)
{
    struct ots_job *job = ots_job_of(ask);
    if (ots_job_makes_table(job))
        return;
    buf_done(&ask->answer);
    if (ask->verdict == OTS_REFUSED || (ask->verdict != OTS_OK && ask->maybe)) {
        job->was_refused = ask->verdict == OTS_REFUSED;
        memcpy(job->old_set, job->set, sizeof(job->old_set));
        job_read(job, job_on_compared);
        return;
    }
    if (ask->verdict == OTS_OK)
        job_end_doc(job, ERR_OK);
    else
        job_fail_write(job);
}

/* --- writing --------------------------------------------------------------------------------- */

/* Refused: what is stored is newer, which is as good; then it is our own parts that go. */
static void job_on_put(struct ots_ask *ask)
{
    struct ots_job *job = ots_job_of(ask);
    if (ots_job_makes_table(job))
        return;
    buf_done(&ask->answer);
    if (ask->verdict == OTS_OK)
        job_drop(job, job->old_set, job->old_len, ERR_OK);
    else if (ask->verdict == OTS_REFUSED)
        job_drop(job, job->set, job_doc(job)->value->len, ERR_OK);
    else
        job_fail_write(job);
}

static void job_write_row(struct ots_job *job)
{
    struct store_doc *doc = job_doc(job);
    struct ots_doc row = {.order = doc->order, .bytes = SLICE_EMPTY, .len = doc->value->len};
    struct ots_condition condition = {OTS_IGNORE, NULL, 0};
    bool creates = doc->verb == STORE_CREATE;
    memcpy(row.set, job->set, sizeof(row.set));
    if (row.set[0] == '\0')
        row.bytes = blob_slice(doc->value);
    if (creates)
        condition.row = OTS_EXPECT_NOT_EXIST;
    else if (doc->order != 0)
        condition = (struct ots_condition){OTS_IGNORE, ots_order_columns[0], (int64_t)doc->order};
    job_ask_put(job, ots_name_of_key(doc->key).text, &row, &condition,
                creates ? job_on_created : job_on_put);
}

static void job_write_part(struct ots_job *job);

static void job_on_part_written(struct ots_ask *ask)
{
    struct ots_job *job = ots_job_of(ask);
    if (ots_job_makes_table(job))
        return;
    buf_done(&ask->answer);
    if (ask->verdict != OTS_OK)
        job_drop(job, job->set, (size_t)(job->part + ask->maybe) * OTS_PART_MAX,
                 ots_job_fail(job, ask->verdict));
    else if (++job->part < part_count(job_doc(job)->value->len))
        job_write_part(job);
    else
        job_write_row(job);
}

static void job_write_part(struct ots_job *job)
{
    struct store_doc *doc = job_doc(job);
    struct ots_condition condition = {OTS_IGNORE, NULL, 0};
    size_t at = (size_t)job->part * OTS_PART_MAX;
    size_t left = doc->value->len - at;
    struct ots_doc part = {
        .bytes = {doc->value->bytes + at, left < OTS_PART_MAX ? left : OTS_PART_MAX}};
    job_ask_put(job, ots_name_of_part(doc->key, job->set, job->part).text, &part, &condition,
                job_on_part_written);
}

static void job_write(struct ots_job *job)
{
    job->set[0] = '\0';
    if (job_doc(job)->value->len <= OTS_PART_MAX) {
        job_write_row(job);
        return;
    }
    random_hex(job->set, OTS_SET_LEN / 2);
    job->part = 0;
    job_write_part(job);
}

static void job_on_removed(struct ots_ask *ask)
{
    struct ots_job *job = ots_job_of(ask);
    buf_done(&ask->answer);
    if (ask->verdict == OTS_OK)
        job_drop(job, job->old_set, job->old_len, ERR_OK);
    else
        job_end_doc(job, ots_job_fail(job, ask->verdict));
}

static void job_delete_row(struct ots_job *job)
{
    ots_job_ask_delete(job, ots_name_of_key(job_doc(job)->key).text, true, job_on_removed);
}

/* Which parts does the row name that is about to go? Whatever else is wrong with it is no matter.
 */
static void job_on_old_read(struct ots_ask *ask)
{
    struct ots_job *job = ots_job_of(ask);
    struct store_doc *doc = job_doc(job);
    struct ots_name name = ots_name_of_key(doc->key);
    struct ots_doc old;
    if (ots_job_makes_table(job))
        return;
    if (ask->verdict == OTS_OK &&
        ots_doc_read(buf_slice(&ask->answer), name.text, &old) == ERR_OK) {
        memcpy(job->old_set, old.set, sizeof(job->old_set));
        job->old_len = old.len;
    }
    buf_done(&ask->answer);
    if (ask->verdict != OTS_OK)
        job_end_doc(job, ots_job_fail(job, ask->verdict));
    else if (doc->verb == STORE_REMOVE)
        ots_sweep_drop(job, job_delete_row);
    else
        job_write(job);
}

static void job_read_old(struct ots_job *job)
{
    job_ask_row(job, ots_name_of_key(job_doc(job)->key).text, set_columns, job_on_old_read);
}

static void job_on_looked(struct ots_job *job, enum err_code code)
{
    if (code == ERR_OK)
        job_read_old(job);
    else if (code == ERR_NOT_FOUND)
        job_delete_row(job);
    else
        job_end_doc(job, code);
}

void ots_job_start_doc(struct ots_job *job)
{
    struct store_doc *doc = job_doc(job);
    bool writes = doc->verb == STORE_PUT || doc->verb == STORE_CREATE;
    bool is_large = writes && doc->value->len > OTS_PART_MAX;
    job->restart = ots_job_start_doc;
    job->old_set[0] = '\0';
    if (doc->verb == STORE_GET)
        job_read(job, job_get_end);
    else if (doc->verb == STORE_REMOVE)
        ots_sweep_look(job, job_on_looked);
    else if (doc->verb == STORE_PUT && is_large)
        job_read_old(job);
    else
        job_write(job);
}
