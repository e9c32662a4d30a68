/* What the head of a request asks of our routes: the first line is its target, each further one a
 * header, as in HTTP. Queries, Prefer, Accept, Range, the platform's headers, and which of
 * ComfyUI's paths are let through; where a rule is simple it is written a second time. */
#include "invocation.h"
#include "proxy_rules.h"
#include "run_wishes.h"
#include "ws_handshake.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool next_line(struct slice *text, struct slice *ret)
{
    if (text->len == 0)
        return false;
    const char *end = memchr(text->ptr, '\n', text->len);
    *ret = (struct slice){text->ptr, end != NULL ? (size_t)(end - text->ptr) : text->len};
    size_t used = ret->len + (end != NULL ? 1 : 0);
    *text = (struct slice){text->ptr + used, text->len - used};
    return true;
}

/* --- queries --------------------------------------------------------------------------------- */

static int hex_of(char c)
{
    static const char hex[] = "0123456789abcdef0123456789ABCDEF";
    const char *at = memchr(hex, c, 32);
    return at != NULL ? (int)((at - hex) % 16) : -1;
}

/* False: not decodable. */
static bool plain_decode(struct slice text, bool is_query, struct buf *out)
{
    while (text.len > 0) {
        size_t used = text.ptr[0] == '%' ? 3 : 1;
        if (used > text.len || (used == 3 && (hex_of(text.ptr[1]) < 0 || hex_of(text.ptr[2]) < 0)))
            return false;
        char c = is_query && text.ptr[0] == '+' ? ' ' : text.ptr[0];
        if (used == 3)
            c = (char)(hex_of(text.ptr[1]) * 16 + hex_of(text.ptr[2]));
        if (c == '\0')
            return false;
        buf_add(out, (struct slice){&c, 1});
        text = (struct slice){text.ptr + used, text.len - used};
    }
    return true;
}

/* The first pair of that name. */
static enum err_code plain_get(struct slice query, const char *key, struct buf *out)
{
    size_t at = 0;
    while (at < query.len) {
        size_t end = at;
        size_t equals = SIZE_MAX;
        for (; end < query.len && query.ptr[end] != '&'; end++)
            if (query.ptr[end] == '=' && equals == SIZE_MAX)
                equals = end;
        struct buf name;
        buf_init(&name, SIZE_MAX);
        size_t name_end = equals != SIZE_MAX ? equals : end;
        struct slice encoded = {query.ptr + at, name_end - at};
        bool same = plain_decode(encoded, true, &name) && slice_is(buf_slice(&name), key);
        buf_done(&name);
        if (same) {
            size_t from = equals != SIZE_MAX ? equals + 1 : end;
            struct slice value = {query.ptr + from, end - from};
            return plain_decode(value, true, out) ? ERR_OK : ERR_INVALID;
        }
        at = end + 1;
    }
    return ERR_NOT_FOUND;
}

static bool same_found(struct slice a, struct slice b, const char *key)
{
    struct buf in_a, in_b;
    buf_init(&in_a, SIZE_MAX);
    buf_init(&in_b, SIZE_MAX);
    bool same = plain_get(a, key, &in_a) == plain_get(b, key, &in_b) &&
                slice_eq(buf_slice(&in_a), buf_slice(&in_b));
    buf_done(&in_a);
    buf_done(&in_b);
    return same;
}

static void check_query(struct slice query)
{
    static const char *const keys[] = {"results", "task-id", "wait", "a", "key"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct buf got, expected, rest;
        buf_init(&got, SIZE_MAX);
        buf_init(&expected, SIZE_MAX);
        buf_init(&rest, SIZE_MAX);
        enum err_code code = http_query_get(query, keys[i], &got);
        ASSERT(code == plain_get(query, keys[i], &expected));
        ASSERT(code != ERR_OK || slice_eq(buf_slice(&got), buf_slice(&expected)));
        http_query_without(query, keys[i], &rest);
        ASSERT(plain_get(buf_slice(&rest), keys[i], &expected) == ERR_NOT_FOUND);
        ASSERT(rest.len <= query.len && (code != ERR_NOT_FOUND || rest.len + 1 >= query.len));
        for (size_t k = 0; k < ARRAY_LEN(keys); k++)
            ASSERT(k == i || same_found(query, buf_slice(&rest), keys[k]));
        buf_done(&got);
        buf_done(&expected);
        buf_done(&rest);
    }
}

/* What is encoded is decoded as the same, as a path and as a query. */
static void check_encode(struct slice bytes)
{
    struct buf query, back;
    buf_init(&query, SIZE_MAX);
    buf_init(&back, SIZE_MAX);
    buf_adds(&query, "b=1&a=");
    http_percent_encode(&query, bytes);
    struct slice encoded = {query.ptr + 6, query.len - 6};
    bool has_nul = memchr(bytes.ptr, '\0', bytes.len) != NULL;
    ASSERT((http_percent_decode(encoded, &back) == ERR_INVALID) == has_nul);
    ASSERT(has_nul || slice_eq(buf_slice(&back), bytes));
    buf_reset(&back);
    ASSERT((http_query_get(buf_slice(&query), "a", &back) == ERR_INVALID) == has_nul);
    ASSERT(has_nul || slice_eq(buf_slice(&back), bytes));
    buf_done(&query);
    buf_done(&back);
}

/* --- paths ----------------------------------------------------------------------------------- */

