/* What every store must do, whatever keeps the documents: `contract_store <name>` runs the suite on
 * one row of backends.c. */
#include "backends.h"
#include "store_ask.h"
#include "store_private.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

enum { LONG_MS = 60000, TROUBLE_MS = 100, SKIPPED = 77, ROUNDS = 10 };

struct room {
    struct loop_fixture f;
    struct store *s;
    struct store_stats before; /* the test began */
};

static const struct backend_row *row;
static char url[BACKEND_URL_MAX];

static void open_store(struct room *r)
{
    assert_int_equal(store_open(&r->s, &r->f.loop, &r->f.later, url, NULL), ERR_OK);
}

/* The store has seen bad times, which are over: nothing of them is left. */
static void live_through_trouble(struct room *r)
{
    struct ask a = {.op = {.deadline_ms = TROUBLE_MS}};
    assert_int_equal(ask_put(&r->f, r->s, "trouble", "0"), ERR_OK);
    row->trouble(true);
    ask_add(&a, STORE_PUT, "trouble", "1");
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    row->trouble(false);
    assert_true(a.op.doc[0].result == ERR_UNAVAILABLE || a.op.doc[0].result == ERR_TIMEOUT);
    assert_false(store_healthy(r->s, NULL));
    ask_done(&a);
    assert_int_equal(ask_put(&r->f, r->s, "trouble", "2"), ERR_OK);
    assert_true(store_healthy(r->s, NULL));
    assert_int_equal(ask_remove(&r->f, r->s, "trouble"), ERR_OK);
}

static int set_up(void **state)
{
    static struct room r;
    assert_true(row->start(url));
    loop_fixture_open(&r.f);
    open_store(&r);
    if (row->trouble != NULL)
        live_through_trouble(&r);
    r.before = store_stats(r.s);
    *state = &r;
    return 0;
}

static uint64_t docs_written(const struct room *r)
{
    return store_stats(r->s).docs_written - r->before.docs_written;
}

static int tear_down(void **state)
{
    struct room *r = *state;
    if (r->s != NULL)
        ask_close(&r->f, r->s, LONG_MS);
    loop_fixture_close(&r->f);
    row->stop();
    return 0;
}

/* --- documents ------------------------------------------------------------------------------- */

static void check_bytes(struct room *r, const char *key, struct slice bytes, bool durable)
{
    struct ask a = {.done = false};
    struct blob *found = NULL;
    ask_add_bytes(&a, STORE_PUT, key, bytes)->durable = durable;
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.doc[0].result, ERR_OK);
    ask_done(&a);
    assert_int_equal(ask_get(&r->f, r->s, key, &found), ERR_OK);
    assert_true(slice_eq(blob_slice(found), bytes));
    blob_unref(found);
}

static void bytes_come_back_as_they_were(void **state)
{
    struct room *r = *state;
    static const size_t sizes[] = {1, 500, 4096, 10000, 200000, 4 * 1024 * 1024};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        char *bytes = xmalloc(sizes[i]);
        for (size_t k = 0; k < sizes[i]; k++)
            bytes[k] = (char)(k * 7 + (k >> 8)); /* NUL, line ends, what is no UTF-8 */
        check_bytes(r, "sizes", (struct slice){bytes, sizes[i]}, i % 2 == 0);
        free(bytes);
    }
    check_bytes(r, "sizes", SLICE("{\"a\":\"\\u0000\xf0\x9f\x8e\xa8\"}"), true);
    assert_true(ask_is(&r->f, r->s, "sizes", "{\"a\":\"\\u0000\xf0\x9f\x8e\xa8\"}"));
}

static void deep_nesting_comes_back(void **state)
{
    struct room *r = *state;
    enum { DEPTH = 5000 };
    char *bytes = xmalloc(DEPTH);
    memset(bytes, '[', DEPTH / 2);
    memset(bytes + DEPTH / 2, ']', DEPTH / 2);
    check_bytes(r, "nested", (struct slice){bytes, DEPTH}, false);
    free(bytes);
}

static void a_shorter_value_leaves_no_tail(void **state)
{
    struct room *r = *state;
    static const size_t sizes[] = {200000, 500, 70000, 1};
    char *bytes = xmalloc(sizes[0]);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        memset(bytes, (int)('a' + i), sizes[i]);
        check_bytes(r, "shrinks", (struct slice){bytes, sizes[i]}, false);
    }
    free(bytes);
}

