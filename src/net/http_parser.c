/* One message after the other. The guard finds the end of the head and passes what is in order to
 * llhttp, which reads the head and stops there; how long the body is, is decided here:
 *
 *     HEAD ─► LENGTH ─► DONE      next() leads back to HEAD
 *          ─► CHUNKS ─┘
 *          ─► UNTIL_CLOSE ┘ (responses, at eof)
 *
 * llhttp never sees a body: its idea of upgrades and of lax framing has no part in ours. A 1xx
 * before the final response is skipped and counts towards the bounds of the head that follows. */
#include "http_parser.h"

#include "http_chunk.h"
#include "http_guard.h"

#include <stdlib.h>

#include <llhttp.h>

/* More than this is given back after a message: parsers are kept for later messages. */
enum { KEEP_BYTES_MAX = 4 * 1024 };

enum parser_phase { HEAD, LENGTH, CHUNKS, UNTIL_CLOSE, DONE, FAILED };

struct http_parser {
    llhttp_t http;
    enum http_parser_kind kind;
    const struct http_parser_events *events;
    void *owner;
    enum parser_phase phase;
    struct http_guard guard;
    struct http_chunk chunk;
    struct http_head head;
    struct buf target;
    struct buf field; /* name and value of the header that is being read */
    size_t name_len;
    bool head_seen; /* by llhttp */
    bool no_body;   /* the answer to a HEAD */
    bool paused;
    uint64_t left; /* LENGTH */
    int status;    /* what went wrong in a callback or a check: 0, nothing */
    enum err_code code;
    const char *why;
};

/* --- what llhttp calls ----------------------------------------------------------------------- */

static int parser_refuse(struct http_parser *p, int status, const char *why)
{
    p->status = status;
    p->why = why;
    p->code = status == 413 || status == 414 || status == 431 ? ERR_TOO_LARGE : ERR_PROTOCOL;
    return -1;
}

static int parser_on_url(llhttp_t *http, const char *at, size_t len)
{
    struct http_parser *p = http->data;
    if (buf_append(&p->target, (struct slice){at, len}) != ERR_OK)
        return parser_refuse(p, 414, "the target is too long");
    return 0;
}

static int parser_on_header_field(llhttp_t *http, const char *at, size_t len)
{
    struct http_parser *p = http->data;
    if (buf_append(&p->field, (struct slice){at, len}) != ERR_OK)
        return parser_refuse(p, 431, "a header is too long");
    p->name_len = p->field.len;
    return 0;
}

static int parser_on_header_value(llhttp_t *http, const char *at, size_t len)
{
    struct http_parser *p = http->data;
    if (buf_append(&p->field, (struct slice){at, len}) != ERR_OK)
        return parser_refuse(p, 431, "a header is too long");
    return 0;
}

static int parser_on_header_value_complete(llhttp_t *http)
{
    struct http_parser *p = http->data;
    struct slice name = {p->field.ptr, p->name_len};
    struct slice value = {p->field.ptr + p->name_len, p->field.len - p->name_len};
    enum err_code code = http_headers_add_known(&p->head.headers, name, value);
    buf_reset(&p->field);
    p->name_len = 0;
    return code == ERR_OK ? 0 : parser_refuse(p, 431, "too many headers");
}

static int parser_on_headers_complete(llhttp_t *http)
{
    struct http_parser *p = http->data;
    p->head_seen = true;
    return HPE_PAUSED; /* for good: see above */
}

static const llhttp_settings_t parser_settings = {
    .on_url = parser_on_url,
    .on_header_field = parser_on_header_field,
    .on_header_value = parser_on_header_value,
    .on_header_value_complete = parser_on_header_value_complete,
    .on_headers_complete = parser_on_headers_complete,
};

/* --- what a head means ----------------------------------------------------------------------- */

static int parser_check_host(struct http_parser *p)
{
    struct slice host = SLICE_EMPTY;
    unsigned count = http_headers_count(&p->head.headers, "host", &host);
    if (count > 1 || (count == 0 && p->head.minor == 1))
        return parser_refuse(p, 400, "there must be one Host header");
    for (size_t i = 0; i < host.len; i++)
        if (!http_is_host_char(host.ptr[i]))
            return parser_refuse(p, 400, "the Host header names no host");
    return 0;
}

