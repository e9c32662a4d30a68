/* What only a real MySQL or MariaDB server shows: what stands in it, how it forgets, what it
 * refuses, how it throws people out. */
#include "servers.h"
#include "store_ask.h"
#include "store_mysql_lib.h"
#include "unit.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { LONG_MS = 60000, SKIPPED = 77, VALUE_MAX_LEN = 16 * 1024 * 1024 };

#define LOGIN "comfy:pa:ss%20w%40rd"
#define NOW   "TIMESTAMPDIFF(MICROSECOND,'1970-01-01',UTC_TIMESTAMP(6))"

static struct server server;
static struct loop_fixture f;
static struct store *s;
static MYSQL *admin;

/* --- another client -------------------------------------------------------------------------- */

/* What stands in the first row's first column, or "". */
static const char *say_on(MYSQL *my, const char *sql)
{
    static char answer[4096];
    if (mysql_query(my, sql) != 0) {
        (void)fprintf(stderr, "%s: %s\n", sql, mysql_error(my));
        abort();
    }
    answer[0] = '\0';
    MYSQL_RES *res = mysql_store_result(my);
    MYSQL_ROW row = res != NULL ? mysql_fetch_row(res) : NULL;
    if (row != NULL && row[0] != NULL)
        (void)snprintf(answer, sizeof(answer), "%s", row[0]);
    mysql_free_result(res);
    return answer;
}

static const char *say(const char *sql)
{
    return say_on(admin, sql);
}

static MYSQL *connect_admin(void)
{
    MYSQL *my = mysql_init(NULL);
    ASSERT(mysql_real_connect(my, "127.0.0.1", "admin", SERVER_MYSQL_PASSWORD, "comfy", server.port,
                              NULL, 0) != NULL);
    return my;
}

static void open_store(const char *login, const char *host, const char *rest)
{
    char url[BACKEND_URL_MAX];
    (void)snprintf(url, sizeof(url), "mysql://%s@%s:%u/%s", login, host, server.port, rest);
    assert_int_equal(store_open(&s, &f.loop, &f.later, url, NULL), ERR_OK);
}

static void reopen_store(const char *login, const char *host, const char *rest)
{
    ask_close(&f, s, LONG_MS);
    open_store(login, host, rest);
}

static void reopen(const char *rest)
{
    reopen_store(LOGIN, "127.0.0.1", rest);
}

static int set_up(void **state)
{
    (void)state;
    (void)say("DROP TABLE IF EXISTS comfy.comfy_task"); /* and what a test that failed has left */
    (void)say("SET GLOBAL read_only=0, max_allowed_packet=33554432, wait_timeout=28800");
    (void)say("ALTER USER comfy@'%' REQUIRE NONE WITH MAX_USER_CONNECTIONS 0");
    loop_fixture_open(&f);
    open_store(LOGIN, "127.0.0.1", "comfy?create=1&wait_ms=300");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ask_close(&f, s, LONG_MS);
    loop_fixture_close(&f);
    return 0;
}

/* Until a write succeeds. */
static void until_it_works(void)
{
    uint64_t end = clock_mono_ms() + LONG_MS;
    while (ask_put(&f, s, "works", "1") != ERR_OK && clock_mono_ms() < end)
        loop_run_for(&f, 1);
    assert_true(ask_is(&f, s, "works", "1"));
    assert_true(store_healthy(s, NULL));
}

/* Until the server says so of itself. */
static void until_it_says(const char *sql, const char *answer)
{
    uint64_t end = clock_mono_ms() + LONG_MS;
    while (strcmp(say(sql), answer) != 0) {
        ASSERT(clock_mono_ms() < end);
        loop_run_for(&f, 5);
    }
}

/* --- what stands there ----------------------------------------------------------------------- */

