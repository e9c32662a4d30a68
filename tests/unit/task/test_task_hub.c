/* The hub over a store that answers when the test says so: what is on its way when everything ends.
 * ComfyUI is never there. */
#include "hub_room.h"
#include "store_fake.h"
#include "task_private.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct room {
    struct hub_room hub_room;
    bool closed, ended, drained;
    unsigned changes;
    struct task_watch watch;
};

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static int set_up(void **state)
{
    static struct room r;
    r = (struct room){.closed = false};
    hub_room_open(&r.hub_room, &store_fake_ops, "fake:");
    *state = &r;
    return 0;
}

static int tear_down(void **state)
{
    struct room *r = *state;
    hub_room_close(&r->hub_room);
    return 0;
}

static void turn(struct room *r)
{
    for (unsigned i = 0; i < 5; i++)
        (void)uv_run(&r->hub_room.f.loop, UV_RUN_NOWAIT);
}

static void on_change(struct task_watch *w)
{
    assert_true(task_is_known(w->task));
    ((struct room *)w->ctx)->changes++;
}

static void on_end(struct task_watch *w)
{
    ((struct room *)w->ctx)->ended = true;
}

/* A task, watched. */
static struct task *create_of(struct room *r, bool given, const char *text)
{
    struct prompt prompt;
    struct prompt_fault fault;
    struct buf body;
    struct task *t;
    bool joined;
    buf_init(&body, SIZE_MAX);
    buf_adds(&body, text);
    assert_int_equal(prompt_parse(&prompt, &body, &fault), ERR_OK);
    struct task_spec spec = {.id = "t", .given = given, .request_id = "", .take_prompt = &prompt};
    assert_int_equal(task_hub_create(r->hub_room.hub, &spec, &t, &joined, NULL), ERR_OK);
    r->watch = (struct task_watch){.on_change = on_change, .on_end = on_end, .ctx = r};
    task_watch_start(&r->watch, t);
    return t;
}

static void create_task(struct room *r, bool given)
{
    task_unref(create_of(r, given, "{\"1\":{\"class_type\":\"A\",\"inputs\":{}}}"));
}

static void create(struct room *r)
{
    create_task(r, true);
}

static void end_hub(struct room *r)
{
    task_watch_stop(&r->watch);
    task_hub_free(r->hub_room.hub, on_closed, &r->closed);
    loop_run_until(&r->hub_room.f, &r->closed, "the end of the hub");
}

static void close_hub(struct room *r)
{
    task_hub_free(r->hub_room.hub, on_closed, &r->closed);
    task_watch_stop(&r->watch);
    turn(r);
    assert_false(r->closed); /* the store has the task's memory in its hands */
    store_fake_finish_all();
    loop_run_until(&r->hub_room.f, &r->closed, "the end of the hub");
}

/* Its record has changed and waits for its turn to be written. */
static void write_soon(struct room *r, struct task *t)
{
    for (unsigned i = 0; i < 1000 && !t->live_record.dirty; i++) {
        task_changed(t);
        turn(r);
        uv_sleep(2);
    }
    assert_true(t->live_record.dirty);
}

static void test_a_claim_on_its_way_when_the_hub_ends(void **state)
{
    struct room *r = *state;
    store_fake.hold = true;
    create(r);
    turn(r);
    task_hub_drain(r->hub_room.hub, NULL, NULL);
    task_hub_end_all(r->hub_room.hub);
    close_hub(r);
}

static void test_an_end_on_its_way_when_the_hub_ends(void **state)
{
    struct room *r = *state;
    create(r);
    turn(r);
    store_fake.hold = true;
    task_hub_drain(r->hub_room.hub, NULL, NULL);
    task_hub_end_all(r->hub_room.hub);
    unsigned before = r->changes;
    turn(r);
    assert_false(r->ended); /* it is told when it is stored */
    assert_int_equal(r->changes, before);
    close_hub(r);
}

static void test_an_end_that_is_refused_when_the_hub_ends(void **state)
{
    struct room *r = *state;
    create(r);
    turn(r);
    assert_int_equal(ask_put(&r->hub_room.f, r->hub_room.s, "t~end.1", "{\"superseded\":{}}"),
                     ERR_OK);
    store_fake.hold = true;
    task_hub_end_all(r->hub_room.hub);
    turn(r);
    close_hub(r);
}

static void test_a_task_that_came_late_in_a_gap_is_not_old(void **state)
{
    struct room *r = *state;
    create(r);
    task_hub_thaw(r->hub_room.hub, 120000); /* longer than a task may take */
    for (unsigned i = 0; i < 5; i++) {
        turn(r);
        uv_sleep(2);
    }
    assert_false(r->ended);
    task_hub_end_all(r->hub_room.hub);
    end_hub(r);
}

