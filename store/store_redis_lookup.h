/* From the server's name to its addresses. The system's resolver may hang and cannot be called off,
 * so a lookup is memory of its own: who asked may leave it, and it ends by itself. */
#ifndef STORE_REDIS_LOOKUP_H
#define STORE_REDIS_LOOKUP_H

#include "base.h"

#include <uv.h>

enum { REDIS_ADDRESSES_MAX = 8 /* of one name */ };

struct redis_addresses {
    struct sockaddr_storage at[REDIS_ADDRESSES_MAX];
    unsigned count; /* 0: none was found */
};

struct redis_lookup;
/* `done` comes from the loop: count 0 and a reason, or addresses. NULL: it cannot even begin. */
struct redis_lookup *redis_lookup_new(uv_loop_t *loop, const char *host, unsigned port,
                                      void (*done)(void *ctx, const struct redis_addresses *found,
                                                   const char *why),
                                      void *ctx);
/* `done` will not come. */
void redis_lookup_leave(struct redis_lookup *lookup);

#endif