static void a_document_stands_there_as_it_is(void **state)
{
    (void)state;
    assert_int_equal(ask_put(&f, s, "t1", "{\"1\":\"\xc3\xa9'\\\"\"}"), ERR_OK);
    assert_string_equal(say("SELECT HEX(body) FROM comfy_task WHERE doc_key='t1'"),
                        "7B2231223A22C3A9275C22227D");
    assert_int_equal(ask_put(&f, s, "t1~task", "1"), ERR_OK);
    assert_string_equal(say("SELECT GROUP_CONCAT(doc_key) FROM comfy_task WHERE listed_us>0"),
                        "t1~task");
    assert_int_equal(ask_remove(&f, s, "t1~task"), ERR_OK);
    assert_int_equal(ask_remove(&f, s, "t1"), ERR_OK);
    assert_string_equal(say("SELECT COUNT(*) FROM comfy_task"), "0");
}

static void tables_and_databases_keep_stores_apart(void **state)
{
    (void)state;
    assert_int_equal(ask_put(&f, s, "t", "first"), ERR_OK);
    reopen("empty?create=1");
    assert_true(ask_is(&f, s, "t", NULL));
    reopen("comfy?create=1&table=Other_1");
    assert_true(ask_is(&f, s, "t", NULL));
    assert_int_equal(ask_put(&f, s, "t", "second"), ERR_OK);
    assert_string_equal(say("SELECT body FROM Other_1"), "second");
    (void)say("DROP TABLE Other_1");
    reopen("comfy");
    assert_true(ask_is(&f, s, "t", "first"));
}

/* Reads and lists go by an index, also through prepared statements with another character set. */
static void nothing_walks_through_the_table(void **state)
{
    char key[32];
    unsigned before = 0, after = 0;
    static const char scanned[] =
        "SELECT SUM(VARIABLE_VALUE) FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME IN "
        "('HANDLER_READ_RND_NEXT','HANDLER_READ_RND')";
    static struct store_page page;
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        (void)snprintf(key, sizeof(key), "t%u~task", i);
        assert_int_equal(ask_put(&f, s, key, "1"), ERR_OK);
    }
    (void)say("ANALYZE TABLE comfy_task");
    (void)say("FLUSH STATUS");
    assert_int_equal(sscanf(say(scanned), "%u", &before), 1);
    for (unsigned i = 0; i < 50; i++) {
        struct ask a = {.op = {.page = &page}};
        (void)snprintf(key, sizeof(key), "t%u~task", i);
        assert_int_equal(ask_put(&f, s, key, "2"), ERR_OK);
        assert_true(ask_is(&f, s, key, "2"));
        page = (struct store_page){.limit = 5};
        ask_start(&a, s);
        ask_wait(&a, &f);
        assert_int_equal(page.count, 5);
        ask_done(&a);
    }
    assert_int_equal(sscanf(say(scanned), "%u", &after), 1);
    assert_true(after - before < 50); /* the questions above walk a little themselves */
}

/* --- what others put there ------------------------------------------------------------------- */

static void what_is_no_document_is_told_apart(void **state)
{
    struct blob *value = NULL;
    static struct store_page page;
    struct ask a = {.op = {.page = &page}};
    (void)state;
    assert_int_equal(ask_put(&f, s, "t~task", "1"), ERR_OK);
    (void)say("INSERT INTO comfy_task VALUES('empty','',0,NULL,9e18),"
              "('huge',REPEAT('x',16777217),0,NULL,9e18),('no key/at all',1,0,9e18,9e18)");
    assert_int_equal(ask_get(&f, s, "empty", &value), ERR_CORRUPT);
    assert_int_equal(ask_get(&f, s, "huge", &value), ERR_TOO_LARGE);
    page.limit = 10;
    ask_start(&a, s);
    ask_wait(&a, &f);
    assert_int_equal(page.count, 1);
    assert_string_equal(page.keys[0], "t~task");
    assert_true(store_healthy(s, NULL));
    assert_int_equal(ask_put(&f, s, "empty", "1"), ERR_OK);
    assert_true(ask_is(&f, s, "empty", "1"));
}

