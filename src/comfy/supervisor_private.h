/* What supervisor.c and supervisor_watch.c share. */
#ifndef SUPERVISOR_PRIVATE_H
#define SUPERVISOR_PRIVATE_H

#include "backoff.h"
#include "closer.h"
#include "ending.h"
#include "later.h"
#include "probe.h"
#include "supervisor_table.h"

struct process;

enum { SUPERVISOR_NEWS_MAX = 8 }; /* moves in one turn of the loop; beyond, the last two are one */

enum supervisor_stage { STAGE_INT, STAGE_TERM, STAGE_KILL, STAGE_STUCK };

struct supervisor_news {
    enum supervisor_state now, before;
};

struct supervisor {
    struct supervisor_options options;
    char *host;
    bool attached;
    uv_loop_t *loop;
    struct later *later;
    struct closer closer;
    void (*closed)(void *ctx);
    void *closed_ctx;
    bool freeing;

    enum supervisor_state state;
    struct later_item news_item;
    struct supervisor_news news[SUPERVISOR_NEWS_MAX];
    unsigned news_count;

    struct process *process;
    struct probe *probe;
    uv_timer_t timer;
    enum supervisor_stage stage; /* what the escalation does next */
    bool checking_port;          /* it is the port that the probe asks about */
    bool avoiding_port;          /* and the log says so already */
    uint64_t began_at;           /* of STARTING */
    uint64_t ready_at;           /* 0: this one was not READY */
    unsigned failures;           /* of probes, in a row */
    uint64_t return_probe_ms;
    bool worker_dead_told;

    struct ending ending;
    struct backoff backoff;
    uint64_t delay_ms; /* of the back-off that begins */
    bool verdict;      /* condemned by the owner */
    char version[SUPERVISOR_VERSION_MAX];
    unsigned generation, launches;
};

/* Something has happened. */
void supervisor_event(struct supervisor *s, enum supervisor_event event);

/* What is asked now; a question asked before is forgotten. */
void supervisor_ask_for_port(struct supervisor *s);  /* brings PORT_FREE or PORT_TAKEN */
void supervisor_ask_how_it_is(struct supervisor *s); /* again and again until the ANSWER */
void supervisor_watch(struct supervisor *s);         /* while READY: LOST, if ever */
void supervisor_await_return(struct supervisor *s);  /* attached: ANSWER, when it is back */
void supervisor_on_probe(void *ctx, enum probe_result result, struct slice version);

#endif
