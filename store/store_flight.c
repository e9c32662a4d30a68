/* Operations on their way: see the drawing in store_private.h. */
#include "store_private.h"

#include <stdlib.h>

unsigned store_key_hash(const char *key)
{
    unsigned hash = 2166136261u; /* FNV-1a */
    for (; *key != '\0'; key++)
        hash = (hash ^ (unsigned char)*key) * 16777619u;
    return hash;
}

static bool doc_writes(const struct store_doc *doc)
{
    return doc->verb != STORE_GET;
}

static bool doc_has_value(const struct store_doc *doc)
{
    return doc->verb == STORE_PUT || doc->verb == STORE_CREATE;
}

bool store_doc_ends_op(const struct store_doc *doc)
{
    switch (doc->result) {
    case ERR_OK: return false;
    case ERR_NOT_FOUND:
    case ERR_CORRUPT:
    case ERR_TOO_LARGE: return doc->verb != STORE_GET;
    default: return true;
    }
}

bool store_op_goes_on(struct store_op *op, unsigned i, const struct err *err)
{
    bool ends = store_doc_ends_op(&op->doc[i]);
    if (err->code != ERR_OK && (ends || op->err.code == ERR_OK))
        op->err = *err;
    return !ends;
}

/* --- answers --------------------------------------------------------------------------------- */

static void flight_free_if_over(struct flight *f)
{
    if (f->state == FLIGHT_ENDED && f->asked == NULL) {
        free(f->op.page);
        free(f);
    }
}

static void flight_on_answer(struct later_item *item)
{
    struct flight *f = CONTAINER_OF(item, struct flight, answer);
    struct store *s = f->store;
    struct store_op *asked = f->asked;
    f->asked = NULL;
    flight_free_if_over(f);
    asked->done(asked); /* may free it, ask for more, close the store */
    closer_release(&s->closer);
}

/* The caller's op is whole from here on, whatever the backend does with the copy. */
static void flight_tell(struct flight *f)
{
    ASSERT(!f->told);
    f->told = true;
    f->store->stats.ops++;
    later_add(f->store->later, &f->answer);
}

/* … without the backend: doc `at` has failed, the ones behind it have `rest`. */
static void flight_tell_failure(struct flight *f, unsigned at, enum err_code rest,
                                const struct err *err)
{
    struct store_op *asked = f->asked;
    for (unsigned i = 0; i < asked->n; i++)
        asked->doc[i].result = i == at ? err->code : rest;
    if (asked->page != NULL)
        asked->page->count = 0;
    asked->err = *err;
    flight_tell(f);
}

static void flight_tell_results(struct flight *f)
{
    struct store_op *asked = f->asked;
    for (unsigned i = 0; i < asked->n; i++) {
        asked->doc[i].result = f->op.doc[i].result;
        if (asked->doc[i].verb == STORE_GET) {
            asked->doc[i].value = f->op.doc[i].value;
            f->op.doc[i].value = NULL;
        }
    }
    if (asked->page != NULL)
        *asked->page = *f->op.page;
    asked->err = f->op.err;
    flight_tell(f);
}

/* --- rows ------------------------------------------------------------------------------------ */

static struct list_node *flight_row(struct store *s, const char *key)
{
    return &s->row[store_key_hash(key) % STORE_BUCKETS];
}

static const char *claim_key(const struct flight_claim *claim)
{
    return claim->flight->op.doc[claim->doc].key;
}

static void flight_claim(struct flight *f, unsigned doc)
{
    struct flight_claim *claim = &f->claim[doc];
    struct list_node *row = flight_row(f->store, f->op.doc[doc].key);
    claim->flight = f;
    claim->doc = doc;
    LIST_FOREACH (node, row) {
        struct flight_claim *other = CONTAINER_OF(node, struct flight_claim, row);
        if (other->flight != f && strcmp(claim_key(other), claim_key(claim)) == 0)
            f->blockers++;
    }
    list_add(row, &claim->row);
}

static void flight_set_ready(struct flight *f)
{
    f->state = FLIGHT_READY;
    list_remove(&f->op.link);
    list_add(f->op.page != NULL ? &f->store->lists : &f->store->ready, &f->op.link);
}

static void flight_unclaim(struct flight *f, unsigned doc)
{
    struct flight_claim *claim = &f->claim[doc];
    struct list_node *row = flight_row(f->store, f->op.doc[doc].key);
    for (struct list_node *node = claim->row.next; node != row; node = node->next) {
        struct flight_claim *other = CONTAINER_OF(node, struct flight_claim, row);
        if (other->flight == f || strcmp(claim_key(other), claim_key(claim)) != 0)
            continue;
        if (--other->flight->blockers == 0)
            flight_set_ready(other->flight);
    }
    list_remove(&claim->row);
}

bool flight_key_busy(const struct store *s, const char *key)
{
    const struct list_node *row = &s->row[store_key_hash(key) % STORE_BUCKETS];
    LIST_FOREACH (node, row) {
        if (strcmp(claim_key(CONTAINER_OF(node, struct flight_claim, row)), key) == 0)
            return true;
    }
    return false;
}

