/* What HTTP messages are made of: header lists, request targets, and the small grammars in them.
 * Shared by server, client and whoever looks at a request. */
#ifndef HTTP_MSG_H
#define HTTP_MSG_H

#include "buf.h"

enum {
    HTTP_TARGET_MAX = 8 * 1024,
    HTTP_HEAD_MAX = 32 * 1024,
    HTTP_HEADERS_MAX = 100,
    HTTP_HEADERS_FEW = 8, /* need no memory but their text */
};

bool http_is_token_char(char c);        /* of names */
size_t http_token_span(struct slice s); /* so many of these it begins with */
bool http_is_host_char(char c);         /* of a host, its port and the brackets of IPv6 */
bool http_is_value_char(char c);        /* no control characters but the tabulator */
size_t http_value_span(struct slice s); /* so many of these it begins with */

/* A header list owns its text: one buf, fields by offset, so that it can grow while it is read. */
struct http_field {
    uint32_t name_at, name_len, value_at, value_len;
};
struct http_headers {
    struct buf text;
    unsigned count, cap;
    uint32_t name_lens;      /* bit n % 32: a name of n bytes may be among them */
    struct http_field *more; /* all of them, once there are more than a few */
    struct http_field few[HTTP_HEADERS_FEW];
};

void http_headers_init(struct http_headers *h);
void http_headers_done(struct http_headers *h);
void http_headers_reset(struct http_headers *h);
/* ERR_TOO_LARGE past HTTP_HEADERS_MAX or HTTP_HEAD_MAX; ERR_INVALID for a name that is no token or
 * a value with a control character. */
enum err_code http_headers_add(struct http_headers *h, struct slice name,
                               struct slice value) MUST_CHECK;
/* The same of a name and a value that need no look, because they are ours or have passed an
 * http_guard: ERR_TOO_LARGE only. */
enum err_code http_headers_add_known(struct http_headers *h, struct slice name,
                                     struct slice value) MUST_CHECK;
/* Number i of another list, which was looked at when it was added there: ERR_TOO_LARGE only. */
enum err_code http_headers_copy(struct http_headers *to, const struct http_headers *from,
                                unsigned i) MUST_CHECK;
/* Drops each header for whose name `drops` is true; their text still counts. It may look into the
 * same list meanwhile: what stays is found all the time, though perhaps twice. */
void http_headers_drop(struct http_headers *h, bool (*drops)(struct slice name, const void *ctx),
                       const void *ctx);
struct slice http_headers_name(const struct http_headers *h, unsigned i);
struct slice http_headers_value(const struct http_headers *h, unsigned i);
/* One, or all, as lines of a head. */
void http_headers_write_one(const struct http_headers *h, unsigned i, struct buf *out);
void http_headers_write(const struct http_headers *h, struct buf *out);
/* The index of the next one of that name (any case) from `from` on; h->count if there is none. */
unsigned http_headers_find(const struct http_headers *h, struct slice name, unsigned from);
static inline bool http_headers_has(const struct http_headers *h, const char *name)
{
    return http_headers_find(h, slice_of(name), 0) < h->count;
}
/* The first one of that name; false if there is none. */
static inline bool http_headers_get(const struct http_headers *h, const char *name,
                                    struct slice *ret)
{
    unsigned i = http_headers_find(h, slice_of(name), 0);
    if (i == h->count)
        return false;
    *ret = http_headers_value(h, i);
    return true;
}
/* How many there are of that name, and the first one's value if there is one. */
unsigned http_headers_count(const struct http_headers *h, const char *name,
                            struct slice *ret_first);
/* Is `token` an element of a comma-separated list header (any case, over all its lines)? */
bool http_headers_has_token(const struct http_headers *h, const char *name, const char *token);

/* The elements of a list header, line by line: several lines are one list (RFC 9110, 5.3). */
struct http_list {
    const struct http_headers *headers;
    const char *name;
    struct slice rest; /* of the line that is being read */
    unsigned next;     /* the lines from here on are yet to be read */
};
struct http_list http_list_begin(const struct http_headers *h, const char *name);
bool http_list_next(struct http_list *l, struct slice *ret); /* false: that was all of it */

/* Is it one of these, in any case? */
bool http_name_is_among(struct slice name, const struct slice *names, size_t count);
/* Is `token` an element of this comma-separated list (any case)? */
bool http_list_has(struct slice list, struct slice token);

/* "/a/b?x=1" → path "/a/b", query "x=1". Absolute-form targets lose scheme and authority; "*" is a
 * path of its own. ERR_INVALID for anything else, for a fragment and for bytes that must be
 * escaped. */
struct http_target {
    struct slice path, query;
};
enum err_code http_target_split(struct slice target, struct http_target *ret) MUST_CHECK;
/* The value of a query key, percent-decoded ('+' is a space), appended to out. ERR_NOT_FOUND;
 * ERR_INVALID for a broken escape or a NUL; ERR_TOO_LARGE past out's cap. */
enum err_code http_query_get(struct slice query, const char *key, struct buf *out) MUST_CHECK;
/* The query without that key, however often it is there, appended to out; else as it was. */
void http_query_without(struct slice query, const char *key, struct buf *out);
/* A path, or a part of one, percent-decoded, appended to out. ERR_INVALID for a broken escape or a
 * NUL; ERR_TOO_LARGE past out's cap. */
enum err_code http_percent_decode(struct slice text, struct buf *out) MUST_CHECK;
/* RFC 3986 unreserved characters stay, all other bytes become %XX. */
void http_percent_encode(struct buf *out, struct slice bytes);

/* What a Range header asks of a body of so many bytes: "bytes=0-9", "bytes=5-", "bytes=-3". Several
 * ranges, or none that is well-formed: the whole. The bounds (from the first byte to the one behind
 * the last) are written only for PART, which is never empty. */
enum http_range { HTTP_RANGE_WHOLE, HTTP_RANGE_PART, HTTP_RANGE_BEHIND };
enum http_range http_range_read(struct slice value, uint64_t size, uint64_t *ret_from,
                                uint64_t *ret_to);

/* Media type of a file name by its ending; "application/octet-stream" when unknown. */
const char *http_media_type(struct slice filename);
const char *http_reason(int status); /* "OK"; "" for a number without a name */

#endif
