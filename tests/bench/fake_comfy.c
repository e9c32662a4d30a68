/* A ComfyUI that takes no time: what stands behind everything that ./dev bench measures. It tells
 * of a run at once, in ComfyUI's order, as fast as the socket takes it; what is measured is then
 * who asks.
 *
 * Nodes run in the order in which the prompt has them. KSampler tells its `steps`. SaveImage has
 * one picture of as many bytes as its filename_prefix says: bench_<bytes>. Hold never ends. Not
 * told is progress_state, whose traffic grows with the square of the number of nodes.
 *
 *     fake_comfy [PORT [BOOT_MS]]
 *
 * Listens when BOOT_MS have passed (none unless given), on a port of the kernel's unless one is
 * given. GET /times tells its process, when it began and when it listened. Prints its port, and
 * dies with whoever started it. */
#include "codec.h"
#include "json_scan.h"
#include "later.h"
#include "log.h"
#include "ws_handshake.h"
#include "ws_server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

enum {
    ID_MAX = 63,
    OUTPUTS_MAX = 256,
    ENDED_MAX = 512,          /* runs that the history has */
    PROMPT_MAX = 64 << 20,    /* bytes */
    PART_BYTES = 64 * 1024,   /* of a picture */
    PING_MS = 60 * 60 * 1000, /* who measures does not want to be disturbed */
};

enum run_state { RUN_QUEUED, RUN_STARTED, RUN_NODE, RUN_STEP, RUN_IMAGE, RUN_SUCCESS, RUN_OVER };

struct run {
    struct list_node link;
    struct buf body; /* of the POST; the slices and the iterator look into it */
    char prompt_id[ID_MAX + 1];
    struct json_iter nodes;
    struct slice node; /* its id, a token */
    int64_t step, steps;
    struct slice prefix; /* a token */
    char outputs[OUTPUTS_MAX];
    enum run_state state;
    bool holds;
};

/* A client is a WebSocket. Its runs are taken one after the other. */
struct client {
    struct list_node link;
    struct ws_server *ws;
    char id[ID_MAX + 1];
    struct list_node runs;
};

struct ended {
    char prompt_id[ID_MAX + 1];
    char outputs[OUTPUTS_MAX];
};

static struct {
    uv_loop_t loop;
    struct later later;
    struct list_node clients;
    struct ended ended[ENDED_MAX];
    unsigned ended_count;
    struct buf text; /* of the message or the answer that is being made */
    uint64_t began_ns, listened_ns;
    char picture[PART_BYTES];
} f;

static void copy_id(char ret[ID_MAX + 1], struct slice id)
{
    slice_copy(id, ret, ID_MAX + 1);
}

static void answer_json(struct http_req *req, int status)
{
    http_respond(req, status, "application/json; charset=utf-8", buf_slice(&f.text), NULL);
}

/* --- a run ----------------------------------------------------------------------------------- */

static void run_free(struct run *r)
{
    list_remove(&r->link);
    buf_done(&r->body);
    free(r);
}

/* A string token without its quotes. */
static struct slice bare(struct slice token)
{
    return token.len >= 2 ? (struct slice){token.ptr + 1, token.len - 2} : SLICE_EMPTY;
}

static void event_begin(const char *type)
{
    buf_reset(&f.text);
    buf_addf(&f.text, "{\"type\": \"%s\", \"data\": {", type);
}

/* The members that most events end with. */
static void event_end(const struct run *r)
{
    buf_addf(&f.text, "\"prompt_id\": \"%s\"}}", r->prompt_id);
}

static void event_end_with_time(const struct run *r)
{
    buf_addf(&f.text, "\"prompt_id\": \"%s\", \"timestamp\": %llu}}", r->prompt_id,
             (unsigned long long)clock_wall_ms());
}

