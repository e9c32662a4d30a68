/* What the parts of the conversation share: comfy.c (requests), comfy_link.c (socket), comfy_view.c
 * (files for clients). */
#ifndef COMFY_PRIVATE_H
#define COMFY_PRIVATE_H

#include "closer.h"
#include "comfy.h"
#include "event.h"
#include "ws_client.h"

enum comfy_link_state {
    COMFY_DOWN,
    COMFY_ASKING,
    COMFY_CONNECTING,
    COMFY_GREETING,
    COMFY_OPEN,
    COMFY_PAUSING,
};

struct comfy {
    struct comfy_options options;
    char *host;
    uv_loop_t *loop;
    struct later *later;
    struct http_up *http;  /* what tasks need */
    struct http_up *views; /* what goes to clients, at their pace */
    struct closer closer;
    uv_timer_t timer;
    struct list_node waits; /* calls that wait for ComfyUI: comfy_view.c */
    const char *gave_up;    /* NULL, or why none waits any more */
    bool closing;
    void (*closed)(void *ctx);
    void *closed_ctx;

    enum comfy_link_state state;
    struct ws_client *socket;
    struct event_reader reader;
    char client_id[UUID_TEXT + 1];
    unsigned link;
    uint64_t pause_ms;
    struct comfy_request ask;
    bool asked, ask_again, takes_ids;
};

/* ComfyUI answers: who has waited for it goes on. */
void comfy_view_release(struct comfy *c);

#endif
