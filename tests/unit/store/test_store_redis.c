/* The Redis store and a server that a script speaks for: greetings, errors, lost answers, nonsense.
 * What a real server does is tested in tests/contract. */
#include "peer.h"
#include "store_ask.h"
#include "unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define SCRIPT(name, ...) static const struct peer_step name[] = {__VA_ARGS__, DOES(PEER_SILENT)}
#define CLOCK             "*2\r\n$10\r\n1764113016\r\n$6\r\n000001\r\n"
#define GREETS            EXPECTS("$4\r\nTIME\r\n"), SENDS(CLOCK)
#define WRITTEN           "$4\r\ndone\r\n"
#define SERVES            GREETS, EXPECTS("EVAL\r\n"), SENDS(WRITTEN)

enum { LONG_MS = 60000, ATTEMPTS_MAX = 8 };

static struct loop_fixture f;
static struct peer peer;
static struct store *s;

static void open_store(const char *before_host, const char *behind_port)
{
    char url[256];
    (void)snprintf(url, sizeof(url), "redis://%s:%u%s", before_host, peer.port, behind_port);
    assert_int_equal(store_open(&s, &f.loop, &f.later, url, NULL), ERR_OK);
}

static void begin(const struct peer_step *const *scripts, unsigned count)
{
    loop_fixture_open(&f);
    peer_open(&peer, &f, scripts, count);
    open_store("127.0.0.1", "");
}

static void finish(void)
{
    if (s != NULL)
        ask_close(&f, s, 0);
    s = NULL;
    peer_close(&peer);
    loop_fixture_close(&f);
    peer_done(&peer);
}

#define BEGIN(...)                                                                                 \
    static const struct peer_step *const scripts[] = {__VA_ARGS__};                                \
    begin(scripts, ARRAY_LEN(scripts))

SCRIPT(serves_for_ever, GREETS, EXPECTS("EVAL\r\n"), SENDS(WRITTEN), EXPECTS("EVAL\r\n"),
       SENDS(WRITTEN));

/* --- the connection -------------------------------------------------------------------------- */

static void nothing_is_connected_before_it_is_wanted(void **state)
{
    (void)state;
    BEGIN(serves_for_ever);
    loop_run_for(&f, 30);
    assert_int_equal(peer.accepted, 0);
    assert_true(store_healthy(s, NULL));
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    assert_int_equal(ask_put(&f, s, "k", "2"), ERR_OK);
    assert_int_equal(peer.accepted, 1);
    finish();
}

static void answers_in_pieces_are_answers(void **state)
{
    SCRIPT(script, EXPECTS("$4\r\nTIME\r\n"), DRIBBLES(CLOCK), EXPECTS("EVAL\r\n"),
           DRIBBLES(WRITTEN), EXPECTS("GETRANGE\r\n"), DRIBBLES("$5\r\na\r\nb\n\r\n"));
    struct blob *value = NULL;
    (void)state;
    BEGIN(script);
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    assert_int_equal(ask_get(&f, s, "k", &value), ERR_OK);
    assert_true(slice_is(blob_slice(value), "a\r\nb\n"));
    blob_unref(value);
    finish();
}

static void who_must_log_in_does_and_chooses_a_database(void **state)
{
    SCRIPT(script, EXPECTS("*3\r\n$4\r\nAUTH\r\n$2\r\nus\r\n$6\r\ns3cr@t\r\n"),
           EXPECTS("*2\r\n$6\r\nSELECT\r\n$2\r\n12\r\n"), EXPECTS("$4\r\nTIME\r\n"),
           SENDS("+OK\r\n+OK\r\n" CLOCK), EXPECTS("EVAL\r\n"), SENDS(WRITTEN));
    (void)state;
    BEGIN(script);
    ask_close(&f, s, 0);
    open_store("us:s3cr%40t@127.0.0.1", "/12");
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    finish();
}

