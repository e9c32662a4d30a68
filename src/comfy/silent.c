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
    const struct silent_class *c = &s->place[hash % SILENT_CLASSES];
    return c->hash == hash && !c->speaks && c->runs >= SILENT_RUNS;
}

void silent_next_run(struct silent_classes *s)
{
    s->run++;
}

void silent_add(struct silent_classes *s, struct slice class_type)
{
    uint64_t hash = hash_of(s, class_type);
    struct silent_class *c = &s->place[hash % SILENT_CLASSES];
    if (c->speaks)
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
    s->place[hash % SILENT_CLASSES] = (struct silent_class){.hash = hash, .speaks = true};
}
