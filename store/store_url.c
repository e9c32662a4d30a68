/* scheme:[//[user[:password]@]host[:port]]path[?name=value&…]
 *
 * RFC 3986's shape with less freedom: blanks, control characters and fragments are refused, a '%'
 * must be followed by two hexadecimal digits that are not 00. store_url_param() takes what it finds
 * out of the query; so what is left at the end is what nobody asked for. */
#include "store_url.h"

#include "codec.h"

#include <stdlib.h>

enum { URL_MAX = 4096, PARAM_NAME_MAX = 32 };

/* Of text that url_check_text() has passed. */
static char *url_decode(struct slice s)
{
    char *out = xmalloc(s.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '%') {
            int high = hex_value(s.ptr[i + 1]);
            int low = hex_value(s.ptr[i + 2]);
            ASSERT(high >= 0 && low >= 0);
            out[n++] = (char)(high << 4 | low);
            i += 2;
        } else {
            out[n++] = s.ptr[i];
        }
    }
    out[n] = '\0';
    return out;
}

static char *url_decode_or_null(struct slice s)
{
    return s.len > 0 ? url_decode(s) : NULL;
}

static enum err_code url_check_text(struct slice s, struct err *err)
{
    if (s.len > URL_MAX)
        return err_set(err, ERR_INVALID, "store URL: longer than %d characters", URL_MAX);
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c <= ' ' || c == 0x7f || c == '#')
            return err_set(err, ERR_INVALID,
                           "store URL: blanks, control characters and '#' must be written as %%XX");
        if (c != '%')
            continue;
        int high = i + 2 < s.len ? hex_value(s.ptr[i + 1]) : -1;
        int low = i + 2 < s.len ? hex_value(s.ptr[i + 2]) : -1;
        if (high < 0 || low < 0 || (high == 0 && low == 0))
            return err_set(err, ERR_INVALID, "store URL: '%%' must be followed by two hex digits");
    }
    return ERR_OK;
}

/* Cuts `s` at the first c: the part before is returned, `s` becomes the part behind it. */
static bool slice_cut(struct slice *s, char c, struct slice *ret_before)
{
    const char *at = s->len > 0 ? memchr(s->ptr, c, s->len) : NULL;
    if (at == NULL)
        return false;
    *ret_before = (struct slice){s->ptr, (size_t)(at - s->ptr)};
    *s = (struct slice){at + 1, s->len - ret_before->len - 1};
    return true;
}

static enum err_code url_parse_port(struct slice text, unsigned *ret, struct err *err)
{
    uint64_t port = 0;
    if (text.len == 0)
        return ERR_OK; /* RFC 3986 allows "host:" */
    if (!slice_to_u64(text, 65535, &port) || port == 0)
        return err_set(err, ERR_INVALID, "store URL: the port must be a number from 1 to 65535");
    *ret = (unsigned)port;
    return ERR_OK;
}

static enum err_code url_parse_authority(struct store_url *url, struct slice text, struct err *err)
{
    struct slice user, host;
    if (slice_cut(&text, '@', &user)) {
        struct slice password = user;
        if (slice_cut(&password, ':', &user))
            url->password = url_decode_or_null(password);
        url->user = url_decode_or_null(user);
    }
    if (text.len > 0 && text.ptr[0] == '[') { /* an IPv6 address */
        text.ptr++;
        text.len--;
        if (!slice_cut(&text, ']', &host) || (text.len > 0 && text.ptr[0] != ':'))
            return err_set(err, ERR_INVALID, "store URL: '[' without an address and ']'");
        if (text.len > 0) {
            text.ptr++;
            text.len--;
        }
    } else if (!slice_cut(&text, ':', &host)) {
        host = text;
        text.len = 0;
    }
    url->host = url_decode_or_null(host);
    if (memchr(text.ptr, '@', text.len) != NULL ||
        (host.len > 0 && memchr(host.ptr, '@', host.len)))
        return err_set(err, ERR_INVALID, "store URL: '@' in a password must be written as %%40");
    return url_parse_port(text, &url->port, err);
}

static enum err_code url_parse_scheme(struct store_url *url, struct slice *rest, struct err *err)
{
    struct slice scheme;
    if (!slice_cut(rest, ':', &scheme) || scheme.len == 0)
        return err_set(err, ERR_INVALID, "store URL: no scheme in front of a ':'");
    for (size_t i = 0; i < scheme.len; i++)
        if (scheme.ptr[i] < 'a' || scheme.ptr[i] > 'z')
            return err_set(err, ERR_INVALID, "store URL: a scheme is small letters only");
    url->scheme = url_decode(scheme);
    return ERR_OK;
}

