/* Inside the room: what the core's files share.
 *
 * A flight is one operation on its way: a copy of the caller's op, which the backend works on, and
 * the caller's own, which is answered at its end or at its deadline, whichever comes first. So a
 * backend that is stuck keeps the copy, never a caller.
 *
 *     BLOCKED ──► READY ──► RUNNING ──► ENDED         (freed once ENDED and answered)
 *        └──────────┴─── deadline ────────┘
 *
 * Order of keys: a flight puts a claim for each of its keys at the end of the key's row, all at
 * once when it is asked for. Earlier claims of others on the same keys are its blockers. As all
 * claims of a flight are made in one step, two flights can never block each other.
 */
#ifndef STORE_PRIVATE_H
#define STORE_PRIVATE_H

#include "closer.h"
#include "later.h"
#include "store.h"

enum {
    STORE_OPS_MAX = 1024,               /* waiting and running; beyond: BUSY */
    STORE_BYTES_MAX = 64 * 1024 * 1024, /* of values that wait to be written; beyond: BUSY */
    STORE_DEADLINE_MS = 10000,
    STORE_STARVED_MS = 1000, /* a live write that is late by this goes before ops */
    STORE_BACKOFF_MS = 200,
    STORE_BACKOFF_MAX_MS = 5000,
    STORE_PROBE_MS = 5000, /* silence of an unhealthy backend before it is asked */
    STORE_BUCKETS = 256,
};

enum flight_state { FLIGHT_BLOCKED, FLIGHT_READY, FLIGHT_RUNNING, FLIGHT_ENDED };

struct flight {
    struct store_op op;     /* `link` is in the store's list of its state (`lists`: READY) */
    struct store_op *asked; /* the caller's; NULL once it has been answered */
    struct store *store;
    struct later_item answer;
    struct list_node all;
    enum flight_state state;
    bool told; /* the answer stands in *asked, and is on its way */
    unsigned blockers;
    size_t bytes;
    struct flight_claim {
        struct list_node row; /* in the bucket of its key, in order of asking */
        struct flight *flight;
        unsigned doc;
    } claim[STORE_DOCS_MAX];
};

struct store {
    uv_loop_t *loop;
    struct later *later;
    const struct store_ops *ops;
    struct store_backend *backend;
    struct closer closer;
    uv_timer_t timer;       /* the nearest of all that is waited for */
    struct later_item turn; /* the only place where anything starts */
    unsigned parallel, running, flights;
    bool listing; /* a list runs, and is not among `running` */
    size_t bytes;
    struct list_node blocked, ready, lists, flying, all;
    struct list_node row[STORE_BUCKETS];
    struct list_node dirty; /* live documents that want to be written */
    struct list_node ended; /* … whose end is to be told */
    bool healthy, cannot_write;
    struct err why;
    struct store_op probe;
    bool probing;
    uint64_t probe_at;
    struct store_stats stats;
    void (*on_write)(void *ctx, const char *key);
    void *on_write_ctx;
    bool closing, gave_up;
    uint64_t close_at;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* store.c */
/* store_open() with a backend that is in no list: for tests. */
enum err_code store_open_with(struct store **ret, const struct store_ops *ops, uv_loop_t *loop,
                              struct later *later, const char *url, struct err *err) MUST_CHECK;
void store_wake(struct store *s); /* a turn is due */
void store_note_end(struct store *s, const struct store_op *op, enum err_code outcome,
                    bool given_up);
void store_note_timeout(struct store *s, const struct store_op *op, bool begun,
                        const struct err *why);

/* store_flight.c */
unsigned store_key_hash(const char *key);
struct flight *flight_new(struct store *s, struct store_op *asked);
/* Takes its place in the rows of its keys, or is answered with what is wrong with it. */
void flight_queue(struct flight *f);
void flight_start(struct flight *f); /* READY */
/* Answers a flight that has not started. */
void flight_refuse(struct flight *f, enum err_code code, const char *why);
void flight_expire(struct store *s, uint64_t now);
/* Answers all lists; those that wait end. */
void flight_cancel_lists(struct store *s, const char *why);
void flight_put_off(struct store *s, uint64_t by_ms);
uint64_t flight_next_deadline(const struct store *s); /* UINT64_MAX: none */
/* Answers all that have no answer yet. */
void flight_give_up(struct store *s);
bool flight_key_busy(const struct store *s, const char *key);

/* store_live.c */
struct store_live *live_next(struct store *s, uint64_t now);
void live_write(struct store_live *live, uint64_t now);
void live_tell_ended(struct store *s);
uint64_t live_next_time(const struct store *s, uint64_t now); /* UINT64_MAX: none */

#endif
