/* A hash table of a fixed number of entries; the one written longest ago makes room. A key that was
 * forgotten is written without the check, which is what "best effort" in store.h means. */
#include "store_order.h"

#include "store_private.h"

#include <stdlib.h>

enum { BUCKETS = 256 };

struct order_entry {
    struct list_node bucket, age;
    uint64_t order;
    char key[]; /* thousands are kept: as long as it is */
};

struct store_orders {
    struct list_node bucket[BUCKETS];
    struct list_node age; /* oldest first */
    unsigned count;
};

struct store_orders *store_orders_new(void)
{
    struct store_orders *orders = xcalloc(1, sizeof(*orders));
    for (unsigned i = 0; i < BUCKETS; i++)
        list_init(&orders->bucket[i]);
    list_init(&orders->age);
    return orders;
}

static void entry_remove(struct store_orders *orders, struct order_entry *e)
{
    list_remove(&e->bucket);
    list_remove(&e->age);
    orders->count--;
    free(e);
}

void store_orders_free(struct store_orders *orders)
{
    LIST_FOREACH_SAFE (node, next, &orders->age) {
        entry_remove(orders, CONTAINER_OF(node, struct order_entry, age));
    }
    free(orders);
}

static struct order_entry *orders_find(const struct store_orders *orders, const char *key)
{
    const struct list_node *bucket = &orders->bucket[store_key_hash(key) % BUCKETS];
    LIST_FOREACH (node, bucket) {
        struct order_entry *e = CONTAINER_OF(node, struct order_entry, bucket);
        if (strcmp(e->key, key) == 0)
            return e;
    }
    return NULL;
}

uint64_t store_orders_get(const struct store_orders *orders, const char *key)
{
    const struct order_entry *e = orders_find(orders, key);
    return e != NULL ? e->order : 0;
}

void store_orders_set(struct store_orders *orders, const char *key, uint64_t order)
{
    struct order_entry *e = orders_find(orders, key);
    if (order == 0) {
        if (e != NULL)
            entry_remove(orders, e);
        return;
    }
    if (e == NULL) {
        if (orders->count == STORE_ORDERS_MAX)
            entry_remove(orders, CONTAINER_OF(orders->age.next, struct order_entry, age));
        size_t size = strlen(key) + 1;
        e = xcalloc(1, sizeof(*e) + size);
        memcpy(e->key, key, size);
        list_add(&orders->bucket[store_key_hash(key) % BUCKETS], &e->bucket);
        orders->count++;
    } else {
        list_remove(&e->age);
    }
    list_add(&orders->age, &e->age);
    e->order = order;
}
