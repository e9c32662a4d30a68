/* All routes, over real sockets, with tasks and a store in memory and without a ComfyUI. The first
 * byte says how it is set up; the rest are requests, one behind the other, "%%" on a line between
 * them: the request line (HTTP/1.1 need not be said), headers, an empty line, a body. Host,
 * Connection and Content-Length are put in. Behind the head of a WebSocket come its frames. "STORE
 * key" is no request: what follows the line is stored under that key, as if by another instance.
 *
 * Whatever is asked is answered in form, or not yet: with one answer, that is never 500, and whose
 * JSON is JSON. Whoever has no answer yet leaves; and at the end everything can be closed. What is
 * uploaded to a front door lies in its directory and nowhere else. */
#include "admit.h"
#include "api.h"
#include "door.h"
#include "http_file.h"
#include "hub_room.h"
#include "log.h"
#include "lookup.h"
#include "proxy.h"
#include "router.h"
#include "warmup.h"
#include "workflows.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { REQUESTS_MAX = 6, IDLE_TURNS = 40, TURNS_MAX = 3000 };
enum { WITH_KEY = 1, ON_PLATFORM = 2, WITH_ORIGIN = 4, FRONT_DOOR = 8 };

/* --- a disk ---------------------------------------------------------------------------------- */

static char disk[] = "/tmp/fuzz_api.XXXXXX"; /* holds in/ and out/ */
static char in_dir[sizeof(disk) + 8], out_dir[sizeof(disk) + 8];

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    (void)remove(path);
    return 0;
}

