/* The least that a run takes: the requests, the hops between threads and the files of a run as
 * comfy-agent makes them, and nothing else. It knows the prompt's outputs beforehand, keeps no
 * tasks, follows no progress, checks nothing. What comfy-agent takes beyond it is comfy-agent's own
 * doing; what it takes itself is this machine's.
 *
 *     bare_agent COMFYUI_PORT FOLDER
 *
 * Prints its port, and dies with whoever started it. */
#include "codec.h"
#include "http_server.h"
#include "http_up.h"
#include "later.h"
#include "workers.h"
#include "ws_client.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BODY_MAX = 1 << 20,
    PICTURE_MAX = 64 * 1024,
    CLAIM_BYTES = 1046, /* the documents of a run of ten nodes */
    TASK_BYTES = 1051,
    END_BYTES = 1546,
    NODES_BYTES = 882,
};
#define CLIENT_ID "bare"
#define VIEW      "/view?filename=bench_1024_00001_.png&subfolder=&type=output"

struct run {
    struct list_node link;
    unsigned number;
    struct work begin, end;
    struct http_req *req;
    struct http_call post, view;
    struct http_headers headers;
    struct buf prompt, answer;
    bool posted, ended;
};

static struct {
    uv_loop_t loop;
    struct later later;
    struct http_up *up;
    struct workers *workers;
    struct ws_client *ws;
    struct list_node runs;
    const char *folder;
    unsigned count;
    bool open;
    char document[END_BYTES];
} b;

/* --- files ----------------------------------------------------------------------------------- */

