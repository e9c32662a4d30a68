/* A page of a list, the newest first, from rows that come in the order of their keys: all are shown
 * to it, and it keeps the newest that fit. Pure. */
#ifndef OTS_LIST_H
#define OTS_LIST_H

#include "store.h"

struct ots_listed {
    uint64_t stamp; /* when it was written */
    char key[STORE_KEY_MAX + 1];
};

struct ots_list {
    struct ots_listed *best; /* newest first, at most `want` */
    unsigned count, want;
    struct ots_listed after; /* the last of the page before */
    bool has_after;
};

/* ERR_INVALID: the page's cursor is not of this kind; then there is nothing to be done with it. */
enum err_code ots_list_init(struct ots_list *l, const struct store_page *page,
                            struct err *err) MUST_CHECK;
void ots_list_done(struct ots_list *l);
bool ots_list_takes(struct slice key); /* "…~task" */
void ots_list_add(struct ots_list *l, const struct ots_listed *e);
void ots_list_fill(const struct ots_list *l, struct store_page *page);

#endif
