/* The connection to Redis. hiredis puts commands into bytes and takes answers apart; the socket is
 * libuv's and ours. Its own asynchronous layer (0.14) is not used: it looks names up on the loop,
 * knows no time, calls back from inside its own calls, tells nobody of a refused connection where
 * libuv polls for it, and aborts the program when a server says what it was not asked for. */
#include "store_redis_link.h"

#include <stdio.h>
#include <stdlib.h>

#include <hiredis/hiredis.h>

enum { KEEPALIVE_S = 30 };

struct redis_write {
    uv_write_t req;
    struct redis_link *link;
    char *command;
};

/* --- the end of a connection ----------------------------------------------------------------- */

static void link_tell(struct redis_link *l)
{
    if (!l->closing)
        l->changed(l);
}

/* Who waited learns it before the link may be wanted again, so that he is first then. */
static void link_on_tcp_closed(uv_handle_t *handle)
{
    struct redis_link *l = handle->data;
    struct list_node lost;
    list_take(&lost, &l->flying);
    redisReaderFree(l->reader);
    l->reader = NULL;
    l->state = REDIS_DOWN;
    while (!list_is_empty(&lost)) {
        struct redis_request *r = CONTAINER_OF(lost.next, struct redis_request, link);
        list_remove(&r->link);
        r->done(r, NULL);
    }
    link_tell(l);
    closer_release(&l->closer);
}

static void link_hang_up(struct redis_link *l)
{
    l->state = REDIS_DROPPING;
    deadline_clear(&l->silence);
    uv_close((uv_handle_t *)&l->tcp, link_on_tcp_closed);
}

/* A name may have several addresses of which one is right: the others are tried at once. So is the
 * first attempt after a connection that was good. */
void redis_link_drop(struct redis_link *l, const struct err *why)
{
    uint64_t pause_ms = REDIS_PAUSE_MS;
    uint64_t now = clock_mono_ms();
    if (l->state < REDIS_LOOKING || l->state == REDIS_DROPPING)
        return;
    l->why = *why;
    if (l->state == REDIS_CONNECTING && l->address_at + 1 < l->addresses.count) {
        l->address_at++;
        pause_ms = 0;
    } else {
        l->addresses.count = 0; /* what the name stands for may have changed */
        for (unsigned i = 1; i < l->failures && pause_ms < REDIS_PAUSE_MAX_MS; i++)
            pause_ms *= 2;
        if (l->failures++ == 0) {
            pause_ms = 0;
            l->failing_since_ms = now;
        }
    }
    l->not_before_ms = now + (pause_ms < REDIS_PAUSE_MAX_MS ? pause_ms : REDIS_PAUSE_MAX_MS);
    link_hang_up(l);
}

static void link_fail(struct redis_link *l, const char *what, const char *why)
{
    struct err err;
    (void)err_set(&err, ERR_UNAVAILABLE, "%s%s%s", what, why != NULL ? ": " : "",
                  why != NULL ? why : "");
    redis_link_drop(l, &err);
}

/* So many bytes the network has taken from us. */
static uint64_t link_taken(const struct redis_link *l)
{
    return l->said - l->tcp.write_queue_size;
}

/* Nothing was heard for so long, but the server cannot answer what it was not told yet: a large
 * value on a slow network. What is said behind that does not count, or a server that is gone would
 * be waited for as long as anybody asks. */
static bool link_still_asks(const struct redis_link *l)
{
    if (list_is_empty(&l->flying))
        return false;
    const struct redis_request *first = CONTAINER_OF(l->flying.next, struct redis_request, link);
    return first->end > l->taken && link_taken(l) > l->taken;
}

static void link_moves(struct redis_link *l)
{
    l->taken = link_taken(l);
    if (list_is_empty(&l->flying))
        deadline_clear(&l->silence);
    else
        deadline_set(&l->deadlines, 0, &l->silence);
}

static void link_on_silence(struct deadline *d)
{
    static const char *const waited_for[] = {
        [REDIS_LOOKING] = "the server's name is not found in time",
        [REDIS_CONNECTING] = "the server cannot be reached in time",
        [REDIS_GREETING] = "the server does not greet in time",
        [REDIS_OPEN] = "the server does not answer in time",
    };
    struct redis_link *l = CONTAINER_OF(d, struct redis_link, silence);
    ASSERT(l->state >= REDIS_LOOKING && l->state < REDIS_DROPPING);
    if (link_still_asks(l))
        link_moves(l);
    else
        link_fail(l, waited_for[l->state], NULL);
}

