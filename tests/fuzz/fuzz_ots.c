/* What comes from Tablestore: messages, and the rows in them. Whatever is read as a row is written
 * again and read again as the same; where the writer can write all of it, as the same bytes. */
#include "ots_doc.h"
#include "ots_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Times are the server's, doubles and booleans nobody's: these are not written. */
static bool is_written(const struct ots_cell *cell)
{
    return !cell->has_time && cell->type != OTS_DOUBLE && cell->type != OTS_BOOLEAN &&
           cell->bytes.len <= OTS_BYTES_MAX;
}

static bool all_written(const struct ots_row *row)
{
    bool all = is_written(&row->key);
    for (unsigned i = 0; i < row->count; i++)
        all = all && is_written(&row->columns[i]);
    return all;
}

static void check_row(const struct ots_row *row, struct slice read)
{
    struct buf out;
    struct ots_rows rows;
    struct ots_row again;
    if (!all_written(row))
        return;
    buf_init(&out, SIZE_MAX);
    ots_row_write(&out, row);
    ASSERT(out.len == read.len + 4 && memcmp(out.ptr + 4, read.ptr, read.len) == 0);
    ASSERT(ots_rows_begin(&rows, buf_slice(&out)) == ERR_OK);
    ASSERT(ots_rows_next(&rows, &again) == ERR_OK && again.count == row->count);
    ASSERT(ots_rows_next(&rows, &again) == ERR_NOT_FOUND);
    buf_done(&out);
}

static void check_rows(struct slice bytes)
{
    struct ots_rows rows;
    struct ots_row row;
    if (ots_rows_begin(&rows, bytes) != ERR_OK)
        return;
    for (;;) {
        struct slice before = rows.rest;
        char key[STORE_KEY_MAX + 1];
        if (ots_rows_next(&rows, &row) != ERR_OK)
            return;
        ASSERT(row.count <= OTS_COLUMNS_MAX && rows.rest.len < before.len);
        check_row(&row, (struct slice){before.ptr, before.len - rows.rest.len});
        if (ots_key_of_name(row.key.bytes, key))
            ASSERT(slice_is(row.key.bytes, ots_name_of_key(key).text));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice body = {size > 0 ? (const char *)data : "", size};
    struct slice one, two;
    struct ots_doc doc;
    check_rows(body);
    if (ots_range_read(body, &one, &two) == ERR_OK)
        check_rows(one);
    (void)!ots_error_read(body, &one, &two);
    if (ots_doc_read(body, "k", &doc) == ERR_OK)
        ASSERT(doc.len > 0 && doc.len <= STORE_VALUE_MAX &&
               (doc.set[0] == '\0' ? doc.bytes.len == doc.len : strlen(doc.set) == OTS_SET_LEN));
    return 0;
}
