/* The hash of tables and comparisons, whose input strangers choose. */
#include "base.h"
#include "unit.h"

#include <string.h>

enum { SYMBOLS = 64, NAMES = SYMBOLS * SYMBOLS, SLOTS = 2 * NAMES };

/* So many names that differ in two neighbouring bytes: how many slots do they take? */
static unsigned slots_taken(size_t len, size_t differ_at, uint64_t seed)
{
    static bool taken[SLOTS];
    char name[32];
    unsigned count = 0;
    assert_true(differ_at + 2 <= len && len <= sizeof(name));
    memset(taken, 0, sizeof(taken));
    memset(name, 'a', sizeof(name));
    for (unsigned i = 0; i < NAMES; i++) {
        name[differ_at] = (char)(' ' + i / SYMBOLS);
        name[differ_at + 1] = (char)(' ' + i % SYMBOLS);
        uint64_t slot = hash_bytes(seed, name, len) % SLOTS;
        count += !taken[slot];
        taken[slot] = true;
    }
    return count;
}

/* By chance it would be SLOTS × (1 − 1/√e), 3,223 of 8,192. */
static void names_that_are_much_alike_are_spread(void **state)
{
    (void)state;
    for (size_t len = 2; len <= 24; len++)
        for (size_t at = 0; at + 2 <= len; at++)
            for (uint64_t seed = 0; seed < 3; seed++)
                assert_in_range(slots_taken(len, at, seed * 0x123456789abcdefu), 3000, NAMES);
}

/* Also where the same bits of neighbouring words change, and with zeros at the end. */
static void no_two_bits_cancel_each_other(void **state)
{
    (void)state;
    unsigned char bytes[16];
    for (unsigned bit = 0; bit < 64; bit++) {
        memset(bytes, 0, sizeof(bytes));
        uint64_t none = hash_bytes(7, bytes, sizeof(bytes));
        bytes[bit / 8] = (unsigned char)(1u << bit % 8);
        uint64_t first = hash_bytes(7, bytes, sizeof(bytes));
        bytes[8 + bit / 8] = bytes[bit / 8];
        uint64_t both = hash_bytes(7, bytes, sizeof(bytes));
        assert_true(none != first && first != both && both != none);
    }
    for (size_t len = 1; len <= sizeof(bytes); len++)
        assert_true(hash_bytes(7, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", len) !=
                    hash_bytes(7, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", len - 1));
    assert_true(hash_bytes(1, "name", 4) != hash_bytes(2, "name", 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_that_are_much_alike_are_spread),
        cmocka_unit_test(no_two_bits_cancel_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
