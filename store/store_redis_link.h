/* One connection to a Redis server: made when it is wanted, greeted, lost and made again.
 *
 *     DOWN ─wanted─► PAUSED ─► LOOKING ─► CONNECTING ─► GREETING ─► OPEN
 *      ▲   (lookup of the name)   │            │            │         │
 *      └──── DROPPING ◄───────────┴─ failure ──┴────────────┴─────────┘
 *
 * Requests are pipelined and answered in order. A connection on which nothing is heard for
 * timeout_ms, although the server has all of the oldest request, is dropped. The answers that were
 * under way are lost then: nobody knows what the server has done. */
#ifndef STORE_REDIS_LINK_H
#define STORE_REDIS_LINK_H

#include "closer.h"
#include "deadline.h"
#include "store.h"
#include "store_redis_lookup.h"

struct redisReader;
struct redisReply;

enum {
    REDIS_ARGS_MAX = 16,
    REDIS_PAUSE_MS = 100, /* after the second failure in a row; doubles */
    REDIS_PAUSE_MAX_MS = 1000,
    REDIS_READ_LEN = 64 * 1024,
    REDIS_ANSWER_MAX = STORE_VALUE_MAX + 1024 * 1024,
};

enum redis_kind { REDIS_NIL, REDIS_NUMBER, REDIS_TEXT, REDIS_ERROR, REDIS_LIST };
struct redis_answer { /* dies with the call that brings it */
    enum redis_kind kind;
    struct slice text; /* of TEXT and ERROR (what a script was refused, not where) */
    size_t count;      /* of LIST */
    const struct redisReply *reply;
};
struct redis_answer redis_answer_of(const struct redisReply *reply);
struct redis_answer redis_answer_item(const struct redis_answer *list, size_t i);

struct redis_request { /* the caller's memory until `done` */
    /* From the loop, never inside redis_link_send(). NULL: lost. */
    void (*done)(struct redis_request *r, const struct redis_answer *answer);
    struct list_node link;
    uint64_t end; /* the connection's bytes up to its last one */
};

enum redis_link_state {
    REDIS_DOWN,
    REDIS_PAUSED,
    REDIS_LOOKING,
    REDIS_CONNECTING,
    REDIS_GREETING,
    REDIS_OPEN,
    REDIS_DROPPING,
};

struct redis_link_options {
    const char *host, *user, *password; /* user, password: NULL when there is none; copied */
    unsigned port, db, timeout_ms;
};

struct redis_link {
    uv_loop_t *loop;
    char *host, *user, *password;
    unsigned port, db;
    /* From the loop: it is OPEN now, or DOWN now and `why` says what happened. */
    void (*changed)(struct redis_link *l);
    struct err why;

    enum redis_link_state state;
    struct closer closer;
    bool closing;
    void (*closed)(struct redis_link *l);
    uv_timer_t pause;
    struct deadlines deadlines;
    struct deadline_class class[1];
    struct deadline silence;
    unsigned failures;         /* in a row */
    uint64_t failing_since_ms; /* when the row began */
    uint64_t not_before_ms;    /* of the next attempt */

    struct redis_lookup *lookup;
    struct redis_addresses addresses;
    unsigned address_at;
    uv_tcp_t tcp;
    uint64_t said, taken; /* bytes, of this connection; taken: when `silence` began */
    uv_connect_t connect;
    struct redisReader *reader;
    struct list_node flying; /* requests without an answer, in the order of sending */
    struct redis_request login, choose, time;
    bool measuring;
    int64_t clock_us; /* what the server's clock is ahead of clock_mono_ms() */
    char read[REDIS_READ_LEN];
};

/* `changed` is set by the caller before the first redis_link_want(). */
void redis_link_init(struct redis_link *l, uv_loop_t *loop,
                     const struct redis_link_options *options);
/* Connects unless it is connected or about to be. */
void redis_link_want(struct redis_link *l);
/* It has failed for at least so long, and it is too early for another attempt. */
bool redis_link_is_lost(const struct redis_link *l, uint64_t for_ms);
/* OPEN only; the arguments are copied. */
void redis_link_send(struct redis_link *l, struct redis_request *r, const struct slice *args,
                     unsigned count);
/* Not usable as it is: close it; it may be wanted again. */
void redis_link_drop(struct redis_link *l, const struct err *why);
/* The server's clock at a moment on ours: rather too early than too late, by at most the time that
 * asking it took. OPEN only. */
uint64_t redis_link_server_us(const struct redis_link *l, uint64_t mono_ms);
/* Ask for the clock again: it was found to be set. */
void redis_link_measure(struct redis_link *l);
/* What an error says, for people, unless a secret stands in it. */
struct slice redis_link_text(const struct redis_link *l, const struct redis_answer *error);
void redis_link_close(struct redis_link *l, void (*closed)(struct redis_link *l));

#endif