static void tell_node(struct run *r, struct slice id, struct slice node)
{
    struct slice type = SLICE_EMPTY, inputs = SLICE_EMPTY, steps;
    (void)json_get(node, "class_type", &type);
    (void)json_get(node, "inputs", &inputs);
    r->node = id;
    r->step = r->steps = 0;
    if (slice_is(type, "\"KSampler\"") && json_get(inputs, "steps", &steps) &&
        json_to_i64(steps, &r->steps) && r->steps > 0)
        r->state = RUN_STEP;
    else if (slice_is(type, "\"SaveImage\"") && json_get(inputs, "filename_prefix", &r->prefix))
        r->state = RUN_IMAGE;
    r->holds = slice_is(type, "\"Hold\"");
    event_begin("executing");
    buf_addf(&f.text, "\"node\": %.*s, \"display_node\": %.*s, ", SLICE_ARGS(id), SLICE_ARGS(id));
    event_end(r);
}

static void tell_step(struct run *r)
{
    r->step++;
    if (r->step == r->steps)
        r->state = RUN_NODE;
    event_begin("progress");
    buf_addf(&f.text, "\"value\": %lld, \"max\": %lld, ", (long long)r->step, (long long)r->steps);
    buf_addf(&f.text, "\"prompt_id\": \"%s\", \"node\": %.*s}}", r->prompt_id, SLICE_ARGS(r->node));
}

static void tell_image(struct run *r)
{
    struct slice prefix = bare(r->prefix);
    int at = snprintf(r->outputs, OUTPUTS_MAX, "%.*s: ", SLICE_ARGS(r->node));
    ASSERT(at + (int)prefix.len < OUTPUTS_MAX - 100);
    (void)snprintf(r->outputs + at, (size_t)(OUTPUTS_MAX - at),
                   "{\"images\": [{\"filename\": \"%.*s_00001_.png\", \"subfolder\": \"\", "
                   "\"type\": \"output\"}]}",
                   SLICE_ARGS(prefix));
    r->state = RUN_NODE;
    event_begin("executed");
    buf_addf(&f.text, "\"node\": %.*s, \"display_node\": %.*s, \"output\": %s, ",
             SLICE_ARGS(r->node), SLICE_ARGS(r->node), r->outputs + at);
    event_end(r);
}

/* From here on the history has it. */
static void tell_success(struct run *r)
{
    struct ended *e = &f.ended[f.ended_count++ % ENDED_MAX];
    copy_id(e->prompt_id, slice_of(r->prompt_id));
    memcpy(e->outputs, r->outputs, OUTPUTS_MAX);
    r->state = RUN_SUCCESS;
    event_begin("execution_success");
    event_end_with_time(r);
}

/* Its next event, in f.text. */
static void run_tell(struct run *r)
{
    struct slice id, node;
    switch (r->state) {
    case RUN_QUEUED:
        r->state = RUN_STARTED;
        event_begin("execution_start");
        event_end_with_time(r);
        break;
    case RUN_STARTED:
        r->state = RUN_NODE;
        event_begin("execution_cached");
        buf_adds(&f.text, "\"nodes\": [], ");
        event_end_with_time(r);
        break;
    case RUN_NODE:
        if (json_next(&r->nodes, &id, &node))
            tell_node(r, id, node);
        else
            tell_success(r);
        break;
    case RUN_STEP: tell_step(r); break;
    case RUN_IMAGE: tell_image(r); break;
    default:
        r->state = RUN_OVER;
        event_begin("executing");
        buf_adds(&f.text, "\"node\": null, ");
        event_end(r);
    }
}

/* The one whose turn it is; one that holds lets others pass. NULL: none. */
static struct run *client_run(struct client *c)
{
    LIST_FOREACH (node, &c->runs) {
        struct run *r = CONTAINER_OF(node, struct run, link);
        if (!r->holds)
            return r;
    }
    return NULL;
}

static void client_pump(struct client *c)
{
    struct run *r;
    bool has_room = true;
    while (has_room && (r = client_run(c)) != NULL) {
        run_tell(r);
        has_room = ws_server_send_text(c->ws, buf_slice(&f.text));
        if (r->state == RUN_OVER)
            run_free(r);
    }
}

/* --- POST /prompt ---------------------------------------------------------------------------- */

static struct client *client_of(struct slice token)
{
    LIST_FOREACH (node, &f.clients) {
        struct client *c = CONTAINER_OF(node, struct client, link);
        if (slice_is(bare(token), c->id))
            return c;
    }
    return NULL;
}