/* --- what is said ---------------------------------------------------------------------------- */

static void link_on_written(uv_write_t *req, int status)
{
    struct redis_write *w = CONTAINER_OF(req, struct redis_write, req);
    struct redis_link *l = w->link;
    redisFreeCommand(w->command);
    free(w);
    if (status < 0 && (l->state == REDIS_GREETING || l->state == REDIS_OPEN))
        link_fail(l, "cannot write to the server", uv_strerror(status));
    closer_release(&l->closer);
}

static void link_say(struct redis_link *l, struct redis_request *r, const struct slice *args,
                     unsigned count)
{
    const char *arg[REDIS_ARGS_MAX];
    size_t arg_len[REDIS_ARGS_MAX];
    struct redis_write *w = xcalloc(1, sizeof(*w));
    ASSERT(count <= REDIS_ARGS_MAX);
    for (unsigned i = 0; i < count; i++) {
        arg[i] = args[i].ptr;
        arg_len[i] = args[i].len;
    }
    int len = redisFormatCommandArgv(&w->command, (int)count, arg, arg_len);
    ASSERT(len > 0); /* out of memory */
    uv_buf_t buf = uv_buf_init(w->command, (unsigned)len);
    bool is_first = list_is_empty(&l->flying);
    w->link = l;
    list_add(&l->flying, &r->link);
    ASSERT(uv_write(&w->req, (uv_stream_t *)&l->tcp, &buf, 1, link_on_written) == 0);
    closer_hold(&l->closer);
    l->said += buf.len;
    r->end = l->said;
    if (is_first)
        link_moves(l);
}

void redis_link_send(struct redis_link *l, struct redis_request *r, const struct slice *args,
                     unsigned count)
{
    ASSERT(l->state == REDIS_OPEN);
    link_say(l, r, args, count);
}

/* --- what is heard --------------------------------------------------------------------------- */

static void link_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct redis_link *l = handle->data;
    (void)suggested;
    *buf = uv_buf_init(l->read, sizeof(l->read));
}

static void link_hand_over(struct redis_link *l, const struct redisReply *reply)
{
    struct redis_answer a = redis_answer_of(reply);
    if (list_is_empty(&l->flying)) {
        if (a.kind == REDIS_ERROR) { /* too many clients, or shutting down */
            struct slice text = redis_link_text(l, &a);
            struct err err;
            (void)err_set(&err, ERR_UNAVAILABLE, "the server says %.*s", SLICE_ARGS(text));
            redis_link_drop(l, &err);
        } else {
            link_fail(l, "the server says what it was not asked for", NULL);
        }
        return;
    }
    struct redis_request *r = CONTAINER_OF(l->flying.next, struct redis_request, link);
    list_remove(&r->link);
    if (l->state == REDIS_OPEN && a.kind != REDIS_ERROR)
        l->failures = 0;
    r->done(r, &a);
}

static void link_on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf)
{
    struct redis_link *l = stream->data;
    void *reply = NULL;
    if (len == 0)
        return;
    if (len < 0) {
        link_fail(l, "the server ended the connection",
                  len == UV_EOF ? NULL : uv_strerror((int)len));
        return;
    }
    if (redisReaderFeed(l->reader, buf->base, (size_t)len) != REDIS_OK) {
        link_fail(l, "an answer that cannot be read", l->reader->errstr);
        return;
    }
    while (l->state == REDIS_GREETING || l->state == REDIS_OPEN) {
        if (redisReaderGetReply(l->reader, &reply) != REDIS_OK) {
            link_fail(l, "what answers is no Redis server", NULL);
            return;
        }
        if (reply == NULL)
            break;
        link_hand_over(l, reply);
        freeReplyObject(reply);
    }
    if (l->state == REDIS_DROPPING)
        return;
    if (l->reader->len - l->reader->pos > REDIS_ANSWER_MAX)
        link_fail(l, "an answer that is too large", NULL);
    else
        link_moves(l);
}

/* --- the greeting ---------------------------------------------------------------------------- */

static void link_refused(struct redis_link *l, const char *what, const struct redis_answer *error)
{
    struct slice text = redis_link_text(l, error);
    struct err err;
    (void)err_set(&err, ERR_UNAVAILABLE, "the server refuses %s: %.*s", what, SLICE_ARGS(text));
    redis_link_drop(l, &err);
}

