/* Header by header: dropped by name, by prefix, or because Connection names it. */
#include "http_relay.h"

static const struct slice neither_way[] = {
    SLICE_INIT("connection"),
    SLICE_INIT("content-length"),
    SLICE_INIT("date"),
    SLICE_INIT("keep-alive"),
    SLICE_INIT("proxy-authenticate"),
    SLICE_INIT("proxy-authorization"),
    SLICE_INIT("proxy-connection"),
    SLICE_INIT("sec-websocket-extensions"),
    SLICE_INIT("te"),
    SLICE_INIT("trailer"),
    SLICE_INIT("transfer-encoding"),
    SLICE_INIT("upgrade"),
};
static const struct slice not_to_server[] = {
    SLICE_INIT("expect"),           SLICE_INIT("host"),
    SLICE_INIT("origin"),           SLICE_INIT("x-forwarded-for"),
    SLICE_INIT("x-forwarded-host"), SLICE_INIT("x-forwarded-proto"),
    SLICE_INIT("x-api-key"),
};

static bool begins_with(struct slice name, struct slice prefix)
{
    return name.len >= prefix.len && slice_eq_nocase((struct slice){name.ptr, prefix.len}, prefix);
}

static bool passes_neither_way(struct slice name)
{
    return http_name_is_among(name, neither_way, ARRAY_LEN(neither_way)) ||
           begins_with(name, SLICE("x-fc-"));
}

static bool stays_from_server(struct slice name)
{
    return http_name_is_among(name, not_to_server, ARRAY_LEN(not_to_server)) ||
           (begins_with(name, SLICE("sec-fetch-")) &&
            !slice_eq_nocase(name, SLICE("sec-fetch-dest")));
}

static bool stays_from_client(struct slice name, const void *ctx)
{
    (void)ctx;
    return passes_neither_way(name) || begins_with(name, SLICE("access-control-"));
}

/* Connection itself is needed until all that it names is gone. */
static bool is_named_by_connection(struct slice name, const void *headers)
{
    struct slice connection = SLICE("connection");
    const struct http_headers *h = headers;
    for (unsigned i = http_headers_find(h, connection, 0); i < h->count;
         i = http_headers_find(h, connection, i + 1))
        if (!slice_eq_nocase(name, connection) && http_list_has(http_headers_value(h, i), name))
            return true;
    return false;
}

static enum err_code add_passing(const struct http_headers *from, struct http_headers *ret)
{
    bool names = http_headers_has(from, "connection");
    for (unsigned i = 0; i < from->count; i++) {
        struct slice name = http_headers_name(from, i);
        if (passes_neither_way(name) || stays_from_server(name) ||
            (names && is_named_by_connection(name, from)))
            continue;
        enum err_code code = http_headers_copy(ret, from, i);
        if (code != ERR_OK)
            return code;
    }
    return ERR_OK;
}

static enum err_code add_forwarded_for(const struct http_headers *from, const char *peer,
                                       struct http_headers *ret)
{
    struct buf list;
    if (!http_headers_has(from, "x-forwarded-for"))
        return http_headers_add_known(ret, SLICE("x-forwarded-for"), slice_of(peer));
    buf_init(&list, SIZE_MAX);
    for (unsigned i = 0; i < from->count; i++) {
        if (!slice_eq_nocase(http_headers_name(from, i), SLICE("x-forwarded-for")))
            continue;
        buf_add(&list, http_headers_value(from, i));
        buf_adds(&list, ", ");
    }
    buf_adds(&list, peer);
    enum err_code code = http_headers_add_known(ret, SLICE("x-forwarded-for"), buf_slice(&list));
    buf_done(&list);
    return code;
}

/* The value of the first of two headers that is there; `otherwise` if none is. */
static enum err_code add_forwarded(const struct http_headers *from, const char *name,
                                   const char *source, struct slice otherwise,
                                   struct http_headers *ret)
{
    struct slice value;
    if (!http_headers_get(from, name, &value) &&
        (source == NULL || !http_headers_get(from, source, &value)))
        value = otherwise;
    return http_headers_add_known(ret, slice_of(name), value);
}

enum err_code http_relay_request(const struct http_head *head, const char *peer,
                                 struct http_headers *ret)
{
    const struct http_headers *from = &head->headers;
    enum err_code code = add_passing(from, ret);
    if (code == ERR_OK)
        code = add_forwarded_for(from, peer, ret);
    if (code == ERR_OK)
        code = add_forwarded(from, "x-forwarded-host", "host", SLICE_EMPTY, ret);
    if (code == ERR_OK)
        code = add_forwarded(from, "x-forwarded-proto", NULL, SLICE("http"), ret);
    return code;
}

void http_relay_response(struct http_headers *headers)
{
    if (http_headers_has(headers, "connection"))
        http_headers_drop(headers, is_named_by_connection, headers);
    http_headers_drop(headers, stays_from_client, NULL);
}
