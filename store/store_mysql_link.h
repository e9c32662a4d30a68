/* One connection to a MySQL or MariaDB server, and the statements that are prepared on it.
 *
 *     DOWN ─► CONNECTING ─► IDLE ◄─► BUSY
 *      ▲          │           │        │
 *      └── CLOSING ◄──────────┴────────┘
 *
 * CONNECTING and CLOSING are jobs on a worker thread (store_mysql_work.c): the library looks names
 * up, shakes hands and says goodbye in calls that block. Statements run on the loop, by the
 * library's non-blocking calls. A connection on which nothing moves for timeout_ms in mid-statement
 * is cut: nobody knows then what the server has done. */
#ifndef STORE_MYSQL_LINK_H
#define STORE_MYSQL_LINK_H

#include "deadline.h"
#include "later.h"
#include "store.h"
#include "workers.h"

#include <stdatomic.h>

struct st_mysql; /* the library's */
struct st_mysql_stmt;

enum {
    SQL_LINKS_MAX = 7, /* and a thread that purges: as many as workers.h allows */
    SQL_PARAMS_MAX = 8,
    SQL_CONNECT_S = 3,        /* each step of a connect */
    SQL_STATEMENT_TIMES = 12, /* timeout_ms: a statement's end, however it drips */
    SQL_UNUSED_TIMES = 6,     /* … the life of a connection that is not used */
    SQL_AGE_TIMES = 24,       /* … and of any */
};

enum sql_tls { SQL_TLS_OFF, SQL_TLS_REQUIRE, SQL_TLS_VERIFY };

/* Nobody writes to it once the store is open: worker threads read it. */
struct sql_options {
    char *host, *user, *password, *database, *table, *ca; /* password, ca: NULL when not given */
    unsigned port, pool, ttl_s, timeout_ms, wait_ms;      /* ttl_s 0: for ever */
    enum sql_tls tls;
    bool create; /* the table, where it is missing */
};

/* store_mysql_url.c: sql_options_done() after success. */
enum err_code sql_options_read(struct sql_options *ret, struct store_url *url,
                               struct err *err) MUST_CHECK;
void sql_options_done(struct sql_options *o);

enum sql_statement {
    SQL_PUT,    /* key, value, order, listed, last, life; see store_mysql_work.c */
    SQL_CREATE, /* the same */
    SQL_GET,    /* key */
    SQL_REMOVE, /* key, last */
    SQL_EXPIRE, /* key: removes it if it has expired */
    SQL_LIST,   /* stamp, stamp, key, limit */
    SQL_STATEMENTS,
};

enum sql_outcome {
    SQL_DONE,
    SQL_EXISTS,    /* the key is there: nothing was done */
    SQL_LATE,      /* not done: by the server's clock its time was over */
    SQL_AGAIN,     /* not done because of others (a deadlock): may be tried again */
    SQL_LOST,      /* the connection is lost, and what became of it unknown */
    SQL_TOO_LARGE, /* for the server: not done */
    SQL_REFUSED,   /* not done: the server says no */
};

struct sql_param {
    struct slice text; /* borrowed until the statement has ended */
    uint64_t number;   /* where text.ptr is NULL */
    bool is_binary;
};

enum sql_link_state { SQL_DOWN, SQL_CONNECTING, SQL_IDLE, SQL_BUSY, SQL_CLOSING };
enum { SQL_CLASS_SILENCE, SQL_CLASS_STATEMENT, SQL_CLASS_UNUSED, SQL_CLASSES };

struct sql_link;
struct sql_link_needs {
    uv_loop_t *loop;
    struct later *later;
    struct workers *workers;
    struct deadlines *deadlines; /* of sql_link_classes() */
    const struct sql_options *options;
    /* What keeps the link's memory while a thread is at it: hold() on the loop, release() on the
     * thread, the last thing that a job of the link does. */
    void (*hold)(struct sql_link *l);
    void (*release)(struct sql_link *l);
};

