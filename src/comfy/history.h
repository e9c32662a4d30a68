/* What GET /history/{id} and GET /queue say of one prompt. Pure. */
#ifndef HISTORY_H
#define HISTORY_H

#include "json_scan.h"

enum history_end {
    HISTORY_NONE, /* {}: unknown or unfinished */
    HISTORY_SUCCESS,
    HISTORY_ERROR, /* last: data of its execution_error, if there is one */
    HISTORY_INTERRUPTED,
};

struct history {
    enum history_end end;
    struct slice outputs; /* object, "{}" if missing */
    struct slice meta;    /* object or empty */
    struct slice last;    /* data of the message that ended it, or empty */
    struct slice cached;  /* `nodes` of execution_cached: array, or empty */
};

/* ERR_PROTOCOL: not what a ComfyUI says; nothing can be concluded. Slices point into body. */
enum err_code history_parse(struct history *ret, struct slice body, const char *prompt_id,
                            struct err *err) MUST_CHECK;

enum queue_place { QUEUE_ABSENT, QUEUE_PENDING, QUEUE_RUNNING };

struct queue {
    struct slice running, pending; /* parts of the body */
};

enum err_code queue_parse(struct queue *ret, struct slice body, struct err *err) MUST_CHECK;
/* Those that wait first. id: a JSON string of the body. */
void queue_each(const struct queue *q,
                void (*on_prompt)(void *ctx, struct slice id, enum queue_place place), void *ctx);
enum queue_place queue_place_of(const struct queue *q, const char *prompt_id);

#endif
