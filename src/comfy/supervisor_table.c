#include "supervisor_table.h"

/* Cells that are not named are ignored: news that came too late, or calls that change nothing.
 *
 * A condemned ComfyUI is BACKOFF from the verdict on: nobody shall give it work while it dies. So
 * BACKOFF hears exits too, and has no timer until then. Its ANSWER is an attached one's that is
 * back; there is nobody to answer otherwise. */
static const struct supervisor_cell
    supervisor_table[SUPERVISOR_STATE_COUNT][SUPERVISOR_EVENT_COUNT] = {
        [SUPERVISOR_STOPPED] =
            {
                [SUPERVISOR_ON_START] = {SUPERVISOR_CHECK_PORT, SUPERVISOR_STARTING},
            },
        [SUPERVISOR_STARTING] =
            {
                [SUPERVISOR_ON_STOP] = {SUPERVISOR_INTERRUPT, SUPERVISOR_STOPPING},
                [SUPERVISOR_ON_PORT_FREE] = {SUPERVISOR_LAUNCH, SUPERVISOR_STARTING},
                [SUPERVISOR_ON_PORT_TAKEN] = {SUPERVISOR_AVOID, SUPERVISOR_BACKOFF},
                [SUPERVISOR_ON_ANSWER] = {SUPERVISOR_GREET, SUPERVISOR_READY},
                [SUPERVISOR_ON_TOO_SLOW] = {SUPERVISOR_KILL, SUPERVISOR_BACKOFF},
                [SUPERVISOR_ON_CONDEMN] = {SUPERVISOR_KILL, SUPERVISOR_BACKOFF},
                [SUPERVISOR_ON_EXIT] = {SUPERVISOR_WAIT, SUPERVISOR_BACKOFF},
                [SUPERVISOR_ON_LAST_EXIT] = {SUPERVISOR_REST, SUPERVISOR_GAVE_UP},
            },
        [SUPERVISOR_READY] =
            {
                [SUPERVISOR_ON_STOP] = {SUPERVISOR_INTERRUPT, SUPERVISOR_STOPPING},
                [SUPERVISOR_ON_LOST] = {SUPERVISOR_KILL, SUPERVISOR_BACKOFF},
                [SUPERVISOR_ON_CONDEMN] = {SUPERVISOR_KILL, SUPERVISOR_BACKOFF},
                [SUPERVISOR_ON_EXIT] = {SUPERVISOR_WAIT, SUPERVISOR_BACKOFF},
                [SUPERVISOR_ON_LAST_EXIT] = {SUPERVISOR_REST, SUPERVISOR_GAVE_UP},
            },
        [SUPERVISOR_BACKOFF] =
            {
                [SUPERVISOR_ON_STOP] = {SUPERVISOR_INTERRUPT, SUPERVISOR_STOPPING},
                [SUPERVISOR_ON_PORT_FREE] = {SUPERVISOR_LAUNCH, SUPERVISOR_STARTING},
                [SUPERVISOR_ON_PORT_TAKEN] = {SUPERVISOR_AVOID, SUPERVISOR_BACKOFF},
                [SUPERVISOR_ON_ANSWER] = {SUPERVISOR_GREET, SUPERVISOR_READY},
                [SUPERVISOR_ON_EXIT] = {SUPERVISOR_WAIT, SUPERVISOR_BACKOFF},
                [SUPERVISOR_ON_LAST_EXIT] = {SUPERVISOR_REST, SUPERVISOR_GAVE_UP},
                [SUPERVISOR_ON_TIMER] = {SUPERVISOR_CHECK_PORT, SUPERVISOR_BACKOFF},
            },
        [SUPERVISOR_STOPPING] =
            {
                [SUPERVISOR_ON_EXIT] = {SUPERVISOR_REST, SUPERVISOR_STOPPED},
                [SUPERVISOR_ON_LAST_EXIT] = {SUPERVISOR_REST, SUPERVISOR_STOPPED},
            },
};

struct supervisor_cell supervisor_cell(enum supervisor_state state, enum supervisor_event event)
{
    return supervisor_table[state][event];
}