/* The monotonic clock of a machine that was put to sleep has not moved: the gap is one of nothing.
 */
static void test_a_lease_from_before_a_gap_holds_when_it_was_looked_after(void **state)
{
    struct room *r = *state;
    create(r);
    turn(r);
    struct task *t = task_hub_find(r->hub_room.hub, SLICE("t"));
    assert_true(task_is_certain(t));
    assert_int_equal(ask_put(&r->hub_room.f, r->hub_room.s, "t~end.1", "{\"superseded\":{}}"),
                     ERR_OK);
    task_hub_thaw(r->hub_room.hub, 0);
    assert_false(task_is_certain(t));
    for (unsigned i = 0; i < 1000 && task_failure(t) == NULL; i++) {
        turn(r);
        uv_sleep(2);
    }
    assert_non_null(task_failure(t));
    assert_int_equal(task_failure(t)->code, FAILURE_SUPERSEDED);
    task_hub_end_all(r->hub_room.hub);
    end_hub(r);
}

/* What waited to be written shows nobody that we lived in between. */
static void test_a_write_after_a_gap_is_no_sign_that_the_lease_held(void **state)
{
    struct room *r = *state;
    create(r);
    turn(r);
    struct task *t = task_hub_find(r->hub_room.hub, SLICE("t"));
    write_soon(r, t);
    char *before = strdup(store_fake_value("t~task"));
    assert_int_equal(ask_put(&r->hub_room.f, r->hub_room.s, "t~end.1", "{\"superseded\":{}}"),
                     ERR_OK);
    task_hub_thaw(r->hub_room.hub, 0);
    for (unsigned i = 0; i < 1000 && task_failure(t) == NULL; i++) {
        assert_false(task_is_certain(t));
        turn(r);
        uv_sleep(2);
    }
    assert_non_null(task_failure(t));
    assert_int_equal(task_failure(t)->code, FAILURE_SUPERSEDED);
    assert_string_equal(store_fake_value("t~task"), before);
    free(before);
    task_hub_end_all(r->hub_room.hub);
    end_hub(r);
}

static long long stored_rev(void)
{
    const char *rev = strstr(store_fake_value("t~task"), "\"rev\":");
    assert_non_null(rev);
    return strtoll(rev + strlen("\"rev\":"), NULL, 10);
}

/* Others have seen its record stand still for as long as the gap was. */
static void test_a_quiet_task_shows_that_it_lives_soon_after_a_gap(void **state)
{
    struct room *r = *state;
    create(r);
    turn(r);
    struct task *t = task_hub_find(r->hub_room.hub, SLICE("t"));
    write_soon(r, t);
    for (unsigned i = 0; i < 1000 && (t->live_record.dirty || t->live_record.writing); i++) {
        turn(r);
        uv_sleep(2);
    }
    long long before = stored_rev();
    assert_int_equal(before, t->rev);
    task_hub_thaw(r->hub_room.hub, 0);
    for (unsigned i = 0; i < 1500 && stored_rev() == before; i++) {
        turn(r);
        uv_sleep(2);
    }
    assert_true(stored_rev() > before);
    task_hub_end_all(r->hub_room.hub);
    end_hub(r);
}

/* Its node map was stored, its record was not: no sign that its end was created. */
static void test_an_end_that_was_half_stored_before_a_gap_is_created_after_it(void **state)
{
    struct room *r = *state;
    create_task(r, false);
    turn(r);
    store_fake.fail = 1;
    store_fake.fail_doc = 1;
    task_hub_end_all(r->hub_room.hub);
    turn(r);
    assert_int_equal(store_fake.fail, 0);
    assert_null(store_fake_value("t~end.1"));
    task_hub_thaw(r->hub_room.hub, 0);
    for (unsigned i = 0; i < 1500 && task_hub_stats(r->hub_room.hub).unstored > 0; i++) {
        turn(r);
        uv_sleep(2);
    }
    assert_non_null(store_fake_value("t~end.1"));
    end_hub(r);
}

static void test_who_comes_for_what_was_left_to_others_is_refused(void **state)
{
    struct room *r = *state;
    struct task_hub_options options = hub_room_options(&r->hub_room);
    hub_room_close_hub(&r->hub_room);
    options.left_is_found = true;
    r->hub_room.hub = task_hub_new(&r->hub_room.f.loop, &r->hub_room.f.later, &options);
    create(r);
    turn(r);
    struct task *t = task_hub_find(r->hub_room.hub, SLICE("t"));
    task_watch_stop(&r->watch);
    write_soon(r, t);
    store_fake.hold = true;
    for (unsigned i = 0; i < 1000 && !t->live_record.writing; i++) {
        turn(r);
        uv_sleep(2);
    }
    assert_true(t->live_record.writing);
    task_hub_end_all(r->hub_room.hub);
    assert_int_equal(task_failure(t)->code, FAILURE_SUPERSEDED);
    task_watch_start(&r->watch, t);
    store_fake_finish_all();
    turn(r);
    assert_true(r->ended);
    assert_non_null(task_refused(t));
    assert_int_equal(task_refused(t)->code, ERR_UNAVAILABLE);
    assert_null(store_fake_value("t~end.1"));
    end_hub(r);
}