/* Its server knows no AUTH, and repeats what it was told. */
static void a_refused_login_is_told_without_the_secret(void **state)
{
    SCRIPT(script, EXPECTS("AUTH"),
           SENDS("-ERR unknown command 'AUTH', with args beginning with: 'us' 's3cret'\r\n"),
           DOES(PEER_CLOSE));
    struct err why;
    struct ask a = {.done = false};
    (void)state;
    BEGIN(script);
    ask_close(&f, s, 0);
    open_store("us:s3cret@127.0.0.1", "?wait_ms=1000");
    ask_add(&a, STORE_PUT, "k", "1");
    ask_start(&a, s);
    ask_wait(&a, &f);
    assert_int_equal(a.op.doc[0].result, ERR_UNAVAILABLE);
    assert_null(strstr(a.op.err.msg, "s3cret"));
    assert_non_null(strstr(a.op.err.msg, "login"));
    ask_done(&a);
    assert_false(store_healthy(s, &why));
    assert_null(strstr(why.msg, "s3cret"));
    assert_true(peer.accepted <= ATTEMPTS_MAX); /* and not hammered */
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_UNAVAILABLE);
    assert_true(peer.accepted <= ATTEMPTS_MAX + 2);
    finish();
}

static void a_name_leads_to_its_addresses(void **state)
{
    struct err why;
    (void)state;
    BEGIN(serves_for_ever);
    ask_close(&f, s, 0);
    open_store("localhost", ""); /* may be ::1 too, where nobody listens */
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    ask_close(&f, s, 0);
    open_store("no..name", "?wait_ms=1000");
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_UNAVAILABLE);
    assert_false(store_healthy(s, &why));
    assert_non_null(strstr(why.msg, "name"));
    finish();
}

static void what_is_no_redis_server_is_told(void **state)
{
    SCRIPT(web, EXPECTS("TIME"), SENDS("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"));
    SCRIPT(mail, EXPECTS("TIME"), SENDS("+OK ready\r\n"));
    SCRIPT(nested, EXPECTS("TIME"), SENDS("*2\r\n*1\r\n+1\r\n+1\r\n"));
    struct err why;
    (void)state;
    BEGIN(web, mail, nested, web);
    ask_close(&f, s, 0);
    open_store("127.0.0.1", "?wait_ms=1000");
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_UNAVAILABLE);
    assert_false(store_healthy(s, &why));
    assert_non_null(strstr(why.msg, "no Redis server"));
    assert_true(peer.accepted >= 3);
    finish();
}

static void what_was_not_asked_for_ends_the_connection(void **state)
{
    SCRIPT(chatty, SERVES, SENDS("+and another thing\r\n"));
    SCRIPT(full, GREETS, EXPECTS("EVAL\r\n"), SENDS(WRITTEN "-ERR going down\r\n"));
    (void)state;
    BEGIN(chatty, full, serves_for_ever);
    ask_close(&f, s, 0);
    open_store("127.0.0.1", "?timeout_ms=60000"); /* it is not its silence that is seen */
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    loop_run_for(&f, 20);
    assert_int_equal(ask_put(&f, s, "k", "2"), ERR_OK);
    loop_run_for(&f, 20);
    assert_int_equal(ask_put(&f, s, "k", "3"), ERR_OK);
    assert_int_equal(peer.accepted, 3);
    assert_true(store_healthy(s, NULL));
    finish();
}

static void a_connection_that_was_ended_while_idle_is_no_failure(void **state)
{
    SCRIPT(idle, SERVES, DOES(PEER_CLOSE));
    SCRIPT(reset, SERVES, DOES(PEER_RESET));
    (void)state;
    BEGIN(idle, reset, serves_for_ever);
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
        loop_run_for(&f, 20);
        assert_int_equal(peer.accepted, i);
    }
    finish();
}

