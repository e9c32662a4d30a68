/* The checksums cover contents, not the form: a cell's is over name, value (as stored, but without
 * the length in front of it), time, change, in this order, although the change is stored before
 * the time; a row's is over those of its cells and a last byte, 1 for a row that is deleted. */
#include "ots_row.h"

enum tag {
    TAG_HEADER = 0x75,
    TAG_KEY = 0x01,
    TAG_COLUMNS = 0x02,
    TAG_CELL = 0x03,
    TAG_NAME = 0x04,
    TAG_VALUE = 0x05,
    TAG_CHANGE = 0x06,
    TAG_TIME = 0x07,
    TAG_DELETES = 0x08,
    TAG_ROW_CRC = 0x09,
    TAG_CELL_CRC = 0x0a,
};

unsigned char ots_crc8(unsigned char crc, struct slice bytes)
{
    static unsigned char table[256]; /* x^8 + x^2 + x + 1 */
    if (table[1] == 0)
        for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
            unsigned rest = i;
            for (unsigned bit = 0; bit < 8; bit++)
                rest = rest & 0x80 ? rest << 1 ^ 0x107 : rest << 1;
            table[i] = (unsigned char)rest;
        }
    for (size_t i = 0; i < bytes.len; i++)
        crc = table[crc ^ (unsigned char)bytes.ptr[i]];
    return crc;
}

static unsigned char crc8_byte(unsigned char crc, unsigned byte)
{
    char c = (char)byte;
    return ots_crc8(crc, (struct slice){&c, 1});
}

/* --- writing --------------------------------------------------------------------------------- */

static void write_number(struct buf *out, uint64_t value, unsigned bytes)
{
    char text[8];
    for (unsigned i = 0; i < bytes; i++)
        text[i] = (char)(value >> (8 * i) & 0xff);
    buf_add(out, (struct slice){text, bytes});
}

static void write_byte(struct buf *out, unsigned byte)
{
    write_number(out, byte, 1);
}

void ots_integer_write(struct buf *out, int64_t value)
{
    write_byte(out, OTS_INTEGER);
    write_number(out, (uint64_t)value, 8);
}

static void value_write(struct buf *out, const struct ots_cell *cell)
{
    if (cell->type == OTS_INTEGER) {
        ots_integer_write(out, cell->integer);
        return;
    }
    ASSERT(cell->type == OTS_STRING || cell->type == OTS_BLOB);
    ASSERT(cell->bytes.len <= OTS_BYTES_MAX);
    write_byte(out, cell->type);
    write_number(out, cell->bytes.len, 4);
    buf_add(out, cell->bytes);
}

static unsigned char cell_write(struct buf *out, const struct ots_cell *cell)
{
    unsigned char crc = ots_crc8(0, cell->name);
    write_byte(out, TAG_CELL);
    write_byte(out, TAG_NAME);
    write_number(out, cell->name.len, 4);
    buf_add(out, cell->name);
    if (cell->type != OTS_ABSENT) {
        write_byte(out, TAG_VALUE);
        write_number(out, cell->type == OTS_INTEGER ? 9 : 5 + cell->bytes.len, 4);
        size_t from = out->len;
        value_write(out, cell);
        crc = ots_crc8(crc, (struct slice){out->ptr + from, out->len - from});
    }
    if (cell->change != OTS_CHANGE_NONE) {
        write_byte(out, TAG_CHANGE);
        write_byte(out, cell->change);
        crc = crc8_byte(crc, cell->change);
    }
    write_byte(out, TAG_CELL_CRC);
    write_byte(out, crc);
    return crc;
}

void ots_row_write(struct buf *out, const struct ots_row *row)
{
    write_number(out, TAG_HEADER, 4);
    write_byte(out, TAG_KEY);
    unsigned char crc = crc8_byte(0, cell_write(out, &row->key));
    if (row->count > 0)
        write_byte(out, TAG_COLUMNS);
    for (unsigned i = 0; i < row->count; i++)
        crc = crc8_byte(crc, cell_write(out, &row->columns[i]));
    if (row->deletes)
        write_byte(out, TAG_DELETES);
    write_byte(out, TAG_ROW_CRC);
    write_byte(out, crc8_byte(crc, row->deletes));
}

/* --- reading --------------------------------------------------------------------------------- */

/* Each of these takes what it names from the front of *s, or says false. */
static bool take(struct slice *s, size_t len, struct slice *ret)
{
    if (s->len < len)
        return false;
    *ret = (struct slice){s->ptr, len};
    s->ptr += len;
    s->len -= len;
    return true;
}

