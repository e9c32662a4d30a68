/* What the supervisor does about what happens: the table that supervisor.h draws. Pure. */
#ifndef SUPERVISOR_TABLE_H
#define SUPERVISOR_TABLE_H

#include "supervisor.h"

#define SUPERVISOR_STATE_COUNT (SUPERVISOR_GAVE_UP + 1)

#define SUPERVISOR_EVENTS(X)                                                                       \
    X(SUPERVISOR_ON_START, "start")           /* supervisor_start() */                             \
    X(SUPERVISOR_ON_STOP, "stop")             /* supervisor_stop() */                              \
    X(SUPERVISOR_ON_PORT_FREE, "port free")   /* nobody listens: ours may */                       \
    X(SUPERVISOR_ON_PORT_TAKEN, "port taken") /* by somebody who is not ours */                    \
    X(SUPERVISOR_ON_ANSWER, "answer")         /* /system_stats: 200 */                             \
    X(SUPERVISOR_ON_TOO_SLOW, "too slow")     /* no answer within startup_ms */                    \
    X(SUPERVISOR_ON_LOST, "lost")             /* it does not listen any more */                    \
    X(SUPERVISOR_ON_CONDEMN, "condemn")       /* supervisor_condemn() */                           \
    X(SUPERVISOR_ON_EXIT, "exit")             /* nothing of it lives (attached: nothing did) */    \
    X(SUPERVISOR_ON_LAST_EXIT, "last exit")   /* one too many, or something of it will not die */  \
    X(SUPERVISOR_ON_TIMER, "timer")           /* the back-off is over */

enum supervisor_event {
#define X(id, name) id,
    SUPERVISOR_EVENTS(X)
#undef X
        SUPERVISOR_EVENT_COUNT
};

enum supervisor_action {
    SUPERVISOR_IGNORE,     /* no move either */
    SUPERVISOR_CHECK_PORT, /* does somebody listen there? attached: ask him how he is */
    SUPERVISOR_LAUNCH,
    SUPERVISOR_AVOID,     /* wait for the port */
    SUPERVISOR_GREET,     /* it serves: note it, and watch it */
    SUPERVISOR_KILL,      /* TERM, KILL */
    SUPERVISOR_INTERRUPT, /* INT, TERM, KILL */
    SUPERVISOR_WAIT,      /* the back-off */
    SUPERVISOR_REST,
    SUPERVISOR_ACTION_COUNT
};

struct supervisor_cell {
    enum supervisor_action action;
    enum supervisor_state next; /* says nothing if the event is ignored */
};

struct supervisor_cell supervisor_cell(enum supervisor_state state, enum supervisor_event event);

#endif