static void who_is_silent_is_left(void **state)
{
    SCRIPT(no_greeting, EXPECTS("TIME"));
    SCRIPT(half_a_greeting, EXPECTS("TIME"), SENDS("*2\r\n$10\r\n17"));
    SCRIPT(no_answer, GREETS, EXPECTS("EVAL\r\n"));
    (void)state;
    BEGIN(no_greeting, half_a_greeting, no_answer, serves_for_ever);
    ask_close(&f, s, 0);
    open_store("127.0.0.1", "?timeout_ms=50");
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    assert_true(peer.accepted >= 4);
    finish();
}

/* It is one write of libuv's, which tells of its end only. */
static void who_takes_a_large_value_slowly_is_not_silent(void **state)
{
    SCRIPT(slow, GREETS, DOES(PEER_STOP), WAITS(900), DOES(PEER_READ), EXPECTS("<1>"),
           DOES(PEER_STOP), WAITS(900), DOES(PEER_READ), EXPECTS("<2>"), DOES(PEER_STOP),
           WAITS(900), DOES(PEER_READ), EXPECTS("<3>"), SENDS(WRITTEN));
    enum { PART = 5 * 1024 * 1024 };
    struct ask a = {.op = {.deadline_ms = LONG_MS}};
    char *value = xcalloc(1, 3 * PART + 1);
    (void)state;
    BEGIN(slow);
    ask_close(&f, s, 0);
    open_store("127.0.0.1", "?timeout_ms=2000");
    memset(value, 'x', 3 * PART);
    for (unsigned i = 1; i <= 3; i++)
        (void)memcpy(value + i * PART - 3, i == 1 ? "<1>" : i == 2 ? "<2>" : "<3>", 3);
    ask_add(&a, STORE_PUT, "k", value);
    ask_start(&a, s);
    ask_wait(&a, &f);
    assert_int_equal(a.op.doc[0].result, ERR_OK);
    ask_done(&a);
    assert_int_equal(peer.accepted, 1);
    free(value);
    finish();
}

/* A server that is frozen or gone: what is said meanwhile finds room in the kernel's buffers. */
static void who_is_silent_while_others_ask_is_left(void **state)
{
    SCRIPT(gone, GREETS, EXPECTS("EVAL\r\n"));
    SCRIPT(serves, GREETS, EXPECTS("EVAL\r\n"), SENDS(WRITTEN), DOES(PEER_AGAIN));
    enum { ASKS = 25, EVERY_MS = 30 };
    static struct ask asks[ASKS];
    unsigned count = 0;
    (void)state;
    BEGIN(gone, serves);
    ask_close(&f, s, 0);
    open_store("127.0.0.1", "?timeout_ms=200");
    memset(asks, 0, sizeof(asks));
    while (count < ASKS && peer.accepted < 2) {
        char key[16];
        (void)snprintf(key, sizeof(key), "k%u", count);
        ask_add(&asks[count], STORE_PUT, key, "1");
        ask_start(&asks[count++], s);
        loop_run_for(&f, EVERY_MS);
    }
    assert_true(peer.accepted >= 2);
    ask_close(&f, s, 0);
    s = NULL;
    for (unsigned i = 0; i < count; i++)
        ask_done(&asks[i]);
    finish();
}

/* --- documents ------------------------------------------------------------------------------- */

static void what_was_created_and_lost_its_answer_is_ours(void **state)
{
    SCRIPT(loses, GREETS, EXPECTS("$6\r\ncreate\r\n"), EXPECTS("mine"), DOES(PEER_CLOSE));
    SCRIPT(half, GREETS, EXPECTS("$12\r\ncreate again\r\n"), EXPECTS("mine"), SENDS("$4\r\ndo"),
           DOES(PEER_RESET));
    SCRIPT(finds, GREETS, EXPECTS("$12\r\ncreate again\r\n"), SENDS(WRITTEN),
           EXPECTS("$6\r\ncreate\r\n"), DOES(PEER_CLOSE));
    SCRIPT(others, GREETS, EXPECTS("$12\r\ncreate again\r\n"), SENDS("$6\r\nexists\r\n"));
    (void)state;
    BEGIN(loses, half, finds, others);
    assert_int_equal(ask_create(&f, s, "k~run.1", "mine"), ERR_OK);
    assert_int_equal(ask_create(&f, s, "k~run.1", "mine"), ERR_EXISTS);
    assert_int_equal(peer.accepted, 4);
    finish();
}

