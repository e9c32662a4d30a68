/* How a caller of /api/run would like to be answered, as headers and query say it. Pure. */
#ifndef RUN_WISHES_H
#define RUN_WISHES_H

#include "http_msg.h"
#include "task.h"

enum { RUN_WAIT_MAX_S = 3600 };

struct run_wishes {
    bool no_results; /* ?results=none */
    bool has_wait;   /* Prefer: wait=N: after so long 202 is enough */
    uint64_t wait_ms;
    bool respond_async; /* Prefer: respond-async, without wait: 202 as soon as it is sure to run */
    struct slice media; /* Accept's first word, if it names only pictures, video or audio */
    const struct http_headers *headers; /* where the others are; the request's */
};

void run_wishes_read(struct run_wishes *ret, const struct http_headers *headers,
                     struct slice query);
/* The first output that Accept takes, or -1. */
int run_wishes_output(const struct run_wishes *w, const struct task *t);

#endif
