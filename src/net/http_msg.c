/* Header lists, request targets and queries: see http_msg.h. The tables of media types and reasons
 * are at the end. */
#include "http_msg.h"

#include "codec.h"
#include "eight.h"

#include <stdlib.h>

enum { HEADERS_USUAL = 500 }; /* bytes of names and values */

static const char hex_upper[] = "0123456789ABCDEF";

/* --- header lists ---------------------------------------------------------------------------- */

static bool is_among(const uint64_t ascii[2], char c)
{
    unsigned char u = (unsigned char)c;
    return u < 128 && (ascii[u / 64] >> (u % 64) & 1) != 0;
}

/* Letters, digits and !#$%&'*+-.^_`|~ as bits: RFC 9110, 5.6.2. */
bool http_is_token_char(char c)
{
    static const uint64_t tokens[] = {0x03ff6cfa00000000u, 0x57ffffffc7fffffeu};
    return is_among(tokens, c);
}

/* All that can be seen but "#,/<>?@\^`{|} as bits: RFC 3986, 3.2.2 and 3.2.3. */
bool http_is_host_char(char c)
{
    static const uint64_t hosts[] = {0x2fff6ff200000000u, 0x47fffffeaffffffeu};
    return is_among(hosts, c);
}

size_t http_token_span(struct slice s)
{
    size_t at = 0;
    while (at < s.len && http_is_token_char(s.ptr[at]))
        at++;
    return at;
}

bool http_is_value_char(char c)
{
    unsigned char u = (unsigned char)c;
    return (u >= ' ' && u != 0x7f) || u == '\t';
}

size_t http_value_span(struct slice s)
{
    size_t at = 0;
    for (; s.len - at >= 8; at += 8) {
        uint64_t bytes = eight_load(s.ptr + at);
        if ((eight_below(bytes, ' ') | eight_equal(bytes, 0x7f)) != 0)
            break;
    }
    while (at < s.len && http_is_value_char(s.ptr[at]))
        at++;
    return at;
}

void http_headers_init(struct http_headers *h)
{
    h->count = 0;
    h->cap = HTTP_HEADERS_FEW;
    h->name_lens = 0;
    h->more = NULL;
    buf_init(&h->text, HTTP_HEAD_MAX);
}

void http_headers_done(struct http_headers *h)
{
    buf_done(&h->text);
    free(h->more);
    http_headers_init(h);
}

void http_headers_reset(struct http_headers *h)
{
    buf_reset(&h->text);
    h->count = 0;
    h->name_lens = 0;
}

static const struct http_field *headers_fields(const struct http_headers *h)
{
    return h->more != NULL ? h->more : h->few;
}

static uint32_t len_bit(size_t name_len)
{
    return (uint32_t)1 << name_len % 32;
}

static void headers_grow(struct http_headers *h)
{
    bool had_few = h->more == NULL;
    h->cap *= 2;
    h->more = xrealloc(h->more, h->cap * sizeof(*h->more));
    if (had_few)
        memcpy(h->more, h->few, sizeof(h->few));
}

static enum err_code headers_append(struct http_headers *h, struct slice name, struct slice value)
{
    if (h->text.cap == 0)
        buf_expect(&h->text, HEADERS_USUAL);
    if (h->count == HTTP_HEADERS_MAX || name.len > HTTP_HEAD_MAX || value.len > HTTP_HEAD_MAX ||
        buf_reserve(&h->text, name.len + value.len) != ERR_OK)
        return ERR_TOO_LARGE;
    if (h->count == h->cap)
        headers_grow(h);
    struct http_field *fields = h->more != NULL ? h->more : h->few;
    fields[h->count++] = (struct http_field){
        .name_at = (uint32_t)h->text.len,
        .name_len = (uint32_t)name.len,
        .value_at = (uint32_t)(h->text.len + name.len),
        .value_len = (uint32_t)value.len,
    };
    buf_add(&h->text, name);
    buf_add(&h->text, value);
    h->name_lens |= len_bit(name.len);
    return ERR_OK;
}

enum err_code http_headers_add(struct http_headers *h, struct slice name, struct slice value)
{
    value = slice_trim(value);
    if (name.len == 0 || http_token_span(name) < name.len || http_value_span(value) < value.len)
        return ERR_INVALID;
    return headers_append(h, name, value);
}