static void what_was_not_sent_is_not_in_doubt(void **state)
{
    SCRIPT(loses, EXPECTS("TIME"), DOES(PEER_CLOSE));
    SCRIPT(serves, GREETS, EXPECTS("$6\r\ncreate\r\n"), SENDS(WRITTEN));
    (void)state;
    BEGIN(loses, serves);
    assert_int_equal(ask_create(&f, s, "k~run.1", "1"), ERR_OK);
    finish();
}

static void what_stays_in_doubt_is_told_as_that(void **state)
{
    SCRIPT(loses, GREETS, EXPECTS("EVAL\r\n"), DOES(PEER_CLOSE));
    SCRIPT(refuses, EXPECTS("TIME"), DOES(PEER_CLOSE));
    (void)state;
    BEGIN(loses, refuses);
    ask_close(&f, s, 0);
    open_store("127.0.0.1", "?wait_ms=1000");
    assert_int_equal(ask_create(&f, s, "k~run.1", "1"), ERR_TIMEOUT);
    assert_int_equal(ask_create(&f, s, "k~run.1", "1"), ERR_UNAVAILABLE);
    finish();
}

/* "It did not happen" is no answer to what may have happened before. */
static void what_may_have_been_done_is_never_denied(void **state)
{
    SCRIPT(loses, GREETS, EXPECTS("EVAL\r\n"), DOES(PEER_CLOSE));
    SCRIPT(late, GREETS, EXPECTS("EVAL\r\n"), SENDS("$4\r\nlate\r\n"), EXPECTS("TIME"),
           SENDS(CLOCK), EXPECTS("EVAL\r\n"), SENDS("$4\r\nlate\r\n"), EXPECTS("TIME"),
           SENDS(CLOCK), EXPECTS("EVAL\r\n"), DOES(PEER_CLOSE));
    SCRIPT(full, GREETS, EXPECTS("EVAL\r\n"), SENDS("-OOM command not allowed\r\n"),
           EXPECTS("EVAL\r\n"), SENDS("-OOM command not allowed\r\n"));
    (void)state;
    BEGIN(loses, late, full);
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_TIMEOUT);
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_CANCELLED);
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_TIMEOUT);
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_UNAVAILABLE);
    assert_int_equal(peer.accepted, 3);
    finish();
}

/* As servers before version 7 tell it: behind where in the script it was. */
static void what_a_script_is_refused_is_found(void **state)
{
#define SCRIPT_ERROR                                                                               \
    "-ERR Error running script (call to f_b3bf2a8df2f27d1e1c3a0d3bb9ea2d4ddb1f6d6e): "
    SCRIPT(replica, GREETS, EXPECTS("EVAL\r\n"),
           SENDS(SCRIPT_ERROR "@user_script:18: @user_script: 18: -READONLY You can't write "
                              "against a read only replica. \r\n"));
    SCRIPT(serves, GREETS, EXPECTS("EVAL\r\n"),
           SENDS(SCRIPT_ERROR "@user_script:18: @user_script: 18: -OOM command not allowed when "
                              "used memory > 'maxmemory'. \r\n"),
           EXPECTS("EVAL\r\n"),
           SENDS(SCRIPT_ERROR "@user_script:18: WRONGTYPE Operation against a key\r\n"),
           EXPECTS("EVAL\r\n"), SENDS("-ERR Error running script @user_script:\r\n"),
           EXPECTS("EVAL\r\n"), SENDS(WRITTEN));
    struct err why;
    (void)state;
    BEGIN(replica, serves);
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_UNAVAILABLE);
    assert_int_equal(peer.accepted, 2); /* not with a replica for ever */
    assert_false(store_healthy(s, &why));
    assert_non_null(strstr(why.msg, "says OOM command"));
    assert_non_null(strstr(why.msg, "memory is full"));
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_CORRUPT);
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_UNAVAILABLE);
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    finish();
}