static void link_on_login(struct redis_request *r, const struct redis_answer *answer)
{
    struct redis_link *l = CONTAINER_OF(r, struct redis_link, login);
    if (answer != NULL && answer->kind == REDIS_ERROR)
        link_refused(l, "the login", answer);
}

static void link_on_chosen(struct redis_request *r, const struct redis_answer *answer)
{
    struct redis_link *l = CONTAINER_OF(r, struct redis_link, choose);
    if (answer != NULL && answer->kind == REDIS_ERROR)
        link_refused(l, "the database", answer);
}

static bool link_read_clock(struct redis_link *l, const struct redis_answer *answer)
{
    uint64_t seconds, rest_us;
    if (answer->kind != REDIS_LIST || answer->count != 2)
        return false;
    struct redis_answer first = redis_answer_item(answer, 0);
    struct redis_answer second = redis_answer_item(answer, 1);
    if (!slice_to_u64(first.text, UINT32_MAX, &seconds) ||
        !slice_to_u64(second.text, 999999, &rest_us))
        return false;
    l->clock_us = (int64_t)(seconds * 1000000 + rest_us) - (int64_t)clock_mono_ms() * 1000;
    return true;
}

/* The last sentence of the greeting, and asked again when the clocks have drifted apart. */
static void link_on_time(struct redis_request *r, const struct redis_answer *answer)
{
    struct redis_link *l = CONTAINER_OF(r, struct redis_link, time);
    l->measuring = false;
    if (answer == NULL)
        return;
    if (answer->kind == REDIS_ERROR) {
        link_refused(l, "to talk", answer);
    } else if (!link_read_clock(l, answer)) {
        link_fail(l, "what answers is no Redis server", NULL);
    } else if (l->state == REDIS_GREETING) {
        l->state = REDIS_OPEN;
        link_tell(l);
    }
}

void redis_link_measure(struct redis_link *l)
{
    const struct slice ask = SLICE("TIME");
    if (l->measuring || l->state < REDIS_GREETING || l->state == REDIS_DROPPING)
        return;
    l->measuring = true;
    link_say(l, &l->time, &ask, 1);
}

uint64_t redis_link_server_us(const struct redis_link *l, uint64_t mono_ms)
{
    int64_t us = (int64_t)mono_ms * 1000 + l->clock_us;
    return us > 0 ? (uint64_t)us : 0;
}

static void link_greet(struct redis_link *l)
{
    struct slice args[3] = {SLICE("AUTH")};
    unsigned count = 1;
    char db[16];
    l->state = REDIS_GREETING;
    if (l->password != NULL) {
        if (l->user != NULL)
            args[count++] = slice_of(l->user);
        args[count++] = slice_of(l->password);
        link_say(l, &l->login, args, count);
    }
    if (l->db != 0) {
        (void)snprintf(db, sizeof(db), "%u", l->db);
        args[0] = SLICE("SELECT");
        args[1] = slice_of(db);
        link_say(l, &l->choose, args, 2);
    }
    redis_link_measure(l);
}

/* --- the beginning of a connection ----------------------------------------------------------- */

static void link_on_connected(uv_connect_t *req, int status)
{
    struct redis_link *l = req->data;
    if (l->state == REDIS_CONNECTING) {
        if (status == 0)
            status = uv_read_start((uv_stream_t *)&l->tcp, link_on_alloc, link_on_read);
        if (status == 0)
            link_greet(l);
        else
            link_fail(l, "the server cannot be reached", uv_strerror(status));
    }
    closer_release(&l->closer);
}

static void link_connect(struct redis_link *l)
{
    l->state = REDIS_CONNECTING;
    l->connect.data = l;
    deadline_set(&l->deadlines, 0, &l->silence);
    int code =
        uv_tcp_connect(&l->connect, &l->tcp,
                       (const struct sockaddr *)&l->addresses.at[l->address_at], link_on_connected);
    if (code != 0) {
        link_fail(l, "the server cannot be reached", uv_strerror(code));
        return;
    }
    closer_hold(&l->closer);
    /* Comfort: a machine that is gone is noticed although nobody asks it for anything. */
    (void)uv_tcp_nodelay(&l->tcp, 1);
    (void)uv_tcp_keepalive(&l->tcp, 1, KEEPALIVE_S);
}

