/* A prompt of the operator's that is run once, before callers come, so that models are loaded. It
 * is a task like any other; how it ends is told in the log and is nobody's business else. */
#ifndef WARMUP_H
#define WARMUP_H

#include "task_hub.h"

struct warmup;

/* `path` "": there is none, and it is over from the beginning. */
struct warmup *warmup_new(uv_loop_t *loop, struct task_hub *hub, const char *path);
void warmup_start(struct warmup *w); /* ComfyUI can take prompts; again: nothing happens */
bool warmup_is_over(const struct warmup *w);
/* Frees, at once or when the file has been read. The hub has ended all tasks. */
void warmup_free(struct warmup *w);

#endif