/* --- what is forgotten ----------------------------------------------------------------------- */

static void check_life(const char *key, uint64_t seconds)
{
    char sql[256];
    unsigned long long found = 0;
    (void)snprintf(sql, sizeof(sql),
                   "SELECT (expires_us-" NOW ") DIV 1000000 FROM comfy_task WHERE doc_key='%s'",
                   key);
    assert_int_equal(sscanf(say(sql), "%llu", &found), 1);
    assert_in_range(found, seconds - 60, seconds);
}

static void put_order(const char *key, const char *value, uint64_t order)
{
    struct ask a = {.done = false};
    ask_add(&a, STORE_PUT, key, value);
    a.op.doc[0].order = order;
    ask_start(&a, s);
    ask_wait(&a, &f);
    assert_int_equal(a.op.doc[0].result, ERR_OK);
    ask_done(&a);
}

static void documents_expire_and_claims_outlive_them(void **state)
{
    (void)state;
    reopen("comfy?create=1&ttl=100");
    assert_int_equal(ask_create(&f, s, "t~run.1", "1"), ERR_OK);
    assert_int_equal(ask_create(&f, s, "t~end.1", "1"), ERR_OK);
    put_order("t~task", "1", 9);
    check_life("t~task", 100);
    check_life("t~end.1", 86500);
    check_life("t~run.1", 172900);
    (void)say("UPDATE comfy_task SET expires_us=" NOW " WHERE doc_key<>'t~end.1'");
    assert_true(ask_is(&f, s, "t~task", NULL));
    assert_true(ask_is(&f, s, "t~run.1", NULL));
    assert_true(ask_is(&f, s, "t~end.1", "1"));
    assert_int_equal(ask_create(&f, s, "t~end.1", "2"), ERR_EXISTS);
    assert_int_equal(ask_create(&f, s, "t~run.1", "2"), ERR_OK); /* what has expired is no more */
    assert_true(ask_is(&f, s, "t~run.1", "2"));
    assert_int_equal(ask_create(&f, s, "t~run.1", "3"), ERR_EXISTS);
    put_order("t~task", "2", 1); /* nor is its order */
    assert_true(ask_is(&f, s, "t~task", "2"));
    check_life("t~task", 100);
}

static void a_purge_removes_what_has_expired_and_nothing_else(void **state)
{
    static struct store_page page;
    struct ask a = {.op = {.page = &page}};
    (void)state;
    assert_int_equal(ask_put(&f, s, "fresh~task", "1"), ERR_OK);
    (void)say("INSERT INTO comfy_task SELECT CONCAT('old',seq,'~task'),'1',0,seq,1 "
              "FROM seq_1_to_1200");
    page.limit = 10;
    ask_start(&a, s);
    ask_wait(&a, &f);
    assert_int_equal(page.count, 1); /* not listed either */
    reopen("comfy");
    assert_true(ask_is(&f, s, "fresh~task", "1"));
    until_it_says("SELECT GROUP_CONCAT(doc_key) FROM comfy_task", "fresh~task");
}

static void by_default_it_is_a_week_and_never_if_so_wished(void **state)
{
    (void)state;
    assert_int_equal(ask_put(&f, s, "t~task", "1"), ERR_OK);
    check_life("t~task", 604800);
    reopen("comfy?ttl=0");
    (void)say("INSERT INTO comfy_task VALUES('old','1',0,NULL,1)");
    assert_int_equal(ask_put(&f, s, "t~task", "1"), ERR_OK);
    check_life("t~task", UINT64_C(60) * 366 * 86400);
    loop_run_for(&f, 50);
    assert_string_equal(say("SELECT COUNT(*) FROM comfy_task"), "2"); /* nothing is purged */
}

/* --- what is refused ------------------------------------------------------------------------- */

