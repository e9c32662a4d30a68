/* Eight bytes at a time, in one word. A well-known trick: a byte borrows from the one above it when
 * what is taken away is more than itself. */
#ifndef EIGHT_H
#define EIGHT_H

#include <stdint.h>
#include <string.h>

/* The first byte is the lowest. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "little-endian, as amd64 and arm64");

#define EIGHT_OF(byte) (0x0101010101010101u * (uint64_t)(byte))

static inline uint64_t eight_load(const char *at)
{
    uint64_t bytes;
    memcpy(&bytes, at, sizeof(bytes));
    return bytes;
}

/* The high bit of each byte with a value below n, which is at most 128; above the first of them
 * others may be set, too. */
static inline uint64_t eight_below(uint64_t bytes, unsigned n)
{
    return (bytes - EIGHT_OF(n)) & ~bytes & EIGHT_OF(0x80);
}

/* The same of each byte with this value. */
static inline uint64_t eight_equal(uint64_t bytes, unsigned char value)
{
    return eight_below(bytes ^ EIGHT_OF(value), 1);
}

/* Where the first one is, 0..7. */
static inline unsigned eight_first(uint64_t high_bits)
{
    return (unsigned)__builtin_ctzll(high_bits) / 8;
}

#endif
