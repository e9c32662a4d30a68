/* Files beneath a directory, by names that come from outside: read and kept. Blocking: for worker
 * threads. A path is relative; no part of it is empty, "." or "..", none is a link, so it leads
 * nowhere else. */
#ifndef DIR_FILE_H
#define DIR_FILE_H

#include "buf.h"

enum { DIR_PATH_MAX = 1024, DIR_NAME_MAX = 255 };

struct dir_path {
    const char *dir;    /* ours: it may be a link */
    const char *folder; /* beneath it; may be empty */
    const char *name;   /* in there; not empty, and without a slash */
};
bool dir_path_ok(struct slice folder, struct slice name);

/* A regular file, open for reading. ERR_NOT_FOUND: there is none, or it is something else;
 * ERR_UNAVAILABLE. The path is dir_path_ok(). */
enum err_code dir_open(const struct dir_path *path, int *ret_fd, struct err *err) MUST_CHECK;

enum dir_keep {
    DIR_KEEP_AS_IS,   /* a name made of the content: what has it and is as long is the same */
    DIR_KEEP_BOTH,    /* "a.png", "a (1).png" …: the first that is free or has the same content */
    DIR_KEEP_REPLACE, /* whatever was there */
};
/* Whole or not at all, on the disk when it returns. Folders on the way are made. ret_name: the name
 * it got. */
enum err_code dir_keep(const struct dir_path *path, struct slice content, enum dir_keep how,
                       char ret_name[DIR_NAME_MAX + 1], struct err *err) MUST_CHECK;

#endif
