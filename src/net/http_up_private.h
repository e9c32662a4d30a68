/* Inside http_up: what its four files share. http_up.c has the pool, the waiting calls and the
 * timer; http_up_conn.c one connection, its socket and parser; http_up_send.c a call's request;
 * http_up_call.c its deadlines, its answer and its end.
 *
 *   waiting ─► connecting ─► sending ─► head ─► body ─► ended ─► on_end, from `later`
 *      └─ a pooled connection ──▲
 *
 * A call and its connection know each other while they belong together. No callback of the caller
 * runs but from the parser (under a read), a completed write, or `later`. */
#ifndef HTTP_UP_PRIVATE_H
#define HTTP_UP_PRIVATE_H

#include "closer.h"
#include "http_parser.h"
#include "http_request.h"
#include "http_up.h"
#include "later.h"

enum {
    UP_OUT_KEPT = 32 * 1024,    /* memory for the next request */
    UP_EXPECT_MAX = 256 * 1024, /* of a declared body: reserved before it has come */
    UP_GAP_MS = 500,            /* a timer this late means that we did not run */
};

#define UP_NEVER UINT64_MAX

static inline uint64_t up_default_ms(uint64_t ms, uint64_t fallback)
{
    return ms != 0 ? ms : fallback;
}

struct up_conn {
    struct http_up *up;
    struct list_node link; /* in up->idle, or in no list */
    struct up_call *call;  /* NULL: idle or closing */
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    struct http_parser *parser;
    struct buf out; /* what uv_write is at, content of the caller excepted */
    bool connected, reading, writing, closing;
    bool reused;     /* has answered a call before the present one */
    bool broken;     /* a write failed; what there is to read is still read */
    bool keep_alive; /* says the answer's head */
    unsigned generation;
    uint64_t idle_until;
};

struct up_call {
    struct http_call *call;
    struct http_up *up;
    struct list_node link; /* in up->waiting or up->running; in none when it has ended */
    struct up_conn *conn;  /* NULL: waiting or ended */
    struct later_item turn;
    struct err err; /* what on_end will say; ERR_OK: nothing went wrong */
    bool ended, delivering;
    bool retried;
    bool paused, resumed;
    bool source_silent, more; /* read_content said "none now"; http_up_more() was called */
    bool content_asked;
    bool request_left; /* whole */
    bool answered;     /* a byte of an answer has come */
    bool headed;       /* its head has come */
    bool whole;        /* all of it has; parts may still be held */
    int64_t content_left;
    uint64_t connect_at, head_at, total_at; /* when they are over; UP_NEVER */
    uint64_t due_at;
    struct buf held; /* parts that came after a pause; at most what one read brings */
};

struct http_up {
    char *host;
    struct sockaddr_storage address;
    char authority[HTTP_AUTHORITY_MAX];
    bool has_address;
    unsigned port, connections_max, idle_max;
    uint64_t idle_ms;
    uv_loop_t *loop;
    struct later *later;
    struct closer closer; /* timer, connections, calls */
    uv_timer_t timer;
    uint64_t timer_at;     /* UP_NEVER: not running */
    struct list_node idle; /* the most recently used first */
    struct list_node waiting, running;
    unsigned open, idle_count; /* idle ones are open too */
    unsigned generation;       /* connections of an earlier one are not pooled */
    bool closing;
    bool busy; /* the lists are being walked: nothing is dispatched */
    void (*closed)(void *ctx);
    void *closed_ctx;
    char read[HTTP_PART_MAX]; /* shared: what is read is used up before the callback returns */
};

/* http_up.c */
void up_dispatch(struct http_up *up); /* a slot may have become free */
void up_need_timer(struct http_up *up, uint64_t at);

/* http_up_conn.c */
struct up_conn *up_conn_new(struct http_up *up, struct err *err); /* NULL: could not begin */
/* The connection's next request is this call's. */
void up_conn_begin(struct up_conn *conn, struct up_call *u);
void up_conn_close(struct up_conn *conn);
/* Its call has ended well: into the pool, if it may be used again. */
void up_conn_release(struct up_conn *conn);
void up_conn_read_stop(struct up_conn *conn);
void up_conn_read_start(struct up_conn *conn);
/* conn->out and, behind it, `content`, which stays the caller's. At once and in one go if the
 * kernel takes it (false: not all; up_call_on_written() follows). */
bool up_conn_write_now(struct up_conn *conn, struct slice content);
/* The same, and `after` behind that; up_call_on_written() follows, unless it fails or the call
 * ends before. */
void up_conn_write(struct up_conn *conn, struct slice content, struct slice after);

/* http_up_send.c */
void up_call_send(struct up_call *u); /* its connection is there */
void up_call_send_on(struct up_call *u);
void up_call_on_written(struct up_call *u);

/* http_up_call.c */
struct up_call *up_call_new(struct http_up *up, struct http_call *call);
void up_call_on_request_left(struct up_call *u); /* whole */
bool up_call_on_head(struct up_call *u, const struct http_head *head);
void up_call_on_body(struct up_call *u, struct slice part);
void up_call_on_whole(struct up_call *u);
/* The connection is gone; status is libuv's. */
void up_call_on_lost(struct up_call *u, int status);
void up_call_start_clock(struct up_call *u); /* all its deadlines from now on */
void up_call_arm(struct up_call *u);         /* something has moved: the next deadline */
void up_call_expire(struct up_call *u);
/* Not well: `up_call_end(u, err_set(&u->err, …))`. */
void up_call_end(struct up_call *u, enum err_code why);
bool up_call_is_head(const struct up_call *u);

#endif
