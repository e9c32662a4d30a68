#include "store_room.h"

#include <stdio.h>

static void room_open(struct room *r, const char *url)
{
    loop_fixture_open(&r->f);
    store_fake_reset();
    assert_int_equal(store_open_with(&r->s, &store_fake_ops, &r->f.loop, &r->f.later, url, NULL),
                     ERR_OK);
}

int room_set_up(void **state)
{
    static struct room r;
    room_open(&r, "fake:");
    *state = &r;
    return 0;
}

int room_set_up_narrow(void **state)
{
    static struct room r;
    room_open(&r, "fake:?parallel=1");
    *state = &r;
    return 0;
}

int room_tear_down(void **state)
{
    struct room *r = *state;
    store_fake.hold = false;
    store_fake_finish_all();
    if (r->s != NULL)
        ask_close(&r->f, r->s, LONG_MS);
    assert_false(store_fake.overlap);
    loop_fixture_close(&r->f);
    return 0;
}

void room_turn(struct room *r)
{
    for (unsigned i = 0; i < 3; i++)
        (void)uv_run(&r->f.loop, UV_RUN_NOWAIT);
}

void room_ask(struct room *r, struct ask *a, enum store_verb verb, const char *key,
              const char *value)
{
    *a = (struct ask){.done = false};
    ask_add(a, verb, key, value);
    ask_start(a, r->s);
}

static struct blob *doc_on_render(struct store_live *live, uint64_t *ret_order)
{
    struct doc *d = CONTAINER_OF(live, struct doc, live);
    char text[16];
    d->renders++;
    *ret_order = d->value;
    (void)snprintf(text, sizeof(text), "%u", d->value);
    return blob_new(slice_of(text));
}

void doc_init(struct doc *d, struct store *s, const char *key)
{
    *d = (struct doc){.value = 0};
    store_live_init(&d->live, s, key);
    d->live.render = doc_on_render;
}

void doc_set(struct doc *d, unsigned value)
{
    d->value = value;
    store_touch(&d->live);
}

void doc_on_end(struct store_live *live)
{
    struct doc *d = CONTAINER_OF(live, struct doc, live);
    assert_false(d->ended);
    d->ended = true;
}

void doc_end(struct room *r, struct doc *d)
{
    store_live_end(&d->live, doc_on_end);
    assert_false(d->ended);
    loop_run_until(&r->f, &d->ended, "the end of a live document");
}

void until_stored(struct room *r, const char *key, const char *value)
{
    uint64_t end = clock_mono_ms() + LONG_MS;
    const char *is = NULL;
    while (clock_mono_ms() < end && (is == NULL || strcmp(is, value) != 0)) {
        (void)uv_run(&r->f.loop, UV_RUN_NOWAIT);
        is = store_fake_value(key);
    }
    assert_non_null(is);
    assert_string_equal(is, value);
}