enum err_code http_headers_add_known(struct http_headers *h, struct slice name, struct slice value)
{
    return headers_append(h, name, slice_trim(value));
}

enum err_code http_headers_copy(struct http_headers *to, const struct http_headers *from,
                                unsigned i)
{
    ASSERT(to != from);
    return headers_append(to, http_headers_name(from, i), http_headers_value(from, i));
}

void http_headers_drop(struct http_headers *h, bool (*drops)(struct slice name, const void *ctx),
                       const void *ctx)
{
    struct http_field *fields = h->more != NULL ? h->more : h->few;
    unsigned kept = 0;
    for (unsigned i = 0; i < h->count; i++)
        if (!drops(http_headers_name(h, i), ctx))
            fields[kept++] = fields[i];
    h->count = kept;
}

struct slice http_headers_name(const struct http_headers *h, unsigned i)
{
    ASSERT(i < h->count);
    const struct http_field *field = &headers_fields(h)[i];
    return (struct slice){h->text.ptr + field->name_at, field->name_len};
}

struct slice http_headers_value(const struct http_headers *h, unsigned i)
{
    ASSERT(i < h->count);
    const struct http_field *field = &headers_fields(h)[i];
    return (struct slice){h->text.ptr + field->value_at, field->value_len};
}

unsigned http_headers_find(const struct http_headers *h, struct slice name, unsigned from)
{
    const struct http_field *fields = headers_fields(h);
    if ((h->name_lens & len_bit(name.len)) == 0)
        return h->count;
    while (from < h->count &&
           (fields[from].name_len != name.len ||
            !bytes_eq_nocase(h->text.ptr + fields[from].name_at, name.ptr, name.len)))
        from++;
    return from;
}

void http_headers_write_one(const struct http_headers *h, unsigned i, struct buf *out)
{
    buf_add(out, http_headers_name(h, i));
    buf_add(out, SLICE(": "));
    buf_add(out, http_headers_value(h, i));
    buf_add(out, SLICE("\r\n"));
}

void http_headers_write(const struct http_headers *h, struct buf *out)
{
    for (unsigned i = 0; i < h->count; i++)
        http_headers_write_one(h, i, out);
}

unsigned http_headers_count(const struct http_headers *h, const char *name, struct slice *ret_first)
{
    struct slice wanted = slice_of(name);
    unsigned n = 0;
    for (unsigned i = http_headers_find(h, wanted, 0); i < h->count;
         i = http_headers_find(h, wanted, i + 1))
        if (n++ == 0)
            *ret_first = http_headers_value(h, i);
    return n;
}

bool http_name_is_among(struct slice name, const struct slice *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (slice_eq_nocase(name, names[i]))
            return true;
    return false;
}

bool http_list_has(struct slice list, struct slice token)
{
    while (list.len > 0) {
        const char *comma = memchr(list.ptr, ',', list.len);
        size_t len = comma != NULL ? (size_t)(comma - list.ptr) : list.len;
        if (slice_eq_nocase(slice_trim((struct slice){list.ptr, len}), token))
            return true;
        size_t skip = comma != NULL ? len + 1 : len;
        list = (struct slice){list.ptr + skip, list.len - skip};
    }
    return false;
}

bool http_headers_has_token(const struct http_headers *h, const char *name, const char *token)
{
    struct slice wanted = slice_of(name);
    for (unsigned i = http_headers_find(h, wanted, 0); i < h->count;
         i = http_headers_find(h, wanted, i + 1))
        if (http_list_has(http_headers_value(h, i), slice_of(token)))
            return true;
    return false;
}

struct http_list http_list_begin(const struct http_headers *h, const char *name)
{
    return (struct http_list){.headers = h, .name = name, .rest = SLICE_EMPTY};
}

bool http_list_next(struct http_list *l, struct slice *ret)
{
    for (;;) {
        while (l->rest.len > 0) {
            *ret = slice_next(&l->rest, ',');
            if (ret->len > 0)
                return true;
        }
        unsigned i = http_headers_find(l->headers, slice_of(l->name), l->next);
        if (i == l->headers->count)
            return false;
        l->rest = http_headers_value(l->headers, i);
        l->next = i + 1;
    }
}

/* --- targets --------------------------------------------------------------------------------- */

