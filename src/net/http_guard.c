#include "http_guard.h"

#include "eight.h"
#include "http_msg.h"

enum {
    BEFORE, /* empty lines before a request line are allowed: RFC 9112, 2.2 */
    BEFORE_CR,
    LINE,
    LINE_CR,
    FIELD, /* first byte of a header line */
    NAME,
    VALUE,
    END_CR,
};

/* '0': any digit. llhttp 8.1.0 takes "GET / RTSP/1.0" for HTTP/1.0, and status codes of one and two
 * digits. */
static const char version[] = "HTTP/0.0";
static const char status_start[] = "HTTP/0.0 000";
enum { VERSION_LEN = sizeof(version) - 1, STATUS_START_LEN = sizeof(status_start) - 1 };

void http_guard_init(struct http_guard *g, enum http_guard_kind kind)
{
    static const unsigned char first[] = {BEFORE, LINE, FIELD};
    *g = (struct http_guard){.kind = kind, .state = first[kind]};
}

bool http_guard_started(const struct http_guard *g)
{
    return g->state != BEFORE;
}

static enum http_guard_result guard_refuse(struct http_guard *g, int status, const char *why)
{
    g->status = status;
    g->why = why;
    return HTTP_GUARD_BAD;
}

static bool matches(char c, char pattern)
{
    return pattern == '0' ? c >= '0' && c <= '9' : c == pattern;
}

/* llhttp 8.1.0 takes any number of spaces. */
static enum http_guard_result guard_request_line(struct http_guard *g, char c)
{
    if (c == '\r') {
        if (g->spaces != 2 || g->word != VERSION_LEN)
            return guard_refuse(g, 400, "no request line");
        g->state = LINE_CR;
        return HTTP_GUARD_MORE;
    }
    if (c == ' ') {
        if (g->word == 0 || g->spaces == 2)
            return guard_refuse(g, 400, "a space too many in the request line");
        g->spaces++;
        g->word = 0;
        return HTTP_GUARD_MORE;
    }
    if (!http_is_value_char(c) || c == '\t')
        return guard_refuse(g, 400, "a control character in the request line");
    if (g->spaces == 2 && (g->word >= VERSION_LEN || !matches(c, version[g->word])))
        return guard_refuse(g, 400, "no HTTP version at the end of the request line");
    g->word++;
    if (g->spaces == 1 && g->word > HTTP_TARGET_MAX)
        return guard_refuse(g, 414, "the target is too long");
    return HTTP_GUARD_MORE;
}

static enum http_guard_result guard_status_line(struct http_guard *g, char c)
{
    if (c == '\r' && g->word >= STATUS_START_LEN) {
        g->state = LINE_CR;
        return HTTP_GUARD_MORE;
    }
    bool fits = g->word < STATUS_START_LEN ? matches(c, status_start[g->word])
                                           : g->word > STATUS_START_LEN || c == ' ';
    if (!fits || !http_is_value_char(c))
        return guard_refuse(g, 400, "no status line");
    g->word++;
    return HTTP_GUARD_MORE;
}

static enum http_guard_result guard_field(struct http_guard *g, char c)
{
    if (c == '\r') {
        g->state = END_CR;
        return HTTP_GUARD_MORE;
    }
    if (!http_is_token_char(c))
        return guard_refuse(g, 400, "a header line that begins with no name");
    if (++g->fields > HTTP_HEADERS_MAX)
        return guard_refuse(g, 431, "too many headers");
    g->state = NAME;
    return HTTP_GUARD_MORE;
}

static enum http_guard_result guard_byte(struct http_guard *g, char c)
{
    switch (g->state) {
    case BEFORE:
        if (c == '\r') {
            g->state = BEFORE_CR;
            return HTTP_GUARD_MORE;
        }
        g->state = LINE;
        return guard_request_line(g, c);
    case LINE:
        return g->kind == HTTP_GUARD_REQUEST ? guard_request_line(g, c) : guard_status_line(g, c);
    case FIELD: return guard_field(g, c);
    case NAME:
        if (c == ':')
            g->state = VALUE;
        else if (!http_is_token_char(c))
            return guard_refuse(g, 400, "a header name that is no token");
        return HTTP_GUARD_MORE;
    case VALUE:
        if (c == '\r')
            g->state = LINE_CR;
        else if (!http_is_value_char(c))
            return guard_refuse(g, 400, "a control character in a header value");
        return HTTP_GUARD_MORE;
    default: /* after a CR */
        if (c != '\n')
            return guard_refuse(g, 400, "a carriage return without a line feed");
        if (g->state == END_CR)
            return HTTP_GUARD_END;
        g->state = g->state == BEFORE_CR ? BEFORE : FIELD;
        return HTTP_GUARD_MORE;
    }
}