static void a_server_that_cannot_yet_is_asked_again(void **state)
{
    SCRIPT(loading, GREETS, EXPECTS("EVAL\r\n"),
           SENDS("-LOADING Redis is loading the dataset\r\n"));
    SCRIPT(replica, GREETS, EXPECTS("EVAL\r\n"), SENDS("-READONLY You can't write here.\r\n"));
    SCRIPT(full, EXPECTS("TIME"), SENDS("-ERR max number of clients reached\r\n"),
           DOES(PEER_CLOSE));
    SCRIPT(serves, GREETS, EXPECTS("$6\r\ncreate\r\n"), SENDS(WRITTEN));
    (void)state;
    BEGIN(loading, replica, full, serves);
    assert_int_equal(ask_create(&f, s, "k", "1"), ERR_OK); /* it was refused, so not in doubt */
    assert_int_equal(peer.accepted, 4);
    assert_true(store_healthy(s, NULL));
    finish();
}

static void errors_are_told(void **state)
{
    SCRIPT(script, GREETS, EXPECTS("EVAL\r\n"),
           SENDS("-MISCONF Redis is configured to save RDB snapshots\r\n"), EXPECTS("EVAL\r\n"),
           SENDS("-MOVED 3999 127.0.0.1:6381\r\n"), EXPECTS("EVAL\r\n"), SENDS(WRITTEN),
           EXPECTS("GETRANGE\r\n"), SENDS("-WRONGTYPE Operation against a key\r\n"),
           EXPECTS("GETRANGE\r\n"), SENDS("-NOPERM this user has no permissions\r\n"));
    struct err why;
    struct blob *value;
    (void)state;
    BEGIN(script);
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_UNAVAILABLE);
    assert_false(store_healthy(s, &why));
    assert_non_null(strstr(why.msg, "MISCONF"));
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_UNAVAILABLE);
    assert_false(store_healthy(s, &why));
    assert_non_null(strstr(why.msg, "cluster"));
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_OK);
    assert_int_equal(ask_get(&f, s, "k", &value), ERR_CORRUPT);
    assert_true(store_healthy(s, NULL));
    assert_int_equal(ask_get(&f, s, "k", &value), ERR_UNAVAILABLE);
    assert_int_equal(peer.accepted, 1);
    finish();
}

static void answers_of_a_wrong_kind_are_no_answers(void **state)
{
    SCRIPT(number, GREETS, EXPECTS("EVAL\r\n"), SENDS(":1\r\n"));
    SCRIPT(word, GREETS, EXPECTS("EVAL\r\n"), SENDS("+fine\r\n"));
    SCRIPT(nothing, GREETS, EXPECTS("GETRANGE\r\n"), SENDS("$-1\r\n"));
    SCRIPT(list, GREETS, EXPECTS("GETRANGE\r\n"), SENDS("*1\r\n$1\r\na\r\n"));
    struct blob *value;
    (void)state;
    BEGIN(number, word, nothing, list);
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_UNAVAILABLE);
    assert_int_equal(ask_put(&f, s, "k", "1"), ERR_UNAVAILABLE);
    assert_int_equal(ask_get(&f, s, "k", &value), ERR_UNAVAILABLE);
    assert_int_equal(ask_get(&f, s, "k", &value), ERR_UNAVAILABLE);
    assert_int_equal(peer.accepted, 4);
    finish();
}

static void an_answer_without_end_is_left(void **state)
{
    static char much[64 * 1024];
    SCRIPT(endless, GREETS, EXPECTS("GETRANGE\r\n"), SENDS("$2000000000\r\n"),
           SENDS_MANY(much, 400));
    struct err why;
    struct blob *value;
    (void)state;
    BEGIN(endless);
    ask_close(&f, s, 0);
    open_store("127.0.0.1", "?wait_ms=1000");
    assert_int_not_equal(ask_get(&f, s, "k", &value), ERR_OK);
    assert_false(store_healthy(s, &why));
    assert_non_null(strstr(why.msg, "too large"));
    finish();
}

