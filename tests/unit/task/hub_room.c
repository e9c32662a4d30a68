#include "hub_room.h"

#include "store_fake.h"
#include "unit.h"

static void on_state(struct supervisor *s, enum supervisor_state now, enum supervisor_state before)
{
    (void)s;
    (void)now;
    (void)before;
}

static void on_event(struct comfy *c, const struct event *e)
{
    (void)c;
    (void)e;
}

static void on_link(struct comfy *c, bool open)
{
    (void)c;
    (void)open;
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

struct task_hub_options hub_room_options(const struct hub_room *r)
{
    return (struct task_hub_options){.supervisor = r->supervisor,
                                     .comfy = r->comfy,
                                     .store = r->s,
                                     .max_concurrency = 1,
                                     .max_queue = 10,
                                     .max_attempts = 2,
                                     .lease_ms = 60000,
                                     .run_timeout_ms = 60000,
                                     .stall_timeout_ms = 60000,
                                     .startup_timeout_ms = 60000,
                                     .instance = "here"};
}

void hub_room_open(struct hub_room *r, const struct store_ops *ops, const char *url)
{
    *r = (struct hub_room){.s = NULL};
    loop_fixture_open(&r->f);
    store_fake_reset();
    assert_int_equal(store_open_with(&r->s, ops, &r->f.loop, &r->f.later, url, NULL), ERR_OK);
    struct supervisor_options sup = {SUPERVISOR_DEFAULTS, .host = "127.0.0.1", .port = 1};
    sup.on_state = on_state;
    r->supervisor = supervisor_new(&r->f.loop, &r->f.later, &sup);
    struct comfy_options talk = {
        .host = "127.0.0.1", .port = 1, .on_event = on_event, .on_link = on_link};
    r->comfy = comfy_new(&r->f.loop, &r->f.later, &talk);
    struct task_hub_options options = hub_room_options(r);
    r->hub = task_hub_new(&r->f.loop, &r->f.later, &options);
}

void hub_room_close_hub(struct hub_room *r)
{
    bool closed = false;
    task_hub_free(r->hub, on_closed, &closed);
    loop_run_until(&r->f, &closed, "the end of the hub");
}

void hub_room_close(struct hub_room *r)
{
    bool closed[2] = {false, false};
    comfy_free(r->comfy, on_closed, &closed[0]);
    loop_run_until(&r->f, &closed[0], "the end of the conversation");
    ask_close(&r->f, r->s, 1000);
    supervisor_free(r->supervisor, on_closed, &closed[1]);
    loop_run_until(&r->f, &closed[1], "the end of the supervisor");
    loop_fixture_close(&r->f);
}
