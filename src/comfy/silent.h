/* Classes of nodes that end a graph, run, and say nothing of it: what sends its result elsewhere,
 * SaveImageWebsocket. Where the history has shown several times that nothing was lost when they
 * said nothing, and they never said anything else, their silence is no reason to ask it again.
 * Pure.
 *
 * A fixed number of places, and a class may have one of a few that lie together; where all are
 * taken the later one is known, but a place of one that has spoken is never given to another.
 * Classes are compared as they are spelled: another spelling is another class, which has to be
 * known by itself. */
#ifndef SILENT_H
#define SILENT_H

#include "buf.h"

enum {
    SILENT_CLASSES = 256,
    SILENT_WAYS = 4, /* places that a class may have */
    SILENT_RUNS = 3, /* as many are believed to be no accident: a branch was blocked, say */
};

struct silent_class {
    uint64_t hash; /* 0: a free place */
    unsigned runs; /* silent ones */
    uint64_t last; /* the number of the last one */
    bool speaks;   /* it did, once */
};

struct silent_classes {
    uint64_t seed;
    uint64_t run; /* the number of the present one */
    struct silent_class place[SILENT_CLASSES];
};

void silent_init(struct silent_classes *s); /* none is known */
/* class_type: the token. */
bool silent_has(const struct silent_classes *s, struct slice class_type);
/* What is added from now on is of another run. */
void silent_next_run(struct silent_classes *s);
/* A node ran and said nothing, and the history has nothing of it. Several nodes of a class in one
 * run are one. */
void silent_add(struct silent_classes *s, struct slice class_type);
/* A node has said something, or the history says it for it. */
void silent_rule_out(struct silent_classes *s, struct slice class_type);

#endif
