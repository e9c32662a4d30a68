/* What can go wrong with Tablestore alone, against tests/support/tablestore.py: its errors, damaged
 * and forged answers, lost ones, credentials that change, tables that are missing, documents of
 * more than one row. */
#include "backends.h"
#include "servers.h"
#include "store_ask.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

enum { LONG_MS = 60000, MIB = 1024 * 1024 };

struct room {
    struct loop_fixture f;
    struct store *s;
};

static const struct backend_row *row;
static char url[BACKEND_URL_MAX];

/* --- steering the server --------------------------------------------------------------------- */

static void steer(const char *path, const char *body, char *ret, size_t room)
{
    server_ots_steer(row->server, path, body, ret, room);
}

/* "<operation or *> <times> <what>" */
static void fault(const char *words)
{
    steer("fault", words, NULL, 0);
}

/* How many requests of this kind have come since set_up()? */
static unsigned count_of(const char *operation)
{
    char text[1024];
    steer("counts", "", text, sizeof(text));
    const char *found = strstr(text, operation);
    return found != NULL ? (unsigned)strtoul(found + strlen(operation), NULL, 10) : 0;
}

static void use_keys(const char *words)
{
    steer("credentials", words, NULL, 0);
}

#define KEYS SERVER_OTS_ID " " SERVER_OTS_SECRET

/* --- a store --------------------------------------------------------------------------------- */

static void open_with(struct room *r, const char *format, ...) PRINTF_LIKE(2, 3);

static void open_with(struct room *r, const char *format, ...)
{
    char text[BACKEND_URL_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (r->s != NULL)
        ask_close(&r->f, r->s, LONG_MS);
    assert_int_equal(store_open(&r->s, &r->f.loop, &r->f.later, text, NULL), ERR_OK);
}

static int set_up(void **state)
{
    static struct room r;
    assert_true(row->start(url));
    steer("calm", "", NULL, 0);
    use_keys(KEYS);
    loop_fixture_open(&r.f);
    r.s = NULL;
    open_with(&r, "%s", url);
    *state = &r;
    return 0;
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

static void check_err(struct room *r, const char *text)
{
    struct err why;
    if (store_healthy(r->s, &why) || strstr(why.msg, text) == NULL)
        fail_msg("'%s' does not say '%s'", why.msg, text);
    assert_null(strstr(why.msg, SERVER_OTS_SECRET));
}

/* --- what passes ----------------------------------------------------------------------------- */

static void what_passes_is_tried_again(void **state)
{
    struct room *r = *state;
    static const char *const faults[] = {"busy",
                                         "throttled",
                                         "timeout",
                                         "drop",
                                         "html",
                                         "lose",
                                         "half",
                                         "bad-md5",
                                         "late",
                                         "unsigned",
                                         "forged",
                                         "error 500 OTSInternalServerError",
                                         "error 409 OTSRowOperationConflict"};
    struct blob *value = NULL;
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        char words[64], text[16];
        (void)snprintf(text, sizeof(text), "%zu", i);
        (void)snprintf(words, sizeof(words), "PutRow 1 %s", faults[i]);
        fault(words);
        assert_int_equal(ask_put(&r->f, r->s, "k", text), ERR_OK);
        (void)snprintf(words, sizeof(words), "GetRow 1 %s", faults[i]);
        fault(words);
        assert_int_equal(ask_get(&r->f, r->s, "k", &value), ERR_OK);
        assert_true(slice_is(blob_slice(value), text));
        blob_unref(value);
    }
    assert_true(store_healthy(r->s, NULL));
}

static void what_does_not_pass_is_told_and_not_hammered(void **state)
{
    struct room *r = *state;
    static const struct {
        const char *what;
        unsigned requests;
        enum err_code code;
        const char *says;
    } table[] = {
        {"busy", 4, ERR_UNAVAILABLE, "OTSServerBusy"},
        {"error 403 OTSNoPermissionAccess", 1, ERR_UNAVAILABLE, "OTSNoPermissionAccess"},
        {"error 400 OTSParameterInvalid", 1, ERR_UNAVAILABLE, "OTSParameterInvalid"},
        {"error 400 OTSInvalidPK", 1, ERR_UNAVAILABLE, "OTSInvalidPK"},
        {"error 301 OTSMoved", 1, ERR_UNAVAILABLE, "OTSMoved"},
        {"html", 4, ERR_UNAVAILABLE, "not by Tablestore"},
        {"unsigned", 2, ERR_UNAVAILABLE, "not signed"},
        {"forged", 2, ERR_UNAVAILABLE, "not signed"},
        {"late", 2, ERR_UNAVAILABLE, "not signed"},
    };
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        char words[64];
        steer("calm", "", NULL, 0);
        (void)snprintf(words, sizeof(words), "PutRow 99 %s", table[i].what);
        fault(words);
        assert_int_equal(ask_put(&r->f, r->s, "k", "1"), table[i].code);
        assert_int_equal(count_of("PutRow"), table[i].requests);
        check_err(r, table[i].says);
    }
}