static enum err_code url_parse_parts(struct store_url *url, struct slice rest, struct err *err)
{
    struct slice before;
    if (url_parse_scheme(url, &rest, err) != ERR_OK)
        return ERR_INVALID;
    struct slice query = rest;
    if (slice_cut(&query, '?', &before))
        rest = before;
    else
        query = SLICE_EMPTY;
    url->query.ptr = xstrdup(query.len > 0 ? query.ptr : ""); /* the last part: NUL-terminated */
    url->query.len = query.len;
    if (slice_starts(rest, SLICE("//"))) {
        const char *from = rest.ptr + 2;
        const char *slash = memchr(from, '/', rest.len - 2);
        size_t len = slash != NULL ? (size_t)(slash - from) : rest.len - 2;
        rest = (struct slice){from + len, rest.len - 2 - len};
        if (url_parse_authority(url, (struct slice){from, len}, err) != ERR_OK)
            return ERR_INVALID;
    }
    url->path = url_decode_or_null(rest);
    return ERR_OK;
}

enum err_code store_url_parse(struct store_url *ret, const char *text, struct err *err)
{
    struct store_url url = {.scheme = NULL};
    if (url_check_text(slice_of(text), err) != ERR_OK)
        return ERR_INVALID;
    if (url_parse_parts(&url, slice_of(text), err) != ERR_OK) {
        store_url_done(&url);
        return ERR_INVALID;
    }
    *ret = url;
    return ERR_OK;
}

void store_url_done(struct store_url *url)
{
    free((char *)(uintptr_t)url->scheme);
    free(url->user);
    free(url->password);
    free(url->host);
    free(url->path);
    free((char *)(uintptr_t)url->query.ptr);
}

/* The query is memory of ours, although others only see a slice of it. */
static void query_remove(struct store_url *url, size_t at, size_t len)
{
    char *query = (char *)(uintptr_t)url->query.ptr;
    memmove(query + at, query + at + len, url->query.len - at - len);
    url->query.len -= len;
}

char *store_url_param(struct store_url *url, const char *name)
{
    size_t at = 0;
    while (at < url->query.len) {
        const char *from = url->query.ptr + at;
        const char *end = memchr(from, '&', url->query.len - at);
        size_t len = end != NULL ? (size_t)(end - from) : url->query.len - at;
        struct slice value = {from, len};
        struct slice found;
        if (slice_cut(&value, '=', &found) && slice_is(found, name)) {
            char *ret = url_decode(value);
            query_remove(url, at, end != NULL ? len + 1 : len);
            return ret;
        }
        at += len + 1;
    }
    return NULL;
}

enum err_code store_url_param_uint(struct store_url *url, const char *name, unsigned min,
                                   unsigned max, unsigned *ret, struct err *err)
{
    char *text = store_url_param(url, name);
    uint64_t value = 0;
    if (text == NULL)
        return ERR_OK;
    bool ok = slice_to_u64(slice_of(text), max, &value) && value >= min;
    free(text);
    if (!ok)
        return err_set(err, ERR_INVALID, "store URL: %s must be a number from %u to %u", name, min,
                       max);
    *ret = (unsigned)value;
    return ERR_OK;
}

/* Is this a name that can be shown? A '?' in an unencoded password makes the rest of it a "name".
 */
static bool url_may_name(const struct store_url *url, struct slice name)
{
    if (url->user != NULL || url->password != NULL || url->query.len == 0 ||
        memchr(url->query.ptr, '@', url->query.len) != NULL || name.len > PARAM_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (!((name.ptr[i] >= 'a' && name.ptr[i] <= 'z') || name.ptr[i] == '_'))
            return false;
    return name.len > 0;
}

enum err_code store_url_check_rest(const struct store_url *url, struct err *err)
{
    struct slice rest = url->query;
    struct slice name;
    if (rest.len == 0)
        return ERR_OK;
    if (slice_cut(&rest, '=', &name) && url_may_name(url, name))
        return err_set(err, ERR_INVALID,
                       "store URL: parameter %.*s is unknown here, or was given twice",
                       SLICE_ARGS(name));
    return err_set(err, ERR_INVALID, "store URL: a parameter is unknown, or was given twice");
}
