/* One question to ComfyUI at a time: GET /system_stats. Nobody there, an answer, or something else;
 * what that means is the business of whoever asked. */
#ifndef PROBE_H
#define PROBE_H

#include "buf.h"

#include <uv.h>

struct later;
struct probe;

enum probe_result {
    PROBE_ANSWERED, /* 200 with a JSON object */
    PROBE_REFUSED,  /* nobody listens */
    PROBE_FAILED,   /* any other answer, or none */
};

struct probe_options {
    const char *host; /* in numbers */
    unsigned port;
    /* Once for each question, from the loop. `version` is system.comfyui_version, empty if it was
     * not told; it dies with the call. */
    void (*done)(void *ctx, enum probe_result result, struct slice version);
    void *ctx;
};

struct probe *probe_new(uv_loop_t *loop, struct later *later, const struct probe_options *options);
/* Asks in after_ms (0: from the loop all the same), and waits patience_ms for the answer. A
 * question that was asked before is forgotten. */
void probe_ask(struct probe *p, uint64_t after_ms, uint64_t patience_ms);
void probe_stop(struct probe *p); /* `done` does not follow */
void probe_free(struct probe *p, void (*closed)(void *ctx), void *ctx);

#endif
