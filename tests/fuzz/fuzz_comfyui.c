/* A task at the hands of something that says it is ComfyUI. The first byte says how it is set up;
 * the rest are its answers and its news, "%%" on a line between them, each with its name on the
 * first line:
 *
 *     task                the prompt that is run, instead of the usual one
 *     prompt 200          the answer to a request for /prompt, /history, /queue, /view, …
 *     event, binary       a message of its socket; close: its end
 *
 * An answer is given to the first request that it fits, again when there is no other; the messages
 * in front of it go out before it, those behind it after it. PID stands for the prompt's id, the
 * status 0 for an answer that breaks off.
 *
 * Whatever it says, the task's record is one, what it shows of its nodes is JSON, a result that is
 * complete is JSON, and everything can be closed at the end. */
#include "http_server.h"
#include "https.h"
#include "inputs.h"
#include "log.h"
#include "loop_fixture.h"
#include "result.h"
#include "task_private.h"
#include "utf8.h"
#include "ws_handshake.h"
#include "ws_server.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PARTS_MAX = 64, IDLE_MS = 5, TURNS_MAX = 4000, OPEN_MS = 5000 };
enum { OWN_IDS = 1, WITH_RESULT = 2, CANCELS = 4 };

struct part {
    struct slice name, body;
    int status;
    bool used;
};

struct world {
    struct loop_fixture f;
    unsigned mode;
    struct http_server *server; /* ComfyUI's */
    struct ws_server *socket;
    struct part parts[PARTS_MAX];
    unsigned count;
    char prompt_id[TASK_PROMPT_ID_MAX + 1];
    uint64_t happened; /* requests and messages */

    struct store *store;
    struct supervisor *supervisor;
    struct comfy *comfy;
    struct https *https;
    struct inputs *inputs;
    struct task_hub *hub;
    struct task *task;
    struct task_watch watch;
    bool ended;
    struct result *result;
    struct buf whole;
    bool result_over;
};
static struct world w;

/* --- the script ------------------------------------------------------------------------------ */

static struct slice cut_at(struct slice *text, struct slice mark)
{
    const char *end = memmem(text->ptr, text->len, mark.ptr, mark.len);
    struct slice part = {text->ptr, end != NULL ? (size_t)(end - text->ptr) : text->len};
    size_t used = part.len + (end != NULL ? mark.len : 0);
    *text = (struct slice){text->ptr + used, text->len - used};
    return part;
}

static void script_read(struct slice text)
{
    w.count = 0;
    while (text.len > 0 && w.count < PARTS_MAX) {
        struct slice body = cut_at(&text, SLICE("%%\n"));
        struct slice status = cut_at(&body, SLICE("\n"));
        struct slice name = slice_next(&status, ' ');
        uint64_t number = 200;
        bool says = slice_to_u64(slice_trim(status), 599, &number);
        if (says && number != 0 && number < 200)
            number = 200;
        w.parts[w.count++] = (struct part){.name = name, .body = body, .status = (int)number};
    }
}

static bool is_message(const struct part *p)
{
    return slice_is(p->name, "event") || slice_is(p->name, "binary") || slice_is(p->name, "close");
}

static struct buf filled(struct slice text)
{
    struct buf out;
    bool more = true;
    buf_init(&out, SIZE_MAX);
    while (more) {
        size_t before = text.len;
        struct slice part = cut_at(&text, SLICE("PID"));
        more = part.len < before;
        buf_add(&out, part);
        if (more)
            buf_adds(&out, w.prompt_id);
    }
    return out;
}

static void send_message(struct part *p)
{
    struct buf text = filled(p->body);
    p->used = true;
    w.happened++;
    if (w.socket != NULL && slice_is(p->name, "event") && utf8_span(buf_slice(&text)) == text.len)
        (void)ws_server_send_text(w.socket, buf_slice(&text));
    if (w.socket != NULL && slice_is(p->name, "binary"))
        (void)ws_server_send_binary(w.socket, buf_slice(&text));
    if (w.socket != NULL && slice_is(p->name, "close")) {
        ws_server_close(w.socket, 1001, "");
        w.socket = NULL;
    }
    buf_done(&text);
}

/* --- ComfyUI --------------------------------------------------------------------------------- */

