/* The MySQL store without a server: URLs, and peers that are none. What a real server does is
 * tested in tests/contract. */
#include "peer.h"
#include "store_ask.h"
#include "unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define SCRIPT(name, ...) static const struct peer_step name[] = {__VA_ARGS__, DOES(PEER_SILENT)}
/* Protocol 10, a version, a thread, half a salt; no TLS among what it can; the rest of the salt. */
#define GREETS                                                                                     \
    SENDS("\x49\x00\x00\x00\x0a"                                                                   \
          "5.7.0\x00\x01\x00\x00\x00salt5678\x00\xff\xf7\x21\x02\x00\x08\x80\x15"                  \
          "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00salt56789012\x00mysql_native_password\x00")

enum { LONG_MS = 60000 };

static struct loop_fixture f;
static struct peer peer;
static struct store *s;

static void begin(const struct peer_step *const *scripts, unsigned count, const char *parameters)
{
    char url[256];
    loop_fixture_open(&f);
    peer_open(&peer, &f, scripts, count);
    (void)snprintf(url, sizeof(url), "mysql://me:s3cret@127.0.0.1:%u/db%s", peer.port, parameters);
    assert_int_equal(store_open(&s, &f.loop, &f.later, url, NULL), ERR_OK);
}

static void finish(void)
{
    if (s != NULL)
        ask_close(&f, s, LONG_MS);
    s = NULL;
    peer_close(&peer);
    loop_fixture_close(&f);
    peer_done(&peer);
}

#define BEGIN(parameters, ...)                                                                     \
    static const struct peer_step *const scripts[] = {__VA_ARGS__};                                \
    begin(scripts, ARRAY_LEN(scripts), parameters)

/* --- URLs ------------------------------------------------------------------------------------ */

static enum err_code opens(const char *url, struct err *err)
{
    enum err_code code = store_open(&s, &f.loop, &f.later, url, err);
    if (code == ERR_OK)
        ask_close(&f, s, 0);
    s = NULL;
    return code;
}

static void a_wrong_url_is_refused_with_a_word(void **state)
{
    static const char *const urls[] = {
        "mysql:",
        "mysql://",
        "mysql://host/db",
        "mysql://u:s3cret@host",
        "mysql://u:s3cret@host/",
        "mysql://u:s3cret@host/db/more",
        "mysql://u:s3cret@/db",
        "mysql://u:s3cret@host:0/db",
        "mysql://u:s3cret@host/db?table=",
        "mysql://u:s3cret@host/db?table=1st",
        "mysql://u:s3cret@host/db?table=a%60b",
        "mysql://u:s3cret@host/db?table=a.b",
        "mysql://u:s3cret@host/db?create=yes",
        "mysql://u:s3cret@host/db?create=2",
        "mysql://u:s3cret@host/db?tls=on",
        "mysql://u:s3cret@host/db?ca=/ca.pem",
        "mysql://u:s3cret@host/db?tls=require&ca=/ca.pem",
        "mysql://u:s3cret@host/db?pool=0",
        "mysql://u:s3cret@host/db?pool=8",
        "mysql://u:s3cret@host/db?ttl=-1",
        "mysql://u:s3cret@host/db?timeout_ms=9",
        "mysql://u:s3cret@host/db?nonsense=1",
    };
    (void)state;
    loop_fixture_open(&f);
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        struct err err = {.msg = ""};
        assert_int_equal(opens(urls[i], &err), ERR_INVALID);
        assert_true(err.msg[0] != '\0');
        assert_null(strstr(err.msg, "s3cret"));
    }
    loop_fixture_close(&f);
}

static void a_right_url_opens_and_nothing_else_happens(void **state)
{
    static const char *const urls[] = {
        "mysql://u@host/db",
        "mysql://u:p%40ss@[::1]:3307/db?table=T_1&create=1&pool=7&ttl=0&wait_ms=0&timeout_ms=100",
        "mysql://u:p@host/db?tls=require",
        "mysql://u:p@host/db?tls=verify&ca=/nowhere/ca.pem",
        "mysql://u:p@host/db?tls=off&create=0",
    };
    (void)state;
    loop_fixture_open(&f);
    for (size_t i = 0; i < ARRAY_LEN(urls); i++)
        assert_int_equal(opens(urls[i], NULL), ERR_OK);
    loop_fixture_close(&f);
}