/* --- life ------------------------------------------------------------------------------------ */

static void flight_take_values(struct flight *f)
{
    for (unsigned i = 0; i < f->op.n; i++) {
        struct store_doc *from = &f->asked->doc[i];
        if (doc_has_value(from) && from->value != NULL) {
            f->op.doc[i].value = from->value;
            f->bytes += from->value->len;
        }
        from->value = NULL;
    }
}

struct flight *flight_new(struct store *s, struct store_op *asked)
{
    struct flight *f = xcalloc(1, sizeof(*f));
    ASSERT(asked->n <= STORE_DOCS_MAX && (asked->page != NULL) == (asked->n == 0));
    f->store = s;
    f->asked = asked;
    f->state = FLIGHT_BLOCKED;
    asked->err.code = ERR_OK;
    asked->err.msg[0] = '\0';
    asked->started_ms = clock_mono_ms();
    if (asked->deadline_ms == 0)
        asked->deadline_ms = STORE_DEADLINE_MS;
    f->op = *asked;
    for (unsigned i = 0; i < asked->n; i++) {
        f->op.doc[i].result = ERR_CANCELLED;
        f->op.doc[i].value = NULL;
    }
    flight_take_values(f);
    if (asked->page != NULL) {
        f->op.page = xmalloc(sizeof(*f->op.page));
        *f->op.page = *asked->page;
    }
    later_item_init(&f->answer, flight_on_answer);
    list_add(&s->blocked, &f->op.link);
    list_add(&s->all, &f->all);
    s->flights++;
    s->bytes += f->bytes;
    closer_hold(&s->closer);
    return f;
}

/* The backend has no more to do with it. */
static void flight_end(struct flight *f)
{
    struct store *s = f->store;
    for (unsigned i = 0; i < f->op.n; i++) {
        if (f->claim[i].flight != NULL)
            flight_unclaim(f, i);
        blob_unref(f->op.doc[i].value); /* also an answer that came too late */
    }
    list_remove(&f->op.link);
    list_remove(&f->all);
    s->flights--;
    s->bytes -= f->bytes;
    f->state = FLIGHT_ENDED;
    flight_free_if_over(f);
}

static void flight_fail(struct flight *f, unsigned doc, const struct err *err)
{
    f->store->stats.failures++;
    flight_tell_failure(f, doc, ERR_CANCELLED, err);
    flight_end(f);
}

void flight_refuse(struct flight *f, enum err_code code, const char *why)
{
    struct err err;
    (void)err_set(&err, code, "%s", why);
    flight_fail(f, 0, &err);
}

static enum err_code flight_check_doc(const struct flight *f, const struct store_doc *doc,
                                      struct err *err)
{
    size_t value_max = f->store->ops->value_max;
    if (!store_key_ok((struct slice){doc->key, strnlen(doc->key, sizeof(doc->key))}))
        return err_set(err, ERR_INVALID, "not a key");
    if (!doc_has_value(doc) || (doc->value == NULL && f->op.prepare != NULL))
        return ERR_OK; /* it has none, or will have one */
    if (doc->value == NULL || doc->value->len == 0)
        return err_set(err, ERR_INVALID, "an empty document");
    if (doc->value->len > STORE_VALUE_MAX || doc->value->len > value_max)
        return err_set(err, ERR_TOO_LARGE, "a document of %zu bytes: at most %zu are kept",
                       doc->value->len, value_max);
    return ERR_OK;
}

static bool flight_check(struct flight *f)
{
    struct err err;
    const struct store_page *page = f->op.page;
    if (page != NULL && (page->limit == 0 || page->limit > STORE_PAGE_MAX ||
                         memchr(page->cursor, '\0', sizeof(page->cursor)) == NULL)) {
        flight_refuse(f, ERR_INVALID, "not a page that can be listed");
        return false;
    }
    for (unsigned i = 0; i < f->op.n; i++) {
        if (flight_check_doc(f, &f->op.doc[i], &err) == ERR_OK)
            continue;
        flight_fail(f, i, &err);
        return false;
    }
    return true;
}

void flight_queue(struct flight *f)
{
    if (!flight_check(f))
        return;
    for (unsigned i = 0; i < f->op.n; i++) {
        flight_claim(f, i);
        if (doc_writes(&f->op.doc[i]) && f->store->on_write != NULL)
            f->store->on_write(f->store->on_write_ctx, f->op.doc[i].key);
    }
    if (f->blockers == 0)
        flight_set_ready(f);
}

static bool flight_is_too_late(const struct flight *f)
{
    bool writes = false;
    for (unsigned i = 0; i < f->op.n; i++)
        writes = writes || doc_writes(&f->op.doc[i]);
    return writes && f->op.not_after_ms != 0 && clock_mono_ms() > f->op.not_after_ms;
}

