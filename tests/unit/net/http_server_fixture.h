/* A server with one handler, and clients that say what clients say, politely or not, in whole or in
 * pieces, and leave when they like. Clients are plain sockets; the loop turns while they wait. */
#ifndef HTTP_SERVER_FIXTURE_H
#define HTTP_SERVER_FIXTURE_H

#include "http_conn.h"
#include "loop_fixture.h"
#include "unit.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAIT_MS = 50000 };

struct server_test {
    struct loop_fixture f;
    struct http_server *server;
    bool closed;
    http_handler_cb handler;
    struct http_req *req; /* the last one that a handler kept; NULL after its abort */
    unsigned calls, aborts, drains, ends;
    struct buf log;
    struct err err;
};
extern struct server_test t; /* of the test that runs */

extern const struct http_server_options usual;
void start(http_handler_cb handler, struct http_server_options options);
void stop(void); /* closes the server if the test has not */
void turn(void); /* of the loop, without waiting */
void on_closed(void *ctx);

#define wait_for(condition)                                                                        \
    do {                                                                                           \
        uint64_t wait_end = clock_mono_ms() + WAIT_MS;                                             \
        while (!(condition)) {                                                                     \
            turn();                                                                                \
            (void)poll(NULL, 0, 1);                                                                \
            if (clock_mono_ms() > wait_end)                                                        \
                fail_msg("waited in vain for %s", #condition);                                     \
        }                                                                                          \
    } while (0)

/* --- clients --------------------------------------------------------------------------------- */

struct peer {
    int fd;
    struct buf in; /* what has come */
    bool ended;    /* the server has closed */
    bool reset;    /* and not in form */
};

void peer_open(struct peer *p);
bool peer_is_refused(void); /* does nobody listen? */
void peer_close(struct peer *p);
void peer_cut(struct peer *p); /* with a reset */
void peer_send(struct peer *p, const char *text);
void peer_send_bytes(struct peer *p, struct slice s);
void peer_send_slowly(struct peer *p, const char *text); /* byte by byte */
void peer_send_post(struct peer *p, size_t length);      /* the head of it */
void peer_receive(struct peer *p);                       /* as much as is there */
bool peer_has(struct peer *p, const char *text);
bool peer_ended(struct peer *p);
size_t peer_count(const struct peer *p, const char *text);
/* What came is this, its dates replaced by DATE; then it is forgotten. */
void peer_got(struct peer *p, const char *want);

#define HEAD_OF(length) "HTTP/1.1 200 OK\r\ncontent-length: " length "\r\ndate: DATE\r\n"

/* --- handlers -------------------------------------------------------------------------------- */

void keep(struct http_req *req, void *ctx); /* in t.req, for the test to answer */
void on_abort(struct http_req *req);
void respond_path(struct http_req *req, void *ctx);
void echo(struct http_req *req, void *ctx); /* the body, up to 100,000 bytes; errors as a status */
void echo_whole(struct http_req *req, const struct err *err, struct slice body);

extern char filler[1024 * 1024]; /* bytes of no interest */

#endif