static void the_largest_value_is_kept_and_one_byte_more_is_not(void **state)
{
    struct room *r = *state;
    char *bytes = xcalloc(1, STORE_VALUE_MAX + 1);
    check_bytes(r, "large", (struct slice){bytes, STORE_VALUE_MAX}, false);
    struct ask a = {.done = false};
    ask_add_bytes(&a, STORE_PUT, "larger", (struct slice){bytes, STORE_VALUE_MAX + 1});
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.doc[0].result, ERR_TOO_LARGE);
    ask_done(&a);
    assert_true(ask_is(&r->f, r->s, "larger", NULL));
    free(bytes);
}

static void what_was_never_stored_is_not_found(void **state)
{
    struct room *r = *state;
    assert_true(ask_is(&r->f, r->s, "never", NULL)); /* before there is even a place for it */
    assert_int_equal(ask_put(&r->f, r->s, "ever", "1"), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "never", NULL));
    assert_true(store_healthy(r->s, NULL));
}

static void what_was_removed_is_gone(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_remove(&r->f, r->s, "k"), ERR_OK); /* idempotent */
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
    assert_int_equal(ask_remove(&r->f, r->s, "k"), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "k", NULL));
    assert_int_equal(ask_remove(&r->f, r->s, "k"), ERR_OK);
    assert_int_equal(ask_create(&r->f, r->s, "k", "2"), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "k", "2"));
}

static void keys_are_told_apart(void **state)
{
    struct room *r = *state;
    static const char *const keys[] = {"key",  "Key",       "KEY",       "key.",    "key~task",
                                       "_key", "key~end.1", "key~end.2", "key.json"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        assert_int_equal(ask_put(&r->f, r->s, keys[i], keys[i]), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        assert_true(ask_is(&r->f, r->s, keys[i], keys[i]));
}

static void the_longest_key_is_a_key(void **state)
{
    struct room *r = *state;
    char key[STORE_KEY_MAX + 1];
    memset(key, 'k', STORE_KEY_MAX);
    key[STORE_KEY_MAX] = '\0';
    key[128] = '~';
    assert_int_equal(ask_put(&r->f, r->s, key, "1"), ERR_OK);
    assert_true(ask_is(&r->f, r->s, key, "1"));
    assert_int_equal(ask_create(&r->f, r->s, key, "2"), ERR_EXISTS);
    assert_int_equal(ask_remove(&r->f, r->s, key), ERR_OK);
}

static void bad_keys_are_refused(void **state)
{
    struct room *r = *state;
    static const char *const keys[] = {"",    "..",        "../a",  "a/b", ".a",
                                       "a b", "a\xc3\xa9", "a.tmp", "a~"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct blob *value = NULL;
        assert_int_equal(ask_put(&r->f, r->s, keys[i], "1"), ERR_INVALID);
        assert_int_equal(ask_get(&r->f, r->s, keys[i], &value), ERR_INVALID);
        assert_int_equal(ask_remove(&r->f, r->s, keys[i]), ERR_INVALID);
    }
}

/* --- create and order ------------------------------------------------------------------------ */

static void the_first_to_create_wins(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_create(&r->f, r->s, "k~run.1", "first"), ERR_OK);
    assert_int_equal(ask_create(&r->f, r->s, "k~run.1", "second"), ERR_EXISTS);
    assert_true(ask_is(&r->f, r->s, "k~run.1", "first"));
    assert_true(store_healthy(r->s, NULL));
    assert_int_equal(ask_put(&r->f, r->s, "k~run.1", "third"), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "k~run.1", "third"));
}

static enum err_code put_order(struct room *r, enum store_verb verb, const char *value,
                               uint64_t order)
{
    struct ask a = {.done = false};
    ask_add(&a, verb, "ordered", value);
    a.op.doc[0].order = order;
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    ask_done(&a);
    return a.op.doc[0].result;
}

static void an_older_value_never_replaces_a_newer_one(void **state)
{
    struct room *r = *state;
    assert_int_equal(put_order(r, STORE_CREATE, "5", 5), ERR_OK);
    assert_int_equal(put_order(r, STORE_PUT, "3", 3), ERR_OK); /* what is stored is newer: fine */
    assert_true(ask_is(&r->f, r->s, "ordered", "5"));
    assert_int_equal(put_order(r, STORE_PUT, "5 again", 5), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "ordered", "5 again"));
    assert_int_equal(put_order(r, STORE_PUT, "next attempt", UINT64_C(1) << 32), ERR_OK);
    assert_int_equal(put_order(r, STORE_PUT, "old attempt", UINT32_MAX), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "ordered", "next attempt"));
    assert_int_equal(ask_remove(&r->f, r->s, "ordered"), ERR_OK);
    assert_int_equal(put_order(r, STORE_PUT, "1", 1), ERR_OK); /* nothing is left to compare */
    assert_true(ask_is(&r->f, r->s, "ordered", "1"));
}

