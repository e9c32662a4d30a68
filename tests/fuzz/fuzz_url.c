/* URLs that we are asked to fetch, and redirects: what is read names one host, whoever reads it,
 * and is read again as the same. The first line is a URL, the second where it leads. */
#include "url.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What stands between "//" and the next '/', '?' or '#', as the plainest of readers sees it. */
static struct slice authority_of(struct slice text)
{
    const char *from = memmem(text.ptr, text.len, "//", 2);
    ASSERT(from != NULL);
    struct slice rest = {from + 2, text.len - (size_t)(from + 2 - text.ptr)};
    size_t len = 0;
    while (len < rest.len && strchr("/?#", rest.ptr[len]) == NULL)
        len++;
    return (struct slice){rest.ptr, len};
}

/* host, host:port, [v6], [v6]:port, and nothing else that anybody could take for a host. */
static void check_authority(const struct url *u, struct slice text)
{
    struct slice all = authority_of(text);
    struct slice host = all;
    bool is_v6 = all.len > 0 && all.ptr[0] == '[';
    const char *end = memchr(all.ptr, is_v6 ? ']' : ':', all.len);
    uint64_t port = u->is_tls ? 443 : 80;
    if (end != NULL)
        host.len = (size_t)(end - all.ptr);
    if (is_v6)
        host = (struct slice){host.ptr + 1, host.len - 1};
    struct slice rest = {host.ptr + host.len, all.len - (size_t)(host.ptr + host.len - all.ptr)};
    if (is_v6)
        rest = (struct slice){rest.ptr + 1, rest.len - 1};
    if (rest.len > 0) {
        ASSERT(rest.ptr[0] == ':');
        rest = (struct slice){rest.ptr + 1, rest.len - 1};
        ASSERT(rest.len == 0 || slice_to_u64(rest, UINT16_MAX, &port));
    }
    struct address a, b;
    bool is_address = address_parse(slice_of(u->host), &a);
    ASSERT(port == u->port && is_v6 == (strchr(u->host, ':') != NULL));
    ASSERT(is_address || address_is_name(slice_of(u->host)));
    if (is_v6)
        ASSERT(is_address && address_parse(host, &b) && address_equal(&a, &b));
    else
        ASSERT(slice_eq_nocase(host, slice_of(u->host)));
}

/* Nothing is in it that has to be escaped in a request line or a header. */
static void check_text(const char *text)
{
    for (; *text != '\0'; text++)
        ASSERT((unsigned char)*text > ' ' && (unsigned char)*text < 0x7f && *text != '\\' &&
               *text != '#');
}

static void check_again(const struct url *u)
{
    struct url again;
    ASSERT(url_parse(slice_of(u->text), &again, NULL) == ERR_OK);
    ASSERT(url_same_origin(u, &again) && strcmp(u->text, again.text) == 0);
    url_done(&again);
}

static void check_url(const struct url *u)
{
    check_text(u->text);
    check_authority(u, slice_of(u->text));
    check_again(u);
}

static void check_follow(const struct url *from, struct slice reference)
{
    struct url to;
    if (url_follow(from, reference, &to, NULL) != ERR_OK)
        return;
    check_url(&to);
    /* Only what names a host leads to another. */
    if (memmem(reference.ptr, reference.len, "//", 2) == NULL)
        ASSERT(url_same_origin(from, &to));
    url_done(&to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = {size > 0 ? (const char *)data : "", size};
    struct slice reference = SLICE_EMPTY;
    struct url u;
    struct err err;
    const char *end = memchr(text.ptr, '\n', text.len);
    if (end != NULL) {
        reference = (struct slice){end + 1, text.len - (size_t)(end + 1 - text.ptr)};
        text.len = (size_t)(end - text.ptr);
    }
    if (url_parse(text, &u, &err) != ERR_OK) {
        ASSERT(err.code == ERR_INVALID && err.msg[0] != '\0');
        return 0;
    }
    check_authority(&u, text);
    check_url(&u);
    check_follow(&u, reference);
    url_done(&u);
    return 0;
}
