#include "backoff.h"

#include <stdlib.h>

void backoff_init(struct backoff *b)
{
    b->exits = xcalloc((size_t)b->exits_max + 1, sizeof(*b->exits));
    b->exit_count = 0;
    b->next_ms = 0;
}

void backoff_done(struct backoff *b)
{
    free(b->exits);
}

static bool backoff_is_one_too_many(struct backoff *b, uint64_t now_ms)
{
    uint64_t kept = (uint64_t)b->exits_max + 1;
    b->exits[b->exit_count++ % kept] = now_ms;
    return b->exit_count >= kept && now_ms - b->exits[b->exit_count % kept] < b->window_ms;
}

struct backoff_verdict backoff_after_exit(struct backoff *b, uint64_t now_ms,
                                          enum backoff_life life, uint64_t ready_ms)
{
    if (life != BACKOFF_NEVER_READY && ready_ms >= 2 * b->max_ms)
        b->next_ms = 0;
    bool at_once = life == BACKOFF_CONDEMNED || (life == BACKOFF_WAS_READY && b->next_ms == 0);
    if (b->next_ms == 0)
        b->next_ms = b->min_ms;
    uint64_t delay_ms = at_once ? 0 : b->next_ms;
    if (!at_once)
        b->next_ms = 2 * b->next_ms < b->max_ms ? 2 * b->next_ms : b->max_ms;
    return (struct backoff_verdict){.too_many = backoff_is_one_too_many(b, now_ms),
                                    .delay_ms = delay_ms};
}
