/* base64 in all its forms against nettle, digests against published values. */
#include "codec.h"
#include "unit.h"

#include <stdlib.h>

#include <nettle/base64.h>

static void expect_base64(enum base64_way way, const unsigned char *bytes, size_t len,
                          const size_t *parts, size_t part_count)
{
    struct base64_encoder e;
    char *out = xmalloc(BASE64_ROOM(len) + part_count * 4);
    char *want = xmalloc(BASE64_ENCODE_RAW_LENGTH(len) + 1);
    size_t at = 0;
    size_t written = 0;
    (void)base64_use(way);
    base64_init(&e);
    for (size_t i = 0; i < part_count; i++) {
        size_t take = parts[i] < len - at ? parts[i] : len - at;
        written += base64_feed(&e, (struct slice){(const char *)bytes + at, take}, out + written);
        at += take;
    }
    written += base64_feed(&e, (struct slice){(const char *)bytes + at, len - at}, out + written);
    written += base64_finish(&e, out + written);
    base64_encode_raw(want, len, bytes);
    assert_int_equal(written, BASE64_ENCODE_RAW_LENGTH(len));
    assert_memory_equal(out, want, written);
    free(out);
    free(want);
}

static void all_forms_agree_with_nettle(void **state)
{
    (void)state;
    static const enum base64_way ways[] = {BASE64_TABLE, BASE64_SSSE3, BASE64_AVX2};
    unsigned char *bytes = xmalloc(4096);
    for (unsigned i = 0; i < 4096; i++)
        bytes[i] = (unsigned char)(i * 7 + i / 256);
    for (size_t w = 0; w < ARRAY_LEN(ways); w++) {
        for (size_t len = 0; len < 300; len++) {
            const size_t parts[] = {len % 5, len / 3, 1, 2};
            unsigned char *exact = xmalloc(len); /* so that reading past it is seen */
            memcpy(exact, bytes, len);
            expect_base64(ways[w], exact, len, NULL, 0);
            expect_base64(ways[w], exact, len, parts, ARRAY_LEN(parts));
            free(exact);
        }
        expect_base64(ways[w], bytes, 4096, NULL, 0);
    }
    free(bytes);
}

static void every_six_bits_get_their_letter(void **state)
{
    (void)state;
    unsigned char bytes[48];
    struct base64_encoder e;
    char out[BASE64_ROOM(48)];
    for (unsigned i = 0; i < 16; i++) { /* 0, 1, 2, … 63 as groups of six bits */
        unsigned bits = (i * 4) << 18 | (i * 4 + 1) << 12 | (i * 4 + 2) << 6 | (i * 4 + 3);
        bytes[i * 3] = (unsigned char)(bits >> 16);
        bytes[i * 3 + 1] = (unsigned char)(bits >> 8);
        bytes[i * 3 + 2] = (unsigned char)bits;
    }
    for (int way = BASE64_TABLE; way <= BASE64_AVX2; way++) {
        (void)base64_use((enum base64_way)way);
        base64_init(&e);
        assert_int_equal(base64_feed(&e, (struct slice){(char *)bytes, 48}, out), 64);
        assert_memory_equal(out, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
                            64);
    }
}

static void decoding_is_strict(void **state)
{
    (void)state;
    static const struct {
        const char *text, *bytes; /* NULL: refused */
    } table[] = {
        {"", ""},        {"YQ==", "a"},    {"YQ", "a"},    {"YWI=", "ab"},  {"YWI", "ab"},
        {"YWJj", "abc"}, {"YQ=", NULL},    {"Y", NULL},    {"YQ===", NULL}, {"=YQ=", NULL},
        {"YW Jj", NULL}, {"YWJj\n", NULL}, {"YW-_", NULL}, {"====", NULL},  {"YQ==YQ==", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct buf out;
        buf_init(&out, 100);
        buf_adds(&out, "x");
        enum err_code code = base64_decode(slice_of(table[i].text), &out);
        assert_int_equal(code, table[i].bytes != NULL ? ERR_OK : ERR_INVALID);
        assert_string_equal(buf_slice(&out).len > 0 ? out.ptr + 1 : "",
                            table[i].bytes != NULL ? table[i].bytes : out.ptr + 1);
        assert_int_equal(out.len, 1 + (table[i].bytes != NULL ? strlen(table[i].bytes) : 0));
        buf_done(&out);
    }
    struct buf small;
    buf_init(&small, 3);
    assert_int_equal(base64_decode(SLICE("YWJjZGVm"), &small), ERR_TOO_LARGE);
    buf_done(&small);
}

static void digests_are_the_published_ones(void **state)
{
    (void)state;
    char hex[SHA256_TEXT + 1];
    unsigned char raw[SHA1_RAW];
    static const unsigned char accept[] = {0xb3, 0x7a, 0x4f, 0x2c, 0xc0, 0x62, 0x4f,
                                           0x16, 0x90, 0xf6, 0x46, 0x06, 0xcf, 0x38,
                                           0x59, 0x45, 0xb2, 0xbe, 0xc4, 0xea};
    sha256_hex(SLICE("abc"), hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    /* RFC 6455 section 1.3 */
    sha1_raw(SLICE("dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11"), raw);
    assert_memory_equal(raw, accept, SHA1_RAW);
}

static void random_bytes_differ_whatever_their_number(void **state)
{
    (void)state;
    static unsigned char seen[600][8];
    for (size_t i = 0; i < ARRAY_LEN(seen); i++) {
        unsigned char skipped[97];
        random_bytes(skipped, i % sizeof(skipped));
        random_bytes(seen[i], sizeof(seen[i]));
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(seen[i], seen[j], sizeof(seen[i]));
    }
}

static void keyed_digests_are_the_published_ones(void **state)
{
    (void)state;
    unsigned char raw[SHA256_RAW];
    char text[BASE64_ROOM(SHA256_RAW)];
    md5_raw(SLICE("abc"), raw); /* RFC 1321 */
    assert_int_equal(base64_encode((struct slice){(char *)raw, MD5_RAW}, text), 24);
    assert_string_equal(text, "kAFQmDzST7DWlj99KOF/cg==");
    hmac_sha1(SLICE("Jefe"), SLICE("what do ya want for nothing?"), raw); /* RFC 2202 */
    (void)base64_encode((struct slice){(char *)raw, SHA1_RAW}, text);
    assert_string_equal(text, "7/zfauXrL6LSdBbV8YTfnCWafHk=");
    /* RFC 4231 */
    hmac_sha256(SLICE("Jefe"), SLICE("what do ya want for nothing?"), raw);
    (void)base64_encode((struct slice){(char *)raw, SHA256_RAW}, text);
    assert_string_equal(text, "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=");
}

static void uuids_are_canonical_and_differ(void **state)
{
    (void)state;
    char a[UUID_TEXT + 1];
    char b[UUID_TEXT + 1];
    uuid_v4(a);
    uuid_v4(b);
    assert_int_equal(strlen(a), UUID_TEXT);
    assert_int_equal(strspn(a, "0123456789abcdef-"), UUID_TEXT);
    assert_int_equal(a[14], '4');
    assert_non_null(strchr("89ab", a[19]));
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_forms_agree_with_nettle),
        cmocka_unit_test(every_six_bits_get_their_letter),
        cmocka_unit_test(decoding_is_strict),
        cmocka_unit_test(digests_are_the_published_ones),
        cmocka_unit_test(random_bytes_differ_whatever_their_number),
        cmocka_unit_test(keyed_digests_are_the_published_ones),
        cmocka_unit_test(uuids_are_canonical_and_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
