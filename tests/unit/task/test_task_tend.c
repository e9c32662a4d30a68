/* What tending to stored tasks waits for, and what does not wait for it. What it does is seen in
 * tests/integration/test_trust.py. */
#include "fault.h"
#include "hub_room.h"
#include "store_fake.h"
#include "task_tend.h"
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

enum { KEEP_MS = 1, STOP_MS = 30 };

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static struct task_tend *tend(struct hub_room *r, const char *output_dir)
{
    struct task_tend_options options = {.hub = r->hub,
                                        .store = r->s,
                                        .keep_ms = KEEP_MS,
                                        .output_dir = output_dir,
                                        .stop_ms = STOP_MS};
    return task_tend_start(&r->f.loop, &options);
}

static void turn(struct hub_room *r)
{
    for (unsigned i = 0; i < 5; i++)
        (void)uv_run(&r->f.loop, UV_RUN_NOWAIT);
}

static void the_end_waits_for_no_list(void **state)
{
    struct hub_room r;
    bool closed = false;
    (void)state;
    hub_room_open(&r, &store_fake_ops, "fake:");
    store_fake.hold = true;
    struct task_tend *t = tend(&r, NULL);
    turn(&r);
    assert_string_equal(store_fake.log, "list;");
    task_tend_free(t, on_closed, &closed);
    loop_run_until(&r.f, &closed, "the end, with a list on its way");
    hub_room_close_hub(&r);
    hub_room_close(&r); /* the list is answered; its memory must not be lost */
}

/* Last: its thread hangs until the process ends. */
static void the_end_waits_for_files_only_so_long(void **state)
{
    static const char record[] =
        "{\"id\":\"t\",\"status\":\"succeeded\",\"attempt\":1,\"rev\":1,\"finished\":1,\"outputs\":"
        "[{\"filename\":\"f\",\"subfolder\":\"t\",\"type\":\"output\"}]}";
    struct hub_room r;
    bool closed = false;
    (void)state;
    hub_room_open(&r, &store_mem_ops, "mem:");
    assert_int_equal(ask_put(&r.f, r.s, "t~task", record), ERR_OK);
    fault_arm(FAULT_OPEN, 1, FAULT_HANG, true, false);
    struct task_tend *t = tend(&r, "/nowhere");
    while (fault_hits() == 0)
        (void)uv_run(&r.f.loop, UV_RUN_NOWAIT);
    task_tend_free(t, on_closed, &closed);
    loop_run_until(&r.f, &closed, "the end, with files on a mount that hangs");
    assert_true(ask_is(&r.f, r.s, "t~task", record)); /* so that they are found again */
    hub_room_close_hub(&r);
    hub_room_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_end_waits_for_no_list),
        cmocka_unit_test(the_end_waits_for_files_only_so_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
