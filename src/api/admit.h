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
 * are refused too: the proxy takes these headers off, so ComfyUI's own guard cannot see them. Links
 * and frames of other pages lead to what we answer ourselves, where GET changes nothing; for what
 * is not ours admit_is_foreign_visit() tells them. (Browsers say so over https and on localhost
 * only. A site is what they take for one: another port or subdomain belongs to it.) */
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
/* A page that is not ours, of another site or of this one, led a browser here or embeds this, and
 * ALLOW_ORIGINS is not open to all. */
bool admit_is_foreign_visit(const struct admit *a, struct http_req *req);
/* What opened the gate is for us alone: Authorization, if one is a key of ours, and our cookie are
 * taken out of the list. ERR_TOO_LARGE: the other cookies found no room. */
enum err_code admit_take_key(const struct admit *a, struct http_headers *headers) MUST_CHECK;
/* The same for `?key=`: the query without it is appended to `rest`. False: there is none, or not
 * one of ours; the query may go on as it is. */
bool admit_take_query_key(const struct admit *a, struct slice query, struct buf *rest) MUST_CHECK;

#endif
