/* Looks after what lies in the store: at the start, and then now and again, the records are read.
 *
 * Those that say "under way" are adopted: followed, and when their owner turns out to be dead,
 * taken over or ended (task_mirror.c). Those that ended longer ago than a task is kept are removed,
 * with all their documents and, where each task has a folder of its own, its files. Only what reads
 * as a record of ours, under the id that it names, is ever removed; the record itself goes last, so
 * that what is left by a crash is found again. What cannot be read is told in the log each time.
 *
 * Nothing of it hurries: it waits for a list of the store for a minute, and files, which may lie on
 * a NAS that hangs, are removed by a thread of its own. */
#ifndef TASK_TEND_H
#define TASK_TEND_H

#include "task_hub.h"

struct task_tend;

enum { TEND_EVERY_MS = 300000, TEND_STOP_MS = 1000 };

struct task_tend_options {
    struct task_hub *hub;
    struct store *store;
    uint64_t keep_ms;       /* after its end; 0: for ever */
    const char *output_dir; /* where the tasks' folders are; NULL: files are left alone */
    uint64_t stop_ms;       /* the end waits so long for files */
};

/* The first round begins at once. */
struct task_tend *task_tend_start(uv_loop_t *loop, const struct task_tend_options *options);
/* Waits for documents that are being read or removed, and stop_ms for files; for no list. The hub
 * and the store must live until `closed`. */
void task_tend_free(struct task_tend *r, void (*closed)(void *ctx), void *ctx);

#endif
