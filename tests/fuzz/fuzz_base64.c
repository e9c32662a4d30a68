/* base64 and data: URIs. All forms of the encoder, in pieces of any size, write what a plain one
 * writes; the decoder reads what a plain one reads and nothing else; and decoding what was encoded
 * gives the bytes back. The first byte chooses the pieces. */
#include "inputs_private.h"
#include "media.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* --- the plain ones: bit by bit -------------------------------------------------------------- */

static unsigned bit_of(struct slice bytes, size_t n)
{
    return n / 8 < bytes.len ? (unsigned char)bytes.ptr[n / 8] >> (7 - n % 8) & 1u : 0;
}

static void plain_encode(struct slice in, struct buf *out)
{
    for (size_t bit = 0; bit < in.len * 8; bit += 6) {
        unsigned six = 0;
        for (size_t i = 0; i < 6; i++)
            six = six * 2 + bit_of(in, bit + i);
        buf_add(out, (struct slice){letters + six, 1});
    }
    while (out->len % 4 != 0)
        buf_adds(out, "=");
}

static bool plain_decode(struct slice text, struct buf *out)
{
    unsigned char byte = 0;
    size_t bits = 0;
    size_t padding = 0;
    while (padding < 2 && padding < text.len && text.ptr[text.len - 1 - padding] == '=')
        padding++;
    if (padding > 0 && text.len % 4 != 0)
        return false;
    text.len -= padding;
    if (text.len % 4 == 1)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        const char *letter = memchr(letters, text.ptr[i], strlen(letters));
        if (letter == NULL)
            return false;
        for (unsigned mask = 32; mask > 0; mask /= 2) {
            byte = (unsigned char)(byte * 2 + (((unsigned)(letter - letters) & mask) != 0));
            if (++bits % 8 == 0)
                buf_add(out, (struct slice){(const char *)&byte, 1});
        }
    }
    return true;
}

/* data:[<type>][;base64],<data> */
static bool plain_decode_uri(struct slice uri, struct buf *out)
{
    struct slice data = uri;
    while (data.len > 0 && data.ptr[0] != ',') {
        data.ptr++;
        data.len--;
    }
    if (data.len == 0)
        return false;
    struct slice head = {uri.ptr, uri.len - data.len};
    data = (struct slice){data.ptr + 1, data.len - 1};
    if (head.len >= 7 && slice_eq_nocase((struct slice){data.ptr - 8, 7}, SLICE(";base64")))
        return plain_decode(data, out);
    for (size_t i = 0; i < data.len; i++) {
        static const char hex[] = "0123456789abcdef0123456789ABCDEF";
        char c = data.ptr[i];
        if (c == '%') {
            const char *high = i + 1 < data.len ? memchr(hex, data.ptr[i + 1], 32) : NULL;
            const char *low = i + 2 < data.len ? memchr(hex, data.ptr[i + 2], 32) : NULL;
            if (high == NULL || low == NULL)
                return false;
            c = (char)((high - hex) % 16 * 16 + (low - hex) % 16);
            i += 2;
        }
        buf_add(out, (struct slice){&c, 1});
    }
    return true;
}

/* --- both against each other ----------------------------------------------------------------- */

static void check_encode(struct slice in, struct slice expected, size_t piece)
{
    char *out = malloc(BASE64_ROOM(in.len) + 1); /* so that a byte too many is seen */
    struct base64_encoder e;
    size_t len = 0;
    ASSERT(out != NULL);
    base64_init(&e);
    for (size_t at = 0; at < in.len; at += piece) {
        size_t n = in.len - at < piece ? in.len - at : piece;
        char *copy = malloc(n);
        ASSERT(copy != NULL);
        memcpy(copy, in.ptr + at, n);
        len += base64_feed(&e, (struct slice){copy, n}, out + len);
        free(copy);
    }
    len += base64_finish(&e, out + len);
    ASSERT(slice_eq((struct slice){out, len}, expected));
    free(out);
}

static void check_all_ways(struct slice in, size_t piece)
{
    static const enum base64_way ways[] = {BASE64_TABLE, BASE64_SSSE3, BASE64_AVX2};
    struct buf expected, back;
    buf_init(&expected, SIZE_MAX);
    buf_init(&back, SIZE_MAX);
    plain_encode(in, &expected);
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        if (!base64_use(ways[i]))
            continue;
        check_encode(in, buf_slice(&expected), piece);
        check_encode(in, buf_slice(&expected), SIZE_MAX / 2);
    }
    ASSERT(base64_decode(buf_slice(&expected), &back) == ERR_OK);
    ASSERT(slice_eq(buf_slice(&back), in));
    buf_done(&expected);
    buf_done(&back);
}

typedef enum err_code (*decode_fn)(struct slice text, struct buf *out);

static enum err_code uri_decode(struct slice text, struct buf *out)
{
    return input_decode(text, INPUT_DATA, out, NULL);
}

/* Behind what is there already; what does not fit or is wrong leaves that as it was. */
static void check_decode(struct slice text, decode_fn decode, bool is_good, struct slice expected)
{
    struct buf out, small;
    buf_init(&out, SIZE_MAX);
    buf_adds(&out, "x");
    enum err_code code = decode(text, &out);
    ASSERT((code == ERR_OK) == is_good && (is_good || code == ERR_INVALID));
    ASSERT(out.ptr[0] == 'x' && out.ptr[out.len] == '\0');
    if (is_good)
        ASSERT(slice_eq((struct slice){out.ptr + 1, out.len - 1}, expected));
    buf_done(&out);
    if (!is_good || expected.len == 0)
        return;
    buf_init(&small, expected.len - 1);
    ASSERT(decode(text, &small) == ERR_TOO_LARGE);
    buf_done(&small);
    buf_init(&small, expected.len);
    ASSERT(decode(text, &small) == ERR_OK);
    buf_done(&small);
}

static void check_text(struct slice text)
{
    struct buf plain, token;
    buf_init(&plain, SIZE_MAX);
    bool is_good = plain_decode(text, &plain);
    check_decode(text, base64_decode, is_good, buf_slice(&plain));
    buf_reset(&plain);
    is_good = plain_decode_uri(text, &plain);
    check_decode(text, uri_decode, is_good, buf_slice(&plain));
    (void)media_ending(buf_slice(&plain));
    buf_done(&plain);
    buf_init(&token, SIZE_MAX);
    buf_adds(&token, "\"");
    buf_add(&token, text);
    buf_adds(&token, "\"");
    enum input_kind kind = input_kind_of(buf_slice(&token));
    ASSERT(kind != INPUT_BASE64 || text.len >= INPUTS_BASE64_MIN);
    ASSERT(kind != INPUT_DATA || slice_eq_nocase((struct slice){text.ptr, 5}, SLICE("data:")));
    buf_done(&token);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct slice in = {(const char *)data + 1, size - 1};
    check_all_ways(in, (size_t)data[0] + 1);
    check_text(in);
    return 0;
}
