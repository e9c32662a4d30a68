/* A task by its id, wherever it is: in this process, or in the store. */
#ifndef LOOKUP_H
#define LOOKUP_H

#include "api.h"

struct lookup;
struct lookup_found {
    struct task *task;   /* set: it is here; borrowed */
    struct slice record; /* set: what the store has; a checked JSON object */
    struct slice nodes;  /* set alone: a node map without a record, as older agents write it */
};
/* Once, from the loop (never inside lookup_start()). err == NULL and nothing set: not known. */
typedef void (*lookup_cb)(void *ctx, const struct lookup_found *found, const struct err *err);

/* `id` must be store_id_ok(). `nodes_too`: accept a node map where there is no record. */
struct lookup *lookup_start(struct api *api, struct slice id, bool nodes_too, lookup_cb cb,
                            void *ctx);
void lookup_cancel(struct lookup *l); /* cb does not follow */

#endif
