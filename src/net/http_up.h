/* The plain-HTTP hop to ComfyUI: llhttp on uv_tcp, a pool of kept-alive connections to one address,
 * streaming both ways. A numeric address only: nothing is looked up.
 *
 * A pooled connection may be closed by the server under our request: a repeatable call (GET, HEAD,
 * or so marked) that got no byte of an answer on a reused connection is sent once more on a fresh
 * one, as is any call of which no byte had left; others end with ERR_CLOSED. A streamed body of
 * which a part was asked for is never sent again. Content codings are not asked for.
 *
 * connect_ms runs while a call waits for a connection, head_ms from when the request has left. No
 * deadline but total_ms runs while the caller is the one who is waited for (paused, or without
 * content), and all begin anew after a time in which the loop did not run. */
#ifndef HTTP_UP_H
#define HTTP_UP_H

#include "http_call.h"

#include <uv.h>

struct later;
struct http_up;

struct http_up_options {
    const char *host; /* in numbers */
    unsigned port;
    unsigned connections_max; /* further calls wait in order; their deadlines run */
    /* Kept open for the next call. If fewer than run at once, most calls of a busy time begin with
     * a new connection: answers come in bunches. */
    unsigned idle_max;
    uint64_t idle_ms; /* a pooled connection older than this is not used again */
};
#define HTTP_UP_DEFAULTS .connections_max = 64, .idle_max = 64, .idle_ms = 50000

struct http_up *http_up_new(uv_loop_t *loop, struct later *later,
                            const struct http_up_options *options);
void http_up_start(struct http_up *up, struct http_call *call);
/* on_end follows with ERR_CANCELLED, later, from the loop. */
void http_up_cancel(struct http_call *call);
void http_up_pause(struct http_call *call); /* stop reading; may deliver no part after it returns */
void http_up_resume(struct http_call *call);
void http_up_more(struct http_call *call); /* read_content has something again */
/* Drops the pool (the server was restarted, the process was frozen); running calls go on. */
void http_up_forget(struct http_up *up);
/* Cancels what runs, then frees; `closed` comes after every on_end. */
void http_up_close(struct http_up *up, void (*closed)(void *ctx), void *ctx);

#endif
