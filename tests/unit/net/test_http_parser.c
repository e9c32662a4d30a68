/* Requests and responses, whole and byte by byte: what is accepted becomes a transcript of events,
 * what is ambiguous is refused. */
#include "http_parser.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

/* --- a transcript ---------------------------------------------------------------------------- */

struct transcript {
    struct buf text, body;
    bool stop_at_head, pause;
};

static bool on_head(struct http_parser *p, const struct http_head *head)
{
    struct transcript *t = http_parser_owner(p);
    if (head->status != 0)
        buf_addf(&t->text, "%d", head->status);
    else
        buf_addf(&t->text, "%.*s %.*s", SLICE_ARGS(head->method), SLICE_ARGS(head->target));
    buf_addf(&t->text, " 1.%u", head->minor);
    for (unsigned i = 0; i < head->headers.count; i++)
        buf_addf(&t->text, " %.*s=%.*s", SLICE_ARGS(http_headers_name(&head->headers, i)),
                 SLICE_ARGS(http_headers_value(&head->headers, i)));
    buf_addf(&t->text, " %s%s%s%s%s|", head->keep_alive ? "k" : "", head->upgrade ? "u" : "",
             head->expect_100 ? "e" : "", head->chunked ? "c" : "", head->until_close ? "x" : "");
    return !t->stop_at_head;
}

static void on_body(struct http_parser *p, struct slice part)
{
    struct transcript *t = http_parser_owner(p);
    assert_true(part.len > 0);
    buf_add(&t->body, part);
    if (t->pause)
        http_parser_pause(p);
}

static void on_end(struct http_parser *p)
{
    struct transcript *t = http_parser_owner(p);
    buf_addf(&t->text, "%.*s|", SLICE_ARGS(buf_slice(&t->body)));
    buf_reset(&t->body);
}

static const struct http_parser_events events = {on_head, on_body, on_end};

struct run {
    enum http_parser_kind kind;
    size_t piece;
    bool head_method; /* responses: they answer a HEAD */
};

/* Feeds everything in pieces, message after message, to the end of the stream. Returns 0, the
 * status of a refusal, or -1 if the stream ended in the middle. */
static int run(const struct run *how, struct slice in, struct transcript *t)
{
    int status = 0;
    struct err err;
    struct http_parser *p = http_parser_new(how->kind, &events, t);
    if (how->head_method)
        http_parser_expect_no_body(p);
    while (in.len > 0 && status == 0) {
        struct slice piece = {in.ptr, in.len < how->piece ? in.len : how->piece};
        /* A copy of its own, so that a byte read beyond it is seen. */
        char *copy = xmalloc(piece.len);
        memcpy(copy, piece.ptr, piece.len);
        size_t used;
        switch (http_parser_feed(p, (struct slice){copy, piece.len}, &used, &status, &err)) {
        case HTTP_PARSE_MORE: assert_true(used == piece.len || t->pause); break;
        case HTTP_PARSE_COMPLETE:
            if (!http_parser_has_body(p))
                http_parser_next(p);
            break;
        case HTTP_PARSE_UPGRADED:
            buf_adds(&t->text, "upgraded|");
            status = 101;
            break;
        case HTTP_PARSE_FAILED: assert_true(status >= 400 && err.msg[0] != '\0'); break;
        }
        free(copy);
        in = (struct slice){in.ptr + used, in.len - used};
    }
    if (status == 0 && http_parser_eof(p, &err) == HTTP_PARSE_FAILED)
        status = -1;
    http_parser_free(p);
    return status;
}

static void transcript_init(struct transcript *t)
{
    *t = (struct transcript){.pause = false};
    buf_init(&t->text, SIZE_MAX);
    buf_init(&t->body, SIZE_MAX);
}

static void transcript_done(struct transcript *t)
{
    buf_done(&t->text);
    buf_done(&t->body);
}

/* The same result for the whole, for single bytes and for pieces of three. */
static void check(struct run how, struct slice in, int status, const char *text)
{
    static const size_t pieces[] = {SIZE_MAX, 1, 3};
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        struct transcript t;
        transcript_init(&t);
        how.piece = pieces[i];
        int got = run(&how, in, &t);
        if (got != status || strcmp(buf_slice(&t.text).ptr, text) != 0)
            fail_msg("in pieces of %zd: %.*s\n got %d %s\nwant %d %s", (ssize_t)pieces[i],
                     SLICE_ARGS(in), got, buf_slice(&t.text).ptr, status, text);
        transcript_done(&t);
    }
}

