/* How a ComfyUI ended, put together from its exit, its last lines, the kernel's count of OOM kills
 * and what we did to it; told in a sentence for people. */
#ifndef ENDING_H
#define ENDING_H

#include "supervisor.h"

enum { ENDING_LINE_MAX = 1024, ENDING_REASON_MAX = 512 };

struct ending {
    struct supervisor_exit exit; /* what is told: texts point into the fields below */
    char reason[ENDING_REASON_MAX];
    struct buf tail;

    char lines[SUPERVISOR_TAIL_LINES][ENDING_LINE_MAX]; /* a ring: the next one's place is `next` */
    size_t lens[SUPERVISOR_TAIL_LINES];
    unsigned next, count;
    uint64_t oom_kills; /* before it was started */
    bool condemned;
};

void ending_init(struct ending *e);
void ending_done(struct ending *e);
/* A ComfyUI is started: what follows is about it. The exit of the one before is still told. */
void ending_begin(struct ending *e);
void ending_add_line(struct ending *e, struct slice line);
/* It is about to be killed. The exit is told as by SIGTERM until it has been seen. */
void ending_condemn(struct ending *e, const char *why);
/* It could not even be started. */
void ending_not_started(struct ending *e, const struct err *err);

enum ending_hand { ENDING_BY_ITSELF, ENDING_BY_US };
void ending_seen(struct ending *e, int code, int signum, enum ending_hand hand, bool was_ready);

/* The number behind "oom_kill " in a cgroup's file; 0 if there is none. */
uint64_t ending_oom_kills(struct slice text);
/* Is this what Python, torch and CUDA print when there is no memory left? */
bool ending_tells_out_of_memory(struct slice text);

#endif
