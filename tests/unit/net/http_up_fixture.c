#include "http_up_fixture.h"

#include "unit.h"

#include <stdio.h>

struct fixture fix;

/* --- a call ---------------------------------------------------------------------------------- */

void call_start(struct watched_call *one)
{
    bool inside = fix.inside;
    fix.inside = true;
    http_up_start(fix.up, &one->call);
    fix.inside = inside;
}

void call_cancel(struct watched_call *one)
{
    bool inside = fix.inside;
    fix.inside = true;
    http_up_cancel(&one->call);
    fix.inside = inside;
}

static void on_head(struct http_call *call)
{
    struct watched_call *one = call->ctx;
    assert_false(fix.inside || one->headed || one->ended);
    one->headed = true;
    if (one->pause_in_head)
        http_up_pause(call);
    if (one->cancel_in_head)
        call_cancel(one);
}

static void on_part(struct http_call *call, struct slice part)
{
    struct watched_call *one = call->ctx;
    assert_false(fix.inside || !one->headed || one->ended || part.len == 0);
    one->parts++;
    buf_add(&one->body, part);
    if (one->pause_in_part)
        http_up_pause(call);
    if (one->cancel_in_part)
        call_cancel(one);
}

static void on_end(struct http_call *call, const struct err *err)
{
    struct watched_call *one = call->ctx;
    struct slice type;
    assert_false(fix.inside || one->ended);
    one->ended = true;
    fix.order[fix.ends++] = one;
    one->err = err != NULL ? *err : (struct err){.code = ERR_OK};
    one->status = call->status;
    one->length = call->res_length;
    if (http_headers_get(&call->res_headers, "content-type", &type))
        (void)snprintf(one->type, sizeof(one->type), "%.*s", SLICE_ARGS(type));
    if (call->on_part == NULL) {
        one->body = call->body;
        buf_init(&call->body, 0);
    }
    http_up_cancel(call); /* too late: does nothing */
    if (one->start_at_end != NULL)
        call_start(one->start_at_end);
}

int call_read_content(struct http_call *call, struct slice *ret_part)
{
    struct watched_call *one = call->ctx;
    assert_false(fix.inside || one->ended);
    const char *piece = *one->pieces;
    if (piece == NULL)
        return 0;
    one->pieces++;
    if (strcmp(piece, "-") == 0)
        return -1;
    if (strcmp(piece, "!") == 0)
        return -2;
    *ret_part = slice_of(piece);
    return 1;
}

struct watched_call *call_prepare(unsigned i, const char *method, const char *target)
{
    struct watched_call *one = &fix.ones[i];
    memset(one, 0, sizeof(*one));
    buf_init(&one->body, SIZE_MAX);
    one->call = (struct http_call){
        .method = method,
        .target = slice_of(target),
        .body_max = 1000,
        .on_end = on_end,
        .ctx = one,
    };
    return one;
}

struct watched_call *call_get(unsigned i)
{
    struct watched_call *one = call_prepare(i, "GET", "/x");
    call_start(one);
    return one;
}

struct watched_call *call_prepare_stream(unsigned i)
{
    struct watched_call *one = call_prepare(i, "GET", "/x");
    one->call.on_head = on_head;
    one->call.on_part = on_part;
    return one;
}

struct watched_call *call_start_stream(unsigned i, const char *const *pieces, int64_t length)
{
    struct watched_call *one = call_prepare(i, "POST", "/x");
    one->pieces = pieces;
    one->call.read_content = call_read_content;
    one->call.content_length = length;
    call_start(one);
    return one;
}

void call_await(struct watched_call *one)
{
    loop_run_until(&fix.loop, &one->ended, "on_end");
}

void call_check(struct watched_call *one, enum err_code code, const char *text)
{
    call_await(one);
    if (one->err.code != code || strstr(one->err.msg, text) == NULL)
        fail_msg("%s: %s", err_name(one->err.code), one->err.msg);
}

void call_check_body(struct watched_call *one, int status, const char *body)
{
    call_check(one, ERR_OK, "");
    assert_int_equal(one->status, status);
    assert_string_equal(one->body.ptr != NULL ? one->body.ptr : "", body);
}

/* --- one test -------------------------------------------------------------------------------- */

void fixture_open(const struct peer_step *const *scripts, unsigned count)
{
    memset(&fix, 0, sizeof(fix));
    loop_fixture_open(&fix.loop);
    peer_open(&fix.peer, &fix.loop, scripts, count);
    fix.options = (struct http_up_options){
        HTTP_UP_DEFAULTS,
        .host = "127.0.0.1",
        .port = fix.peer.port,
    };
    fix.up = http_up_new(&fix.loop.loop, &fix.loop.later, &fix.options);
}

void fixture_open_one(const struct peer_step *script)
{
    static const struct peer_step *scripts[1];
    scripts[0] = script;
    fixture_open(scripts, 1);
}

static void on_closed(void *ctx)
{
    (void)ctx;
    assert_false(fix.inside);
    fix.closed = true;
}

void fixture_reopen(void)
{
    fix.closed = false;
    http_up_close(fix.up, on_closed, NULL);
    loop_run_until(&fix.loop, &fix.closed, "close");
    fix.up = http_up_new(&fix.loop.loop, &fix.loop.later, &fix.options);
}

void fixture_close(void)
{
    fix.closed = false;
    fix.inside = true;
    http_up_close(fix.up, on_closed, NULL);
    fix.inside = false;
    loop_run_until(&fix.loop, &fix.closed, "close");
    peer_close(&fix.peer);
    loop_fixture_close(&fix.loop);
    peer_done(&fix.peer);
    for (unsigned i = 0; i < CALLS_MAX; i++)
        buf_done(&fix.ones[i].body);
}

const char *fixture_received(unsigned conn)
{
    return fix.peer.conns[conn].in.ptr;
}

const struct peer_step serve[3] = {REQUEST, SENDS(HELLO), DOES(PEER_AGAIN)};
const struct peer_step silent[1] = {DOES(PEER_SILENT)};