/* "http://host/path" → "/path", "http://host?x" → "?x". False: no absolute form. */
static bool strip_authority(struct slice *target)
{
    static const struct slice schemes[] = {{"http://", 7}, {"https://", 8}};
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        struct slice scheme = schemes[i];
        if (target->len <= scheme.len ||
            !slice_eq_nocase((struct slice){target->ptr, scheme.len}, scheme))
            continue;
        struct slice rest = {target->ptr + scheme.len, target->len - scheme.len};
        size_t host_len = 0;
        while (host_len < rest.len && rest.ptr[host_len] != '/' && rest.ptr[host_len] != '?')
            host_len++;
        *target = (struct slice){rest.ptr + host_len, rest.len - host_len};
        return host_len > 0;
    }
    return false;
}

enum err_code http_target_split(struct slice target, struct http_target *ret)
{
    /* What a target may not hold unescaped would be read differently by whoever sits behind us. */
    for (size_t i = 0; i < target.len; i++) {
        unsigned char u = (unsigned char)target.ptr[i];
        if (u <= ' ' || u >= 0x7f || u == '#')
            return ERR_INVALID;
    }
    if (slice_is(target, "*")) {
        *ret = (struct http_target){target, SLICE_EMPTY};
        return ERR_OK;
    }
    if (target.len == 0 || (target.ptr[0] != '/' && !strip_authority(&target)))
        return ERR_INVALID;
    const char *mark = target.len > 0 ? memchr(target.ptr, '?', target.len) : NULL;
    size_t path_len = mark != NULL ? (size_t)(mark - target.ptr) : target.len;
    ret->path = path_len > 0 ? (struct slice){target.ptr, path_len} : SLICE("/");
    ret->query = mark != NULL ? (struct slice){mark + 1, target.len - path_len - 1} : SLICE_EMPTY;
    return ERR_OK;
}

static enum err_code decode(struct slice text, bool plus_is_space, struct buf *out)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '+' && plus_is_space)
            c = ' ';
        if (c == '%') {
            int high = i + 1 < text.len ? hex_value(text.ptr[i + 1]) : -1;
            int low = i + 2 < text.len ? hex_value(text.ptr[i + 2]) : -1;
            if (high < 0 || low < 0)
                return ERR_INVALID;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (c == '\0')
            return ERR_INVALID;
        enum err_code code = buf_append(out, (struct slice){&c, 1});
        if (code != ERR_OK)
            return code;
    }
    return ERR_OK;
}

static enum err_code query_decode(struct slice text, struct buf *out)
{
    return decode(text, true, out);
}

enum err_code http_percent_decode(struct slice text, struct buf *out)
{
    return decode(text, false, out);
}

/* Is the still encoded text the key? A key of which no decoding fits simply is another one. */
static bool query_key_is(struct slice encoded, const char *key)
{
    struct buf name;
    buf_init(&name, strlen(key));
    bool same = query_decode(encoded, &name) == ERR_OK && slice_is(buf_slice(&name), key);
    buf_done(&name);
    return same;
}

/* Takes the first pair of a query that is not empty, and its two halves. */
static struct slice query_next(struct slice *query, struct slice *ret_name, struct slice *ret_value)
{
    const char *end = memchr(query->ptr, '&', query->len);
    struct slice pair = {query->ptr, end != NULL ? (size_t)(end - query->ptr) : query->len};
    const char *equals = memchr(pair.ptr, '=', pair.len);
    size_t name_len = equals != NULL ? (size_t)(equals - pair.ptr) : pair.len;
    size_t value_at = equals != NULL ? name_len + 1 : pair.len;
    size_t used = end != NULL ? pair.len + 1 : pair.len;
    *ret_name = (struct slice){pair.ptr, name_len};
    *ret_value = (struct slice){pair.ptr + value_at, pair.len - value_at};
    *query = (struct slice){query->ptr + used, query->len - used};
    return pair;
}

enum err_code http_query_get(struct slice query, const char *key, struct buf *out)
{
    struct slice name, value;
    while (query.len > 0) {
        (void)query_next(&query, &name, &value);
        if (query_key_is(name, key))
            return query_decode(value, out);
    }
    return ERR_NOT_FOUND;
}

