/* Which handler a request goes to. */
#ifndef ROUTER_H
#define ROUTER_H

#include "api.h"

/* The server's handler, and what it tells of the end; ctx is the struct api. */
void router_handle(struct http_req *req, void *ctx);
void router_over(struct http_req *req, void *ctx);

#endif
