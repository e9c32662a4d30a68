/* A store over the scripted backend, and a live document whose value is a number. */
#ifndef STORE_ROOM_H
#define STORE_ROOM_H

#include "store_ask.h"
#include "store_fake.h"
#include "unit.h"

enum { LONG_MS = 60000, SOON_MS = 30 };

struct room {
    struct loop_fixture f;
    struct store *s;
};

/* cmocka's; narrow: the backend takes one operation at a time. */
int room_set_up(void **state);
int room_set_up_narrow(void **state);
int room_tear_down(void **state);
void room_turn(struct room *r);
/* Asks for one document. */
void room_ask(struct room *r, struct ask *a, enum store_verb verb, const char *key,
              const char *value);

struct doc {
    struct store_live live;
    unsigned value, renders;
    bool ended;
};

void doc_init(struct doc *d, struct store *s, const char *key);
void doc_set(struct doc *d, unsigned value);
void doc_on_end(struct store_live *live);
void doc_end(struct room *r, struct doc *d);
void until_stored(struct room *r, const char *key, const char *value);

#define TEST(name)        cmocka_unit_test_setup_teardown(name, room_set_up, room_tear_down)
#define TEST_NARROW(name) cmocka_unit_test_setup_teardown(name, room_set_up_narrow, room_tear_down)

#endif
