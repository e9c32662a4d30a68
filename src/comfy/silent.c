#include "silent.h"

#include "codec.h"

void silent_init(struct silent_classes *s)
{
    *s = (struct silent_classes){.run = 1};
    random_bytes(&s->seed, sizeof(s->seed));
}

static uint64_t hash_of(const struct silent_classes *s, struct slice class_type)
{
    uint64_t hash = hash_bytes(s->seed, class_type.ptr, class_type.len);
    return hash != 0 ? hash : 1;
}

bool silent_has(const struct silent_classes *s, struct slice class_type)
{
    uint64_t hash = hash_of(s, class_type);
    for (unsigned way = 0; way < SILENT_WAYS; way++) {
        const struct silent_class *c = &s->place[(hash + way) % SILENT_CLASSES];
        if (c->hash == hash)
            return !c->speaks && c->runs >= SILENT_RUNS;
    }
    return false;
}

/* Its own place, or one for it: a free one, or a silent class's. NULL: all are of some that have
 * spoken, and stay theirs. */
static struct silent_class *place_for(struct silent_classes *s, uint64_t hash)
{
    struct silent_class *best = NULL;
    for (unsigned way = 0; way < SILENT_WAYS; way++) {
        struct silent_class *c = &s->place[(hash + way) % SILENT_CLASSES];
        if (c->hash == hash)
            return c;
        if (!c->speaks && (best == NULL || (c->hash == 0 && best->hash != 0)))
            best = c;
    }
    return best;
}

void silent_next_run(struct silent_classes *s)
{
    s->run++;
}

void silent_add(struct silent_classes *s, struct slice class_type)
{
    uint64_t hash = hash_of(s, class_type);
    struct silent_class *c = place_for(s, hash);
    if (c == NULL || c->speaks)
        return;
    if (c->hash != hash)
        *c = (struct silent_class){.hash = hash};
    if (c->last == s->run || c->runs == SILENT_RUNS)
        return;
    c->last = s->run;
    c->runs++;
}

void silent_rule_out(struct silent_classes *s, struct slice class_type)
{
    uint64_t hash = hash_of(s, class_type);
    struct silent_class *c = place_for(s, hash);
    if (c != NULL)
        *c = (struct silent_class){.hash = hash, .speaks = true};
}
