/* Bytes under a key: the border between the program and its databases. The store knows no JSON and
 * no tasks; backends know one verb at a time.
 *
 * What the core (store.c) does once for all backends: key check (refused, never cleaned), one
 * operation per key in flight, deadlines, bounds, minimum interval between live writes of a key,
 * retry with the newest value, read-your-writes (of a live document: its last write). A list, which
 * can be long, holds up no document: there is one at a time, in a place of its own. A failing store
 * never stops a run.
 *
 * Loop thread only. No completion runs inside the call that asked for it; each comes exactly once.
 */
#ifndef STORE_H
#define STORE_H

#include "buf.h"
#include "list.h"

#include <uv.h>

struct later;
struct store;
struct store_backend;

enum {
    STORE_KEY_MAX = 160,
    STORE_DOCS_MAX = 4,
    STORE_VALUE_MAX = 16 * 1024 * 1024,
    STORE_PAGE_MAX = 100,
};

/* A task's id as callers give it: [A-Za-z0-9_][A-Za-z0-9._-]{0,127}, no "..", not ending in ".tmp".
 * A key is an id, or an id with "~" and [a-z0-9.]+ behind it. */
bool store_id_ok(struct slice id);
bool store_key_ok(struct slice key);

enum store_verb { STORE_PUT, STORE_CREATE, STORE_GET, STORE_REMOVE };

struct store_doc {
    enum store_verb verb;
    char key[STORE_KEY_MAX + 1];
    struct blob *value; /* put, create: a reference that the op drops, 1..STORE_VALUE_MAX bytes;
                           get: the answer, the caller's to drop, NULL unless result is OK */
    uint64_t order;     /* attempt << 32 | rev; an older one never replaces a newer one (file: best
                           effort, by the process's own memory) */
    bool durable;       /* on stable storage before it is called done */
    enum err_code result; /* per document. CREATE: OK or EXISTS. GET: OK, NOT_FOUND, CORRUPT or
                             TOO_LARGE (what is stored cannot be read). Not reached: CANCELLED.
                             Else UNAVAILABLE, TIMEOUT, TOO_LARGE, INVALID, BUSY (too much waits
                             already; nothing was done) */
};

struct store_page {
    /* in */
    unsigned limit;                 /* 1..STORE_PAGE_MAX */
    char cursor[STORE_KEY_MAX + 1]; /* "": from the newest */
    /* out: keys that end in "~task", newest first */
    unsigned count;
    char keys[STORE_PAGE_MAX][STORE_KEY_MAX + 1];
    uint64_t stamps[STORE_PAGE_MAX]; /* what the backend sorts by, the greatest first */
    char next[STORE_KEY_MAX + 1];    /* store_page_cursor() of the last; "": no more */
};

/* An operation is the caller's memory, untouched by it from store_run() until `done`. */
struct store_op {
    struct store_doc doc[STORE_DOCS_MAX]; /* done in order until store_doc_ends_op() */
    unsigned n;
    struct store_page *page; /* set: a list (n = 0) */
    uint64_t deadline_ms;    /* for the whole op from store_run(); 0: 10 s */
    uint64_t not_after_ms;   /* 0, or a moment on clock_mono_ms(): past it nothing may become
                                visible any more (looked at just before each write does) */
    struct err err;          /* of what ended the op, or else of the first document that failed */
    /* NULL, or called when it begins, if it ever does: sets the values that are not set yet. So
     * what waits takes no memory for them. */
    void (*prepare)(struct store_op *op);
    void (*done)(struct store_op *op);
    void *ctx;

    struct list_node link; /* the core's */
    uint64_t started_ms;
    void *scratch[4]; /* the backend's */
};

/* The cursor of a list that goes on behind keys[i]. */
void store_page_cursor(const struct store_page *page, unsigned i, char ret[STORE_KEY_MAX + 1]);

/* Does its result end the op? Everything but OK does, for CREATE also EXISTS. What a GET may find
 * wrong with its own document does not: NOT_FOUND, CORRUPT, TOO_LARGE say nothing of the others. */
bool store_doc_ends_op(const struct store_doc *doc);

/* --- what the program uses ------------------------------------------------------------------- */

/* No I/O. ERR_INVALID: the URL is wrong; err says how and never repeats a password. */
enum err_code store_open(struct store **ret, uv_loop_t *loop, struct later *later, const char *url,
                         struct err *err) MUST_CHECK;
void store_run(struct store *s, struct store_op *op);
/* Called when a write of a key is asked for, before anything is written: what is read from then on
 * has it. One such listener, until the store is closed; it asks the store for nothing. */
void store_on_write(struct store *s, void (*on_write)(void *ctx, const char *key), void *ctx);
/* The process did not run for gap_ms: operations that wait for their end may take so much longer.
 */
