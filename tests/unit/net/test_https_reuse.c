/* Connections that are used again: by whom, and what happens when one of them has died. */
#include "https_fixture.h"
#include "unit.h"

static const struct peer_step again[] = {REQUEST, SENDS(HELLO), DOES(PEER_AGAIN)};
static const struct peer_step once[] = {REQUEST, SENDS(HELLO), DOES(PEER_CLOSE)};
static const struct peer_step one_more[] = {REQUEST, SENDS(HELLO), REQUEST, DOES(PEER_CLOSE)};

static struct watched_call *ask(unsigned i, bool reuse)
{
    struct watched_call *one = call_prepare(i, "POST", "127.0.0.1", "/");
    one->call.content = SLICE("body");
    one->call.reuse = reuse;
    call_start(one);
    call_check_body(one, 200, "hello");
    return one;
}

static void test_one_connection_serves_many_calls(void **state)
{
    (void)state;
    fixture_open("127.0.0.0/8", again);
    for (unsigned i = 0; i < 5; i++)
        (void)ask(i, true);
    assert_int_equal(fix.peer.accepted, 1);
    fixture_close();
}

static void test_others_never_get_a_kept_one(void **state)
{
    (void)state;
    fixture_open("127.0.0.0/8", again);
    (void)ask(0, true);
    (void)ask(1, false);
    (void)ask(2, false);
    assert_int_equal(fix.peer.accepted, 3);
    (void)ask(3, true); /* the first one is still there; theirs were closed */
    assert_int_equal(fix.peer.accepted, 3);
    assert_true(fix.peer.conns[1].ended && fix.peer.conns[2].ended);
    fixture_close();
}

static void test_a_kept_one_that_was_closed(void **state)
{
    (void)state;
    fixture_open("127.0.0.0/8", once);
    for (unsigned i = 0; i < 3; i++) {
        (void)ask(i, true);
        loop_run_for(&fix.loop, 5); /* until the end has come */
    }
    assert_int_equal(fix.peer.accepted, 3);
    fixture_close();
}

/* It dies with a request on it: it may have arrived, and is sent once more. */
static void test_a_kept_one_that_dies(void **state)
{
    (void)state;
    fixture_open("127.0.0.0/8", one_more);
    (void)ask(0, true);
    (void)ask(1, true);
    assert_int_equal(fix.peer.accepted, 2);
    assert_non_null(strstr(fixture_received(0), "body"));
    fixture_close();
}

static bool may_send;
static unsigned asked;

static bool on_may_send(struct https_call *call)
{
    assert_false(call->sent && !may_send);
    asked++;
    return may_send;
}

static void test_asked_before_it_leaves(void **state)
{
    (void)state;
    fixture_open("127.0.0.0/8", again);
    for (unsigned i = 0; i < 4; i++) {
        struct watched_call *one = call_prepare(i, "GET", "127.0.0.1", "/");
        one->call.reuse = true;
        one->call.may_send = on_may_send;
        may_send = i % 2 == 1; /* on a new connection and on a kept one */
        call_start(one);
        if (may_send)
            call_check_body(one, 200, "hello");
        else
            call_check(one, ERR_CANCELLED, "not asked any more");
        assert_int_equal(one->call.sent, may_send);
    }
    assert_int_equal(asked, 4);
    assert_string_equal(fixture_received(0), "");
    fixture_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_connection_serves_many_calls),
        cmocka_unit_test(test_others_never_get_a_kept_one),
        cmocka_unit_test(test_a_kept_one_that_was_closed),
        cmocka_unit_test(test_a_kept_one_that_dies),
        cmocka_unit_test(test_asked_before_it_leaves),
    };
    if (https_global_init(NULL) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