static void on_prompt(struct http_req *req, const struct err *err, struct slice body)
{
    static const char *const names[] = {"prompt", "client_id", "prompt_id"};
    struct slice found[ARRAY_LEN(names)];
    struct run *r = xcalloc(1, sizeof(*r));
    list_init(&r->link);
    if (err == NULL) {
        http_take_body(req, &r->body);
        body = buf_slice(&r->body);
    }
    buf_reset(&f.text);
    if (err != NULL || json_check(body, &json_from_comfyui, NULL, NULL) != ERR_OK ||
        json_kind(json_trim(body)) != JSON_OBJECT) {
        buf_adds(&f.text, "{\"error\": \"no prompt\", \"node_errors\": {}}");
        answer_json(req, 400);
        run_free(r);
        return;
    }
    json_pick(json_trim(body), names, found, ARRAY_LEN(names));
    struct client *c = client_of(found[1]);
    if (found[2].len > 0)
        copy_id(r->prompt_id, bare(found[2]));
    else
        uuid_v4(r->prompt_id);
    buf_addf(&f.text, "{\"prompt_id\": \"%s\", \"number\": 1, \"node_errors\": {}}", r->prompt_id);
    answer_json(req, 200);
    if (found[0].len == 0 || json_kind(found[0]) != JSON_OBJECT || c == NULL) {
        run_free(r); /* nobody would hear of it */
        return;
    }
    json_iter_init(&r->nodes, found[0]);
    list_add(&c->runs, &r->link);
    client_pump(c);
}

static void answer_prompt(struct http_req *req)
{
    http_read_body(req, PROMPT_MAX, on_prompt);
}

/* --- GET /view ------------------------------------------------------------------------------- */

struct view {
    size_t left;
};

static void view_on_abort(struct http_req *req)
{
    free(http_req_data(req));
}

static void view_pump(struct http_req *req)
{
    struct view *v = http_req_data(req);
    bool has_room = true;
    while (has_room && v->left > 0) {
        size_t n = v->left < PART_BYTES ? v->left : PART_BYTES;
        v->left -= n;
        has_room = http_write(req, (struct slice){f.picture, n});
    }
    if (!has_room)
        return; /* the drain follows, or the abort */
    free(v);
    http_end(req);
}

/* "bench_1024_00001_.png" → 1024 */
static bool picture_size(struct http_req *req, uint64_t *ret)
{
    struct buf name;
    buf_init(&name, 256);
    bool ok = http_query_get(http_req_query(req), "filename", &name) == ERR_OK;
    struct slice rest = buf_slice(&name);
    ok = ok && slice_is(slice_next(&rest, '_'), "bench") &&
         slice_to_u64(slice_next(&rest, '_'), UINT32_MAX, ret);
    buf_done(&name);
    return ok;
}

/* "bytes=0-16383", the only kind that is asked for here. */
static bool asks_for_beginning(struct http_req *req, uint64_t size, uint64_t *ret_len)
{
    struct slice range;
    struct slice unit = SLICE("bytes=0-");
    if (!http_headers_get(http_req_headers(req), "range", &range) || !slice_starts(range, unit))
        return false;
    range = (struct slice){range.ptr + unit.len, range.len - unit.len};
    if (!slice_to_u64(range, PART_BYTES - 1, ret_len))
        return false;
    *ret_len = *ret_len < size ? *ret_len + 1 : size;
    return true;
}

static void answer_beginning(struct http_req *req, uint64_t size, uint64_t len)
{
    struct http_headers headers;
    char text[64];
    http_headers_init(&headers);
    (void)snprintf(text, sizeof(text), "bytes 0-%llu/%llu", (unsigned long long)(len - 1),
                   (unsigned long long)size);
    ASSERT(http_headers_add(&headers, SLICE("content-range"), slice_of(text)) == ERR_OK);
    http_respond(req, 206, "image/png", (struct slice){f.picture, len}, &headers);
    http_headers_done(&headers);
}