/* --- operations ------------------------------------------------------------------------------ */

static void documents_of_an_op_are_done_in_order(void **state)
{
    struct room *r = *state;
    struct ask a = {.done = false};
    ask_add(&a, STORE_CREATE, "t~end.1", "end");
    ask_add(&a, STORE_PUT, "t", "nodes");
    ask_add(&a, STORE_GET, "t~none", NULL); /* nothing there: no failure */
    ask_add(&a, STORE_GET, "t", NULL);
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.err.code, ERR_OK);
    assert_int_equal(a.op.doc[2].result, ERR_NOT_FOUND);
    assert_string_equal(a.op.doc[3].value->bytes, "nodes");
    ask_done(&a);
}

static void the_first_failure_ends_an_op(void **state)
{
    struct room *r = *state;
    struct ask a = {.done = false};
    assert_int_equal(ask_create(&r->f, r->s, "t~end.1", "mine"), ERR_OK);
    ask_add(&a, STORE_PUT, "before", "1");
    ask_add(&a, STORE_CREATE, "t~end.1", "theirs");
    ask_add(&a, STORE_PUT, "t", "1");
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.doc[0].result, ERR_OK);
    assert_int_equal(a.op.doc[1].result, ERR_EXISTS);
    assert_int_equal(a.op.doc[2].result, ERR_CANCELLED);
    assert_int_equal(a.op.err.code, ERR_EXISTS);
    ask_done(&a);
    assert_true(ask_is(&r->f, r->s, "before", "1"));
    assert_true(ask_is(&r->f, r->s, "t~end.1", "mine"));
    assert_true(ask_is(&r->f, r->s, "t", NULL));
}

static void past_its_moment_nothing_becomes_visible(void **state)
{
    struct room *r = *state;
    static const enum store_verb verbs[] = {STORE_PUT, STORE_CREATE, STORE_REMOVE};
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        struct ask a = {.op = {.not_after_ms = 1}};
        ask_add(&a, verbs[i], verbs[i] == STORE_CREATE ? "new" : "k",
                verbs[i] == STORE_REMOVE ? NULL : "2");
        ask_start(&a, r->s);
        ask_wait(&a, &r->f);
        assert_int_equal(a.op.doc[0].result, ERR_CANCELLED);
        ask_done(&a);
    }
    assert_true(ask_is(&r->f, r->s, "k", "1"));
    assert_true(ask_is(&r->f, r->s, "new", NULL));
    struct ask b = {.op = {.not_after_ms = clock_mono_ms() + LONG_MS}};
    ask_add(&b, STORE_PUT, "k", "3");
    ask_start(&b, r->s);
    ask_wait(&b, &r->f);
    assert_int_equal(b.op.doc[0].result, ERR_OK);
    ask_done(&b);
}

static void writes_of_one_turn_end_as_the_last_one(void **state)
{
    struct room *r = *state;
    static struct ask a[100];
    char value[16];
    for (unsigned i = 0; i < ARRAY_LEN(a); i++) {
        a[i] = (struct ask){.done = false};
        (void)snprintf(value, sizeof(value), "%u", i);
        ask_add(&a[i], STORE_PUT, "k", value);
        ask_start(&a[i], r->s);
    }
    assert_true(ask_is(&r->f, r->s, "k", "99")); /* one reads what one wrote */
    for (unsigned i = 0; i < ARRAY_LEN(a); i++) {
        assert_int_equal(a[i].op.doc[0].result, ERR_OK);
        ask_done(&a[i]);
    }
}

static void what_is_being_written_is_read(void **state)
{
    struct room *r = *state;
    struct ask put = {.done = false};
    struct ask removal = {.done = false};
    assert_int_equal(ask_put(&r->f, r->s, "k", "old"), ERR_OK);
    ask_add(&put, STORE_PUT, "k", "new");
    ask_start(&put, r->s);
    assert_true(ask_is(&r->f, r->s, "k", "new"));
    ask_add(&removal, STORE_REMOVE, "k", NULL);
    ask_start(&removal, r->s);
    assert_true(ask_is(&r->f, r->s, "k", NULL));
    ask_done(&put);
    ask_done(&removal);
}

