/* The system's processes, as /proc shows them. Reading it takes a fraction of a millisecond a
 * hundred processes: for rare moments only. */
#ifndef PROC_TABLE_H
#define PROC_TABLE_H

#include <stdbool.h>

struct proc_entry {
    int pid, parent, group;
    bool is_dead; /* a zombie that nobody has waited for yet */
};

/* Until `look` returns false. */
void proc_table_walk(bool (*look)(const struct proc_entry *entry, void *ctx), void *ctx);

#endif