static void check_refused(const char *word)
{
    struct err why;
    uint64_t began = clock_mono_ms();
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_UNAVAILABLE);
    assert_false(store_healthy(s, &why));
    assert_non_null(strstr(why.msg, word));
    assert_null(strstr(why.msg, "s3cret"));
    assert_true(clock_mono_ms() - began < LONG_MS / 2); /* not waited for */
}

static void a_wrong_login_is_told_and_not_tried_all_the_time(void **state)
{
    unsigned before = 0, after = 0;
    static const char connects[] = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS "
                                   "WHERE VARIABLE_NAME='ABORTED_CONNECTS'";
    (void)state;
    reopen_store("nobody:s3cret", "127.0.0.1", "comfy?wait_ms=60000");
    assert_int_equal(sscanf(say(connects), "%u", &before), 1);
    for (unsigned i = 0; i < 50; i++) {
        check_refused("Access denied");
        loop_run_for(&f, 2);
    }
    assert_int_equal(sscanf(say(connects), "%u", &after), 1);
    assert_true(after - before < 10);
    reopen_store("comfy", "127.0.0.1", "comfy?wait_ms=60000");
    check_refused("Access denied");
    reopen("nowhere?wait_ms=60000");
    check_refused("nowhere");
}

/* … which the library loads, as it does for the accounts of MySQL 8. */
static void another_way_to_log_in_is_taken(void **state)
{
    (void)state;
    (void)say("INSTALL SONAME 'auth_ed25519'");
    (void)say("CREATE USER modern@'%' IDENTIFIED VIA ed25519 USING PASSWORD('secret')");
    (void)say("GRANT ALL ON comfy.* TO modern@'%'");
    reopen_store("modern:secret", "127.0.0.1", "comfy?create=1");
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    reopen_store("modern:s3cret", "127.0.0.1", "comfy?wait_ms=60000");
    check_refused("Access denied");
}

static void a_table_is_made_only_on_request(void **state)
{
    (void)state;
    reopen("empty?table=missing&wait_ms=60000");
    check_refused("create=1");
    assert_string_equal(say("SHOW TABLES FROM empty LIKE 'missing'"), "");
    reopen("empty?table=missing&create=1");
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    (void)say("DROP TABLE empty.missing"); /* it comes back */
    until_it_works();
    (void)say("DROP TABLE empty.missing");
}

static void what_the_server_cannot_take_is_too_large(void **state)
{
    char *bytes = xcalloc(1, VALUE_MAX_LEN);
    struct ask a = {.done = false};
    (void)state;
    (void)say("SET GLOBAL max_allowed_packet=1048576");
    ask_add_bytes(&a, STORE_PUT, "k", (struct slice){bytes, 2 * 1024 * 1024});
    ask_start(&a, s);
    ask_wait(&a, &f);
    (void)say("SET GLOBAL max_allowed_packet=33554432");
    assert_int_equal(a.op.doc[0].result, ERR_TOO_LARGE);
    assert_non_null(strstr(a.op.err.msg, "max_allowed_packet"));
    ask_done(&a);
    assert_true(store_healthy(s, NULL));
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    free(bytes);
}

static void a_server_that_only_reads_is_told_and_forgiven(void **state)
{
    (void)state;
    assert_int_equal(ask_put(&f, s, "k", "0"), ERR_OK);
    (void)say("SET GLOBAL read_only=1");
    check_refused("read-only");
    assert_true(ask_is(&f, s, "k", "0")); /* reading goes on */
    (void)say("SET GLOBAL read_only=0");
    until_it_works();
}

