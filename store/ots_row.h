/* Rows as Tablestore keeps them ("PlainBuffer"): bytes with a CRC-8 over each cell and each row.
 * Pure. Ours have one key column. All integers are little-endian.
 *
 *     buffer = 75 00 00 00  row…
 *     row    = 01 cell  [02 cell…]  [08]  09 crc      08: the row is to be deleted
 *     cell   = 03  04 len name  [05 len value]  [06 change]  [07 time]  0A crc
 *     value  = type byte, then the number, or u32 length and bytes
 */
#ifndef OTS_ROW_H
#define OTS_ROW_H

#include "buf.h"

enum {
    OTS_COLUMNS_MAX = 8,             /* of a row that is read; beyond: ERR_CORRUPT */
    OTS_BYTES_MAX = 2 * 1024 * 1024, /* of one column */
};

enum ots_type {
    OTS_INTEGER = 0x00,
    OTS_DOUBLE = 0x01, /* this and the next are read and not looked at */
    OTS_BOOLEAN = 0x02,
    OTS_STRING = 0x03,
    OTS_BLOB = 0x07,
    OTS_ABSENT = 0xff,
};

enum ots_change { OTS_CHANGE_NONE = 0, OTS_DELETE_ALL_VERSIONS = 1 };

struct ots_cell {
    struct slice name;
    enum ots_type type;
    int64_t integer;
    struct slice bytes;     /* of strings and blobs */
    enum ots_change change; /* of rows that are written */
    bool has_time;
    int64_t time_ms; /* of rows that are read: when it was written, by the server's clock */
};

struct ots_row {
    struct ots_cell key;
    struct ots_cell columns[OTS_COLUMNS_MAX];
    unsigned count;
    bool deletes;
};

unsigned char ots_crc8(unsigned char crc, struct slice bytes); /* starts with 0 */

/* A buffer with this one row is appended. */
void ots_row_write(struct buf *out, const struct ots_row *row);
/* A value alone, as conditions have it: type and number. */
void ots_integer_write(struct buf *out, int64_t value);

/* Reads what ots_row_begin() was given row by row; what a row's cells point to is in there. ERR_OK;
 * ERR_NOT_FOUND: no more rows; ERR_CORRUPT: every checksum, length and tag is looked at. But for
 * ERR_OK *ret is garbage. */
struct ots_rows {
    struct slice rest;
};
enum err_code ots_rows_begin(struct ots_rows *rows, struct slice buffer) MUST_CHECK;
enum err_code ots_rows_next(struct ots_rows *rows, struct ots_row *ret) MUST_CHECK;
/* The column of that name; NULL: there is none. */
const struct ots_cell *ots_row_column(const struct ots_row *row, const char *name);

#endif