static void disk_clean(void)
{
    (void)nftw(disk, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Another one each time: a thread that the one before has left behind may still write there. */
static void disk_make(void)
{
    char file[sizeof(out_dir) + 8];
    memset(disk + sizeof(disk) - 7, 'X', 6);
    ASSERT(mkdtemp(disk) != NULL);
    (void)snprintf(in_dir, sizeof(in_dir), "%s/in", disk);
    (void)snprintf(out_dir, sizeof(out_dir), "%s/out", disk);
    ASSERT(mkdir(in_dir, 0700) == 0 && mkdir(out_dir, 0700) == 0);
    (void)snprintf(file, sizeof(file), "%s/a.png", out_dir);
    int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ASSERT(fd >= 0 && write(fd, "12345", 5) == 5 && close(fd) == 0);
}

static unsigned entries_of(const char *path)
{
    unsigned count = 0;
    DIR *dir = opendir(path);
    ASSERT(dir != NULL);
    while (readdir(dir) != NULL)
        count++;
    (void)closedir(dir);
    return count - 2; /* . and .. */
}

/* --- the program ----------------------------------------------------------------------------- */

struct world {
    struct hub_room room;
    struct budget bodies;
    struct histogram turns;
    struct door *door;
    struct http_files *files;
    struct api api;
};

static void on_stop(void *ctx, const char *why)
{
    (void)ctx;
    (void)why; /* and it does not: the hook waits until it is closed */
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

/* Another hub in the place of the room's: whose prompts run where nobody is. */
static void door_open(struct world *w)
{
    uv_loop_t *loop = &w->room.f.loop;
    struct task_hub_options options = hub_room_options(&w->room);
    struct door_options door = {DOOR_DEFAULTS, .url = "http://127.0.0.1:1/", .key = SLICE_EMPTY,
                                .patience_ms = 1000};
    disk_make();
    w->door = door_new(loop, &w->room.f.later, &door);
    w->files = http_files_new(loop, &w->room.f.later, out_dir, in_dir);
    hub_room_close_hub(&w->room);
    options.caller = door_caller(w->door);
    w->room.hub = task_hub_new(loop, &w->room.f.later, &options);
}

static void door_close(struct world *w)
{
    bool closed[2] = {false};
    door_free(w->door, on_closed, &closed[0]);
    loop_run_until(&w->room.f, &closed[0], "the end of the door");
    http_files_free(w->files, on_closed, &closed[1]);
    loop_run_until(&w->room.f, &closed[1], "the end of the files");
}

static void world_open(struct world *w, unsigned mode)
{
    hub_room_open(&w->room, &store_mem_ops, "mem:");
    w->door = NULL;
    w->files = NULL;
    if ((mode & FRONT_DOOR) != 0)
        door_open(w);
    uv_loop_t *loop = &w->room.f.loop;
    struct later *later = &w->room.f.later;
    struct proxy_options proxy = {.host = "127.0.0.1", .port = 1};
    struct http_server_options listen = {HTTP_SERVER_DEFAULTS, .bodies = &w->bodies};
    w->bodies = (struct budget){.max = 1 << 20};
    w->api = (struct api){.hub = w->room.hub,
                          .lookups = lookups_new(loop, later, w->room.s),
                          .comfy = w->room.comfy,
                          .store = w->room.s,
                          .supervisor = w->room.supervisor,
                          .loop = loop,
                          .later = later,
                          .on_platform = (mode & ON_PLATFORM) != 0,
                          .door = w->door,
                          .files = w->files,
                          .input_dir = w->door != NULL ? in_dir : "",
                          .body_max = 64 * 1024,
                          .bodies = &w->bodies,
                          .started_ms = clock_wall_ms(),
                          .loop_turns = &w->turns,
                          .initialize_ms = 1000,
                          .stop = on_stop};
    list_init(&w->api.stops);
    w->api.admit = admit_new((mode & WITH_KEY) != 0 ? SLICE("k") : SLICE_EMPTY,
                             (mode & WITH_ORIGIN) != 0 ? SLICE("https://a.example") : SLICE_EMPTY,
                             w->api.on_platform);
    w->api.proxy = proxy_new(loop, later, &proxy);
    w->api.warmup = warmup_new(loop, w->room.hub, "");
    w->api.workflows = workflows_new(loop, "");
    listen.host = "127.0.0.1";
    listen.handler = router_handle;
    listen.over = router_over;
    listen.ctx = &w->api;
    w->api.server = http_server_new(loop, later, &listen);
    ASSERT(http_server_start(w->api.server, NULL) == ERR_OK);
}

static void world_close(struct world *w)
{
    bool closed[4] = {false};
    http_server_close(w->api.server, on_closed, &closed[0]);
    loop_run_until(&w->room.f, &closed[0], "the end of the server");
    workflows_free(w->api.workflows, on_closed, &closed[1]);
    loop_run_until(&w->room.f, &closed[1], "the end of the workflows");
    proxy_free(w->api.proxy, on_closed, &closed[2]);
    loop_run_until(&w->room.f, &closed[2], "the end of the proxy");
    warmup_free(w->api.warmup);
    task_hub_end_all(w->room.hub);
    if (w->door != NULL)
        door_stop(w->door);
    hub_room_close_hub(&w->room);
    if (w->door != NULL)
        door_close(w);
    lookups_free(w->api.lookups, on_closed, &closed[3]);
    loop_run_until(&w->room.f, &closed[3], "the end of the lookups");
    hub_room_close(&w->room);
    if (w->door != NULL) { /* no thread is at it any more */
        ASSERT(entries_of(disk) == 2 && entries_of(out_dir) == 1);
        disk_clean();
    }
    admit_free(w->api.admit);
    ASSERT(w->bodies.used == 0);
}

/* --- a client -------------------------------------------------------------------------------- */

struct client {
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    struct buf out, in;
    bool ended, closed;
};

static void client_on_alloc(uv_handle_t *handle, size_t wish, uv_buf_t *buf)
{
    static char room[64 * 1024];
    (void)handle;
    (void)wish;
    *buf = uv_buf_init(room, sizeof(room));
}

static void client_on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf)
{
    struct client *c = stream->data;
    if (len > 0)
        buf_add(&c->in, (struct slice){buf->base, (size_t)len});
    c->ended = c->ended || len < 0;
}

static void client_on_written(uv_write_t *write, int status)
{
    (void)write;
    (void)status;
}

static void client_on_connected(uv_connect_t *connect, int status)
{
    struct client *c = connect->data;
    uv_buf_t bytes = uv_buf_init(c->out.ptr, (unsigned)c->out.len);
    if (status != 0)
        return; /* closed before, on a slow machine */
    ASSERT(uv_read_start((uv_stream_t *)&c->tcp, client_on_alloc, client_on_read) == 0);
    (void)uv_write(&c->write, (uv_stream_t *)&c->tcp, &bytes, 1, client_on_written);
}

static void client_on_closed(uv_handle_t *handle)
{
    struct client *c = handle->data;
    c->closed = true;
}

/* Until it is answered, or nothing happens any more. */
static void client_run(struct client *c, struct world *w)
{
    struct sockaddr_in address;
    uv_loop_t *loop = &w->room.f.loop;
    unsigned idle = 0;
    size_t seen = 0;
    ASSERT(uv_ip4_addr("127.0.0.1", (int)http_server_port(w->api.server), &address) == 0);
    ASSERT(uv_tcp_init(loop, &c->tcp) == 0);
    c->tcp.data = c->connect.data = c;
    ASSERT(uv_tcp_connect(&c->connect, &c->tcp, (const struct sockaddr *)&address,
                          client_on_connected) == 0);
    for (unsigned turns = 0; !c->ended && idle < IDLE_TURNS && turns < TURNS_MAX; turns++) {
        (void)uv_run(loop, UV_RUN_NOWAIT);
        idle = c->in.len == seen ? idle + 1 : 0;
        seen = c->in.len;
    }
    uv_close((uv_handle_t *)&c->tcp, client_on_closed);
    loop_run_until(&w->room.f, &c->closed, "the end of the client");
}

/* --- answers --------------------------------------------------------------------------------- */

struct answer {
    struct buf body;
    int status;
    bool is_json;
    unsigned final; /* answers, without those that only say that one follows */
};

static bool answer_on_head(struct http_parser *p, const struct http_head *head)
{
    struct answer *a = http_parser_owner(p);
    struct slice type = SLICE_EMPTY;
    a->status = head->status;
    a->is_json = http_headers_get(&head->headers, "content-type", &type) &&
                 slice_is(type, "application/json");
    ASSERT(head->status != 500 && head->status < 600);
    return true;
}

static void answer_on_body(struct http_parser *p, struct slice part)
{
    struct answer *a = http_parser_owner(p);
    buf_add(&a->body, part);
}

static void answer_on_end(struct http_parser *p)
{
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX};
    struct answer *a = http_parser_owner(p);
    if (a->status == 100)
        return;
    a->final++;
    if (a->is_json && a->body.len > 0) /* a record as deep as may be is deeper in a list */
        ASSERT(json_check(buf_slice(&a->body), &limits, NULL, NULL) != ERR_INVALID);
    buf_reset(&a->body);
}

struct shape { /* of a request */
    bool is_head, upgrades;
};

static void check_answer(const struct client *c, const struct shape *shape)
{
    static const struct http_parser_events events = {answer_on_head, answer_on_body, answer_on_end};
    struct answer a = {.status = 0};
    struct slice rest = buf_slice(&c->in);
    enum http_parse_result result = HTTP_PARSE_COMPLETE;
    buf_init(&a.body, SIZE_MAX);
    struct http_parser *p = http_parser_new(HTTP_PARSE_RESPONSE, &events, &a);
    /* A HEAD that cannot be read as one is refused with a body. */
    while (rest.len > 0 && result == HTTP_PARSE_COMPLETE && !(shape->is_head && a.final > 0)) {
        size_t used = 0;
        struct err err;
        if (shape->is_head)
            http_parser_expect_no_body(p);
        result = http_parser_feed(p, rest, &used, NULL, &err);
        if (result == HTTP_PARSE_FAILED)
            (void)fprintf(stderr, "%s: %s\n", err.msg, c->in.ptr);
        ASSERT(result != HTTP_PARSE_FAILED);
        rest = (struct slice){rest.ptr + used, rest.len - used};
        if (result == HTTP_PARSE_COMPLETE)
            http_parser_next(p);
    }
    ASSERT(a.final <= 1 || shape->upgrades); /* what was no upgrade may be pipelined */
    http_parser_free(p);
    buf_done(&a.body);
}

/* --- requests -------------------------------------------------------------------------------- */

static struct slice take_line(struct slice *text)
{
    const char *end = memchr(text->ptr, '\n', text->len);
    struct slice line = {text->ptr, end != NULL ? (size_t)(end - text->ptr) : text->len};
    size_t used = line.len + (end != NULL ? 1 : 0);
    *text = (struct slice){text->ptr + used, text->len - used};
    return line;
}

static void write_request(struct slice text, struct buf *out, struct shape *ret)
{
    struct slice line = take_line(&text);
    bool says_version = memmem(line.ptr, line.len, " HTTP/", 6) != NULL;
    buf_init(out, SIZE_MAX);
    *ret = (struct shape){.is_head = slice_starts(line, SLICE("HEAD "))};
    buf_add(out, line);
    buf_addf(out, "%s\r\nHost: h\r\n", says_version ? "" : " HTTP/1.1");
    while ((line = take_line(&text)).len > 0) {
        ret->upgrades =
            ret->upgrades ||
            slice_eq_nocase((struct slice){line.ptr, line.len < 8 ? 0 : 8}, SLICE("upgrade:"));
        buf_add(out, line);
        buf_adds(out, "\r\n");
    }
    if (!ret->upgrades)
        buf_adds(out, "Connection: close\r\n");
    if (!ret->upgrades && text.len > 0)
        buf_addf(out, "Content-Length: %zu\r\n", text.len);
    buf_adds(out, "\r\n");
    buf_add(out, text);
}

static struct slice take_request(struct slice *text)
{
    static const struct slice mark = {"%%\n", 3};
    const char *end = memmem(text->ptr, text->len, mark.ptr, mark.len);
    struct slice request = {text->ptr, end != NULL ? (size_t)(end - text->ptr) : text->len};
    size_t used = request.len + (end != NULL ? mark.len : 0);
    *text = (struct slice){text->ptr + used, text->len - used};
    return request;
}

/* False: it is a request. */
static bool put_in_store(struct world *w, struct slice text)
{
    static const struct slice word = {"STORE ", 6};
    char key[STORE_KEY_MAX + 1];
    struct ask ask = {.done = false};
    struct slice line = take_line(&text);
    if (!slice_starts(line, word))
        return false;
    line = (struct slice){line.ptr + word.len, line.len - word.len};
    if (!store_key_ok(line) || text.len == 0)
        return true;
    (void)snprintf(key, sizeof(key), "%.*s", SLICE_ARGS(line));
    ask_add_bytes(&ask, STORE_PUT, key, text);
    ask_start(&ask, w->room.s);
    ask_wait(&ask, &w->room.f);
    ask_done(&ask);
    return true;
}

static void request(struct world *w, struct slice text)
{
    struct client c = {.ended = false};
    struct shape shape;
    buf_init(&c.in, SIZE_MAX);
    write_request(text, &c.out, &shape);
    client_run(&c, w);
    check_answer(&c, &shape);
    buf_done(&c.in);
    buf_done(&c.out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world w;
    static bool begun;
    if (!begun) {
        log_set_output(open("/dev/null", O_WRONLY | O_CLOEXEC));
        (void)signal(SIGPIPE, SIG_IGN);
        begun = true;
    }
    if (size == 0)
        return 0;
    struct slice text = {(const char *)data + 1, size - 1};
    world_open(&w, data[0]);
    for (unsigned i = 0; i < REQUESTS_MAX && text.len > 0; i++) {
        struct slice part = take_request(&text);
        if (!put_in_store(&w, part))
            request(&w, part);
    }
    world_close(&w);
    return 0;
}