/* --- peers ----------------------------------------------------------------------------------- */

SCRIPT(hangs_up, DOES(PEER_CLOSE));
SCRIPT(says_nothing, EXPECTS("never"));
SCRIPT(talks_http, SENDS("HTTP/1.1 400 Bad Request\r\n\r\n"), DOES(PEER_CLOSE));
SCRIPT(promises_much, SENDS("\xff\xff\xff\x00\x0a"), EXPECTS("never"));
SCRIPT(is_full, SENDS("\x17\x00\x00\x00\xff\x10\x04Too many connections"), DOES(PEER_CLOSE));
#define AGREES SENDS("\x07\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00")
SCRIPT(knows_no_tls, GREETS, EXPECTS("mysql_native_password"), AGREES, EXPECTS("never"));
#define AGREES_AT_ONCE SENDS("\x07\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00")
/* A statement's number, no columns, no parameters. */
#define PREPARES SENDS("\x0c\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
SCRIPT(reads_no_parameters, GREETS, EXPECTS("mysql_native_password"), AGREES, EXPECTS("SET NAMES"),
       AGREES_AT_ONCE, EXPECTS("INSERT"), PREPARES, EXPECTS("INSERT"), PREPARES, EXPECTS("SELECT"),
       PREPARES, EXPECTS("DELETE"), PREPARES, EXPECTS("DELETE"), PREPARES, EXPECTS("SELECT"),
       PREPARES, EXPECTS("@@max_allowed_packet"), SENDS("\x01\x00\x00\x01\x02"),
       SENDS("\x17\x00\x00\x02\x03"
             "def\x00\x00\x00\x01"
             "a\x00\x0c\x3f\x00\xff\x00\x00\x00\xfd\x00\x00\x00\x00\x00"),
       SENDS("\x17\x00\x00\x03\x03"
             "def\x00\x00\x00\x01"
             "b\x00\x0c\x3f\x00\xff\x00\x00\x00\xfd\x00\x00\x00\x00\x00"),
       SENDS("\x05\x00\x00\x04\xfe\x00\x00\x02\x00"),
       SENDS("\x1a\x00\x00\x05\x08"
             "16777216\x10"
             "1700000000000000"),
       SENDS("\x05\x00\x00\x06\xfe\x00\x00\x02\x00"), EXPECTS("never"));
SCRIPT(is_curious, GREETS, EXPECTS("mysql_native_password"),
       SENDS("\x16\x00\x00\x02\xfemysql_clear_password\x00"), EXPECTS("never"));

static void check_refused(const char *word)
{
    struct err why;
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_UNAVAILABLE);
    assert_false(store_healthy(s, &why));
    if (strstr(why.msg, word) == NULL)
        print_message("%s\n", why.msg);
    assert_non_null(strstr(why.msg, word));
    assert_null(strstr(why.msg, "s3cret"));
}

static void nothing_is_connected_before_it_is_wanted(void **state)
{
    (void)state;
    BEGIN("?wait_ms=0", hangs_up);
    loop_run_for(&f, 30);
    assert_int_equal(peer.accepted, 0);
    assert_true(store_healthy(s, NULL));
    check_refused("");
    assert_true(peer.accepted >= 1);
    finish();
}

static void who_is_no_server_is_unavailable(void **state)
{
    (void)state;
    BEGIN("?wait_ms=0", talks_http);
    check_refused("");
    finish();
}

static void who_is_full_is_unavailable(void **state)
{
    (void)state;
    BEGIN("?wait_ms=0", is_full);
    check_refused("Too many connections");
    finish();
}

