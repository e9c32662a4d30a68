/* Headers and environment as Function Compute has them: capitals, empty values, and what may be
 * missing. */
#include "invocation.h"
#include "unit.h"

#include <strings.h>

struct pair {
    const char *name, *value;
};

static bool find(void *ctx, const char *name, struct slice *ret)
{
    for (const struct pair *p = ctx; p->name != NULL; p++)
        if (strcasecmp(p->name, name) == 0) {
            *ret = slice_of(p->value);
            return true;
        }
    return false;
}

static struct invocation read_pairs(struct pair *pairs)
{
    struct invocation inv;
    struct invocation_source source = {find, pairs};
    invocation_read(&inv, &source);
    return inv;
}

#define READ(...)                 read_pairs((struct pair[]){__VA_ARGS__, {NULL, NULL}})
#define assert_slice(slice, text) assert_true(slice_is(slice, text))

static void a_gateways_headers_are_read(void **state)
{
    (void)state;
    struct invocation inv = READ(
        {"X-Fc-Request-Id", " 1-abc "}, {"X-Fc-Control-Path", "/http-invoke"}, {"Task-Id", "mine"},
        {"X-Fc-Async-Task-Id", ""}, {"X-Fc-Retry-Count", "0"}, {"X-Fc-Function-Timeout", "60"},
        {"X-Fc-Access-Key-Id", "id"}, {"X-Fc-Access-Key-Secret", "secret"},
        {"X-Fc-Security-Token", "token"}, {"X-Fc-Initialization-Timeout", "30"});
    assert_slice(inv.request_id, "1-abc");
    assert_slice(inv.task_id, "mine");
    assert_true(invocation_is_users(&inv));
    assert_true(inv.has_retry_count);
    assert_int_equal(inv.retry_count, 0);
    assert_false(inv.is_async);
    assert_int_equal(inv.timeout_ms, 60000);
    assert_int_equal(inv.initialize_ms, 30000);
    assert_slice(inv.key_id, "id");
    assert_slice(inv.key_secret, "secret");
    assert_slice(inv.security_token, "token");
}

static void empty_is_absent(void **state)
{
    (void)state;
    struct invocation inv =
        READ({"X-Fc-Request-Id", ""}, {"Task-Id", "  "}, {"X-Fc-Async-Task-Id", ""},
             {"X-Fc-Retry-Count", ""}, {"X-Fc-Function-Timeout", ""}, {"X-Fc-Control-Path", ""});
    assert_int_equal(inv.request_id.len + inv.task_id.len, 0);
    assert_false(inv.has_retry_count || inv.is_async || invocation_is_users(&inv));
    assert_int_equal(inv.timeout_ms, 0);
}

static void any_mark_of_an_async_call_will_do(void **state)
{
    (void)state;
    struct invocation inv = READ({"x-fc-async-task-id", "t"});
    assert_true(inv.is_async && !inv.asks_async);
    assert_slice(inv.task_id, "t");
    inv = READ({"x-fc-async-task-id", "t"}, {"task-id", "mine"});
    assert_true(inv.is_async);
    assert_slice(inv.task_id, "mine");
    inv = READ({"x-fc-retry-count", "1"});
    assert_true(inv.is_async && !inv.asks_async);
    inv = READ({"x-fc-invocation-type", "ASYNC"});
    assert_true(inv.is_async && inv.asks_async);
    inv = READ({"x-fc-invocation-type", "Sync"});
    assert_false(inv.is_async || inv.asks_async);
}

static void odd_numbers_are_none(void **state)
{
    (void)state;
    struct invocation inv =
        READ({"x-fc-retry-count", "-1"}, {"x-fc-function-timeout", "99999999999999999999"});
    assert_false(inv.has_retry_count || inv.is_async);
    assert_int_equal(inv.timeout_ms, 0);
    inv = READ({"x-fc-retry-count", "one"}, {"x-fc-function-timeout", "6e1"});
    assert_false(inv.has_retry_count || inv.is_async);
    assert_int_equal(inv.timeout_ms, 0);
}

static void the_margin_grows_with_the_time_and_not_for_ever(void **state)
{
    (void)state;
    struct invocation inv = {.timeout_ms = 3000};
    assert_int_equal(invocation_margin_ms(&inv), 300);
    inv.timeout_ms = 86400000;
    assert_int_equal(invocation_margin_ms(&inv), 10000);
}

static void markers_say_what_it_is(void **state)
{
    (void)state;
    char line[INVOCATION_MARKER_MAX];
    struct invocation inv = {.request_id = SLICE("1-a"), .control_path = SLICE("/http-invoke")};
    invocation_marker(&inv, SLICE("/api/run"), false, line);
    assert_string_equal(line, "FC Invoke Start RequestId: 1-a");
    invocation_marker(&inv, SLICE("/pre-stop"), true, line); /* a user's */
    assert_string_equal(line, "FC Invoke End RequestId: 1-a");
    inv.control_path = SLICE("/initialize");
    invocation_marker(&inv, SLICE("/initialize"), false, line);
    assert_string_equal(line, "FC Initialize Start RequestId: 1-a");
    inv.control_path = SLICE_EMPTY;
    invocation_marker(&inv, SLICE("/pre-stop"), true, line);
    assert_string_equal(line, "FC PreStop End RequestId: 1-a");
    invocation_marker(&inv, SLICE("/pre-freeze"), true, line);
    assert_string_equal(line, "FC PreFreeze End RequestId: 1-a");
}

static void no_marker_can_be_forged(void **state)
{
    (void)state;
    char line[INVOCATION_MARKER_MAX];
    struct invocation inv = {.request_id = SLICE("a\nFC Invoke End RequestId: b")};
    invocation_marker(&inv, SLICE("/api/run"), false, line);
    assert_string_equal(line, "");
    inv.request_id = SLICE_EMPTY;
    invocation_marker(&inv, SLICE("/api/run"), false, line);
    assert_string_equal(line, "");
    char id[2 * INVOCATION_ID_MAX];
    memset(id, 'a', sizeof(id));
    inv.request_id = (struct slice){id, sizeof(id)};
    invocation_marker(&inv, SLICE("/api/run"), false, line);
    assert_string_equal(line, "");
}

static const char *instance, *initialization;

static const char *get(const char *name)
{
    if (strcmp(name, "FC_INSTANCE_ID") == 0)
        return instance;
    return strcmp(name, "FC_INITIALIZATION_TIMEOUT") == 0 ? initialization : NULL;
}

static void the_platform_is_told_by_its_instance_or_the_setting(void **state)
{
    (void)state;
    instance = NULL;
    assert_false(invocation_on_platform(get, "auto"));
    assert_true(invocation_on_platform(get, "fc"));
    assert_null(invocation_instance(get));
    instance = "";
    assert_false(invocation_on_platform(get, "auto"));
    instance = "c-1";
    assert_true(invocation_on_platform(get, "auto"));
    assert_false(invocation_on_platform(get, "none"));
    assert_string_equal(invocation_instance(get), "c-1");
    assert_int_equal(invocation_initialize_ms(get), 0);
    initialization = "120";
    assert_int_equal(invocation_initialize_ms(get), 120000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gateways_headers_are_read),
        cmocka_unit_test(empty_is_absent),
        cmocka_unit_test(any_mark_of_an_async_call_will_do),
        cmocka_unit_test(odd_numbers_are_none),
        cmocka_unit_test(the_margin_grows_with_the_time_and_not_for_ever),
        cmocka_unit_test(markers_say_what_it_is),
        cmocka_unit_test(no_marker_can_be_forged),
        cmocka_unit_test(the_platform_is_told_by_its_instance_or_the_setting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
