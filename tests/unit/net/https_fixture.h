/* https against a scripted server on loopback: calls that write down what they were told and check
 * that nothing is called back inside a call, and names that lead where the test says. One at a
 * time, in `fix`. */
#ifndef HTTPS_FIXTURE_H
#define HTTPS_FIXTURE_H

#include "https.h"
#include "peer.h"

enum { CALLS_MAX = 16, NAMES_MAX = 12 };

struct watched_call { /* a call and what it was told */
    struct https_call call;
    char url[512];
    bool headed, ended;
    struct err err; /* ERR_OK: it succeeded */
    struct buf body;
    unsigned parts;
    bool has_x; /* a header of that name */
    bool cancel_in_head, cancel_in_part, close_at_end;
    struct watched_call *start_at_end; /* itself: again */
};

struct known_name { /* answers, one a question; the last one stays. Separated by blanks */
    const char *name, *answers;
};

struct fixture {
    struct loop_fixture loop;
    struct peer peer;
    struct address_allow allow;
    struct https *https;
    struct https_options options;
    struct known_name names[NAMES_MAX];
    struct resolve_lookup *held; /* the one for the name "held.test" */
    unsigned asked;
    char location[256]; /* what fixture_redirect() sends */
    bool closed, inside, freed;
    unsigned ends;
    struct watched_call ones[CALLS_MAX];
    struct watched_call *order[CALLS_MAX]; /* in which they ended */
};

extern struct fixture fix;

/* "http://host:<the server's port>path". */
struct watched_call *call_prepare(unsigned i, const char *method, const char *host,
                                  const char *path);
struct watched_call *call_prepare_url(unsigned i, const char *url);
void call_start(struct watched_call *one);
void call_cancel(struct watched_call *one);
struct watched_call *call_get(unsigned i, const char *host, const char *path);
void call_check(struct watched_call *one, enum err_code code, const char *text);
void call_check_body(struct watched_call *one, int status, const char *body);
void call_take_parts(struct watched_call *one); /* has on_head and on_part called */

/* allow: the list; script NULL: nobody listens. */
void fixture_open(const char *allow, const struct peer_step *script);
void fixture_free(void);  /* begins; fix.closed says when it is over */
void fixture_close(void); /* all of it */
const char *fixture_received(unsigned conn);
/* Copies text with "PORT" replaced by the server's. */
void fixture_fill_port(const char *text, char *ret, size_t size);
/* A peer's hook: 302 to fix.location. */
void fixture_redirect(struct peer_conn *conn);

#define REQUEST EXPECTS("\r\n\r\n")
#define OK_HEAD "HTTP/1.1 200 OK\r\n"
#define HELLO   OK_HEAD "Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"

extern const struct peer_step serve[3];
extern const struct peer_step silent[1];

#endif
