/* A hub over a store of the test's choice. ComfyUI is never there. */
#ifndef HUB_ROOM_H
#define HUB_ROOM_H

#include "comfy.h"
#include "store_ask.h"
#include "supervisor.h"
#include "task_hub.h"

struct hub_room {
    struct loop_fixture f;
    struct store *s;
    struct supervisor *supervisor;
    struct comfy *comfy;
    struct task_hub *hub;
};

/* Of its hub, for another one in its place. */
struct task_hub_options hub_room_options(const struct hub_room *r);
void hub_room_open(struct hub_room *r, const struct store_ops *ops, const char *url);
void hub_room_close_hub(struct hub_room *r); /* for tests that do not close it themselves */
void hub_room_close(struct hub_room *r);     /* all but the hub, which has been closed */

#endif
