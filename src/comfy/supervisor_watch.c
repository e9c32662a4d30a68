/* Which questions the supervisor asks in which state, and what the answers mean there.
 *
 * STARTING is asked often: a refusal costs a few microseconds, and whoever waits for ComfyUI waits
 * for this. Who answers, but not as ComfyUI does, is asked less often. READY is asked seldom, and
 * silence is no answer: a ComfyUI in a long native call cannot talk. Only that nobody listens any
 * more, again and again, tells that a process which still lives does not serve (its exit may be
 * held up by a thread). An attached ComfyUI has no exit that we could see: there every failure
 * counts. */
#include "supervisor_private.h"

enum {
    ODD_PROBE_MIN_MS = 50,      /* STARTING, after an odd answer or none */
    ANSWER_PATIENCE_MS = 10000, /* for an answer while STARTING or away */
    WATCH_PATIENCE_MS = 60000,  /* while READY */
    PORT_PATIENCE_MS = 1000,    /* nobody refuses so long: somebody is there */
    ATTACHED_WATCH_MS = 3000,
    ATTACHED_AGAIN_MS = 500,  /* after a failure */
    ATTACHED_LOST = 3,        /* failures in a row */
    CHILD_LOST = 20,          /* refusals in a row, at a tenth of watch_ms */
    RETURN_PROBE_MIN_MS = 50, /* doubling up to */
    RETURN_PROBE_MAX_MS = 1000,
};

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* --- questions ------------------------------------------------------------------------------- */

void supervisor_ask_for_port(struct supervisor *s)
{
    s->checking_port = true;
    probe_ask(s->probe, 0, PORT_PATIENCE_MS);
}

void supervisor_ask_how_it_is(struct supervisor *s)
{
    probe_ask(s->probe, 0, ANSWER_PATIENCE_MS);
}

static uint64_t watch_pause(const struct supervisor *s)
{
    return s->attached ? min_u64(s->options.watch_ms, ATTACHED_WATCH_MS) : s->options.watch_ms;
}

void supervisor_watch(struct supervisor *s)
{
    s->failures = 0;
    probe_ask(s->probe, watch_pause(s), WATCH_PATIENCE_MS);
}

static void supervisor_ask_for_return(struct supervisor *s)
{
    probe_ask(s->probe, s->return_probe_ms, ANSWER_PATIENCE_MS);
    s->return_probe_ms = min_u64(2 * s->return_probe_ms, RETURN_PROBE_MAX_MS);
}

void supervisor_await_return(struct supervisor *s)
{
    s->return_probe_ms = RETURN_PROBE_MIN_MS;
    supervisor_ask_for_return(s);
}

/* --- answers --------------------------------------------------------------------------------- */

static void supervisor_on_watch(struct supervisor *s, enum probe_result result)
{
    uint64_t pause = watch_pause(s);
    bool failed = s->attached ? result != PROBE_ANSWERED : result == PROBE_REFUSED;
    s->failures = failed ? s->failures + 1 : 0;
    if (s->failures >= (s->attached ? ATTACHED_LOST : CHILD_LOST)) {
        if (!s->attached)
            ending_condemn(&s->ending, "its port refuses connections though its process lives");
        supervisor_event(s, SUPERVISOR_ON_LOST);
        return;
    }
    if (failed)
        pause = s->attached ? min_u64(pause, ATTACHED_AGAIN_MS) : pause / 10 + 1;
    probe_ask(s->probe, pause, WATCH_PATIENCE_MS);
}

static void supervisor_ask_again(struct supervisor *s, enum probe_result result)
{
    uint64_t pause = s->options.probe_ms;
    if (result != PROBE_REFUSED && pause < ODD_PROBE_MIN_MS)
        pause = ODD_PROBE_MIN_MS;
    probe_ask(s->probe, pause, ANSWER_PATIENCE_MS);
}

void supervisor_on_probe(void *ctx, enum probe_result result, struct slice version)
{
    struct supervisor *s = ctx;
    if (s->checking_port) {
        supervisor_event(s, result == PROBE_REFUSED ? SUPERVISOR_ON_PORT_FREE
                                                    : SUPERVISOR_ON_PORT_TAKEN);
    } else if (s->state == SUPERVISOR_READY) {
        supervisor_on_watch(s, result);
    } else if (result == PROBE_ANSWERED) {
        slice_copy(version, s->version, sizeof(s->version));
        supervisor_event(s, SUPERVISOR_ON_ANSWER);
    } else if (s->state == SUPERVISOR_STARTING) {
        supervisor_ask_again(s, result);
    } else {
        supervisor_ask_for_return(s);
    }
}
