/* Deadlines: in time, in order, not when cleared, and not at once after a freeze. */
#include "deadline.h"
#include "loop_fixture.h"
#include "unit.h"

enum { SHORT, LONG, CLASSES };
enum { SHORT_MS = 20, LONG_MS = 50 };

struct thing {
    struct deadline deadline;
    bool over;
    unsigned nth;
};

static struct loop_fixture f;
static struct deadlines ds;
static bool closed;
static unsigned overs;

static void on_over(struct deadline *d)
{
    struct thing *t = CONTAINER_OF(d, struct thing, deadline);
    t->over = true;
    t->nth = ++overs;
}

static void on_over_again(struct deadline *d)
{
    on_over(d);
    if (overs < 3)
        deadline_set(&ds, LONG, d);
}

static void on_closed(struct deadlines *which)
{
    assert_ptr_equal(which, &ds);
    closed = true;
}

static void open_all(struct deadline_class *classes)
{
    loop_fixture_open(&f);
    closed = false;
    overs = 0;
    classes[SHORT] = (struct deadline_class){.ms = SHORT_MS, .over = on_over};
    classes[LONG] = (struct deadline_class){.ms = LONG_MS, .over = on_over_again};
    deadlines_init(&ds, &f.loop, classes, CLASSES);
}

static void close_all(void)
{
    deadlines_close(&ds, on_closed);
    assert_false(closed);
    loop_run_until(&f, &closed, "the timer's end");
    loop_fixture_close(&f);
}

static void thing_init(struct thing *t)
{
    *t = (struct thing){.over = false};
    deadline_init(&t->deadline);
}

static void deadlines_end_in_order_and_not_before_their_time(void **state)
{
    (void)state;
    struct deadline_class classes[CLASSES];
    struct thing a, b, c, cleared;
    open_all(classes);
    thing_init(&a);
    thing_init(&b);
    thing_init(&c);
    thing_init(&cleared);
    uint64_t began = uv_now(&f.loop);
    deadline_set(&ds, LONG, &a.deadline);
    deadline_set(&ds, SHORT, &b.deadline);
    deadline_set(&ds, SHORT, &cleared.deadline);
    deadline_set(&ds, SHORT, &c.deadline);
    deadline_set(&ds, SHORT, &b.deadline); /* anew: behind c */
    deadline_clear(&cleared.deadline);
    deadline_clear(&cleared.deadline);
    assert_ptr_equal(deadlines_first(&ds, SHORT), &c.deadline);
    loop_run_until(&f, &b.over, "the short one");
    assert_true(uv_now(&f.loop) >= began + SHORT_MS);
    assert_true(c.nth == 1 && b.nth == 2);
    assert_null(deadlines_first(&ds, SHORT));
    loop_run_until(&f, &a.over, "the long one");
    assert_true(uv_now(&f.loop) >= began + LONG_MS);
    assert_false(cleared.over);
    close_all();
}

static void one_may_be_set_again_when_it_is_over(void **state)
{
    (void)state;
    struct deadline_class classes[CLASSES];
    struct thing a, b;
    open_all(classes);
    thing_init(&a);
    thing_init(&b);
    deadline_set(&ds, SHORT, &b.deadline); /* leaves the timer to the other when it is cleared */
    deadline_clear(&b.deadline);
    for (overs = 1; overs < 3;) {
        deadline_set(&ds, LONG, &a.deadline);
        a.over = false;
        loop_run_until(&f, &a.over, "it again");
    }
    close_all();
}

/* As after a freeze of two seconds: what the peers have sent is here, but nobody has read it yet.
 */
static void after_a_freeze_all_begin_anew(void **state)
{
    (void)state;
    struct deadline_class classes[CLASSES];
    struct thing a, b;
    open_all(classes);
    thing_init(&a);
    thing_init(&b);
    deadline_set(&ds, SHORT, &a.deadline);
    deadline_set(&ds, LONG, &b.deadline);
    ds.fires_at -= 2 * DEADLINE_LATE_MS;
    a.deadline.at -= 2 * DEADLINE_LATE_MS;
    b.deadline.at -= 2 * DEADLINE_LATE_MS;
    uint64_t began = uv_now(&f.loop);
    loop_run_until(&f, &a.over, "the short one");
    assert_true(uv_now(&f.loop) >= began + 2 * SHORT_MS);
    assert_false(b.over);
    loop_run_until(&f, &b.over, "the long one");
    assert_true(uv_now(&f.loop) >= began + SHORT_MS + LONG_MS);
    close_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deadlines_end_in_order_and_not_before_their_time),
        cmocka_unit_test(one_may_be_set_again_when_it_is_over),
        cmocka_unit_test(after_a_freeze_all_begin_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