/* Its moment is told on the server's clock, which is wherever it is. */
static void the_server_is_told_until_when(void **state)
{
    SCRIPT(script, GREETS, EXPECTS("$3\r\nput\r\n$16\r\n17641130"), SENDS("$4\r\nlate\r\n"),
           EXPECTS("$4\r\nTIME\r\n"), /* was it the clock? */
           SENDS("*2\r\n$10\r\n1900000000\r\n$1\r\n0\r\n"), EXPECTS("$3\r\nput\r\n$16\r\n19000000"),
           SENDS(WRITTEN));
    (void)state;
    BEGIN(script);
    for (unsigned i = 0; i < 2; i++) {
        struct ask a = {.op = {.not_after_ms = clock_mono_ms() + 50000}};
        ask_add(&a, STORE_PUT, "k", "1");
        ask_start(&a, s);
        ask_wait(&a, &f);
        assert_int_equal(a.op.doc[0].result, i == 0 ? ERR_CANCELLED : ERR_OK);
        ask_done(&a);
    }
    assert_true(store_healthy(s, NULL));
    finish();
}

/* --- lists ----------------------------------------------------------------------------------- */

static struct store_page page;

static enum err_code list(unsigned limit)
{
    struct ask a = {.op = {.page = &page}};
    memset(&page, 0, sizeof(page));
    page.limit = limit;
    ask_start(&a, s);
    ask_wait(&a, &f);
    return a.op.err.code;
}

static void what_is_no_key_is_not_listed(void **state)
{
    SCRIPT(script, GREETS, EXPECTS("ZREVRANGEBYSCORE\r\n"),
           SENDS("*8\r\n$6\r\na~task\r\n$1\r\n9\r\n$5\r\n../~x\r\n$1\r\n8\r\n"
                 "$7\r\na~other\r\n$1\r\n7\r\n$6\r\nb~task\r\n$1\r\n6\r\n"),
           EXPECTS("ZREVRANGEBYSCORE\r\n"),
           SENDS("*4\r\n$6\r\na~task\r\n$1\r\n9\r\n$6\r\nb~task\r\n$1\r\n8\r\n"),
           EXPECTS("ZREVRANGEBYSCORE\r\n"), /* one more than asked for, so there is more */
           SENDS("*6\r\n$6\r\na~task\r\n$1\r\n9\r\n$5\r\n../~x\r\n$1\r\n8\r\n"
                 "$6\r\nb~task\r\n$1\r\n7\r\n"));
    (void)state;
    BEGIN(script);
    assert_int_equal(list(10), ERR_OK);
    assert_int_equal(page.count, 2);
    assert_string_equal(page.keys[1], "b~task");
    assert_string_equal(page.next, "");
    assert_int_equal(list(1), ERR_OK);
    assert_int_equal(page.count, 1);
    assert_string_equal(page.next, "0000000000000009:a~task");
    assert_int_equal(list(2), ERR_OK);
    assert_int_equal(page.count, 1);
    assert_string_equal(page.next, "0000000000000009:a~task");
    finish();
}

static void a_list_that_is_none_is_refused(void **state)
{
    SCRIPT(text, GREETS, EXPECTS("ZREV"), SENDS("$1\r\na\r\n"));
    SCRIPT(odd, GREETS, EXPECTS("ZREV"), SENDS("*1\r\n$1\r\na\r\n"));
    SCRIPT(longer, GREETS, EXPECTS("ZREV"), SENDS("*6\r\n+a\r\n+1\r\n+b\r\n+1\r\n+c\r\n+1\r\n"));
    (void)state;
    BEGIN(text, odd, longer);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(list(1), ERR_UNAVAILABLE);
    finish();
}

/* --- the end --------------------------------------------------------------------------------- */

