/* What is put off: in order, in rounds that end, and what gathers behind all else. */
#include "later.h"
#include "loop_fixture.h"
#include "unit.h"

#include <string.h>

struct note {
    struct later_item item;
    char name;
    struct note *adds; /* queued when this one runs */
    bool adds_last;
};

static struct loop_fixture f;
static char told[64];

static void note_run(struct later_item *item)
{
    struct note *n = CONTAINER_OF(item, struct note, item);
    told[strlen(told)] = n->name;
    if (n->adds != NULL && n->adds_last)
        later_add_last(&f.later, &n->adds->item);
    else if (n->adds != NULL)
        later_add(&f.later, &n->adds->item);
}

static void note_init(struct note *n, char name)
{
    *n = (struct note){.name = name};
    later_item_init(&n->item, note_run);
}

static int open_loop(void **state)
{
    (void)state;
    memset(told, 0, sizeof(told));
    loop_fixture_open(&f);
    return 0;
}

static int close_loop(void **state)
{
    (void)state;
    loop_fixture_close(&f);
    return 0;
}

static void turn(void)
{
    (void)uv_run(&f.loop, UV_RUN_NOWAIT);
}

static void they_run_once_in_order_and_not_inside_the_call(void **state)
{
    struct note a, b;
    (void)state;
    note_init(&a, 'a');
    note_init(&b, 'b');
    later_add(&f.later, &b.item);
    later_add(&f.later, &a.item);
    later_add(&f.later, &b.item);
    assert_string_equal(told, "");
    turn();
    turn();
    assert_string_equal(told, "ba");
}

static void who_was_cancelled_does_not_run(void **state)
{
    struct note a, b;
    (void)state;
    note_init(&a, 'a');
    note_init(&b, 'b');
    later_add(&f.later, &a.item);
    later_add_last(&f.later, &b.item);
    later_cancel(&f.later, &a.item);
    later_cancel(&f.later, &b.item);
    turn();
    assert_string_equal(told, "");
}

static void what_gathers_is_behind_what_the_others_lead_to(void **state)
{
    struct note first, second, last;
    (void)state;
    note_init(&first, '1');
    note_init(&second, '2');
    note_init(&last, 'l');
    later_add_last(&f.later, &last.item);
    later_add(&f.later, &first.item);
    first.adds = &second;
    turn();
    assert_string_equal(told, "12l");
}

/* One that comes back for ever leaves the sockets their turn, and what gathers, too. */
static void who_comes_back_for_ever_holds_nobody_up(void **state)
{
    struct note again, last;
    char rounds[LATER_ROUNDS + 2] = "";
    (void)state;
    note_init(&again, 'a');
    note_init(&last, 'l');
    again.adds = &again;
    later_add(&f.later, &again.item);
    later_add_last(&f.later, &last.item);
    turn();
    memset(rounds, 'a', LATER_ROUNDS);
    rounds[LATER_ROUNDS] = 'l';
    assert_string_equal(told, rounds);
    again.adds = NULL;
    turn();
}

static void what_the_last_lead_to_comes_without_anybody_else(void **state)
{
    struct note last, more;
    (void)state;
    note_init(&last, 'l');
    note_init(&more, 'm');
    last.adds = &more;
    last.adds_last = true;
    later_add_last(&f.later, &last.item);
    turn();
    assert_string_equal(told, "l");
    turn();
    assert_string_equal(told, "lm");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_loop, close_loop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(they_run_once_in_order_and_not_inside_the_call),
        TEST(who_was_cancelled_does_not_run),
        TEST(what_gathers_is_behind_what_the_others_lead_to),
        TEST(who_comes_back_for_ever_holds_nobody_up),
        TEST(what_the_last_lead_to_comes_without_anybody_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
