/* What was written last under the newest keys. */
#include "store_order.h"
#include "unit.h"

#include <stdio.h>

static const char *key_of(int i)
{
    static char key[32];
    (void)snprintf(key, sizeof(key), "task-%d", i);
    return key;
}

static void each_key_has_its_own(void **state)
{
    (void)state;
    struct store_orders *orders = store_orders_new();
    for (int i = 0; i < STORE_ORDERS_MAX; i++)
        store_orders_set(orders, key_of(i), (uint64_t)i + 1);
    for (int i = 0; i < STORE_ORDERS_MAX; i += 2)
        store_orders_set(orders, key_of(i), 0);
    store_orders_set(orders, "never there", 0);
    for (int i = 0; i < STORE_ORDERS_MAX; i++)
        assert_int_equal(store_orders_get(orders, key_of(i)), i % 2 == 0 ? 0 : i + 1);
    store_orders_set(orders, key_of(1), 99);
    assert_int_equal(store_orders_get(orders, key_of(1)), 99);
    store_orders_free(orders);
}

static void the_one_written_longest_ago_makes_room(void **state)
{
    (void)state;
    struct store_orders *orders = store_orders_new();
    for (int i = 0; i < STORE_ORDERS_MAX; i++)
        store_orders_set(orders, key_of(i), 1);
    store_orders_set(orders, key_of(0), 2); /* 1 is the oldest now */
    for (int i = 0; i < 100; i++)
        store_orders_set(orders, key_of(STORE_ORDERS_MAX + i), 3);
    assert_int_equal(store_orders_get(orders, key_of(0)), 2);
    for (int i = 1; i < STORE_ORDERS_MAX + 100; i++)
        assert_int_equal(store_orders_get(orders, key_of(i)), i <= 100               ? 0
                                                              : i < STORE_ORDERS_MAX ? 1
                                                                                     : 3);
    store_orders_free(orders);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_key_has_its_own),
        cmocka_unit_test(the_one_written_longest_ago_makes_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
