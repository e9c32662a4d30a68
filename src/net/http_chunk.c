#include "http_chunk.h"

#include "codec.h"
#include "http_msg.h"

enum {
    SIZE,
    EXTENSION_FIRST,
    EXTENSION,
    QUOTED, /* in a quoted value */
    QUOTED_PAIR,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER,
};

void http_chunk_init(struct http_chunk *c)
{
    *c = (struct http_chunk){.state = SIZE};
}

static bool chunk_refuse(struct http_chunk *c, int status, const char *why)
{
    c->status = status;
    c->why = why;
    return false;
}

static bool chunk_size(struct http_chunk *c, char byte)
{
    int digit = hex_value(byte);
    if (digit >= 0) {
        /* The second bound is on digits that do not change the number: leading zeros. */
        if (c->left > (INT64_MAX >> 4) || c->digits == 16)
            return chunk_refuse(c, 413, "a chunk is too large");
        c->left = c->left << 4 | (unsigned)digit;
        c->digits++;
        return true;
    }
    if (c->digits == 0 || (byte != '\r' && byte != ';'))
        return chunk_refuse(c, 400, "no chunk size");
    c->state = byte == ';' ? EXTENSION_FIRST : SIZE_LF;
    return true;
}

/* No line ends inside a quotation: who reads on for the end of it finds another chunk. */
static unsigned char chunk_extension_next(unsigned char state, char byte)
{
    if (state == QUOTED && byte == '\\')
        return QUOTED_PAIR;
    if (byte == '"')
        return state == QUOTED ? EXTENSION : QUOTED;
    return state == EXTENSION_FIRST || state == EXTENSION ? EXTENSION : QUOTED;
}

static bool chunk_extension(struct http_chunk *c, char byte)
{
    if (byte == '\r' && c->state == EXTENSION) {
        c->state = SIZE_LF;
        return true;
    }
    bool fits = c->state == EXTENSION_FIRST ? http_is_token_char(byte) : http_is_value_char(byte);
    if (!fits)
        return chunk_refuse(c, 400, "a malformed chunk extension");
    if (++c->extensions > HTTP_CHUNK_EXTENSIONS_MAX)
        return chunk_refuse(c, 413, "too many chunk extensions");
    c->state = chunk_extension_next(c->state, byte);
    return true;
}

static bool chunk_byte(struct http_chunk *c, char byte)
{
    switch (c->state) {
    case SIZE: return chunk_size(c, byte);
    case EXTENSION_FIRST:
    case EXTENSION:
    case QUOTED:
    case QUOTED_PAIR: return chunk_extension(c, byte);
    case SIZE_LF:
        if (byte != '\n')
            return chunk_refuse(c, 400, "a chunk size is not followed by CRLF");
        c->state = c->left > 0 ? DATA : TRAILER;
        if (c->state == TRAILER)
            http_guard_init(&c->trailer, HTTP_GUARD_TRAILER);
        return true;
    case DATA_CR:
    default: /* DATA_LF */
        if (byte != (c->state == DATA_CR ? '\r' : '\n'))
            return chunk_refuse(c, 400, "a chunk is not followed by CRLF");
        c->state = c->state == DATA_CR ? DATA_LF : SIZE;
        c->digits = 0;
        return true;
    }
}

static void drop_front(struct slice *in, size_t n)
{
    in->ptr += n;
    in->len -= n;
}

static enum http_chunk_result chunk_trailer(struct http_chunk *c, struct slice *in)
{
    size_t used;
    enum http_guard_result result = http_guard_feed(&c->trailer, *in, &used);
    drop_front(in, used);
    if (result == HTTP_GUARD_BAD) {
        (void)chunk_refuse(c, c->trailer.status, c->trailer.why);
        return HTTP_CHUNK_BAD;
    }
    return result == HTTP_GUARD_END ? HTTP_CHUNK_END : HTTP_CHUNK_MORE;
}

enum http_chunk_result http_chunk_next(struct http_chunk *c, struct slice *in,
                                       struct slice *ret_part)
{
    while (in->len > 0) {
        if (c->state == TRAILER)
            return chunk_trailer(c, in);
        if (c->state == DATA) {
            size_t n = c->left < in->len ? (size_t)c->left : in->len;
            *ret_part = (struct slice){in->ptr, n};
            drop_front(in, n);
            c->left -= n;
            if (c->left == 0)
                c->state = DATA_CR;
            return HTTP_CHUNK_PART;
        }
        if (!chunk_byte(c, in->ptr[0]))
            return HTTP_CHUNK_BAD;
        drop_front(in, 1);
    }
    return HTTP_CHUNK_MORE;
}
