/* What a guard and the program that started it say to each other, over one socket.
 *
 * The program says one byte a time: the number of a signal for the whole group. The end of the
 * stream says that the program is no more (or wants no more of it): the group is killed. The guard
 * answers in messages; the last one is its own end, with code 0 when no descendant is left. */
#ifndef PROCESS_GUARD_H
#define PROCESS_GUARD_H

#include <stdint.h>

enum { GUARD_FD = 3 }; /* the guard's end of the socket */

#define GUARD_ARGV0 "comfy-guard"
#define GUARD_MARK  "--guard-of-a-child" /* argv[1] */

/* What follows: the command's soft limit of descriptors, 0 for the guard's own, and the command. */
enum { GUARD_DESCRIPTORS = 2, GUARD_COMMAND };

enum guard_news {
    GUARD_STARTED, /* value: pid of the command, also its session and group */
    GUARD_EXITED,  /* value: code */
    GUARD_KILLED,  /* value: signal */
};

struct guard_message {
    int32_t news;
    int32_t value;
};

#endif
