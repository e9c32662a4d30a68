/* libcurl says which sockets it wants watched and when it wants to be woken; the loop does it and
 * tells libcurl; what has ended is then collected and told from `later`.
 *
 * The addresses go to libcurl twice: as the answer of its own look-up (CURLOPT_RESOLVE, with '+':
 * it ages and is replaced by the next exchange with that host), so that it tries them as it would
 * any, and as the list that the socket function checks. An address as a URL's host needs no
 * look-up; only the second check holds it.
 */
#include "hop.h"

#include "closer.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <curl/curl.h>

enum { HOP_IDLE_S = 20 /* beyond it a kept connection is likely to be dead */ };

struct hops {
    uv_loop_t *loop;
    struct later *later;
    CURLM *multi;
    char *ca_file;
    uv_timer_t timer;
    struct later_item kick; /* libcurl's timeout of 0 */
    struct closer closer;   /* timer, sockets' polls */
    unsigned open;          /* exchanges */
    bool inside;            /* libcurl runs */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* One for each time that libcurl takes up a socket: the poll of an earlier one may still be closing
 * when the same number comes back. */
struct hop_socket {
    uv_poll_t poll;
    struct hops *hops;
    curl_socket_t fd;
};

struct hop {
    struct hops *hops;
    struct hop_request request;
    const struct hop_events *events;
    void *owner;
    CURL *easy;
    struct curl_slist *lines, *pins;
    int status;
    bool headed, refused;
    struct later_item ended;
    struct err err;
    char curl_text[CURL_ERROR_SIZE];
};

/* --- the end of an exchange ------------------------------------------------------------------ */

static enum err_code hop_err_code(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_CONNECT: return ERR_UNAVAILABLE;
    case CURLE_OPERATION_TIMEDOUT: return ERR_TIMEOUT;
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR: return ERR_CLOSED;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY: return ERR_PROTOCOL;
    default: return ERR_IO;
    }
}

static void hop_fail(struct hop *h, enum err_code code, const char *text)
{
    (void)err_set(&h->err, code, "%.100s: %s", h->request.url->host, text);
}

/* libcurl 7.88 takes a head that is cut off for an answer without a body. */
static void hop_on_done(struct hop *h, CURLcode code)
{
    const char *text = h->curl_text[0] != '\0' ? h->curl_text : curl_easy_strerror(code);
    if (code == CURLE_OK && !h->headed)
        hop_fail(h, ERR_CLOSED, "cut off in its head");
    else if (h->refused)
        hop_fail(h, ERR_FORBIDDEN, "its address is refused");
    else if (code != CURLE_OK && h->err.code == ERR_OK)
        hop_fail(h, hop_err_code(code), text);
    later_add(h->hops->later, &h->ended);
}

static void hop_on_ended(struct later_item *item)
{
    struct hop *h = CONTAINER_OF(item, struct hop, ended);
    h->events->on_end(h, h->err.code != ERR_OK ? &h->err : NULL); /* may free it */
}

/* --- libcurl on the loop --------------------------------------------------------------------- */

static void hops_act(struct hops *hs, curl_socket_t fd, int what)
{
    int running, left;
    CURLMsg *msg;
    hs->inside = true;
    (void)curl_multi_socket_action(hs->multi, fd, what, &running);
    hs->inside = false;
    while ((msg = curl_multi_info_read(hs->multi, &left)) != NULL) {
        char *h = NULL;
        ASSERT(msg->msg == CURLMSG_DONE);
        ASSERT(curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &h) == CURLE_OK);
        hop_on_done((struct hop *)(void *)h, msg->data.result);
    }
}

static void hops_on_kick(struct later_item *item)
{
    hops_act(CONTAINER_OF(item, struct hops, kick), CURL_SOCKET_TIMEOUT, 0);
}

static void hops_on_timer(uv_timer_t *timer)
{
    hops_act(CONTAINER_OF(timer, struct hops, timer), CURL_SOCKET_TIMEOUT, 0);
}

static int hops_on_timer_wanted(CURLM *multi, long ms, void *ctx)
{
    struct hops *hs = ctx;
    (void)multi;
    later_cancel(hs->later, &hs->kick);
    (void)uv_timer_stop(&hs->timer);
    if (hs->closed != NULL)
        return 0;
    if (ms == 0)
        later_add(hs->later, &hs->kick);
    else if (ms > 0)
        ASSERT(uv_timer_start(&hs->timer, hops_on_timer, (uint64_t)ms, 0) == 0);
    return 0;
}

/* An error is passed on, or a refused connection is only noticed when libcurl next looks: 200 ms.
 */