static void socket_on_text(struct ws_server *s, struct slice text)
{
    (void)s;
    (void)text;
}

static void socket_on_end(struct ws_server *s, unsigned code)
{
    (void)code;
    if (w.socket == s)
        w.socket = NULL;
}

static void accept_socket(struct http_req *req)
{
    struct ws_server_options options = {WS_SERVER_DEFAULTS, .on_text = socket_on_text,
                                        .on_binary = socket_on_text, .on_end = socket_on_end};
    const char *why;
    if (ws_handshake_judge(http_req_head(req), &why) != 0 || w.socket != NULL) {
        http_respond(req, 400, NULL, SLICE_EMPTY, NULL);
        return;
    }
    w.socket = ws_server_accept(req, &w.f.loop, NULL, &options);
    (void)ws_server_send_text(w.socket, SLICE("{\"type\":\"status\",\"data\":{\"sid\":\"s\"}}"));
}

static struct part *part_for(struct slice name)
{
    struct part *last = NULL;
    for (unsigned i = 0; i < w.count; i++) {
        if (!slice_eq(w.parts[i].name, name))
            continue;
        last = &w.parts[i];
        if (!last->used)
            break;
    }
    return last;
}

static void give(struct http_req *req, const struct part *p)
{
    struct buf body = filled(p->body);
    if (p->status == 0) {
        http_begin(req, 200, "application/json", (int64_t)body.len + 1, NULL);
        (void)http_write(req, buf_slice(&body));
        http_reset(req);
    } else {
        http_respond(req, p->status, slice_is(p->name, "view") ? "image/png" : "application/json",
                     buf_slice(&body), NULL);
    }
    buf_done(&body);
}

static void answer(struct http_req *req)
{
    struct slice path = http_req_path(req);
    struct slice rest = {path.ptr + 1, path.len - 1};
    struct part *p = part_for(cut_at(&rest, SLICE("/")));
    if (p == NULL) {
        http_respond(req, 404, NULL, SLICE_EMPTY, NULL);
        return;
    }
    for (unsigned i = 0; &w.parts[i] != p; i++)
        if (is_message(&w.parts[i]) && !w.parts[i].used)
            send_message(&w.parts[i]);
    p->used = true;
    give(req, p);
    for (p++; p < &w.parts[w.count] && is_message(p) && !p->used; p++)
        send_message(p);
}

static void on_body(struct http_req *req, const struct err *err, struct slice body)
{
    struct slice id;
    if (err == NULL && slice_is(http_req_path(req), "/prompt") &&
        json_check(body, &json_from_comfyui, NULL, NULL) == ERR_OK &&
        json_get(body, "prompt_id", &id))
        (void)snprintf(w.prompt_id, sizeof(w.prompt_id), "%.*s", (int)id.len - 2, id.ptr + 1);
    answer(req);
}

static void on_request(struct http_req *req, void *ctx)
{
    struct slice path = http_req_path(req);
    (void)ctx;
    w.happened++;
    if (slice_is(path, "/system_stats"))
        http_respond(req, 200, "application/json", SLICE("{\"system\":{}}"), NULL);
    else if (slice_is(path, "/features"))
        http_respond(req, (w.mode & OWN_IDS) != 0 ? 200 : 404, NULL, SLICE("{}"), NULL);
    else if (slice_is(path, "/ws"))
        accept_socket(req);
    else if (slice_is(http_req_method(req), "POST"))
        http_read_body(req, 1 << 20, on_body);
    else
        answer(req);
}

/* --- the program ----------------------------------------------------------------------------- */

static void on_state(struct supervisor *s, enum supervisor_state now, enum supervisor_state before)
{
    (void)s;
    (void)before;
    if (w.hub == NULL)
        return; /* nobody is told any more */
    if (now == SUPERVISOR_READY)
        comfy_up(w.comfy);
    else
        comfy_down(w.comfy);
    task_hub_on_state(w.hub, now);
}

static void on_event(struct comfy *c, const struct event *e)
{
    (void)c;
    if (w.hub != NULL)
        task_hub_on_event(w.hub, e);
}

static void on_link(struct comfy *c, bool open)
{
    (void)c;
    if (w.hub != NULL)
        task_hub_on_link(w.hub, open);
}