static void answer_view(struct http_req *req)
{
    uint64_t size, len;
    if (!picture_size(req, &size)) {
        http_respond(req, 404, "text/plain", SLICE("404: Not Found"), NULL);
    } else if (asks_for_beginning(req, size, &len)) {
        answer_beginning(req, size, len);
    } else if (size <= PART_BYTES) {
        http_respond(req, 200, "image/png", (struct slice){f.picture, size}, NULL);
    } else {
        struct view *v = xcalloc(1, sizeof(*v));
        v->left = size;
        http_req_set_data(req, v);
        http_on_abort(req, view_on_abort);
        http_on_drain(req, view_pump);
        http_begin(req, 200, "image/png", (int64_t)size, NULL);
        view_pump(req);
    }
}

/* --- what else is asked ---------------------------------------------------------------------- */

static void on_upload_part(struct http_req *req, struct slice part)
{
    (void)req;
    (void)part;
}

static void on_upload_end(struct http_req *req, const struct err *err)
{
    buf_reset(&f.text);
    buf_adds(&f.text, "{\"name\": \"upload.png\", \"subfolder\": \"\", \"type\": \"input\"}");
    answer_json(req, err == NULL ? 200 : 400);
}

static void answer_upload(struct http_req *req)
{
    static const struct http_body_events events = {on_upload_part, on_upload_end};
    http_stream_body(req, &events);
}

static void answer_nothing(struct http_req *req)
{
    buf_reset(&f.text);
    buf_adds(&f.text, "{}");
    answer_json(req, 200);
}

static void answer_stats(struct http_req *req)
{
    buf_reset(&f.text);
    buf_adds(&f.text, "{\"system\": {\"os\": \"linux\", \"ram_total\": 8589934592, "
                      "\"comfyui_version\": \"0.33.0\", \"python_version\": \"3.13.5\", "
                      "\"pytorch_version\": \"2.6.0\", \"embedded_python\": false, \"argv\": []}, "
                      "\"devices\": [{\"name\": \"none\", \"type\": \"cpu\", \"index\": null, "
                      "\"vram_total\": 8589934592, \"vram_free\": 8589934592}]}");
    answer_json(req, 200);
}

/* By CLOCK_MONOTONIC, which who measures reads as well. */
static void answer_times(struct http_req *req)
{
    buf_reset(&f.text);
    buf_addf(&f.text, "{\"pid\": %d, \"began_ns\": %llu, \"listened_ns\": %llu}", (int)getpid(),
             (unsigned long long)f.began_ns, (unsigned long long)f.listened_ns);
    answer_json(req, 200);
}

static void answer_queue(struct http_req *req)
{
    const char *comma = "";
    buf_reset(&f.text);
    buf_adds(&f.text, "{\"queue_running\": [");
    LIST_FOREACH (client, &f.clients) {
        LIST_FOREACH (run, &CONTAINER_OF(client, struct client, link)->runs) {
            buf_addf(&f.text, "%s[1, \"%s\", {}, {}, []]", comma,
                     CONTAINER_OF(run, struct run, link)->prompt_id);
            comma = ", ";
        }
    }
    buf_adds(&f.text, "], \"queue_pending\": []}");
    answer_json(req, 200);
}

static void answer_history(struct http_req *req)
{
    struct slice path = http_req_path(req);
    struct slice id = {path.ptr + strlen("/history/"), path.len - strlen("/history/")};
    buf_reset(&f.text);
    buf_adds(&f.text, "{");
    for (unsigned i = 0; i < ENDED_MAX && id.len > 0; i++)
        if (slice_is(id, f.ended[i].prompt_id))
            buf_addf(&f.text,
                     "\"%s\": {\"prompt\": [], \"outputs\": {%s}, \"status\": {\"status_str\": "
                     "\"success\", \"completed\": true, \"messages\": []}, \"meta\": {}}",
                     f.ended[i].prompt_id, f.ended[i].outputs);
    buf_adds(&f.text, "}");
    answer_json(req, 200);
}

/* A node class of which nothing is known, and no input is an upload. */
static void answer_class(struct http_req *req)
{
    struct slice path = http_req_path(req);
    buf_reset(&f.text);
    buf_addf(&f.text, "{\"%.*s\": {\"input\": {\"required\": {}}}}",
             (int)(path.len - strlen("/object_info/")), path.ptr + strlen("/object_info/"));
    answer_json(req, 200);
}

