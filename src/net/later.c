#include "later.h"

#include "base.h"

static void later_on_idle(uv_idle_t *idle)
{
    (void)idle; /* an active idle handle only keeps the loop from sleeping */
}

static void later_run(struct list_node *items)
{
    struct list_node now;
    list_take(&now, items);
    while (!list_is_empty(&now)) {
        struct later_item *item = CONTAINER_OF(now.next, struct later_item, link);
        list_remove(&item->link);
        item->queued = false;
        item->run(item); /* may free item, add and cancel others */
    }
}

static void later_on_check(uv_check_t *check)
{
    struct later *l = CONTAINER_OF(check, struct later, check);
    for (unsigned round = 0; round < LATER_ROUNDS && !list_is_empty(&l->items); round++)
        later_run(&l->items);
    later_run(&l->last);
    if (list_is_empty(&l->items) && list_is_empty(&l->last))
        (void)uv_idle_stop(&l->idle);
}

void later_init(struct later *l, uv_loop_t *loop)
{
    list_init(&l->items);
    list_init(&l->last);
    l->open_handles = 2;
    l->closed = NULL;
    ASSERT(uv_check_init(loop, &l->check) == 0);
    ASSERT(uv_idle_init(loop, &l->idle) == 0);
    ASSERT(uv_check_start(&l->check, later_on_check) == 0);
    uv_unref((uv_handle_t *)&l->check); /* waiting for nothing keeps no loop alive */
}

static void later_on_handle_closed(struct later *l)
{
    if (--l->open_handles == 0 && l->closed != NULL)
        l->closed(l);
}

static void later_on_check_closed(uv_handle_t *h)
{
    later_on_handle_closed(CONTAINER_OF(h, struct later, check));
}

static void later_on_idle_closed(uv_handle_t *h)
{
    later_on_handle_closed(CONTAINER_OF(h, struct later, idle));
}

void later_close(struct later *l, void (*cb)(struct later *l))
{
    ASSERT(list_is_empty(&l->items) && list_is_empty(&l->last));
    l->closed = cb;
    uv_close((uv_handle_t *)&l->check, later_on_check_closed);
    uv_close((uv_handle_t *)&l->idle, later_on_idle_closed);
}

void later_item_init(struct later_item *item, void (*run)(struct later_item *item))
{
    list_init(&item->link);
    item->run = run;
    item->queued = false;
}

static void later_queue(struct later *l, struct list_node *items, struct later_item *item)
{
    if (item->queued)
        return;
    item->queued = true;
    list_add(items, &item->link);
    if (!uv_is_active((uv_handle_t *)&l->idle))
        ASSERT(uv_idle_start(&l->idle, later_on_idle) == 0);
}

void later_add(struct later *l, struct later_item *item)
{
    later_queue(l, &l->items, item);
}

void later_add_last(struct later *l, struct later_item *item)
{
    later_queue(l, &l->last, item);
}

void later_cancel(struct later *l, struct later_item *item)
{
    (void)l;
    list_remove(&item->link);
    item->queued = false;
}
