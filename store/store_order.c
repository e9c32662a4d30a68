/* A hash table of a fixed number of entries; the one written longest ago makes room. A key that was
 * forgotten is written without the check, which is what "best effort" in store.h means. */
#include "store_order.h"

#include "store_private.h"

#include <stdlib.h>

enum { BUCKETS = 2 * STORE_ORDERS_MAX };

struct order_entry {
    struct order_entry *next; /* in its bucket */
    struct list_node age;
    uint64_t order;
    char key[]; /* thousands are kept: as long as it is */
};

struct store_orders {
    struct order_entry *bucket[BUCKETS];
    struct list_node age; /* oldest first */
    unsigned count;
};

struct store_orders *store_orders_new(void)
{
    struct store_orders *orders = xcalloc(1, sizeof(*orders));
    list_init(&orders->age);
    return orders;
}

/* Where the pointer to it is; to NULL: there is none. */
static struct order_entry **orders_find(struct store_orders *orders, const char *key)
{
    struct order_entry **at = &orders->bucket[store_key_hash(key) % BUCKETS];
    while (*at != NULL && strcmp((*at)->key, key) != 0)
        at = &(*at)->next;
    return at;
}

static void entry_remove(struct store_orders *orders, struct order_entry **at)
{
    struct order_entry *e = *at;
    ASSERT(e != NULL);
    *at = e->next;
    list_remove(&e->age);
    orders->count--;
    free(e);
}

void store_orders_free(struct store_orders *orders)
{
    LIST_FOREACH_SAFE (node, next, &orders->age) {
        free(CONTAINER_OF(node, struct order_entry, age));
    }
    free(orders);
}

uint64_t store_orders_get(struct store_orders *orders, const char *key)
{
    const struct order_entry *e = *orders_find(orders, key);
    return e != NULL ? e->order : 0;
}

static struct order_entry *entry_new(struct store_orders *orders, const char *key)
{
    if (orders->count == STORE_ORDERS_MAX) {
        struct order_entry *oldest = CONTAINER_OF(orders->age.next, struct order_entry, age);
        entry_remove(orders, orders_find(orders, oldest->key));
    }
    size_t size = strlen(key) + 1;
    struct order_entry *e = xcalloc(1, sizeof(*e) + size);
    memcpy(e->key, key, size);
    *orders_find(orders, key) = e; /* at the end of its bucket */
    orders->count++;
    return e;
}

void store_orders_set(struct store_orders *orders, const char *key, uint64_t order)
{
    struct order_entry **at = orders_find(orders, key);
    struct order_entry *e = *at;
    if (order == 0) {
        if (e != NULL)
            entry_remove(orders, at);
        return;
    }
    if (e != NULL)
        list_remove(&e->age);
    else
        e = entry_new(orders, key);
    list_add(&orders->age, &e->age);
    e->order = order;
}
