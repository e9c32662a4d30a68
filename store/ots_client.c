/* One attempt after another:
 *
 *     ots_ask_start ─► attempt ─► on_end ─► judge ─┬─► turn ─► done
 *                        ▲                         │
 *                        └──── pause (timer) ◄─────┘ once more
 *
 * A pause is half of 200 ms (500 ms where the service says "too much") doubled by each attempt, and
 * a random part of the other half, so that those who were refused together do not come back
 * together. */
#include "ots_client.h"

#include "closer.h"
#include "codec.h"
#include "https.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    ATTEMPTS_MAX = 4,
    ATTEMPTS_CORRUPT = 2,
    PAUSE_MS = 200,
    PAUSE_SLOWER_MS = 500,
    PAUSE_MAX_MS = 3000,
    CONNECT_MS = 3000,
    HEAD_MS = 3000,
    GRACE_MS = 100,          /* the core answers its callers at their deadline, before us */
    SEND_BYTES_PER_MS = 500, /* slower is too slow */
    ANSWER_MAX = 8 * 1024 * 1024,
};

struct ots_client {
    struct later *later;
    struct closer closer; /* https, timer, asks */
    struct https *https;
    struct address_allow allow;
    uv_timer_t timer;
    struct list_node waiting; /* asks between two attempts */
    char *origin, *instance, *region;
    bool plain, closing;
    char *id, *secret, *token; /* NULL: none have come yet */
    uint64_t generation;       /* of the credentials; 0: none */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* What an attempt needs beyond the ask. */
struct attempt {
    struct https_call call;
    struct ots_ask *ask;
    struct http_headers headers;
    char *url;
    uint64_t wall_ms;
};

static void attempt_start(struct ots_ask *ask);

/* --- the end of an ask ----------------------------------------------------------------------- */

static void ask_on_turn(struct later_item *item)
{
    struct ots_ask *ask = CONTAINER_OF(item, struct ots_ask, turn);
    struct ots_client *client = ask->client;
    buf_done(&ask->body);
    ask->done(ask); /* may start another */
    closer_release(&client->closer);
}

static void ask_end(struct ots_ask *ask, enum ots_verdict verdict)
{
    ask->verdict = verdict;
    later_add(ask->client->later, &ask->turn);
}

/* --- pauses ---------------------------------------------------------------------------------- */

static void client_on_timer(uv_timer_t *timer);

static void client_arm(struct ots_client *client)
{
    uint64_t now = clock_mono_ms();
    uint64_t next = UINT64_MAX;
    LIST_FOREACH (node, &client->waiting) {
        const struct ots_ask *ask = CONTAINER_OF(node, struct ots_ask, link);
        if (ask->due_ms < next)
            next = ask->due_ms;
    }
    if (next != UINT64_MAX)
        ASSERT(uv_timer_start(&client->timer, client_on_timer, next > now ? next - now : 0, 0) ==
               0);
}

static void client_on_timer(uv_timer_t *timer)
{
    struct ots_client *client = timer->data;
    uint64_t now = clock_mono_ms();
    LIST_FOREACH_SAFE (node, next, &client->waiting) {
        struct ots_ask *ask = CONTAINER_OF(node, struct ots_ask, link);
        if (ask->due_ms > now)
            continue;
        list_remove(&ask->link);
        attempt_start(ask);
    }
    client_arm(client);
}

static uint64_t pause_ms(enum ots_verdict verdict, unsigned attempts)
{
    uint32_t chance;
    uint64_t ms = verdict == OTS_SLOWER || verdict == OTS_NOT_READY ? PAUSE_SLOWER_MS : PAUSE_MS;
    for (unsigned i = 1; i < attempts && ms < PAUSE_MAX_MS; i++)
        ms *= 2;
    ms = ms < PAUSE_MAX_MS ? ms : PAUSE_MAX_MS;
    random_bytes(&chance, sizeof(chance));
    return ms / 2 + chance % (ms / 2 + 1);
}

/* --- what follows an attempt ----------------------------------------------------------------- */

static bool ask_may_go_on(struct ots_ask *ask, enum ots_verdict verdict)
{
    switch (verdict) {
    case OTS_NOT_READY: return true; /* a new table takes up to a minute */
    case OTS_AGAIN:
    case OTS_SLOWER:
    case OTS_UNKNOWN: return ask->attempts < ATTEMPTS_MAX;
    case OTS_CORRUPT: return ask->attempts < ATTEMPTS_CORRUPT;
    case OTS_NO_ENTRY:
        if (ask->renewed || ask->signed_with == ask->client->generation)
            return false;
        ask->renewed = true; /* there are newer ones by now */
        return true;
    default: return false;
    }
}

static void ask_judged(struct ots_ask *ask, enum ots_verdict verdict)
{
    struct ots_client *client = ask->client;
    uint64_t pause = verdict == OTS_NO_ENTRY ? 0 : pause_ms(verdict, ask->attempts);
    ask->maybe = ask->maybe || verdict == OTS_UNKNOWN || verdict == OTS_CORRUPT;
    ask->due_ms = clock_mono_ms() + pause;
    if (client->closing || !ask_may_go_on(ask, verdict) ||
        ask->due_ms >= ots_ask_gives_up_at(ask)) {
        ask_end(ask, verdict);
        return;
    }
    log_debug("store", "ots: %s: %s; again in %llu ms", ask->path, ask->err.msg,
              (unsigned long long)pause);
    list_add(&client->waiting, &ask->link);
    client_arm(client);
}

static void attempt_free(struct attempt *a)
{
    buf_done(&a->call.body);
    http_headers_done(&a->headers);
    free(a->url);
    free(a);
}

static enum ots_verdict verdict_without_answer(const struct https_call *call, const struct err *err)
{
    switch (err->code) {
    case ERR_INVALID:
    case ERR_FORBIDDEN: return OTS_WRONG; /* the host may not be connected to */
    case ERR_CANCELLED: return call->sent ? OTS_UNKNOWN : OTS_LATE;
    case ERR_TOO_LARGE: return OTS_CORRUPT;
    default: return call->sent ? OTS_UNKNOWN : OTS_AGAIN;
    }
}

static struct ots_signer client_signer(const struct ots_client *client,
                                       const struct ots_credentials *credentials)
{
    return (struct ots_signer){credentials, client->instance, client->region};
}

static struct ots_credentials client_own_credentials(const struct ots_client *client)
{
    return (struct ots_credentials){client->id, client->secret, client->token};
}

/* An answer that was signed for with credentials that have been replaced meanwhile cannot be
 * checked any more; that is rare, and counts as damaged. */
static void attempt_on_end(struct https_call *call, const struct err *err)
{
    struct attempt *a = CONTAINER_OF(call, struct attempt, call);
    struct ots_ask *ask = a->ask;
    struct ots_client *client = ask->client;
    enum ots_verdict verdict;
    if (err != NULL) {
        verdict = verdict_without_answer(call, err);
        ask->err = *err;
    } else {
        struct ots_credentials credentials = client_own_credentials(client);
        struct ots_signer signer = client_signer(client, &credentials);
        struct ots_asked asked = {&signer, ask->path, a->wall_ms, client->plain};
        struct ots_reply reply = {call->status, call->res_headers, buf_slice(&call->body)};
        verdict = ots_judge(&reply, &asked, &ask->err);
        buf_done(&ask->answer);
        ask->answer = call->body;
        buf_init(&call->body, 0);
    }
    attempt_free(a);
    ask_judged(ask, verdict);
}

/* --- an attempt ------------------------------------------------------------------------------ */

static bool attempt_may_send(struct https_call *call)
{
    const struct attempt *a = CONTAINER_OF(call, struct attempt, call);
    const struct ots_ask *ask = a->ask;
    uint64_t now = clock_mono_ms();
    return now < ots_ask_gives_up_at(ask) && (ask->not_after_ms == 0 || now <= ask->not_after_ms);
}

static void attempt_set_times(struct attempt *a)
{
    uint64_t now = clock_mono_ms();
    uint64_t end = ots_ask_gives_up_at(a->ask);
    struct https_call *call = &a->call;
    call->connect_ms = CONNECT_MS;
    call->head_ms = call->idle_ms = HEAD_MS + a->ask->body.len / SEND_BYTES_PER_MS;
    call->total_ms = (end > now ? end - now : 0) + GRACE_MS;
}

static void attempt_start(struct ots_ask *ask)
{
    struct ots_client *client = ask->client;
    if (client->generation == 0) {
        (void)err_set(&ask->err, ERR_UNAVAILABLE, "no credentials for Tablestore have come yet");
        ask_end(ask, OTS_NO_ENTRY);
        return;
    }
    struct ots_credentials credentials = client_own_credentials(client);
    struct ots_signer signer = client_signer(client, &credentials);
    struct attempt *a = xcalloc(1, sizeof(*a));
    struct buf url;
    buf_init(&url, SIZE_MAX);
    buf_addf(&url, "%s%s", client->origin, ask->path);
    a->url = url.ptr;
    a->ask = ask;
    a->wall_ms = clock_wall_ms();
    http_headers_init(&a->headers);
    ASSERT(ots_sign(&a->headers, &signer, ask->path, buf_slice(&ask->body), a->wall_ms) == ERR_OK);
    a->call = (struct https_call){
        .url = a->url,
        .method = "POST",
        .headers = &a->headers,
        .content = buf_slice(&ask->body),
        .rate_min = 1,
        .body_max = ANSWER_MAX,
        .reuse = ask->attempts == 0,
        .may_send = attempt_may_send,
        .on_end = attempt_on_end,
    };
    attempt_set_times(a);
    ask->attempts++;
    ask->signed_with = client->generation;
    https_start(client->https, &a->call);
}

static void ask_init(struct ots_client *client, struct ots_ask *ask)
{
    ask->client = client;
    ask->maybe = ask->renewed = false;
    ask->attempts = 0;
    buf_init(&ask->answer, 0);
    list_init(&ask->link);
    later_item_init(&ask->turn, ask_on_turn);
    closer_hold(&client->closer);
}

void ots_ask_start(struct ots_client *client, struct ots_ask *ask)
{
    ask_init(client, ask);
    ask->err.code = ERR_OK;
    if (client->closing) {
        (void)err_set(&ask->err, ERR_UNAVAILABLE, "closing");
        ask_end(ask, OTS_AGAIN);
    } else {
        attempt_start(ask);
    }
}

void ots_ask_refuse(struct ots_client *client, struct ots_ask *ask)
{
    ask_init(client, ask);
    ask_end(ask, OTS_WRONG);
}

/* --- life ------------------------------------------------------------------------------------ */

static void forget(char **secret)
{
    if (*secret != NULL)
        explicit_bzero(*secret, strlen(*secret));
    free(*secret);
    *secret = NULL;
}

static void client_forget_credentials(struct ots_client *client)
{
    forget(&client->id);
    forget(&client->secret);
    forget(&client->token);
}

static char *copy_slice(struct slice s)
{
    char *copy = xmalloc(s.len + 1);
    memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}

static bool fits_a_header(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] <= ' ' || s.ptr[i] > '~')
            return false;
    return s.len < HTTP_TARGET_MAX;
}

