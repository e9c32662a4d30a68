/* Parts of a document that is being removed, named by its row or not. Inside the room. */
#ifndef OTS_SWEEP_H
#define OTS_SWEEP_H

#include "ots_job.h"

/* `looked` comes with ERR_OK: there are parts; ERR_NOT_FOUND: there are none; or why that is not
 * known (job->err says it). */
void ots_sweep_look(struct ots_job *job, void (*looked)(struct ots_job *job, enum err_code code));
/* Of those seen the old ones go that are not job->old_set's, if they can; then `dropped`. */
void ots_sweep_drop(struct ots_job *job, void (*dropped)(struct ots_job *job));

#endif
