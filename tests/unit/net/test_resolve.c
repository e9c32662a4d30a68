/* Hosts to checked addresses: who is asked is the test, which answers when and what it likes. Only
 * one case asks the system, for localhost. */
#include "loop_fixture.h"
#include "resolve.h"
#include "unit.h"

enum { QUERIES = 8 };

struct watched {
    struct resolve_query query;
    bool done;
    struct err err;
    bool start_again; /* in done */
};

static struct fixture {
    struct loop_fixture loop;
    struct address_allow allow;
    struct resolve *resolve;
    struct resolve_lookup *asked[QUERIES];
    unsigned asked_count;
    bool inside, closed;
    struct watched ones[QUERIES];
} fix;

static void on_ask(struct resolve_lookup *lookup, void *ctx)
{
    assert_ptr_equal(ctx, &fix);
    assert_true(fix.asked_count < QUERIES);
    fix.asked[fix.asked_count++] = lookup;
}

/* Knows one name, and answers inside the call. */
static void ask_at_once(struct resolve_lookup *lookup, void *ctx)
{
    static const struct address found = {false, {8, 8, 8, 8}};
    (void)ctx;
    fix.asked_count++;
    resolve_answer(lookup, &found, 1, NULL);
}

static void open_with(const char *allow, uint64_t deadline_ms,
                      void (*ask)(struct resolve_lookup *lookup, void *ctx))
{
    memset(&fix, 0, sizeof(fix));
    loop_fixture_open(&fix.loop);
    assert_int_equal(address_allow_parse(slice_of(allow), &fix.allow, NULL), ERR_OK);
    struct resolve_options options = {RESOLVE_DEFAULTS, .allow = &fix.allow, .ask = ask,
                                      .ctx = &fix};
    if (deadline_ms != 0)
        options.deadline_ms = deadline_ms;
    fix.resolve = resolve_new(&fix.loop.loop, &fix.loop.later, &options);
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static void close_all(void)
{
    resolve_free(fix.resolve, on_closed, &fix.closed);
    assert_false(fix.closed);
    loop_run_until(&fix.loop, &fix.closed, "close");
    loop_fixture_close(&fix.loop);
    address_allow_done(&fix.allow);
}

static void on_done(struct resolve_query *q, const struct err *err)
{
    struct watched *one = q->ctx;
    assert_false(fix.inside || one->done);
    one->done = true;
    if (err != NULL)
        one->err = *err;
    if (one->start_again) {
        one->start_again = one->done = false;
        resolve_start(fix.resolve, q, "again.example");
    }
}

static struct watched *ask(unsigned i, const char *host)
{
    struct watched *one = &fix.ones[i];
    one->done = false;
    one->err.code = ERR_OK;
    one->query.done = on_done;
    one->query.ctx = one;
    fix.inside = true;
    resolve_start(fix.resolve, &one->query, host);
    fix.inside = false;
    return one;
}

static void answer(unsigned i, const char *const *texts, unsigned count)
{
    struct address found[2 * RESOLVE_ADDRESSES_MAX];
    for (unsigned k = 0; k < count; k++)
        assert_true(address_parse(slice_of(texts[k]), &found[k]));
    fix.inside = true;
    resolve_answer(fix.asked[i], found, count, NULL);
    fix.inside = false;
}

static void answer_one(unsigned i, const char *text)
{
    answer(i, &text, 1);
}

static void check(struct watched *one, enum err_code code, const char *text)
{
    loop_run_until(&fix.loop, &one->done, "done");
    if (one->err.code != code || strstr(one->err.msg, text) == NULL)
        fail_msg("%s: %s", err_name(one->err.code), one->err.msg);
}

static void check_address(const struct watched *one, unsigned i, const char *text)
{
    char got[ADDRESS_TEXT_MAX + 1];
    assert_true(i < one->query.count);
    address_format(&one->query.addresses[i], got);
    assert_string_equal(got, text);
}

/* --- what is checked ------------------------------------------------------------------------- */

static void test_literals_ask_nobody(void **state)
{
    (void)state;
    open_with("10.0.0.0/8", 0, on_ask);
    struct watched *one = ask(0, "8.8.8.8");
    check(one, ERR_OK, "");
    assert_int_equal(one->query.count, 1);
    check_address(one, 0, "8.8.8.8");
    one = ask(0, "::ffff:10.0.0.1");
    check(one, ERR_OK, "");
    check_address(one, 0, "10.0.0.1");
    check(ask(0, "127.0.0.1"), ERR_FORBIDDEN, "loopback");
    check(ask(0, "::1"), ERR_FORBIDDEN, "loopback");
    check(ask(0, "169.254.169.254"), ERR_FORBIDDEN, "metadata");
    check(ask(0, "0x7f.1"), ERR_INVALID, "unusual");
    check(ask(0, "2130706433"), ERR_INVALID, "unusual");
    check(ask(0, "example.com."), ERR_INVALID, "neither");
    check(ask(0, "127。0。0。1"), ERR_INVALID, "neither");
    check(ask(0, ""), ERR_INVALID, "neither");
    assert_int_equal(fix.asked_count, 0);
    close_all();
}

static void test_answers_are_checked(void **state)
{
    (void)state;
    static const char *const mixed[] = {"127.0.0.1", "8.8.8.8", "::1", "2606:4700::1", "10.0.0.1"};
    static const char *const bad[] = {"10.0.0.1", "::ffff:169.254.169.254"};
    open_with("192.168.0.0/16 intra.example", 0, on_ask);
    struct watched *one = ask(0, "mixed.example");
    assert_string_equal(fix.asked[0]->name, "mixed.example");
    answer(0, mixed, ARRAY_LEN(mixed));
    check(one, ERR_OK, "");
    assert_int_equal(one->query.count, 2);
    check_address(one, 0, "8.8.8.8");
    check_address(one, 1, "2606:4700::1");
    one = ask(0, "bad.example");
    answer(1, bad, ARRAY_LEN(bad));
    check(one, ERR_FORBIDDEN, "metadata");
    assert_null(strstr(one->err.msg, "169.254")); /* says the kind, not the address */
    one = ask(0, "net.example");
    answer_one(2, "192.168.3.4");
    check(one, ERR_OK, "");
    one = ask(0, "INTRA.example");
    answer_one(3, "10.0.0.1");
    check(one, ERR_OK, "");
    one = ask(0, "intra.example");
    answer_one(4, "100.100.100.200");
    check(one, ERR_FORBIDDEN, "metadata");
    one = ask(0, "empty.example");
    answer(5, NULL, 0);
    check(one, ERR_NOT_FOUND, "no address");
    close_all();
}

static void test_many_addresses(void **state)
{
    (void)state;
    const char *texts[2 * RESOLVE_ADDRESSES_MAX];
    for (unsigned i = 0; i < ARRAY_LEN(texts); i++)
        texts[i] = i < RESOLVE_ADDRESSES_MAX / 2 ? "10.0.0.1" : "8.8.8.8";
    open_with("", 0, on_ask);
    struct watched *one = ask(0, "many.example");
    answer(0, texts, ARRAY_LEN(texts));
    check(one, ERR_OK, "");
    assert_int_equal(one->query.count, RESOLVE_ADDRESSES_MAX);
    close_all();
}

static void test_every_query_asks_anew(void **state)
{
    (void)state;
    open_with("", 0, on_ask);
    struct watched *one = ask(0, "rebind.example");
    answer_one(0, "8.8.8.8");
    check(one, ERR_OK, "");
    one = ask(0, "rebind.example");
    assert_int_equal(fix.asked_count, 2);
    answer_one(1, "127.0.0.1");
    check(one, ERR_FORBIDDEN, "loopback");
    assert_int_equal(one->query.count, 0);
    close_all();
}

static void test_the_system_is_asked(void **state)
{
    (void)state;
    open_with("127.0.0.0/8 ::1", 0, NULL);
    struct watched *one = ask(0, "localhost");
    check(one, ERR_OK, "");
    assert_true(one->query.count > 0);
    for (unsigned i = 0; i < one->query.count; i++)
        assert_int_equal(address_classify(&one->query.addresses[i]), ADDRESS_LOOPBACK);
    close_all();
    open_with("", 0, NULL);
    check(ask(0, "localhost"), ERR_FORBIDDEN, "loopback");
    close_all();
}

/* --- waiting and ending ---------------------------------------------------------------------- */

static void test_an_answer_inside_the_question(void **state)
{
    (void)state;
    open_with("", 0, ask_at_once);
    struct watched *one = ask(0, "a.example");
    one->start_again = true;
    assert_false(one->done);
    check(one, ERR_OK, "");
    assert_string_equal(one->query.host, "again.example");
    assert_int_equal(fix.asked_count, 2);
    close_all();
}

static void test_no_more_lookups_than_allowed(void **state)
{
    (void)state;
    static const char *const names[] = {"n0.example", "n1.example", "n2.example", "n3.example"};
    open_with("", 0, on_ask);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        (void)ask(i, names[i]);
    assert_int_equal(fix.asked_count, RESOLVE_LOOKUPS_MAX);
    resolve_cancel(&fix.ones[2].query); /* waits: is never asked for */
    answer_one(1, "8.8.8.8");
    assert_int_equal(fix.asked_count, 3);
    assert_string_equal(fix.asked[2]->name, "n3.example");
    answer_one(0, "8.8.8.8");
    answer_one(2, "8.8.8.8");
    check(&fix.ones[0], ERR_OK, "");
    check(&fix.ones[1], ERR_OK, "");
    check(&fix.ones[3], ERR_OK, "");
    assert_false(fix.ones[2].done);
    close_all();
}

static void test_deadline(void **state)
{
    (void)state;
    open_with("", 20, on_ask);
    for (unsigned i = 0; i < RESOLVE_LOOKUPS_MAX + 1; i++)
        (void)ask(i, "slow.example");
    for (unsigned i = 0; i < RESOLVE_LOOKUPS_MAX + 1; i++)
        check(&fix.ones[i], ERR_TIMEOUT, "20 ms");
    for (unsigned i = 0; i < RESOLVE_LOOKUPS_MAX; i++) /* comes too late for anybody */
        answer_one(i, "8.8.8.8");
    assert_int_equal(fix.asked_count, RESOLVE_LOOKUPS_MAX);
    struct watched *one = ask(0, "fast.example");
    answer_one(RESOLVE_LOOKUPS_MAX, "8.8.8.8");
    check(one, ERR_OK, "");
    close_all();
}

static void test_cancel(void **state)
{
    (void)state;
    open_with("", 0, on_ask);
    struct watched *one = ask(0, "a.example");
    resolve_cancel(&one->query);
    resolve_cancel(&one->query);
    one = ask(1, "8.8.8.8"); /* answered, but not told yet */
    resolve_cancel(&one->query);
    one = ask(0, "b.example"); /* the query's memory is free while its first lookup still runs */
    answer_one(0, "127.0.0.1");
    answer_one(1, "9.9.9.9");
    check(one, ERR_OK, "");
    check_address(one, 0, "9.9.9.9");
    assert_false(fix.ones[1].done);
    close_all();
}

static void test_failures(void **state)
{
    (void)state;
    struct err err = {.code = ERR_UNAVAILABLE, .msg = "no name server"};
    open_with("", 0, on_ask);
    struct watched *one = ask(0, "a.example");
    resolve_answer(fix.asked[0], NULL, 0, &err);
    check(one, ERR_UNAVAILABLE, "no name server");
    close_all();
}

static void test_free_waits_for_lookups(void **state)
{
    (void)state;
    open_with("", 0, on_ask);
    struct watched *one = ask(0, "a.example");
    resolve_cancel(&one->query);
    resolve_free(fix.resolve, on_closed, &fix.closed);
    loop_run_for(&fix.loop, 20);
    assert_false(fix.closed);
    answer_one(0, "8.8.8.8");
    loop_run_until(&fix.loop, &fix.closed, "close");
    loop_fixture_close(&fix.loop);
    address_allow_done(&fix.allow);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_literals_ask_nobody),
        cmocka_unit_test(test_answers_are_checked),
        cmocka_unit_test(test_many_addresses),
        cmocka_unit_test(test_every_query_asks_anew),
        cmocka_unit_test(test_the_system_is_asked),
        cmocka_unit_test(test_an_answer_inside_the_question),
        cmocka_unit_test(test_no_more_lookups_than_allowed),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_free_waits_for_lookups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