/* False: refused. */
static bool flight_prepare(struct flight *f)
{
    struct store *s = f->store;
    if (f->op.prepare == NULL)
        return true;
    f->asked->prepare(f->asked);
    f->op.prepare = NULL;
    s->bytes -= f->bytes;
    flight_take_values(f);
    s->bytes += f->bytes;
    return flight_check(f);
}

void flight_start(struct flight *f)
{
    struct store *s = f->store;
    ASSERT(f->state == FLIGHT_READY && f->blockers == 0);
    if (flight_is_too_late(f)) {
        flight_refuse(f, ERR_CANCELLED, "not written: its time was over");
        return;
    }
    if (!flight_prepare(f))
        return;
    list_remove(&f->op.link);
    list_add(&s->flying, &f->op.link);
    if (f->op.page != NULL)
        s->listing = true;
    else
        s->running++;
    s->ops->run(s->backend, &f->op);
    ASSERT(f->state == FLIGHT_READY); /* no backend is done inside run() */
    f->state = FLIGHT_RUNNING;
}

/* The result that ended it, or else the first that is a failure. */
static enum err_code flight_outcome(struct store_op *op)
{
    enum err_code code = op->n == 0 ? op->err.code : ERR_OK;
    bool ended = false;
    for (unsigned i = 0; i < op->n && !ended; i++) {
        enum err_code result = op->doc[i].result;
        ended = store_doc_ends_op(&op->doc[i]);
        if (ended || (code == ERR_OK && result != ERR_NOT_FOUND))
            code = result;
    }
    if (code == ERR_OK)
        op->err.code = ERR_OK;
    else if (op->err.code != code)
        (void)err_set(&op->err, code, "%s", err_name(code));
    return code;
}

void store_op_done(struct store_op *op)
{
    struct flight *f = CONTAINER_OF(op, struct flight, op);
    struct store *s = f->store;
    ASSERT(f->state == FLIGHT_RUNNING);
    for (unsigned i = 0; i < op->n; i++)
        ASSERT(op->doc[i].verb != STORE_GET ||
               (op->doc[i].value != NULL) == (op->doc[i].result == ERR_OK));
    if (op->page != NULL)
        s->listing = false;
    else
        s->running--;
    store_note_end(s, op, flight_outcome(op), f->told);
    if (!f->told)
        flight_tell_results(f);
    flight_end(f);
    store_wake(s);
}

/* --- time ------------------------------------------------------------------------------------ */

/* A running op may still happen: all of it is in doubt. A waiting one has not. */
static void flight_time_out(struct flight *f, const char *why)
{
    struct err err;
    bool runs = f->state == FLIGHT_RUNNING;
    (void)err_set(&err, ERR_TIMEOUT, "%s within %llu ms", runs ? why : "had to wait, not begun",
                  (unsigned long long)f->op.deadline_ms);
    store_note_timeout(f->store, &f->op, runs, &err);
    flight_tell_failure(f, 0, runs ? ERR_TIMEOUT : ERR_CANCELLED, &err);
    if (!runs)
        flight_end(f);
}

void flight_expire(struct store *s, uint64_t now)
{
    LIST_FOREACH_SAFE (node, next, &s->all) {
        struct flight *f = CONTAINER_OF(node, struct flight, all);
        if (!f->told && f->op.started_ms + f->op.deadline_ms <= now)
            flight_time_out(f, "the store did not answer");
    }
}

void flight_cancel_lists(struct store *s, const char *why)
{
    struct err err;
    (void)err_set(&err, ERR_CANCELLED, "%s", why);
    LIST_FOREACH_SAFE (node, next, &s->all) {
        struct flight *f = CONTAINER_OF(node, struct flight, all);
        if (f->told || f->op.page == NULL)
            continue;
        flight_tell_failure(f, 0, ERR_CANCELLED, &err);
        if (f->state != FLIGHT_RUNNING)
            flight_end(f);
    }
}

void flight_put_off(struct store *s, uint64_t by_ms)
{
    LIST_FOREACH (node, &s->all)
        CONTAINER_OF(node, struct flight, all)->op.deadline_ms += by_ms;
}

uint64_t flight_next_deadline(const struct store *s)
{
    uint64_t next = UINT64_MAX;
    LIST_FOREACH (node, &s->all) {
        const struct flight *f = CONTAINER_OF(node, struct flight, all);
        uint64_t deadline = f->op.started_ms + f->op.deadline_ms;
        if (!f->told && deadline < next)
            next = deadline;
    }
    return next;
}

void flight_give_up(struct store *s)
{
    struct err err;
    (void)err_set(&err, ERR_TIMEOUT, "closing: the store did not answer in time");
    LIST_FOREACH_SAFE (node, next, &s->all) {
        struct flight *f = CONTAINER_OF(node, struct flight, all);
        if (f->told)
            continue;
        if (f->state == FLIGHT_RUNNING)
            flight_tell_failure(f, 0, ERR_TIMEOUT, &err);
        else
            flight_refuse(f, ERR_CANCELLED, "closing");
    }
}