/* What is refused without being asked for is told later, too. */
static void no_answer_comes_inside_the_call_or_twice(void **state)
{
    struct room *r = *state;
    static const struct {
        enum store_verb verb;
        const char *key, *value;
    } table[] = {
        {STORE_PUT, "k", "1"},     {STORE_CREATE, "k", "2"},  {STORE_CREATE, "new", "1"},
        {STORE_GET, "k", NULL},    {STORE_GET, "none", NULL}, {STORE_REMOVE, "k", NULL},
        {STORE_REMOVE, "k", NULL}, {STORE_PUT, "..", "1"},    {STORE_GET, "", NULL},
        {STORE_PUT, "k", ""},
    };
    struct ask a[ARRAY_LEN(table)];
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        a[i] = (struct ask){.done = false};
        ask_add(&a[i], table[i].verb, table[i].key, table[i].value);
        ask_start(&a[i], r->s); /* looks */
    }
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        ask_wait(&a[i], &r->f);
    loop_run_for(&r->f, 20);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        assert_int_equal(a[i].times, 1);
        ask_done(&a[i]);
    }
}

static void many_keys_are_written_side_by_side(void **state)
{
    struct room *r = *state;
    static struct ask a[200];
    char key[16];
    for (unsigned i = 0; i < ARRAY_LEN(a); i++) {
        a[i] = (struct ask){.done = false};
        (void)snprintf(key, sizeof(key), "k%u", i);
        ask_add(&a[i], STORE_PUT, key, key);
        ask_start(&a[i], r->s);
    }
    for (unsigned i = 0; i < ARRAY_LEN(a); i++) {
        ask_wait(&a[i], &r->f);
        assert_int_equal(a[i].op.doc[0].result, ERR_OK);
        ask_done(&a[i]);
        (void)snprintf(key, sizeof(key), "k%u", i);
        assert_true(ask_is(&r->f, r->s, key, key));
    }
    assert_true(docs_written(r) == ARRAY_LEN(a));
    assert_true(store_stats(r->s).docs_read - r->before.docs_read == ARRAY_LEN(a));
}

/* --- lists ----------------------------------------------------------------------------------- */

static struct store_page page;

static enum err_code list(struct room *r, unsigned limit, const char *cursor)
{
    struct ask a = {.op = {.page = &page}};
    memset(&page, 0xee, sizeof(page));
    page.limit = limit;
    (void)snprintf(page.cursor, sizeof(page.cursor), "%s", cursor);
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.times, 1);
    return a.op.err.code;
}

static void a_list_has_the_newest_first_page_by_page(void **state)
{
    struct room *r = *state;
    char key[32];
    char cursor[STORE_KEY_MAX + 1] = "";
    bool seen[25] = {false};
    unsigned count = 0;
    assert_int_equal(list(r, 10, ""), ERR_OK); /* of an empty store */
    assert_int_equal(page.count, 0);
    assert_string_equal(page.next, "");
    for (unsigned i = 0; i < 25; i++) {
        (void)snprintf(key, sizeof(key), "id%u~task", i);
        assert_int_equal(ask_put(&r->f, r->s, key, "1"), ERR_OK);
        (void)snprintf(key, sizeof(key), "id%u", i);
        assert_int_equal(ask_put(&r->f, r->s, key, "1"), ERR_OK);
        loop_run_for(&r->f, 11); /* clocks of files tick no faster */
    }
    assert_int_equal(ask_create(&r->f, r->s, "id1~run.1", "1"), ERR_OK);
    do {
        assert_int_equal(list(r, 10, cursor), ERR_OK);
        assert_true(page.count > 0 && page.count <= 10);
        for (unsigned i = 0; i < page.count; i++) {
            unsigned id = 0;
            assert_int_equal(sscanf(page.keys[i], "id%u~task", &id), 1);
            assert_int_equal(id, 24 - count);
            assert_false(seen[id]);
            seen[id] = true;
            count++;
        }
        memcpy(cursor, page.next, sizeof(cursor));
    } while (cursor[0] != '\0');
    assert_int_equal(count, 25);
    assert_int_equal(ask_put(&r->f, r->s, "id3~task", "2"), ERR_OK);
    assert_int_equal(list(r, 1, ""), ERR_OK);
    assert_string_equal(page.keys[0], "id3~task");
}