static const struct run requests = {.kind = HTTP_PARSE_REQUEST};
static const struct run responses = {.kind = HTTP_PARSE_RESPONSE};

static void check_request(const char *in, const char *text)
{
    check(requests, slice_of(in), 0, text);
}

static void check_response(const char *in, int status, const char *text)
{
    check(responses, slice_of(in), status, text);
}

/* --- requests -------------------------------------------------------------------------------- */

static void good_requests_are_read(void **state)
{
    (void)state;
    check_request("GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a?b 1.1 Host=h k||");
    check_request("GET / HTTP/1.0\r\n\r\n", "GET / 1.0 ||");
    check_request("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
                  "GET / 1.0 Connection=Keep-Alive k||");
    check_request("GET / HTTP/1.1\r\nHost:\r\nconnection: x , close\r\n\r\n",
                  "GET / 1.1 Host= connection=x , close ||");
    check_request("GET http://h/p HTTP/1.1\r\nHost:h \t\r\n\r\n", "GET http://h/p 1.1 Host=h k||");
    check_request("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
                  "OPTIONS * 1.1 Host=[::1]:80 k||");
    check_request("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
                  "POST / 1.1 Host=h Content-Length=5 k|hello|");
    check_request("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nExpect: 100-Continue\r\n\r\n",
                  "POST / 1.1 Host=h Content-Length=0 Expect=100-Continue ke||");
    check_request("M-SEARCH / HTTP/1.1\r\nHost: h\r\nX: \xc3\xa9\r\n\r\n",
                  "M-SEARCH / 1.1 Host=h X=\xc3\xa9 k||");
}

static void chunked_bodies_are_read(void **state)
{
    (void)state;
#define CHUNKED      "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n"
#define CHUNKED_HEAD "POST / 1.1 Host=h Transfer-Encoding=Chunked kc|"
    check_request(CHUNKED "0\r\n\r\n", CHUNKED_HEAD "|");
    check_request(CHUNKED "5\r\nhello\r\n00a\r\n, world!\r\n\r\n0\r\n\r\n",
                  CHUNKED_HEAD "hello, world!\r\n|");
    check_request(CHUNKED "1;a=b;c=\"d e\"\r\nx\r\n0;z\r\nA: b\r\nC:\r\n\r\n", CHUNKED_HEAD "x|");
    check_request(CHUNKED "1;a=\"b\\\"c\\\\\";d=\"\";e\r\nx\r\n0\r\n\r\n", CHUNKED_HEAD "x|");
}

static void pipelined_requests_are_read_one_after_the_other(void **state)
{
    (void)state;
    check_request("\r\n\r\nPOST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na\r\n"
                  "GET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n\r\n",
                  "POST / 1.1 Host=h Content-Length=1 k|a|GET /2 1.1 Host=h k||"
                  "GET /3 1.1 Host=h k||");
}

/* An offer of an upgrade changes nothing for those who do not take it up. */
static void offers_of_an_upgrade_are_requests_like_others(void **state)
{
    (void)state;
#define OFFER      "Host: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
#define OFFER_READ "Host=h Connection=Upgrade, HTTP2-Settings Upgrade=h2c"
    check_request("GET /1 HTTP/1.1\r\n" OFFER "\r\nGET /2 HTTP/1.1\r\n" OFFER "\r\n",
                  "GET /1 1.1 " OFFER_READ " ku||GET /2 1.1 " OFFER_READ " ku||");
    check_request("POST /1 HTTP/1.1\r\n" OFFER "Content-Length: 2\r\n\r\nabGET / HTTP/1.0\r\n\r\n",
                  "POST /1 1.1 " OFFER_READ " Content-Length=2 ku|ab|GET / 1.0 ||");
    check_request("CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.0\r\n\r\n",
                  "CONNECT h:1 1.1 Host=h k||GET / 1.0 ||");
}

