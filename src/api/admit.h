/* The gate in front of all routes, before any body is read: keys, origins, CORS.
 *
 * Keys. With API_KEY every route but health needs one of them: `x-api-key`, `Authorization:
 * Bearer`, or the cookie that a browser gets when it passes the key once as `?key=` (HttpOnly,
 * SameSite=Strict; it holds a digest, not the key). Compared in constant time. Without API_KEY, on
 * the platform, where ids and addresses are public, nobody may list or cancel.
 *
 * Origins. A browser says where a page came from. Our own pages (Origin's host and port are those
 * of Host) may call; others only if ALLOW_ORIGINS names them, and then they get the CORS headers
 * and preflights are answered here. Cross-site requests without an Origin that are no navigation
 * are refused too: the proxy takes these headers off, so ComfyUI's own guard cannot see them. */
#ifndef ADMIT_H
#define ADMIT_H

#include "http_server.h"

struct admit;

/* Both lists with commas between; empty: none. */
struct admit *admit_new(struct slice keys, struct slice origins, bool on_platform);
void admit_free(struct admit *a);
/* False: the request is answered. What the platform itself calls (its hooks, InvokeFunction, which
 * it guards by its own means) needs no key. */
bool admit_check(const struct admit *a, struct http_req *req, bool is_platform);

#endif
