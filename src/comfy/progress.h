/* How far a prompt has come: one entry for each of its nodes. Pure: (progress, event) → progress.
 *
 * An event costs the same whatever the number of nodes. What runs inside an expanded node folds
 * into the node of the prompt that stands for it. `rev` grows with every change that a reader of
 * the node map could see.
 */
#ifndef PROGRESS_H
#define PROGRESS_H

#include "event.h"
#include "prompt.h"
#include "silent.h"

/* What outputs may take of a record, which a store takes only up to STORE_VALUE_MAX; the rest is
 * for the nodes (PROMPT_RECORD_MAX), the error and the metadata. */
enum {
    PROGRESS_FILES_MAX = 10000,
    PROGRESS_TEXT_MAX = 1024 * 1024,        /* of one node */
    PROGRESS_OUTPUTS_MAX = 7 * 1024 * 1024, /* bytes of files and texts of all nodes */
};

/* A file that ComfyUI says it has made. Tokens as ComfyUI spelled them, NUL-terminated, ours. */
struct progress_file {
    char *filename, *subfolder, *type;
};

enum progress_state { PROGRESS_IDLE, PROGRESS_RUNNING, PROGRESS_DONE };

struct progress_node {
    struct slice id; /* token, borrowed from the prompt's text */
    enum progress_state state;
    double value, max;           /* steps; 0/0 for a node without any */
    uint64_t start_s, updated_s; /* Unix time; 0: never */
    struct progress_file *files;
    unsigned file_count;
    bool cached;         /* it did not run: its outputs are those of an earlier run */
    bool ran;            /* it was seen at work */
    bool told, retold;   /* EVENT_EXECUTED has come for it; and again */
    bool listed;         /* the history has something of it */
    char *texts;         /* elements of a JSON array, "" between brackets; NULL: none */
    size_t output_bytes; /* that its files and texts take of a record */
};

struct progress {
    struct progress_node *nodes;
    unsigned count;
    uint32_t *index; /* open hash: position + 1 */
    uint32_t index_mask;
    uint64_t seed;
    unsigned running; /* position + 1 of the node that executes; 0: none */
    unsigned done;
    unsigned file_total;
    size_t output_bytes;
    bool truncated;   /* there were more outputs than are kept */
    struct buf inner; /* real id of the inner node that executes, token; "" when none */
    uint64_t rev;
};

/* Of a prompt whose text outlives the progress. */
void progress_init(struct progress *p, const struct prompt *prompt);
/* From a node map as progress_render() writes it; `map` is a checked JSON object that outlives the
 * progress. Entries that are no objects count as nodes that never ran. */
void progress_read(struct progress *p, struct slice map);
void progress_done(struct progress *p);
/* Back to the beginning (another attempt, a wrong guess); rev goes on. */
void progress_reset(struct progress *p);

/* True if something changed. EVENT_SUCCESS ends the node that executes. */
bool progress_apply(struct progress *p, const struct event *e, uint64_t now_s);

/* What history says of the outputs replaces what events said; `outputs` and `meta` (may be empty)
 * are objects of a checked history entry. `success`: every node that was seen at work is done. */
void progress_reconcile(struct progress *p, struct slice outputs, struct slice meta, bool success,
                        uint64_t now_s);

/* Was each node seen at work, and did each that feeds no other tell once what came of it, unless
 * its class is known to be silent? Then nothing speaks for a lost message about an output: as a
 * rule outputs stand at the ends. */
bool progress_heard_all(const struct progress *p, const struct prompt *prompt,
                        const struct silent_classes *silent);
/* What an end says of the classes. `whole`: a success of which no message is known to be lost, and
 * the outputs are what the history has; only then does it mean something that a node said nothing.
 * What it has said is to be learnt before progress_heard_all() is asked. */
void progress_learn_classes(const struct progress *p, const struct prompt *prompt, bool whole,
                            struct silent_classes *silent);

/* Position of a node by its token as any spelling of it, or -1. */
int progress_find(const struct progress *p, struct slice id);

/* 0..1, the share of nodes that are done, the running one's steps counted in. */
double progress_share(const struct progress *p);

/* The node map without results: {"9":{"max":1,…},…}. */
void progress_render(const struct progress *p, struct buf *out);
/* One entry up to and without its closing brace, so that `results` can follow. */
void progress_render_node(const struct progress_node *n, struct buf *out);

#endif
