/* The files that a task has made, where each task has a folder of its own: removed with it.
 *
 * Only files that the record names, only beneath <output_dir>/<id>/, and no link is followed on the
 * way: whoever can write into that folder can lead nobody out of it. Folders go when they are
 * empty. */
#ifndef TASK_FILES_H
#define TASK_FILES_H

#include "json_scan.h"

struct task_files {
    char *folder; /* <output_dir>/<id>; NULL: nothing is removed */
    char **paths; /* beneath it */
    unsigned count;
};

/* `outputs` is the record's list; output_dir may be NULL. */
void task_files_init(struct task_files *f, const char *output_dir, const char *id,
                     struct slice outputs);
void task_files_remove(struct task_files *f); /* blocks: for a worker thread */
void task_files_done(struct task_files *f);

#endif
