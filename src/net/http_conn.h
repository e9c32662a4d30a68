/* Inside the server: what its files share.
 *
 *     http_server  listener, bounds, drain, close        http_req  what a handler asks
 *     http_conn    states of a connection, input         http_res  what a handler answers
 *     http_wait    its reading and its deadlines         http_out  output queue
 *     http_stream  what is left of one after an upgrade
 */
#ifndef HTTP_CONN_H
#define HTTP_CONN_H

#include "closer.h"
#include "deadline.h"
#include "http_server.h"
#include "later.h"

enum {
    HTTP_READ_BYTES = 64 * 1024,
    HTTP_READ_BODY_BYTES = 512 * 1024,    /* of a body that is longer: each read wakes the peer */
    HTTP_UNREAD_BYTES = 16 * 1024,        /* read ahead of their turn; then reading stops. Of a
                                             paused body one read, whatever it brings */
    HTTP_SKIP_BYTES = 64 * 1024,          /* of a body that no handler wanted */
    HTTP_LINGER_BYTES = 16 * 1024 * 1024, /* thrown away while the peer reads our last words */
    HTTP_LINGER_MS = 2000,
    HTTP_HALF_MS = 1000, /* a peer that has closed its side may just have nothing more to say;
                            this long its answer may take */
    HTTP_RELISTEN_MS = 100,
    HTTP_SPARE_PARSERS =
        128, /* some 200 KiB after as many requests at once, of large heads 2 MiB */
};

enum http_deadline {
    DEADLINE_HEAD,
    DEADLINE_BODY,
    DEADLINE_IDLE,
    DEADLINE_HALF,
    DEADLINE_LINGER,
    DEADLINE_WRITE,
    DEADLINE_STREAM,
    DEADLINE_RELISTEN,
    DEADLINES,
    DEADLINE_NONE = DEADLINES,
};

enum conn_state {
    CONN_IDLE, /* nothing of a next request is here */
    CONN_HEAD, /* part of a head is here */
    CONN_BUSY, /* a request is with its handler */
    CONN_ANSWERED,
    CONN_STREAM, /* not HTTP any more: bytes go to the stream's owner */
    CONN_RESET,  /* the handler cannot keep what it promised */
    CONN_SKIP,   /* answered; the rest of its body is thrown away */
    CONN_FLUSH,  /* ends when what is queued has left; reads no more */
    CONN_LINGER, /* our side is shut; reads until the peer has closed its own */
    CONN_CLOSED, /* uv_close() was called */
};

enum body_reader {
    READER_NONE, /* the handler has not asked */
    READER_WHOLE,
    READER_PARTS,
    READER_DONE, /* it has been told the end */
};

struct http_req {
    struct http_conn *conn;
    const struct http_head *head; /* the parser's */
    struct http_target target;
    struct buf origin; /* http_req_target(), where it does not lie in one piece */
    void *data;
    http_abort_cb on_abort;
    void (*on_drain)(struct http_req *req);
    bool drain_due; /* http_write() said false */

    enum body_reader reader;
    bool paused;
    uint64_t body_seen;
    struct err body_err; /* code ERR_OK: none */
    http_body_cb on_whole;
    struct http_body_events parts;
    struct buf body;
    struct buf *body_given; /* inside on_whole */

    struct http_headers own; /* go with the answer */
    bool over;               /* options.over was told */
    bool begun;              /* the head of the answer is queued */
    bool bodyless;           /* HEAD, 204, 304 */
    bool chunked;
    int64_t left; /* of a declared length; -1: none */
};

struct http_stream {
    struct http_conn *conn;
    struct http_stream_options options;
    enum err_code end; /* what on_end will say; ERR_OK: that the peer is gone */
    const char *why;   /* static; of `end` */
    bool paused;
    bool drain_due; /* http_stream_write() said false */
};

struct http_conn {
    uv_tcp_t tcp;
    uv_write_t write;
    struct http_server *server;
    struct list_node link;
    struct later_item step; /* go on, from the loop */
    struct deadline read_deadline, write_deadline;
    enum http_deadline read_class;
    enum conn_state state;
    struct http_parser *parser; /* from the first byte of a request to its end */
    struct http_req *req;
    struct http_stream *stream;

    struct buf unread;  /* input whose turn has not come */
    struct buf out;     /* output that is not with libuv yet */
    struct buf sending; /* what is */
    uint64_t dropped;   /* bytes, in CONN_SKIP and CONN_LINGER */
    uint64_t write_mark;