static void one_connection_does_where_no_more_are_given(void **state)
{
    static struct ask a[200];
    static const char connects[] = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS "
                                   "WHERE VARIABLE_NAME='CONNECTIONS'";
    char key[16];
    unsigned before = 0, after = 0;
    (void)state;
    reopen("comfy?create=1&pool=4&ttl=0");
    (void)say("ALTER USER comfy@'%' WITH MAX_USER_CONNECTIONS 1");
    assert_int_equal(sscanf(say(connects), "%u", &before), 1);
    for (unsigned i = 0; i < ARRAY_LEN(a); i++) {
        (void)snprintf(key, sizeof(key), "k%u", i);
        a[i] = (struct ask){.done = false};
        ask_add(&a[i], STORE_PUT, key, key);
        ask_start(&a[i], s);
    }
    for (unsigned i = 0; i < ARRAY_LEN(a); i++) {
        ask_wait(&a[i], &f);
        assert_int_equal(a[i].op.doc[0].result, ERR_OK);
        ask_done(&a[i]);
    }
    assert_int_equal(sscanf(say(connects), "%u", &after), 1);
    assert_true(after - before < 25); /* nor is the server asked for one all the time */
    (void)say("ALTER USER comfy@'%' WITH MAX_USER_CONNECTIONS 0");
}

static unsigned put_until_connects(unsigned count)
{
    static const char connects[] = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS "
                                   "WHERE VARIABLE_NAME='CONNECTIONS'";
    unsigned now = 0;
    uint64_t end = clock_mono_ms() + LONG_MS;
    do {
        struct ask a[2] = {{.done = false}, {.done = false}}; /* one wants another connection */
        for (size_t i = 0; i < ARRAY_LEN(a); i++) {
            ask_add(&a[i], STORE_PUT, i == 0 ? "k1" : "k2", "1");
            ask_start(&a[i], s);
        }
        for (size_t i = 0; i < ARRAY_LEN(a); i++) {
            ask_wait(&a[i], &f);
            assert_int_equal(a[i].op.doc[0].result, ERR_OK);
            ask_done(&a[i]);
        }
        assert_int_equal(sscanf(say(connects), "%u", &now), 1);
    } while (now < count && clock_mono_ms() < end);
    return now;
}

static void kill_all(void);

/* The pause is for those that are not given. A busy machine may take as long, but not each time. */
static void the_one_connection_that_is_given_is_back_at_once(void **state)
{
    uint64_t took = UINT64_MAX;
    (void)state;
    reopen("comfy?create=1&ttl=0");
    (void)say("ALTER USER comfy@'%' WITH MAX_USER_CONNECTIONS 1");
    for (unsigned i = 0; i < 3 && took >= 1200; i++) {
        unsigned wanted = put_until_connects(0) + 6;
        assert_in_range(put_until_connects(wanted), wanted, UINT_MAX);
        kill_all();
        uint64_t began = clock_mono_ms();
        assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
        took = clock_mono_ms() - began;
    }
    assert_true(took < 1200); /* who pauses takes 1600 at least */
    (void)say("ALTER USER comfy@'%' WITH MAX_USER_CONNECTIONS 0");
}

/* --- others, and thrown out ------------------------------------------------------------------ */

/* Longer than a statement waits for it. */
static void a_row_that_others_hold_is_waited_for(void **state)
{
    struct ask a = {.done = false};
    MYSQL *other = connect_admin();
    (void)state;
    assert_int_equal(ask_put(&f, s, "k", "0"), ERR_OK);
    (void)say_on(other, "BEGIN");
    (void)say_on(other, "SELECT body FROM comfy_task WHERE doc_key='k' FOR UPDATE");
    ask_add(&a, STORE_PUT, "k", "1");
    ask_start(&a, s);
    loop_run_for(&f, 3300);
    assert_false(a.done);
    (void)say_on(other, "ROLLBACK");
    ask_wait(&a, &f);
    assert_int_equal(a.op.doc[0].result, ERR_OK);
    ask_done(&a);
    mysql_close(other);
}

/* He reads the row and then wants to write it, behind us: the server takes our place from us, as he
 * has written more. */
