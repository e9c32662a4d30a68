/* Inside the proxy: proxy.c decides where a request goes, proxy_relay.c carries one there and its
 * answer back. */
#ifndef PROXY_PRIVATE_H
#define PROXY_PRIVATE_H

#include "api.h"
#include "http_up.h"
#include "proxy.h"
#include "tunnel.h"

struct proxy {
    struct http_up *up;
    struct tunnels *tunnels;
    enum proxy_allow allow;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* Path and query as they go on, in the request or put together in `room`; empty for "*". */
struct slice proxy_target(struct api *api, struct http_req *req, struct buf *room);
/* The headers that go on, added to `ret`. ERR_TOO_LARGE: more than a list takes. */
enum err_code proxy_headers(struct api *api, struct http_req *req,
                            struct http_headers *ret) MUST_CHECK;
/* ComfyUI cannot answer: a page that asks again by itself for browsers, 503 in JSON for programs.
 */
void proxy_answer_not_ready(struct api *api, struct http_req *req);
/* There will be no answer, because of this. */
void proxy_answer_failed(struct api *api, struct http_req *req, const struct err *err);

void proxy_relay(struct api *api, struct http_req *req);

#endif
