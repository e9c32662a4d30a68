/* The page's files as they are linked into the program, each as it is and packed by gzip. */
#ifndef UI_H
#define UI_H

#include "buf.h"

enum { UI_ETAG_MAX = 16 };

struct ui_file {
    const char *name, *etag;
    struct slice plain, packed;
};

/* Made by the build: cmake/Embed.cmake. */
extern const struct ui_file ui_files[];
extern const size_t ui_files_count;

const struct ui_file *ui_find(struct slice name); /* NULL: there is none */

#endif