static bool ends_chunked(struct slice value)
{
    struct slice last = SLICE("chunked");
    if (value.len <= last.len)
        return false;
    struct slice tail = {value.ptr + value.len - last.len, last.len};
    char before = value.ptr[value.len - last.len - 1];
    return slice_eq_nocase(tail, last) && (before == ',' || before == ' ' || before == '\t');
}

static int parser_check_coding(struct http_parser *p, unsigned count, struct slice coding)
{
    if (p->head.minor == 0)
        return parser_refuse(p, 400, "Transfer-Encoding in HTTP/1.0");
    if (count == 1 && slice_eq_nocase(coding, SLICE("chunked"))) {
        p->head.chunked = true;
        return 0;
    }
    if (count == 1 && ends_chunked(coding))
        return parser_refuse(p, 501, "no transfer coding but chunked is known");
    return parser_refuse(p, 400, "the end of the message cannot be told");
}

static int parser_check_framing(struct http_parser *p)
{
    const struct http_headers *h = &p->head.headers;
    struct slice length, coding;
    unsigned lengths = http_headers_count(h, "content-length", &length);
    unsigned codings = http_headers_count(h, "transfer-encoding", &coding);
    if (codings > 0 && lengths > 0)
        return parser_refuse(p, 400, "Content-Length and Transfer-Encoding");
    if (codings > 0)
        return parser_check_coding(p, codings, coding);
    if (lengths > 1)
        return parser_refuse(p, 400, "two Content-Length headers");
    if (lengths == 0)
        return 0;
    if (!slice_to_u64(length, INT64_MAX, &p->head.length)) {
        bool digits = length.len > 0 && strspn(length.ptr, "0123456789") >= length.len;
        return parser_refuse(p, digits ? 413 : 400, "the Content-Length is no possible length");
    }
    p->head.has_length = true;
    return 0;
}

static bool parser_keeps_alive(const struct http_head *head)
{
    if (http_headers_has_token(&head->headers, "connection", "close") || head->until_close)
        return false;
    return head->minor == 1 || http_headers_has_token(&head->headers, "connection", "keep-alive");
}

static int parser_check_request(struct http_parser *p)
{
    struct slice expect;
    struct http_head *head = &p->head;
    head->method = slice_of(llhttp_method_name(p->http.method));
    head->target = buf_slice(&p->target);
    if (parser_check_host(p) != 0)
        return -1;
    head->expect_100 = head->minor == 1 && http_headers_get(&head->headers, "expect", &expect) &&
                       slice_eq_nocase(expect, SLICE("100-continue"));
    head->upgrade = head->minor == 1 && http_headers_has(&head->headers, "upgrade") &&
                    http_headers_has_token(&head->headers, "connection", "upgrade");
    p->phase = head->chunked ? CHUNKS : head->length > 0 ? LENGTH : DONE;
    return 0;
}

static int parser_check_response(struct http_parser *p)
{
    struct http_head *head = &p->head;
    head->status = p->http.status_code;
    if (head->status < 100)
        return parser_refuse(p, 400, "no status code");
    head->upgrade = head->status == 101;
    bool no_body = p->no_body || head->status < 200 || head->status == 204 || head->status == 304;
    head->until_close = !no_body && !head->chunked && !head->has_length;
    if (no_body)
        p->phase = DONE;
    else if (head->until_close)
        p->phase = UNTIL_CLOSE;
    else
        p->phase = head->chunked ? CHUNKS : head->length > 0 ? LENGTH : DONE;
    return 0;
}

static int parser_check_head(struct http_parser *p)
{
    if (p->http.http_major != 1 || p->http.http_minor > 1)
        return parser_refuse(p, 505, "neither HTTP/1.0 nor HTTP/1.1");
    p->head.minor = p->http.http_minor;
    if (parser_check_framing(p) != 0)
        return -1;
    bool request = p->kind == HTTP_PARSE_REQUEST;
    if ((request ? parser_check_request(p) : parser_check_response(p)) != 0)
        return -1;
    p->head.keep_alive = parser_keeps_alive(&p->head);
    p->left = p->head.length;
    http_chunk_init(&p->chunk);
    return 0;
}

/* --- life ------------------------------------------------------------------------------------ */

