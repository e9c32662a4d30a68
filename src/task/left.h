/* Prompts that were given up while ComfyUI had them: their tasks have ended, and they would go on
 * costing the GPU for nobody. They are asked away (deleted where they wait, interrupted where they
 * run) again and again until ComfyUI has none of them.
 *
 * A native call, as the loading of a model, reads no interrupt. It gets time to end by itself:
 * killing ComfyUI costs every model that is loaded, and who asks again would begin from nothing. A
 * ComfyUI that has not let go of a prompt by then is condemned; but not for one that the last look
 * has not shown. An attached one is not ours to kill: there they are asked away further, and count
 * as a reason for its silence no more.
 */
#ifndef LEFT_H
#define LEFT_H

#include "comfy.h"
#include "supervisor.h"

enum { LEFT_MAX = 512 }; /* the oldest are forgotten */

struct left;

struct left_options {
    struct comfy *comfy;
    struct supervisor *supervisor;
    uint64_t patience_ms;
    void (*hurried)(void *ctx); /* left_hurry() has done what it can; from the loop */
    void *ctx;
};

struct left *left_new(uv_loop_t *loop, const struct left_options *options);

/* absent: it was in neither queue nor history, but its request may arrive yet: within
 * LEFT_EXPECT_MS, else, says the look after that, it does not come any more. That time runs while
 * ComfyUI is READY only, anew from each return. */
void left_add(struct left *l, const char *prompt_id, bool absent);
/* One that has been seen, and whose time to end by itself is not over. */
bool left_is_there(const struct left *l);
uint64_t left_gone_at(const struct left *l); /* when such a one was there last; 0: never */
unsigned left_count(const struct left *l);
/* Whoever asks will be gone soon, and their ComfyUI stays: each is asked away now, where it is.
 * That takes LEFT_HURRY_MS at most. */
void left_hurry(struct left *l);
bool left_hurries(const struct left *l);
void left_forget(struct left *l);                /* their ComfyUI is gone */
void left_thaw(struct left *l, uint64_t gap_ms); /* the process did not run for so long */
void left_free(struct left *l, void (*closed)(void *ctx), void *ctx); /* from the loop */

#endif