/* The platform names temporary keys so; without their token they are good for nothing. */
static bool is_temporary(struct slice id)
{
    return slice_starts(id, SLICE("STS."));
}

enum err_code ots_client_credentials(struct ots_client *client, struct slice id,
                                     struct slice secret, struct slice token)
{
    if (id.len == 0 || secret.len == 0 || !fits_a_header(id) || !fits_a_header(secret) ||
        !fits_a_header(token) || (is_temporary(id) && token.len == 0))
        return ERR_INVALID;
    if (client->generation > 0 && slice_is(id, client->id) && slice_is(secret, client->secret) &&
        slice_is(token, client->token))
        return ERR_OK;
    client_forget_credentials(client);
    client->id = copy_slice(id);
    client->secret = copy_slice(secret);
    client->token = copy_slice(token);
    client->generation++;
    return ERR_OK;
}

struct ots_client *ots_client_new(uv_loop_t *loop, struct later *later,
                                  const struct ots_client_options *options)
{
    struct ots_client *client = xcalloc(1, sizeof(*client));
    struct https_options https = {HTTPS_DEFAULTS, .allow = &client->allow};
    struct buf origin;
    struct address literal;
    bool is_v6 = address_parse(slice_of(options->host), &literal) && literal.is_v6;
    buf_init(&origin, SIZE_MAX);
    buf_addf(&origin, is_v6 ? "%s://[%s]:%u" : "%s://%s:%u", options->plain ? "http" : "https",
             options->host, options->port);
    client->origin = origin.ptr;
    client->later = later;
    client->plain = options->plain;
    client->instance = xstrdup(options->instance);
    client->region = options->region != NULL ? xstrdup(options->region) : NULL;
    list_init(&client->waiting);
    /* A host that no list can name stays forbidden: requests to it fail, and say so. */
    if (address_allow_parse(slice_of(options->host), &client->allow, NULL) != ERR_OK)
        client->allow = (struct address_allow){.networks = NULL};
    https.connections_max = options->connections;
    https.ca_file = options->ca_file;
    closer_init(&client->closer, loop);
    ASSERT(uv_timer_init(loop, &client->timer) == 0);
    client->timer.data = client;
    client->https = https_new(loop, later, &https);
    closer_hold(&client->closer);
    closer_hold(&client->closer);
    return client;
}

