#include "json_string.h"

#include "codec.h"

int json_hex_unit(const char *s)
{
    int unit = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_value(s[i]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

static bool is_high(int unit)
{
    return unit >= 0xd800 && unit <= 0xdbff;
}

static bool is_low(int unit)
{
    return unit >= 0xdc00 && unit <= 0xdfff;
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

const char *json_next_char(const char *at, const char *end, char *out, size_t *ret_len)
{
    static const char plain[] = "\"\\/bfnrt";
    static const char meant[] = "\"\\/\b\f\n\r\t";
    if (*at != '\\') {
        out[0] = *at;
        *ret_len = 1;
        return at + 1;
    }
    const char *found = strchr(plain, at[1]);
    if (found != NULL) {
        out[0] = meant[found - plain];
        *ret_len = 1;
        return at + 2;
    }
    int unit = json_hex_unit(at + 2);
    at += 6;
    if (is_high(unit) && end - at >= 6 && at[0] == '\\' && at[1] == 'u' &&
        is_low(json_hex_unit(at + 2))) {
        uint32_t c = 0x10000u + (((uint32_t)unit & 0x3ffu) << 10) +
                     ((uint32_t)json_hex_unit(at + 2) & 0x3ffu);
        *ret_len = put_utf8(out, c);
        return at + 6;
    }
    if (unit >= 0xdc80 && unit <= 0xdcff) { /* as Python's surrogateescape */
        out[0] = (char)(unit - 0xdc00);
        *ret_len = 1;
    } else {
        bool lone = is_high(unit) || is_low(unit);
        *ret_len = put_utf8(out, lone ? 0xfffd : (uint32_t)unit);
    }
    return at;
}

static struct slice inside(struct slice token)
{
    ASSERT(token.len >= 2 && token.ptr[0] == '"');
    return (struct slice){token.ptr + 1, token.len - 2};
}

bool json_string_is(struct slice token, const char *text)
{
    struct slice s = inside(token);
    if (!json_may_be(token, text))
        return false;
    if (!json_has_escape(s))
        return slice_is(s, text);
    const char *at = s.ptr;
    const char *end = s.ptr + s.len;
    while (at < end) {
        char out[4];
        size_t len;
        at = json_next_char(at, end, out, &len);
        if (strncmp(text, out, len) != 0 || memchr(out, '\0', len) != NULL)
            return false;
        text += len;
    }
    return *text == '\0';
}

/* The bytes that a spelling stands for, one by one: a character may come at once as an escape, byte
 * by byte as UTF-8, or as the escapes of its bytes (\udcc3\udca9). */
struct spelled {
    const char *at, *end;
    char out[4];
    size_t len, used;
};

/* -1: there are no more. */
static int spelled_next(struct spelled *s)
{
    if (s->used == s->len) {
        if (s->at == s->end)
            return -1;
        s->at = json_next_char(s->at, s->end, s->out, &s->len);
        s->used = 0;
    }
    return (unsigned char)s->out[s->used++];
}

bool json_spelled_equal(struct slice a, struct slice b)
{
    struct spelled x = {.at = a.ptr, .end = a.ptr + a.len};
    struct spelled y = {.at = b.ptr, .end = b.ptr + b.len};
    int from_x;
    int from_y;
    if (!json_has_escape(a) && !json_has_escape(b))
        return slice_eq(a, b);
    do {
        from_x = spelled_next(&x);
        from_y = spelled_next(&y);
    } while (from_x == from_y && from_x >= 0);
    return from_x == from_y;
}

bool json_strings_equal(struct slice a, struct slice b)
{
    return json_spelled_equal(inside(a), inside(b));
}

enum err_code json_unescape(struct slice token, struct buf *out)
{
    struct slice s = inside(token);
    const char *at = s.ptr;
    const char *end = s.ptr + s.len;
    while (at < end) {
        const char *escape = memchr(at, '\\', (size_t)(end - at));
        size_t plain = (size_t)((escape != NULL ? escape : end) - at);
        enum err_code code = buf_append(out, (struct slice){at, plain});
        if (code != ERR_OK)
            return code;
        at += plain;
        if (at == end)
            break;
        char text[4];
        size_t len;
        at = json_next_char(at, end, text, &len);
        code = buf_append(out, (struct slice){text, len});
        if (code != ERR_OK)
            return code;
    }
    return ERR_OK;
}