static void a_document_too_large_for_the_service_is_no_outage(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    fault("PutRow 1 error 400 OTSOutOfRowSizeLimit");
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_TOO_LARGE);
    assert_true(store_healthy(r->s, NULL));
}

static void a_damaged_document_is_corrupt(void **state)
{
    struct room *r = *state;
    struct blob *value = NULL;
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    fault("GetRow 1 bad-crc");
    assert_int_equal(ask_get(&r->f, r->s, "k", &value), ERR_CORRUPT);
    assert_true(store_healthy(r->s, NULL));
}

static void a_damaged_answer_says_nothing_of_the_document(void **state)
{
    struct room *r = *state;
    struct blob *value = NULL;
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    fault("GetRow 99 bad-md5");
    assert_int_equal(ask_get(&r->f, r->s, "k", &value), ERR_UNAVAILABLE);
    assert_int_equal(count_of("GetRow"), 2);
    check_err(r, "damaged on its way");
}

/* --- a create whose answer is lost ----------------------------------------------------------- */

static void a_create_whose_answer_is_lost_is_ours(void **state)
{
    struct room *r = *state;
    static const char *const faults[] = {"lose", "half", "timeout", "bad-md5", "unsigned"};
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        char words[64], key[32];
        (void)snprintf(key, sizeof(key), "k~run.%zu", i);
        (void)snprintf(words, sizeof(words), "PutRow 1 %s", faults[i]);
        fault(words);
        assert_int_equal(ask_create(&r->f, r->s, key, "mine"), ERR_OK);
        assert_int_equal(ask_create(&r->f, r->s, key, "theirs"), ERR_EXISTS);
        assert_true(ask_is(&r->f, r->s, key, "mine"));
    }
}

static void a_create_that_is_never_answered_is_looked_at(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    fault("PutRow 99 timeout"); /* done each time, and never said to be */
    assert_int_equal(ask_create(&r->f, r->s, "k~run.1", "mine"), ERR_OK);
    assert_int_equal(ask_create(&r->f, r->s, "k~run.1", "theirs"), ERR_EXISTS);
    steer("calm", "", NULL, 0);
    fault("PutRow 99 drop"); /* never done */
    assert_int_equal(ask_create(&r->f, r->s, "k~run.2", "mine"), ERR_UNAVAILABLE);
    steer("calm", "", NULL, 0);
    fault("PutRow 1 lose");
    fault("GetRow 99 drop"); /* done, refused the second time, and nobody says whose it is */
    assert_int_equal(ask_create(&r->f, r->s, "k~run.3", "mine"), ERR_UNAVAILABLE);
    steer("calm", "", NULL, 0);
    assert_int_equal(ask_create(&r->f, r->s, "k~run.3", "mine"), ERR_OK); /* asked for again */
    assert_true(ask_is(&r->f, r->s, "k~run.2", NULL));
}

/* --- time ------------------------------------------------------------------------------------ */

static void past_its_moment_no_attempt_leaves(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    steer("calm", "", NULL, 0);
    fault("PutRow 3 throttled"); /* the pauses take 1,750 ms at least */
    struct ask a = {.op = {.not_after_ms = clock_mono_ms() + 1500}};
    ask_add(&a, STORE_PUT, "k", "1");
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.doc[0].result, ERR_CANCELLED);
    ask_done(&a);
    assert_true(count_of("PutRow") <= 3);
    assert_true(ask_is(&r->f, r->s, "k", "0"));
}

