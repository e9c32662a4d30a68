/* Why a task did not end well: a stable code, a sentence, and whatever helps to mend it. Kept as
 * the JSON object that callers see as `error`. What HTTP status that means is the API's business.
 */
#ifndef FAILURE_H
#define FAILURE_H

#include "json_scan.h"

/* id, stable code */
#define FAILURES(X)                                                                                \
    X(FAILURE_PROMPT_REFUSED, "prompt_refused")     /* ComfyUI's validation said no */             \
    X(FAILURE_OUTPUTS_DROPPED, "outputs_dropped")   /* it would have run only a part */            \
    X(FAILURE_PROMPT_TOO_LARGE, "prompt_too_large") /* beyond ComfyUI's --max-upload-size */       \
    X(FAILURE_NODE, "node_error")                   /* a node raised */                            \
    X(FAILURE_INTERRUPTED, "interrupted")           /* by somebody else */                         \
    X(FAILURE_CANCELLED, "cancelled")               /* by us or through us */                      \
    X(FAILURE_CALLER_LEFT, "caller_left") /* the only one who could have had the result */         \
    X(FAILURE_COMFYUI_DIED, "comfyui_died")                                                        \
    X(FAILURE_COMFYUI_ERROR, "comfyui_error")     /* a 500 and no trace of the prompt */           \
    X(FAILURE_COMFYUI_GARBAGE, "comfyui_garbage") /* answers that no ComfyUI gives */              \
    X(FAILURE_PROMPT_LOST, "prompt_lost")         /* neither queued nor in the history */          \
    X(FAILURE_OUTPUT_MISSING, "output_missing")   /* named, but not to be had */                   \
    X(FAILURE_STARTING, "comfyui_starting")       /* did not come up in time */                    \
    X(FAILURE_GAVE_UP, "comfyui_gave_up")                                                          \
    X(FAILURE_STOPPING, "stopping")               /* this program was told to end */               \
    X(FAILURE_OWNER_DIED, "owner_died")           /* the instance that ran it */                   \
    X(FAILURE_SUPERSEDED, "superseded")           /* another instance took it over */              \
    X(FAILURE_OUT_OF_MEMORY, "out_of_memory")     /* a node's, told by ComfyUI */                  \
    X(FAILURE_INPUT, "bad_input")                 /* an input that cannot be fetched or read */    \
    X(FAILURE_ADDRESS_REFUSED, "address_refused") /* an input is where nobody may fetch from */    \
    X(FAILURE_TIMEOUT, "run_timeout")                                                              \
    X(FAILURE_STALLED, "stalled")                                                                  \
    X(FAILURE_GPU_REFUSED, "gpu_refused")         /* RUN_URL will never take it */                 \
    X(FAILURE_GPU_UNREACHABLE, "gpu_unreachable") /* RUN_URL did not take it in time */            \
    /* What came is no prompt. A task only where nobody reads the answer: asynchronous calls. */   \
    X(FAILURE_INVALID_JSON, "invalid_json")                                                        \
    X(FAILURE_JSON_TOO_COMPLEX, "json_too_complex")                                                \
    X(FAILURE_NOT_A_PROMPT, "not_a_prompt")                                                        \
    X(FAILURE_UI_FORMAT, "ui_format")                                                              \
    X(FAILURE_BAD_ENVELOPE, "bad_envelope")                                                        \
    X(FAILURE_BAD_ID, "bad_id")                                                                    \
    X(FAILURE_BAD_BODY, "bad_body")                                                                \
    X(FAILURE_BODY_TOO_LARGE, "body_too_large")                                                    \
    X(FAILURE_BODY_TIMEOUT, "body_timeout")                                                        \
    X(FAILURE_MEDIA_TYPE, "unsupported_media_type")                                                \
    X(FAILURE_ENCODING, "unsupported_encoding")

enum failure_code {
#define X(id, name) id,
    FAILURES(X)
#undef X
};

const char *failure_name(enum failure_code code);

enum {
    FAILURE_VALUE_MAX = 256 * 1024,
    FAILURE_DEPTH_MAX = JSON_DEPTH_MAX - 2, /* of a value: it lies in the error, that in a record */
};

struct failure {
    enum failure_code code;
    struct buf json; /* the object without its closing brace */
};

struct failure *failure_new(enum failure_code code, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Back from an object that failure_render() has written; a code that is not known becomes
 * FAILURE_COMFYUI_ERROR, the object stays what it is. */
struct failure *failure_read(struct slice object);
/* Nothing was wrong with the task: the same may work elsewhere or later. */
bool failure_is_passing(enum failure_code code);
/* The front door has taken the task back: its call, which comes all the same, is for nothing. */
bool failure_is_doors(enum failure_code code);
/* It was not wanted any more. */
bool failure_is_cancel(enum failure_code code);
/* There was no prompt. */
bool failure_is_refusal(enum failure_code code);
void failure_free(struct failure *f); /* NULL is fine */
/* Members; an empty value is left out. */
void failure_add_text(struct failure *f, const char *name, struct slice text);
void failure_add_number(struct failure *f, const char *name, int64_t number);
/* A value of a document that passed json_check(): NaN and the infinities become null; left out when
 * it has more than FAILURE_VALUE_MAX bytes or is deeper than FAILURE_DEPTH_MAX. */
void failure_add_json(struct failure *f, const char *name, struct slice value);
/* The sentence that ComfyUI gave, for `detail`, unescaped and cut; fallback if it gave none. */
void failure_detail_of(struct slice token, const char *fallback, char *ret, size_t room);
void failure_render(const struct failure *f, struct buf *out);

#endif
