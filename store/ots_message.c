/* Numbers of fields and enumerations are those of the service's published messages. */
#include "ots_message.h"

#include "ots_row.h"

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5, VARINT_MAX = 10 };
enum { FILTER_SINGLE_COLUMN = 1, COMPARE_LESS_EQUAL = 6, DIRECTION_FORWARD = 0 };
enum { KEY_STRING = 2, DEVIATION_S = 86400 /* the service's own default, as clients send it */ };

/* --- fields ---------------------------------------------------------------------------------- */

static void varint_write(struct buf *out, uint64_t value)
{
    char text[VARINT_MAX];
    size_t len = 0;
    do {
        text[len++] = (char)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        value >>= 7;
    } while (value > 0);
    buf_add(out, (struct slice){text, len});
}

void ots_field_number(struct buf *out, unsigned field, int64_t value)
{
    varint_write(out, field << 3 | WIRE_VARINT);
    varint_write(out, (uint64_t)value); /* negative ones have ten bytes */
}

void ots_field_bytes(struct buf *out, unsigned field, struct slice value)
{
    varint_write(out, field << 3 | WIRE_BYTES);
    varint_write(out, value.len);
    buf_add(out, value);
}

static bool take_varint(struct slice *s, uint64_t *ret)
{
    uint64_t value = 0;
    for (size_t i = 0; i < s->len && i < VARINT_MAX; i++) {
        unsigned char byte = (unsigned char)s->ptr[i];
        if (i == VARINT_MAX - 1 && byte > 1)
            return false; /* more than 64 bits */
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte & 0x80)
            continue;
        s->ptr += i + 1;
        s->len -= i + 1;
        *ret = value;
        return true;
    }
    return false;
}

static bool take_bytes(struct slice *s, uint64_t len, struct slice *ret)
{
    if (len > s->len)
        return false;
    *ret = (struct slice){s->ptr, (size_t)len};
    s->ptr += len;
    s->len -= (size_t)len;
    return true;
}

