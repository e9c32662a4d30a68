/* Calls that wait until ComfyUI can be asked: every way in which the wait ends. Nobody listens at
 * its address: to be on its way is to be refused there. */
#include "comfy.h"
#include "loop_fixture.h"
#include "unit.h"

#include <string.h>

struct room {
    struct loop_fixture f;
    struct comfy *comfy;
};

struct asked {
    struct http_call call;
    unsigned ends;
    bool ended;
    struct err err;
};

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

static void on_end(struct http_call *call, const struct err *err)
{
    struct asked *a = call->ctx;
    a->ends++;
    a->ended = true;
    assert_non_null(err);
    a->err = *err;
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static void room_open(struct room *r, uint64_t startup_ms)
{
    struct comfy_options options = {.host = "127.0.0.1",
                                    .port = 1,
                                    .startup_ms = startup_ms,
                                    .on_event = on_event,
                                    .on_link = on_link};
    loop_fixture_open(&r->f);
    r->comfy = comfy_new(&r->f.loop, &r->f.later, &options);
}

static void room_close(struct room *r)
{
    bool closed = false;
    comfy_free(r->comfy, on_closed, &closed);
    loop_run_until(&r->f, &closed, "the end of the conversation");
    loop_fixture_close(&r->f);
}

static void view(struct room *r, struct asked *a, uint64_t wait_ms)
{
    *a = (struct asked){
        .call = {.method = "GET", .target = SLICE("/view"), .on_end = on_end, .body_max = 100}};
    a->call.ctx = a;
    comfy_view_start(r->comfy, &a->call, wait_ms);
    assert_int_equal(a->ends, 0);
}

static void ends(struct room *r, struct asked *a, enum err_code code, const char *why)
{
    loop_run_until(&r->f, &a->ended, "the end of the call");
    assert_int_equal(a->ends, 1);
    assert_int_equal(a->err.code, code);
    assert_non_null(strstr(a->err.msg, why));
}

static void who_does_not_wait_asks_at_once(void **state)
{
    struct room r;
    struct asked a;
    (void)state;
    room_open(&r, 60000);
    view(&r, &a, 0);
    ends(&r, &a, ERR_UNAVAILABLE, "refused");
    room_close(&r);
}

static void a_wait_is_as_long_as_the_shorter_bound(void **state)
{
    static const uint64_t bounds[][2] = {{20, UINT64_MAX}, {60000, 20}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bounds); i++) {
        struct room r;
        struct asked a;
        room_open(&r, bounds[i][0]);
        view(&r, &a, bounds[i][1]);
        ends(&r, &a, ERR_UNAVAILABLE, "in time");
        room_close(&r);
    }
}

static void who_waits_goes_on_when_it_is_up(void **state)
{
    struct room r;
    struct asked a, b;
    (void)state;
    room_open(&r, 60000);
    view(&r, &a, UINT64_MAX);
    view(&r, &b, UINT64_MAX);
    loop_run_for(&r.f, 10);
    assert_int_equal(a.ends + b.ends, 0);
    comfy_up(r.comfy);
    ends(&r, &a, ERR_UNAVAILABLE, "refused");
    ends(&r, &b, ERR_UNAVAILABLE, "refused");
    room_close(&r);
}

static void who_leaves_is_told_so_once(void **state)
{
    struct room r;
    struct asked a;
    (void)state;
    room_open(&r, 60000);
    view(&r, &a, UINT64_MAX);
    comfy_view_resume(r.comfy, &a.call);
    comfy_view_cancel(r.comfy, &a.call);
    comfy_view_cancel(r.comfy, &a.call);
    comfy_up(r.comfy); /* too late */
    assert_int_equal(a.ends, 0);
    ends(&r, &a, ERR_CANCELLED, "cancelled");
    room_close(&r);
}

static void nobody_waits_for_what_is_given_up(void **state)
{
    struct room r;
    struct asked a;
    (void)state;
    room_open(&r, 60000);
    view(&r, &a, UINT64_MAX);
    comfy_give_up(r.comfy, "for good");
    ends(&r, &a, ERR_UNAVAILABLE, "for good");
    view(&r, &a, UINT64_MAX);
    ends(&r, &a, ERR_UNAVAILABLE, "for good");
    comfy_up(r.comfy);
    comfy_give_up(r.comfy, "for good"); /* it is up */
    comfy_down(r.comfy);
    view(&r, &a, 20);
    ends(&r, &a, ERR_UNAVAILABLE, "in time");
    room_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_does_not_wait_asks_at_once),
        cmocka_unit_test(a_wait_is_as_long_as_the_shorter_bound),
        cmocka_unit_test(who_waits_goes_on_when_it_is_up),
        cmocka_unit_test(who_leaves_is_told_so_once),
        cmocka_unit_test(nobody_waits_for_what_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
