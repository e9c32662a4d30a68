/* The answer of a run as a stream: the final node map with `results`, base64 made on the fly from
 * ComfyUI's /view, one output after the other. Memory does not grow with the outputs.
 *
 * Every output was seen before begin() is called, when the task ended or now, and of the first one
 * there are bytes. If one cannot be had in full all the same, the stream ends with an error, and
 * the reader of the answer must see that it is broken. */
#ifndef RESULT_H
#define RESULT_H

#include "task.h"

struct result;
struct result_sink {
    void (*begin)(void *ctx); /* once, before the first write; not if something is missing */
    /* False: no room; result_resume() follows when there is. */
    bool (*write)(void *ctx, struct slice part);
    /* Once, from the loop. NULL: complete. NOT_FOUND: a file is gone. CORRUPT: it is another one.
     * PROTOCOL: ComfyUI answers, but not with the file. */
    void (*end)(void *ctx, const struct err *err);
    void *ctx;
};

/* Of a succeeded task; holds a reference. Nothing is written inside this call. While ComfyUI starts
 * it is waited for, so long at most: comfy_view_start(). */
struct result *result_start(struct task *t, struct comfy *comfy, struct later *later,
                            const struct result_sink *sink, uint64_t wait_ms);
void result_resume(struct result *r);
/* No end() follows; frees when the transfer has ended. */
void result_cancel(struct result *r);

#endif
