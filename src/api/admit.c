#include "admit.h"

#include "answer.h"
#include "api_ui.h"
#include "codec.h"
#include "run_order.h"

#include <stdio.h>
#include <stdlib.h>

#define ADMIT_COOKIE "comfy-agent"

enum { KEY_MAX = 4096 }; /* in a query */

struct admit {
    char (*keys)[SHA256_TEXT + 1]; /* digests: one length, whatever the keys' */
    char (*cookies)[SHA256_TEXT + 1];
    unsigned key_count;
    char **origins;
    unsigned origin_count;
    bool any_origin, on_platform;
};

/* --- lists ----------------------------------------------------------------------------------- */

/* What a browser keeps proves that it knew the key, and is of no use elsewhere. */
static void cookie_of(struct slice key, char ret[SHA256_TEXT + 1])
{
    struct buf text;
    buf_init(&text, SIZE_MAX);
    buf_adds(&text, ADMIT_COOKIE ":");
    buf_add(&text, key);
    sha256_hex(buf_slice(&text), ret);
    buf_done(&text);
}

static void add_key(struct admit *a, struct slice key)
{
    unsigned n = a->key_count++;
    a->keys = xrealloc(a->keys, a->key_count * sizeof(*a->keys));
    a->cookies = xrealloc(a->cookies, a->key_count * sizeof(*a->cookies));
    sha256_hex(key, a->keys[n]);
    cookie_of(key, a->cookies[n]);
}

static void add_origin(struct admit *a, struct slice origin)
{
    if (slice_is(origin, "*")) {
        a->any_origin = true;
        return;
    }
    a->origins = xrealloc(a->origins, (a->origin_count + 1) * sizeof(*a->origins));
    char *copy = xmalloc(origin.len + 1);
    memcpy(copy, origin.ptr, origin.len);
    copy[origin.len] = '\0';
    a->origins[a->origin_count++] = copy;
}

struct admit *admit_new(struct slice keys, struct slice origins, bool on_platform)
{
    struct admit *a = xcalloc(1, sizeof(*a));
    a->on_platform = on_platform;
    while (keys.len > 0) {
        struct slice key = slice_next(&keys, ',');
        if (key.len > 0)
            add_key(a, key);
    }
    while (origins.len > 0) {
        struct slice origin = slice_next(&origins, ',');
        if (origin.len > 0)
            add_origin(a, origin);
    }
    return a;
}

void admit_free(struct admit *a)
{
    for (unsigned i = 0; i < a->origin_count; i++)
        free(a->origins[i]);
    free(a->origins);
    free(a->keys);
    free(a->cookies);
    free(a);
}

/* --- origins --------------------------------------------------------------------------------- */

static struct slice header(struct http_req *req, const char *name)
{
    struct slice value;
    return http_headers_get(http_req_headers(req), name, &value) ? slice_trim(value) : SLICE_EMPTY;
}

/* http://host:port and Host: host:port. The scheme is left alone: what ends TLS in front of us
 * talks plain HTTP to us. */
static bool is_own_origin(struct slice origin, struct slice host)
{
    static const char mark[] = "://";
    const char *at = memmem(origin.ptr, origin.len, mark, strlen(mark));
    if (at == NULL || host.len == 0)
        return false;
    struct slice rest = {at + strlen(mark), origin.len - (size_t)(at - origin.ptr) - strlen(mark)};
    return slice_eq_nocase(rest, host);
}

static bool is_listed_origin(const struct admit *a, struct slice origin)
{
    for (unsigned i = 0; i < a->origin_count; i++)
        if (slice_eq_nocase(origin, slice_of(a->origins[i])))
            return true;
    return a->any_origin;
}

static void refuse(struct http_req *req, int status, const char *code, const char *detail)
{
    char id[TASK_ID_MAX + 1];
    struct answer_about about = {.task_id = id};
    run_order_id_of(req, id);
    answer_error(req, status, status == 401 ? "UnauthorizedError" : "ForbiddenError", code, detail,
                 &about);
}