static void comfyui_open(void)
{
    struct http_server_options listen = {HTTP_SERVER_DEFAULTS};
    listen.host = "127.0.0.1";
    listen.handler = on_request;
    w.server = http_server_new(&w.f.loop, &w.f.later, &listen);
    ASSERT(http_server_start(w.server, NULL) == ERR_OK);
}

static void program_open(void)
{
    struct supervisor_options sup = {SUPERVISOR_DEFAULTS, .on_state = on_state};
    struct https_options outside = {HTTPS_DEFAULTS};
    sup.host = "127.0.0.1";
    sup.port = http_server_port(w.server);
    sup.probe_ms = 1;
    ASSERT(store_open(&w.store, &w.f.loop, &w.f.later, "mem:", NULL) == ERR_OK);
    w.supervisor = supervisor_new(&w.f.loop, &w.f.later, &sup);
    struct comfy_options talk = {
        .host = sup.host, .port = sup.port, .on_event = on_event, .on_link = on_link};
    w.comfy = comfy_new(&w.f.loop, &w.f.later, &talk);
    w.https = https_new(&w.f.loop, &w.f.later, &outside);
    struct inputs_options files = {
        .comfy = w.comfy, .https = w.https, .bytes_max = 1 << 16, .fetch_ms = 1000};
    w.inputs = inputs_new(&w.f.loop, &w.f.later, &files);
    struct task_hub_options options = {.supervisor = w.supervisor,
                                       .comfy = w.comfy,
                                       .inputs = w.inputs,
                                       .store = w.store,
                                       .folder_per_task = true,
                                       .max_concurrency = 1,
                                       .max_queue = 4,
                                       .max_attempts = 2,
                                       .lease_ms = 60000,
                                       .run_timeout_ms = 60000,
                                       .stall_timeout_ms = 60000,
                                       .startup_timeout_ms = 60000,
                                       .instance = "here"};
    w.hub = task_hub_new(&w.f.loop, &w.f.later, &options);
    supervisor_start(w.supervisor);
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static void wait_for(bool *closed, const char *what)
{
    loop_run_until(&w.f, closed, what);
    *closed = false;
}

static void world_close(void)
{
    bool closed = false;
    task_hub_end_all(w.hub);
    for (struct task_hub_stats left = task_hub_stats(w.hub); left.waiting + left.active > 0;
         left = task_hub_stats(w.hub)) /* a thread may be at an input of it */
        (void)uv_run(&w.f.loop, UV_RUN_ONCE);
    task_hub_free(w.hub, on_closed, &closed);
    wait_for(&closed, "the end of the hub");
    w.hub = NULL;
    inputs_free(w.inputs);
    https_free(w.https, on_closed, &closed);
    wait_for(&closed, "the end of what is outside");
    comfy_free(w.comfy, on_closed, &closed);
    wait_for(&closed, "the end of the conversation");
    store_close(w.store, 1000, on_closed, &closed);
    wait_for(&closed, "the end of the store");
    supervisor_stop(w.supervisor);
    while (supervisor_state(w.supervisor) != SUPERVISOR_STOPPED)
        (void)uv_run(&w.f.loop, UV_RUN_NOWAIT);
    supervisor_free(w.supervisor, on_closed, &closed);
    wait_for(&closed, "the end of the supervisor");
    http_server_close(w.server, on_closed, &closed);
    wait_for(&closed, "the end of ComfyUI");
    loop_fixture_close(&w.f);
}

/* --- the task -------------------------------------------------------------------------------- */

static void on_change(struct task_watch *watch)
{
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX};
    w.happened++;
    ASSERT(json_check(blob_slice(task_nodes(watch->task)), &limits, NULL, NULL) == ERR_OK);
}

static void on_end(struct task_watch *watch)
{
    (void)watch;
    w.ended = true;
}

