/* Classes of nodes that end a graph, run, and say nothing of it: what sends its result elsewhere,
 * SaveImageWebsocket. The history has shown that nothing was lost when they said nothing; from then
 * on their silence is no reason to ask it. Pure.
 *
 * A fixed number of them: where two fall on one place, the later one is known. */
#ifndef QUIET_H
#define QUIET_H

#include "buf.h"

enum { QUIET_CLASSES = 256 };

struct quiet {
    uint64_t seed;
    uint64_t known[QUIET_CLASSES]; /* hashes; 0: none */
};

void quiet_init(struct quiet *q); /* none is known */
/* class_type: the token, as it is spelled. */
bool quiet_has(const struct quiet *q, struct slice class_type);
void quiet_add(struct quiet *q, struct slice class_type);
void quiet_remove(struct quiet *q, struct slice class_type);

#endif
