/* What is said to Tablestore and answered, as bodies: protobuf messages (proto2) of a few fields.
 * Pure. Fields are written in ascending order, as the vendor's own clients do. */
#ifndef OTS_MESSAGE_H
#define OTS_MESSAGE_H

#include "buf.h"

/* --- fields ---------------------------------------------------------------------------------- */

void ots_field_number(struct buf *out, unsigned field, int64_t value);
void ots_field_bytes(struct buf *out, unsigned field, struct slice value);

struct ots_field {
    unsigned number;
    bool is_bytes;
    uint64_t value;
    struct slice bytes;
};
/* Takes the next field from the front of *message. ERR_NOT_FOUND: none is left; ERR_CORRUPT. Fields
 * of fixed size are passed over: no message of theirs that we read has one that we need. */
enum err_code ots_field_next(struct slice *message, struct ots_field *ret) MUST_CHECK;

/* --- requests -------------------------------------------------------------------------------- */

enum ots_expect { OTS_IGNORE = 0, OTS_EXPECT_EXIST = 1, OTS_EXPECT_NOT_EXIST = 2 };

struct ots_condition {
    enum ots_expect row;
    const char *column; /* NULL: none. An integer column that must be missing or … */
    int64_t at_most;    /* … no larger than this */
};

/* PutRow, UpdateRow, DeleteRow: they differ in the row (see ots_row.h). */
void ots_write_body(struct buf *out, const char *table, struct slice row,
                    const struct ots_condition *condition);
/* GetRow; columns end with NULL. */
void ots_get_body(struct buf *out, const char *table, struct slice key,
                  const char *const columns[]);
struct ots_range {
    struct slice from, before; /* keys */
    const char *const *columns;
    unsigned limit;
};
void ots_range_body(struct buf *out, const char *table, const struct ots_range *range);
/* A table of one string column as its key, one version of each cell. seconds: how long rows are
 * kept; -1: for ever. */
void ots_create_table_body(struct buf *out, const char *table, const char *key, int64_t seconds);

/* --- answers --------------------------------------------------------------------------------- */

/* Slices are in the body, empty for what is not there. ERR_CORRUPT. */
enum err_code ots_error_read(struct slice body, struct slice *ret_code,
                             struct slice *ret_message) MUST_CHECK;
/* Of GetRow; empty: there is no such row. */
enum err_code ots_got_read(struct slice body, struct slice *ret_row) MUST_CHECK;
/* Of GetRange; next is the key to go on with. */
enum err_code ots_range_read(struct slice body, struct slice *ret_rows,
                             struct slice *ret_next) MUST_CHECK;

#endif