static void it_can_be_closed_at_any_moment(void **state)
{
    SCRIPT(no_greeting, EXPECTS("TIME"));
    SCRIPT(no_answer, GREETS, EXPECTS("EVAL\r\n"));
    static const struct peer_step *const scripts[][1] = {{no_greeting}, {no_answer}};
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        struct ask a = {.done = false};
        begin(scripts[i % 2], 1);
        ask_add(&a, STORE_CREATE, "k", "1");
        ask_start(&a, s);
        for (unsigned turn = 0; turn < i; turn++) /* looking, connecting, greeting, waiting */
            (void)uv_run(&f.loop, UV_RUN_NOWAIT);
        ask_close(&f, s, i < 4 ? 0 : 20);
        s = NULL;
        assert_true(a.op.doc[0].result == ERR_TIMEOUT || a.op.doc[0].result == ERR_CANCELLED);
        ask_done(&a);
        finish();
    }
}

static void it_can_be_closed_between_attempts(void **state)
{
    struct ask a = {.done = false};
    (void)state;
    begin(NULL, 0); /* refuses */
    ask_add(&a, STORE_CREATE, "k", "1");
    ask_start(&a, s);
    loop_run_for(&f, 50);
    finish();
    assert_true(a.done);
    ask_done(&a);
}

static void bad_urls_are_refused(void **state)
{
    static const char *const urls[] = {"redis:",
                                       "redis:///0",
                                       "redis://",
                                       "redis://user@h",
                                       "redis://h/zero",
                                       "redis://h/-1",
                                       "redis://h/65536",
                                       "redis://h/0/1",
                                       "redis://h:0",
                                       "redis://h?prefix=",
                                       "redis://h?prefix=a%20b",
                                       "redis://h?ttl=x",
                                       "redis://h?timeout_ms=1",
                                       "redis://h?publish=",
                                       "redis://h?tls=1",
                                       "rediss://h"};
    struct err err;
    (void)state;
    loop_fixture_open(&f);
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        assert_int_equal(store_open(&s, &f.loop, &f.later, urls[i], &err), ERR_INVALID);
        assert_true(err.msg[0] != '\0');
    }
    loop_fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_connected_before_it_is_wanted),
        cmocka_unit_test(answers_in_pieces_are_answers),
        cmocka_unit_test(who_must_log_in_does_and_chooses_a_database),
        cmocka_unit_test(a_refused_login_is_told_without_the_secret),
        cmocka_unit_test(a_name_leads_to_its_addresses),
        cmocka_unit_test(what_is_no_redis_server_is_told),
        cmocka_unit_test(what_was_not_asked_for_ends_the_connection),
        cmocka_unit_test(a_connection_that_was_ended_while_idle_is_no_failure),
        cmocka_unit_test(who_is_silent_is_left),
        cmocka_unit_test(who_is_silent_while_others_ask_is_left),
        cmocka_unit_test(who_takes_a_large_value_slowly_is_not_silent),
        cmocka_unit_test(what_was_created_and_lost_its_answer_is_ours),
        cmocka_unit_test(what_was_not_sent_is_not_in_doubt),
        cmocka_unit_test(what_stays_in_doubt_is_told_as_that),
        cmocka_unit_test(what_may_have_been_done_is_never_denied),
        cmocka_unit_test(what_a_script_is_refused_is_found),
        cmocka_unit_test(a_server_that_cannot_yet_is_asked_again),
        cmocka_unit_test(errors_are_told),
        cmocka_unit_test(answers_of_a_wrong_kind_are_no_answers),
        cmocka_unit_test(an_answer_without_end_is_left),
        cmocka_unit_test(the_server_is_told_until_when),
        cmocka_unit_test(what_is_no_key_is_not_listed),
        cmocka_unit_test(a_list_that_is_none_is_refused),
        cmocka_unit_test(it_can_be_closed_at_any_moment),
        cmocka_unit_test(it_can_be_closed_between_attempts),
        cmocka_unit_test(bad_urls_are_refused),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
