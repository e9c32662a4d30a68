/* A task by its id, wherever it is: in this process, or in the store.
 *
 * What is read of the store is shared: lookers of the same task share one read, and what it found
 * serves LOOKUP_FRESH_MS more, also that there is nothing. What this process writes is read anew,
 * and so is what those who follow the task are told, who may be further. At most LOOKUP_BYTES_MAX
 * are kept, and nothing while nobody asks.
 *
 *     asked ─► here and known ──────────────────────────────────────────► told
 *        └► kept, fresh ────────────────────────────────────────────────► told
 *        └► READING (~task, then perhaps the bare node map) ─► all who wait are told ─► KEPT ─►
 * gone └ forgotten meanwhile ─► all who wait are told ─► gone       forgotten ─► gone
 */
#ifndef LOOKUP_H
#define LOOKUP_H

#include "api.h"

enum {
    LOOKUP_FRESH_MS = 50,
    LOOKUP_HERE_MS = 1000, /* for what this process can tell, too, if the store is too slow */
    LOOKUP_JOIN_MS = 1000, /* what has been read for longer is of another time: it is read anew */
    LOOKUP_BYTES_MAX = 8 * 1024 * 1024,
};

struct lookups; /* what is shared */
struct lookups *lookups_new(uv_loop_t *loop, struct later *later, struct store *store);
/* The store has been closed. `closed` comes from the loop. */
void lookups_free(struct lookups *ls, void (*closed)(void *ctx), void *ctx);

/* Somebody is told what is newer than what is kept of this task, perhaps. */
void lookups_forget(struct lookups *ls, const char *id);
/* The process did not run for a while: by a clock that may have stood still, too. */
void lookups_thaw(struct lookups *ls);

struct lookup;
struct lookup_found {
    struct task *task;   /* set: it is here; borrowed */
    struct slice record; /* set: what the store has; a checked JSON object, and what it says: */
    struct slice nodes;  /* its node map; set alone: one without a record, as older agents write */
    uint64_t rev;        /* 0: it says none */
    uint64_t attempt;    /* 0: it says none */
    char status[16];     /* "": it says none */
    bool offered;        /* by a front door, and nobody has begun it */
};
/* Once, from the loop (never inside lookup_start()). err == NULL and nothing set: not known. */
typedef void (*lookup_cb)(void *ctx, const struct lookup_found *found, const struct err *err);

enum lookup_how {
    LOOKUP_SHARED,
    LOOKUP_ALONE, /* for who decides by what is found: it is read now, for nobody else */
};
/* `id` must be store_id_ok(). `nodes_too`: accept a node map where there is no record. */
struct lookup *lookup_start(struct api *api, struct slice id, bool nodes_too, enum lookup_how how,
                            lookup_cb cb, void *ctx);
void lookup_cancel(struct lookup *l); /* cb does not follow */

/* The same for who has read the record himself (empty: in vain): that, or what this process knows
 * of the task (NULL: it is not here), if that is newer. Empty: nothing is known. Borrowed until the
 * loop's next turn. */
struct slice lookup_newest(struct task *t, struct slice record);

#endif