/* --- many bytes at once ---------------------------------------------------------------------- */

static struct slice at_most(struct slice bytes, size_t max)
{
    return (struct slice){bytes.ptr, bytes.len < max ? bytes.len : max};
}

static size_t pattern_span(const char *pattern, struct slice bytes)
{
    size_t at = 0;
    while (at < bytes.len && pattern[at] != '\0' && matches(bytes.ptr[at], pattern[at]))
        at++;
    return at;
}

/* Neither spaces nor control characters. */
static size_t word_span(struct slice bytes)
{
    size_t at = 0;
    for (; bytes.len - at >= 8; at += 8) {
        uint64_t eight = eight_load(bytes.ptr + at);
        if ((eight_below(eight, ' ' + 1) | eight_equal(eight, 0x7f)) != 0)
            break;
    }
    while (at < bytes.len && http_is_value_char(bytes.ptr[at]) && bytes.ptr[at] != ' ' &&
           bytes.ptr[at] != '\t')
        at++;
    return at;
}

static size_t request_line_span(const struct http_guard *g, struct slice bytes)
{
    if (g->spaces == 2)
        return pattern_span(version + g->word, bytes);
    return word_span(g->spaces == 1 ? at_most(bytes, HTTP_TARGET_MAX - g->word) : bytes);
}

static size_t status_line_span(const struct http_guard *g, struct slice bytes)
{
    if (g->word < STATUS_START_LEN)
        return pattern_span(status_start + g->word, bytes);
    return g->word > STATUS_START_LEN ? http_value_span(bytes) : 0;
}

/* A header line that is there to its end and in order; 0: it is not. */
static size_t field_line_span(const struct http_guard *g, struct slice bytes)
{
    size_t colon = http_token_span(bytes);
    if (g->fields == HTTP_HEADERS_MAX || colon == 0 || colon == bytes.len ||
        bytes.ptr[colon] != ':')
        return 0;
    struct slice behind = {bytes.ptr + colon + 1, bytes.len - colon - 1};
    size_t value = http_value_span(behind);
    bool ends = behind.len - value >= 2 && memcmp(behind.ptr + value, "\r\n", 2) == 0;
    return ends ? colon + 1 + value + 2 : 0;
}

static size_t guard_take_lines(struct http_guard *g, struct slice bytes)
{
    size_t taken = 0, line;
    while ((line = field_line_span(g, (struct slice){bytes.ptr + taken, bytes.len - taken})) > 0) {
        g->fields++;
        taken += line;
    }
    return taken;
}

/* Takes the bytes that leave the state as it is: most of a head are such. Returns how many. */
static size_t guard_take_plain(struct http_guard *g, struct slice bytes)
{
    bytes = at_most(bytes, HTTP_HEAD_MAX - g->bytes);
    if (g->state == VALUE)
        return http_value_span(bytes);
    if (g->state == NAME)
        return http_token_span(bytes);
    if (g->state == FIELD)
        return guard_take_lines(g, bytes);
    if (g->state != LINE)
        return 0;
    size_t plain =
        g->kind == HTTP_GUARD_REQUEST ? request_line_span(g, bytes) : status_line_span(g, bytes);
    g->word += plain;
    return plain;
}

enum http_guard_result http_guard_feed(struct http_guard *g, struct slice bytes, size_t *used)
{
    enum http_guard_result result = HTTP_GUARD_MORE;
    size_t i = 0;
    while (i < bytes.len && result == HTTP_GUARD_MORE) {
        size_t plain = guard_take_plain(g, (struct slice){bytes.ptr + i, bytes.len - i});
        g->bytes += plain;
        i += plain;
        if (i == bytes.len)
            break;
        if (++g->bytes > HTTP_HEAD_MAX)
            result = guard_refuse(g, 431, "the head is too long");
        else
            result = guard_byte(g, bytes.ptr[i]);
        i++;
    }
    *used = result == HTTP_GUARD_BAD ? i - 1 : i;
    return result;
}
