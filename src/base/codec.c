/* base64 is our own because a picture passes through it byte for byte: nettle encodes 1.2 GB/s, the
 * vector forms below several times that. They follow the well-known method (W. Muła and D. Lemire,
 * "Faster Base64 Encoding and Decoding using AVX2 Instructions", 2018): spread 12 bytes over 16
 * lanes, cut out four times six bits by two multiplications, then turn each value into its letter
 * by adding an offset that a shuffle looks up. A test compares all forms with nettle. */
#include "codec.h"

#include <errno.h>
#include <sys/random.h>

#include <nettle/hmac.h>
#include <nettle/md5.h>
#include <nettle/memops.h>
#include <nettle/sha1.h>
#include <nettle/sha2.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define HAVE_VECTORS 1
#else
#define HAVE_VECTORS 0
#endif

/* --- base64 ---------------------------------------------------------------------------------- */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void encode_three(const unsigned char *in, char *out)
{
    unsigned bits = (unsigned)in[0] << 16 | (unsigned)in[1] << 8 | in[2];
    out[0] = alphabet[bits >> 18];
    out[1] = alphabet[bits >> 12 & 63];
    out[2] = alphabet[bits >> 6 & 63];
    out[3] = alphabet[bits & 63];
}

/* The vector forms encode as many whole groups as they can read safely and return how many bytes of
 * `in` those were; the table does the rest. */
typedef size_t (*encode_fn)(const unsigned char *in, size_t len, char *out);

static size_t encode_none(const unsigned char *in, size_t len, char *out)
{
    (void)in;
    (void)len;
    (void)out;
    return 0;
}

#if HAVE_VECTORS
__attribute__((target("ssse3"))) static size_t encode_ssse3(const unsigned char *in, size_t len,
                                                            char *out)
{
    const __m128i spread = _mm_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10);
    const __m128i offsets =
        _mm_setr_epi8('a' - 26, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52,
                      '0' - 52, '0' - 52, '0' - 52, '0' - 52, '+' - 62, '/' - 63, 'A', 0, 0);
    size_t at = 0;
    for (; len - at >= 16; at += 12, out += 16) {
        __m128i v = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(in + at)), spread);
        __m128i high = _mm_mulhi_epu16(_mm_and_si128(v, _mm_set1_epi32(0x0fc0fc00)),
                                       _mm_set1_epi32(0x04000040));
        __m128i low = _mm_mullo_epi16(_mm_and_si128(v, _mm_set1_epi32(0x003f03f0)),
                                      _mm_set1_epi32(0x01000010));
        __m128i six = _mm_or_si128(high, low);
        /* 0..25 → 13, 26..51 → 0, 52..61 → 1..10, 62 → 11, 63 → 12 */
        __m128i class = _mm_subs_epu8(six, _mm_set1_epi8(51));
        __m128i upper = _mm_cmpgt_epi8(_mm_set1_epi8(26), six);
        class = _mm_or_si128(class, _mm_and_si128(upper, _mm_set1_epi8(13)));
        _mm_storeu_si128((__m128i *)out, _mm_add_epi8(six, _mm_shuffle_epi8(offsets, class)));
    }
    return at;
}

__attribute__((target("avx2"))) static size_t encode_avx2(const unsigned char *in, size_t len,
                                                          char *out)
{
    const __m256i spread = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10));
    const __m256i offsets = _mm256_broadcastsi128_si256(
        _mm_setr_epi8('a' - 26, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52,
                      '0' - 52, '0' - 52, '0' - 52, '0' - 52, '+' - 62, '/' - 63, 'A', 0, 0));
    size_t at = 0;
    for (; len - at >= 28; at += 24, out += 32) {
        __m128i first = _mm_loadu_si128((const __m128i *)(in + at));
        __m128i second = _mm_loadu_si128((const __m128i *)(in + at + 12));
        __m256i v = _mm256_shuffle_epi8(_mm256_set_m128i(second, first), spread);
        __m256i high = _mm256_mulhi_epu16(_mm256_and_si256(v, _mm256_set1_epi32(0x0fc0fc00)),
                                          _mm256_set1_epi32(0x04000040));
        __m256i low = _mm256_mullo_epi16(_mm256_and_si256(v, _mm256_set1_epi32(0x003f03f0)),
                                         _mm256_set1_epi32(0x01000010));
        __m256i six = _mm256_or_si256(high, low);
        __m256i class = _mm256_subs_epu8(six, _mm256_set1_epi8(51));
        __m256i upper = _mm256_cmpgt_epi8(_mm256_set1_epi8(26), six);
        class = _mm256_or_si256(class, _mm256_and_si256(upper, _mm256_set1_epi8(13)));
        _mm256_storeu_si256((__m256i *)out,
                            _mm256_add_epi8(six, _mm256_shuffle_epi8(offsets, class)));
    }
    return at;
}
#endif

