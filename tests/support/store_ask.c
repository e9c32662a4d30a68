#include "store_ask.h"

#include <stdio.h>

static void ask_on_done(struct store_op *op)
{
    struct ask *a = CONTAINER_OF(op, struct ask, op);
    a->done = true;
    a->times++;
}

struct store_doc *ask_add_bytes(struct ask *a, enum store_verb verb, const char *key,
                                struct slice value)
{
    struct store_doc *doc = &a->op.doc[a->op.n++];
    doc->verb = verb;
    (void)snprintf(doc->key, sizeof(doc->key), "%s", key);
    doc->value = blob_new(value);
    return doc;
}

void ask_add(struct ask *a, enum store_verb verb, const char *key, const char *value)
{
    struct store_doc *doc =
        ask_add_bytes(a, verb, key, value != NULL ? slice_of(value) : SLICE(""));
    if (value == NULL) {
        blob_unref(doc->value);
        doc->value = NULL;
    }
}

void ask_start(struct ask *a, struct store *s)
{
    a->op.done = ask_on_done;
    a->done = false;
    store_run(s, &a->op);
    ASSERT(!a->done); /* never inside the call */
}

void ask_wait(struct ask *a, struct loop_fixture *f)
{
    loop_run_until(f, &a->done, "the end of a store operation");
}

void ask_done(struct ask *a)
{
    ASSERT(a->times == 1);
    for (unsigned i = 0; i < a->op.n; i++) {
        ASSERT(a->op.doc[i].verb == STORE_GET || a->op.doc[i].value == NULL);
        blob_unref(a->op.doc[i].value);
    }
}

static enum err_code ask_one(struct loop_fixture *f, struct store *s, struct ask *a)
{
    ask_start(a, s);
    ask_wait(a, f);
    enum err_code code = a->op.doc[0].result;
    ask_done(a);
    return code;
}

enum err_code ask_put(struct loop_fixture *f, struct store *s, const char *key, const char *value)
{
    struct ask a = {.done = false};
    ask_add(&a, STORE_PUT, key, value);
    return ask_one(f, s, &a);
}

enum err_code ask_create(struct loop_fixture *f, struct store *s, const char *key,
                         const char *value)
{
    struct ask a = {.done = false};
    ask_add(&a, STORE_CREATE, key, value);
    return ask_one(f, s, &a);
}

enum err_code ask_remove(struct loop_fixture *f, struct store *s, const char *key)
{
    struct ask a = {.done = false};
    ask_add(&a, STORE_REMOVE, key, NULL);
    return ask_one(f, s, &a);
}

enum err_code ask_get(struct loop_fixture *f, struct store *s, const char *key, struct blob **ret)
{
    struct ask a = {.done = false};
    ask_add(&a, STORE_GET, key, NULL);
    ask_start(&a, s);
    ask_wait(&a, f);
    enum err_code code = a.op.doc[0].result;
    if (code == ERR_OK)
        *ret = blob_ref(a.op.doc[0].value);
    ask_done(&a);
    return code;
}

bool ask_is(struct loop_fixture *f, struct store *s, const char *key, const char *value)
{
    struct blob *found = NULL;
    enum err_code code = ask_get(f, s, key, &found);
    bool same = code == ERR_OK && value != NULL && slice_is(blob_slice(found), value);
    blob_unref(found);
    return value != NULL ? same : code == ERR_NOT_FOUND;
}

static void ask_on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

void ask_close(struct loop_fixture *f, struct store *s, uint64_t wait_ms)
{
    bool closed = false;
    store_close(s, wait_ms, ask_on_closed, &closed);
    ASSERT(!closed);
    loop_run_until(f, &closed, "the end of the store");
}
