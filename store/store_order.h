/* Which order was written last under a key, of the newest STORE_ORDERS_MAX keys: for backends that
 * cannot ask before they write. Loop thread only. */
#ifndef STORE_ORDER_H
#define STORE_ORDER_H

#include "store.h"

enum { STORE_ORDERS_MAX = 1024 };

struct store_orders;

struct store_orders *store_orders_new(void);
void store_orders_free(struct store_orders *orders);
/* 0: not known. */
uint64_t store_orders_get(struct store_orders *orders, const char *key);
/* order 0 forgets the key. */
void store_orders_set(struct store_orders *orders, const char *key, uint64_t order);

#endif