/* As some server behind us could resolve it. */
static bool leads_elsewhere(struct slice path)
{
    size_t at = 1;
    if (path.len == 0 || path.ptr[0] != '/')
        return true;
    while (at < path.len) {
        size_t len = 0;
        while (at + len < path.len && path.ptr[at + len] != '/' && path.ptr[at + len] != '\\')
            len++;
        struct slice segment = {path.ptr + at, len};
        if (len == 0 || slice_is(segment, ".") || slice_is(segment, "..") ||
            (at + len < path.len && path.ptr[at + len] == '\\'))
            return true;
        at += len + 1;
    }
    return false;
}

static void check_path(struct slice path)
{
    static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"};
    struct buf decoded;
    buf_init(&decoded, SIZE_MAX);
    bool is_good = plain_decode(path, false, &decoded); /* not by what the rules decode with */
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        struct slice method = slice_of(methods[i]);
        bool by_page = proxy_allows(PROXY_UI, method, path);
        ASSERT(proxy_allows(PROXY_ALL, method, path) && !proxy_allows(PROXY_NONE, method, path));
        ASSERT(!by_page || (is_good && !leads_elsewhere(buf_slice(&decoded))));
        ASSERT(!by_page || i < 3);
        ASSERT(!by_page || memmem(decoded.ptr, decoded.len, "/manager/reboot", 15) != decoded.ptr);
    }
    buf_done(&decoded);
}

/* --- headers --------------------------------------------------------------------------------- */

static void check_wishes(const struct http_headers *headers, struct slice query)
{
    struct run_wishes w;
    run_wishes_read(&w, headers, query);
    ASSERT(!w.has_wait || (!w.respond_async && w.wait_ms <= RUN_WAIT_MAX_S * 1000ull));
    ASSERT(w.has_wait || w.wait_ms == 0);
    while (w.media.len > 0) {
        struct slice range = slice_next(&w.media, ',');
        ASSERT(range.len > 6 && (slice_eq_nocase((struct slice){range.ptr, 6}, SLICE("image/")) ||
                                 slice_eq_nocase((struct slice){range.ptr, 6}, SLICE("video/")) ||
                                 slice_eq_nocase((struct slice){range.ptr, 6}, SLICE("audio/"))));
    }
}

static void check_range(struct slice value)
{
    static const uint64_t sizes[] = {0, 1, 10, 1000, INT64_MAX};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        uint64_t from = 7;
        uint64_t to = 8;
        uint64_t half = 0;
        char spelled[64];
        enum http_range range = http_range_read(value, sizes[i], &from, &to);
        if (range != HTTP_RANGE_PART) {
            ASSERT(from == 7 && to == 8);
            continue;
        }
        ASSERT(from < to && to <= sizes[i]);
        int n = snprintf(spelled, sizeof(spelled), "bytes=%llu-%llu", (unsigned long long)from,
                         (unsigned long long)(to - 1));
        ASSERT(http_range_read((struct slice){spelled, (size_t)n}, sizes[i], &half, &to) == range);
        ASSERT(half == from);
    }
}

static bool header(void *ctx, const char *name, struct slice *ret)
{
    return http_headers_get(ctx, name, ret);
}

static void check_invocation(struct http_headers *headers, struct slice path)
{
    struct invocation_source source = {header, headers};
    struct invocation inv;
    char marker[INVOCATION_MARKER_MAX];
    invocation_read(&inv, &source);
    ASSERT(invocation_margin_ms(&inv) <= inv.timeout_ms);
    ASSERT(inv.is_async || (!inv.asks_async && inv.retry_count == 0));
    invocation_marker(&inv, path, false, marker);
    for (const char *at = marker; *at != '\0'; at++)
        ASSERT(*at >= ' ' && *at <= 'z');
    ASSERT(marker[0] == '\0' || strstr(marker, " Start RequestId: ") != NULL);
}

static void check_headers(struct http_headers *headers)
{
    struct http_head head = {.method = SLICE("GET"), .minor = 1, .headers = *headers};
    struct http_headers answer;
    const char *why = NULL;
    for (unsigned i = 0; i < headers->count; i++) {
        struct slice name = http_headers_name(headers, i);
        struct slice value = http_headers_value(headers, i);
        struct slice list = value;
        ASSERT(slice_eq(slice_trim(value), value));
        if (slice_eq_nocase(name, SLICE("range")))
            check_range(value);
        while (list.len > 0)
            ASSERT(http_list_has(value, slice_next(&list, ',')));
    }
    if (ws_handshake_judge(&head, &why) == 0) {
        http_headers_init(&answer);
        ws_handshake_answer(&head, &answer);
        ASSERT(answer.count == 2);
        http_headers_done(&answer);
    } else {
        ASSERT(why != NULL);
    }
}

static void add_header(struct http_headers *headers, struct slice line)
{
    struct slice value = line;
    struct slice name = slice_next(&value, ':');
    unsigned before = headers->count;
    enum err_code code = http_headers_add(headers, name, value);
    ASSERT(headers->count == before + (code == ERR_OK));
    ASSERT(headers->count <= HTTP_HEADERS_MAX && headers->text.len <= HTTP_HEAD_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = {size > 0 ? (const char *)data : "", size};
    struct slice line;
    struct http_headers headers;
    struct http_target target;
    if (!next_line(&text, &line))
        return 0;
    check_encode(line);
    check_query(line);
    check_path(line);
    if (http_target_split(line, &target) != ERR_OK)
        target = (struct http_target){SLICE("/"), SLICE_EMPTY};
    check_query(target.query);
    check_path(target.path);
    http_headers_init(&headers);
    while (next_line(&text, &line))
        add_header(&headers, line);
    check_wishes(&headers, target.query);
    check_invocation(&headers, target.path);
    check_headers(&headers);
    http_headers_done(&headers);
    return 0;
}
