/* Intrusive doubly linked list: the node lives inside what is listed, so adding cannot fail.
 * A node that is in no list points at itself; list_remove() may be called on it again. */
#ifndef LIST_H
#define LIST_H

#include <stdbool.h>

struct list_node {
    struct list_node *prev, *next;
};

static inline void list_init(struct list_node *n)
{
    n->prev = n->next = n;
}

static inline bool list_is_empty(const struct list_node *head)
{
    return head->next == head;
}

static inline void list_insert_before(struct list_node *at, struct list_node *n)
{
    n->prev = at->prev;
    n->next = at;
    at->prev->next = n;
    at->prev = n;
}

/* At the end / at the front of the list whose head is `head`. */
static inline void list_add(struct list_node *head, struct list_node *n)
{
    list_insert_before(head, n);
}

static inline void list_push(struct list_node *head, struct list_node *n)
{
    list_insert_before(head->next, n);
}

static inline void list_remove(struct list_node *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}

/* All of `from` moves to the empty list `to`: walk a list whose owners may change it meanwhile. */
static inline void list_take(struct list_node *to, struct list_node *from)
{
    list_init(to);
    if (list_is_empty(from))
        return;
    *to = *from;
    to->next->prev = to;
    to->prev->next = to;
    list_init(from);
}

#define LIST_FOREACH(var, head)                                                                    \
    for (struct list_node *var = (head)->next; var != (head); var = var->next)
#define LIST_FOREACH_SAFE(var, tmp, head)                                                          \
    for (struct list_node *var = (head)->next, *tmp = var->next; var != (head);                    \
         var = tmp, tmp = var->next)

#endif
