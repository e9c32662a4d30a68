/* Documents as rows of Tablestore. Pure.
 *
 *     k  the key column, a string: the document's key, but "~<id>" for "<id>~task"
 *     o  its order
 *     v  its bytes, up to OTS_PART_MAX; or, for more than that,
 *     p  the name of its parts, and
 *     n  their length together
 *
 * Parts are rows of their own, "-<key>:<p>:<i>" with the bytes in `v`. They are there before the
 * document's row names them, and are never changed: a reader finds one version or another, whole,
 * or that the parts are gone, and then looks again.
 * A column may hold 2 MiB; smaller parts hold up the loop less.
 *
 * What lists need, the rows of "~task" keys, lies side by side behind all others. */
#ifndef OTS_DOC_H
#define OTS_DOC_H

#include "ots_row.h"
#include "store.h"

enum { OTS_PART_MAX = 1024 * 1024, OTS_SET_LEN = 16, OTS_NAME_MAX = STORE_KEY_MAX + 32 };

/* For reads; each ends with NULL. */
extern const char *const ots_doc_columns[], *const ots_order_columns[];

/* --- names of rows --------------------------------------------------------------------------- */

struct ots_name {
    char text[OTS_NAME_MAX + 1];
};
struct ots_name ots_name_of_key(const char *key);
struct ots_name ots_name_of_part(const char *key, const char *set, unsigned i);
/* All parts of a document, and nothing else, are between these two. */
struct ots_name ots_name_before_parts(const char *key);
struct ots_name ots_name_behind_parts(const char *key);
/* False: not the row of a "~task" key. */
bool ots_key_of_name(struct slice name, char ret[STORE_KEY_MAX + 1]);

/* From the first name up to, but not with, the second: the rows of "~task" keys. */
#define OTS_LIST_FROM   "~"
#define OTS_LIST_BEFORE "\x7f"

/* --- rows ------------------------------------------------------------------------------------ */

struct ots_doc {
    uint64_t order;
    struct slice bytes;        /* of a row that has them, or empty */
    char set[OTS_SET_LEN + 1]; /* its parts' name; "": it has none */
    size_t len;                /* of all bytes, here or in parts */
};

/* A row's key alone: to be read, or to be deleted. */
void ots_key_write(struct buf *out, const char *name, bool deletes);
void ots_doc_write(struct buf *out, const char *name, const struct ots_doc *doc);
/* From the answer to a GetRow of `name`; bytes are in there. ERR_NOT_FOUND, ERR_CORRUPT. */
enum err_code ots_doc_read(struct slice body, const char *name, struct ots_doc *ret) MUST_CHECK;

#endif
