/* One operation of the Tablestore backend on its way: one request after another. Inside the room.
 */
#ifndef OTS_JOB_H
#define OTS_JOB_H

#include "ots_client.h"
#include "ots_doc.h"
#include "ots_list.h"

struct ots_place { /* where documents are kept */
    struct ots_client *client;
    char *table;
    bool create_table; /* if it is missing */
    int64_t ttl_s;     /* of a table that we make; -1: for ever */
};

struct ots_job {
    const struct ots_place *place;
    struct store_op *op;
    unsigned at; /* the document */
    struct ots_ask ask;
    struct err err;                       /* what is wrong with the document, or with the list */
    void (*restart)(struct ots_job *job); /* once there is a table */
    bool made_table;

    /* a document of several rows, being read or written */
    void (*on_read)(struct ots_job *job, enum err_code code);
    struct buf value;
    char set[OTS_SET_LEN + 1]; /* its parts */
    size_t len;
    unsigned part;
    char lost[OTS_SET_LEN + 1];    /* parts that were not there; "": none */
    char old_set[OTS_SET_LEN + 1]; /* those of the version that is replaced; "": none */
    size_t old_len;

    /* at the end of a document: parts that nobody needs any more, and then its result */
    char dropped[OTS_SET_LEN + 1];
    size_t dropped_len;
    enum err_code result;
    bool was_refused;

    struct ots_list list;
    struct buf from; /* the row with which a list goes on */

    /* when a document is removed: see ots_sweep.h */
    struct buf parts; /* names of old ones, each with its NUL */
    size_t swept;     /* so far into them */
    void (*looked)(struct ots_job *job, enum err_code code);
    void (*dropped_all)(struct ots_job *job);
};

struct ots_job *ots_job_new(const struct ots_place *place, struct store_op *op);
void ots_job_end(struct ots_job *job);      /* frees it; the op is done */
void ots_job_end_list(struct ots_job *job); /* job->err is the list's: ERR_OK, or it has failed */
void ots_job_start_doc(struct ots_job *job);

/* Asks for job->ask.body; `done` follows. writes: nothing leaves beyond the op's not_after_ms. */
void ots_job_ask(struct ots_job *job, const char *path, bool writes,
                 void (*done)(struct ots_ask *ask));
/* is_seen: by others, so that there is a moment after which it must not go any more. */
void ots_job_ask_delete(struct ots_job *job, const char *name, bool is_seen,
                        void (*done)(struct ots_ask *ask));
/* After an answer, before anything else is made of it. True: the table is being made, and
 * job->restart() follows, or the end. */
bool ots_job_makes_table(struct ots_job *job);
/* What a verdict that ends a request means to who asked for the op; job->err says it. */
enum err_code ots_job_fail(struct ots_job *job, enum ots_verdict verdict);

static inline struct ots_job *ots_job_of(struct ots_ask *ask)
{
    return CONTAINER_OF(ask, struct ots_job, ask);
}

#endif
