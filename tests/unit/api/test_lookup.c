/* What lookers of one task share, over a store whose answers a test lets out one by one. */
#include "lookup.h"
#include "store_ask.h"
#include "store_fake.h"
#include "unit.h"

enum { LONG_MS = 60000 };

static struct loop_fixture f;
static struct api api;

struct look {
    struct lookup *lookup; /* NULL: told, or not asked */
    bool told, known;
    uint64_t rev;
    struct look *cancels; /* … when it is told */
};

static void look_on_found(void *ctx, const struct lookup_found *found, const struct err *err)
{
    struct look *l = ctx;
    l->lookup = NULL;
    l->told = true;
    l->known = err == NULL && found->record.len > 0;
    l->rev = found->rev;
    if (l->cancels != NULL && l->cancels->lookup != NULL) {
        lookup_cancel(l->cancels->lookup);
        l->cancels->lookup = NULL;
    }
}

static void look_begin(struct look *l)
{
    l->lookup = lookup_start(&api, SLICE("t"), false, LOOKUP_SHARED, look_on_found, l);
    assert_false(l->told);
}

static void store_record(const char *record)
{
    bool held = store_fake.hold;
    store_fake.hold = false;
    assert_int_equal(ask_put(&f, api.store, "t~task", record), ERR_OK);
    store_fake.hold = held;
}

static int set_up(void **state)
{
    const struct task_hub_options hub = {.max_concurrency = 1, .lease_ms = LONG_MS};
    (void)state;
    loop_fixture_open(&f);
    store_fake_reset();
    assert_int_equal(store_open_with(&api.store, &store_fake_ops, &f.loop, &f.later, "fake:", NULL),
                     ERR_OK);
    api.loop = &f.loop;
    api.later = &f.later;
    api.hub = task_hub_new(&f.loop, &f.later, &hub);
    api.lookups = lookups_new(&f.loop, &f.later, api.store);
    store_record("{\"rev\":1}");
    return 0;
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static int tear_down(void **state)
{
    bool hub_closed = false, closed = false;
    (void)state;
    store_fake.hold = false;
    store_fake_finish_all();
    task_hub_end_all(api.hub);
    task_hub_free(api.hub, on_closed, &hub_closed);
    loop_run_until(&f, &hub_closed, "the hub to close");
    ask_close(&f, api.store, LONG_MS);
    lookups_free(api.lookups, on_closed, &closed);
    loop_run_until(&f, &closed, "the lookups to close");
    loop_fixture_close(&f);
    return 0;
}

static void who_looks_together_shares_a_read(void **state)
{
    struct look first = {.told = false}, second = {.told = false}, third = {.told = false};
    unsigned runs = store_fake.runs;
    uint64_t began = clock_mono_ms();
    (void)state;
    look_begin(&first);
    look_begin(&second);
    loop_run_until(&f, &second.told, "the second");
    assert_true(first.told && first.known && first.rev == 1 && second.rev == 1);
    look_begin(&third);
    loop_run_until(&f, &third.told, "the third");
    assert_true(third.rev == 1);
    if (clock_mono_ms() - began < LOOKUP_FRESH_MS) /* the machine may be slow */
        assert_int_equal(store_fake.runs, runs + 1);
}

static void what_is_forgotten_is_read_anew(void **state)
{
    struct look first = {.told = false}, second = {.told = false}, third = {.told = false};
    unsigned runs = store_fake.runs;
    (void)state;
    look_begin(&first);
    loop_run_until(&f, &first.told, "the first");
    lookups_forget(api.lookups, "t");
    look_begin(&second);
    loop_run_until(&f, &second.told, "the second");
    lookups_thaw(api.lookups);
    look_begin(&third);
    loop_run_until(&f, &third.told, "the third");
    assert_true(first.known && second.known && third.known);
    assert_int_equal(store_fake.runs, runs + 3);
}

/* Whoever asks behind a gap, or when a read takes long, is told nothing of before. */
static void a_read_of_another_time_is_not_joined(void **state)
{
    struct look before = {.told = false}, behind = {.told = false}, late = {.told = false};
    unsigned runs = store_fake.runs;
    (void)state;
    store_fake.hold = true;
    look_begin(&before);
    loop_run_for(&f, 5);
    lookups_thaw(api.lookups);
    look_begin(&behind);
    loop_run_for(&f, LOOKUP_JOIN_MS + 10);
    look_begin(&late);
    store_fake.hold = false;
    store_fake_finish_all();
    loop_run_until(&f, &late.told, "the last");
    assert_true(before.told && behind.told && late.rev == 1);
    assert_int_equal(store_fake.runs, runs + 3);
}

static void a_look_can_be_cancelled_at_any_moment(void **state)
{
    struct look looks[4] = {{.told = false}};
    (void)state;
    looks[1].cancels = &looks[2]; /* both wait for one read */
    for (unsigned i = 0; i < 3; i++)
        look_begin(&looks[i]);
    lookup_cancel(looks[0].lookup);
    loop_run_until(&f, &looks[1].told, "who was left");
    look_begin(&looks[3]); /* of what is kept */
    lookup_cancel(looks[3].lookup);
    loop_run_for(&f, 5);
    assert_false(looks[0].told || looks[2].told || looks[3].told);
    look_begin(&looks[0]);
    lookup_cancel(looks[0].lookup); /* the read goes on for nobody */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_looks_together_shares_a_read),
        TEST(what_is_forgotten_is_read_anew),
        TEST(a_read_of_another_time_is_not_joined),
        TEST(a_look_can_be_cancelled_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