static void socket_on_poll(uv_poll_t *poll, int status, int events)
{
    struct hop_socket *s = CONTAINER_OF(poll, struct hop_socket, poll);
    int what = status < 0 ? CURL_CSELECT_ERR : 0;
    if (events & UV_READABLE)
        what |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        what |= CURL_CSELECT_OUT;
    hops_act(s->hops, s->fd, what);
}

static void socket_on_closed(uv_handle_t *handle)
{
    struct hop_socket *s = CONTAINER_OF(handle, struct hop_socket, poll);
    struct hops *hs = s->hops;
    free(s);
    closer_release(&hs->closer);
}

/* Without a poll the exchange stands still until its owner's deadline. UNTESTED: libuv refuses
 * only what is no socket or is watched already. */
static struct hop_socket *socket_new(struct hops *hs, curl_socket_t fd)
{
    struct hop_socket *s = xcalloc(1, sizeof(*s));
    s->hops = hs;
    s->fd = fd;
    if (uv_poll_init_socket(hs->loop, &s->poll, fd) != 0) {
        free(s);
        return NULL;
    }
    closer_hold(&hs->closer);
    (void)curl_multi_assign(hs->multi, fd, s);
    return s;
}

static int hops_on_socket_wanted(CURL *easy, curl_socket_t fd, int what, void *ctx, void *known)
{
    struct hops *hs = ctx;
    struct hop_socket *s = known;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (s != NULL) {
            (void)curl_multi_assign(hs->multi, fd, NULL);
            uv_close((uv_handle_t *)&s->poll, socket_on_closed); /* stops it at once */
        }
        return 0;
    }
    if (s == NULL && hs->closed == NULL)
        s = socket_new(hs, fd);
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    if (s != NULL)
        (void)uv_poll_start(&s->poll, events, socket_on_poll);
    return 0;
}

/* --- what libcurl asks and tells ------------------------------------------------------------- */

static curl_socket_t hop_on_open_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *to)
{
    struct hop *h = ctx;
    struct address a;
    (void)purpose;
    if (address_from_sockaddr(&to->addr, &a))
        for (unsigned i = 0; i < h->request.address_count; i++)
            if (address_equal(&a, &h->request.addresses[i]))
                return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
    h->refused = true;
    return CURL_SOCKET_BAD;
}

static int hop_on_connected(void *ctx, char *primary, char *local, int primary_port, int local_port)
{
    struct hop *h = ctx;
    (void)primary, (void)local, (void)primary_port, (void)local_port;
    if (h->events->on_sent(h))
        return CURL_PREREQFUNC_OK;
    hop_fail(h, ERR_CANCELLED, "broken off");
    return CURL_PREREQFUNC_ABORT;
}

static bool hop_on_status_line(struct hop *h, struct slice line)
{
    const char *space = memchr(line.ptr, ' ', line.len);
    size_t at = space != NULL ? (size_t)(space - line.ptr) + 1 : line.len;
    struct slice digits = {line.ptr + at, line.len - at < 3 ? line.len - at : 3};
    uint64_t status;
    http_headers_reset(h->request.ret_headers);
    if (!slice_to_u64(digits, 999, &status))
        return false;
    h->status = (int)status;
    return true;
}

static bool hop_on_field(struct hop *h, struct slice line)
{
    const char *colon = memchr(line.ptr, ':', line.len);
    if (colon == NULL)
        return false;
    struct slice name = {line.ptr, (size_t)(colon - line.ptr)};
    struct slice value = {colon + 1, line.len - name.len - 1};
    enum err_code code = http_headers_add(h->request.ret_headers, name, slice_trim(value));
    if (code == ERR_TOO_LARGE)
        hop_fail(h, code, "its answer's head is too large");
    return code == ERR_OK;
}

/* A line of a head. Heads of interim answers (1xx) come too, and trailers after the body. */
static bool hop_on_line(struct hop *h, struct slice line)
{
    if (h->headed)
        return true;
    if (slice_starts(line, SLICE("HTTP/")))
        return hop_on_status_line(h, line);
    if (line.len > 0)
        return hop_on_field(h, line);
    if (h->status < 200)
        return true;
    h->headed = true;
    if (h->events->on_head(h, h->status))
        return true;
    hop_fail(h, ERR_CANCELLED, "broken off");
    return false;
}

static size_t hop_on_header(char *bytes, size_t size, size_t count, void *ctx)
{
    struct hop *h = ctx;
    struct slice line = {bytes, size * count};
    while (line.len > 0 && (line.ptr[line.len - 1] == '\n' || line.ptr[line.len - 1] == '\r'))
        line.len--;
    if (hop_on_line(h, line))
        return size * count;
    if (h->err.code == ERR_OK)
        hop_fail(h, ERR_PROTOCOL, "its answer's head is not valid");
    return 0;
}

