/* Bytes are kept as a blob, not as a string: strings must be UTF-8 there. No key of a document
 * begins with '~' or '-', and none has a ':', so no two of these names are alike. */
#include "ots_doc.h"

#include "ots_list.h"
#include "ots_message.h"

#include <stdio.h>

const char *const ots_doc_columns[] = {"o", "v", "p", "n", NULL};
const char *const ots_order_columns[] = {"o", NULL};

/* --- names of rows --------------------------------------------------------------------------- */

enum { SUFFIX_LEN = 5 /* "~task" */ };

struct ots_name ots_name_of_key(const char *key)
{
    struct ots_name name;
    size_t len = strlen(key);
    if (ots_list_takes((struct slice){key, len}))
        (void)snprintf(name.text, sizeof(name.text), "~%.*s", (int)(len - SUFFIX_LEN), key);
    else
        (void)snprintf(name.text, sizeof(name.text), "%s", key);
    return name;
}

struct ots_name ots_name_of_part(const char *key, const char *set, unsigned i)
{
    struct ots_name name;
    (void)snprintf(name.text, sizeof(name.text), "-%s:%s:%u", key, set, i);
    return name;
}

struct ots_name ots_name_before_parts(const char *key)
{
    struct ots_name name;
    (void)snprintf(name.text, sizeof(name.text), "-%s:", key);
    return name;
}

struct ots_name ots_name_behind_parts(const char *key)
{
    struct ots_name name;
    (void)snprintf(name.text, sizeof(name.text), "-%s;",
                   key); /* it follows ':', and is in no key */
    return name;
}

bool ots_key_of_name(struct slice name, char ret[STORE_KEY_MAX + 1])
{
    if (name.len < 2 || name.ptr[0] != '~' || name.len - 1 + SUFFIX_LEN > STORE_KEY_MAX)
        return false;
    (void)snprintf(ret, STORE_KEY_MAX + 1, "%.*s~task", (int)name.len - 1, name.ptr + 1);
    return ots_list_takes(slice_of(ret));
}

/* --- rows ------------------------------------------------------------------------------------ */

static struct ots_cell key_cell(const char *name)
{
    return (struct ots_cell){.name = SLICE("k"), .type = OTS_STRING, .bytes = slice_of(name)};
}

void ots_key_write(struct buf *out, const char *name, bool deletes)
{
    struct ots_row row = {.key = key_cell(name), .count = 0, .deletes = deletes};
    ots_row_write(out, &row);
}

void ots_doc_write(struct buf *out, const char *name, const struct ots_doc *doc)
{
    struct ots_row row = {.key = key_cell(name), .count = 2};
    ASSERT(doc->order <= INT64_MAX && doc->bytes.len <= OTS_PART_MAX);
    row.columns[0] = (struct ots_cell){SLICE("o"), OTS_INTEGER, .integer = (int64_t)doc->order};
    if (doc->set[0] == '\0') {
        row.columns[1] = (struct ots_cell){SLICE("v"), OTS_BLOB, .bytes = doc->bytes};
    } else {
        row.columns[1] = (struct ots_cell){SLICE("p"), OTS_STRING, .bytes = slice_of(doc->set)};
        row.columns[row.count++] =
            (struct ots_cell){SLICE("n"), OTS_INTEGER, .integer = (int64_t)doc->len};
    }
    ots_row_write(out, &row);
}

static enum err_code doc_of_row(const struct ots_row *row, struct ots_doc *ret)
{
    const struct ots_cell *order = ots_row_column(row, "o");
    const struct ots_cell *bytes = ots_row_column(row, "v");
    const struct ots_cell *set = ots_row_column(row, "p");
    const struct ots_cell *len = ots_row_column(row, "n");
    if (bytes == NULL && set == NULL)
        return ERR_NOT_FOUND; /* its cells were too old for the table */
    if (order == NULL || order->type != OTS_INTEGER || order->integer < 0)
        return ERR_CORRUPT;
    *ret = (struct ots_doc){.order = (uint64_t)order->integer, .bytes = SLICE_EMPTY};
    if (bytes != NULL) {
        ret->bytes = bytes->bytes;
        ret->len = bytes->bytes.len;
        return bytes->type == OTS_BLOB && ret->len > 0 ? ERR_OK : ERR_CORRUPT;
    }
    if (set->type != OTS_STRING || set->bytes.len != OTS_SET_LEN || len == NULL ||
        len->type != OTS_INTEGER || len->integer <= 0 || len->integer > STORE_VALUE_MAX)
        return ERR_CORRUPT;
    memcpy(ret->set, set->bytes.ptr, OTS_SET_LEN);
    ret->len = (size_t)len->integer;
    return ERR_OK;
}

enum err_code ots_doc_read(struct slice body, const char *name, struct ots_doc *ret)
{
    struct ots_rows rows;
    struct ots_row row;
    struct slice bytes;
    if (ots_got_read(body, &bytes) != ERR_OK || ots_rows_begin(&rows, bytes) != ERR_OK)
        return ERR_CORRUPT;
    enum err_code code = ots_rows_next(&rows, &row);
    if (code != ERR_OK)
        return code;
    if (rows.rest.len > 0 || row.key.type != OTS_STRING || !slice_is(row.key.bytes, name))
        return ERR_CORRUPT;
    return doc_of_row(&row, ret);
}