    bool fresh;   /* nothing was asked yet: a head is due, and it is not closed for others */
    bool working; /* conn_work() is on the stack */
    bool counted; /* among those for which a drain waits */
    bool reading, writing;
    bool eof;       /* the peer has closed its side */
    bool broken;    /* the socket has failed */
    bool keep;      /* another request may follow the present one */
    bool last_said; /* the peer has told that nothing follows: no need to linger */
    char peer[INET6_ADDRSTRLEN];
};

struct http_server {
    uv_loop_t *loop;
    struct later *later;
    struct http_server_options options;
    char host[INET6_ADDRSTRLEN];
    unsigned port;
    uv_tcp_t listener;
    bool listening, listener_open; /* open: until its close callback */
    bool accept_waits;             /* a peer waits for a connection to end */
    struct later_item accept, drained, close;
    struct deadlines deadlines;
    struct deadline_class classes[DEADLINES];
    struct deadline relisten;

    struct list_node conns;
    unsigned live; /* connections that are counted */
    struct http_parser *spare[HTTP_SPARE_PARSERS];
    unsigned spare_count;
    struct buf scratch; /* heads are built here */
    char date[32];
    uint64_t date_s;
    struct http_server_stats stats;

    bool started, draining, closing;
    struct closer closer;
    void (*on_drained)(void *ctx);
    void *drained_ctx;
    void (*on_closed)(void *ctx);
    void *closed_ctx;
    char read_bytes[HTTP_READ_BODY_BYTES]; /* for all: parsed before the loop goes on */
};

/* http_server.c */
struct http_parser *server_take_parser(struct http_server *s, struct http_conn *c);
void server_give_parser(struct http_server *s, struct http_parser *take_parser);
void server_conn_ended(struct http_conn *c);    /* it is not counted any more */
void server_conn_idle(struct http_server *s);   /* it may be closed for another */
void server_conn_closed(struct http_server *s); /* its descriptor is free */
const char *server_date(struct http_server *s);

/* http_conn.c */
extern const struct http_parser_events conn_parser_events;
void conn_accept(struct http_server *s);
void conn_go_on(struct http_conn *c);                 /* soon, from the loop */
void conn_work(struct http_conn *c, struct slice in); /* now; loop callbacks only */
void conn_answered(struct http_conn *c);              /* the answer is queued; frees the request */
void conn_reset(struct http_conn *c);                 /* there will be none; frees it too */
void conn_to_stream(struct http_conn *c, struct http_stream *stream); /* frees the request */
void conn_finish(struct http_conn *c); /* no further request; flush and close */
/* Ends it at once; a handler is told. reset: the peer must not take what it has for everything. */
void conn_cut(struct http_conn *c, bool reset);
void conn_close(struct http_conn *c, bool reset);                      /* without a request */
void conn_refuse(struct http_conn *c, int status, const char *detail); /* an answer and the end */
bool conn_body_is_due(const struct http_conn *c); /* the handler waits for bytes of it */

/* http_wait.c */
void conn_arm(struct http_conn *c);
void conn_on_head_over(struct deadline *d);
void conn_on_body_over(struct deadline *d);
void conn_on_idle_over(struct deadline *d);
void conn_on_half_over(struct deadline *d);
void conn_on_linger_over(struct deadline *d);

/* http_req.c */
void req_deliver_body(struct http_req *req); /* its end, or why there is none */
void req_take_part(struct http_req *req, struct slice part);
void req_over(struct http_req *req); /* tells, once */
void req_free(struct http_req *req);

/* http_out.c */
size_t out_pending(const struct http_conn *c);
void out_add(struct http_conn *c, struct slice bytes); /* leaves with the next write */
/* What was added and then these, as much as the socket takes now; the rest is copied. */
void out_write(struct http_conn *c, const uv_buf_t *bufs, unsigned count);
void out_flush(struct http_conn *c);
void out_done(struct http_conn *c);
void out_on_write_over(struct deadline *d);

/* http_res.c */
uv_buf_t res_bytes(struct slice s); /* for writing: is only read */
/* An answer where there is no handler: {"message":"RequestParamsError","error":{…}} and the end. */
void res_refuse(struct http_conn *c, int status, const char *detail);
void res_add_headers(struct buf *out, const struct http_headers *extra);

/* http_stream.c */
bool stream_serve(struct http_conn *c, struct slice *in); /* true if there may be more to do */
void stream_on_eof(struct http_conn *c);
void stream_cut(struct http_conn *c, bool reset); /* closes, then tells the owner why */
/* Why it will have been cut; `why` is static. The first reason stands. */
static inline void stream_doom(struct http_stream *s, enum err_code end, const char *why)
{
    if (s->end != ERR_OK)
        return;
    s->end = end;
    s->why = why;
}

#endif
