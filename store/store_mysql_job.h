/* An operation on its way: it waits until a connection is idle, takes it for one statement, and
 * waits again, at the head of the row, until it is done. */
#ifndef STORE_MYSQL_JOB_H
#define STORE_MYSQL_JOB_H

#include "store_mysql_link.h"

struct sql_jobs {             /* what all jobs of a store share */
    struct list_node waiting; /* in the order of asking */
    struct later *later;
    struct later_item turn; /* the owner's: to be run when a job waits */
    unsigned ttl_s;         /* 0: for ever */
    struct err why;         /* there is no connection; ERR_OK: there was one */
};

enum sql_job_step { JOB_DO, JOB_EXPIRE, JOB_LOOK }; /* at a document: the drawing in the .c file */

struct sql_job {
    struct list_node link; /* in `waiting`, or in none while it has a connection */
    struct sql_jobs *jobs;
    struct store_op *op;
    unsigned doc, tries;
    enum sql_job_step step;
    bool in_doubt; /* this document may have been done */
    bool expired;  /* what had expired under its key was removed */
};

void sql_job_new(struct sql_jobs *jobs, struct store_op *op);
uint64_t sql_job_deadline(const struct sql_job *job); /* on clock_mono_ms() */
/* True: it has been ended, as there is no time or no sense in going on. */
bool sql_job_is_over(struct sql_job *job);
/* With an IDLE link. False: it has been ended instead. */
bool sql_job_start(struct sql_job *job, struct sql_link *l);
/* The statement it started has ended. */
void sql_job_on_done(struct sql_job *job, struct sql_link *l);
/* Ends it: with the code, unless what it was doing may have happened. */
void sql_job_give_up(struct sql_job *job, enum err_code code, const char *why);

#endif
