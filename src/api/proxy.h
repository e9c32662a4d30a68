/* Everything that is no route of ours goes to ComfyUI, so that its pages and its API work through
 * us: requests over a pool of connections of the proxy's own (whoever downloads slowly never
 * takes one that tasks need), WebSockets through tunnels. */
#ifndef PROXY_H
#define PROXY_H

#include "proxy_rules.h"

#include <uv.h>

struct later;
struct proxy;

struct proxy_options {
    const char *host; /* in numbers */
    unsigned port;
    enum proxy_allow allow;
};

struct proxy *proxy_new(uv_loop_t *loop, struct later *later, const struct proxy_options *options);
void proxy_forget(struct proxy *p); /* another ComfyUI answers now */
/* The server must have closed. */
void proxy_free(struct proxy *p, void (*closed)(void *ctx), void *ctx);

#endif
