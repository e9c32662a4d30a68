/* The last check before a socket is opened, apart from all that comes before it. */
#include "hop.h"
#include "https_fixture.h"
#include "unit.h"

#include <stdio.h>

static struct exchange {
    struct hop *hop;
    bool ended, sent, closed;
    struct err err;
    struct http_headers head;
    struct url url;
    struct address address;
} ex;

static bool on_sent(struct hop *h)
{
    assert_ptr_equal(hop_owner(h), &ex);
    ex.sent = true;
    return true;
}

static bool on_head(struct hop *h, int status)
{
    (void)h;
    return status == 200;
}

static bool on_part(struct hop *h, struct slice part)
{
    (void)h;
    return part.len > 0;
}

static void on_end(struct hop *h, const struct err *err)
{
    ex.err = err != NULL ? *err : (struct err){.code = ERR_OK};
    ex.ended = true;
    hop_free(h);
}

static const struct hop_events events = {on_sent, on_head, on_part, on_end};

static void start(struct hops *hs, const char *host, const char *address)
{
    char text[128];
    memset(&ex, 0, sizeof(ex));
    http_headers_init(&ex.head);
    (void)snprintf(text, sizeof(text), "http://%s:%u/", host, fix.peer.port);
    assert_int_equal(url_parse(slice_of(text), &ex.url, NULL), ERR_OK);
    assert_true(address_parse(slice_of(address), &ex.address));
    struct hop_request request = {
        .url = &ex.url,
        .method = "GET",
        .addresses = &ex.address,
        .address_count = 1,
        .ret_headers = &ex.head,
    };
    ex.hop = hop_start(hs, &request, &events, &ex);
}

static void check(struct hops *hs, const char *host, const char *address, enum err_code code)
{
    start(hs, host, address);
    loop_run_until(&fix.loop, &ex.ended, "on_end");
    if (ex.err.code != code)
        fail_msg("%s by %s: %s: %s", host, address, err_name(ex.err.code), ex.err.msg);
    url_done(&ex.url);
    http_headers_done(&ex.head);
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static void test_a_socket_to_a_checked_address_only(void **state)
{
    (void)state;
    fixture_open("", serve);
    struct hops *hs = hops_new(&fix.loop.loop, &fix.loop.later, NULL);
    check(hs, "127.0.0.1", "127.0.0.9", ERR_FORBIDDEN);
    assert_false(ex.sent);
    check(hs, "[::ffff:127.0.0.1]", "127.0.0.9", ERR_FORBIDDEN);
    check(hs, "[::1]", "127.0.0.1", ERR_FORBIDDEN);
    assert_int_equal(fix.peer.accepted, 0);
    check(hs, "127.0.0.1", "127.0.0.1", ERR_OK);
    check(hs, "name.test", "127.0.0.1", ERR_OK);
    assert_true(ex.sent);
    check(hs, "name.test", "127.0.0.9", ERR_UNAVAILABLE); /* what it knew is forgotten */
    assert_int_equal(fix.peer.accepted, 2);
    hops_free(hs, on_closed, &ex.closed);
    loop_run_until(&fix.loop, &ex.closed, "close");
    fixture_close();
}

static void test_free_at_every_step(void **state)
{
    (void)state;
    static const struct peer_step never[] = {REQUEST, SENDS(OK_HEAD "Content-Length: 9\r\n\r\nx"),
                                             DOES(PEER_SILENT)};
    fixture_open("", never);
    struct hops *hs = hops_new(&fix.loop.loop, &fix.loop.later, NULL);
    for (unsigned turns = 0; turns < 12; turns++) {
        start(hs, "name.test", "127.0.0.1");
        for (unsigned i = 0; i < turns; i++)
            (void)uv_run(&fix.loop.loop, UV_RUN_NOWAIT);
        assert_false(ex.ended);
        hop_free(ex.hop);
        url_done(&ex.url);
        http_headers_done(&ex.head);
    }
    hops_free(hs, on_closed, &ex.closed);
    loop_run_until(&fix.loop, &ex.closed, "close");
    assert_false(ex.ended);
    fixture_close();
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_socket_to_a_checked_address_only),
        cmocka_unit_test(test_free_at_every_step),
    };
    if (hop_global_init(NULL) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