static void an_attempt_that_hangs_is_not_the_last(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    fault("PutRow 1 hang");
    struct ask a = {.op = {.deadline_ms = LONG_MS}};
    ask_add(&a, STORE_PUT, "k", "1");
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.doc[0].result, ERR_OK);
    ask_done(&a);
}

/* The process was frozen with a request in its hands. */
static void who_was_frozen_waits_so_much_longer(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    steer("calm", "", NULL, 0);
    fault("PutRow 2 throttled"); /* the pauses take 750 ms at least */
    struct ask a = {.op = {.deadline_ms = 500}};
    ask_add(&a, STORE_PUT, "k", "1");
    ask_start(&a, r->s);
    while (count_of("PutRow") == 0)
        (void)uv_run(&r->f.loop, UV_RUN_NOWAIT);
    store_thaw(r->s, LONG_MS);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.doc[0].result, ERR_OK);
    ask_done(&a);
}

static void one_connection_serves_many_requests(void **state)
{
    struct room *r = *state;
    char text[1024];
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    steer("counts", "", text, sizeof(text));
    assert_int_equal(count_of("connections"), 1);
}

static void a_connection_that_was_idle_too_long_is_replaced(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    steer("hang-up", "", NULL, 0);
    steer("calm", "", NULL, 0);
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "k", "1"));
    assert_int_equal(count_of("PutRow"), 1); /* nothing was sent in vain */
    assert_true(store_stats(r->s).failures == 0);
}

/* --- credentials ----------------------------------------------------------------------------- */

static void give(struct room *r, const char *id, const char *secret, const char *token)
{
    struct store_credentials c = {slice_of(id), slice_of(secret), slice_of(token)};
    store_credentials(r->s, &c);
}

/* Without any in the URL. */
static void open_unnamed(struct room *r)
{
    open_with(r, "ots://%s", strchr(url, '@') + 1);
}

static void credentials_come_with_requests_and_change(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    open_unnamed(r);
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_UNAVAILABLE);
    check_err(r, "no credentials");
    use_keys("STS.1 first/secret first+token");
    give(r, "STS.1", "first/secret", "first+token");
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
    give(r, "", "second/secret", "second+token"); /* a part is missing: not taken */
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
    give(r, "STS.2", "", "second+token");
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
    give(r, "STS.2", "second/secret", "");
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
    give(r, "STS.2", "second\r\nsecret", "second+token");
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
    use_keys("STS.2 second/secret second+token");
    assert_int_equal(ask_put(&r->f, r->s, "k", "2"), ERR_UNAVAILABLE);
    check_err(r, "OTSAuthFailed");
    give(r, "STS.2", "second/secret", "second+token");
    assert_int_equal(ask_put(&r->f, r->s, "k", "2"), ERR_OK);
    assert_true(store_healthy(r->s, NULL));
}

/* They come while a request is on its way that the server will refuse. */
static void a_refused_request_is_signed_anew_once(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    open_unnamed(r);
    give(r, "old", "old", "");
    steer("calm", "", NULL, 0);
    struct ask a = {.done = false};
    ask_add(&a, STORE_PUT, "k", "1");
    ask_start(&a, r->s);
    while (count_of("PutRow") == 0)
        (void)uv_run(&r->f.loop, UV_RUN_NOWAIT);
    give(r, SERVER_OTS_ID, SERVER_OTS_SECRET, "");
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.doc[0].result, ERR_OK);
    ask_done(&a);
    assert_int_equal(count_of("PutRow"), 2);
}

static void credentials_of_the_url_stay(void **state)
{
    struct room *r = *state;
    give(r, "others", "others", "");
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
}

static void credentials_of_the_environment(void **state)
{
    struct room *r = *state;
    static const char *const names[][3] = {
        {"ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
         "ALIBABA_CLOUD_SECURITY_TOKEN"},
        {"TABLESTORE_ACCESS_KEY_ID", "TABLESTORE_ACCESS_KEY_SECRET", "TABLESTORE_SESSION_TOKEN"},
    };
    use_keys("env env/secret env+token");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_int_equal(setenv(names[i][0], "env", 1), 0);
        assert_int_equal(setenv(names[i][1], "env/secret", 1), 0);
        assert_int_equal(setenv(names[i][2], "env+token", 1), 0);
        open_unnamed(r);
        for (size_t k = 0; k < 3; k++)
            assert_int_equal(unsetenv(names[i][k]), 0);
        assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    }
}

