/* The hub over a store that answers when the test says so: what is on its way when everything ends.
 * ComfyUI is never there. */
#include "comfy.h"
#include "store_ask.h"
#include "store_fake.h"
#include "supervisor.h"
#include "task_hub.h"
#include "unit.h"

struct room {
    struct loop_fixture f;
    struct store *s;
    struct supervisor *supervisor;
    struct comfy *comfy;
    struct task_hub *hub;
    bool closed, ended, drained;
    struct task_watch watch;
};

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

static int set_up(void **state)
{
    static struct room r;
    r = (struct room){.closed = false};
    loop_fixture_open(&r.f);
    store_fake_reset();
    assert_int_equal(store_open_with(&r.s, &store_fake_ops, &r.f.loop, &r.f.later, "fake:", NULL),
                     ERR_OK);
    struct supervisor_options sup = {SUPERVISOR_DEFAULTS, .host = "127.0.0.1", .port = 1};
    sup.on_state = on_state;
    r.supervisor = supervisor_new(&r.f.loop, &r.f.later, &sup);
    struct comfy_options talk = {
        .host = "127.0.0.1", .port = 1, .on_event = on_event, .on_link = on_link};
    r.comfy = comfy_new(&r.f.loop, &r.f.later, &talk);
    struct task_hub_options options = {.supervisor = r.supervisor,
                                       .comfy = r.comfy,
                                       .store = r.s,
                                       .max_concurrency = 1,
                                       .max_queue = 10,
                                       .max_attempts = 2,
                                       .lease_ms = 60000,
                                       .run_timeout_ms = 60000,
                                       .stall_timeout_ms = 60000,
                                       .startup_timeout_ms = 60000,
                                       .instance = "here"};
    r.hub = task_hub_new(&r.f.loop, &r.f.later, &options);
    *state = &r;
    return 0;
}

static int tear_down(void **state)
{
    struct room *r = *state;
    bool closed[2] = {false, false};
    comfy_free(r->comfy, on_closed, &closed[0]);
    loop_run_until(&r->f, &closed[0], "the end of the conversation");
    ask_close(&r->f, r->s, 1000);
    supervisor_free(r->supervisor, on_closed, &closed[1]);
    loop_run_until(&r->f, &closed[1], "the end of the supervisor");
    loop_fixture_close(&r->f);
    return 0;
}

static void turn(struct room *r)
{
    for (unsigned i = 0; i < 5; i++)
        (void)uv_run(&r->f.loop, UV_RUN_NOWAIT);
}

static void on_end(struct task_watch *w)
{
    ((struct room *)w->ctx)->ended = true;
}

/* A task with a given id, watched. */
static void create(struct room *r)
{
    struct prompt prompt;
    struct prompt_fault fault;
    struct buf body;
    struct task *t;
    bool joined;
    buf_init(&body, SIZE_MAX);
    buf_adds(&body, "{\"1\":{\"class_type\":\"A\",\"inputs\":{}}}");
    assert_int_equal(prompt_parse(&prompt, &body, &fault), ERR_OK);
    struct task_spec spec = {.id = "t", .given = true, .request_id = "", .take_prompt = &prompt};
    assert_int_equal(task_hub_create(r->hub, &spec, &t, &joined, NULL), ERR_OK);
    r->watch = (struct task_watch){.on_end = on_end, .ctx = r};
    task_watch_start(&r->watch, t);
    task_unref(t);
}

static void close_hub(struct room *r)
{
    task_hub_free(r->hub, on_closed, &r->closed);
    task_watch_stop(&r->watch);
    turn(r);
    assert_false(r->closed); /* the store has the task's memory in its hands */
    store_fake_finish_all();
    loop_run_until(&r->f, &r->closed, "the end of the hub");
}

static void test_a_claim_on_its_way_when_the_hub_ends(void **state)
{
    struct room *r = *state;
    store_fake.hold = true;
    create(r);
    turn(r);
    task_hub_drain(r->hub, NULL, NULL);
    task_hub_end_all(r->hub);
    close_hub(r);
}

static void test_an_end_on_its_way_when_the_hub_ends(void **state)
{
    struct room *r = *state;
    create(r);
    turn(r);
    store_fake.hold = true;
    task_hub_drain(r->hub, NULL, NULL);
    task_hub_end_all(r->hub);
    turn(r);
    assert_false(r->ended); /* it is told when it is stored */
    close_hub(r);
}

static void test_an_end_that_is_refused_when_the_hub_ends(void **state)
{
    struct room *r = *state;
    create(r);
    turn(r);
    assert_int_equal(ask_put(&r->f, r->s, "t~end.1", "{\"superseded\":{}}"), ERR_OK);
    store_fake.hold = true;
    task_hub_end_all(r->hub);
    turn(r);
    close_hub(r);
}

static void test_the_end_of_a_drain_waits_for_the_store(void **state)
{
    struct room *r = *state;
    create(r);
    turn(r);
    store_fake.hold = true;
    task_hub_drain(r->hub, on_closed, &r->drained);
    task_hub_end_all(r->hub);
    turn(r);
    assert_false(r->drained);
    store_fake_finish_all();
    loop_run_until(&r->f, &r->drained, "the drain");
    assert_true(r->ended);
    assert_non_null(strstr(store_fake_value("t~task"), "\"stopping\""));
    task_watch_stop(&r->watch);
    task_hub_free(r->hub, on_closed, &r->closed);
    loop_run_until(&r->f, &r->closed, "the end of the hub");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_claim_on_its_way_when_the_hub_ends),
        TEST(test_an_end_on_its_way_when_the_hub_ends),
        TEST(test_an_end_that_is_refused_when_the_hub_ends),
        TEST(test_the_end_of_a_drain_waits_for_the_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