struct sql_link {
    /* From the loop, by whoever embeds it: it is IDLE or DOWN now; l->err says why it is not up. */
    void (*changed)(struct sql_link *l);
    /* A statement has ended; the link is IDLE or will be DOWN. */
    void (*done)(struct sql_link *l);

    /* What a statement came to. */
    enum sql_outcome outcome;
    struct err err;          /* unless it is DONE */
    uint64_t rows;           /* changed */
    struct blob *value;      /* of GET: a reference for who takes it; NULL: nothing there */
    struct store_page *page; /* of LIST: set before, filled then */
    uint64_t packet_max;     /* the longest that the server reads */
    bool is_refused;         /* it is DOWN because it could not connect … */
    bool is_hard;            /* … and waiting will not help (password, table) */
    bool is_handshake; /* … unless that was only cut: the library does not tell why TLS failed */

    enum sql_link_state state;
    struct sql_link_needs needs;
    struct deadline silence, statement_end, unused;
    struct later_item ended;
    struct work job;
    bool closing, dropping, abandoned;
    void (*closed)(struct sql_link *l);

    struct st_mysql *my; /* the job's while it is CONNECTING or CLOSING */
    struct st_mysql_stmt *stmt[SQL_STATEMENTS];
    int64_t clock_us;               /* what the server's clock is ahead of clock_mono_ms() */
    uint64_t connected_ms, idle_ms; /* since when */
    bool is_new;                    /* no statement yet */
    uv_poll_t poll;
    int fd;     /* the loop's, of the same socket */
    bool polls; /* the handle and fd are open */
    enum sql_statement statement;
    bool storing; /* the second step: rows are read */
    int failed;   /* what the library's call came to */
    uint64_t number[SQL_PARAMS_MAX];
    unsigned long length[SQL_PARAMS_MAX];
};

void sql_link_classes(struct deadline_class classes[SQL_CLASSES], unsigned timeout_ms);
void sql_link_init(struct sql_link *l, const struct sql_link_needs *needs);
void sql_link_connect(struct sql_link *l); /* DOWN only */
/* IDLE only; `done` comes later. */
void sql_link_start(struct sql_link *l, enum sql_statement statement,
                    const struct sql_param *params, unsigned count);
void sql_link_drop(struct sql_link *l); /* IDLE only */
bool sql_link_is_stale(const struct sql_link *l);
/* The server's clock at a moment on ours: rather too early than too late, by at most the time that
 * asking it took. IDLE only. */
uint64_t sql_link_server_us(const struct sql_link *l, uint64_t mono_ms);
/* No more news but the end of a statement under way, which is cut. `closed` may come at once. */
void sql_link_close(struct sql_link *l, void (*closed)(struct sql_link *l));
/* Does it still have a handle, or an event on its way? */
bool sql_link_is_on_loop(const struct sql_link *l);
/* Of one that is being closed: the workers end, and take no more jobs. Only a thread may still have
 * to do with it. */
void sql_link_abandon(struct sql_link *l);
/* Of one that was abandoned, once no thread is at it. */
void sql_link_done(struct sql_link *l);

/* --- store_mysql_work.c ----------------------------------------------------------------------- */

void sql_global_init(void); /* before any thread knows the library */
/* Connects and prepares: l->my and all that comes with it, or NULL, l->err and l->is_hard. */
void sql_connect_work(struct sql_link *l);
void sql_close_work(struct sql_link *l); /* connected or not */
/* Removes what has expired, on a connection of its own. ERR_OK and how many. */
enum err_code sql_purge_work(const struct sql_options *options, const _Atomic bool *stop,
                             uint64_t *ret_count, struct err *err) MUST_CHECK;
/* What an error number of the server or the library means for a statement. */
enum sql_outcome sql_outcome_of(unsigned number);
/* Is the connection no good any more, although it stands? */
bool sql_outcome_drops(unsigned number);

#endif