static size_t hop_on_body(char *bytes, size_t size, size_t count, void *ctx)
{
    struct hop *h = ctx;
    if (h->events->on_part(h, (struct slice){bytes, size * count}))
        return size * count;
    hop_fail(h, ERR_CANCELLED, "broken off");
    return 0;
}

/* --- a request ------------------------------------------------------------------------------- */

/* They fail for want of memory only. */
#define HOP_SET(h, option, value)                                                                  \
    ASSERT(curl_easy_setopt((h)->easy, CURLOPT_##option, (value)) == CURLE_OK)

static void hop_add_line(struct curl_slist **list, const struct buf *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line->ptr);
    ASSERT(longer != NULL);
    *list = longer;
}

static bool hop_frames(struct slice name)
{
    static const struct slice names[] = {
        SLICE_INIT("host"),
        SLICE_INIT("content-length"),
        SLICE_INIT("transfer-encoding"),
        SLICE_INIT("connection"),
        SLICE_INIT("expect"),
        SLICE_INIT("upgrade"),
        SLICE_INIT("te"),
        SLICE_INIT("trailer"),
        SLICE_INIT("keep-alive"),
        SLICE_INIT("proxy-connection"),
    };
    return http_name_is_among(name, names, ARRAY_LEN(names));
}

/* A line without a value takes a header of libcurl's own away: one that would wait a second for a
 * "100 Continue", and one that calls any body a form. An empty header is written with ';'. */
static void hop_set_headers(struct hop *h)
{
    const struct http_headers *headers = h->request.headers;
    struct buf line;
    struct slice type;
    buf_init(&line, SIZE_MAX);
    buf_adds(&line, "Expect:");
    hop_add_line(&h->lines, &line);
    if (headers == NULL || !http_headers_get(headers, "content-type", &type)) {
        buf_reset(&line);
        buf_adds(&line, "Content-Type:");
        hop_add_line(&h->lines, &line);
    }
    for (unsigned i = 0; headers != NULL && i < headers->count; i++) {
        struct slice name = http_headers_name(headers, i);
        struct slice value = http_headers_value(headers, i);
        if (hop_frames(name))
            continue;
        buf_reset(&line);
        buf_add(&line, name);
        buf_adds(&line, value.len > 0 ? ": " : ";");
        buf_add(&line, value);
        hop_add_line(&h->lines, &line);
    }
    buf_done(&line);
    HOP_SET(h, HTTPHEADER, h->lines);
}

static void hop_set_addresses(struct hop *h)
{
    const struct url *url = h->request.url;
    char text[ADDRESS_TEXT_MAX + 1];
    struct buf line;
    struct address literal;
    if (address_parse(slice_of(url->host), &literal))
        return;
    buf_init(&line, SIZE_MAX);
    buf_addf(&line, "+%s:%u:", url->host, url->port);
    for (unsigned i = 0; i < h->request.address_count; i++) {
        const struct address *a = &h->request.addresses[i];
        address_format(a, text);
        buf_addf(&line, a->is_v6 ? "%s[%s]" : "%s%s", i > 0 ? "," : "", text);
    }
    hop_add_line(&h->pins, &line);
    buf_done(&line);
    HOP_SET(h, RESOLVE, h->pins);
}

static void hop_set_method(struct hop *h)
{
    const char *method = h->request.method;
    if (strcmp(method, "HEAD") == 0) {
        HOP_SET(h, NOBODY, 1L);
    } else if (strcmp(method, "POST") == 0) {
        HOP_SET(h, POST, 1L);
        HOP_SET(h, POSTFIELDS, h->request.content.len > 0 ? h->request.content.ptr : "");
        HOP_SET(h, POSTFIELDSIZE_LARGE, (curl_off_t)h->request.content.len);
    } else {
        ASSERT(strcmp(method, "GET") == 0); /* libcurl's own choice */
    }
}

static void hop_set_limits(struct hop *h)
{
    HOP_SET(h, PROTOCOLS_STR, "http,https");
    HOP_SET(h, PROXY, ""); /* not even the environment's */
    HOP_SET(h, SSL_VERIFYPEER, 1L);
    HOP_SET(h, SSL_VERIFYHOST, 2L);
    HOP_SET(h, SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (h->hops->ca_file != NULL)
        HOP_SET(h, CAINFO, h->hops->ca_file);
    HOP_SET(h, HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    HOP_SET(h, FRESH_CONNECT, h->request.reuse ? 0L : 1L);
    HOP_SET(h, FORBID_REUSE, h->request.reuse ? 0L : 1L);
    HOP_SET(h, MAXAGE_CONN, (long)HOP_IDLE_S);
    HOP_SET(h, NOSIGNAL, 1L);
    HOP_SET(h, BUFFERSIZE, 64L * 1024);
    HOP_SET(h, OPENSOCKETFUNCTION, hop_on_open_socket);
    HOP_SET(h, OPENSOCKETDATA, h);
}

static void hop_set_events(struct hop *h)
{
    HOP_SET(h, PRIVATE, h);
    HOP_SET(h, ERRORBUFFER, h->curl_text);
    HOP_SET(h, PREREQFUNCTION, hop_on_connected);
    HOP_SET(h, PREREQDATA, h);
    HOP_SET(h, HEADERFUNCTION, hop_on_header);
    HOP_SET(h, HEADERDATA, h);
    HOP_SET(h, WRITEFUNCTION, hop_on_body);
    HOP_SET(h, WRITEDATA, h);
}

struct hop *hop_start(struct hops *hs, const struct hop_request *request,
                      const struct hop_events *events, void *owner)
{
    struct hop *h = xcalloc(1, sizeof(*h));
    ASSERT(!hs->inside);
    h->hops = hs;
    h->request = *request;
    h->events = events;
    h->owner = owner;
    later_item_init(&h->ended, hop_on_ended);
    h->easy = curl_easy_init();
    ASSERT(h->easy != NULL);
    hs->open++;
    hop_set_limits(h);
    hop_set_events(h);
    HOP_SET(h, URL, request->url->text);
    if (request->user_agent != NULL)
        HOP_SET(h, USERAGENT, request->user_agent);
    hop_set_method(h);
    hop_set_headers(h);
    hop_set_addresses(h);
    ASSERT(curl_multi_add_handle(hs->multi, h->easy) == CURLM_OK);
    return h;
}

void *hop_owner(const struct hop *h)
{
    return h->owner;
}

void hop_free(struct hop *h)
{
    ASSERT(!h->hops->inside);
    later_cancel(h->hops->later, &h->ended);
    ASSERT(curl_multi_remove_handle(h->hops->multi, h->easy) == CURLM_OK);
    curl_easy_cleanup(h->easy);
    curl_slist_free_all(h->lines);
    curl_slist_free_all(h->pins);
    h->hops->open--;
    free(h);
}

/* --- all of them ----------------------------------------------------------------------------- */

enum err_code hop_global_init(struct err *err)
{
    CURLcode code = curl_global_init(CURL_GLOBAL_ALL);
    if (code != CURLE_OK)
        return err_set(err, ERR_IO, "libcurl: %s", curl_easy_strerror(code));
    return ERR_OK;
}

struct hops *hops_new(uv_loop_t *loop, struct later *later, const char *ca_file)
{
    struct hops *hs = xcalloc(1, sizeof(*hs));
    hs->loop = loop;
    hs->later = later;
    hs->ca_file = ca_file != NULL ? xstrdup(ca_file) : NULL;
    later_item_init(&hs->kick, hops_on_kick);
    closer_init(&hs->closer, loop);
    ASSERT(uv_timer_init(loop, &hs->timer) == 0);
    closer_hold(&hs->closer);
    hs->multi = curl_multi_init();
    ASSERT(hs->multi != NULL);
    ASSERT(curl_multi_setopt(hs->multi, CURLMOPT_SOCKETFUNCTION, hops_on_socket_wanted) == 0);
    ASSERT(curl_multi_setopt(hs->multi, CURLMOPT_SOCKETDATA, hs) == 0);
    ASSERT(curl_multi_setopt(hs->multi, CURLMOPT_TIMERFUNCTION, hops_on_timer_wanted) == 0);
    ASSERT(curl_multi_setopt(hs->multi, CURLMOPT_TIMERDATA, hs) == 0);
    return hs;
}

static void hops_on_timer_closed(uv_handle_t *handle)
{
    struct hops *hs = CONTAINER_OF(handle, struct hops, timer);
    closer_release(&hs->closer);
}

static void hops_on_closed(struct closer *closer)
{
    struct hops *hs = CONTAINER_OF(closer, struct hops, closer);
    void (*closed)(void *ctx) = hs->closed;
    void *ctx = hs->closed_ctx;
    free(hs->ca_file);
    free(hs);
    closed(ctx);
}

void hops_free(struct hops *hs, void (*closed)(void *ctx), void *ctx)
{
    ASSERT(hs->open == 0 && closed != NULL);
    hs->closed = closed; /* from here on sockets are only given back */
    hs->closed_ctx = ctx;
    ASSERT(curl_multi_cleanup(hs->multi) == CURLM_OK);
    later_cancel(hs->later, &hs->kick);
    uv_close((uv_handle_t *)&hs->timer, hops_on_timer_closed);
    closer_begin(&hs->closer, hops_on_closed);
}
