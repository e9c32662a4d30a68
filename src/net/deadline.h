/* Many deadlines, one timer. Those of one class last equally long, so each class is a list in the
 * order of ending: setting and clearing cost a list operation, and the timer looks at the heads
 * only. A deadline that is cleared leaves the timer as it is; it fires once in vain then.
 *
 * A timer that comes much too late means that the process was frozen or starved: nobody was heard
 * in that time, though he may have spoken. Nothing is declared over then; all deadlines begin anew.
 */
#ifndef DEADLINE_H
#define DEADLINE_H

#include "list.h"

#include <stdint.h>

#include <uv.h>

struct deadline {
    struct list_node link;
    uint64_t at;
};

struct deadline_class {
    uint64_t ms;
    void (*over)(struct deadline *d); /* from the loop; it is not set any more */
    struct list_node waiting;
};

struct deadlines {
    uv_timer_t timer;
    uint64_t fires_at; /* 0: not armed */
    struct deadline_class *classes;
    unsigned count;
    void (*closed)(struct deadlines *ds);
};

enum { DEADLINE_LATE_MS = 1000 };

/* The array is the caller's: .ms and .over are set. */
void deadlines_init(struct deadlines *ds, uv_loop_t *loop, struct deadline_class *classes,
                    unsigned count);
void deadlines_close(struct deadlines *ds, void (*closed)(struct deadlines *ds));
/* The next one of a class to end, NULL if there is none. */
struct deadline *deadlines_first(struct deadlines *ds, unsigned class);

void deadline_init(struct deadline *d);
void deadline_set(struct deadlines *ds, unsigned class, struct deadline *d); /* again: anew */
void deadline_clear(struct deadline *d);                                     /* not set: fine */

#endif