static void link_on_found(void *ctx, const struct redis_addresses *found, const char *why)
{
    struct redis_link *l = ctx;
    l->lookup = NULL;
    if (l->state != REDIS_LOOKING)
        return;
    l->address_at = 0;
    l->addresses = *found;
    if (found->count > 0)
        link_connect(l);
    else
        link_fail(l, "the server's name is not found", why);
}

/* A lookup that was too slow for the attempt before serves this one. */
static void link_look_up(struct redis_link *l)
{
    if (l->lookup == NULL)
        l->lookup = redis_lookup_new(l->loop, l->host, l->port, link_on_found, l);
    if (l->lookup == NULL)
        link_fail(l, "the server's name cannot be looked up", NULL);
}

static void link_begin(struct redis_link *l)
{
    ASSERT(uv_tcp_init(l->loop, &l->tcp) == 0);
    l->tcp.data = l;
    closer_hold(&l->closer);
    l->reader = redisReaderCreate();
    ASSERT(l->reader != NULL); /* out of memory */
    l->said = l->taken = 0;
    l->state = REDIS_LOOKING;
    deadline_set(&l->deadlines, 0, &l->silence);
    if (l->addresses.count > 0)
        link_connect(l);
    else
        link_look_up(l);
}

static void link_on_pause_over(uv_timer_t *timer)
{
    struct redis_link *l = timer->data;
    link_begin(l);
}

void redis_link_want(struct redis_link *l)
{
    uint64_t now = clock_mono_ms();
    if (l->state != REDIS_DOWN || l->closing)
        return;
    if (l->not_before_ms <= now) {
        link_begin(l);
        return;
    }
    l->state = REDIS_PAUSED;
    ASSERT(uv_timer_start(&l->pause, link_on_pause_over, l->not_before_ms - now, 0) == 0);
}

bool redis_link_is_lost(const struct redis_link *l, uint64_t for_ms)
{
    uint64_t now = clock_mono_ms();
    return l->state == REDIS_DOWN && l->failures > 0 && l->not_before_ms > now &&
           l->failing_since_ms + for_ms <= now;
}

/* --- life ------------------------------------------------------------------------------------ */

void redis_link_init(struct redis_link *l, uv_loop_t *loop,
                     const struct redis_link_options *options)
{
    *l = (struct redis_link){.loop = loop, .port = options->port, .db = options->db};
    l->host = xstrdup(options->host);
    l->user = options->user != NULL ? xstrdup(options->user) : NULL;
    l->password = options->password != NULL ? xstrdup(options->password) : NULL;
    l->login.done = link_on_login;
    l->choose.done = link_on_chosen;
    l->time.done = link_on_time;
    list_init(&l->flying);
    closer_init(&l->closer, loop);
    ASSERT(uv_timer_init(loop, &l->pause) == 0);
    l->pause.data = l;
    closer_hold(&l->closer);
    l->class[0] = (struct deadline_class){.ms = options->timeout_ms, .over = link_on_silence};
    deadlines_init(&l->deadlines, loop, l->class, 1);
    closer_hold(&l->closer);
    deadline_init(&l->silence);
}

static void link_on_closed(struct closer *closer)
{
    struct redis_link *l = CONTAINER_OF(closer, struct redis_link, closer);
    free(l->host);
    free(l->user);
    free(l->password);
    l->closed(l);
}

static void link_on_pause_closed(uv_handle_t *handle)
{
    struct redis_link *l = handle->data;
    closer_release(&l->closer);
}

static void link_on_deadlines_closed(struct deadlines *ds)
{
    struct redis_link *l = CONTAINER_OF(ds, struct redis_link, deadlines);
    closer_release(&l->closer);
}

void redis_link_close(struct redis_link *l, void (*closed)(struct redis_link *l))
{
    l->closing = true;
    l->closed = closed;
    if (l->state >= REDIS_LOOKING && l->state != REDIS_DROPPING)
        link_hang_up(l);
    deadline_clear(&l->silence);
    deadlines_close(&l->deadlines, link_on_deadlines_closed);
    uv_close((uv_handle_t *)&l->pause, link_on_pause_closed);
    if (l->lookup != NULL)
        redis_lookup_leave(l->lookup);
    closer_begin(&l->closer, link_on_closed);
}
