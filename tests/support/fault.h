/* System calls that fail when a test says so. Only calls of other threads than the one that called
 * fault_arm() are touched: of the workers, not of the test. */
#ifndef FAULT_H
#define FAULT_H

#include <stdbool.h>

enum fault_call {
    FAULT_ANY,
    FAULT_OPEN,
    FAULT_READ,
    FAULT_WRITE,
    FAULT_FSYNC,
    FAULT_RENAME, /* one that replaces */
    FAULT_LINK,   /* or the rename that does not */
    FAULT_CLOSE,
};

enum {
    FAULT_SHORT_WRITE = -1, /* for an errno: a write() of one byte less; of other calls nothing */
    FAULT_HANG = -2,        /* … or the call does not return before fault_disarm() */
};

/* The nth call from now on (1: the next) of this kind fails with errnum, and with `forever` all
 * after it. close() closes all the same; with `done` renames and links happen all the same, too:
 * a reply that was lost. */
void fault_arm(enum fault_call call, unsigned nth, int errnum, bool forever, bool done);
/* Every file is on a file system of others, or where it is. */
void fault_pretend_nfs(bool nfs);
unsigned fault_hits(void); /* how often something has failed, or hangs, since */
/* Returns how often something failed. */
unsigned fault_disarm(void);

#endif
