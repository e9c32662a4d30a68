/* What only a real Redis server shows: what stands in it, how it forgets, what it refuses. */
#include "servers.h"
#include "store_ask.h"
#include "unit.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LONG_MS = 60000, SKIPPED = 77 };

static struct server server, replica;
static struct loop_fixture f;
static struct store *s;

/* --- another client -------------------------------------------------------------------------- */

static const char *say(const char *commands)
{
    return server_redis_say(&server, commands);
}

static void open_store(const char *user, const char *rest)
{
    char url[BACKEND_URL_MAX];
    (void)snprintf(url, sizeof(url), "redis://%s@127.0.0.1:%u%s", user, server.port, rest);
    assert_int_equal(store_open(&s, &f.loop, &f.later, url, NULL), ERR_OK);
}

static void reopen_store(const char *user, const char *rest)
{
    ask_close(&f, s, LONG_MS);
    open_store(user, rest);
}

#define USER ":pa:ss%20w%40rd"

static int set_up(void **state)
{
    (void)state;
    (void)say("FLUSHALL");
    loop_fixture_open(&f);
    open_store(USER, "");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ask_close(&f, s, LONG_MS);
    loop_fixture_close(&f);
    return 0;
}

/* --- what stands there ----------------------------------------------------------------------- */

static void a_document_stands_there_as_it_is(void **state)
{
    (void)state;
    assert_int_equal(ask_put(&f, s, "t1", "{\"1\":2}"), ERR_OK);
    assert_string_equal(say("GET comfy:task:t1"), "$7\r\n{\"1\":2}\r\n+PONG\r\n");
    assert_string_equal(say("DBSIZE"), ":1\r\n+PONG\r\n"); /* an order only where there is one */
    assert_int_equal(ask_put(&f, s, "t1~task", "1"), ERR_OK);
    assert_string_equal(say("ZCARD comfy:task:~list"), ":1\r\n+PONG\r\n");
    assert_int_equal(ask_remove(&f, s, "t1~task"), ERR_OK);
    assert_int_equal(ask_remove(&f, s, "t1"), ERR_OK);
    assert_string_equal(say("DBSIZE"), ":0\r\n+PONG\r\n");
}

static void prefix_and_database_keep_stores_apart(void **state)
{
    (void)state;
    assert_int_equal(ask_put(&f, s, "t", "first"), ERR_OK);
    reopen_store(USER, "/1");
    assert_true(ask_is(&f, s, "t", NULL));
    assert_int_equal(ask_put(&f, s, "t", "second"), ERR_OK);
    reopen_store(USER, "/0?prefix=%7Bx%7D:");
    assert_true(ask_is(&f, s, "t", NULL));
    assert_int_equal(ask_put(&f, s, "t", "third"), ERR_OK);
    assert_string_equal(say("GET {x}:t"), "$5\r\nthird\r\n+PONG\r\n");
    reopen_store(USER, "/0");
    assert_true(ask_is(&f, s, "t", "first"));
}

static void who_listens_hears_of_a_write(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)server.port)};
    static const char words[] = "AUTH \"" SERVER_REDIS_PASSWORD "\"\r\nSUBSCRIBE changes\r\n";
    char heard[512] = "";
    size_t len = 0;
    (void)state;
    reopen_store(USER, "?publish=changes");
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(write(fd, words, sizeof(words) - 1), sizeof(words) - 1);
    while (strstr(heard, ":1\r\n") == NULL)
        len += (size_t)read(fd, heard + len, sizeof(heard) - 1 - len);
    assert_int_equal(ask_put(&f, s, "t~task", "1"), ERR_OK);
    while (strstr(heard, "comfy:task:t~task") == NULL)
        len += (size_t)read(fd, heard + len, sizeof(heard) - 1 - len);
    (void)close(fd);
}

/* --- what others put there ------------------------------------------------------------------- */

/* It is written all the same: "not written" would be another's end to who comes to create his. */
static void who_may_not_publish_writes(void **state)
{
    (void)state;
    (void)say("ACL SETUSER default -publish");
    reopen_store(USER, "?publish=news");
    assert_int_equal(ask_create(&f, s, "t1~end.1", "1"), ERR_OK);
    assert_int_equal(ask_put(&f, s, "t1~task", "1"), ERR_OK);
    assert_true(ask_is(&f, s, "t1~end.1", "1"));
    (void)say("ACL SETUSER default +publish");
}

