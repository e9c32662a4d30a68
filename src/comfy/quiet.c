#include "quiet.h"

#include "codec.h"

void quiet_init(struct quiet *q)
{
    *q = (struct quiet){.seed = 0};
    random_bytes(&q->seed, sizeof(q->seed));
}

static uint64_t hash_of(const struct quiet *q, struct slice class_type)
{
    uint64_t hash = hash_bytes(q->seed, class_type.ptr, class_type.len);
    return hash != 0 ? hash : 1;
}

bool quiet_has(const struct quiet *q, struct slice class_type)
{
    uint64_t hash = hash_of(q, class_type);
    return q->known[hash % QUIET_CLASSES] == hash;
}

void quiet_add(struct quiet *q, struct slice class_type)
{
    uint64_t hash = hash_of(q, class_type);
    q->known[hash % QUIET_CLASSES] = hash;
}

void quiet_remove(struct quiet *q, struct slice class_type)
{
    if (quiet_has(q, class_type))
        q->known[hash_of(q, class_type) % QUIET_CLASSES] = 0;
}