void store_thaw(struct store *s, uint64_t gap_ms);
/* Flushes live documents and waits for operations, at most wait_ms, then frees. Operations that are
 * not done by then are answered with TIMEOUT (may have happened) or CANCELLED (have not), lists,
 * which change nothing, at once. From now on the store may be asked for more only by its own
 * callbacks, and says UNAVAILABLE. Live documents must have been ended when `closed` comes. */
void store_close(struct store *s, uint64_t wait_ms, void (*closed)(void *ctx), void *ctx);

/* A live document: written again and again, newest value wins. store_touch() marks it dirty, and
 * render() is called only when a write really starts, at most once per interval of the backend.
 * Memory is the caller's from store_live_init() until store_live_end()'s `done` has run. */
struct store_live {
    const char *key; /* the caller's, like the memory */
    struct blob *(*render)(struct store_live *live, uint64_t *ret_order); /* a new reference */
    void *ctx;
    uint64_t not_after_ms; /* of the writes that start from now on; 0: none */

    uint64_t wrote_at; /* on clock_mono_ms(): start of the newest write that succeeded; 0: none */
    struct list_node link; /* the core's from here on */
    struct store *store;
    bool dirty, writing, ended;
    uint64_t not_before_ms;
    unsigned failures;
    void (*end_done)(struct store_live *live);
};
void store_live_init(struct store_live *live, struct store *s, const char *key);
void store_touch(struct store_live *live);
/* Stop; a write in flight ends first (so that no older value lands after what the caller writes
 * next), no further one starts. */
void store_live_end(struct store_live *live, void (*done)(struct store_live *live));

/* Keys of a cloud's that come from outside and are replaced from time to time, for the backend that
 * signs with them; for the others nothing happens. Copied. What lacks a part is ignored. */
struct store_credentials {
    struct slice id, secret, token;
};
void store_credentials(struct store *s, const struct store_credentials *credentials);

/* Is the backend believed to work? Last operation's result, and for people why not. */
bool store_healthy(const struct store *s, struct err *ret_why);
struct store_stats {
    uint64_t ops, docs_written, docs_read, failures, timeouts;
    unsigned in_flight;
};
struct store_stats store_stats(const struct store *s);
const char *store_scheme(const struct store *s);
/* The schemes that this build knows, blanks between: "file mem". */
const char *store_schemes(void);

/* --- what a backend is ------------------------------------------------------------------------ */

struct store_url {
    const char *scheme;
    char *user, *password, *host, *path; /* percent-decoded, NULL when absent */
    unsigned port;
    struct slice query; /* raw; store_url_param() */
};
/* Value of a query parameter (percent-decoded, to be freed) or NULL. Parameters nobody asked for
 * make store_open() fail: a typo must not select a default. */
char *store_url_param(struct store_url *url, const char *name);

/* Every backend's own struct begins with it. */
struct store_backend {
    unsigned parallel; /* set by open() where it depends on the URL; 0: what store_ops says */
};

struct store_ops { /* one const instance per backend */
    const char *scheme;
    unsigned parallel;    /* operations on documents in flight at once; beside them one list */
    unsigned interval_ms; /* between live writes of one key */
    unsigned value_max;
    enum err_code (*open)(struct store_backend **ret, uv_loop_t *loop, struct later *later,
                          struct store_url *url, struct err *err);
    /* Do the op, fill each doc's result and err, then store_op_done(op) once, later, from the loop.
     * Until then the op is the backend's, which may hand it to a thread: it is the core's copy, the
     * caller is answered at its deadline without it. Results are ERR_CANCELLED when it comes;
     * deadline_ms and started_ms are set. */
    void (*run)(struct store_backend *b, struct store_op *op);
    /* NULL: it signs nothing. */
    void (*credentials)(struct store_backend *b, const struct store_credentials *credentials);
    /* The core waits no longer: every op has been done or was given up, a list perhaps just now.
     * Ops that are not done when `closed` comes, from the loop, never will be (a thread may be
     * stuck with them), and their memory is left alone for ever. */
    void (*close)(struct store_backend *b, uint64_t wait_ms, void (*closed)(void *ctx), void *ctx);
};
void store_op_done(struct store_op *op);
/* A cursor that is not "", back again: where the page before ended. False: it is none. */
bool store_cursor_read(const char *cursor, uint64_t *ret_stamp, const char **ret_key);
/* On any thread, between one document and the next: doc[i] has its result, and *err says what is
 * wrong with it unless its code is OK. False: the op ends here. */
bool store_op_goes_on(struct store_op *op, unsigned i, const struct err *err);

extern const struct store_ops store_file_ops, store_mem_ops, store_ots_ops;
extern const struct store_ops store_redis_ops; /* where the build has it: STORE_REDIS */
extern const struct store_ops store_mysql_ops; /* STORE_MYSQL */

#endif