static void put(const struct run *r, const char *name, size_t bytes, bool once, bool sync)
{
    char path[256], made[256 + 8];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/%u%s", b.folder, r->number, name);
    (void)snprintf(made, sizeof(made), "%s.tmp", path);
    int fd = open(made, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    ASSERT(fd >= 0 && write(fd, b.document, bytes) == (ssize_t)bytes);
    ASSERT(!sync || fsync(fd) == 0);
    ASSERT(fstat(fd, &st) == 0);
    (void)close(fd);
    if (once)
        ASSERT(link(made, path) == 0 && unlink(made) == 0);
    else
        ASSERT(rename(made, path) == 0);
}

static void put_beginning(struct work *w)
{
    struct run *r = CONTAINER_OF(w, struct run, begin);
    put(r, "~run.1", CLAIM_BYTES, true, false);
    put(r, "~task", TASK_BYTES, false, false);
}

static void put_end(struct work *w)
{
    struct run *r = CONTAINER_OF(w, struct run, end);
    put(r, "~end.1", END_BYTES, true, false);
    put(r, "", NODES_BYTES, false, false);
    put(r, "~task", END_BYTES, false, true);
    int folder = open(b.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT(folder >= 0 && fsync(folder) == 0);
    (void)close(folder);
}

/* --- a run, from its end to its beginning ---------------------------------------------------- */

static void run_on_end_put(struct work *w)
{
    struct run *r = CONTAINER_OF(w, struct run, end);
    if (r->req != NULL)
        http_respond(r->req, 200, "application/json", buf_slice(&r->answer), NULL);
    list_remove(&r->link);
    http_headers_done(&r->headers);
    buf_done(&r->prompt);
    buf_done(&r->answer);
    free(r);
}

static void run_on_picture(struct http_call *call, const struct err *err)
{
    struct run *r = call->ctx;
    char text[PICTURE_MAX / 3 * 4 + 8];
    ASSERT(err == NULL && call->status == 200);
    buf_adds(&r->answer, "{\"10\":{\"results\":[\"");
    buf_add(&r->answer, (struct slice){text, base64_encode(buf_slice(&call->body), text)});
    buf_adds(&r->answer, "\"]}}");
    r->end = (struct work){.run = put_end, .done = run_on_end_put};
    workers_add(b.workers, &r->end);
}

/* The answer to POST /prompt may come after the end of the run. */
static void run_step(struct run *r)
{
    if (!r->posted || !r->ended)
        return;
    r->view = (struct http_call){.method = "GET",
                                 .target = SLICE(VIEW),
                                 .body_max = PICTURE_MAX,
                                 .on_end = run_on_picture,
                                 .ctx = r};
    http_up_start(b.up, &r->view);
}

static void run_on_posted(struct http_call *call, const struct err *err)
{
    struct run *r = call->ctx;
    ASSERT(err == NULL && call->status == 200);
    r->posted = true;
    run_step(r);
}

static void run_on_beginning_put(struct work *w)
{
    struct run *r = CONTAINER_OF(w, struct run, begin);
    r->post = (struct http_call){.method = "POST",
                                 .target = SLICE("/prompt"),
                                 .headers = &r->headers,
                                 .content = buf_slice(&r->prompt),
                                 .body_max = BODY_MAX,
                                 .on_end = run_on_posted,
                                 .ctx = r};
    http_up_start(b.up, &r->post);
}

static void run_on_abort(struct http_req *req)
{
    struct run *r = http_req_data(req);
    r->req = NULL;
}

static void run_on_body(struct http_req *req, const struct err *err, struct slice body)
{
    struct run *r = xcalloc(1, sizeof(*r));
    ASSERT(err == NULL);
    r->number = b.count++;
    r->req = req;
    list_add(&b.runs, &r->link);
    http_req_set_data(req, r);
    http_on_abort(req, run_on_abort);
    buf_init(&r->answer, SIZE_MAX);
    buf_init(&r->prompt, SIZE_MAX);
    buf_addf(&r->prompt,
             "{\"client_id\":\"" CLIENT_ID "\",\"prompt_id\":\"%u\",\"prompt\":", r->number);
    buf_add(&r->prompt, body);
    buf_adds(&r->prompt, "}");
    http_headers_init(&r->headers);
    ASSERT(http_headers_add(&r->headers, SLICE("content-type"), SLICE("application/json")) ==
           ERR_OK);
    r->begin = (struct work){.run = put_beginning, .done = run_on_beginning_put};
    workers_add(b.workers, &r->begin);
}

static void on_request(struct http_req *req, void *ctx)
{
    (void)ctx;
    if (slice_is(http_req_method(req), "POST"))
        http_read_body(req, BODY_MAX, run_on_body);
    else
        http_respond(req, b.open ? 200 : 503, "text/plain", SLICE("ready?"), NULL);
}

/* --- the WebSocket --------------------------------------------------------------------------- */

static void on_open(struct ws_client *ws)
{
    (void)ws;
    b.open = true;
}

static void on_text(struct ws_client *ws, struct slice text)
{
    static const char name[] = "\"prompt_id\": \"";
    (void)ws;
    if (!slice_starts(text, SLICE("{\"type\": \"execution_success\"")))
        return;
    const char *at = memmem(text.ptr, text.len, name, strlen(name));
    ASSERT(at != NULL);
    unsigned number = (unsigned)strtoul(at + strlen(name), NULL, 10);
    LIST_FOREACH (node, &b.runs) {
        struct run *r = CONTAINER_OF(node, struct run, link);
        if (r->number == number) {
            r->ended = true;
            run_step(r);
            return;
        }
    }
}

static void on_end(struct ws_client *ws, const struct err *err)
{
    (void)ws;
    (void)fprintf(stderr, "bare_agent: the WebSocket has ended: %s\n", err->msg);
    exit(1);
}

/* --- all together ---------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    struct http_server_options options = {HTTP_SERVER_DEFAULTS, .handler = on_request};
    struct http_up_options up = {HTTP_UP_DEFAULTS, .host = "127.0.0.1"};
    struct ws_client_options ws = {
        WS_CLIENT_DEFAULTS, .host = "127.0.0.1", .target = SLICE("/ws?clientId=" CLIENT_ID),
        .on_open = on_open, .on_text = on_text,  .on_binary = on_text,
        .on_end = on_end};
    struct err err;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc != 3) {
        (void)fprintf(stderr, "bare_agent COMFYUI_PORT FOLDER\n");
        return 64;
    }
    up.port = ws.port = (unsigned)strtoul(argv[1], NULL, 10);
    b.folder = argv[2];
    memset(b.document, '{', sizeof(b.document));
    list_init(&b.runs);
    ASSERT(uv_loop_init(&b.loop) == 0);
    later_init(&b.later, &b.loop);
    options.host = "127.0.0.1";
    b.up = http_up_new(&b.loop, &b.later, &up);
    b.workers = workers_new(&b.loop, 1);
    b.ws = ws_client_new(&b.loop, &b.later, &ws);
    struct http_server *server = http_server_new(&b.loop, &b.later, &options);
    ASSERT(http_server_start(server, &err) == ERR_OK);
    (void)printf("%u\n", http_server_port(server));
    (void)fflush(stdout);
    return uv_run(&b.loop, UV_RUN_DEFAULT);
}
