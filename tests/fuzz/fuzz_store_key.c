/* Which keys are taken, against the rule written a second time as a table of states: a key that
 * passes is a file's name, part of a Redis key, a column's value. */
#include "store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum state { START, IN_ID, AFTER_DOT, AFTER_TILDE, IN_SUFFIX, BAD };
enum kind { LOWER, UPPER, DASH, DOT, TILDE, OTHER };

static enum kind kind_of(uint8_t c)
{
    static const char upper[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ_";
    static const char lower[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    if (c == '-')
        return DASH;
    if (c == '.')
        return DOT;
    if (c == '~')
        return TILDE;
    if (memchr(lower, c, sizeof(lower) - 1) != NULL)
        return LOWER;
    return memchr(upper, c, sizeof(upper) - 1) != NULL ? UPPER : OTHER;
}

static const enum state next[BAD][OTHER] = {
    [START] = {IN_ID, IN_ID, BAD, BAD, BAD},
    [IN_ID] = {IN_ID, IN_ID, IN_ID, AFTER_DOT, AFTER_TILDE},
    [AFTER_DOT] = {IN_ID, IN_ID, IN_ID, BAD, AFTER_TILDE},
    [AFTER_TILDE] = {IN_SUFFIX, BAD, BAD, IN_SUFFIX, BAD},
    [IN_SUFFIX] = {IN_SUFFIX, BAD, BAD, IN_SUFFIX, BAD},
};

static enum state walk(const uint8_t *data, size_t size, size_t *ret_id_len)
{
    enum state state = START;
    *ret_id_len = size;
    for (size_t i = 0; i < size && state != BAD; i++) {
        enum kind kind = kind_of(data[i]);
        if (kind == TILDE && *ret_id_len == size)
            *ret_id_len = i;
        state = kind == OTHER ? BAD : next[state][kind];
    }
    return state;
}

static bool names_a_tmp(const uint8_t *data, size_t id_len)
{
    static const char tmp[] = {'.', 't', 'm', 'p'};
    return id_len >= sizeof(tmp) && memcmp(data + id_len - sizeof(tmp), tmp, sizeof(tmp)) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice s = {size > 0 ? (const char *)data : "", size};
    size_t id_len;
    enum state end = walk(data, size, &id_len);
    bool lengths = id_len <= 128 && size <= STORE_KEY_MAX;
    bool good = lengths && !names_a_tmp(data, id_len);
    bool is_id = good && (end == IN_ID || end == AFTER_DOT) && id_len == size;
    bool is_key = is_id || (good && end == IN_SUFFIX);
    ASSERT(store_id_ok(s) == is_id);
    ASSERT(store_key_ok(s) == is_key);
    return 0;
}
