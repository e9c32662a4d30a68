/* HTTP/1.1 server: listener, connections, and what a route handler sees.
 *
 * The handler is called when a request's head is whole; its body waits unread (back-pressure on the
 * socket) until the handler asks for it. One request of a connection is handled at a time,
 * pipelined ones wait. `struct http_req` lives until http_end()/http_respond()/http_reset() was
 * called, or until the abort callback has run: whichever is first. After that it must not be
 * touched. No callback ever runs inside a call of the handler's into this interface.
 *
 * Bounds (struct http_server_options) and what happens beyond them: target 414, head 431, head time
 * 408, body 413, connections: accept waits (the longest idle one is closed first). A peer that does
 * not read is cut after write_ms without progress. All memory is bounded per connection; whole
 * bodies, which can be large, have a budget for all connections together.
 */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include "http_parser.h"
#include "tcp_peer.h"

#include <uv.h>

struct later;
struct http_server;
struct http_req;
struct http_stream;

typedef void (*http_handler_cb)(struct http_req *req, void *ctx);

struct http_server_options {
    const char *host; /* in numbers */
    unsigned port;    /* 0: any, see http_server_port() */
    unsigned connections_max;
    uint64_t head_ms, body_ms, idle_ms, write_ms; /* whole head; between body bytes; keep-alive; a
                                                     stuck write */
    uint64_t stream_ms;                           /* a stuck write of a stream */
    size_t stream_max;                            /* bytes queued for a stream's peer */
    struct budget *bodies;                        /* of whole bodies; NULL: no bound */
    http_handler_cb handler;
    /* NULL allowed. A request that the handler got is over: answered, upgraded or aborted; the end
     * of its answer leaves after this. The request can be read, and nothing else. */
    http_handler_cb over;
    void *ctx;
};
#define HTTP_SERVER_DEFAULTS                                                                       \
    .host = "0.0.0.0", .connections_max = 4096, .head_ms = 10000, .body_ms = 60000,                \
    .idle_ms = 900000, .write_ms = 60000, .stream_ms = 10000, .stream_max = 8u << 20

struct http_server *http_server_new(uv_loop_t *loop, struct later *later,
                                    const struct http_server_options *options);
/* ERR_INVALID: no address, or none of this machine's. ERR_UNAVAILABLE: the port is taken, or not
 * for us. */
enum err_code http_server_start(struct http_server *s, struct err *err) MUST_CHECK;
unsigned http_server_port(const struct http_server *s);
/* Accepts no more, closes idle connections; running requests go on and their connections close
 * after them ("connection: close" in their answers). `drained` (may be NULL) is called, from the
 * loop, when no request is left. */
void http_server_drain(struct http_server *s, void (*drained)(void *ctx), void *ctx);
/* Cuts what is left; handlers of running requests get their abort callback first. Frees. */
void http_server_close(struct http_server *s, void (*closed)(void *ctx), void *ctx);

struct http_server_stats {
    uint64_t accepted, requests, bytes_in, bytes_out,
        refused; /* refused: heads that were no HTTP */
    unsigned connections, in_flight, streams;
};
struct http_server_stats http_server_stats(const struct http_server *s);

/* The request. Slices live as long as the request. */
struct slice http_req_method(const struct http_req *req);
struct slice http_req_path(const struct http_req *req);  /* as sent, still percent-encoded */
struct slice http_req_query(const struct http_req *req); /* without '?' */
/* Path and query as the next server is asked for them: "/a?x=1", or "*". */
struct slice http_req_target(struct http_req *req);
const struct http_headers *http_req_headers(const struct http_req *req);
const struct http_head *http_req_head(const struct http_req *req);
const char *http_req_peer(const struct http_req *req);    /* address in numbers */
void http_req_set_data(struct http_req *req, void *data); /* the handler's own */
void *http_req_data(const struct http_req *req);

/* The peer is gone, or the server closes: the last callback of this request. */
typedef void (*http_abort_cb)(struct http_req *req);
void http_on_abort(struct http_req *req, http_abort_cb cb);

/* The whole body, at most max bytes (declared or real: ERR_TOO_LARGE, before reading on), within
 * the budget of all bodies (ERR_BUSY). The slice dies with the callback; http_take_body() inside it
 * hands the memory over, with its part of the budget. Sends 100 Continue if the client waits for
 * it. */
typedef void (*http_body_cb)(struct http_req *req, const struct err *err, struct slice body);
void http_read_body(struct http_req *req, size_t max, http_body_cb cb);
void http_take_body(struct http_req *req, struct buf *ret);

/* The body in parts, for relays. on_part may call http_pause_body(); on_end comes once, err != NULL
 * when the body broke. */