static bool task_open(void)
{
    static const char usual[] =
        "{\"3\":{\"class_type\":\"KSampler\",\"inputs\":{\"seed\":-1}},"
        "\"9\":{\"class_type\":\"SaveImage\",\"inputs\":{\"filename_prefix\":\"a\"}}}";
    struct part *own = part_for(SLICE("task"));
    struct task_spec spec = {.id = "t-1", .given = true, .request_id = ""};
    struct prompt prompt;
    struct prompt_fault fault;
    struct buf body;
    bool joined;
    buf_init(&body, SIZE_MAX);
    buf_add(&body, own != NULL ? own->body : slice_of(usual));
    spec.take_prompt = &prompt;
    bool ok = prompt_parse(&prompt, &body, &fault) == ERR_OK &&
              task_hub_create(w.hub, &spec, &w.task, &joined, NULL) == ERR_OK;
    if (!ok) {
        prompt_done(&prompt);
        return false;
    }
    w.watch = (struct task_watch){.on_change = on_change, .on_end = on_end};
    task_watch_start(&w.watch, w.task);
    return true;
}

static void on_tick(uv_timer_t *timer)
{
    unsigned *idle = timer->data;
    (*idle)++;
}

/* Until nothing happens any more: inputs are read by threads. */
static void run_until_idle(const bool *flag)
{
    uv_timer_t tick;
    unsigned idle = 0;
    uint64_t seen = 0;
    ASSERT(uv_timer_init(&w.f.loop, &tick) == 0);
    tick.data = &idle;
    ASSERT(uv_timer_start(&tick, on_tick, 1, 1) == 0);
    for (unsigned turns = 0; !*flag && idle < IDLE_MS && turns < TURNS_MAX; turns++) {
        (void)uv_run(&w.f.loop, UV_RUN_ONCE);
        idle = w.happened == seen ? idle : 0;
        seen = w.happened;
    }
    uv_close((uv_handle_t *)&tick, NULL);
    (void)uv_run(&w.f.loop, UV_RUN_NOWAIT); /* the timer's memory ends with this function */
}

static void result_on_begin(void *ctx)
{
    (void)ctx;
}

static bool result_on_write(void *ctx, struct slice part)
{
    (void)ctx;
    w.happened++;
    buf_add(&w.whole, part);
    return true;
}

static void result_on_end(void *ctx, const struct err *err)
{
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX};
    (void)ctx;
    w.result = NULL;
    w.result_over = true;
    if (err == NULL)
        ASSERT(json_check(buf_slice(&w.whole), &limits, NULL, NULL) == ERR_OK);
}

static void check_result(void)
{
    struct result_sink sink = {result_on_begin, result_on_write, result_on_end, NULL};
    buf_init(&w.whole, SIZE_MAX);
    w.result = result_start(w.task, w.comfy, &w.f.later, &sink, 0);
    run_until_idle(&w.result_over);
    if (w.result != NULL)
        result_cancel(w.result);
    buf_done(&w.whole);
}

static void check_task(void)
{
    struct record r;
    if (task_refused(w.task) != NULL)
        return;
    ASSERT(record_parse(&r, blob_slice(task_record(w.task)), NULL) == ERR_OK);
    ASSERT(r.status == task_status(w.task) && slice_is(r.id, "t-1"));
    if (!w.ended)
        return;
    ASSERT(task_status_is_end(r.status) && (task_failure(w.task) != NULL) == (r.error.len > 0));
    if (r.status == TASK_SUCCEEDED && (w.mode & WITH_RESULT) != 0)
        check_result();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool begun;
    if (!begun) {
        log_set_output(open("/dev/null", O_WRONLY | O_CLOEXEC));
        (void)signal(SIGPIPE, SIG_IGN);
        begun = true;
    }
    if (size == 0)
        return 0;
    w = (struct world){.mode = data[0], .prompt_id = "p"};
    script_read((struct slice){(const char *)data + 1, size - 1});
    loop_fixture_open(&w.f);
    comfyui_open();
    program_open();
    uint64_t until = clock_mono_ms() + OPEN_MS;
    while (!comfy_is_open(w.comfy) && clock_mono_ms() < until)
        (void)uv_run(&w.f.loop, UV_RUN_ONCE);
    if (task_open()) {
        run_until_idle(&w.ended);
        if (!w.ended && (w.mode & CANCELS) != 0) {
            task_cancel(w.task, "enough");
            run_until_idle(&w.ended);
        }
        check_task();
        task_watch_stop(&w.watch);
        task_unref(w.task);
    }
    world_close();
    return 0;
}