static encode_fn encode_fast; /* NULL: not chosen yet */

bool base64_use(enum base64_way way)
{
#if HAVE_VECTORS
    if (way == BASE64_AVX2 && __builtin_cpu_supports("avx2")) {
        encode_fast = encode_avx2;
        return true;
    }
    if (way == BASE64_SSSE3 && __builtin_cpu_supports("ssse3")) {
        encode_fast = encode_ssse3;
        return true;
    }
#endif
    encode_fast = encode_none;
    return way == BASE64_TABLE;
}

void base64_init(struct base64_encoder *e)
{
    e->tail_len = 0;
    if (encode_fast == NULL && !base64_use(BASE64_AVX2))
        (void)base64_use(BASE64_SSSE3);
}

size_t base64_feed(struct base64_encoder *e, struct slice in, char *out)
{
    const unsigned char *at = (const unsigned char *)in.ptr;
    const unsigned char *end = at + in.len;
    char *from = out;
    while (e->tail_len > 0 && at < end) {
        e->tail[e->tail_len++] = *at++;
        if (e->tail_len == 3) {
            encode_three(e->tail, out);
            out += 4;
            e->tail_len = 0;
        }
    }
    if (end - at >= 3) {
        size_t done = encode_fast(at, (size_t)(end - at), out);
        at += done;
        out += done / 3 * 4;
        for (; end - at >= 3; at += 3, out += 4)
            encode_three(at, out);
    }
    while (at < end)
        e->tail[e->tail_len++] = *at++;
    return (size_t)(out - from);
}

size_t base64_finish(struct base64_encoder *e, char *out)
{
    static const unsigned char zeros[3];
    if (e->tail_len == 0)
        return 0;
    memcpy(e->tail + e->tail_len, zeros, 3 - e->tail_len);
    encode_three(e->tail, out);
    out[3] = '=';
    if (e->tail_len == 1)
        out[2] = '=';
    e->tail_len = 0;
    return 4;
}

size_t base64_encode(struct slice in, char *out)
{
    struct base64_encoder e;
    base64_init(&e);
    size_t len = base64_feed(&e, in, out);
    len += base64_finish(&e, out + len);
    out[len] = '\0';
    return len;
}

static int letter_value(unsigned char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static struct slice without_padding(struct slice text)
{
    if (text.len % 4 != 0)
        return text;
    for (unsigned i = 0; i < 2 && text.len > 0 && text.ptr[text.len - 1] == '='; i++)
        text.len--;
    return text;
}

enum err_code base64_decode(struct slice text, struct buf *out)
{
    unsigned bits = 0;
    unsigned have = 0;
    text = without_padding(text);
    if (text.len % 4 == 1)
        return ERR_INVALID;
    size_t rest = text.len % 4;
    enum err_code code = buf_reserve(out, text.len / 4 * 3 + (rest > 0 ? rest - 1 : 0));
    if (code != ERR_OK)
        return code;
    char *at = out->ptr + out->len;
    for (size_t i = 0; i < text.len; i++) {
        int value = letter_value((unsigned char)text.ptr[i]);
        if (value < 0) {
            out->ptr[out->len] = '\0'; /* what was written lies beyond the buf's length */
            return ERR_INVALID;
        }
        bits = bits << 6 | (unsigned)value;
        have += 6;
        if (have >= 8) {
            have -= 8;
            *at++ = (char)(bits >> have);
        }
    }
    out->len = (size_t)(at - out->ptr);
    out->ptr[out->len] = '\0';
    return ERR_OK;
}

/* --- digests and randomness ------------------------------------------------------------------ */

static void add_hex(const unsigned char *bytes, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        out[i * 2] = digits[bytes[i] >> 4];
        out[i * 2 + 1] = digits[bytes[i] & 15];
    }
    out[len * 2] = '\0';
}

