/* A page is kept sorted, one entry longer than it may be: is there another page? */
#include "ots_list.h"

#include <stdio.h>
#include <stdlib.h>

/* Newest first; of one moment by name. */
static bool comes_before(const struct ots_listed *a, const struct ots_listed *b)
{
    return a->stamp != b->stamp ? a->stamp > b->stamp : strcmp(a->key, b->key) < 0;
}

void ots_list_add(struct ots_list *l, const struct ots_listed *e)
{
    if (l->has_after && !comes_before(&l->after, e))
        return;
    if (l->count == l->want && !comes_before(e, &l->best[l->count - 1]))
        return;
    unsigned low = 0;
    unsigned high = l->count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (comes_before(e, &l->best[middle]))
            high = middle;
        else
            low = middle + 1;
    }
    if (l->count < l->want)
        l->count++;
    memmove(&l->best[low + 1], &l->best[low], (l->count - 1 - low) * sizeof(*e));
    l->best[low] = *e;
}

enum err_code ots_list_init(struct ots_list *l, const struct store_page *page, struct err *err)
{
    const char *key = "";
    *l = (struct ots_list){.want = page->limit + 1};
    l->has_after = page->cursor[0] != '\0';
    if (l->has_after && !store_cursor_read(page->cursor, &l->after.stamp, &key))
        return err_set(err, ERR_INVALID, "not a cursor of this store");
    (void)snprintf(l->after.key, sizeof(l->after.key), "%s", key);
    l->best = xcalloc(l->want, sizeof(*l->best));
    return ERR_OK;
}

void ots_list_done(struct ots_list *l)
{
    free(l->best);
}

bool ots_list_takes(struct slice key)
{
    static const struct slice suffix = {"~task", 5};
    return key.len > suffix.len &&
           memcmp(key.ptr + key.len - suffix.len, suffix.ptr, suffix.len) == 0 && store_key_ok(key);
}

void ots_list_fill(const struct ots_list *l, struct store_page *page)
{
    page->count = l->count < page->limit ? l->count : page->limit;
    page->next[0] = '\0';
    for (unsigned i = 0; i < page->count; i++) {
        page->stamps[i] = l->best[i].stamp;
        memcpy(page->keys[i], l->best[i].key, sizeof(page->keys[i]));
    }
    if (l->count > page->limit)
        store_page_cursor(page, page->count - 1, page->next);
}
