/* Every cell of the supervisor's table, against a second writing of it. */
#include "supervisor_table.h"
#include "unit.h"

#include <stdio.h>

static const char *const state_names[] = {
#define X(id, name) [id] = name,
    SUPERVISOR_STATES(X)
#undef X
};
static const char *const event_names[] = {
#define X(id, name) [id] = name,
    SUPERVISOR_EVENTS(X)
#undef X
};
static const char *const action_names[] = {
    [SUPERVISOR_CHECK_PORT] = "check", [SUPERVISOR_LAUNCH] = "launch", [SUPERVISOR_AVOID] = "avoid",
    [SUPERVISOR_GREET] = "greet",      [SUPERVISOR_KILL] = "kill",     [SUPERVISOR_WAIT] = "wait",
    [SUPERVISOR_REST] = "rest",        [SUPERVISOR_INTERRUPT] = "int",
};

/* clang-format off */
static const char *const columns[] = {
                 "stopped",        "starting",        "ready",        "backoff",         "stopping",     "gave_up"};
static const struct {
    const char *event, *cells[SUPERVISOR_STATE_COUNT];
} expected[] = {
    {"start",      {"check starting", "",                "",             "",                "",             ""}},
    {"stop",       {"",               "int stopping",    "int stopping", "int stopping",    "",             ""}},
    {"port free",  {"",               "launch starting", "",             "launch starting", "",             ""}},
    {"port taken", {"",               "avoid backoff",   "",             "avoid backoff",   "",             ""}},
    {"answer",     {"",               "greet ready",     "",             "greet ready",     "",             ""}},
    {"too slow",   {"",               "kill backoff",    "",             "",                "",             ""}},
    {"lost",       {"",               "",                "kill backoff", "",                "",             ""}},
    {"condemn",    {"",               "kill backoff",    "kill backoff", "",                "",             ""}},
    {"exit",       {"",               "wait backoff",    "wait backoff", "wait backoff",    "rest stopped", ""}},
    {"last exit",  {"",               "rest gave_up",    "rest gave_up", "rest gave_up",    "rest stopped", ""}},
    {"timer",      {"",               "",                "",             "check backoff",   "",             ""}},
};
/* clang-format on */

static void every_cell_is_as_drawn(void **state)
{
    (void)state;
    assert_int_equal(ARRAY_LEN(columns), SUPERVISOR_STATE_COUNT);
    assert_int_equal(ARRAY_LEN(expected), SUPERVISOR_EVENT_COUNT);
    for (int s = 0; s < SUPERVISOR_STATE_COUNT; s++) {
        assert_string_equal(columns[s], state_names[s]);
        for (int e = 0; e < SUPERVISOR_EVENT_COUNT; e++) {
            struct supervisor_cell cell =
                supervisor_cell((enum supervisor_state)s, (enum supervisor_event)e);
            char text[64] = "";
            if (cell.action != SUPERVISOR_IGNORE)
                (void)snprintf(text, sizeof(text), "%s %s", action_names[cell.action],
                               state_names[cell.next]);
            assert_string_equal(expected[e].event, event_names[e]);
            if (strcmp(text, expected[e].cells[s]) != 0)
                fail_msg("%s in %s: %s", event_names[e], state_names[s], text);
        }
    }
}

/* What must hold of any such table. */
static void nothing_is_started_beside_one_that_may_live(void **state)
{
    (void)state;
    for (int s = 0; s < SUPERVISOR_STATE_COUNT; s++) {
        for (int e = 0; e < SUPERVISOR_EVENT_COUNT; e++) {
            struct supervisor_cell cell =
                supervisor_cell((enum supervisor_state)s, (enum supervisor_event)e);
            if (cell.action == SUPERVISOR_LAUNCH)
                assert_int_equal(e, SUPERVISOR_ON_PORT_FREE);
            if (cell.action == SUPERVISOR_CHECK_PORT)
                assert_true(e == SUPERVISOR_ON_START || e == SUPERVISOR_ON_TIMER);
            if (cell.action == SUPERVISOR_REST)
                assert_true(e == SUPERVISOR_ON_EXIT || e == SUPERVISOR_ON_LAST_EXIT);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cell_is_as_drawn),
        cmocka_unit_test(nothing_is_started_beside_one_that_may_live),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
