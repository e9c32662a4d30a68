/* Lists of a directory. Blocking: for a worker thread, one at a time.
 *
 * A page takes a walk through all of the directory, because names come in no order. What a walk has
 * found is kept for the pages that follow: so much of it, for so long. */
#ifndef STORE_FILE_LIST_H
#define STORE_FILE_LIST_H

#include "store.h"

enum { FILE_LISTING_ENTRIES_MAX = 24000, FILE_LISTING_KEEP_MS = 10000 }; /* 4 MiB */

struct file_listing;
/* When its time is over, on clock_mono_ms(). */
uint64_t file_listing_end(const struct file_listing *l);
void file_listing_free(struct file_listing *l);

struct file_list {
    const char *dir;
    struct store_page *page;
    uint64_t asked_ms;        /* who asks for the newest sees all that was there by then */
    uint64_t give_up_ms;      /* on clock_mono_ms(): beyond it, ERR_TIMEOUT */
    const _Atomic bool *stop; /* nobody waits any more: ERR_CANCELLED */
    unsigned entries_max;     /* of what is kept; more than two pages */
    uint64_t keep_ms;
    struct file_listing *kept; /* of an earlier walk, or NULL; afterwards the one to keep */
};

/* The page: newest "~task" keys by the times of their files. What is no document of ours (dot
 * files, what an NFS client calls .nfs…, foreign files) is passed over. */
enum err_code file_list_work(struct file_list *list, struct err *err) MUST_CHECK;

#endif