static bool take_number(struct slice *s, unsigned bytes, uint64_t *ret)
{
    struct slice raw;
    if (!take(s, bytes, &raw))
        return false;
    *ret = 0;
    for (unsigned i = 0; i < bytes; i++)
        *ret |= (uint64_t)(unsigned char)raw.ptr[i] << (8 * i);
    return true;
}

static bool next_is(const struct slice *s, enum tag tag)
{
    return s->len > 0 && (unsigned char)s->ptr[0] == tag;
}

static bool take_tag(struct slice *s, enum tag tag)
{
    struct slice one;
    return next_is(s, tag) && take(s, 1, &one);
}

static bool take_sized(struct slice *s, struct slice *ret)
{
    uint64_t len;
    return take_number(s, 4, &len) && take(s, len, ret);
}

static bool take_crc(struct slice *s, enum tag tag, unsigned char crc)
{
    uint64_t told;
    return take_tag(s, tag) && take_number(s, 1, &told) && told == crc;
}

/* The whole value: nothing may be left of it. */
static bool value_read(struct slice value, struct ots_cell *ret)
{
    uint64_t type, number;
    if (!take_number(&value, 1, &type))
        return false;
    ret->type = (enum ots_type)type;
    switch (type) {
    case OTS_INTEGER:
    case OTS_DOUBLE:
        if (!take_number(&value, 8, &number))
            return false;
        ret->integer = (int64_t)number;
        break;
    case OTS_BOOLEAN:
        if (!take_number(&value, 1, &number))
            return false;
        break;
    case OTS_STRING:
    case OTS_BLOB:
        if (!take_sized(&value, &ret->bytes))
            return false;
        break;
    default: return false;
    }
    return value.len == 0;
}

static bool take_cell(struct slice *s, struct ots_cell *ret, unsigned char *ret_crc)
{
    struct slice value, time;
    uint64_t number;
    *ret = (struct ots_cell){.type = OTS_ABSENT};
    if (!take_tag(s, TAG_CELL) || !take_tag(s, TAG_NAME) || !take_sized(s, &ret->name))
        return false;
    unsigned char crc = ots_crc8(0, ret->name);
    if (!take_tag(s, TAG_VALUE) || !take_sized(s, &value) || !value_read(value, ret))
        return false;
    crc = ots_crc8(crc, value);
    if (take_tag(s, TAG_TIME)) {
        time = *s;
        if (!take_number(s, 8, &number))
            return false;
        crc = ots_crc8(crc, (struct slice){time.ptr, 8});
        ret->has_time = true;
        ret->time_ms = (int64_t)number;
    }
    *ret_crc = crc;
    return take_crc(s, TAG_CELL_CRC, crc);
}

static bool take_row(struct slice *s, struct ots_row *ret)
{
    unsigned char cell_crc;
    ret->count = 0;
    ret->deletes = false;
    if (!take_tag(s, TAG_KEY) || !take_cell(s, &ret->key, &cell_crc))
        return false;
    unsigned char crc = crc8_byte(0, cell_crc);
    if (take_tag(s, TAG_COLUMNS)) {
        do {
            if (ret->count == OTS_COLUMNS_MAX ||
                !take_cell(s, &ret->columns[ret->count], &cell_crc))
                return false;
            ret->count++;
            crc = crc8_byte(crc, cell_crc);
        } while (next_is(s, TAG_CELL));
    }
    return take_crc(s, TAG_ROW_CRC, crc8_byte(crc, 0));
}

enum err_code ots_rows_begin(struct ots_rows *rows, struct slice buffer)
{
    uint64_t header;
    rows->rest = buffer;
    if (buffer.len == 0)
        return ERR_OK; /* no rows */
    return take_number(&rows->rest, 4, &header) && header == TAG_HEADER ? ERR_OK : ERR_CORRUPT;
}

enum err_code ots_rows_next(struct ots_rows *rows, struct ots_row *ret)
{
    if (rows->rest.len == 0)
        return ERR_NOT_FOUND;
    return take_row(&rows->rest, ret) ? ERR_OK : ERR_CORRUPT;
}

const struct ots_cell *ots_row_column(const struct ots_row *row, const char *name)
{
    for (unsigned i = 0; i < row->count; i++)
        if (slice_is(row->columns[i].name, name))
            return &row->columns[i];
    return NULL;
}