static void test_the_end_of_a_drain_waits_for_the_store(void **state)
{
    struct room *r = *state;
    create(r);
    turn(r);
    store_fake.hold = true;
    task_hub_drain(r->hub_room.hub, on_closed, &r->drained);
    task_hub_end_all(r->hub_room.hub);
    turn(r);
    assert_false(r->drained);
    store_fake_finish_all();
    loop_run_until(&r->hub_room.f, &r->drained, "the drain");
    assert_true(r->ended);
    assert_non_null(strstr(store_fake_value("t~task"), "\"stopping\""));
    end_hub(r);
}

/* So many operations that the next one waits. */
static void occupy_store(struct room *r, struct ask others[FAKE_PARALLEL])
{
    char key[8];
    store_fake.hold = true;
    for (unsigned i = 0; i < FAKE_PARALLEL; i++) {
        others[i] = (struct ask){.done = false};
        (void)snprintf(key, sizeof(key), "k%u", i);
        ask_add(&others[i], STORE_GET, key, NULL);
        ask_start(&others[i], r->hub_room.s);
    }
}

/* Inputs that are fetched while the store is busy have become names by the time it writes. */
static void test_a_prompt_is_kept_as_it_came(void **state)
{
#define PIXEL        "data:image/png;base64,iVBORw0KGgo="
#define LOADS(image) "{\"1\":{\"class_type\":\"LoadImage\",\"inputs\":{\"image\":\"" image "\"}}}"
    struct room *r = *state;
    struct ask others[FAKE_PARALLEL];
    struct buf text;
    occupy_store(r, others);
    struct task *t = create_of(r, false, LOADS(PIXEL));
    buf_init(&text, SIZE_MAX);
    buf_adds(&text, LOADS("name.png"));
    assert_int_equal(prompt_set_text(&t->prompt, &text), ERR_OK); /* as task_inputs.c does */
    task_show_prompt(t);
    task_unref(t);
    store_fake_finish_all();
    turn(r);
    assert_non_null(store_fake_value("t~prompt"));
    assert_non_null(strstr(store_fake_value("t~prompt"), LOADS(PIXEL)));
    for (unsigned i = 0; i < FAKE_PARALLEL; i++)
        ask_done(&others[i]);
    task_hub_end_all(r->hub_room.hub);
    end_hub(r);
}

/* The first record is made when it is written, which may be after the end has come. That is told by
 * the write behind it, which lasts. */
static void test_a_first_record_that_waited_tells_no_end(void **state)
{
    struct room *r = *state;
    struct ask others[FAKE_PARALLEL];
    occupy_store(r, others);
    create_task(r, false);
    turn(r);
    assert_null(strstr(store_fake.log, "put "));
    task_hub_end_all(r->hub_room.hub);
    store_fake_finish();
    turn(r);
    const char *first = strstr(store_fake.log, "put t~task=");
    assert_non_null(first);
    assert_non_null(strstr(first, "\"queued\""));
    assert_null(strstr(first, "\"stopping\""));
    store_fake_finish_all();
    loop_run_until(&r->hub_room.f, &r->ended, "the end of the task");
    assert_non_null(strstr(store_fake_value("t~task"), "\"stopping\""));
    for (unsigned i = 0; i < FAKE_PARALLEL; i++)
        ask_done(&others[i]);
    end_hub(r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_claim_on_its_way_when_the_hub_ends),
        TEST(test_an_end_on_its_way_when_the_hub_ends),
        TEST(test_an_end_that_is_refused_when_the_hub_ends),
        TEST(test_a_task_that_came_late_in_a_gap_is_not_old),
        TEST(test_a_lease_from_before_a_gap_holds_when_it_was_looked_after),
        TEST(test_a_write_after_a_gap_is_no_sign_that_the_lease_held),
        TEST(test_a_quiet_task_shows_that_it_lives_soon_after_a_gap),
        TEST(test_an_end_that_was_half_stored_before_a_gap_is_created_after_it),
        TEST(test_who_comes_for_what_was_left_to_others_is_refused),
        TEST(test_the_end_of_a_drain_waits_for_the_store),
        TEST(test_a_first_record_that_waited_tells_no_end),
        TEST(test_a_prompt_is_kept_as_it_came),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