static void what_is_ambiguous_is_refused(void **state)
{
    (void)state;
#define GET  "GET / HTTP/1.1\r\nHost: h\r\n"
#define POST "POST / HTTP/1.1\r\nHost: h\r\n"
    static const struct {
        int status;
        struct slice in;
    } table[] = {
#define BAD(status, text)                                                                          \
    {                                                                                              \
        status,                                                                                    \
        {                                                                                          \
            text, sizeof(text) - 1                                                                 \
        }                                                                                          \
    }
        BAD(400, POST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n"),
        BAD(400, POST "Content-Length: 1\r\nContent-Length: 1\r\n\r\na"),
        BAD(400, POST "Content-Length: 1, 1\r\n\r\na"),
        BAD(400, POST "Content-Length: 1\r\ncontent-length: 2\r\n\r\nab"),
        BAD(400, POST "Content-Length: +1\r\n\r\na"),
        BAD(400, POST "Content-Length: -1\r\n\r\na"),
        BAD(400, POST "Content-Length: 0x1\r\n\r\na"),
        BAD(400, POST "Content-Length: 1 1\r\n\r\na"),
        BAD(400, POST "Content-Length:\r\n\r\na"),
        BAD(400, POST "Content-Length: a\r\n\r\na"),
        BAD(413, POST "Content-Length: 9223372036854775808\r\n\r\na"),
        BAD(413, POST "Content-Length: 99999999999999999999\r\n\r\na"),
        BAD(400, POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        BAD(400, POST "Transfer-Encoding: identity\r\n\r\n"),
        BAD(400, POST "Transfer-Encoding: chunked, identity\r\n\r\n"),
        BAD(400, POST "Transfer-Encoding:\r\n\r\n"),
        BAD(400, POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
        BAD(400, POST "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"),
        BAD(501, POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        BAD(400, GET "X: \rxTransfer-Encoding: chunked\r\n\r\n"), /* CVE-2023-30589 */
        BAD(400, GET "X: a\r\n Content-Length: 5\r\n\r\n"),       /* CVE-2024-27982 */
        BAD(400, GET "X: a\r\n\tb\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n Host: h\r\n\r\n"),
        BAD(400, GET "X: a\n\r\n"),
        BAD(400, GET "X: a\nY: b\r\n\r\n"),
        BAD(400, GET "\n"),
        BAD(400, GET "X: a\r\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\nHost: h\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: h\r\n\rGET / HTTP/1.1\r\n"),
        BAD(400, "GET /\nHost: h\r\n\r\n"), /* llhttp#877 */
        BAD(400, "GET /\r\nHost: h\r\n\r\n"),
        BAD(400, "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "\rGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, GET "Content-Length : 1\r\n\r\n"),
        BAD(400, GET "X\t: 1\r\n\r\n"),
        BAD(400, GET "X Y: 1\r\n\r\n"),
        BAD(400, GET ": 1\r\n\r\n"),
        BAD(400, GET "X\r\n\r\n"),
        BAD(400, GET "X\x80: 1\r\n\r\n"),
        BAD(400, GET "X\0: 1\r\n\r\n"),
        BAD(400, GET "X: a\0b\r\n\r\n"),
        BAD(400, GET "X: a\x01\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        BAD(400, "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        BAD(400, "GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET /  HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
        BAD(400, " GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET /a\0b HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET / http/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET / RTSP/1.0\r\nHost: h\r\n\r\n"),
        BAD(400, "GET / ICE/1.0\r\nHost: h\r\n\r\n"),
        BAD(400, "GET / HTTP/1.10\r\nHost: h\r\n\r\n"),
        BAD(400, "GET / HTTP/1\r\nHost: h\r\n\r\n"),
        BAD(505, "GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
        BAD(505, "GET / HTTP/0.9\r\nHost: h\r\n\r\n"),
        BAD(505, "GET / HTTP/2.0\r\nHost: h\r\n\r\n"),
        BAD(505, "GET / HTTP/3.0\r\nHost: h\r\n\r\n"),
        BAD(400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        BAD(400, "get / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GETX / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "\x16\x03\x01\x02"),
        BAD(-1, "GET / HTTP/1.1\r\nHost: h\r\n"),
        BAD(-1, "G"),
        BAD(-1, "\r"),
#undef BAD
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        check(requests, table[i].in, table[i].status, "");
}

static void malformed_chunks_are_refused(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *in, *body;
    } table[] = {
        {400, "x", ""},
        {400, "\r\n", ""},
        {400, " 1\r\na\r\n0\r\n\r\n", ""},
        {400, "1 \r\na\r\n0\r\n\r\n", ""},
        {400, "0x1\r\na\r\n0\r\n\r\n", ""},
        {400, "-1\r\n", ""},
        {400, "+1\r\n", ""},
        {400, "1_0\r\n", ""},
        {400, "1\na\r\n0\r\n\r\n", ""},
        {400, "1\r\r\na\r\n0\r\n\r\n", ""},
        {400, "1;\r\na\r\n0\r\n\r\n", ""},
        {400, "1; a\r\na\r\n0\r\n\r\n", ""},
        {400, "1;a\nb\r\na\r\n0\r\n\r\n", ""},
        {400, "1;a\rb\r\na\r\n0\r\n\r\n", ""},
        {400, "1;a=\"b\r\na\r\n0\r\n\r\n", ""},
        {400, "1;a=\"b\\\"\r\na\r\n0\r\n\r\n", ""},
        {400, "1;a=\"\\\r\n\"\r\na\r\n0\r\n\r\n", ""},
        {413, "8000000000000000\r\n", ""},
        {413, "fffffffffffffffff\r\n", ""},
        {413, "00000000000000001\r\n", ""},
        {400, "5\r\nhelloXX0\r\n\r\n", "hello"},
        {400, "5\r\nhello\n0\r\n\r\n", "hello"},
        {400, "5\r\nhello!\r\n0\r\n\r\n", "hello"},
        {400, "0\r\nA: b\r\n c: d\r\n\r\n", ""},
        {400, "0\r\nA: b\n\r\n", ""},
        {400, "0\r\nGET / HTTP/1.1\r\n\r\n", ""},
        {400, "0\r\nA b: c\r\n\r\n", ""},
        {-1, "5\r\nhell", "hell"},
        {-1, "5\r\nhello\r\n", "hello"},
        {-1, "0\r\n", ""},
        {-1, "0\r\n\r", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        char in[256];
        (void)snprintf(in, sizeof(in), CHUNKED "%s", table[i].in);
        check(requests, slice_of(in), table[i].status, CHUNKED_HEAD);
    }
}

/* --- bounds ---------------------------------------------------------------------------------- */

static void add_repeated(struct buf *b, const char *text, size_t times)
{
    while (times-- > 0)
        buf_adds(b, text);
}

/* Is it taken with n and refused with n + 1 repetitions? Without an end (`after` is empty): waited
 * for more. */
static void check_bound(const char *before, const char *repeated, size_t n, const char *after,
                        int status)
{
    for (size_t more = 0; more < 2; more++)
        for (size_t piece = 1; piece < 10000; piece += 9998) {
            struct buf in;
            struct transcript t;
            struct run how = {.kind = HTTP_PARSE_REQUEST, .piece = piece};
            buf_init(&in, SIZE_MAX);
            transcript_init(&t);
            buf_adds(&in, before);
            add_repeated(&in, repeated, n + more);
            buf_adds(&in, after);
            int taken = after[0] != '\0' ? 0 : -1;
            assert_int_equal(run(&how, buf_slice(&in), &t), more == 0 ? taken : status);
            transcript_done(&t);
            buf_done(&in);
        }
}

static void everything_has_a_bound(void **state)
{
    (void)state;
    check_bound("GET /", "a", HTTP_TARGET_MAX - 1, " HTTP/1.1\r\nHost: h\r\n\r\n", 414);
    check_bound("GET / HTTP/1.1\r\nHost: h\r\n", "a:\r\n", HTTP_HEADERS_MAX - 1, "\r\n", 431);
    const char *head = "GET / HTTP/1.1\r\nHost: h\r\nA: ";
    check_bound(head, "a", HTTP_HEAD_MAX - strlen(head) - 4, "\r\n\r\n", 431);
    check_bound("", "\r\n", (HTTP_HEAD_MAX - 30) / 2, "GET / HTTP/1.1\r\nHost: hhh\r\n\r\n", 431);
    check_bound(CHUNKED "1;", "a", 16 * 1024, "\r\nb\r\n0\r\n\r\n", 413);
    check_bound(CHUNKED, "1;a=b\r\nx\r\n", 16 * 1024 / 3, "1;a\r\nx\r\n0\r\n\r\n", 413);
    check_bound(CHUNKED "0\r\n", "a:\r\n", HTTP_HEADERS_MAX, "\r\n", 431);
    check_bound(CHUNKED "0\r\nA:", "a", HTTP_HEAD_MAX - 6, "\r\n\r\n", 431);
    check_bound(CHUNKED "0\r\nA:", "a", HTTP_HEAD_MAX - 2, "", 431);
}

/* --- responses ------------------------------------------------------------------------------- */

static void responses_are_read(void **state)
{
    (void)state;
    check_response("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 404\r\n"
                   "Content-Length: 0\r\n\r\n",
                   0, "200 1.1 Content-Length=2 k|ab|404 1.1 Content-Length=0 k||");
    check_response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 0,
                   "200 1.1 Transfer-Encoding=chunked kc|a|");
    check_response("HTTP/1.1 200 OK\r\n\r\nto the end", 0, "200 1.1 x|to the end|");
    check_response("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", 0,
                   "200 1.0 Connection=keep-alive x||");
    check_response("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nHTTP/1.1 304 No\r\n\r\n", 0,
                   "204 1.1 Content-Length=5 k||304 1.1 k||");
    check_response("HTTP/1.1 200 \xc3\xa9 !\r\nContent-Length: 0\r\n\r\n", 0,
                   "200 1.1 Content-Length=0 k||");
}

static void informational_responses_are_skipped(void **state)
{
    (void)state;
    check_response("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\n"
                   "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
                   0, "200 1.1 Content-Length=1 k|a|");
    check_response("HTTP/1.1 100 Continue\r\n\r\n", -1, "");
    struct buf in;
    struct transcript t;
    struct run how = {.kind = HTTP_PARSE_RESPONSE, .piece = SIZE_MAX};
    buf_init(&in, SIZE_MAX);
    transcript_init(&t);
    add_repeated(&in, "HTTP/1.1 100 Continue\r\n\r\n", HTTP_HEAD_MAX / 25 + 1);
    assert_int_equal(run(&how, buf_slice(&in), &t), 431); /* no way to go on for ever */
    transcript_done(&t);
    buf_done(&in);
}

static void a_101_ends_http(void **state)
{
    (void)state;
    check_response("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x01x",
                   101, "101 1.1 Upgrade=websocket Connection=Upgrade ku|upgraded|");
}

static void an_answer_to_head_has_no_body(void **state)
{
    (void)state;
    struct run heads = {.kind = HTTP_PARSE_RESPONSE, .head_method = true};
    check(heads, SLICE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), 0,
          "200 1.1 Content-Length=5 k||");
    check(heads, SLICE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), 0,
          "200 1.1 Transfer-Encoding=chunked kc||");
    /* Only the first one answers it, also after a 1xx. */
    check(heads, SLICE("HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabc"),
          0, "200 1.1 k||200 1.1 x|abc|");
}

static void bad_responses_are_refused(void **state)
{
    (void)state;
    check_response("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                   400, "");
    check_response("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "");
    check_response("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "");
    check_response("HTTP/1.1 20 OK\r\n\r\n", 400, "");
    check_response("HTTP/1.1 2000 OK\r\n\r\n", 400, "");
    check_response("HTTP/1.1 099 OK\r\n\r\n", 400, "");
    check_response("HTTP/1.1 200\nA: b\r\n\r\n", 400, "");
    check_response("\r\nHTTP/1.1 200 OK\r\n\r\n", 400, "");
    check_response("HTTP/1.1 200OK\r\n\r\n", 400, "");
    check_response("ICY 200 OK\r\n\r\n", 400, "");
    check_response("HTTP/2.0 200 OK\r\n\r\n", 505, "");
    check_response("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", 400, "");
    check_response("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", -1,
                   "200 1.1 Content-Length=2 k|");
}

/* --- control --------------------------------------------------------------------------------- */

static void on_head_may_stop_and_feeding_goes_on_with_the_body(void **state)
{
    (void)state;
    struct transcript t;
    struct slice in = SLICE("POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nabGET");
    size_t used;
    transcript_init(&t);
    t.stop_at_head = true;
    struct http_parser *p = http_parser_new(HTTP_PARSE_REQUEST, &events, &t);
    assert_int_equal(http_parser_feed(p, in, &used, NULL, NULL), HTTP_PARSE_COMPLETE);
    assert_int_equal(used, in.len - 5);
    assert_true(http_parser_has_body(p));
    assert_string_equal(t.text.ptr, "POST / 1.0 Content-Length=2 |");
    in = (struct slice){in.ptr + used, 5};
    assert_int_equal(http_parser_feed(p, in, &used, NULL, NULL), HTTP_PARSE_COMPLETE);
    assert_int_equal(used, 2);
    assert_string_equal(t.text.ptr, "POST / 1.0 Content-Length=2 |ab|");
    assert_false(http_parser_has_body(p));
    http_parser_next(p);
    assert_false(http_parser_started(p));
    http_parser_free(p);
    transcript_done(&t);
}

static void next_drops_a_stopped_message(void **state)
{
    (void)state;
    struct transcript t;
    size_t used;
    transcript_init(&t);
    t.stop_at_head = true;
    struct http_parser *p = http_parser_new(HTTP_PARSE_REQUEST, &events, &t);
    struct slice in = SLICE("POST /1 HTTP/1.0\r\nContent-Length: 2\r\n\r\n");
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(http_parser_feed(p, in, &used, NULL, NULL), HTTP_PARSE_COMPLETE);
        assert_int_equal(used, in.len);
        http_parser_next(p);
    }
    http_parser_free(p);
    transcript_done(&t);
}

static void pause_stops_after_the_part(void **state)
{
    (void)state;
    struct transcript t;
    transcript_init(&t);
    t.pause = true;
    struct run how = {.kind = HTTP_PARSE_REQUEST, .piece = SIZE_MAX};
    assert_int_equal(run(&how, SLICE(CHUNKED "1\r\na\r\n1\r\nb\r\n0\r\n\r\n"), &t), 0);
    assert_string_equal(t.text.ptr, CHUNKED_HEAD "ab|");
    transcript_done(&t);

    size_t used;
    transcript_init(&t);
    t.pause = true;
    struct http_parser *p = http_parser_new(HTTP_PARSE_REQUEST, &events, &t);
    struct slice in = SLICE(CHUNKED "1\r\na\r\n1\r\nb\r\n0\r\n\r\n");
    assert_int_equal(http_parser_feed(p, in, &used, NULL, NULL), HTTP_PARSE_MORE);
    assert_string_equal(t.body.ptr, "a");
    assert_int_equal(used, strlen(CHUNKED) + 4);
    http_parser_free(p);
    transcript_done(&t);
}

static void a_refused_message_names_its_kind(void **state)
{
    (void)state;
    struct transcript t;
    struct err err;
    int status;
    size_t used;
    transcript_init(&t);
    struct http_parser *p = http_parser_new(HTTP_PARSE_REQUEST, &events, &t);
    assert_int_equal(http_parser_feed(p, SLICE("GET / HTTP/1.1\r\n\r\n"), &used, &status, &err),
                     HTTP_PARSE_FAILED);
    assert_int_equal(err.code, ERR_PROTOCOL);
    http_parser_next(p); /* and the parser may be used for another connection */
    assert_int_equal(http_parser_feed(p, SLICE("GET / HTTP/1.0\r\n\r\n"), &used, &status, &err),
                     HTTP_PARSE_COMPLETE);
    http_parser_free(p);
    transcript_done(&t);
}

static void how_much_to_read_goes_by_what_is_left(void **state)
{
    (void)state;
    struct transcript t;
    struct slice head = SLICE("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    char part[700];
    size_t used;
    memset(part, 'x', sizeof(part));
    transcript_init(&t);
    struct http_parser *p = http_parser_new(HTTP_PARSE_RESPONSE, &events, &t);
    assert_int_equal(http_parser_read_room(p, 10, 500), 10); /* nobody knows yet */
    assert_int_equal(http_parser_feed(p, head, &used, NULL, NULL), HTTP_PARSE_MORE);
    assert_int_equal(http_parser_read_room(p, 10, 500), 500);
    assert_int_equal(http_parser_read_room(p, 10, 0), 10);
    assert_int_equal(http_parser_feed(p, (struct slice){part, sizeof(part)}, &used, NULL, NULL),
                     HTTP_PARSE_MORE);
    assert_int_equal(http_parser_read_room(p, 10, 500), 300); /* and no more than that */
    assert_int_equal(http_parser_read_room(p, 400, 500), 400);
    http_parser_free(p);
    transcript_done(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_requests_are_read),
        cmocka_unit_test(chunked_bodies_are_read),
        cmocka_unit_test(pipelined_requests_are_read_one_after_the_other),
        cmocka_unit_test(offers_of_an_upgrade_are_requests_like_others),
        cmocka_unit_test(what_is_ambiguous_is_refused),
        cmocka_unit_test(malformed_chunks_are_refused),
        cmocka_unit_test(everything_has_a_bound),
        cmocka_unit_test(responses_are_read),
        cmocka_unit_test(informational_responses_are_skipped),
        cmocka_unit_test(a_101_ends_http),
        cmocka_unit_test(an_answer_to_head_has_no_body),
        cmocka_unit_test(bad_responses_are_refused),
        cmocka_unit_test(on_head_may_stop_and_feeding_goes_on_with_the_body),
        cmocka_unit_test(next_drops_a_stopped_message),
        cmocka_unit_test(pause_stops_after_the_part),
        cmocka_unit_test(a_refused_message_names_its_kind),
        cmocka_unit_test(how_much_to_read_goes_by_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