static void add_cors(const struct admit *a, struct http_req *req, struct slice origin)
{
    bool named = a->origin_count > 0;
    http_add_header(req, SLICE("access-control-allow-origin"), named ? origin : SLICE("*"));
    http_add_header(req, SLICE("vary"), SLICE("origin"));
    http_add_header(req, SLICE("access-control-expose-headers"),
                    SLICE("task-id, task-status, etag, location"));
}

static void answer_preflight(struct http_req *req)
{
    struct slice headers = header(req, "access-control-request-headers");
    http_add_header(req, SLICE("access-control-allow-methods"),
                    SLICE("GET, HEAD, POST, PUT, PATCH, DELETE"));
    if (headers.len > 0)
        http_add_header(req, SLICE("access-control-allow-headers"), headers);
    http_add_header(req, SLICE("access-control-max-age"), SLICE("600"));
    http_respond(req, 204, NULL, SLICE_EMPTY, NULL);
}

static bool is_preflight(struct http_req *req)
{
    return slice_is(http_req_method(req), "OPTIONS") &&
           header(req, "access-control-request-method").len > 0;
}

static bool is_foreign_fetch(const struct admit *a, struct http_req *req)
{
    return !a->any_origin && slice_is(header(req, "sec-fetch-site"), "cross-site") &&
           !slice_is(header(req, "sec-fetch-mode"), "navigate");
}

/* With an Origin it has been looked at, by check_origin(). */
bool admit_is_foreign_visit(const struct admit *a, struct http_req *req)
{
    struct slice site = header(req, "sec-fetch-site");
    bool foreign = slice_is(site, "cross-site") || slice_is(site, "same-site");
    return foreign && !a->any_origin && header(req, "origin").len == 0;
}

/* False: answered. */
static bool check_origin(const struct admit *a, struct http_req *req)
{
    struct slice origin = header(req, "origin");
    bool listed = origin.len > 0 && is_listed_origin(a, origin);
    if (listed)
        add_cors(a, req, origin);
    bool own = origin.len > 0 && is_own_origin(origin, header(req, "host"));
    bool foreign = origin.len > 0 ? !listed && !own : is_foreign_fetch(a, req);
    if (foreign) {
        refuse(req, 403, "origin_refused",
               "pages of this origin may not call: ALLOW_ORIGINS does not name it");
        return false;
    }
    if (is_preflight(req)) {
        answer_preflight(req);
        return false;
    }
    return true;
}

/* --- keys ------------------------------------------------------------------------------------ */

static bool digest_is_known(char (*known)[SHA256_TEXT + 1], unsigned count, struct slice digest)
{
    bool found = false;
    if (digest.len != SHA256_TEXT)
        return false;
    for (unsigned i = 0; i < count; i++) /* all of them, so that the time tells nothing */
        found = bytes_equal_secretly(known[i], digest.ptr, SHA256_TEXT) || found;
    return found;
}

static bool is_key(const struct admit *a, struct slice key)
{
    char digest[SHA256_TEXT + 1];
    sha256_hex(key, digest);
    return key.len > 0 && digest_is_known(a->keys, a->key_count, slice_of(digest));
}

static struct slice bearer_of(struct slice authorization)
{
    static const char scheme[] = "bearer ";
    size_t len = strlen(scheme);
    if (authorization.len <= len ||
        !slice_eq_nocase((struct slice){authorization.ptr, len}, slice_of(scheme)))
        return SLICE_EMPTY;
    return slice_trim((struct slice){authorization.ptr + len, authorization.len - len});
}

static struct slice cookie_in(struct slice cookies)
{
    while (cookies.len > 0) {
        struct slice value = slice_next(&cookies, ';');
        struct slice name = slice_next(&value, '=');
        if (slice_is(name, ADMIT_COOKIE))
            return value;
    }
    return SLICE_EMPTY;
}

static struct slice last_segment(struct slice path)
{
    const char *slash = memrchr(path.ptr, '/', path.len);
    size_t used = slash != NULL ? (size_t)(slash - path.ptr) + 1 : 0;
    return (struct slice){path.ptr + used, path.len - used};
}

/* A page's own address without the key, which would stay in histories and logs otherwise. It is a
 * relative one, because somebody's proxy may have us below a path of its own. */
