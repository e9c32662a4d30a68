/* libcurl takes the text apart; what it says is compared with what is written. */
#include "url.h"

#include <ctype.h>
#include <stdlib.h>

#include <curl/curl.h>

enum { URL_FLAGS = CURLU_DISALLOW_USER | CURLU_URLENCODE | CURLU_ALLOW_SPACE };

static bool starts_nocase(struct slice text, const char *with)
{
    size_t len = strlen(with);
    return text.len >= len && slice_eq_nocase((struct slice){text.ptr, len}, slice_of(with));
}

/* A backslash is a slash to browsers only. */
static bool url_bytes_ok(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c < 0x20 || c == 0x7f || c == '\\')
            return false;
    }
    return true;
}

/* The host as it is written, brackets included. */
static struct slice url_written_host(struct slice text)
{
    const char *start = (const char *)memmem(text.ptr, text.len, "://", 3) + 3;
    struct slice rest = {start, text.len - (size_t)(start - text.ptr)};
    size_t len = 0;
    const char *ends = rest.len > 0 && rest.ptr[0] == '[' ? "]/?#" : ":/?#";
    while (len < rest.len && strchr(ends, rest.ptr[len]) == NULL)
        len++;
    if (len < rest.len && rest.ptr[len] == ']')
        len++;
    return (struct slice){rest.ptr, len};
}

static enum err_code host_take(struct slice written, const char *read, struct url *ret,
                               struct err *err)
{
    struct slice host = slice_of(read);
    struct address a, b;
    bool bracketed = host.len > 1 && host.ptr[0] == '[';
    if (bracketed) {
        host = (struct slice){host.ptr + 1, host.len - 2};
        written = written.len > 1 ? (struct slice){written.ptr + 1, written.len - 2} : written;
        if (!address_parse(host, &a) || !address_parse(written, &b) || !address_equal(&a, &b))
            return err_set(err, ERR_INVALID, "the URL's IPv6 address is not valid");
    } else if (address_looks_numeric(written) && !address_parse(written, &a)) {
        return err_set(err, ERR_INVALID, "the URL's address is written in an unusual way");
    } else if (!slice_eq_nocase(host, written) ||
               !(address_is_name(host) || address_parse(host, &a))) {
        return err_set(err, ERR_INVALID, "the URL's host is neither a name nor an address");
    }
    ASSERT(host.len < sizeof(ret->host)); /* both kinds are shorter */
    for (size_t i = 0; i < host.len; i++)
        ret->host[i] = (char)tolower((unsigned char)host.ptr[i]);
    ret->host[host.len] = '\0';
    return ERR_OK;
}

/* Freed with curl_free(); NULL if there is no such part. */
static char *url_part(CURLU *parts, CURLUPart what, unsigned flags)
{
    char *ret = NULL;
    return curl_url_get(parts, what, &ret, flags) == CURLUE_OK ? ret : NULL;
}

static enum err_code url_take(CURLU *parts, struct slice text, struct url *ret, struct err *err)
{
    char *host = url_part(parts, CURLUPART_HOST, 0);
    char *port = url_part(parts, CURLUPART_PORT, CURLU_DEFAULT_PORT);
    (void)curl_url_set(parts, CURLUPART_FRAGMENT, NULL, 0);
    char *whole = url_part(parts, CURLUPART_URL, 0);
    uint64_t number = 0;
    enum err_code code;
    if (host == NULL || whole == NULL)
        code = err_set(err, ERR_INVALID, "the URL has no usable host");
    else if (port == NULL || !slice_to_u64(slice_of(port), UINT16_MAX, &number) || number == 0)
        code = err_set(err, ERR_INVALID, "the URL's port is not valid");
    else if ((code = host_take(url_written_host(text), host, ret, err)) == ERR_OK) {
        ret->text = xstrdup(whole);
        ret->port = (unsigned)number;
        ret->is_tls = starts_nocase(slice_of(whole), "https:");
    }
    curl_free(host);
    curl_free(port);
    curl_free(whole);
    return code;
}

enum err_code url_parse(struct slice text, struct url *ret, struct err *err)
{
    char copy[URL_TEXT_MAX + 1];
    if (text.len > URL_TEXT_MAX)
        return err_set(err, ERR_INVALID, "the URL is longer than %d bytes", URL_TEXT_MAX);
    if (!starts_nocase(text, "http://") && !starts_nocase(text, "https://"))
        return err_set(err, ERR_INVALID, "the URL is not one of http:// or https://");
    if (!url_bytes_ok(text))
        return err_set(err, ERR_INVALID, "the URL has a character that must be escaped");
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    CURLU *parts = curl_url();
    ASSERT(parts != NULL);
    CURLUcode curl_code = curl_url_set(parts, CURLUPART_URL, copy, URL_FLAGS);
    enum err_code code;
    struct url url = {.text = NULL};
    if (curl_code == CURLUE_USER_NOT_ALLOWED)
        code = err_set(err, ERR_INVALID, "the URL has a user name or password in it");
    else if (curl_code != CURLUE_OK)
        code = err_set(err, ERR_INVALID, "the URL is not valid: %s", curl_url_strerror(curl_code));
    else
        code = url_take(parts, text, &url, err);
    curl_url_cleanup(parts);
    if (code == ERR_OK)
        *ret = url;
    return code;
}

/* "scheme:" in front, as RFC 3986 has it. */
static bool reference_has_scheme(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        if (c == ':')
            return i > 0;
        if (!letter && (i == 0 || strchr("0123456789+-.", c) == NULL || c == '\0'))
            return false;
    }
    return false;
}

/* A path: libcurl joins it to where we are. */
static enum err_code url_join(const struct url *from, const char *reference, struct url *ret,
                              struct err *err)
{
    enum err_code code = ERR_INVALID;
    char *whole = NULL;
    CURLU *parts = curl_url();
    ASSERT(parts != NULL);
    if (curl_url_set(parts, CURLUPART_URL, from->text, URL_FLAGS) == CURLUE_OK &&
        curl_url_set(parts, CURLUPART_URL, reference, URL_FLAGS) == CURLUE_OK)
        whole = url_part(parts, CURLUPART_URL, 0);
    if (whole != NULL)
        code = url_parse(slice_of(whole), ret, err);
    else
        (void)err_set(err, ERR_INVALID, "the redirect's target is not valid");
    curl_free(whole);
    curl_url_cleanup(parts);
    return code;
}

enum err_code url_follow(const struct url *from, struct slice reference, struct url *ret,
                         struct err *err)
{
    struct buf text;
    enum err_code code;
    if (reference_has_scheme(reference))
        return url_parse(reference, ret, err);
    if (reference.len > URL_TEXT_MAX || !url_bytes_ok(reference))
        return err_set(err, ERR_INVALID, "the redirect's target is not valid");
    buf_init(&text, SIZE_MAX);
    if (slice_starts(reference, SLICE("//"))) {
        buf_adds(&text, from->is_tls ? "https:" : "http:");
        buf_add(&text, reference);
        code = url_parse(buf_slice(&text), ret, err);
    } else {
        buf_add(&text, reference);
        code = url_join(from, text.ptr != NULL ? text.ptr : "", ret, err);
    }
    buf_done(&text);
    return code;
}

void url_done(struct url *u)
{
    free(u->text);
    u->text = NULL;
}

bool url_same_origin(const struct url *a, const struct url *b)
{
    return a->is_tls == b->is_tls && a->port == b->port && strcmp(a->host, b->host) == 0;
}
