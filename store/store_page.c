/* Places in a list, as callers take them from one page to the next: "<16 hex of a stamp>:<key>".
 * They come back through hands that may have changed them. */
#include "store.h"

#include <stdio.h>

enum { STAMP_HEX = 16 };

void store_page_cursor(const struct store_page *page, unsigned i, char ret[STORE_KEY_MAX + 1])
{
    ASSERT(i < page->count);
    int len = snprintf(ret, STORE_KEY_MAX + 1, "%016llx:%s", (unsigned long long)page->stamps[i],
                       page->keys[i]);
    ASSERT(len <= STORE_KEY_MAX); /* a key that ends in "~task" is that much shorter */
}

bool store_cursor_read(const char *cursor, uint64_t *ret_stamp, const char **ret_key)
{
    static const char digits[] = "0123456789abcdef";
    uint64_t stamp = 0;
    for (unsigned i = 0; i < STAMP_HEX; i++) {
        const char *digit = cursor[i] != '\0' ? strchr(digits, cursor[i]) : NULL;
        if (digit == NULL)
            return false;
        stamp = stamp << 4 | (uint64_t)(digit - digits);
    }
    if (cursor[STAMP_HEX] != ':' || !store_key_ok(slice_of(cursor + STAMP_HEX + 1)))
        return false;
    *ret_stamp = stamp;
    *ret_key = cursor + STAMP_HEX + 1;
    return true;
}