static void add_own_address(struct http_req *req, struct buf *out)
{
    struct buf query;
    buf_init(&query, SIZE_MAX);
    http_query_without(http_req_query(req), "key", &query);
    buf_adds(out, "./");
    buf_add(out, last_segment(http_req_path(req)));
    if (query.len > 0)
        buf_adds(out, "?");
    buf_add(out, buf_slice(&query));
    buf_done(&query);
}

/* Not from a link of another site. Browsers say so over https and on localhost only. */
static bool is_own_visit(struct http_req *req)
{
    struct slice site = header(req, "sec-fetch-site");
    return slice_is(site, "none") || slice_is(site, "same-origin") || slice_is(site, "same-site");
}

/* Whom another site's page has led here stays led by it over a redirect, and would not send the
 * cookie: a page of ours sends him on. Its address has the key, and is nobody's referrer. */
static void answer_with_cookie(struct http_req *req, struct slice key)
{
    static const char page[] = "<!doctype html>\n<title>comfy-agent</title>\n"
                               "<p>The key is known. Reload without it in the address.\n";
    char digest[SHA256_TEXT + 1];
    char cookie[SHA256_TEXT + 128];
    struct buf address;
    struct http_headers headers;
    cookie_of(key, digest);
    bool redirects = is_own_visit(req);
    buf_init(&address, SIZE_MAX);
    buf_adds(&address, redirects ? "" : "0; url=");
    add_own_address(req, &address);
    (void)snprintf(cookie, sizeof(cookie),
                   ADMIT_COOKIE "=%s; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000", digest);
    http_headers_init(&headers);
    ASSERT(http_headers_add(&headers, SLICE("set-cookie"), slice_of(cookie)) == ERR_OK &&
           http_headers_add(&headers, SLICE("cache-control"), SLICE("no-store")) == ERR_OK &&
           http_headers_add(&headers, SLICE("referrer-policy"), SLICE("no-referrer")) == ERR_OK);
    if (http_headers_add(&headers, redirects ? SLICE("location") : SLICE("refresh"),
                         buf_slice(&address)) != ERR_OK)
        answer_error(req, 400, "RequestParamsError", "bad_path", "the path is not usable", NULL);
    else if (redirects)
        http_respond(req, 303, NULL, SLICE_EMPTY, &headers);
    else
        http_respond(req, 200, "text/html; charset=utf-8", slice_of(page), &headers);
    http_headers_done(&headers);
    buf_done(&address);
}

static bool is_navigation(struct http_req *req)
{
    struct slice accept = header(req, "accept");
    return slice_is(http_req_method(req), "GET") && !http_req_head(req)->upgrade &&
           memmem(accept.ptr, accept.len, "text/html", strlen("text/html")) != NULL;
}

static bool has_key(const struct admit *a, struct http_req *req)
{
    return is_key(a, header(req, "x-api-key")) ||
           is_key(a, bearer_of(header(req, "authorization"))) ||
           digest_is_known(a->cookies, a->key_count, cookie_in(header(req, "cookie")));
}

/* ?key=…: a browser's first visit gets the cookie, anything else goes on. False: answered. */
static bool check_query_key(const struct admit *a, struct http_req *req, bool *ret_given,
                            bool *ret_known)
{
    struct buf key;
    bool go_on = true;
    *ret_known = false;
    buf_init(&key, KEY_MAX);
    *ret_given = http_query_get(http_req_query(req), "key", &key) == ERR_OK;
    if (*ret_given && is_key(a, buf_slice(&key))) {
        *ret_known = true;
        if (is_navigation(req)) {
            answer_with_cookie(req, buf_slice(&key));
            go_on = false;
        }
    }
    buf_done(&key);
    return go_on;
}

static bool check_key(const struct admit *a, struct http_req *req)
{
    bool given;
    bool known;
    if (!check_query_key(a, req, &given, &known))
        return false;
    if (known || has_key(a, req))
        return true;
    http_add_header(req, SLICE("www-authenticate"), SLICE("Bearer"));
    if (slice_is(http_req_path(req), "/ui") && is_navigation(req))
        ui_ask_key(req, given);
    else
        refuse(req, 401, "no_key", "a key is needed: x-api-key, or Authorization: Bearer");
    return false;
}

