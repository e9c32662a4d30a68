/* One message of ComfyUI's WebSocket, decoded as far as anybody needs it. Pure.
 *
 * What cannot be read is no reason to end anything: it becomes EVENT_ODD, and whoever follows a
 * prompt then asks the history. All slices point into the message. Ids are tokens with their
 * quotes; empty means absent or null.
 */
#ifndef EVENT_H
#define EVENT_H

#include "json_scan.h"

enum event_type {
    EVENT_OTHER,   /* of a prompt, but of no interest: progress_state, a type not known to us */
    EVENT_FOREIGN, /* a type not known to us that names no prompt: a custom node's own broadcast,
                      which may come from a thread that goes on whatever the prompt does */
    EVENT_ODD,     /* not understood: something may have been missed */
    EVENT_GAP,     /* too large to be kept: nobody knows what it told, or of which prompt */
    EVENT_STATUS,
    EVENT_START,
    EVENT_CACHED,    /* nodes */
    EVENT_EXECUTING, /* node, display_node */
    EVENT_OVER,      /* executing with node null: the prompt is over, history has it */
    EVENT_PROGRESS,  /* node, value, max */
    EVENT_EXECUTED,  /* node, display_node, output (may be empty: null) */
    EVENT_SUCCESS,
    EVENT_ERROR,       /* data; is_blocked: only a branch, not the end */
    EVENT_INTERRUPTED, /* data */
    EVENT_PREVIEW,     /* image, media_type; of newer versions also prompt_id, node, display_node */
};

struct event {
    enum event_type type;
    struct slice prompt_id, node, display_node;
    struct slice nodes;  /* array */
    struct slice output; /* object */
    struct slice data;   /* object: the whole `data` */
    struct slice image;
    const char *media_type; /* of image */
    double value, max;
    bool is_blocked;
    bool is_greeting; /* status with a sid */
};

void event_parse(struct event *ret, struct slice message);

/* A reader of many messages, zeroed at first. It tells what event_parse() would; but a message that
 * repeats the last progress except for the digits of its value, of which samplers send thousands,
 * costs two comparisons. */
enum { EVENT_KEEP_BYTES = 512 };
struct event_reader {
    char message[EVENT_KEEP_BYTES]; /* the last progress … */
    size_t len, before, after;      /* … and how much of it is around its value */
    struct event progress;          /* whose slices point into `message` */
};
void event_read(struct event_reader *r, struct event *ret, struct slice message);
/* A binary message: a preview or EVENT_OTHER. */
void event_parse_binary(struct event *ret, struct slice message);

#endif