struct http_body_events {
    void (*on_part)(struct http_req *req, struct slice part);
    void (*on_end)(struct http_req *req, const struct err *err);
};
void http_stream_body(struct http_req *req, const struct http_body_events *events);
void http_pause_body(struct http_req *req);
void http_resume_body(struct http_req *req);

/* A header that goes with the answer, whoever gives it: for what holds for all answers to a
 * request. What is no header is left out. */
void http_add_header(struct http_req *req, struct slice name, struct slice value);

/* Answers. `extra` (NULL allowed) are further headers; content-type, content-length,
 * transfer-encoding, date and connection are the server's business (but with `type` NULL,
 * content-type may be among them). A HEAD request gets the head
 * only, whatever is written. A body that was not read is discarded (bounded) or the connection is
 * closed after the answer. */
void http_respond(struct http_req *req, int status, const char *type, struct slice body,
                  const struct http_headers *extra);
/* Streaming: content_length < 0 means unknown (chunked; on HTTP/1.0 until close). */
void http_begin(struct http_req *req, int status, const char *type, int64_t content_length,
                const struct http_headers *extra);
/* Copies. False: more than HTTP_WRITE_HIGH bytes wait; the bytes are accepted, but go on only in
 * on_drain. ASSERTs that a declared length is not exceeded. */
enum { HTTP_WRITE_HIGH = 256 * 1024, HTTP_WRITE_LOW = 64 * 1024 };
bool http_write(struct http_req *req, struct slice part);
/* Is everything with the kernel? What was only gathered for one write goes now. */
bool http_is_clear(struct http_req *req);
void http_on_drain(struct http_req *req, void (*on_drain)(struct http_req *req));
void http_end(struct http_req *req);
/* After http_begin: what was promised cannot be kept. The connection is cut so that the client sees
 * a broken message (no last chunk, missing bytes). No abort callback follows. */
void http_reset(struct http_req *req);

/* After HTTP. A request that offers it (http_req_may_upgrade()) is answered with 101 and ends
 * there; its connection goes on as a stream of bytes in both directions.
 *
 * A stream lives until http_stream_shut() or http_stream_reset() was called, or until on_end has
 * run: whichever is first. After that it must not be touched, and nothing is called back. No
 * callback runs inside http_upgrade() or a call of the owner's on the stream. Bytes that came
 * behind the request's head are the first to be delivered. */
struct http_stream_options {
    void (*on_bytes)(struct http_stream *s, struct slice bytes);
    /* After a write said false: there is room again (HTTP_WRITE_LOW). NULL allowed. */
    void (*on_drain)(struct http_stream *s);
    /* NULL (never while paused): the peer has closed its side and all that it sent was delivered;
     * what is queued for it still leaves. Else the connection is cut: ERR_CLOSED, the peer is gone;
     * ERR_TIMEOUT, it took nothing for stream_ms; ERR_TOO_LARGE, it was stream_max behind;
     * ERR_CANCELLED, the server closes. */
    void (*on_end)(struct http_stream *s, const struct err *err);
    void *data;
    bool lasting; /* has no end of its own for which a drain should wait: open until then, or until
                     the server closes */
};
/* HTTP/1.1, `connection: upgrade` with an `upgrade`, and no body. */
bool http_req_may_upgrade(const struct http_req *req);
/* `extra` are further headers of the 101 (`upgrade: websocket`, …); `connection: upgrade` is
 * written here. All is copied. The request ends. */
struct http_stream *http_upgrade(struct http_req *req, const struct http_headers *extra,
                                 const struct http_stream_options *options);
void *http_stream_data(const struct http_stream *s);
/* Copies what does not leave at once. False: more than HTTP_WRITE_HIGH bytes wait; they are
 * accepted, but who can should go on only in on_drain. What would be more than stream_max is not
 * taken: the peer is cut and on_end follows. */
bool http_stream_write(struct http_stream *s, struct slice bytes);
size_t http_stream_pending(const struct http_stream *s); /* bytes not yet with the kernel */
bool http_stream_is_clear(struct http_stream *s);        /* as http_is_clear() */
bool http_stream_peer(const struct http_stream *s, struct tcp_peer *ret); /* as tcp_peer_ask() */
/* Bytes stay with the peer (back-pressure); its leaving is then seen late. */
void http_stream_pause(struct http_stream *s);
void http_stream_resume(struct http_stream *s);
/* The end, after all that was written: our side is shut, what the peer still sends is thrown away
 * until it has closed its own (2 s). */
void http_stream_shut(struct http_stream *s);
/* At once; the peer sees a broken connection. What is queued is lost. */
void http_stream_reset(struct http_stream *s);

#endif
