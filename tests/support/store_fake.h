/* A backend that does what a test says. Operations are held until the test lets them end, or end by
 * themselves in the next turn; what they did is counted. One instance at a time. */
#ifndef STORE_FAKE_H
#define STORE_FAKE_H

#include "later.h"
#include "store_private.h"

enum { FAKE_PARALLEL = 4, FAKE_INTERVAL_MS = 30, FAKE_VALUE_MAX = 4000, FAKE_LOG_MAX = 4096 };

struct store_fake {
    struct later *later;
    bool hold;     /* ops wait for store_fake_finish() */
    unsigned fail; /* so many further ops end with fail_code … */
    enum err_code fail_code;
    unsigned fail_doc; /* … in this document; those before it are done … */
    bool lose_replies; /* … are done although they "fail" */
    unsigned running, running_max;
    unsigned runs; /* ops that were started */
    unsigned closes;
    uint64_t close_wait_ms;
    bool overlap;           /* two ops had one key at the same time */
    char log[FAKE_LOG_MAX]; /* "put a=1;get a;" in order of starting */
    struct list_node held;  /* of struct fake_op */
    struct list_node docs;
};

extern const struct store_ops store_fake_ops;
extern struct store_fake store_fake;

/* Before the store is opened with "fake:"; parameters: parallel. */
void store_fake_reset(void);
/* Ends the op that was started first. */
void store_fake_finish(void);
void store_fake_finish_all(void); /* also those that follow; holding is over */
/* What is stored under key, or NULL. */
const char *store_fake_value(const char *key);

#endif