static void wrong_credentials_are_told_and_not_hammered(void **state)
{
    struct room *r = *state;
    use_keys("other other");
    steer("calm", "", NULL, 0);
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_UNAVAILABLE);
    assert_int_equal(count_of("PutRow"), 1);
    check_err(r, "the credentials are refused");
}

static void a_clock_that_is_wrong_is_told(void **state)
{
    struct room *r = *state;
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    steer("clock", "960", NULL, 0);
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_UNAVAILABLE);
    check_err(r, "clock");
    steer("clock", "840", NULL, 0);
    assert_int_equal(ask_put(&r->f, r->s, "k", "1"), ERR_OK);
}

/* --- tables ---------------------------------------------------------------------------------- */

static void a_missing_table_is_told(void **state)
{
    struct room *r = *state;
    struct blob *value = NULL;
    struct store_page *page = xcalloc(1, sizeof(*page));
    memcpy(strstr(url, "create=1"), "create=0", strlen("create=0"));
    open_with(r, "%s", url);
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_UNAVAILABLE);
    check_err(r, "there is no table t");
    assert_int_equal(ask_get(&r->f, r->s, "k", &value), ERR_UNAVAILABLE);
    assert_int_equal(ask_create(&r->f, r->s, "k", "1"), ERR_UNAVAILABLE);
    assert_int_equal(ask_remove(&r->f, r->s, "k"), ERR_UNAVAILABLE);
    struct ask a = {.op = {.page = page}};
    page->limit = 1;
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.err.code, ERR_UNAVAILABLE);
    free(page);
}

static void a_table_is_made_by_whatever_comes_first(void **state)
{
    struct room *r = *state;
    struct store_page *page = xcalloc(1, sizeof(*page));
    char *large = xcalloc(1, 2 * MIB + 1);
    memset(large, 'x', 2 * MIB);
    assert_true(ask_is(&r->f, r->s, "k", NULL));
    assert_true(row->start(url));
    open_with(r, "%s", url);
    assert_int_equal(ask_remove(&r->f, r->s, "k"), ERR_OK);
    assert_true(row->start(url));
    open_with(r, "%s", url);
    assert_int_equal(ask_create(&r->f, r->s, "k", large), ERR_OK);
    assert_true(row->start(url));
    open_with(r, "%s&ttl=86400", url);
    struct ask a = {.op = {.page = page}};
    page->limit = 1;
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.err.code, ERR_OK);
    assert_int_equal(count_of("CreateTable"), 4);
    free(page);
    free(large);
}

static void many_find_it_missing_at_once(void **state)
{
    struct room *r = *state;
    static struct ask a[20];
    char key[16];
    fault("PutRow 3 error 404 OTSTableNotReady"); /* as for a while after it was made */
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
    }
}

static void a_table_that_cannot_be_made_is_told(void **state)
{
    struct room *r = *state;
    fault("CreateTable 99 error 403 OTSNoPermissionAccess");
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_UNAVAILABLE);
    check_err(r, "making the table");
}

static void what_is_too_old_for_its_table_is_gone(void **state)
{
    struct room *r = *state;
    struct store_page *page = xcalloc(1, sizeof(*page));
    struct ask a = {.op = {.page = page}};
    open_with(r, "%s&ttl=86400", url);
    assert_int_equal(ask_put(&r->f, r->s, "k~task", "0"), ERR_OK);
    steer("older", "80000", NULL, 0);
    assert_int_equal(ask_put(&r->f, r->s, "l~task", "0"), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "k~task", "0"));
    steer("older", "10000", NULL, 0);
    assert_true(ask_is(&r->f, r->s, "k~task", NULL));
    assert_true(ask_is(&r->f, r->s, "l~task", "0"));
    page->limit = 10;
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.err.code, ERR_OK);
    assert_int_equal(page->count, 1);
    assert_string_equal(page->keys[0], "l~task");
    free(page);
}