static void parser_reset_head(struct http_parser *p)
{
    struct http_headers headers = p->head.headers;
    llhttp_init(&p->http, p->kind == HTTP_PARSE_REQUEST ? HTTP_REQUEST : HTTP_RESPONSE,
                &parser_settings);
    p->http.data = p;
    http_headers_reset(&headers);
    p->head = (struct http_head){.headers = headers};
    buf_reset(&p->target);
    buf_reset(&p->field);
    p->name_len = 0;
    p->head_seen = false;
    p->phase = HEAD;
    http_guard_init(&p->guard,
                    p->kind == HTTP_PARSE_REQUEST ? HTTP_GUARD_REQUEST : HTTP_GUARD_RESPONSE);
}

struct http_parser *http_parser_new(enum http_parser_kind kind,
                                    const struct http_parser_events *events, void *owner)
{
    struct http_parser *p = xcalloc(1, sizeof(*p));
    p->kind = kind;
    p->events = events;
    p->owner = owner;
    http_headers_init(&p->head.headers);
    buf_init(&p->target, HTTP_TARGET_MAX);
    buf_init(&p->field, HTTP_HEAD_MAX);
    parser_reset_head(p);
    return p;
}

void http_parser_free(struct http_parser *p)
{
    if (p == NULL)
        return;
    http_headers_done(&p->head.headers);
    buf_done(&p->target);
    buf_done(&p->field);
    free(p);
}

void *http_parser_owner(const struct http_parser *p)
{
    return p->owner;
}

void http_parser_set_owner(struct http_parser *p, void *owner)
{
    p->owner = owner;
}

void http_parser_next(struct http_parser *p)
{
    if (p->head.headers.text.cap > KEEP_BYTES_MAX)
        http_headers_done(&p->head.headers);
    if (p->target.cap > KEEP_BYTES_MAX)
        buf_done(&p->target);
    if (p->field.cap > KEEP_BYTES_MAX)
        buf_done(&p->field);
    parser_reset_head(p);
    p->no_body = false;
    p->paused = false;
    p->status = 0;
}

void http_parser_expect_no_body(struct http_parser *p)
{
    ASSERT(p->phase == HEAD);
    p->no_body = true;
}

bool http_parser_started(const struct http_parser *p)
{
    if (p->phase != HEAD)
        return true;
    return p->kind == HTTP_PARSE_REQUEST ? http_guard_started(&p->guard) : p->guard.bytes > 0;
}

void http_parser_pause(struct http_parser *p)
{
    p->paused = true;
}

const struct http_head *http_parser_head(const struct http_parser *p)
{
    ASSERT(p->phase != HEAD);
    return &p->head;
}

void http_parser_take_headers(struct http_parser *p, struct http_headers *ret)
{
    ASSERT(p->phase != HEAD);
    *ret = p->head.headers;
    http_headers_init(&p->head.headers);
}

bool http_parser_has_body(const struct http_parser *p)
{
    return p->phase == LENGTH || p->phase == CHUNKS || p->phase == UNTIL_CLOSE;
}

uint64_t http_parser_body_left(const struct http_parser *p)
{
    return p->phase == LENGTH ? p->left : 0;
}

size_t http_parser_read_room(const struct http_parser *p, size_t least, size_t most)
{
    uint64_t room = http_parser_body_left(p);
    room = room < most ? room : most;
    return room < least ? least : (size_t)room;
}

/* --- feeding --------------------------------------------------------------------------------- */

static enum http_parse_result parser_fail(struct http_parser *p)
{
    p->phase = FAILED;
    return HTTP_PARSE_FAILED;
}

/* What llhttp itself did not like. */
static void parser_explain(struct http_parser *p, llhttp_errno_t code)
{
    const char *reason = llhttp_get_error_reason(&p->http);
    if (code == HPE_INVALID_VERSION)
        (void)parser_refuse(p, 505, "neither HTTP/1.0 nor HTTP/1.1");
    else if (code == HPE_INVALID_CONTENT_LENGTH && reason != NULL && strstr(reason, "overflow"))
        (void)parser_refuse(p, 413, "the Content-Length is no possible length");
    else
        (void)parser_refuse(p, 400, reason != NULL ? reason : "no HTTP");
}

static enum http_parse_result parser_end(struct http_parser *p)
{
    p->phase = DONE;
    p->events->on_end(p);
    return HTTP_PARSE_COMPLETE;
}

