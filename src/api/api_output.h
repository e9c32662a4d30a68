/* One output of a succeeded task as the body of an answer: bytes from ComfyUI's /view, streamed,
 * with Range. What is there now must be what was made: another size or another tag is 410. */
#ifndef API_OUTPUT_H
#define API_OUTPUT_H

#include "answer.h"
#include "api.h"
#include "run_order.h"

/* Takes the request over: its data and callbacks are the output's from here on. `about` is copied,
 * its texts must outlive the call only. `order`: of the run that it answers, for the length of this
 * call; the platform is told whether to deliver that again. NULL: it is no run. While ComfyUI
 * starts, it is waited for. */
void output_send(struct api *api, struct http_req *req, struct task *t, unsigned index,
                 const struct answer_about *about, const struct run_order *order);

#endif