enum err_code ots_field_next(struct slice *message, struct ots_field *ret)
{
    uint64_t key, len;
    while (message->len > 0) {
        if (!take_varint(message, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX)
            return ERR_CORRUPT;
        *ret = (struct ots_field){.number = (unsigned)(key >> 3)};
        switch (key & 7) {
        case WIRE_VARINT: return take_varint(message, &ret->value) ? ERR_OK : ERR_CORRUPT;
        case WIRE_BYTES:
            ret->is_bytes = true;
            return take_varint(message, &len) && take_bytes(message, len, &ret->bytes)
                       ? ERR_OK
                       : ERR_CORRUPT;
        case WIRE_64:
        case WIRE_32:
            if (!take_bytes(message, (key & 7) == WIRE_64 ? 8 : 4, &ret->bytes))
                return ERR_CORRUPT;
            break;
        default: return ERR_CORRUPT;
        }
    }
    return ERR_NOT_FOUND;
}

/* --- requests -------------------------------------------------------------------------------- */

static void field_text(struct buf *out, unsigned field, const char *text)
{
    ots_field_bytes(out, field, slice_of(text));
}

static void filter_write(struct buf *out, const struct ots_condition *condition)
{
    struct buf value, filter;
    buf_init(&value, SIZE_MAX);
    buf_init(&filter, SIZE_MAX);
    ots_integer_write(&value, condition->at_most);
    ots_field_number(&filter, 1, COMPARE_LESS_EQUAL);
    field_text(&filter, 2, condition->column);
    ots_field_bytes(&filter, 3, buf_slice(&value));
    ots_field_number(&filter, 4, false); /* a missing column does not fail it */
    ots_field_number(&filter, 5, true);  /* the latest version counts */
    ots_field_number(out, 1, FILTER_SINGLE_COLUMN);
    ots_field_bytes(out, 2, buf_slice(&filter));
    buf_done(&value);
    buf_done(&filter);
}

void ots_write_body(struct buf *out, const char *table, struct slice row,
                    const struct ots_condition *condition)
{
    struct buf text, filter;
    buf_init(&text, SIZE_MAX);
    buf_init(&filter, SIZE_MAX);
    ots_field_number(&text, 1, condition->row); /* required, also when it is 0 */
    if (condition->column != NULL) {
        filter_write(&filter, condition);
        ots_field_bytes(&text, 2, buf_slice(&filter));
    }
    field_text(out, 1, table);
    ots_field_bytes(out, 2, row);
    ots_field_bytes(out, 3, buf_slice(&text));
    buf_done(&text);
    buf_done(&filter);
}

/* Reads must say how many versions of a cell they want. */
void ots_get_body(struct buf *out, const char *table, struct slice key, const char *const columns[])
{
    field_text(out, 1, table);
    ots_field_bytes(out, 2, key);
    for (unsigned i = 0; columns[i] != NULL; i++)
        field_text(out, 3, columns[i]);
    ots_field_number(out, 5, 1);
}

void ots_range_body(struct buf *out, const char *table, const struct ots_range *range)
{
    field_text(out, 1, table);
    ots_field_number(out, 2, DIRECTION_FORWARD);
    for (unsigned i = 0; range->columns[i] != NULL; i++)
        field_text(out, 3, range->columns[i]);
    ots_field_number(out, 5, 1);
    ots_field_number(out, 6, range->limit);
    ots_field_bytes(out, 7, range->from);
    ots_field_bytes(out, 8, range->before);
}

static void field_message(struct buf *out, unsigned field, struct buf *message)
{
    ots_field_bytes(out, field, buf_slice(message));
    buf_reset(message);
}

void ots_create_table_body(struct buf *out, const char *table, const char *key, int64_t seconds)
{
    struct buf inner, outer;
    buf_init(&inner, SIZE_MAX);
    buf_init(&outer, SIZE_MAX);
    field_text(&inner, 1, key); /* PrimaryKeySchema in TableMeta */
    ots_field_number(&inner, 2, KEY_STRING);
    field_text(&outer, 1, table);
    field_message(&outer, 2, &inner);
    field_message(out, 1, &outer);
    ots_field_number(&inner, 1, 0); /* CapacityUnit in ReservedThroughput: pay as you go */
    ots_field_number(&inner, 2, 0);
    field_message(&outer, 1, &inner);
    field_message(out, 2, &outer);
    ots_field_number(&outer, 1, seconds); /* TableOptions */
    ots_field_number(&outer, 2, 1);
    ots_field_number(&outer, 5, DEVIATION_S);
    field_message(out, 3, &outer);
    buf_done(&inner);
    buf_done(&outer);
}

/* --- answers --------------------------------------------------------------------------------- */

/* The bytes of two fields; of one that comes twice the last counts. */
static enum err_code two_read(struct slice body, unsigned first, struct slice *ret_first,
                              unsigned second, struct slice *ret_second)
{
    struct slice found[2] = {SLICE_EMPTY, SLICE_EMPTY};
    struct ots_field field;
    enum err_code code;
    while ((code = ots_field_next(&body, &field)) == ERR_OK) {
        if (field.number != first && field.number != second)
            continue;
        if (!field.is_bytes)
            return ERR_CORRUPT;
        found[field.number == second] = field.bytes;
    }
    if (code != ERR_NOT_FOUND)
        return code;
    *ret_first = found[0];
    *ret_second = found[1];
    return ERR_OK;
}

enum err_code ots_error_read(struct slice body, struct slice *ret_code, struct slice *ret_message)
{
    return two_read(body, 1, ret_code, 2, ret_message);
}

enum err_code ots_got_read(struct slice body, struct slice *ret_row)
{
    struct slice consumed;
    return two_read(body, 2, ret_row, 1, &consumed);
}

enum err_code ots_range_read(struct slice body, struct slice *ret_rows, struct slice *ret_next)
{
    return two_read(body, 2, ret_rows, 3, ret_next);
}
