/* One output of a succeeded task as the body of an answer: bytes from ComfyUI's /view, streamed,
 * with Range. What is there now must be what was made: another size or another tag is 410. */
#ifndef API_OUTPUT_H
#define API_OUTPUT_H

#include "answer.h"
#include "api.h"

/* Takes the request over: its data and callbacks are the output's from here on. `about` is copied,
 * its texts must outlive the call only. `of_run`: it answers a run, and the platform is told
 * whether to deliver that again. */
void output_send(struct api *api, struct http_req *req, struct task *t, unsigned index,
                 const struct answer_about *about, bool of_run);

#endif
