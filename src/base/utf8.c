/* Texts that come in pieces. What a character is says utf8_char_len() in buf.c. */
#include "utf8.h"

size_t utf8_span(struct slice s)
{
    const uint64_t high_bits = 0x8080808080808080u;
    size_t at = 0;
    while (at < s.len) {
        uint64_t eight;
        if (s.len - at >= sizeof(eight)) { /* most texts are ASCII from end to end */
            memcpy(&eight, s.ptr + at, sizeof(eight));
            if ((eight & high_bits) == 0) {
                at += sizeof(eight);
                continue;
            }
        }
        size_t len = (unsigned char)s.ptr[at] < 0x80 ? 1 : utf8_char_len(s.ptr + at, s.len - at);
        if (len == 0)
            break;
        at += len;
    }
    return at;
}

/* If any bytes would do, the lowest or the highest do. */
bool utf8_is_begun(struct slice s)
{
    char low[] = "\x80\x80\x80\x80", high[] = "\xbf\xbf\xbf\xbf";
    if (s.len > 3)
        return false;
    memcpy(low, s.ptr, s.len);
    memcpy(high, s.ptr, s.len);
    return utf8_char_len(low, 4) > s.len || utf8_char_len(high, 4) > s.len;
}
