#include "door.h"

#include "closer.h"
#include "codec.h"
#include "https.h"
#include "log.h"
#include "url.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    DOOR_PAUSE_MS = 200,
    DOOR_PAUSE_MAX_MS = 10000,
    DOOR_CONNECT_MS = 5000,
    DOOR_ANSWER_MAX = 64 * 1024,
    DOOR_CALLS_MAX = 8, /* at once; others wait in order */
};

struct door {
    struct door_options options;
    struct task_caller caller;
    uv_loop_t *loop;
    struct later *later;
    struct https *https;
    struct address_allow allow;
    char *url, *key;
    struct list_node calls;
    unsigned count;
    struct closer closer; /* https, and each call's timer */
    bool stopped;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

struct call {
    struct door *door;
    struct list_node link;
    struct task *task;
    unsigned attempt;
    uint64_t since;
    unsigned tries;
    uv_timer_t timer;
    bool calling;
    bool anew; /* asked for another attempt while a call was under way */
    struct https_call https;
    struct http_headers headers;
    char body[TASK_ID_MAX + 64];
    struct err why; /* of the last call that was not taken */
};

/* --- the end of a call ----------------------------------------------------------------------- */

static void call_on_closed(uv_handle_t *handle)
{
    struct call *c = handle->data;
    struct door *d = c->door;
    http_headers_done(&c->headers);
    task_unref(c->task);
    free(c);
    closer_release(&d->closer);
}

static void call_end(struct call *c)
{
    list_remove(&c->link);
    c->door->count--;
    uv_close((uv_handle_t *)&c->timer, call_on_closed);
}

static void call_tell(struct call *c, struct failure *take_why)
{
    const struct log_field fields[] = {
        {"task", slice_of(task_id(c->task))},
        {"why", take_why != NULL ? buf_slice(&take_why->json) : SLICE_EMPTY},
        {NULL, SLICE_EMPTY},
    };
    log_fields(take_why != NULL ? LOG_WARN : LOG_INFO, "door", fields, "RUN_URL %s attempt %u",
               take_why != NULL ? "does not take" : "has", c->attempt);
    struct task *t = task_ref(c->task);
    call_end(c);
    task_called(t, take_why);
    task_unref(t);
}

/* Taken by somebody, ended, or offered anew. */
static bool call_is_idle(const struct call *c)
{
    return !task_is_offered(c->task) || task_attempt(c->task) != c->attempt;
}

/* --- one call -------------------------------------------------------------------------------- */

static void call_send(struct call *c);
static void call_fill(struct call *c);

static void call_on_timer(uv_timer_t *timer)
{
    struct call *c = timer->data;
    if (call_is_idle(c))
        call_tell(c, NULL);
    else
        call_send(c);
}

/* Not all doors at the same moment. */
static uint64_t call_pause_ms(const struct call *c)
{
    uint64_t ms = DOOR_PAUSE_MS;
    unsigned char random;
    for (unsigned i = 1; i < c->tries && ms < DOOR_PAUSE_MAX_MS; i++)
        ms *= 2;
    random_bytes(&random, sizeof(random));
    ms = ms < DOOR_PAUSE_MAX_MS ? ms : DOOR_PAUSE_MAX_MS;
    return ms + ms * random / 1024;
}

static void call_again(struct call *c)
{
    uint64_t pause = call_pause_ms(c);
    uint64_t age = clock_mono_ms() - c->since;
    if (age + pause < c->door->options.patience_ms) {
        ASSERT(uv_timer_start(&c->timer, call_on_timer, pause, 0) == 0);
        return;
    }
    call_tell(c,
              failure_new(FAILURE_GPU_UNREACHABLE, "RUN_URL did not take the task in %u calls: %s",
                          c->tries, c->why.msg));
}

static bool is_passing(int status)
{
    return status == 408 || status == 429 || status >= 500;
}

static void call_on_end(struct https_call *https, const struct err *err)
{
    struct call *c = https->ctx;
    int status = https->status;
    c->calling = false;
    if (err == NULL)
        buf_done(&https->body);
    if (c->door->stopped) {
        call_end(c);
    } else if (c->anew) {
        call_fill(c);
        call_send(c);
    } else if (err == NULL && status >= 200 && status < 300) {
        call_tell(c, NULL);
    } else if (call_is_idle(c)) {
        call_tell(c, NULL);
    } else if (err != NULL && err->code != ERR_INVALID && err->code != ERR_FORBIDDEN) {
        c->why = *err;
        call_again(c);
    } else if (err == NULL && is_passing(status)) {
        (void)err_set(&c->why, ERR_UNAVAILABLE, "it answers with status %d", status);
        call_again(c);
    } else if (err != NULL) {
        call_tell(c, failure_new(FAILURE_GPU_REFUSED, "RUN_URL cannot be called: %s", err->msg));
    } else {
        struct failure *f =
            failure_new(FAILURE_GPU_REFUSED, "RUN_URL answers with status %d", status);
        failure_add_number(f, "status", status);
        call_tell(c, f);
    }
}

static void call_send(struct call *c)
{
    const struct door *d = c->door;
    uint64_t patience = d->options.patience_ms;
    uint64_t ms = d->options.call_ms < patience ? d->options.call_ms : patience;
    c->https = (struct https_call){
        .url = d->url,
        .method = "POST",
        .headers = &c->headers,
        .content = slice_of(c->body),
        .connect_ms = ms < DOOR_CONNECT_MS ? ms : DOOR_CONNECT_MS,
        .head_ms = ms,
        .total_ms = ms,
        .body_max = DOOR_ANSWER_MAX,
        .on_end = call_on_end,
        .ctx = c,
    };
    c->tries++;
    c->calling = true;
    https_start(d->https, &c->https);
}

static void call_fill(struct call *c)
{
    const char *id = task_id(c->task);
    (void)snprintf(c->body, sizeof(c->body), "{\"task_id\":\"%s\",\"attempt\":%u}", id, c->attempt);
    const struct {
        const char *name, *value;
    } headers[] = {{"content-type", "application/json"},
                   {"task-id", id},
                   {"x-fc-invocation-type", "Async"},
                   {"x-api-key", c->door->key}};
    http_headers_reset(&c->headers);
    for (size_t i = 0; i < ARRAY_LEN(headers); i++)
        if (headers[i].value[0] != '\0')
            ASSERT(http_headers_add(&c->headers, slice_of(headers[i].name),
                                    slice_of(headers[i].value)) == ERR_OK);
    c->anew = false;
}

static struct call *call_of(struct door *d, const struct task *t)
{
    LIST_FOREACH (node, &d->calls) {
        struct call *c = CONTAINER_OF(node, struct call, link);
        if (c->task == t)
            return c;
    }
    return NULL;
}

/* A task that is asked for again while a call for its attempt before waits has one call still. */
static void door_call(void *ctx, struct task *t)
{
    struct door *d = ctx;
    struct call *c = call_of(d, t);
    if (d->stopped)
        return; /* the offer stays: whoever wants the task finds that nobody was asked */
    if (c != NULL) {
        c->attempt = task_attempt(t);
        c->since = clock_mono_ms();
        c->anew = true;
        if (!c->calling) {
            call_fill(c);
            ASSERT(uv_timer_start(&c->timer, call_on_timer, 0, 0) == 0);
        }
        return;
    }
    c = xcalloc(1, sizeof(*c));
    c->door = d;
    c->task = task_ref(t);
    c->attempt = task_attempt(t);
    c->since = clock_mono_ms();
    http_headers_init(&c->headers);
    call_fill(c);
    ASSERT(uv_timer_init(d->loop, &c->timer) == 0);
    c->timer.data = c;
    closer_hold(&d->closer);
    list_add(&d->calls, &c->link);
    d->count++;
    call_send(c);
}

/* --- life ------------------------------------------------------------------------------------ */

static enum err_code door_read_url(const char *text, struct url *ret, struct err *err)
{
    struct buf whole;
    size_t len = strlen(text);
    while (len > 0 && text[len - 1] == '/')
        len--;
    buf_init(&whole, SIZE_MAX);
    buf_addf(&whole, "%.*s/api/run", (int)len, text);
    enum err_code code = strpbrk(text, "?#") != NULL
                             ? err_set(err, ERR_INVALID, "it has a query or a fragment")
                             : url_parse(buf_slice(&whole), ret, err);
    buf_done(&whole);
    return code;
}

enum err_code door_check(const char *url, struct slice key, struct err *err)
{
    struct url parsed;
    enum err_code code = door_read_url(url, &parsed, err);
    if (code != ERR_OK)
        return code;
    url_done(&parsed);
    for (size_t i = 0; i < key.len; i++)
        if (!http_is_value_char(key.ptr[i]))
            return err_set(err, ERR_INVALID, "API_KEY's first key is no value of a header");
    return ERR_OK;
}

/* The function's address is mostly one inside, which no caller could name: it alone is allowed. */
struct door *door_new(uv_loop_t *loop, struct later *later, const struct door_options *options)
{
    struct door *d = xcalloc(1, sizeof(*d));
    struct url url;
    bool ok = door_read_url(options->url, &url, NULL) == ERR_OK &&
              address_allow_parse(slice_of(url.host), &d->allow, NULL) == ERR_OK;
    ASSERT(ok);
    d->url = xstrdup(url.text);
    url_done(&url);
    d->options = *options;
    d->key = xcalloc(1, options->key.len + 1);
    memcpy(d->key, options->key.ptr, options->key.len);
    d->loop = loop;
    d->later = later;
    d->caller = (struct task_caller){.call = door_call, .ctx = d};
    list_init(&d->calls);
    closer_init(&d->closer, loop);
    struct https_options https = {
        .allow = &d->allow, .connections_max = DOOR_CALLS_MAX, .user_agent = options->user_agent};
    d->https = https_new(loop, later, &https);
    closer_hold(&d->closer);
    return d;
}

const struct task_caller *door_caller(struct door *d)
{
    return &d->caller;
}

unsigned door_calls(const struct door *d)
{
    return d->count;
}

void door_thaw(struct door *d, uint64_t gap_ms)
{
    uint64_t now = clock_mono_ms();
    LIST_FOREACH (node, &d->calls) {
        struct call *c = CONTAINER_OF(node, struct call, link);
        /* One that began behind the gap was not put off by it, and lies not in the future. */
        c->since = c->since + gap_ms < now ? c->since + gap_ms : now;
    }
}

static void door_on_https_freed(void *ctx)
{
    struct door *d = ctx;
    closer_release(&d->closer);
}

static void door_on_closed(struct closer *closer)
{
    struct door *d = CONTAINER_OF(closer, struct door, closer);
    void (*closed)(void *ctx) = d->closed;
    void *ctx = d->closed_ctx;
    address_allow_done(&d->allow);
    free(d->url);
    free(d->key);
    free(d);
    if (closed != NULL)
        closed(ctx);
}

void door_stop(struct door *d)
{
    d->stopped = true;
    LIST_FOREACH_SAFE (node, next, &d->calls) {
        struct call *c = CONTAINER_OF(node, struct call, link);
        if (c->calling)
            https_cancel(&c->https); /* its end goes on */
        else
            call_end(c);
    }
}

void door_free(struct door *d, void (*closed)(void *ctx), void *ctx)
{
    d->closed = closed;
    d->closed_ctx = ctx;
    door_stop(d);
    https_free(d->https, door_on_https_freed, d);
    closer_begin(&d->closer, door_on_closed);
}
