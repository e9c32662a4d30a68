/* A TCP server that does what a script says, good or bad: one script a connection, in the order of
 * their coming; the last script serves all further ones. It lives in the test's own loop, so tests
 * are deterministic: nothing races but the kernel's buffers.
 *
 *     static const struct peer_step hello[] = {
 *         EXPECTS("\r\n\r\n"), SENDS("HTTP/1.1 200 OK\r\n…"), DOES(PEER_AGAIN)};
 *
 * When a script is over the connection stays open and is read, but nothing is answered. */
#ifndef PEER_H
#define PEER_H

#include "buf.h"
#include "loop_fixture.h"

enum { PEER_CONNS_MAX = 16 };

enum peer_act {
    PEER_SILENT,    /* the end of a script; never passed */
    PEER_EXPECT,    /* until this text has come behind what was expected before */
    PEER_SEND,      /* the text in one piece */
    PEER_SEND_MANY, /* the text, `number` times */
    PEER_DRIBBLE,   /* the text, byte by byte */
    PEER_DELAY,     /* `number` milliseconds */
    PEER_HOOK,      /* call `hook` */
    PEER_STOP,      /* read no more until the next PEER_READ */
    PEER_READ,
    PEER_SHUT, /* the sending half only */
    PEER_CLOSE,
    PEER_RESET, /* RST instead of FIN */
    PEER_AGAIN, /* from the first step */
};

#define EXPECTS(literal)                                                                           \
    {                                                                                              \
        .act = PEER_EXPECT, .text = (literal), .len = sizeof(literal) - 1                          \
    }
#define SENDS(literal)                                                                             \
    {                                                                                              \
        .act = PEER_SEND, .text = (literal), .len = sizeof(literal) - 1                            \
    }
#define DRIBBLES(literal)                                                                          \
    {                                                                                              \
        .act = PEER_DRIBBLE, .text = (literal), .len = sizeof(literal) - 1                         \
    }
#define SENDS_MANY(array, times)                                                                   \
    {                                                                                              \
        .act = PEER_SEND_MANY, .text = (array), .len = sizeof(array), .number = (times)            \
    }
#define WAITS(ms)                                                                                  \
    {                                                                                              \
        .act = PEER_DELAY, .number = (ms)                                                          \
    }
#define CALLS(fn)                                                                                  \
    {                                                                                              \
        .act = PEER_HOOK, .hook = (fn)                                                             \
    }
#define DOES(peer_act)                                                                             \
    {                                                                                              \
        .act = (peer_act)                                                                          \
    }

struct peer_conn;
struct peer_step {
    enum peer_act act;
    const char *text;
    unsigned number;
    void (*hook)(struct peer_conn *conn);
    size_t len; /* of text */
};

struct peer_conn {
    struct peer *peer;
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_write_t write;
    uv_shutdown_t shutdown;
    const struct peer_step *script, *step;
    size_t sent; /* of the present step */
    unsigned repeats;
    bool busy; /* a write or a timer will go on */
    bool open;
    bool ended;      /* the other side has closed or reset */
    struct buf in;   /* all that came */
    size_t expected; /* how much of it was expected so far */
    struct buf out;
};

struct peer {
    struct loop_fixture *loop;
    uv_tcp_t listener;
    unsigned port;
    const struct peer_step *const *scripts;
    unsigned script_count;
    unsigned accepted;
    struct peer_conn conns[PEER_CONNS_MAX];
    char read[64 * 1024];
};

/* Without a script (count 0) the port is taken, but connections are refused. */
void peer_open(struct peer *p, struct loop_fixture *loop, const struct peer_step *const *scripts,
               unsigned count);
/* The memory must live until loop_fixture_close() has returned; then peer_done(). */
void peer_close(struct peer *p);
void peer_done(struct peer *p);
/* For hooks. */
void peer_send(struct peer_conn *conn, struct slice bytes);

#endif
