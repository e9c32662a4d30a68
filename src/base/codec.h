/* Encodings and randomness. The only file that includes nettle. */
#ifndef CODEC_H
#define CODEC_H

#include "buf.h"

enum { UUID_TEXT = 36, SHA256_TEXT = 64, SHA256_RAW = 32, SHA1_RAW = 20, MD5_RAW = 16 };

/* Standard padded base64 of a stream: feed parts, then finish. Output space for n bytes in:
 * BASE64_ROOM(n). */
#define BASE64_ROOM(n) (((n) + 2) / 3 * 4 + 4)
struct base64_encoder {
    unsigned char tail[3];
    unsigned tail_len;
};
void base64_init(struct base64_encoder *e);
size_t base64_feed(struct base64_encoder *e, struct slice in, char *out); /* bytes written */
size_t base64_finish(struct base64_encoder *e, char *out);
/* All of it at once, and a NUL: BASE64_ROOM(in.len) bytes. Returns the length. */
size_t base64_encode(struct slice in, char *out);

/* Strict: the standard alphabet and nothing else, padding at the end or none at all. Appended to
 * out. ERR_INVALID; ERR_TOO_LARGE, ERR_BUSY as buf_append(). Pure, and fit for a worker thread. */
enum err_code base64_decode(struct slice text, struct buf *out) MUST_CHECK;

/* Which code does the work is decided once, by what the processor can; tests and benchmarks choose.
 * False: this processor cannot. */
enum base64_way { BASE64_TABLE, BASE64_SSSE3, BASE64_AVX2 };
bool base64_use(enum base64_way way);

/* What a digit of either case is worth; -1: it is none. */
static inline int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Lower-case hex, NUL-terminated. */
void sha256_hex(struct slice in, char ret[SHA256_TEXT + 1]);
/* Do two texts of one length agree? Takes as long wherever they differ. */
bool bytes_equal_secretly(const void *a, const void *b, size_t len);
void sha1_raw(struct slice in, unsigned char ret[SHA1_RAW]);
/* For protocols that ask for them; no secret is safe with the first. */
void md5_raw(struct slice in, unsigned char ret[MD5_RAW]);
void hmac_sha1(struct slice key, struct slice in, unsigned char ret[SHA1_RAW]);
void hmac_sha256(struct slice key, struct slice in, unsigned char ret[SHA256_RAW]);

/* From getrandom(2); cannot fail once the system is up, and aborts if it does. */
void random_bytes(void *ret, size_t len);
/* `bytes` of them in lower-case hex, NUL-terminated: 2 * bytes + 1 characters. At most 16. */
enum { RANDOM_HEX_MAX = 16 };
void random_hex(char *ret, size_t bytes);
/* Version 4, lower case with hyphens, NUL-terminated. */
void uuid_v4(char ret[UUID_TEXT + 1]);

#endif
