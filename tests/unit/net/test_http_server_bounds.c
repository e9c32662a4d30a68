/* More peers than connections, and no descriptors. */
#include "http_server_fixture.h"

#include <sys/resource.h>

static void respond_filler(struct http_req *req, void *ctx)
{
    (void)ctx;
    http_respond(req, 200, NULL, (struct slice){filler, sizeof(filler)}, NULL);
}

/* The next request waits until the answer before it has left: one answer is the most that waits. */
static void answers_do_not_pile_up(void **state)
{
    (void)state;
    enum { ASKED = 40 };
    struct peer p;
    size_t got = 0;
    start(respond_filler, usual);
    peer_open(&p);
    for (unsigned i = 0; i < ASKED; i++)
        buf_adds(&t.log, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    peer_send_bytes(&p, buf_slice(&t.log));
    wait_for(t.calls > 0);
    const struct http_conn *c = CONTAINER_OF(t.server->conns.next, struct http_conn, link);
    loop_run_for(&t.f, 20);
    assert_true(t.calls < ASKED);
    assert_true(out_pending(c) > 0 && out_pending(c) < 2 * sizeof(filler));
    while (got < ASKED * sizeof(filler)) {
        turn();
        peer_receive(&p);
        assert_false(p.ended);
        got += p.in.len;
        buf_reset(&p.in);
    }
    assert_int_equal(t.calls, ASKED);
    peer_close(&p);
    stop();
}

static void at_the_bound_the_longest_idle_connection_goes(void **state)
{
    (void)state;
    struct peer a, b, c;
    struct http_server_options options = usual;
    options.connections_max = 2;
    start(respond_path, options);
    peer_open(&a);
    peer_send(&a, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(peer_has(&a, "/a"));
    peer_open(&b);
    peer_send(&b, "GET /b HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(peer_has(&b, "/b"));
    peer_send(&a, "GET /A HTTP/1.1\r\nHost: h\r\n\r\n"); /* now b is the longest idle one */
    wait_for(peer_has(&a, "/A"));
    peer_open(&c);
    peer_send(&c, "GET /c HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(peer_has(&c, "/c"));
    assert_true(peer_ended(&b));
    assert_false(peer_ended(&a));
    assert_int_equal(http_server_stats(t.server).connections, 2);
    peer_close(&a);
    peer_close(&b);
    peer_close(&c);
    stop();
}

static void at_the_bound_without_idle_ones_new_peers_wait(void **state)
{
    (void)state;
    struct peer p[4];
    struct http_server_options options = usual;
    options.connections_max = 1;
    start(keep, options);
    peer_open(&p[0]);
    peer_send(&p[0], "GET /0 HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(t.calls == 1);
    for (unsigned i = 1; i < 4; i++) {
        peer_open(&p[i]);
        peer_send(&p[i], "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    loop_run_for(&t.f, 20);
    assert_int_equal(http_server_stats(t.server).accepted, 1);
    for (unsigned i = 0; i < 4; i++) {
        wait_for(t.calls == i + 1);
        http_respond(t.req, 200, NULL, SLICE("served"), NULL);
        wait_for(peer_has(&p[i], "served"));
        assert_int_equal(peer_has(&p[i], "connection: close"), i < 3); /* for those who wait */
        peer_close(&p[i]);
    }
    stop();
}

/* libuv drops the peers that it has no descriptor for, and the server goes on. When libuv has lost
 * its own spare descriptor too, its accept loop would never end. */
static void out_of_descriptors_is_no_busy_loop(void **state)
{
    (void)state;
    for (unsigned spare_lost = 0; spare_lost < 2; spare_lost++) {
        struct peer a, b, c;
        struct rlimit before, none;
        start(respond_path, usual);
        peer_open(&a);
        peer_send(&a, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
        wait_for(peer_has(&a, "/a"));
        peer_open(&b);
        peer_open(&c);
        if (spare_lost) {
            (void)close(t.f.loop.emfile_fd);
            t.f.loop.emfile_fd = -1;
        }
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
        int lowest = dup(0);
        (void)close(lowest);
        none = (struct rlimit){.rlim_cur = (rlim_t)lowest, .rlim_max = before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        for (unsigned i = 0; i < 20; i++)
            turn();
        peer_send(&a, "GET /again HTTP/1.1\r\nHost: h\r\n\r\n");
        wait_for(peer_has(&a, "/again"));
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        peer_close(&b);
        peer_close(&c);
        wait_for(t.server->listening);
        peer_open(&b);
        peer_send(&b, "GET /b HTTP/1.1\r\nHost: h\r\n\r\n");
        wait_for(peer_has(&b, "/b"));
        peer_close(&a);
        peer_close(&b);
        stop();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_do_not_pile_up),
        cmocka_unit_test(at_the_bound_the_longest_idle_connection_goes),
        cmocka_unit_test(at_the_bound_without_idle_ones_new_peers_wait),
        cmocka_unit_test(out_of_descriptors_is_no_busy_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
