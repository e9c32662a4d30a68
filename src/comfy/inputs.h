/* Inputs that are not names of files but files: an address (http, https), a data: URI or base64.
 * Each is fetched or decoded, checked, uploaded to ComfyUI under the name of its content's hash,
 * and its place in the prompt gets that name. Any other string is a file name and left alone.
 *
 *     SEARCHING (which classes take uploads: object_info) ─► OBTAINING ─► READING ─► UPLOADING
 *                                                                ▲  (a worker thread)    │
 *                                                                └──────── next one ─────┘
 *
 * Where there is no ComfyUI, but its input directory (a front door), only what is large is seen to,
 * and only LoadImage's and LoadImageMask's `image`, because nobody can be asked about other
 * classes: it is kept as a file of the same name there. What cannot be read is left for ComfyUI's
 * side to refuse.
 *
 * What was uploaded is remembered for ComfyUI's present life: the same content is sent once, unless
 * ComfyUI no longer has the file (it is asked).
 */
#ifndef INPUTS_H
#define INPUTS_H

#include "comfy.h"
#include "https.h"
#include "prompt.h"

enum {
    INPUTS_MAX = 64,               /* of one prompt */
    INPUTS_BASE64_MIN = 64,        /* letters; a shorter string is a name */
    INPUTS_CLASSES_MAX = 1024,     /* remembered */
    INPUTS_UPLOADED_MAX = 4096,    /* remembered */
    INPUTS_KEEP_MIN = 1024 * 1024, /* smaller ones stay in the prompt */
};

struct inputs;
struct inputs_job;

struct inputs_options {
    const char *keep_dir; /* NULL, or the input directory of a ComfyUI that is elsewhere */
    struct comfy *comfy;
    struct https *https;
    size_t bytes_max;  /* of one input */
    uint64_t fetch_ms; /* for one input */
};

struct inputs *inputs_new(uv_loop_t *loop, struct later *later,
                          const struct inputs_options *options);
/* Another ComfyUI: it has nothing of what the one before had. */
void inputs_forget(struct inputs *in);
/* Every job must have ended. */
void inputs_free(struct inputs *in);

/* Does any string of the prompt look like a file? If not there is nothing to do. */
bool inputs_are_there(const struct prompt *p);

/* Which input, and why; tokens are copies. */
struct inputs_fault {
    struct err err;  /* ERR_FORBIDDEN: its address may not be fetched from; else it only tells */
    bool is_comfyui; /* or ours, ERR_BUSY: not the caller's; another try may do */
    char *node_id, *class_type, *input; /* tokens; NULL: none */
};

/* `p` must stay as it is until `done`, which comes exactly once, from the loop. fault == NULL:
 * *text is the edited text (to be taken over; untouched if nothing had to change: length 0). */
typedef void (*inputs_cb)(void *ctx, const struct inputs_fault *fault, struct buf *take_text);
struct inputs_job *inputs_start(struct inputs *in, const struct prompt *p, inputs_cb done,
                                void *ctx);
void inputs_cancel(struct inputs_job *job); /* `done` follows with ERR_CANCELLED */

#endif
