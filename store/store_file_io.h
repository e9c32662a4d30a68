/* One document in a directory. Blocking: for worker threads; they share nothing but the file
 * system. What the system says about a file becomes ERR_UNAVAILABLE, unless it says more. */
#ifndef STORE_FILE_IO_H
#define STORE_FILE_IO_H

#include "store.h"

enum { FILE_NAME_ROOM = STORE_KEY_MAX + 32 }; /* ".<key>.<16 hex>.tmp" and a NUL */

struct file_place;

/* doc->result and, unless it is OK or says nothing bad (EXISTS, NOT_FOUND), *err. not_after_ms as
 * in store_op. */
void file_do_work(struct file_place *place, struct store_doc *doc, uint64_t not_after_ms,
                  struct err *err);

/* Removes what writers left behind that were killed more than an hour ago. *stop ends it early. */
unsigned file_sweep_work(const char *dir, const _Atomic bool *stop);

/* A name nobody else has, ".<key>.<random>.tmp". */
void file_tmp_name(const char *key, char ret[FILE_NAME_ROOM]);

#endif
