/* What is said to Redis, and where things are in it:
 *
 *     <prefix><key>           a document, as it is: GET shows it
 *     <prefix>~order:<key>    its order, in digits that compare like text
 *     <prefix>~list           the keys that end in ~task, by the moment of their last write
 *
 * Documents expire ttl_s after their last write. What decides who may run a task outlives what
 * tells of it: the ends by a day, the claims by two, so that a task does not run again because half
 * of it is forgotten. */
#ifndef STORE_REDIS_COMMAND_H
#define STORE_REDIS_COMMAND_H

#include "store_redis_link.h"

enum { REDIS_NAME_MAX = 128 /* of a prefix, of a channel */ };

struct redis_names {
    char *prefix;
    char *channel;  /* each key that was written is told there; NULL: nowhere */
    unsigned ttl_s; /* 0: for ever */
};

struct redis_write { /* put, create, remove */
    const struct store_doc *doc;
    uint64_t not_after_ms; /* looked at on the server's clock as well; 0: none */
    bool again;            /* it may have been done already */
};

bool redis_key_is_listed(const char *key);

/* The answer is the text "done"; "exists": there is another's document; "late": past
 * not_after_ms, nothing was done now. */
void redis_send_write(const struct redis_names *names, struct redis_link *l,
                      struct redis_request *r, const struct redis_write *write);
/* The answer is a text: "" where nothing is, and of what is larger than STORE_VALUE_MAX its first
 * STORE_VALUE_MAX + 1 bytes. */
void redis_send_get(const struct redis_names *names, struct redis_link *l, struct redis_request *r,
                    const char *key);
struct redis_range {
    unsigned limit;
    uint64_t before; /* only what has a lower score; UINT64_MAX: all */
};
/* The answer is a list of keys, each followed by its score, the newest first. No two have the same
 * score. */
void redis_send_list(const struct redis_names *names, struct redis_link *l, struct redis_request *r,
                     const struct redis_range *range);

#endif