static void a_list_goes_on_behind_any_key(void **state)
{
    struct room *r = *state;
    char cursor[STORE_KEY_MAX + 1];
    static struct store_page all;
    for (unsigned i = 0; i < 5; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "id%u~task", i);
        assert_int_equal(ask_put(&r->f, r->s, key, "1"), ERR_OK);
    }
    assert_int_equal(list(r, STORE_PAGE_MAX, ""), ERR_OK);
    all = page;
    assert_int_equal(all.count, 5);
    assert_string_equal(all.next, "");
    for (unsigned i = 0; i < all.count; i++) {
        store_page_cursor(&all, i, cursor);
        assert_int_equal(list(r, STORE_PAGE_MAX, cursor), ERR_OK);
        assert_int_equal(page.count, all.count - i - 1);
        for (unsigned n = 0; n < page.count; n++)
            assert_string_equal(page.keys[n], all.keys[i + 1 + n]);
    }
}

static void what_is_no_cursor_is_refused(void **state)
{
    struct room *r = *state;
    static const char *const cursors[] = {
        "x",  "../../etc/passwd", "0123456789abcdef:../a~task", "0123456789ABCDEF:a~task",
        "-1", "0123456789abcdef"};
    for (size_t i = 0; i < ARRAY_LEN(cursors); i++)
        assert_int_equal(list(r, 10, cursors[i]), ERR_INVALID);
    assert_true(store_healthy(r->s, NULL));
}

/* --- live documents -------------------------------------------------------------------------- */

struct doc {
    struct store_live live;
    unsigned value;
};

static struct blob *doc_on_render(struct store_live *live, uint64_t *ret_order)
{
    struct doc *d = CONTAINER_OF(live, struct doc, live);
    char text[16];
    *ret_order = d->value;
    (void)snprintf(text, sizeof(text), "%u", d->value);
    return blob_new(slice_of(text));
}

static bool live_ended;

static void doc_on_end(struct store_live *live)
{
    (void)live;
    live_ended = true;
}

static void until_written(struct room *r, uint64_t docs)
{
    uint64_t end = clock_mono_ms() + LONG_MS;
    while (docs_written(r) < docs && clock_mono_ms() < end)
        (void)uv_run(&r->f.loop, UV_RUN_NOWAIT);
    assert_true(docs_written(r) >= docs);
}

static void doc_init(struct room *r, struct doc *d, const char *key)
{
    *d = (struct doc){.value = 0};
    store_live_init(&d->live, r->s, key);
    d->live.render = doc_on_render;
}

static void doc_end(struct room *r, struct doc *d)
{
    live_ended = false;
    store_live_end(&d->live, doc_on_end);
    loop_run_until(&r->f, &live_ended, "the end of a live document");
}

static void a_live_document_is_written_as_it_is(void **state)
{
    struct room *r = *state;
    struct doc d;
    doc_init(r, &d, "live~task");
    for (d.value = 1; d.value < 500; d.value++) {
        store_touch(&d.live);
        if (d.value % 50 == 0)
            (void)uv_run(&r->f.loop, UV_RUN_NOWAIT);
    }
    until_written(r, 1);
    store_touch(&d.live);
    until_written(r, docs_written(r) + 1);
    assert_true(ask_is(&r->f, r->s, "live~task", "500"));
    assert_true(docs_written(r) < 20);
    doc_end(r, &d);
}

/* … of one turn, and of many. */
static void of_a_hundred_values_two_are_written_and_one_each_interval(void **state)
{
    struct room *r = *state;
    struct doc d;
    doc_init(r, &d, "live~task");
    for (d.value = 1; d.value < 100; d.value++)
        store_touch(&d.live);
    store_touch(&d.live);
    uint64_t began = clock_mono_ms();
    until_written(r, 1);
    assert_true(ask_is(&r->f, r->s, "live~task", "100"));
    while (d.value < 120) {
        d.value++;
        store_touch(&d.live);
        loop_run_for(&r->f, 1);
    }
    while (d.live.dirty || d.live.writing)
        loop_run_for(&r->f, 1);
    uint64_t elapsed = clock_mono_ms() - began;
    assert_true(docs_written(r) <= 2 + elapsed / r->s->ops->interval_ms);
    assert_true(ask_is(&r->f, r->s, "live~task", "120"));
    doc_end(r, &d);
}

