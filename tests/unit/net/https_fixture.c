#include "https_fixture.h"

#include "unit.h"

#include <stdio.h>

struct fixture fix;

const struct peer_step serve[3] = {REQUEST, SENDS(HELLO), DOES(PEER_SILENT)};
const struct peer_step silent[1] = {DOES(PEER_SILENT)};

/* --- names ----------------------------------------------------------------------------------- */

static void answer_text(struct resolve_lookup *lookup, const char *answers, size_t len)
{
    struct address found;
    struct err err;
    if (address_parse((struct slice){answers, len}, &found)) {
        resolve_answer(lookup, &found, 1, NULL);
        return;
    }
    (void)err_set(&err, ERR_NOT_FOUND, "'%s' is not known", lookup->name);
    resolve_answer(lookup, NULL, 0, &err);
}

static void on_ask(struct resolve_lookup *lookup, void *ctx)
{
    struct known_name *known = NULL;
    assert_ptr_equal(ctx, &fix);
    fix.asked++;
    if (strcmp(lookup->name, "held.test") == 0) {
        fix.held = lookup;
        return;
    }
    for (unsigned i = 0; i < NAMES_MAX; i++)
        if (fix.names[i].name != NULL && strcmp(fix.names[i].name, lookup->name) == 0)
            known = &fix.names[i];
    if (known == NULL) {
        answer_text(lookup, "", 0);
        return;
    }
    size_t len = strcspn(known->answers, " ");
    answer_text(lookup, known->answers, len);
    if (known->answers[len] == ' ')
        known->answers += len + 1;
}

/* --- a call ---------------------------------------------------------------------------------- */

void call_start(struct watched_call *one)
{
    bool inside = fix.inside;
    fix.inside = true;
    https_start(fix.https, &one->call);
    fix.inside = inside;
}

void call_cancel(struct watched_call *one)
{
    bool inside = fix.inside;
    fix.inside = true;
    https_cancel(&one->call);
    fix.inside = inside;
}

static void on_head(struct https_call *call)
{
    struct watched_call *one = call->ctx;
    assert_false(fix.inside || one->headed || one->ended);
    assert_true(call->status >= 200 && call->res_headers != NULL);
    struct slice value;
    one->headed = true;
    one->has_x = http_headers_get(call->res_headers, "x", &value);
    if (one->cancel_in_head)
        call_cancel(one);
}

static void on_part(struct https_call *call, struct slice part)
{
    struct watched_call *one = call->ctx;
    assert_false(fix.inside || one->ended);
    assert_true(one->headed && part.len > 0);
    one->parts++;
    buf_add(&one->body, part);
    if (one->cancel_in_part)
        call_cancel(one);
}

static void on_end(struct https_call *call, const struct err *err)
{
    struct watched_call *one = call->ctx;
    struct watched_call *next = one->start_at_end;
    assert_false(fix.inside || one->ended);
    one->ended = true;
    assert_null(call->driver);
    assert_true(fix.ends < CALLS_MAX);
    fix.order[fix.ends++] = one;
    if (err != NULL) {
        one->err = *err;
        assert_null(call->body.ptr);
    } else if (call->on_part == NULL) {
        buf_done(&one->body);
        one->body = call->body;
    }
    if (one->close_at_end)
        fixture_free();
    one->start_at_end = NULL;
    if (next != NULL) {
        next->ended = false;
        call_start(next);
    } else if (!one->close_at_end && one->err.code != ERR_OK) {
        struct https_call kept = {.status = call->status, .sent = call->sent};
        memset(call, 0xa5, sizeof(*call)); /* it is ours: nobody may look at it again */
        *call = kept;
    }
}

struct watched_call *call_prepare_url(unsigned i, const char *url)
{
    struct watched_call *one = &fix.ones[i];
    buf_done(&one->body);
    memset(one, 0, sizeof(*one));
    buf_init(&one->body, SIZE_MAX);
    (void)snprintf(one->url, sizeof(one->url), "%s", url);
    one->call = (struct https_call){
        .url = one->url,
        .method = "GET",
        .body_max = 1000,
        .redirects_max = 3,
        .on_end = on_end,
        .ctx = one,
    };
    return one;
}

struct watched_call *call_prepare(unsigned i, const char *method, const char *host,
                                  const char *path)
{
    char url[512];
    (void)snprintf(url, sizeof(url), "http://%s:%u%s", host, fix.peer.port, path);
    struct watched_call *one = call_prepare_url(i, url);
    one->call.method = method;
    return one;
}

void call_take_parts(struct watched_call *one)
{
    one->call.on_head = on_head;
    one->call.on_part = on_part;
}

struct watched_call *call_get(unsigned i, const char *host, const char *path)
{
    struct watched_call *one = call_prepare(i, "GET", host, path);
    call_start(one);
    return one;
}

void call_check(struct watched_call *one, enum err_code code, const char *text)
{
    loop_run_until(&fix.loop, &one->ended, "on_end");
    if (one->err.code != code || strstr(one->err.msg, text) == NULL)
        fail_msg("%s: %s: %s", one->url, err_name(one->err.code), one->err.msg);
}

void call_check_body(struct watched_call *one, int status, const char *body)
{
    call_check(one, ERR_OK, "");
    assert_int_equal(one->call.status, status);
    assert_string_equal(one->body.ptr != NULL ? one->body.ptr : "", body);
}

/* --- one test -------------------------------------------------------------------------------- */

void fixture_open(const char *allow, const struct peer_step *script)
{
    static const struct peer_step *scripts[1];
    struct err err;
    memset(&fix, 0, sizeof(fix));
    scripts[0] = script;
    loop_fixture_open(&fix.loop);
    peer_open(&fix.peer, &fix.loop, scripts, script != NULL ? 1 : 0);
    assert_int_equal(address_allow_parse(slice_of(allow), &fix.allow, &err), ERR_OK);
    fix.options = (struct https_options){
        HTTPS_DEFAULTS, .allow = &fix.allow, .user_agent = "test/1", .ask = on_ask, .ctx = &fix,
    };
    fix.https = https_new(&fix.loop.loop, &fix.loop.later, &fix.options);
}

static void on_closed(void *ctx)
{
    assert_ptr_equal(ctx, &fix);
    assert_false(fix.inside || fix.closed);
    fix.closed = true;
}

void fixture_free(void)
{
    bool inside = fix.inside;
    fix.inside = true;
    fix.freed = true;
    https_free(fix.https, on_closed, &fix);
    fix.inside = inside;
}

void fixture_close(void)
{
    if (!fix.freed)
        fixture_free();
    loop_run_until(&fix.loop, &fix.closed, "close");
    peer_close(&fix.peer);
    loop_fixture_close(&fix.loop);
    peer_done(&fix.peer);
    address_allow_done(&fix.allow);
    for (unsigned i = 0; i < CALLS_MAX; i++)
        buf_done(&fix.ones[i].body);
}

const char *fixture_received(unsigned conn)
{
    const char *text = fix.peer.conns[conn].in.ptr;
    return text != NULL ? text : "";
}

void fixture_fill_port(const char *text, char *ret, size_t size)
{
    const char *at = strstr(text, "PORT");
    if (at == NULL)
        (void)snprintf(ret, size, "%s", text);
    else
        (void)snprintf(ret, size, "%.*s%u%s", (int)(at - text), text, fix.peer.port, at + 4);
}

void fixture_redirect(struct peer_conn *conn)
{
    char text[512];
    int len = snprintf(text, sizeof(text),
                       "HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 5\r\n\r\nmoved",
                       fix.location);
    peer_send(conn, (struct slice){text, (size_t)len});
}