static void a_deadlock_that_others_win_is_tried_again(void **state)
{
    static const char waiting[] = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS "
                                  "WHERE VARIABLE_NAME='INNODB_ROW_LOCK_CURRENT_WAITS'";
    struct ask a = {.done = false};
    MYSQL *other = connect_admin();
    (void)state;
    assert_int_equal(ask_put(&f, s, "k", "0"), ERR_OK);
    (void)say("SET GLOBAL innodb_monitor_enable='lock_deadlocks'");
    (void)say_on(other, "BEGIN");
    (void)say_on(other, "INSERT INTO comfy_task SELECT CONCAT('o',seq),'1',0,NULL,9e18 "
                        "FROM seq_1_to_100");
    (void)say_on(other, "SELECT body FROM comfy_task WHERE doc_key='k' LOCK IN SHARE MODE");
    ask_add(&a, STORE_PUT, "k", "ours");
    ask_start(&a, s);
    until_it_says(waiting, "1");
    (void)say_on(other, "UPDATE comfy_task SET body='theirs' WHERE doc_key='k'");
    loop_run_for(&f, 20);
    bool waited = !a.done;
    (void)say_on(other, "COMMIT");
    mysql_close(other);
    ask_wait(&a, &f);
    assert_int_equal(a.op.doc[0].result, ERR_OK);
    ask_done(&a);
    assert_true(waited);
    assert_string_not_equal(say("SELECT COUNT FROM information_schema.INNODB_METRICS "
                                "WHERE NAME='lock_deadlocks'"),
                            "0");
    assert_true(ask_is(&f, s, "k", "ours"));
    assert_true(store_stats(s).failures == 0);
}

static void kill_all(void)
{
    char sql[64];
    unsigned long id = 0;
    while (sscanf(say("SELECT id FROM information_schema.PROCESSLIST WHERE user='comfy' AND "
                      "command<>'Killed' LIMIT 1"),
                  "%lu", &id) == 1) {
        (void)snprintf(sql, sizeof(sql), "KILL %lu", id);
        (void)mysql_query(admin, sql); /* it may be gone by itself */
        loop_run_for(&f, 1);
    }
}

static void who_was_thrown_out_comes_back_unnoticed(void **state)
{
    (void)state;
    assert_int_equal(ask_create(&f, s, "k", "1"), ERR_OK);
    kill_all();
    assert_int_equal(ask_create(&f, s, "k", "2"), ERR_EXISTS);
    kill_all();
    assert_int_equal(ask_put(&f, s, "k", "3"), ERR_OK);
    assert_true(ask_is(&f, s, "k", "3"));
    assert_true(store_healthy(s, NULL));
    assert_true(store_stats(s).failures == 0);
}

static void a_connection_that_slept_too_long_is_replaced(void **state)
{
    (void)state;
    (void)say("SET GLOBAL wait_timeout=1");
    reopen("comfy?create=1&ttl=0");
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    (void)say("SET GLOBAL wait_timeout=28800");
    until_it_says("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE user='comfy'", "0");
    assert_int_equal(ask_put(&f, s, "k", "2"), ERR_OK);
    assert_true(store_stats(s).failures == 0);
}

static const char connection[] = "SELECT COALESCE(MAX(id),0) FROM information_schema.PROCESSLIST "
                                 "WHERE user='comfy'";

static void a_connection_that_is_not_used_goes_and_a_used_one_is_renewed(void **state)
{
    char before[32];
    uint64_t end = clock_mono_ms() + LONG_MS;
    (void)state;
    reopen("comfy?create=1&ttl=0&timeout_ms=50");
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    until_it_says(connection, "0");
    assert_int_equal(ask_put(&f, s, "k", "2"), ERR_OK);
    (void)snprintf(before, sizeof(before), "%s", say(connection));
    do {
        assert_int_equal(ask_put(&f, s, "k", "3"), ERR_OK);
        loop_run_for(&f, 10);
    } while (strcmp(say(connection), before) == 0 && clock_mono_ms() < end);
    assert_string_not_equal(say(connection), before);
    assert_true(store_stats(s).failures == 0);
}