/* --- what others need not see ---------------------------------------------------------------- */

static bool is_authorization(struct slice name, const void *ctx)
{
    (void)ctx;
    return slice_eq_nocase(name, SLICE("authorization"));
}

static bool is_cookie(struct slice name, const void *ctx)
{
    (void)ctx;
    return slice_eq_nocase(name, SLICE("cookie"));
}

/* Is ours among them? */
static bool add_other_cookies(struct slice cookies, struct buf *out)
{
    bool found = false;
    while (cookies.len > 0) {
        struct slice cookie = slice_next(&cookies, ';');
        struct slice value = cookie;
        bool is_ours = slice_is(slice_next(&value, '='), ADMIT_COOKIE);
        found = found || is_ours;
        if (cookie.len == 0 || is_ours)
            continue;
        if (out->len > 0)
            buf_adds(out, "; ");
        buf_add(out, cookie);
    }
    return found;
}

static enum err_code take_cookie(struct http_headers *headers)
{
    struct slice name = SLICE("cookie");
    struct buf others;
    enum err_code code = ERR_OK;
    bool found = false;
    buf_init(&others, SIZE_MAX);
    for (unsigned i = http_headers_find(headers, name, 0); i < headers->count;
         i = http_headers_find(headers, name, i + 1))
        found = add_other_cookies(http_headers_value(headers, i), &others) || found;
    if (!found) {
        buf_done(&others);
        return ERR_OK;
    }
    http_headers_drop(headers, is_cookie, NULL);
    if (others.len > 0)
        code = http_headers_add_known(headers, name, buf_slice(&others));
    buf_done(&others);
    return code;
}

static bool authorizes(const struct admit *a, const struct http_headers *headers)
{
    struct slice name = SLICE("authorization");
    for (unsigned i = http_headers_find(headers, name, 0); i < headers->count;
         i = http_headers_find(headers, name, i + 1))
        if (is_key(a, bearer_of(http_headers_value(headers, i))))
            return true;
    return false;
}

enum err_code admit_take_key(const struct admit *a, struct http_headers *headers)
{
    if (a->key_count == 0)
        return ERR_OK;
    if (authorizes(a, headers))
        http_headers_drop(headers, is_authorization, NULL);
    return take_cookie(headers);
}

bool admit_take_query_key(const struct admit *a, struct slice query, struct buf *rest)
{
    struct buf key;
    if (a->key_count == 0 || query.len == 0)
        return false;
    buf_init(&key, KEY_MAX);
    bool is_ours = http_query_get(query, "key", &key) == ERR_OK && is_key(a, buf_slice(&key));
    if (is_ours)
        http_query_without(query, "key", rest);
    buf_done(&key);
    return is_ours;
}

/* --- the gate -------------------------------------------------------------------------------- */

static bool is_health(struct slice path)
{
    return slice_is(path, "/healthz") || slice_is(path, "/readyz");
}

/* On the platform an address is all that is needed to call; without a key nobody may look at
 * others' tasks as a list, or end them. */
static bool needs_key_there(struct http_req *req)
{
    static const char tasks[] = "/api/tasks";
    struct slice path = http_req_path(req);
    return slice_is(path, tasks) ||
           (slice_starts(path, slice_of(tasks)) && slice_is(http_req_method(req), "DELETE"));
}

/* What the platform calls, and nothing else: whatever else comes without its mark needs a key. */
static bool is_platforms(struct slice path)
{
    static const char *const paths[] = {"/invoke", "/initialize", "/pre-stop", "/pre-freeze"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        if (slice_is(path, paths[i]))
            return true;
    return false;
}

bool admit_check(const struct admit *a, struct http_req *req, bool is_platform)
{
    struct slice path = http_req_path(req);
    if (!check_origin(a, req))
        return false;
    if (is_health(path) || (is_platform && is_platforms(path)))
        return true;
    if (a->key_count > 0)
        return check_key(a, req);
    if (a->on_platform && needs_key_there(req)) {
        refuse(req, 403, "key_not_set", "on Function Compute this needs API_KEY to be set");
        return false;
    }
    return true;
}
