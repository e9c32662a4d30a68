/* What may be a key: the rule of store.h, in one place, so that nobody has to clean anything. */
#include "store.h"

enum { ID_MAX = 128 };

static bool is_lower_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_id_char(char c)
{
    return is_lower_or_digit(c) || (c >= 'A' && c <= 'Z') || c == '_' || c == '.' || c == '-';
}

bool store_id_ok(struct slice id)
{
    if (id.len == 0 || id.len > ID_MAX || id.ptr[0] == '.' || id.ptr[0] == '-')
        return false;
    for (size_t i = 0; i < id.len; i++)
        if (!is_id_char(id.ptr[i]) || (id.ptr[i] == '.' && i > 0 && id.ptr[i - 1] == '.'))
            return false;
    /* The names under which the file store writes. */
    return id.len < 4 || memcmp(id.ptr + id.len - 4, ".tmp", 4) != 0;
}

bool store_key_ok(struct slice key)
{
    const char *tilde = key.len > 0 ? memchr(key.ptr, '~', key.len) : NULL;
    if (tilde == NULL)
        return store_id_ok(key);
    size_t id_len = (size_t)(tilde - key.ptr);
    if (key.len > STORE_KEY_MAX || id_len + 1 == key.len)
        return false;
    for (size_t i = id_len + 1; i < key.len; i++)
        if (!is_lower_or_digit(key.ptr[i]) && key.ptr[i] != '.')
            return false;
    return store_id_ok((struct slice){key.ptr, id_len});
}
