/* uv_getaddrinfo(), which runs on libuv's threads. */
#include "store_redis_lookup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct redis_lookup {
    uv_getaddrinfo_t req;
    void (*done)(void *ctx, const struct redis_addresses *found, const char *why); /* NULL: left */
    void *ctx;
};

static void lookup_on_found(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct redis_lookup *lookup = CONTAINER_OF(req, struct redis_lookup, req);
    struct redis_addresses found = {.count = 0};
    for (struct addrinfo *a = list; a != NULL && found.count < REDIS_ADDRESSES_MAX; a = a->ai_next)
        if (a->ai_family == AF_INET || a->ai_family == AF_INET6)
            memcpy(&found.at[found.count++], a->ai_addr, a->ai_addrlen);
    if (lookup->done != NULL)
        lookup->done(lookup->ctx, &found, status < 0 ? uv_strerror(status) : "it has no address");
    uv_freeaddrinfo(list);
    free(lookup);
}

struct redis_lookup *redis_lookup_new(uv_loop_t *loop, const char *host, unsigned port,
                                      void (*done)(void *ctx, const struct redis_addresses *found,
                                                   const char *why),
                                      void *ctx)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct redis_lookup *lookup = xcalloc(1, sizeof(*lookup));
    char service[8];
    lookup->done = done;
    lookup->ctx = ctx;
    (void)snprintf(service, sizeof(service), "%u", port);
    if (uv_getaddrinfo(loop, &lookup->req, lookup_on_found, host, service, &hints) == 0)
        return lookup;
    free(lookup);
    return NULL;
}

void redis_lookup_leave(struct redis_lookup *lookup)
{
    lookup->done = NULL;
    (void)uv_cancel((uv_req_t *)&lookup->req); /* its callback comes in any case */
}
