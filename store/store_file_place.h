/* The directory of a file store, as one thread sees it. Blocking.
 *
 * On the kernel's own file systems it is kept open for the operations that come without a rest
 * between them: names are looked up in it, which costs less than a path, and it need not be opened
 * once more to be synced. It is kept for a moment only, and not after a failure: by a mount or a
 * rename, another directory may have taken the path. */
#ifndef STORE_FILE_PLACE_H
#define STORE_FILE_PLACE_H

#include "base.h"

#include <sys/types.h>

struct file_place {
    const char *dir; /* absolute; the caller's, at most PATH_MAX with a name */
    int fd;          /* of it; AT_FDCWD: its path is used */
    dev_t dev;       /* that the newest fd was on; 0: none yet, or not to be learnt */
    bool is_local;   /* of the kernel's own file systems; before the first fd: hoped */
    uint64_t old_at; /* on clock_mono_ms(): fd is to be opened anew */
};

void file_place_init(struct file_place *ret, const char *dir);
/* Before the documents of one operation, of which some are written, some durably; who only reads
 * one does without. That the directory is not there or may not be read is no failure yet: what
 * needs it makes it, or tells why not. */
void file_place_open(struct file_place *place, bool writes, bool durable);
void file_place_leave(struct file_place *place, bool has_failed); /* after them */
/* Whoever rests keeps nothing open, which would hold up an umount. It can be opened again. */
void file_place_close(struct file_place *place);

/* What is created there appears in one step that replaces nothing, by RENAME_NOREPLACE. */
bool file_place_renames_anew(const struct file_place *place);
/* mkdir -p; others may do it at the same time. Then a kept fd is of what is there. */
enum err_code file_place_make(struct file_place *place, struct err *err);
/* Asks the server (NFS: a name can be cached as missing), or the path, if fd is of a directory that
 * has lost it. */
void file_place_look_again(struct file_place *place);
/* A rename is durable once its directory is. */
enum err_code file_place_sync(const struct file_place *place, struct err *err);

int file_sync(int fd); /* fsync(); 0 or an errno, never EINTR */
/* ERR_UNAVAILABLE: "<what>: <errnum in words>" */
enum err_code file_failed(struct err *err, int errnum, const char *what);

#endif