void sha256_hex(struct slice in, char ret[SHA256_TEXT + 1])
{
    struct sha256_ctx ctx;
    unsigned char digest[SHA256_DIGEST_SIZE];
    sha256_init(&ctx);
    sha256_update(&ctx, in.len, (const uint8_t *)in.ptr);
    sha256_digest(&ctx, sizeof(digest), digest);
    add_hex(digest, sizeof(digest), ret);
}

bool bytes_equal_secretly(const void *a, const void *b, size_t len)
{
    return memeql_sec(a, b, len) != 0;
}

void sha1_raw(struct slice in, unsigned char ret[SHA1_RAW])
{
    struct sha1_ctx ctx;
    sha1_init(&ctx);
    sha1_update(&ctx, in.len, (const uint8_t *)in.ptr);
    sha1_digest(&ctx, SHA1_RAW, ret);
}

void md5_raw(struct slice in, unsigned char ret[MD5_RAW])
{
    struct md5_ctx ctx;
    md5_init(&ctx);
    md5_update(&ctx, in.len, (const uint8_t *)in.ptr);
    md5_digest(&ctx, MD5_RAW, ret);
}

void hmac_sha1(struct slice key, struct slice in, unsigned char ret[SHA1_RAW])
{
    struct hmac_sha1_ctx ctx;
    hmac_sha1_set_key(&ctx, key.len, (const uint8_t *)key.ptr);
    hmac_sha1_update(&ctx, in.len, (const uint8_t *)in.ptr);
    hmac_sha1_digest(&ctx, SHA1_RAW, ret);
}

void hmac_sha256(struct slice key, struct slice in, unsigned char ret[SHA256_RAW])
{
    struct hmac_sha256_ctx ctx;
    hmac_sha256_set_key(&ctx, key.len, (const uint8_t *)key.ptr);
    hmac_sha256_update(&ctx, in.len, (const uint8_t *)in.ptr);
    hmac_sha256_digest(&ctx, SHA256_RAW, ret);
}

static void random_from_kernel(unsigned char *at, size_t len)
{
    while (len > 0) {
        ssize_t n = getrandom(at, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        ASSERT(n > 0);
        at += n;
        len -= (size_t)n;
    }
}

/* Ids, masks and names are asked for a few bytes at a time, ten times a run: they come from a
 * stock, each thread's own. What was given is wiped. */
void random_bytes(void *ret, size_t len)
{
    static _Thread_local unsigned char stock[512];
    static _Thread_local size_t left;
    if (len > sizeof(stock) / 8) {
        random_from_kernel(ret, len);
        return;
    }
    if (len > left) {
        random_from_kernel(stock, sizeof(stock));
        left = sizeof(stock);
    }
    left -= len;
    memcpy(ret, stock + left, len);
    memset(stock + left, 0, len);
}

void random_hex(char *ret, size_t bytes)
{
    unsigned char raw[RANDOM_HEX_MAX];
    ASSERT(bytes <= sizeof(raw));
    random_bytes(raw, bytes);
    add_hex(raw, bytes, ret);
}

void uuid_v4(char ret[UUID_TEXT + 1])
{
    unsigned char raw[16];
    char hex[33];
    random_bytes(raw, sizeof(raw));
    raw[6] = (unsigned char)((raw[6] & 0x0f) | 0x40);
    raw[8] = (unsigned char)((raw[8] & 0x3f) | 0x80);
    add_hex(raw, sizeof(raw), hex);
    const char *from = hex;
    for (unsigned i = 0; i < UUID_TEXT; i++)
        ret[i] = (char)(i == 8 || i == 13 || i == 18 || i == 23 ? '-' : *from++);
    ret[UUID_TEXT] = '\0';
}