/* The last word on a task comes as soon as it is said: the interval has just begun. */
static void the_last_word_waits_for_no_interval(void **state)
{
    struct room *r = *state;
    bool good = false;
    for (unsigned i = 0; i < ROUNDS && !good; i++) { /* a busy machine may be too slow for it */
        struct doc d;
        uint64_t written = docs_written(r);
        doc_init(r, &d, "live~task");
        store_touch(&d.live);
        until_written(r, written + 1);
        store_touch(&d.live); /* … which has to wait */
        live_ended = false;
        store_live_end(&d.live, doc_on_end);
        assert_int_equal(ask_put(&r->f, r->s, "live~task", "end"), ERR_OK);
        good = clock_mono_ms() - d.live.wrote_at < r->s->ops->interval_ms;
        assert_true(live_ended);
        assert_true(ask_is(&r->f, r->s, "live~task", "end"));
    }
    assert_true(good);
}

/* --- the end --------------------------------------------------------------------------------- */

static void store_on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static void closing_finishes_what_was_asked_for(void **state)
{
    struct room *r = *state;
    static struct ask a[50];
    char key[16];
    for (unsigned i = 0; i < ARRAY_LEN(a); i++) {
        a[i] = (struct ask){.done = false};
        (void)snprintf(key, sizeof(key), "k%u", i);
        ask_add(&a[i], STORE_PUT, key, key);
        ask_start(&a[i], r->s);
    }
    ask_close(&r->f, r->s, LONG_MS);
    r->s = NULL;
    for (unsigned i = 0; i < ARRAY_LEN(a); i++) {
        assert_true(a[i].done);
        assert_int_equal(a[i].op.doc[0].result, ERR_OK);
        ask_done(&a[i]);
    }
}

/* … though its interval has not passed. */
static void closing_writes_the_last_value_of_a_live_document(void **state)
{
    struct room *r = *state;
    struct doc d;
    bool closed = false;
    doc_init(r, &d, "live~task");
    d.value = 1;
    store_touch(&d.live);
    until_written(r, 1);
    d.value = 2;
    store_touch(&d.live);
    store_close(r->s, LONG_MS, store_on_closed, &closed);
    while (d.live.dirty)
        (void)uv_run(&r->f.loop, UV_RUN_NOWAIT);
    live_ended = false;
    store_live_end(&d.live, doc_on_end); /* … once that write is done */
    loop_run_until(&r->f, &closed, "the end of the store");
    assert_true(live_ended);
    r->s = NULL;
    if (!row->is_shared) /* it went with the store */
        return;
    open_store(r);
    assert_true(ask_is(&r->f, r->s, "live~task", "2"));
}

static void an_open_store_can_be_closed_at_once(void **state)
{
    struct room *r = *state;
    ask_close(&r->f, r->s, 0);
    r->s = NULL;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(bytes_come_back_as_they_were),
        TEST(deep_nesting_comes_back),
        TEST(a_shorter_value_leaves_no_tail),
        TEST(the_largest_value_is_kept_and_one_byte_more_is_not),
        TEST(what_was_never_stored_is_not_found),
        TEST(what_was_removed_is_gone),
        TEST(keys_are_told_apart),
        TEST(the_longest_key_is_a_key),
        TEST(bad_keys_are_refused),
        TEST(the_first_to_create_wins),
        TEST(an_older_value_never_replaces_a_newer_one),
        TEST(documents_of_an_op_are_done_in_order),
        TEST(the_first_failure_ends_an_op),
        TEST(past_its_moment_nothing_becomes_visible),
        TEST(writes_of_one_turn_end_as_the_last_one),
        TEST(what_is_being_written_is_read),
        TEST(no_answer_comes_inside_the_call_or_twice),
        TEST(many_keys_are_written_side_by_side),
        TEST(a_list_has_the_newest_first_page_by_page),
        TEST(a_list_goes_on_behind_any_key),
        TEST(what_is_no_cursor_is_refused),
        TEST(a_live_document_is_written_as_it_is),
        TEST(of_a_hundred_values_two_are_written_and_one_each_interval),
        TEST(the_last_word_waits_for_no_interval),
        TEST(closing_finishes_what_was_asked_for),
        TEST(closing_writes_the_last_value_of_a_live_document),
        TEST(an_open_store_can_be_closed_at_once),
    };
    row = argc == 2 ? backend_find(argv[1]) : NULL;
    if (row == NULL) {
        (void)fprintf(stderr, "which store?\n");
        return 64;
    }
    if (!row->start(url))
        return SKIPPED;
    row->stop();
    return cmocka_run_group_tests_name(row->name, tests, NULL, NULL);
}