/* The server is there again before the connection is given up: it is not used again. */
static void a_connection_on_which_nothing_moves_is_left(void **state)
{
    struct ask a = {.op = {.deadline_ms = LONG_MS}};
    char before[32];
    (void)state;
    reopen("comfy?create=1&ttl=0&timeout_ms=50");
    assert_int_equal(ask_create(&f, s, "k", "1"), ERR_OK);
    (void)snprintf(before, sizeof(before), "%s", say(connection));
    server_signal(&server, SIGSTOP);
    ask_add(&a, STORE_CREATE, "k2", "1");
    ask_start(&a, s);
    loop_run_for(&f, 150);
    server_signal(&server, SIGCONT);
    ask_wait(&a, &f);
    assert_int_equal(a.op.doc[0].result, ERR_OK);
    assert_string_not_equal(say(connection), before);
    ask_done(&a);
}

/* A frozen owner's words, on the way to a server that hangs: they come too late on its clock. */
static void a_write_that_hung_past_its_moment_is_not_done(void **state)
{
    static const enum store_verb verbs[] = {STORE_PUT, STORE_CREATE, STORE_REMOVE};
    (void)state;
    assert_int_equal(ask_put(&f, s, "k", "old"), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        struct ask a = {.op = {.not_after_ms = clock_mono_ms() + 30}};
        server_signal(&server, SIGSTOP);
        ask_add(&a, verbs[i], verbs[i] == STORE_CREATE ? "new" : "k",
                verbs[i] == STORE_REMOVE ? NULL : "new");
        ask_start(&a, s);
        loop_run_for(&f, 60);
        server_signal(&server, SIGCONT);
        ask_wait(&a, &f);
        assert_int_equal(a.op.doc[0].result, ERR_CANCELLED);
        ask_done(&a);
    }
    assert_true(ask_is(&f, s, "k", "old"));
    assert_true(ask_is(&f, s, "new", NULL));
}

/* --- TLS ------------------------------------------------------------------------------------- */

static void tls_is_spoken_and_who_the_server_is_looked_at(void **state)
{
    char rest[BACKEND_URL_MAX];
    (void)state;
    assert_int_equal(ask_put(&f, s, "k", "plain"), ERR_OK);
    (void)say("ALTER USER comfy@'%' REQUIRE SSL");
    reopen("comfy?wait_ms=60000");
    check_refused("Access denied");
    reopen("comfy?tls=require");
    assert_true(ask_is(&f, s, "k", "plain"));
    char *bytes = xcalloc(1, VALUE_MAX_LEN);
    struct ask a = {.done = false};
    ask_add_bytes(&a, STORE_PUT, "large", (struct slice){bytes, VALUE_MAX_LEN});
    ask_add(&a, STORE_GET, "large", NULL);
    ask_start(&a, s);
    ask_wait(&a, &f);
    assert_int_equal(a.op.doc[1].result, ERR_OK);
    assert_int_equal(a.op.doc[1].value->len, VALUE_MAX_LEN);
    ask_done(&a);
    free(bytes);
    reopen_store(LOGIN, "localhost", "comfy?tls=verify&wait_ms=60000");
    check_refused("certificate"); /* nobody vouches for it */
    (void)snprintf(rest, sizeof(rest), "comfy?tls=verify&wait_ms=60000&ca=%s/cert.pem", server.dir);
    reopen_store(LOGIN, "localhost", rest);
    assert_true(ask_is(&f, s, "k", "plain"));
    reopen(rest); /* it is not the certificate of 127.0.0.1 */
    check_refused("ertificate");
    (void)say("ALTER USER comfy@'%' REQUIRE NONE");
}