static void what_is_no_document_is_corrupt(void **state)
{
    struct blob *value;
    (void)state;
    (void)say("LPUSH comfy:task:list x\r\nSET comfy:task:empty \"\"\r\n"
              "SETRANGE comfy:task:huge 16777216 x");
    assert_int_equal(ask_get(&f, s, "list", &value), ERR_CORRUPT);
    assert_true(ask_is(&f, s, "empty", NULL));
    assert_int_equal(ask_get(&f, s, "huge", &value), ERR_TOO_LARGE);
    assert_true(store_healthy(s, NULL));
    struct ask a = {.done = false};
    assert_int_equal(ask_put(&f, s, "good", "1"), ERR_OK);
    ask_add(&a, STORE_GET, "list", NULL); /* says nothing of the next one */
    ask_add(&a, STORE_GET, "good", NULL);
    ask_start(&a, s);
    ask_wait(&a, &f);
    assert_int_equal(a.op.doc[0].result, ERR_CORRUPT);
    assert_int_equal(a.op.doc[1].result, ERR_OK);
    ask_done(&a);
    assert_int_equal(ask_create(&f, s, "list", "1"), ERR_EXISTS);
    assert_int_equal(ask_put(&f, s, "list", "1"), ERR_OK);
    assert_true(ask_is(&f, s, "list", "1"));
}

static void orders_of_what_is_gone_hold_nothing_up(void **state)
{
    struct ask a = {.done = false};
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        a = (struct ask){.done = false};
        ask_add(&a, STORE_PUT, "t", i == 0 ? "new" : "old");
        a.op.doc[0].order = 9 - i;
        ask_start(&a, s);
        ask_wait(&a, &f);
        assert_int_equal(a.op.doc[0].result, ERR_OK);
        ask_done(&a);
        assert_true(ask_is(&f, s, "t", i == 0 ? "new" : "old"));
        (void)say("DEL comfy:task:t"); /* evicted, say */
    }
}

/* --- what is forgotten ----------------------------------------------------------------------- */

static void check_ttl(const char *key, unsigned seconds)
{
    char command[64];
    unsigned found = 0;
    (void)snprintf(command, sizeof(command), "TTL comfy:task:%s", key);
    assert_int_equal(sscanf(say(command), ":%u", &found), 1);
    assert_in_range(found, seconds - 60, seconds);
}

static unsigned count_listed(void)
{
    static struct store_page page;
    struct ask a = {.op = {.page = &page}};
    page = (struct store_page){.limit = 10};
    ask_start(&a, s);
    ask_wait(&a, &f);
    assert_int_equal(a.op.err.code, ERR_OK);
    return page.count;
}

static void documents_expire_and_claims_outlive_them(void **state)
{
    struct blob *value = NULL;
    uint64_t end = clock_mono_ms() + LONG_MS;
    (void)state;
    reopen_store(USER, "?ttl=1");
    assert_int_equal(ask_create(&f, s, "t~run.1", "1"), ERR_OK);
    assert_int_equal(ask_create(&f, s, "t~end.1", "1"), ERR_OK);
    assert_int_equal(ask_put(&f, s, "t~task", "1"), ERR_OK);
    check_ttl("t~end.1", 86401);
    check_ttl("t~run.1", 172801);
    while (ask_get(&f, s, "t~task", &value) == ERR_OK && clock_mono_ms() < end) {
        blob_unref(value);
        loop_run_for(&f, 10);
    }
    assert_true(ask_is(&f, s, "t~task", NULL));
    while (count_listed() > 0 && clock_mono_ms() < end) /* by our idea of its clock */
        loop_run_for(&f, 10);
    assert_int_equal(count_listed(), 0);
    assert_int_equal(ask_create(&f, s, "t~run.1", "2"), ERR_EXISTS);
}

static void by_default_it_is_a_week_and_never_if_so_wished(void **state)
{
    (void)state;
    assert_int_equal(ask_put(&f, s, "t~task", "1"), ERR_OK);
    check_ttl("t~task", 604800);
    reopen_store(USER, "?ttl=0");
    assert_int_equal(ask_put(&f, s, "t~task", "1"), ERR_OK);
    assert_string_equal(say("TTL comfy:task:t~task"), ":-1\r\n+PONG\r\n");
}

/* --- what is refused ------------------------------------------------------------------------- */

/* A machine that is busy may be too slow for the first connection; then the reason is the second's.
 */
static void check_refused(const char *word, const char *secret)
{
    struct err why;
    uint64_t end = clock_mono_ms() + LONG_MS;
    do {
        assert_int_equal(ask_put(&f, s, "k", "1"), ERR_UNAVAILABLE);
        assert_false(store_healthy(s, &why));
        assert_null(strstr(why.msg, secret));
    } while (strstr(why.msg, word) == NULL && clock_mono_ms() < end);
    assert_non_null(strstr(why.msg, word));
}

static void a_wrong_login_is_told(void **state)
{
    (void)state;
    reopen_store(":s3cret", "?wait_ms=1000");
    check_refused("WRONGPASS", "s3cret");
    reopen_store("nobody:s3cret", "?wait_ms=1000");
    check_refused("WRONGPASS", "s3cret");
    reopen_store("", "?wait_ms=1000");
    check_refused("NOAUTH", "s3cret");
    reopen_store(USER, "/99?wait_ms=1000");
    check_refused("out of range", "pa:ss");
}

