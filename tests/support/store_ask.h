/* Operations as a test writes them: asked for and awaited. */
#ifndef STORE_ASK_H
#define STORE_ASK_H

#include "loop_fixture.h"
#include "store.h"

struct ask { /* one op, and whether it is done */
    struct store_op op;
    bool done;
    unsigned times;
};

/* Adds a document; value NULL for get and remove. */
void ask_add(struct ask *a, enum store_verb verb, const char *key, const char *value);
struct store_doc *ask_add_bytes(struct ask *a, enum store_verb verb, const char *key,
                                struct slice value);
void ask_start(struct ask *a, struct store *s);
void ask_wait(struct ask *a, struct loop_fixture *f);
/* Drops values that were read. */
void ask_done(struct ask *a);

/* One document, awaited; its result. */
enum err_code ask_put(struct loop_fixture *f, struct store *s, const char *key, const char *value);
enum err_code ask_create(struct loop_fixture *f, struct store *s, const char *key,
                         const char *value);
enum err_code ask_remove(struct loop_fixture *f, struct store *s, const char *key);
/* The value (a reference) when it is OK. */
enum err_code ask_get(struct loop_fixture *f, struct store *s, const char *key, struct blob **ret);
/* Is exactly this stored under key? NULL: is nothing there? */
bool ask_is(struct loop_fixture *f, struct store *s, const char *key, const char *value);
void ask_close(struct loop_fixture *f, struct store *s, uint64_t wait_ms);

#endif