/* The library leaves the descriptor blocking after a handshake. */
static void under_tls_a_server_that_hangs_holds_no_loop(void **state)
{
    struct ask a = {.op = {.deadline_ms = 50}};
    struct ask large = {.op = {.deadline_ms = 50}}; /* more than is on its way at once */
    char *bytes = xcalloc(1, VALUE_MAX_LEN);
    uint64_t began;
    (void)state;
    reopen("comfy?create=1&tls=require");
    (void)put_until_connects(0); /* two connections */
    server_signal(&server, SIGSTOP);
    ask_add(&a, STORE_GET, "k", NULL);
    ask_add_bytes(&large, STORE_PUT, "large", (struct slice){bytes, VALUE_MAX_LEN});
    began = clock_mono_ms();
    ask_start(&a, s);
    ask_start(&large, s);
    ask_wait(&a, &f);
    ask_wait(&large, &f);
    assert_int_equal(a.op.doc[0].result, ERR_TIMEOUT);
    assert_int_equal(large.op.doc[0].result, ERR_TIMEOUT);
    assert_true(clock_mono_ms() - began < 2500); /* the library would wait for 3 s */
    server_signal(&server, SIGCONT);
    ask_done(&a);
    ask_done(&large);
    free(bytes);
    until_it_works();
}

/* What became of one connection is no news of the others, nor of the ones to come. */
static void under_tls_a_lost_connection_spoils_no_other(void **state)
{
    char key[8];
    (void)state;
    reopen("comfy?create=1&ttl=0&tls=require&timeout_ms=100");
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    for (unsigned i = 0; i < 4; i++) { /* not each one leaves an error behind */
        struct ask a = {.op = {.deadline_ms = LONG_MS}};
        (void)snprintf(key, sizeof(key), "k%u", i);
        server_signal(&server, SIGSTOP);
        ask_add(&a, STORE_CREATE, key, "1");
        ask_start(&a, s);
        loop_run_for(&f, 250);
        server_signal(&server, SIGCONT);
        ask_wait(&a, &f);
        assert_int_equal(a.op.doc[0].result, ERR_OK);
        ask_done(&a);
        assert_int_equal(ask_put(&f, s, "k", "2"), ERR_OK);
        assert_true(ask_is(&f, s, "k", "2"));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_document_stands_there_as_it_is),
        TEST(tables_and_databases_keep_stores_apart),
        TEST(nothing_walks_through_the_table),
        TEST(what_is_no_document_is_told_apart),
        TEST(documents_expire_and_claims_outlive_them),
        TEST(a_purge_removes_what_has_expired_and_nothing_else),
        TEST(by_default_it_is_a_week_and_never_if_so_wished),
        TEST(a_wrong_login_is_told_and_not_tried_all_the_time),
        TEST(another_way_to_log_in_is_taken),
        TEST(a_table_is_made_only_on_request),
        TEST(what_the_server_cannot_take_is_too_large),
        TEST(a_server_that_only_reads_is_told_and_forgiven),
        TEST(one_connection_does_where_no_more_are_given),
        TEST(the_one_connection_that_is_given_is_back_at_once),
        TEST(a_row_that_others_hold_is_waited_for),
        TEST(a_deadlock_that_others_win_is_tried_again),
        TEST(who_was_thrown_out_comes_back_unnoticed),
        TEST(a_connection_that_slept_too_long_is_replaced),
        TEST(a_connection_that_is_not_used_goes_and_a_used_one_is_renewed),
        TEST(a_connection_on_which_nothing_moves_is_left),
        TEST(a_write_that_hung_past_its_moment_is_not_done),
        TEST(tls_is_spoken_and_who_the_server_is_looked_at),
        TEST(under_tls_a_server_that_hangs_holds_no_loop),
        TEST(under_tls_a_lost_connection_spoils_no_other),
    };
    if (!server_mysql_is_installed())
        return SKIPPED;
    (void)signal(SIGPIPE, SIG_IGN);
    server_mysql_tls(&server);
    admin = connect_admin();
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    mysql_close(admin);
    server_done(&server);
    return failures;
}