static void a_list_passes_over_what_is_not_ours(void **state)
{
    struct room *r = *state;
    struct store_page *page = xcalloc(1, sizeof(*page));
    struct ask a = {.op = {.page = page}};
    assert_int_equal(ask_put(&r->f, r->s, "k~task", "0"), ERR_OK);
    steer("alien", "~ ~.a ~a~task ~a.tmp ~-a a b~task ~zz \x7f z", NULL, 0);
    page->limit = 10;
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.err.code, ERR_OK);
    assert_int_equal(page->count, 2);
    assert_string_equal(page->keys[0], "k~task");
    assert_string_equal(page->keys[1], "zz~task"); /* which might be one */
    free(page);
}

static void a_list_that_comes_damaged_is_no_list(void **state)
{
    struct room *r = *state;
    struct store_page *page = xcalloc(1, sizeof(*page));
    struct ask a = {.op = {.page = page}};
    assert_int_equal(ask_put(&r->f, r->s, "k~task", "0"), ERR_OK);
    fault("GetRange 1 bad-crc");
    page->limit = 10;
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    assert_int_equal(a.op.err.code, ERR_CORRUPT);
    assert_int_equal(page->count, 0);
    free(page);
}

/* --- documents of more than one row ---------------------------------------------------------- */

static char *large_text(size_t len, char letter)
{
    char *text = xmalloc(len + 1);
    memset(text, letter, len);
    text[len] = '\0';
    return text;
}

static void parts_go_when_nobody_names_them(void **state)
{
    struct room *r = *state;
    char *a = large_text(3 * MIB, 'a');
    char *b = large_text(2 * MIB + 1, 'b');
    assert_int_equal(ask_put(&r->f, r->s, "k", a), ERR_OK);
    assert_int_equal(count_of("rows"), 1 + 3);
    assert_int_equal(ask_put(&r->f, r->s, "k", b), ERR_OK);
    assert_int_equal(count_of("rows"), 1 + 3);
    assert_true(ask_is(&r->f, r->s, "k", b));
    assert_int_equal(ask_create(&r->f, r->s, "k", a), ERR_EXISTS);
    assert_int_equal(count_of("rows"), 1 + 3);
    assert_int_equal(ask_create(&r->f, r->s, "k~end.1", a), ERR_OK);
    assert_int_equal(ask_create(&r->f, r->s, "k~end.1", a), ERR_OK); /* the same bytes: ours */
    assert_true(ask_is(&r->f, r->s, "k~end.1", a));
    assert_int_equal(ask_remove(&r->f, r->s, "k~end.1"), ERR_OK);
    assert_int_equal(ask_remove(&r->f, r->s, "k"), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "k", NULL));
    assert_true(ask_is(&r->f, r->s, "k~end.1", NULL));
    assert_int_equal(count_of("rows"), 0);
    free(a);
    free(b);
}

static void a_large_create_whose_answer_is_lost_is_ours(void **state)
{
    struct room *r = *state;
    char *a = large_text(2 * MIB, 'a');
    assert_int_equal(ask_put(&r->f, r->s, "k", "0"), ERR_OK);
    fault("PutRow 3 lose"); /* both parts, and the row that names them */
    assert_int_equal(ask_create(&r->f, r->s, "k~end.1", a), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "k~end.1", a));
    free(a);
}

/* Cut in the middle of writing, the version before stays whole. */
static void half_a_large_document_is_never_seen(void **state)
{
    struct room *r = *state;
    char *a = large_text(3 * MIB, 'a');
    char *b = large_text(3 * MIB, 'b');
    assert_int_equal(ask_put(&r->f, r->s, "k", a), ERR_OK);
    for (unsigned n = 1; n <= 4; n++) {
        char words[64];
        steer("calm", "", NULL, 0);
        (void)snprintf(words, sizeof(words), "PutRow %u fine", n - 1);
        fault(words);
        fault("PutRow 99 error 400 OTSParameterInvalid");
        assert_int_equal(ask_put(&r->f, r->s, "k", b), ERR_UNAVAILABLE);
        assert_int_equal(count_of("rows"), 1 + 3); /* nor does it stay, to be paid for */
        assert_int_equal(ask_create(&r->f, r->s, "k~end.1", b), ERR_UNAVAILABLE);
        assert_int_equal(count_of("rows"), 1 + 3);
        steer("calm", "", NULL, 0);
        assert_true(ask_is(&r->f, r->s, "k", a));
    }
    fault("PutRow 4 timeout"); /* the first part is there, but nobody says so */
    assert_int_equal(ask_put(&r->f, r->s, "k", b), ERR_UNAVAILABLE);
    assert_int_equal(count_of("rows"), 1 + 3);
    assert_int_equal(ask_put(&r->f, r->s, "k", b), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "k", b));
    free(a);
    free(b);
}

