/* A thousand live documents that change twenty times a second do not hold up the loop, nor while
 * the server hangs: its worst gap is at most three times that of an idle loop in the same run. Nor
 * does memory grow with them, however slow the server is.
 * `test_store_load <row> [seconds]`, each of four times: idle, loaded, hanging (where there is a
 * server), idle. */
#include "backends.h"
#include "servers.h"
#include "store_ask.h"
#include "unit.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

/* Of a program with a sanitizer, whose allocations are not the library's. */
size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

enum {
    LONG_MS = 60000,
    SKIPPED = 77,
    SECONDS_DEFAULT = 1,
    DOCS = 1000,
    TOUCH_MS = 50,
    TIMES = 3,
    ROUNDS = 3,       /* a machine that does other things now and then is no fault of the store */
    FLOOR_US = 10000, /* a quiet machine's idle gap is shorter than what its scheduler promises */
    VALUE_LEN = 500,
    HEAP_MAX = 4 * 1024 * 1024, /* what the documents take at most; each once: half a MiB */
};

struct doc {
    struct store_live live;
    uint64_t value;
};

static const struct backend_row *row;
static char url[BACKEND_URL_MAX];
static unsigned seconds = SECONDS_DEFAULT;
static struct loop_fixture f;
static struct store *s;
static struct doc docs[DOCS];
static unsigned live_ended;
static uint64_t last_us, worst_us;
static size_t heap_most;

static struct blob *doc_on_render(struct store_live *live, uint64_t *ret_order)
{
    struct doc *d = CONTAINER_OF(live, struct doc, live);
    char text[VALUE_LEN + 1];
    *ret_order = d->value;
    (void)snprintf(text, sizeof(text), "%*llu", VALUE_LEN, (unsigned long long)d->value);
    return blob_new(slice_of(text));
}

static void doc_on_end(struct store_live *live)
{
    (void)live;
    live_ended++;
}

static size_t heap_now(void)
{
    if (__sanitizer_get_current_allocated_bytes != NULL)
        return __sanitizer_get_current_allocated_bytes();
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void on_tick(uv_timer_t *timer)
{
    uint64_t now = uv_hrtime() / 1000;
    (void)timer;
    if (last_us != 0 && now - last_us > worst_us)
        worst_us = now - last_us;
    last_us = now;
}

static void on_touch(uv_timer_t *timer)
{
    (void)timer;
    size_t heap = heap_now();
    heap_most = heap > heap_most ? heap : heap_most;
    for (unsigned i = 0; i < DOCS; i++) {
        docs[i].value++;
        store_touch(&docs[i].live);
    }
}

static uint64_t worst_gap(bool loaded)
{
    uv_timer_t tick, touch;
    uint64_t end = clock_mono_ms() + seconds * UINT64_C(1000);
    last_us = worst_us = 0;
    assert_int_equal(uv_timer_init(&f.loop, &tick), 0);
    assert_int_equal(uv_timer_init(&f.loop, &touch), 0);
    assert_int_equal(uv_timer_start(&tick, on_tick, 1, 1), 0);
    if (loaded)
        assert_int_equal(uv_timer_start(&touch, on_touch, 1, TOUCH_MS), 0);
    while (clock_mono_ms() < end)
        (void)uv_run(&f.loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_close((uv_handle_t *)&touch, NULL);
    (void)uv_run(&f.loop, UV_RUN_NOWAIT);
    return worst_us;
}

/* The server may need a while to find its way through what was sent to it. */
static uint64_t worst_gap_while_it_hangs(void)
{
    uint64_t end = clock_mono_ms() + LONG_MS;
    if (row->server == NULL)
        return 0;
    server_signal(row->server, SIGSTOP);
    uint64_t worst = worst_gap(true);
    server_signal(row->server, SIGCONT);
    while (ask_put(&f, s, "works", "1") != ERR_OK && clock_mono_ms() < end)
        loop_run_for(&f, 1);
    assert_true(ask_is(&f, s, "works", "1"));
    return worst;
}

static bool round_is_good(void)
{
    uint64_t before = store_stats(s).docs_written;
    uint64_t idle = worst_gap(false);
    size_t heap = heap_most = heap_now();
    uint64_t loaded = worst_gap(true);
    uint64_t written = store_stats(s).docs_written - before;
    uint64_t hanging = worst_gap_while_it_hangs();
    loop_run_for(&f, 500); /* what was late is written */
    uint64_t idle_after = worst_gap(false);
    idle = idle_after > idle ? idle_after : idle;
    (void)printf("%s: worst gap %llu us idle, %llu loaded (%llu writes), %llu hanging; heap +%zu\n",
                 row->name, (unsigned long long)idle, (unsigned long long)loaded,
                 (unsigned long long)written, (unsigned long long)hanging, heap_most - heap);
    assert_true(heap_most - heap <= HEAP_MAX);
    idle = idle > FLOOR_US ? idle : FLOOR_US;
    return loaded <= TIMES * idle && hanging <= TIMES * idle && written > 0;
}

static void the_loop_is_not_held_up(void **state)
{
    (void)state;
    bool good = false;
    for (unsigned i = 0; i < ROUNDS && !good; i++)
        good = round_is_good();
    assert_true(good);
}

static int set_up(void **state)
{
    static char key[DOCS][16];
    (void)state;
    assert_true(row->start(url));
    loop_fixture_open(&f);
    assert_int_equal(store_open(&s, &f.loop, &f.later, url, NULL), ERR_OK);
    for (unsigned i = 0; i < DOCS; i++) {
        (void)snprintf(key[i], sizeof(key[i]), "t%u~task", i);
        store_live_init(&docs[i].live, s, key[i]);
        docs[i].live.render = doc_on_render;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < DOCS; i++)
        store_live_end(&docs[i].live, doc_on_end);
    while (live_ended < DOCS)
        loop_run_for(&f, 1);
    ask_close(&f, s, LONG_MS);
    loop_fixture_close(&f);
    row->stop();
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_loop_is_not_held_up, set_up, tear_down),
    };
    row = argc >= 2 ? backend_find(argv[1]) : NULL;
    if (argc == 3)
        seconds = (unsigned)atoi(argv[2]);
    if (row == NULL) {
        (void)fprintf(stderr, "which store?\n");
        return 64;
    }
    if (!row->start(url))
        return SKIPPED;
    row->stop();
    return cmocka_run_group_tests_name(row->name, tests, NULL, NULL);
}