static unsigned connections_so_far(void)
{
    static const char name[] = "total_connections_received:";
    const char *found = strstr(say("INFO stats"), name);
    assert_non_null(found);
    return (unsigned)strtoul(found + strlen(name), NULL, 10);
}

static void a_wrong_login_is_not_tried_all_the_time(void **state)
{
    (void)state;
    reopen_store(":s3cret", "?wait_ms=50");
    unsigned before = connections_so_far();
    for (unsigned i = 0; i < 50; i++) {
        check_refused("WRONGPASS", "s3cret");
        loop_run_for(&f, 5);
    }
    assert_true(connections_so_far() - before < 10);
}

/* The server ends what is idle for a second. */
static void a_connection_that_slept_too_long_is_replaced(void **state)
{
    uint64_t end = clock_mono_ms() + LONG_MS;
    (void)state;
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    (void)say("CONFIG SET timeout 1");
    while (strstr(say("INFO clients"), "connected_clients:1\r\n") == NULL) /* who asks */
        ASSERT(clock_mono_ms() < end && usleep(20000) == 0);
    (void)say("CONFIG SET timeout 0");
    assert_int_equal(ask_put(&f, s, "k", "2"), ERR_OK);
    assert_true(ask_is(&f, s, "k", "2"));
    assert_true(store_stats(s).failures == 0);
}

static void a_full_memory_is_told_and_forgiven(void **state)
{
    (void)state;
    assert_int_equal(ask_put(&f, s, "k", "0"), ERR_OK);
    (void)say("CONFIG SET maxmemory 1");
    check_refused("memory", "pa:ss");
    assert_true(ask_is(&f, s, "k", "0")); /* reading goes on */
    assert_false(store_healthy(s, NULL)); /* and says nothing about writing */
    (void)say("CONFIG SET maxmemory 0");
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    assert_true(store_healthy(s, NULL));
}

/* The address now leads to a replica, until a failover is over. */
static void a_replica_is_waited_out(void **state)
{
    char command[64];
    struct ask a = {.done = false};
    (void)state;
    server_redis(&replica);
    assert_int_equal(ask_create(&f, s, "k", "1"), ERR_OK);
    (void)snprintf(command, sizeof(command), "REPLICAOF 127.0.0.1 %u", replica.port);
    (void)say(command);
    check_refused("", "pa:ss");
    ask_add(&a, STORE_CREATE, "k2", "1");
    ask_start(&a, s);
    loop_run_for(&f, 20);
    (void)say("REPLICAOF NO ONE");
    ask_wait(&a, &f);
    ask_done(&a);
    uint64_t end = clock_mono_ms() + LONG_MS;
    while (ask_put(&f, s, "k2", "2") != ERR_OK && clock_mono_ms() < end)
        loop_run_for(&f, 1);
    assert_true(ask_is(&f, s, "k2", "2"));
}

/* A frozen owner's words, on the way to a server that hangs: they come too late on its clock. */
static void a_write_that_hung_past_its_moment_is_not_done(void **state)
{
    (void)state;
    assert_int_equal(ask_put(&f, s, "k", "old"), ERR_OK);
    struct ask a = {.op = {.not_after_ms = clock_mono_ms() + 30}};
    server_signal(&server, SIGSTOP);
    ask_add(&a, STORE_PUT, "k", "new");
    ask_start(&a, s);
    loop_run_for(&f, 60);
    server_signal(&server, SIGCONT);
    ask_wait(&a, &f);
    assert_int_equal(a.op.doc[0].result, ERR_CANCELLED);
    ask_done(&a);
    assert_true(ask_is(&f, s, "k", "old"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_document_stands_there_as_it_is),
        TEST(prefix_and_database_keep_stores_apart),
        TEST(who_listens_hears_of_a_write),
        TEST(who_may_not_publish_writes),
        TEST(what_is_no_document_is_corrupt),
        TEST(orders_of_what_is_gone_hold_nothing_up),
        TEST(documents_expire_and_claims_outlive_them),
        TEST(by_default_it_is_a_week_and_never_if_so_wished),
        TEST(a_wrong_login_is_told),
        TEST(a_wrong_login_is_not_tried_all_the_time),
        TEST(a_connection_that_slept_too_long_is_replaced),
        TEST(a_full_memory_is_told_and_forgiven),
        TEST(a_replica_is_waited_out),
        TEST(a_write_that_hung_past_its_moment_is_not_done),
    };
    if (!server_is_installed("redis-server"))
        return SKIPPED;
    (void)signal(SIGPIPE, SIG_IGN);
    server_redis(&server);
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    server_done(&replica);
    server_done(&server);
    return failures;
}