static enum http_parse_result parser_head_ended(struct http_parser *p)
{
    if (parser_check_head(p) != 0)
        return parser_fail(p);
    if (p->kind == HTTP_PARSE_RESPONSE && p->head.status < 200 && p->head.status != 101) {
        size_t bytes = p->guard.bytes;
        parser_reset_head(p);
        p->guard.bytes = bytes;
        return HTTP_PARSE_MORE;
    }
    if (!p->events->on_head(p, &p->head))
        return HTTP_PARSE_COMPLETE;
    if (p->head.status == 101)
        return HTTP_PARSE_UPGRADED;
    return p->phase == DONE ? parser_end(p) : HTTP_PARSE_MORE;
}

/* Bytes before the one that the guard refuses still go to llhttp: what is said about a message must
 * not depend on how it was cut into pieces. */
static enum http_parse_result parser_feed_head(struct http_parser *p, struct slice *in)
{
    size_t used;
    enum http_guard_result shape = http_guard_feed(&p->guard, *in, &used);
    llhttp_errno_t code = llhttp_execute(&p->http, in->ptr, used);
    *in = (struct slice){in->ptr + used, in->len - used};
    if (code != HPE_OK && !(code == HPE_PAUSED && p->head_seen)) {
        if (p->status == 0)
            parser_explain(p, code);
        return parser_fail(p);
    }
    if (shape == HTTP_GUARD_BAD)
        (void)parser_refuse(p, p->guard.status, p->guard.why);
    else if (p->head_seen != (shape == HTTP_GUARD_END))
        (void)parser_refuse(p, 400, "the head does not end at its empty line");
    if (p->status != 0)
        return parser_fail(p);
    return p->head_seen ? parser_head_ended(p) : HTTP_PARSE_MORE;
}

static enum http_parse_result parser_feed_length(struct http_parser *p, struct slice *in)
{
    size_t n = p->left < in->len ? (size_t)p->left : in->len;
    struct slice part = {in->ptr, n};
    *in = (struct slice){in->ptr + n, in->len - n};
    p->left -= n;
    p->events->on_body(p, part);
    return p->left == 0 ? parser_end(p) : HTTP_PARSE_MORE;
}

static enum http_parse_result parser_feed_chunks(struct http_parser *p, struct slice *in)
{
    struct slice part;
    switch (http_chunk_next(&p->chunk, in, &part)) {
    case HTTP_CHUNK_PART: p->events->on_body(p, part); return HTTP_PARSE_MORE;
    case HTTP_CHUNK_END: return parser_end(p);
    case HTTP_CHUNK_BAD:
        (void)parser_refuse(p, p->chunk.status, p->chunk.why);
        return parser_fail(p);
    case HTTP_CHUNK_MORE: break;
    }
    return HTTP_PARSE_MORE;
}

static enum http_parse_result parser_feed_some(struct http_parser *p, struct slice *in)
{
    switch (p->phase) {
    case HEAD: return parser_feed_head(p, in);
    case LENGTH: return parser_feed_length(p, in);
    case CHUNKS: return parser_feed_chunks(p, in);
    case UNTIL_CLOSE:
        p->events->on_body(p, *in);
        *in = SLICE_EMPTY;
        return HTTP_PARSE_MORE;
    case DONE:
    case FAILED: break;
    }
    assert_failed("fed after the end", __FILE__, __LINE__);
}

enum http_parse_result http_parser_feed(struct http_parser *p, struct slice bytes, size_t *used,
                                        int *ret_status, struct err *err)
{
    enum http_parse_result result = HTTP_PARSE_MORE;
    struct slice in = bytes;
    ASSERT(p->phase != DONE && p->phase != FAILED);
    p->paused = false;
    while (in.len > 0 && result == HTTP_PARSE_MORE && !p->paused)
        result = parser_feed_some(p, &in);
    *used = bytes.len - in.len;
    if (result == HTTP_PARSE_FAILED) {
        (void)err_set(err, p->code, "%s", p->why);
        if (ret_status != NULL)
            *ret_status = p->status;
    }
    return result;
}

enum http_parse_result http_parser_eof(struct http_parser *p, struct err *err)
{
    if (p->phase == UNTIL_CLOSE)
        return parser_end(p);
    if (p->phase == DONE || !http_parser_started(p))
        return HTTP_PARSE_MORE;
    p->phase = FAILED;
    (void)err_set(err, ERR_CLOSED, "closed in the middle of a message");
    return HTTP_PARSE_FAILED;
}