static void client_on_part_closed(void *ctx)
{
    struct ots_client *client = ctx;
    closer_release(&client->closer);
}

static void client_on_timer_closed(uv_handle_t *handle)
{
    client_on_part_closed(handle->data);
}

static void client_on_closed(struct closer *closer)
{
    struct ots_client *client = CONTAINER_OF(closer, struct ots_client, closer);
    void (*closed)(void *ctx) = client->closed;
    void *ctx = client->closed_ctx;
    client_forget_credentials(client);
    address_allow_done(&client->allow);
    free(client->origin);
    free(client->instance);
    free(client->region);
    free(client);
    closed(ctx);
}

void ots_client_close(struct ots_client *client, void (*closed)(void *ctx), void *ctx)
{
    client->closing = true;
    client->closed = closed;
    client->closed_ctx = ctx;
    LIST_FOREACH_SAFE (node, next, &client->waiting) {
        struct ots_ask *ask = CONTAINER_OF(node, struct ots_ask, link);
        list_remove(&ask->link);
        ask_end(ask, ask->maybe ? OTS_UNKNOWN : OTS_AGAIN);
    }
    https_free(client->https, client_on_part_closed, client);
    uv_close((uv_handle_t *)&client->timer, client_on_timer_closed);
    closer_begin(&client->closer, client_on_closed);
}