/* Somebody else replaces the document while its parts are read. */
static void who_reads_parts_that_go_looks_again(void **state)
{
    struct room *r = *state;
    struct store *other;
    struct ask get = {.done = false};
    char *a = large_text(3 * MIB, 'a');
    char *b = large_text(MIB + 1, 'b');
    assert_int_equal(store_open(&other, &r->f.loop, &r->f.later, url, NULL), ERR_OK);
    assert_int_equal(ask_put(&r->f, r->s, "k", a), ERR_OK);
    steer("calm", "", NULL, 0);
    fault("GetRow 1 fine");
    fault("GetRow 1 held"); /* the first part */
    ask_add(&get, STORE_GET, "k", NULL);
    ask_start(&get, r->s);
    while (count_of("GetRow") < 2)
        (void)uv_run(&r->f.loop, UV_RUN_NOWAIT);
    assert_int_equal(ask_put(&r->f, other, "k", b), ERR_OK);
    steer("release", "", NULL, 0);
    ask_wait(&get, &r->f);
    assert_int_equal(get.op.doc[0].result, ERR_OK);
    assert_true(slice_is(blob_slice(get.op.doc[0].value), b));
    ask_done(&get);
    ask_close(&r->f, other, LONG_MS);
    free(a);
    free(b);
}

static void a_document_without_its_parts_is_corrupt(void **state)
{
    struct room *r = *state;
    struct blob *value = NULL;
    char *a = large_text(2 * MIB, 'a');
    assert_int_equal(ask_put(&r->f, r->s, "k", a), ERR_OK);
    steer("calm", "", NULL, 0);
    steer("forget", "-k:", NULL, 0);
    assert_int_equal(ask_get(&r->f, r->s, "k", &value), ERR_CORRUPT);
    assert_int_equal(count_of("GetRow"), 3); /* the row, a part, the row once more */
    assert_int_equal(ask_put(&r->f, r->s, "k", a), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "k", a));
    free(a);
}

/* A writer that was killed, or a small document over a large one. What is young may be of a writer
 * who has not come to its row yet. */
static void what_was_left_goes_with_the_document(void **state)
{
    struct room *r = *state;
    char *a = large_text(3 * MIB, 'a');
    char *b = large_text(MIB + 1, 'b');
    assert_int_equal(ask_put(&r->f, r->s, "k~end.1", b), ERR_OK);
    steer("older", "-7200", NULL, 0);
    assert_int_equal(ask_put(&r->f, r->s, "k2", b), ERR_OK);
    assert_int_equal(ask_put(&r->f, r->s, "k", a), ERR_OK);
    assert_int_equal(ask_put(&r->f, r->s, "k", "small"), ERR_OK);
    steer("older", "7200", NULL, 0);
    assert_int_equal(count_of("rows"), 3 + 3 + 1 + 3);
    assert_int_equal(ask_put(&r->f, r->s, "k", b), ERR_OK);
    assert_int_equal(ask_remove(&r->f, r->s, "k"), ERR_OK);
    assert_int_equal(count_of("rows"), 3 + 3);
    assert_int_equal(ask_put(&r->f, r->s, "k", b), ERR_OK);
    assert_int_equal(ask_put(&r->f, r->s, "k", "small"), ERR_OK);
    assert_int_equal(ask_remove(&r->f, r->s, "k"), ERR_OK);
    assert_int_equal(count_of("rows"), 3 + 3 + 2);
    assert_true(ask_is(&r->f, r->s, "k2", b));
    assert_true(ask_is(&r->f, r->s, "k~end.1", b));
    free(a);
    free(b);
}

static enum err_code put_order(struct room *r, const char *value, uint64_t order)
{
    struct ask a = {.done = false};
    ask_add(&a, STORE_PUT, "k", value);
    a.op.doc[0].order = order;
    ask_start(&a, r->s);
    ask_wait(&a, &r->f);
    ask_done(&a);
    return a.op.doc[0].result;
}

