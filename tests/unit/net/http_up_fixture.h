/* http_up against a scripted server: calls that write down what they were told and check that
 * nothing is called back inside a call. One at a time, in `fix`. */
#ifndef HTTP_UP_FIXTURE_H
#define HTTP_UP_FIXTURE_H

#include "http_up.h"
#include "peer.h"

enum { CALLS_MAX = 24 };

struct watched_call { /* a call and what it was told */
    struct http_call call;
    bool headed, ended;
    struct err err; /* ERR_OK: it succeeded */
    int status;
    int64_t length;
    char type[32];
    struct buf body;
    unsigned parts;
    /* what to do in a callback */
    bool cancel_in_head, cancel_in_part, pause_in_head, pause_in_part;
    struct watched_call *start_at_end;
    /* content */
    const char *const *pieces; /* NULL ends it; "-" says "none now", "!" breaks off */
};

struct fixture {
    struct loop_fixture loop;
    struct peer peer;
    struct http_up *up;
    struct http_up_options options;
    bool closed, inside;
    unsigned ends;
    struct watched_call ones[CALLS_MAX];
    struct watched_call *order[CALLS_MAX]; /* in which they ended */
};

extern struct fixture fix;

void call_start(struct watched_call *one);
void call_cancel(struct watched_call *one);
struct watched_call *call_prepare(unsigned i, const char *method, const char *target);
struct watched_call *call_get(unsigned i);
struct watched_call *call_prepare_stream(unsigned i);
struct watched_call *call_start_stream(unsigned i, const char *const *pieces, int64_t length);
/* Gives one->pieces one after the other. */
int call_read_content(struct http_call *call, struct slice *ret_part);
void call_await(struct watched_call *one);
void call_check(struct watched_call *one, enum err_code code, const char *text);
void call_check_body(struct watched_call *one, int status, const char *body);
void fixture_open(const struct peer_step *const *scripts, unsigned count);
void fixture_open_one(const struct peer_step *script);
void fixture_reopen(void);
void fixture_close(void);
const char *fixture_received(unsigned conn);

#define REQUEST EXPECTS("\r\n\r\n")
#define OK_HEAD "HTTP/1.1 200 OK\r\n"
#define HELLO   OK_HEAD "Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"

extern const struct peer_step serve[3]; /* answers every request */
extern const struct peer_step silent[1];

#endif
