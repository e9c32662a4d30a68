/* From a host to the addresses that may be connected to: each one that is found is checked.
 *
 * Who connects must use these addresses and look nothing up again: a name may have another answer
 * the next time (DNS rebinding). Answers are not kept for the same reason.
 *
 * Names are looked up by the system on libuv's threads, which file and hash work shares: at most
 * RESOLVE_LOOKUPS_MAX of them are taken, so that a dead name server does not stop the rest. A
 * lookup that has begun cannot be broken off. A query can: at its deadline or when it is cancelled
 * it is over, and the lookup's answer is thrown away when it comes.
 */
#ifndef RESOLVE_H
#define RESOLVE_H

#include "address.h"
#include "deadline.h"
#include "later.h"

enum {
    RESOLVE_LOOKUPS_MAX = 2,
    RESOLVE_ADDRESSES_MAX = 16, /* of one host; what is beyond is not looked at */
};

struct resolve;

/* One question to the system. */
struct resolve_lookup {
    uv_getaddrinfo_t req;
    struct resolve *resolve;
    struct resolve_query *query; /* NULL: nobody waits for the answer any more */
    char name[ADDRESS_NAME_MAX + 1];
};
/* Answers a lookup, exactly once, from the loop; found is copied. err: there is no answer. */
void resolve_answer(struct resolve_lookup *lookup, const struct address *found, unsigned count,
                    const struct err *err);

struct resolve_options {
    const struct address_allow *allow; /* NULL: public addresses only; outlives the resolver */
    uint64_t deadline_ms;              /* of a query, waiting included */
    /* Who is asked; resolve_answer() must follow, now or later. NULL: the system. */
    void (*ask)(struct resolve_lookup *lookup, void *ctx);
    void *ctx;
};
#define RESOLVE_DEFAULTS .deadline_ms = 10000

struct resolve *resolve_new(uv_loop_t *loop, struct later *later,
                            const struct resolve_options *options);
/* No query may be open. `closed` comes when the last lookup has returned, which the system's
 * resolver bounds (by default some 10 s a name server). */
void resolve_free(struct resolve *r, void (*closed)(void *ctx), void *ctx);

/* Embedded by whoever asks; one host at a time. `done` comes once, from `later`, unless the query
 * is cancelled before. */
struct resolve_query {
    /* err: ERR_INVALID: no name and no address; ERR_FORBIDDEN: none of its addresses may be
     * connected to; ERR_NOT_FOUND: there is no such name; ERR_TIMEOUT; ERR_UNAVAILABLE: name
     * servers do not answer. */
    void (*done)(struct resolve_query *q, const struct err *err);
    void *ctx;

    struct address addresses[RESOLVE_ADDRESSES_MAX]; /* all may be connected to */
    unsigned count;

    struct resolve *resolve; /* NULL: idle */
    struct list_node link;
    struct deadline deadline;
    struct later_item answered;
    struct resolve_lookup *lookup; /* NULL: none is running for it */
    struct err err;
    char host[ADDRESS_NAME_MAX + 1];
};
void resolve_start(struct resolve *r, struct resolve_query *q, const char *host);
void resolve_cancel(struct resolve_query *q); /* idle: fine. It is the caller's again at once */

#endif
