/* A task's news for one reader who takes them when it can: the newest snapshot or none, never a
 * queue of them. Asked whether it is ready at most every FEED_MS; a snapshot that is the same as
 * the one before is not handed on. */
#ifndef FEED_H
#define FEED_H

#include "api.h"

enum { FEED_MS = 100 };

struct feed;
struct feed_reader {
    /* Has everything before left? */
    bool (*is_ready)(void *ctx);
    void (*on_snapshot)(void *ctx, struct blob *nodes);
    /* Once; nothing follows. How it ended is for the task to say (feed_task()). */
    void (*on_end)(void *ctx);
    /* Nothing was said for so long, and the reader is ready; NULL: never. */
    void (*on_silence)(void *ctx);
    uint64_t silence_ms;
    void (*on_preview)(void *ctx, const struct task_preview *p); /* NULL: not wanted */
    void *ctx;
    bool is_caller; /* as task_watch's */
};

/* Takes a reference to the task. Nothing is called inside. */
struct feed *feed_new(struct api *api, struct task *t, const struct feed_reader *reader);
void feed_free(struct feed *f); /* also inside its callbacks, which do not come any more */
struct task *feed_task(const struct feed *f);

#endif