static void an_older_large_document_leaves_nothing(void **state)
{
    struct room *r = *state;
    char *a = large_text(3 * MIB, 'a');
    assert_int_equal(put_order(r, "new", 5), ERR_OK);
    assert_int_equal(put_order(r, a, 4), ERR_OK);
    assert_true(ask_is(&r->f, r->s, "k", "new"));
    assert_int_equal(count_of("rows"), 1);
    free(a);
}

/* --- URLs ------------------------------------------------------------------------------------ */

static void bad_urls_are_refused(void **state)
{
    struct room *r = *state;
    static const char *const bad[] = {
        "ots:///table",
        "ots://host.example",
        "ots://host.example/",
        "ots://host.example/a-b",
        "ots://host.example/1a",
        "ots://host.example/a/b",
        "ots://localhost/table",
        "ots://127.0.0.1/table",
        "ots://a%20b.example/table?instance=i",
        "ots://id@host.example/table",
        "ots://:s3cret@host.example/table",
        "ots://id:s3%20cret@host.example/table",
        "ots://host.example/table?sign=v2",
        "ots://localhost/table?instance=i&sign=v4",
        "ots://host.example/table?scheme=ftp",
        "ots://host.example/table?create=2",
        "ots://host.example/table?ttl=86399",
        "ots://host.example/table?connections=0",
        "ots://host.example/table?tabel=x",
        "ots://host.example/table?instance=",
        "ots://host.example/table?instance=a%0Ab",
        "ots://host.example/table?instance=a%20",
        "ots://host.example/table?sign=v4&region=a%09",
        "ots://STS.1:s3cret@host.example/table",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct store *s;
        struct err err = {.code = ERR_OK};
        if (store_open(&s, &r->f.loop, &r->f.later, bad[i], &err) != ERR_INVALID)
            fail_msg("%s", bad[i]);
        assert_non_null(strstr(err.msg, "store URL"));
        assert_null(strstr(err.msg, "s3"));
    }
    open_with(r, "ots://i.here.example/table?sign=v4&ttl=86400&create=1&connections=64");
    open_with(r, "ots://i.here.example:8080/_T1?scheme=https");
    open_with(r, "ots://[::1]:1/table?instance=i&scheme=http");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_passes_is_tried_again),
        TEST(what_does_not_pass_is_told_and_not_hammered),
        TEST(a_document_too_large_for_the_service_is_no_outage),
        TEST(a_damaged_document_is_corrupt),
        TEST(a_damaged_answer_says_nothing_of_the_document),
        TEST(a_create_whose_answer_is_lost_is_ours),
        TEST(a_create_that_is_never_answered_is_looked_at),
        TEST(past_its_moment_no_attempt_leaves),
        TEST(an_attempt_that_hangs_is_not_the_last),
        TEST(who_was_frozen_waits_so_much_longer),
        TEST(one_connection_serves_many_requests),
        TEST(a_connection_that_was_idle_too_long_is_replaced),
        TEST(credentials_come_with_requests_and_change),
        TEST(a_refused_request_is_signed_anew_once),
        TEST(credentials_of_the_url_stay),
        TEST(credentials_of_the_environment),
        TEST(wrong_credentials_are_told_and_not_hammered),
        TEST(a_clock_that_is_wrong_is_told),
        TEST(a_missing_table_is_told),
        TEST(a_table_is_made_by_whatever_comes_first),
        TEST(many_find_it_missing_at_once),
        TEST(a_table_that_cannot_be_made_is_told),
        TEST(what_is_too_old_for_its_table_is_gone),
        TEST(a_list_passes_over_what_is_not_ours),
        TEST(a_list_that_comes_damaged_is_no_list),
        TEST(parts_go_when_nobody_names_them),
        TEST(a_large_create_whose_answer_is_lost_is_ours),
        TEST(half_a_large_document_is_never_seen),
        TEST(who_reads_parts_that_go_looks_again),
        TEST(a_document_without_its_parts_is_corrupt),
        TEST(an_older_large_document_leaves_nothing),
        TEST(what_was_left_goes_with_the_document),
        TEST(bad_urls_are_refused),
    };
    row = backend_find("ots");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