/* Nothing blocks meanwhile but a thread. */
static void who_says_nothing_holds_nobody(void **state)
{
    struct ask a = {.op = {.deadline_ms = 50}};
    uint64_t began = clock_mono_ms();
    (void)state;
    BEGIN("?wait_ms=0", says_nothing, promises_much, says_nothing);
    ask_add(&a, STORE_PUT, "k", "1");
    ask_start(&a, s);
    ask_wait(&a, &f);
    assert_int_equal(a.op.doc[0].result, ERR_TIMEOUT);
    assert_true(clock_mono_ms() - began < 2500); /* the thread waits for 3 s */
    ask_done(&a);
    ask_close(&f, s, 0); /* nor does the end wait for the thread */
    s = NULL;
    assert_true(clock_mono_ms() - began < 2500);
    finish();
}

/* Without a connection that was ever there nothing can have happened. */
static void a_refused_create_is_not_in_doubt(void **state)
{
    (void)state;
    BEGIN("?wait_ms=100", hangs_up);
    assert_int_equal(ask_create(&f, s, "k", "1"), ERR_UNAVAILABLE);
    finish();
}

static uint64_t last_try_ms;

static void note_try(struct peer_conn *conn)
{
    (void)conn;
    last_try_ms = clock_mono_ms();
}

SCRIPT(notes_tries, CALLS(note_try), DOES(PEER_CLOSE));

/* It may have come back in the pause since the last try. */
static void who_was_away_is_tried_once_more_before_that_is_told(void **state)
{
    uint64_t began = clock_mono_ms();
    (void)state;
    BEGIN("?wait_ms=250", notes_tries);
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_UNAVAILABLE);
    assert_true(last_try_ms >= began + 250);
    assert_true(peer.accepted < 8);
    finish();
}

/* A statement without parameters would be sent without them, or be the end of us. */
static void who_understands_statements_otherwise_is_told_none(void **state)
{
    (void)state;
    BEGIN("?wait_ms=0", reads_no_parameters);
    check_refused("otherwise");
    finish();
}

static bool was_told(const char *text)
{
    for (unsigned i = 0; i < peer.accepted && i < PEER_CONNS_MAX; i++) {
        const struct buf *in = &peer.conns[i].in;
        if (in->len > 0 && memmem(in->ptr, in->len, text, strlen(text)) != NULL)
            return true;
    }
    return false;
}

static void who_speaks_no_tls_gets_no_document(void **state)
{
    (void)state;
    BEGIN("?wait_ms=0&tls=require", knows_no_tls);
    check_refused("TLS");
    assert_true(was_told("me"));
    assert_false(was_told("SET NAMES"));
    assert_false(was_told("s3cret"));
    finish();
}

static void who_cannot_be_verified_is_not_even_greeted(void **state)
{
    (void)state;
    BEGIN("?wait_ms=0&tls=verify", knows_no_tls);
    check_refused("SSL");
    assert_false(was_told("me"));
    finish();
}

static void the_password_is_not_said_in_clear(void **state)
{
    (void)state;
    BEGIN("?wait_ms=0", is_curious);
    check_refused("");
    assert_true(was_told("me"));
    assert_false(was_told("s3cret"));
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_url_is_refused_with_a_word),
        cmocka_unit_test(a_right_url_opens_and_nothing_else_happens),
        cmocka_unit_test(nothing_is_connected_before_it_is_wanted),
        cmocka_unit_test(who_is_no_server_is_unavailable),
        cmocka_unit_test(who_is_full_is_unavailable),
        cmocka_unit_test(who_says_nothing_holds_nobody),
        cmocka_unit_test(a_refused_create_is_not_in_doubt),
        cmocka_unit_test(who_was_away_is_tried_once_more_before_that_is_told),
        cmocka_unit_test(who_understands_statements_otherwise_is_told_none),
        cmocka_unit_test(who_speaks_no_tls_gets_no_document),
        cmocka_unit_test(who_cannot_be_verified_is_not_even_greeted),
        cmocka_unit_test(the_password_is_not_said_in_clear),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