/* --- the WebSocket --------------------------------------------------------------------------- */

static void on_message(struct ws_server *ws, struct slice message)
{
    (void)ws;
    (void)message;
}

static void on_drain(struct ws_server *ws)
{
    client_pump(ws_server_ctx(ws));
}

static void on_end(struct ws_server *ws, unsigned code)
{
    struct client *c = ws_server_ctx(ws);
    (void)code;
    while (!list_is_empty(&c->runs))
        run_free(CONTAINER_OF(c->runs.next, struct run, link));
    list_remove(&c->link);
    free(c);
}

static void answer_ws(struct http_req *req)
{
    const char *why;
    struct buf id;
    int refused = ws_handshake_judge(http_req_head(req), &why);
    if (refused != 0) {
        http_respond(req, refused, "text/plain", slice_of(why), NULL);
        return;
    }
    struct client *c = xcalloc(1, sizeof(*c));
    buf_init(&id, ID_MAX + 1);
    if (http_query_get(http_req_query(req), "clientId", &id) == ERR_OK)
        copy_id(c->id, buf_slice(&id));
    buf_done(&id);
    list_init(&c->runs);
    list_add(&f.clients, &c->link);
    struct ws_server_options options = {WS_SERVER_DEFAULTS,      .on_text = on_message,
                                        .on_binary = on_message, .on_drain = on_drain,
                                        .on_end = on_end,        .ctx = c};
    options.ping_ms = PING_MS;
    c->ws = ws_server_accept(req, &f.loop, NULL, &options);
    event_begin("status");
    buf_addf(&f.text, "\"status\": {\"exec_info\": {\"queue_remaining\": 0}}, \"sid\": \"%s\"}}",
             c->id);
    (void)ws_server_send_text(c->ws, buf_slice(&f.text));
}

/* --- all together ---------------------------------------------------------------------------- */

static void on_request(struct http_req *req, void *ctx)
{
    static const struct {
        const char *path; /* with a slash at its end: what begins with it */
        void (*answer)(struct http_req *req);
    } routes[] = {
        {"/ws", answer_ws},
        {"/prompt", answer_prompt},
        {"/view", answer_view},
        {"/upload/image", answer_upload},
        {"/system_stats", answer_stats},
        {"/times", answer_times},
        {"/queue", answer_queue},
        {"/history/", answer_history},
        {"/object_info/", answer_class},
        {"/object_info", answer_nothing},
        {"/features", answer_nothing},
        {"/interrupt", answer_nothing},
        {"/free", answer_nothing},
    };
    struct slice path = http_req_path(req);
    (void)ctx;
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        struct slice route = slice_of(routes[i].path);
        bool is_prefix = route.ptr[route.len - 1] == '/';
        if (is_prefix ? slice_starts(path, route) : slice_eq(path, route)) {
            routes[i].answer(req);
            return;
        }
    }
    http_respond(req, 404, "text/plain", SLICE("404: Not Found"), NULL);
}

int main(int argc, char **argv)
{
    struct http_server_options options = {HTTP_SERVER_DEFAULTS};
    struct err err;
    f.began_ns = uv_hrtime();
    if (argc > 1)
        options.port = (unsigned)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        uv_sleep((unsigned)strtoul(argv[2], NULL, 10));
    options.host = "127.0.0.1";
    options.handler = on_request;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGPIPE, SIG_IGN);
    list_init(&f.clients);
    buf_init(&f.text, SIZE_MAX);
    for (size_t i = 0; i < sizeof(f.picture); i++)
        f.picture[i] = (char)(i * 31 + i / 256);
    ASSERT(uv_loop_init(&f.loop) == 0);
    later_init(&f.later, &f.loop);
    struct http_server *server = http_server_new(&f.loop, &f.later, &options);
    ASSERT(http_server_start(server, &err) == ERR_OK);
    f.listened_ns = uv_hrtime();
    (void)printf("%u\n", http_server_port(server));
    (void)fflush(stdout);
    return uv_run(&f.loop, UV_RUN_DEFAULT);
}
