/* What a parser says about a stream, as text: the same whether the stream comes whole or in pieces.
 * Shared by the fuzz targets of both directions. */
#ifndef HTTP_EVENTS_H
#define HTTP_EVENTS_H

#include "http_parser.h"

#include <stdio.h>
#include <stdlib.h>

struct http_events {
    struct buf text, body;
};

static bool http_events_on_head(struct http_parser *p, const struct http_head *head)
{
    struct http_events *e = http_parser_owner(p);
    buf_addf(&e->text, "head %.*s %.*s %d %u %d%d%d%d%d%d %llu\n", SLICE_ARGS(head->method),
             SLICE_ARGS(head->target), head->status, head->minor, head->keep_alive, head->upgrade,
             head->expect_100, head->chunked, head->has_length, head->until_close,
             (unsigned long long)head->length);
    for (unsigned i = 0; i < head->headers.count; i++) {
        buf_add(&e->text, http_headers_name(&head->headers, i));
        buf_adds(&e->text, "=");
        buf_add(&e->text, http_headers_value(&head->headers, i));
        buf_adds(&e->text, "\n");
    }
    ASSERT(head->headers.count <= HTTP_HEADERS_MAX && head->target.len <= HTTP_TARGET_MAX);
    ASSERT(!head->chunked || !head->has_length);
    struct slice host;
    ASSERT(head->status != 0 || head->minor == 0 ||
           http_headers_count(&head->headers, "host", &host) == 1);
    return true;
}

static void http_events_on_body(struct http_parser *p, struct slice part)
{
    struct http_events *e = http_parser_owner(p);
    ASSERT(part.len > 0);
    buf_add(&e->body, part);
}

static void http_events_on_end(struct http_parser *p)
{
    struct http_events *e = http_parser_owner(p);
    buf_adds(&e->body, "\nend\n");
    buf_add(&e->text, buf_slice(&e->body));
    buf_reset(&e->body);
}

/* The whole stream in pieces of at most `piece` bytes, each a copy of exactly its size. */
static void http_events_run(struct http_events *e, enum http_parser_kind kind, struct slice in,
                            size_t piece)
{
    static const struct http_parser_events events = {http_events_on_head, http_events_on_body,
                                                     http_events_on_end};
    enum http_parse_result result = HTTP_PARSE_MORE;
    struct err err = {.code = ERR_OK};
    int status = 0;
    struct http_parser *p = http_parser_new(kind, &events, e);
    buf_init(&e->text, SIZE_MAX);
    buf_init(&e->body, SIZE_MAX);
    while (in.len > 0 && (result == HTTP_PARSE_MORE || result == HTTP_PARSE_COMPLETE)) {
        size_t n = in.len < piece ? in.len : piece;
        char *copy = xmalloc(n);
        size_t used = 0;
        memcpy(copy, in.ptr, n);
        result = http_parser_feed(p, (struct slice){copy, n}, &used, &status, &err);
        free(copy);
        ASSERT(used <= n && (used == n || result != HTTP_PARSE_MORE));
        in = (struct slice){in.ptr + used, in.len - used};
        if (result == HTTP_PARSE_COMPLETE)
            http_parser_next(p);
    }
    if (result == HTTP_PARSE_MORE || result == HTTP_PARSE_COMPLETE)
        result = http_parser_eof(p, &err);
    buf_add(&e->text, buf_slice(&e->body));
    if (result == HTTP_PARSE_FAILED)
        buf_addf(&e->text, "\nfailed %d: %s\n", status, err.msg);
    else
        buf_addf(&e->text, "\nresult %d, %zu left\n", result, in.len);
    buf_done(&e->body);
    http_parser_free(p);
}

/* The first byte chooses the pieces, the others are the stream. */
static int http_events_compare(enum http_parser_kind kind, const uint8_t *data, size_t size)
{
    struct http_events whole, pieces;
    if (size == 0)
        return 0;
    struct slice in = {(const char *)data + 1, size - 1};
    http_events_run(&whole, kind, in, SIZE_MAX);
    http_events_run(&pieces, kind, in, (size_t)(data[0] % 16) + 1);
    if (!slice_eq(buf_slice(&whole.text), buf_slice(&pieces.text))) {
        (void)fprintf(stderr, "--- whole\n%s--- in pieces\n%s", whole.text.ptr, pieces.text.ptr);
        abort();
    }
    buf_done(&whole.text);
    buf_done(&pieces.text);
    return 0;
}

#endif
