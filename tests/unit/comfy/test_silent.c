/* Which classes of nodes are known to say nothing. */
#include "silent.h"
#include "unit.h"

#include <stdio.h>

/* The seed is not random here: which classes share a place is the same each time. */
static void start(struct silent_classes *s)
{
    silent_init(s);
    s->seed = 1;
}

static struct slice class_of(int i)
{
    static char name[32];
    (void)snprintf(name, sizeof(name), "\"Class%d\"", i);
    return slice_of(name);
}

static void run_silently(struct silent_classes *s, int i)
{
    for (int n = 0; n < SILENT_RUNS; n++) {
        silent_next_run(s);
        silent_add(s, class_of(i));
    }
}

static void it_takes_several_runs(void **state)
{
    (void)state;
    struct silent_classes s;
    start(&s);
    for (int n = 0; n < SILENT_RUNS; n++) {
        silent_next_run(&s);
        for (int node = 0; node < 5; node++) {
            assert_false(silent_has(&s, class_of(1)));
            silent_add(&s, class_of(n == SILENT_RUNS - 1 ? 2 : 1));
        }
    }
    assert_false(silent_has(&s, class_of(2)));
    silent_next_run(&s);
    silent_add(&s, class_of(1));
    assert_true(silent_has(&s, class_of(1)));
    run_silently(&s, 1);
    assert_true(silent_has(&s, class_of(1)));
}

static void who_has_spoken_once_is_never_silent(void **state)
{
    (void)state;
    struct silent_classes s;
    start(&s);
    run_silently(&s, 1);
    silent_rule_out(&s, class_of(1));
    assert_false(silent_has(&s, class_of(1)));
    run_silently(&s, 1);
    assert_false(silent_has(&s, class_of(1)));
    silent_init(&s);
    run_silently(&s, 1);
    assert_true(silent_has(&s, class_of(1)));
}

static void nobody_is_taken_for_another(void **state)
{
    (void)state;
    enum { MANY = 300, STRANGERS = 10000 };
    struct silent_classes s;
    start(&s);
    int known = 0;
    for (int i = 0; i < MANY; i++) {
        run_silently(&s, i);
        assert_true(silent_has(&s, class_of(i))); /* whose place it was, is not known any more */
    }
    for (int i = 0; i < MANY; i++)
        known += silent_has(&s, class_of(i));
    assert_true(known > SILENT_CLASSES / 2 && known < SILENT_CLASSES);
    for (int i = MANY; i < MANY + STRANGERS; i++)
        assert_false(silent_has(&s, class_of(i)));
}

/* The prompts of a service have a handful of classes: none of them hides another. */
static void a_few_have_places_of_their_own(void **state)
{
    (void)state;
    struct silent_classes s;
    start(&s);
    for (int i = 0; i < 20; i++)
        silent_rule_out(&s, class_of(2 * i));
    for (int i = 0; i < 20; i++)
        run_silently(&s, 2 * i + 1);
    for (int i = 0; i < 20; i++) {
        assert_false(silent_has(&s, class_of(2 * i)));
        assert_true(silent_has(&s, class_of(2 * i + 1)));
    }
}

static void who_has_spoken_keeps_its_place(void **state)
{
    (void)state;
    struct silent_classes s;
    start(&s);
    silent_rule_out(&s, class_of(0));
    for (int i = 1; i < 20 * SILENT_CLASSES; i++)
        run_silently(&s, i);
    run_silently(&s, 0);
    assert_false(silent_has(&s, class_of(0)));
    for (int i = 1; i < 20 * SILENT_CLASSES; i++)
        silent_rule_out(&s, class_of(i)); /* one of them falls on that place */
    run_silently(&s, 0);
    assert_false(silent_has(&s, class_of(0)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_takes_several_runs),
        cmocka_unit_test(who_has_spoken_once_is_never_silent),
        cmocka_unit_test(nobody_is_taken_for_another),
        cmocka_unit_test(a_few_have_places_of_their_own),
        cmocka_unit_test(who_has_spoken_keeps_its_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
