/* How strings are spelled, and what their spelling stands for: what checker and walkers share. Only
 * json_*.c include this; others ask json_scan.h. All but json_hex_unit() is for text that has been
 * checked. */
#ifndef JSON_STRING_H
#define JSON_STRING_H

#include "json_scan.h"

/* Four hex digits at s, which must be there; -1 if they are not hex. */
int json_hex_unit(const char *s);
/* One character: the bytes it stands for go to out (at most 4), how many to *ret_len; the end of
 * its spelling is returned. */
const char *json_next_char(const char *at, const char *end, char *out, size_t *ret_len);
/* Do both, inside their quotes, say the same? */
bool json_spelled_equal(struct slice a, struct slice b);

static inline bool json_has_escape(struct slice s)
{
    return memchr(s.ptr, '\\', s.len) != NULL;
}

/* Of a token with its quotes: false nearly always, and so nothing else needs to be looked at. */
static inline bool json_may_be(struct slice token, const char *text)
{
    return token.ptr[1] == text[0] || token.ptr[1] == '\\' || text[0] == '\0';
}

/* For json_pick() and json_pick_flat(): if the member's key is one of these, it is its value. */
static inline void json_pick_member(struct slice key, struct slice value, const char *const *keys,
                                    struct slice *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (json_may_be(key, keys[i]) && json_string_is(key, keys[i]))
            values[i] = value;
}

#endif
