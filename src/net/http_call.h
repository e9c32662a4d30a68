/* One request that we make, and its answer. Filled by whoever asks, driven by http_up (plain HTTP
 * to ComfyUI) and, for addresses outside, by a libcurl driver with the same shape.
 *
 * The struct and everything it points to is the caller's until on_end. on_end comes exactly once
 * after a start, from the loop and never inside a call of the caller's; when it has returned the
 * struct is free again (it is still looked at then: it may not be freed or started inside). Answers
 * are given in parts (on_part) or, without on_part, collected in `body` up to body_max.
 */
#ifndef HTTP_CALL_H
#define HTTP_CALL_H

#include "http_msg.h"

enum { HTTP_PART = 64 * 1024, HTTP_PART_MAX = 256 * 1024 };

struct http_call {
    /* request */
    const char *method;           /* a literal */
    struct slice target;          /* "/view?filename=…" */
    struct http_headers *headers; /* NULL: none. Host is added if it is not among them; what frames
                                     the message or is of one hop only is left out: ours to say */
    struct slice content;         /* the whole body; a streamed one comes by read_content */
    int64_t content_length;       /* of a streamed body; -1: chunked. Used if read_content is set */
    /* The next part of the body, which stays where it is until the next one is asked for, or until
     * on_end (the socket has been closed by then if it was being written): 1; 0: the end; -1: none
     * now, http_up_more() follows; -2: broken off, the call ends with ERR_CANCELLED. */
    int (*read_content)(struct http_call *call, struct slice *ret_part);
    /* Safe to send again when a kept-alive connection turns out to be closed before any byte of an
     * answer? GET and HEAD always are; a POST only when the caller says so. */
    bool repeatable;
    uint64_t connect_ms, head_ms, idle_ms; /* to connect; until the head; between bytes (either
                                              way). 0: 5 s, 60 s, 60 s */
    uint64_t total_ms;                     /* 0: none */
    size_t body_max;                       /* collected bodies; beyond: ERR_TOO_LARGE */
    /* Of the parts of a long answer of declared length: HTTP_PART, or up to so much, at most
     * HTTP_PART_MAX. The larger, the more memory they take on their way, and the fewer they are:
     * each wakes the peer and the caller. */
    size_t part_max;

    /* answer */
    void (*on_head)(struct http_call *call);                    /* status and headers are there */
    void (*on_part)(struct http_call *call, struct slice part); /* may call http_up_pause() */
    void (*on_end)(struct http_call *call, const struct err *err); /* NULL: whole and well-formed */
    void *ctx;

    int status;                      /* 0 until the head has come */
    struct http_headers res_headers; /* init and done by the driver; die after on_end. From on_head
                                        on the caller may change them, but not in on_end */
    int64_t res_length;              /* -1: not declared */
    struct buf body;                 /* collected; dies after on_end (buf may be stolen in it) */
    bool sent;                       /* had the request left whole or in part when it ended? */

    void *driver; /* the driver's own; NULL when idle */
};

#endif