void http_query_without(struct slice query, const char *key, struct buf *out)
{
    const char *separator = "";
    struct slice name, value;
    while (query.len > 0) {
        struct slice pair = query_next(&query, &name, &value);
        if (query_key_is(name, key))
            continue;
        buf_adds(out, separator);
        buf_add(out, pair);
        separator = "&";
    }
}

void http_percent_encode(struct buf *out, struct slice bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        char c = bytes.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (letter || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~') {
            buf_add(out, (struct slice){&c, 1});
            continue;
        }
        unsigned char u = (unsigned char)c;
        char escaped[3] = {'%', hex_upper[u >> 4], hex_upper[u & 15]};
        buf_add(out, (struct slice){escaped, sizeof(escaped)});
    }
}

/* --- ranges ---------------------------------------------------------------------------------- */

enum http_range http_range_read(struct slice value, uint64_t size, uint64_t *ret_from,
                                uint64_t *ret_to)
{
    static const char unit[] = "bytes=";
    struct slice range = slice_trim(value);
    uint64_t from = 0;
    uint64_t to = 0;
    if (!slice_starts(range, slice_of(unit)) || memchr(range.ptr, ',', range.len) != NULL ||
        memchr(range.ptr, '-', range.len) == NULL)
        return HTTP_RANGE_WHOLE;
    range = (struct slice){range.ptr + strlen(unit), range.len - strlen(unit)};
    struct slice first = slice_next(&range, '-');
    struct slice last = slice_trim(range);
    bool has_from = slice_to_u64(first, INT64_MAX, &from);
    bool has_to = slice_to_u64(last, INT64_MAX, &to);
    if ((first.len > 0 && !has_from) || (last.len > 0 && !has_to) || (!has_from && !has_to) ||
        (has_from && has_to && to < from))
        return HTTP_RANGE_WHOLE;
    if (!has_from) {
        from = to < size ? size - to : 0;
        to = size;
    } else {
        to = has_to && to < size ? to + 1 : size;
    }
    if (from >= to)
        return HTTP_RANGE_BEHIND;
    *ret_from = from;
    *ret_to = to;
    return HTTP_RANGE_PART;
}

/* --- tables ---------------------------------------------------------------------------------- */

const char *http_media_type(struct slice filename)
{
    static const struct {
        struct slice ending;
        const char *type;
    } types[] = {
        {{".png", 4}, "image/png"},
        {{".jpg", 4}, "image/jpeg"},
        {{".jpeg", 5}, "image/jpeg"},
        {{".webp", 5}, "image/webp"},
        {{".gif", 4}, "image/gif"},
        {{".svg", 4}, "image/svg+xml"},
        {{".avif", 5}, "image/avif"},
        {{".mp4", 4}, "video/mp4"},
        {{".webm", 5}, "video/webm"},
        {{".mov", 4}, "video/quicktime"},
        {{".mkv", 4}, "video/x-matroska"},
        {{".mp3", 4}, "audio/mpeg"},
        {{".wav", 4}, "audio/wav"},
        {{".flac", 5}, "audio/flac"},
        {{".ogg", 4}, "audio/ogg"},
        {{".opus", 5}, "audio/opus"},
        {{".glb", 4}, "model/gltf-binary"},
        {{".json", 5}, "application/json"},
        {{".txt", 4}, "text/plain; charset=utf-8"},
        {{".html", 5}, "text/html; charset=utf-8"},
        {{".css", 4}, "text/css; charset=utf-8"},
        {{".js", 3}, "text/javascript; charset=utf-8"},
    };
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        struct slice ending = types[i].ending;
        if (filename.len < ending.len)
            continue;
        const char *tail = filename.ptr + filename.len - ending.len;
        if (slice_eq_nocase((struct slice){tail, ending.len}, ending))
            return types[i].type;
    }
    return "application/octet-stream";
}

const char *http_reason(int status)
{
    switch (status) {
    case 100: return "Continue";
    case 101: return "Switching Protocols";
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 206: return "Partial Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 411: return "Length Required";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 416: return "Range Not Satisfiable";
    case 417: return "Expectation Failed";
    case 422: return "Unprocessable Content";
    case 426: return "Upgrade Required";
    case 428: return "Precondition Required";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 499: return "Client Closed Request";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    case 507: return "Insufficient Storage";
    default: return "";
    }
}
