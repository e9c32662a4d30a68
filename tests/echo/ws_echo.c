/* A WebSocket server that says what it hears, for tests that speak to it as strangers do
 * (tests/integration/test_autobahn.py). Prints its port, ends in form at SIGTERM. */
#include "later.h"
#include "log.h"
#include "ws_handshake.h"
#include "ws_server.h"

#include <signal.h>
#include <stdio.h>

static struct {
    uv_loop_t loop;
    uv_signal_t term;
    struct later later;
    struct http_server *server;
} e;

static void on_text(struct ws_server *s, struct slice text)
{
    (void)ws_server_send_text(s, text);
}

static void on_binary(struct ws_server *s, struct slice bytes)
{
    (void)ws_server_send_binary(s, bytes);
}

static void on_end(struct ws_server *s, unsigned code)
{
    (void)s;
    (void)code;
}

static void on_request(struct http_req *req, void *ctx)
{
    const struct ws_server_options options = {WS_SERVER_DEFAULTS, .on_text = on_text,
                                              .on_binary = on_binary, .on_end = on_end};
    const char *why;
    (void)ctx;
    int refused = ws_handshake_judge(http_req_head(req), &why);
    if (refused != 0)
        http_respond(req, refused, "text/plain", slice_of(why), NULL);
    else
        (void)ws_server_accept(req, &e.loop, NULL, &options);
}

static void on_server_closed(void *ctx)
{
    (void)ctx;
    later_close(&e.later, NULL);
}

static void on_term(uv_signal_t *term, int number)
{
    (void)number;
    uv_close((uv_handle_t *)term, NULL);
    http_server_close(e.server, on_server_closed, NULL);
}

int main(void)
{
    struct http_server_options options = {HTTP_SERVER_DEFAULTS};
    struct err err;
    options.host = "127.0.0.1";
    options.handler = on_request;
    (void)signal(SIGPIPE, SIG_IGN);
    ASSERT(uv_loop_init(&e.loop) == 0);
    later_init(&e.later, &e.loop);
    ASSERT(uv_signal_init(&e.loop, &e.term) == 0);
    ASSERT(uv_signal_start(&e.term, on_term, SIGTERM) == 0);
    e.server = http_server_new(&e.loop, &e.later, &options);
    ASSERT(http_server_start(e.server, &err) == ERR_OK);
    (void)printf("%u\n", http_server_port(e.server));
    (void)fflush(stdout);
    ASSERT(uv_run(&e.loop, UV_RUN_DEFAULT) == 0);
    ASSERT(uv_loop_close(&e.loop) == 0);
    return 0;
}
