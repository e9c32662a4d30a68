/* A prompt as a caller sent it: checked, and ready to be sent on with as few bytes changed as
 * possible. Pure.
 *
 * A prompt is an object, node id → {"class_type": string, "inputs": object, …}. It comes bare or in
 * an envelope {"prompt": {…}, "task_id"?, "results"?, "metadata"?} (told apart by `prompt` being an
 * object without `class_type`), so that what people post to ComfyUI's own /prompt is understood:
 * its `extra_data` and `partial_execution_targets` go with it, its ids and queue keys are ours to
 * choose. ComfyUI's worker thread dies of a node without `inputs` and of an `extra_data` that is no
 * object: both are refused here.
 *
 * The text that goes out is the text that came in except for inputs named `seed` or `noise_seed`
 * that are the number -1: each gets a random integer in [0, 2^31).
 */
#ifndef PROMPT_H
#define PROMPT_H

#include "codec.h"
#include "json_scan.h"

enum {
    PROMPT_NODE_ID_MAX = 256,
    PROMPT_METADATA_MAX = 64 * 1024,
    PROMPT_RECORD_MAX = 5 * 1024 * 1024, /* bytes that its nodes and seeds take of a record */
};

struct prompt_node {
    struct slice id;         /* the key's token, with its quotes, as the caller spelled it */
    struct slice class_type; /* token */
    struct slice inputs;     /* object */
};

struct prompt {
    struct buf body;           /* what the caller sent; node slices point into it or into `text` */
    struct buf text;           /* the prompt as it is sent on */
    struct prompt_node *nodes; /* of `text`, in its order */
    unsigned count;
    struct buf seeds; /* JSON object of the seeds that were filled in: {"3.seed": 123} */
    char sha256[SHA256_TEXT + 1];     /* of the prompt as sent, with its targets if it has any */
    struct slice extra_data, targets; /* in body; empty: none */
    struct slice metadata;            /* any JSON value in body; empty: none */
    struct slice task_id;             /* token in body; empty: none. Of what is no prompt, too */
    bool want_results, says_results;
};

/* Why a body is no prompt: for a 400. `code` is stable; the other members are set where they help.
 */
struct prompt_fault {
    const char *code; /* invalid_json, json_too_complex, not_a_prompt, ui_format, bad_envelope */
    struct err err;
    bool has_position;
    struct json_fault position;
    struct slice node_id; /* token in body; empty: none */
    const char *hint;     /* NULL: none */
};

/* Takes the body over, whatever the result; ret must be freed with prompt_done() in both cases, and
 * the fault's slices die with it. What is made of the body has the body's budget (ERR_BUSY, for
 * which the fault has no code). */
enum err_code prompt_parse(struct prompt *ret, struct buf *take_body,
                           struct prompt_fault *fault) MUST_CHECK;
/* The same of one that was taken before and lies in a document of ours, which is deeper and has
 * more values than what the client sent. */
enum err_code prompt_parse_kept(struct prompt *ret, struct buf *take_body,
                                struct prompt_fault *fault) MUST_CHECK;
void prompt_init_empty(struct prompt *ret); /* no nodes; for who has no prompt yet */
/* Every string input named `filename_prefix` gets "<folder>/" in front. `folder` is plain text that
 * needs no escapes. */
enum err_code prompt_set_folder(struct prompt *p, const char *folder) MUST_CHECK;
/* The prompt goes on with this text, which is as well-formed as its own; nodes point into it then.
 */
enum err_code prompt_set_text(struct prompt *p, struct buf *take_text) MUST_CHECK;
void prompt_done(struct prompt *p);

#endif
