/* Queries wait in one list until there is a lookup for them. A query and its lookup know each other
 * until either is over; the lookup is on the heap because it can outlive the other. */
#include "resolve.h"

#include "closer.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

struct resolve {
    struct resolve_options options;
    uv_loop_t *loop;
    struct later *later;
    struct closer closer; /* the deadlines' timer, lookups */
    struct deadlines deadlines;
    struct deadline_class class;
    struct list_node waiting; /* queries without a lookup */
    unsigned queries, lookups;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* --- the end of a query ---------------------------------------------------------------------- */

static void query_leave(struct resolve_query *q)
{
    deadline_clear(&q->deadline);
    list_remove(&q->link);
    if (q->lookup != NULL)
        q->lookup->query = NULL;
    q->lookup = NULL;
}

static void query_on_answered(struct later_item *item)
{
    struct resolve_query *q = CONTAINER_OF(item, struct resolve_query, answered);
    q->resolve->queries--;
    q->resolve = NULL;
    q->done(q, q->err.code != ERR_OK ? &q->err : NULL); /* may start it again */
}

static void query_end(struct resolve_query *q)
{
    query_leave(q);
    later_add(q->resolve->later, &q->answered);
}

static void query_on_deadline(struct deadline *d)
{
    struct resolve_query *q = CONTAINER_OF(d, struct resolve_query, deadline);
    (void)err_set(&q->err, ERR_TIMEOUT, "'%.100s' was not looked up within %llu ms", q->host,
                  (unsigned long long)q->resolve->class.ms);
    query_end(q);
}

/* The text names no address: who may ask us is not told what our network looks like. */
static void query_take(struct resolve_query *q, const struct address *found, unsigned count)
{
    const struct address_allow *allow = q->resolve->options.allow;
    bool named = address_allow_has_name(allow, slice_of(q->host));
    enum address_class class = ADDRESS_PUBLIC;
    for (unsigned i = 0; i < count && q->count < RESOLVE_ADDRESSES_MAX; i++) {
        if (address_may_connect(allow, named, &found[i]))
            q->addresses[q->count++] = found[i];
        else
            class = address_classify(&found[i]);
    }
    if (q->count > 0)
        return;
    if (class == ADDRESS_PUBLIC)
        (void)err_set(&q->err, ERR_NOT_FOUND, "'%.100s' has no address", q->host);
    else
        (void)err_set(&q->err, ERR_FORBIDDEN, "'%.100s' leads to a %s address, which is refused",
                      q->host, address_class_name(class));
}

/* --- lookups --------------------------------------------------------------------------------- */

static void resolve_pump(struct resolve *r);

void resolve_answer(struct resolve_lookup *lookup, const struct address *found, unsigned count,
                    const struct err *err)
{
    struct resolve *r = lookup->resolve;
    struct resolve_query *q = lookup->query;
    if (q != NULL) {
        if (err != NULL)
            q->err = *err;
        else
            query_take(q, found, count);
        query_end(q);
    }
    free(lookup);
    r->lookups--;
    resolve_pump(r);
    closer_release(&r->closer);
}

static void lookup_fail(struct resolve_lookup *lookup, int status)
{
    struct err err;
    bool unknown = status == UV_EAI_NONAME || status == UV_EAI_NODATA;
    (void)err_set(&err, unknown ? ERR_NOT_FOUND : ERR_UNAVAILABLE, "'%.100s': %s", lookup->name,
                  uv_strerror(status));
    resolve_answer(lookup, NULL, 0, &err);
}

static void lookup_on_done(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct resolve_lookup *lookup = CONTAINER_OF(req, struct resolve_lookup, req);
    struct address found[RESOLVE_ADDRESSES_MAX];
    unsigned count = 0;
    if (status != 0) {
        lookup_fail(lookup, status);
        return;
    }
    for (const struct addrinfo *one = list; one != NULL; one = one->ai_next)
        if (count < RESOLVE_ADDRESSES_MAX && address_from_sockaddr(one->ai_addr, &found[count]))
            count++;
    uv_freeaddrinfo(list);
    resolve_answer(lookup, found, count, NULL);
}

static void lookup_ask_system(struct resolve_lookup *lookup, void *ctx)
{
    static const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    (void)ctx;
    int status = uv_getaddrinfo(lookup->resolve->loop, &lookup->req, lookup_on_done, lookup->name,
                                NULL, &hints);
    if (status != 0)
        lookup_fail(lookup, status);
}

static void lookup_start(struct resolve *r, struct resolve_query *q)
{
    struct resolve_lookup *lookup = xcalloc(1, sizeof(*lookup));
    lookup->resolve = r;
    lookup->query = q;
    (void)snprintf(lookup->name, sizeof(lookup->name), "%s", q->host);
    q->lookup = lookup;
    r->lookups++;
    closer_hold(&r->closer);
    r->options.ask(lookup, r->options.ctx);
}

static void resolve_pump(struct resolve *r)
{
    while (r->lookups < RESOLVE_LOOKUPS_MAX && !list_is_empty(&r->waiting)) {
        struct resolve_query *q = CONTAINER_OF(r->waiting.next, struct resolve_query, link);
        list_remove(&q->link);
        lookup_start(r, q);
    }
}

/* --- what callers use ------------------------------------------------------------------------ */

void resolve_start(struct resolve *r, struct resolve_query *q, const char *host)
{
    struct slice text = slice_of(host);
    struct address literal;
    ASSERT(q->resolve == NULL);
    q->resolve = r;
    r->queries++;
    q->count = 0;
    q->lookup = NULL;
    q->err.code = ERR_OK;
    list_init(&q->link);
    deadline_init(&q->deadline);
    later_item_init(&q->answered, query_on_answered);
    (void)snprintf(q->host, sizeof(q->host), "%s", host);
    if (address_parse(text, &literal)) {
        query_take(q, &literal, 1);
        query_end(q);
    } else if (!address_is_name(text)) {
        (void)err_set(&q->err, ERR_INVALID,
                      address_looks_numeric(text) ? "an address is written in an unusual way"
                                                  : "a host is neither a name nor an address");
        query_end(q);
    } else {
        deadline_set(&r->deadlines, 0, &q->deadline);
        list_add(&r->waiting, &q->link);
        resolve_pump(r);
    }
}

void resolve_cancel(struct resolve_query *q)
{
    struct resolve *r = q->resolve;
    if (r == NULL)
        return;
    query_leave(q);
    later_cancel(r->later, &q->answered);
    q->resolve = NULL;
    r->queries--;
}

struct resolve *resolve_new(uv_loop_t *loop, struct later *later,
                            const struct resolve_options *options)
{
    struct resolve *r = xcalloc(1, sizeof(*r));
    r->options = *options;
    if (r->options.ask == NULL)
        r->options.ask = lookup_ask_system;
    r->loop = loop;
    r->later = later;
    list_init(&r->waiting);
    r->class.ms = options->deadline_ms;
    r->class.over = query_on_deadline;
    closer_init(&r->closer, loop);
    deadlines_init(&r->deadlines, loop, &r->class, 1);
    closer_hold(&r->closer);
    return r;
}

static void resolve_on_deadlines_closed(struct deadlines *ds)
{
    struct resolve *r = CONTAINER_OF(ds, struct resolve, deadlines);
    closer_release(&r->closer);
}

static void resolve_on_closed(struct closer *closer)
{
    struct resolve *r = CONTAINER_OF(closer, struct resolve, closer);
    void (*closed)(void *ctx) = r->closed;
    void *ctx = r->closed_ctx;
    free(r);
    if (closed != NULL)
        closed(ctx);
}

void resolve_free(struct resolve *r, void (*closed)(void *ctx), void *ctx)
{
    ASSERT(r->queries == 0);
    r->closed = closed;
    r->closed_ctx = ctx;
    deadlines_close(&r->deadlines, resolve_on_deadlines_closed);
    closer_begin(&r->closer, resolve_on_closed);
}
