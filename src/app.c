/* Start: store, supervisor, conversation with ComfyUI, tasks, routes, listener.
 *
 * Stop (SIGTERM, SIGINT, ComfyUI given up):
 *
 *     SERVING ─► DRAINING ─► ANSWERING ─► ENDING_COMFYUI ─► CLOSING ─► exit
 *
 * DRAINING: no new connections and tasks; those that are here may end, until shortly before
 * DRAIN_TIMEOUT; then they end as stopped. ANSWERING: the last answers leave. ENDING_COMFYUI: its
 * whole group goes. CLOSING: everything is freed in reverse order. A second signal ends it all at
 * once (ComfyUI's guard sees to its group); so does a stop that takes much longer than it may. */
#include "app.h"

#include "admit.h"
#include "api.h"
#include "app_settings.h"
#include "child_env.h"
#include "door.h"
#include "histogram.h"
#include "http_file.h"
#include "https.h"
#include "inputs.h"
#include "invocation.h"
#include "later.h"
#include "log.h"
#include "lookup.h"
#include "pause.h"
#include "process.h"
#include "proxy.h"
#include "router.h"
#include "task_tend.h"
#include "warmup.h"
#include "workflows.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <uv.h>

enum {
    APP_ANSWER_MS = 5000,       /* for answers that are on their way when the tasks have ended */
    APP_LAST_ANSWERS_MS = 1000, /* for those that are told without having been stored */
    APP_OVERDUE_MS = 20000,     /* beyond DRAIN_TIMEOUT */
    APP_STORE_MS = 5000,
};
/* app.h says what they mean. */
enum { OWN_DESCRIPTORS = 64 }; /* files of the store, connections to it and to ComfyUI */
enum { EXIT_GAVE_UP = 1, EXIT_CANNOT_LISTEN = 69, EXIT_SOFTWARE = 70, EXIT_CONFIG = 78 };

enum app_state { SERVING, DRAINING, ANSWERING, ENDING_COMFYUI, CLOSING };

struct app {
    const struct app_options *options;
    struct app_settings settings;
    uv_loop_t loop;
    struct later later;
    uv_check_t woken;
    uv_prepare_t flush;
    struct pause pause;
    uint64_t awake_at; /* uv_now() of when the loop last had something to do; 0: it just begins */
    struct histogram turns;
    uv_timer_t timer, overdue;
    uv_signal_t signals[2];
    bool reaping;

    struct store *store;
    struct supervisor *supervisor;
    struct comfy *comfy;
    struct https *https;
    struct inputs *inputs;
    struct task_hub *hub;
    struct door *door; /* NULL, or this is a front door: ComfyUI is elsewhere, and `supervisor` */
    struct http_files *files; /* and `comfy` are never started. Its /view */
    struct admit *admit;
    struct warmup *warmup;
    struct proxy *proxy;
    struct workflows *workflows;
    struct task_tend *tend; /* NULL on the platform: nothing runs between requests there */
    struct api api;
    struct budget bodies; /* of callers: request bodies and prompts */
    struct http_server *server;

    char **child_env;
    uint64_t child_descriptors; /* its soft limit of them */
    char instance[128];
    enum app_state state;
    int exit_code;
    bool server_drained, tasks_drained, signalled;
};

static const char *const app_is_stopping = "the service is stopping";

static void app_stop(struct app *a, int exit_code, const char *why);

/* --- who tells whom -------------------------------------------------------------------------- */

static void app_on_state(struct supervisor *s, enum supervisor_state now,
                         enum supervisor_state before)
{
    struct app *a = supervisor_ctx(s);
    log_info("comfyui", "%s, was %s", supervisor_state_name(now), supervisor_state_name(before));
    if (now == SUPERVISOR_READY) {
        inputs_forget(a->inputs);
        proxy_forget(a->proxy);
    }
    if (now == SUPERVISOR_READY && a->state < ENDING_COMFYUI)
        comfy_up(a->comfy);
    else
        comfy_down(a->comfy);
    task_hub_on_state(a->hub, now);
    if (now == SUPERVISOR_GAVE_UP)
        comfy_give_up(a->comfy, "ComfyUI exited too often and is not started any more");
    if (now == SUPERVISOR_GAVE_UP)
        app_stop(a, EXIT_GAVE_UP, "ComfyUI exited too often");
}

static void app_on_worker_dead(struct supervisor *s)
{
    supervisor_condemn(s, "ComfyUI's worker thread died: it would take prompts and never run them");
}

static void app_on_event(struct comfy *c, const struct event *e)
{
    struct app *a = comfy_ctx(c);
    task_hub_on_event(a->hub, e);
}

static void app_on_shown(void *ctx, const char *id)
{
    struct app *a = ctx;
    lookups_forget(a->api.lookups, id);
}

static void app_on_link(struct comfy *c, bool open)
{
    struct app *a = comfy_ctx(c);
    log_info("comfyui", open ? "open for prompts" : "not open for prompts");
    task_hub_on_link(a->hub, open);
}

/* Frozen, as between the requests of a function. ComfyUI was too: its socket is as good as it was.
 */
static void app_on_thawed(struct pause *p, uint64_t gap_ms)
{
    struct app *a = CONTAINER_OF(p, struct app, pause);
    log_info("app", "did not run for %llu ms", (unsigned long long)gap_ms);
    if (a->state >= CLOSING)
        return;
    comfy_thaw(a->comfy);
    if (a->door != NULL)
        door_thaw(a->door, gap_ms);
    store_thaw(a->store, gap_ms);
    task_hub_thaw(a->hub, gap_ms);
    lookups_thaw(a->api.lookups);
}

/* --- stop ------------------------------------------------------------------------------------ */

static void app_on_later_closed(struct later *l)
{
    (void)l; /* the loop has nothing left and ends */
}

static void app_close_rest(void *ctx)
{
    struct app *a = ctx;
    pause_close(&a->pause, NULL);
    uv_close((uv_handle_t *)&a->flush, NULL);
    uv_close((uv_handle_t *)&a->woken, NULL);
    uv_close((uv_handle_t *)&a->timer, NULL);
    uv_close((uv_handle_t *)&a->overdue, NULL);
    for (size_t i = 0; i < ARRAY_LEN(a->signals); i++)
        uv_close((uv_handle_t *)&a->signals[i], NULL);
    later_close(&a->later, app_on_later_closed);
}

static void app_on_supervisor_freed(void *ctx)
{
    struct app *a = ctx;
    if (a->reaping)
        process_reap_stop(app_close_rest, a);
    else
        app_close_rest(a);
}

static void app_on_lookups_freed(void *ctx)
{
    struct app *a = ctx;
    supervisor_free(a->supervisor, app_on_supervisor_freed, a);
}

static void app_on_store_closed(void *ctx)
{
    struct app *a = ctx;
    lookups_free(a->api.lookups, app_on_lookups_freed, a);
}

static void app_on_comfy_freed(void *ctx)
{
    struct app *a = ctx;
    store_close(a->store, APP_STORE_MS, app_on_store_closed, a);
}

static void app_on_https_freed(void *ctx)
{
    struct app *a = ctx;
    comfy_free(a->comfy, app_on_comfy_freed, a);
}

static void app_on_files_freed(void *ctx)
{
    struct app *a = ctx;
    inputs_free(a->inputs);
    https_free(a->https, app_on_https_freed, a);
}

static void app_on_door_freed(void *ctx)
{
    struct app *a = ctx;
    if (a->files != NULL)
        http_files_free(a->files, app_on_files_freed, a);
    else
        app_on_files_freed(a);
}

static void app_on_hub_freed(void *ctx)
{
    struct app *a = ctx;
    if (a->door != NULL)
        door_free(a->door, app_on_door_freed, a);
    else
        app_on_door_freed(a);
}

static void app_on_tend_freed(void *ctx)
{
    struct app *a = ctx;
    if (a->door != NULL)
        door_stop(a->door);
    task_hub_free(a->hub, app_on_hub_freed, a);
}

static void app_on_proxy_freed(void *ctx)
{
    struct app *a = ctx;
    warmup_free(a->warmup);
    if (a->tend != NULL)
        task_tend_free(a->tend, app_on_tend_freed, a);
    else
        app_on_tend_freed(a);
}

static void app_on_workflows_freed(void *ctx)
{
    struct app *a = ctx;
    proxy_free(a->proxy, app_on_proxy_freed, a);
}

static void app_on_server_closed(void *ctx)
{
    struct app *a = ctx;
    workflows_free(a->workflows, app_on_workflows_freed, a);
}

static void app_close(struct app *a)
{
    a->state = CLOSING;
    http_server_close(a->server, app_on_server_closed, a);
}

static bool comfyui_is_gone(const struct app *a)
{
    enum supervisor_state s = supervisor_state(a->supervisor);
    return s == SUPERVISOR_STOPPED || s == SUPERVISOR_GAVE_UP;
}

/* Asked for again whenever something has changed. */
static void app_end_comfyui(struct app *a)
{
    if (a->state == ANSWERING) {
        (void)uv_timer_stop(&a->timer);
        a->state = ENDING_COMFYUI;
        comfy_down(a->comfy);
        comfy_give_up(a->comfy, app_is_stopping);
        supervisor_stop(a->supervisor);
    }
    if (a->state == ENDING_COMFYUI && comfyui_is_gone(a))
        app_close(a);
}

static void app_on_stopping_state(struct supervisor *s, enum supervisor_state now,
                                  enum supervisor_state before)
{
    struct app *a = supervisor_ctx(s);
    app_on_state(s, now, before);
    app_end_comfyui(a);
}

static void app_on_last_answers_over(uv_timer_t *timer)
{
    app_end_comfyui(timer->data);
}

static void app_on_answer_time_up(uv_timer_t *timer)
{
    struct app *a = timer->data;
    api_stopped(&a->api);
    if (task_hub_tell_ends(a->hub) > 0)
        ASSERT(uv_timer_start(&a->timer, app_on_last_answers_over, APP_LAST_ANSWERS_MS, 0) == 0);
    else
        app_end_comfyui(a);
}

/* An end that is on its way to the store is waited for like an answer: a caller of an async run has
 * nothing but the store. */
static void app_end_if_answered(struct app *a)
{
    if (a->state == ANSWERING && a->server_drained && a->tasks_drained)
        app_end_comfyui(a);
}

static void app_answer(struct app *a)
{
    a->state = ANSWERING;
    comfy_give_up(a->comfy, app_is_stopping);
    ASSERT(uv_timer_start(&a->timer, app_on_answer_time_up, APP_ANSWER_MS, 0) == 0);
    app_end_if_answered(a);
}

static void app_on_server_drained(void *ctx)
{
    struct app *a = ctx;
    a->server_drained = true;
    app_end_if_answered(a);
}

static void app_on_tasks_drained(void *ctx)
{
    struct app *a = ctx;
    a->tasks_drained = true;
    api_stopped(&a->api);
    if (a->state == DRAINING)
        app_answer(a);
    else
        app_end_if_answered(a);
}

static void app_on_drain_time_up(uv_timer_t *timer)
{
    struct app *a = timer->data;
    log_warn("app", "tasks have not ended in time: they are ended as stopped");
    task_hub_end_all(a->hub);
    app_answer(a);
}

static void app_on_overdue(uv_timer_t *timer)
{
    (void)timer;
    log_error("app", "the stop takes too long: leaving");
    _exit(EXIT_SOFTWARE);
}

/* The tasks must have ended and been stored when DRAIN_TIMEOUT is over, so they are told before. */
static uint64_t app_drain_ms(const struct app *a)
{
    uint64_t all = a->options->config->drain_timeout_ms;
    uint64_t margin = all / 10 < 2000 ? all / 10 : 2000;
    return all - margin;
}

static void app_stop(struct app *a, int exit_code, const char *why)
{
    if (a->state != SERVING)
        return;
    log_info("app", "stopping: %s", why);
    a->state = DRAINING;
    a->exit_code = exit_code;
    uint64_t overdue = a->options->config->drain_timeout_ms + APP_OVERDUE_MS;
    ASSERT(uv_timer_start(&a->overdue, app_on_overdue, overdue, 0) == 0);
    ASSERT(uv_timer_start(&a->timer, app_on_drain_time_up, app_drain_ms(a), 0) == 0);
    http_server_drain(a->server, app_on_server_drained, a);
    task_hub_drain(a->hub, app_on_tasks_drained, a);
}

/* The platform's hook, which may be asked for again, and before or after SIGTERM. */
static void app_on_pre_stop(void *ctx, const char *why)
{
    struct app *a = ctx;
    app_stop(a, 0, why);
    if (a->tasks_drained || a->state > ANSWERING)
        api_stopped(&a->api);
}

static void app_on_signal(uv_signal_t *handle, int signum)
{
    struct app *a = handle->data;
    if (a->signalled) {
        log_warn("app", "signal %d again: leaving at once", signum);
        log_flush();
        _exit(128 + signum);
    }
    a->signalled = true;
    app_stop(a, 0, signum == SIGTERM ? "SIGTERM" : "SIGINT");
}

/* --- start ----------------------------------------------------------------------------------- */

/* The loop's time is still the one at which it was woken: of the last of several polls, if one has
 * brought as many events as libuv takes. Started behind `pause`, which sets that time, and so
 * called before it. (libuv can count what was slept, but asks the kernel twice for it: whenever the
 * loop goes to sleep.) */
static void app_on_woken(uv_check_t *handle)
{
    struct app *a = handle->data;
    a->awake_at = uv_now(&a->loop);
}

/* The loop is about to sleep: all that a turn has said leaves in one write, which belongs to it. A
 * turn is known to a millisecond or two. */
static void app_on_prepare(uv_prepare_t *handle)
{
    struct app *a = handle->data;
    log_flush();
    uint64_t now = uv_hrtime() / 1000000; /* uv_now() counts from the same moment */
    if (a->awake_at != 0)
        histogram_add(&a->turns, now > a->awake_at ? now - a->awake_at : 0);
}

static void app_init_handles(struct app *a)
{
    static const int signums[] = {SIGTERM, SIGINT};
    ASSERT(uv_loop_init(&a->loop) == 0);
    pause_start(&a->pause, &a->loop, PAUSE_LEAST_MS, app_on_thawed);
    a->woken.data = a->flush.data = a;
    later_init(&a->later, &a->loop);
    ASSERT(uv_check_init(&a->loop, &a->woken) == 0);
    ASSERT(uv_check_start(&a->woken, app_on_woken) == 0);
    ASSERT(uv_prepare_init(&a->loop, &a->flush) == 0);
    ASSERT(uv_prepare_start(&a->flush, app_on_prepare) == 0);
    ASSERT(uv_timer_init(&a->loop, &a->timer) == 0);
    ASSERT(uv_timer_init(&a->loop, &a->overdue) == 0);
    a->timer.data = a->overdue.data = a;
    for (size_t i = 0; i < ARRAY_LEN(signums); i++) {
        ASSERT(uv_signal_init(&a->loop, &a->signals[i]) == 0);
        a->signals[i].data = a;
        ASSERT(uv_signal_start(&a->signals[i], app_on_signal, signums[i]) == 0);
    }
}

static const char *app_getenv(const char *name)
{
    return getenv(name);
}

static void app_name_instance(struct app *a)
{
    char host[64] = "";
    const char *told = invocation_instance(app_getenv);
    (void)gethostname(host, sizeof(host) - 1);
    if (told != NULL)
        (void)snprintf(a->instance, sizeof(a->instance), "%s", told);
    else
        (void)snprintf(a->instance, sizeof(a->instance), "%s-%d", host, (int)getpid());
}

static unsigned app_port(const struct app *a)
{
    const struct config *cfg = a->options->config;
    if (a->options->port != 0)
        return a->options->port;
    return (unsigned)(cfg->fc_custom_listen_port != 0 ? cfg->fc_custom_listen_port
                                                      : cfg->fc_server_port);
}

static uint64_t app_initialize_ms(const struct config *cfg)
{
    uint64_t told = invocation_initialize_ms(app_getenv);
    return told != 0 ? told : cfg->initialize_timeout_ms;
}

/* Enough of them for MAX_CONNECTIONS, as far as we may (ulimit -Hn). Returns what ComfyUI keeps: a
 * program in it that calls select(), or closes all there could be, relies on the usual few. */
static uint64_t app_raise_descriptors(const struct config *cfg)
{
    struct rlimit limit;
    uint64_t wanted = 2 * cfg->max_connections + OWN_DESCRIPTORS;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    uint64_t before = limit.rlim_cur;
    if (before < wanted) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : (rlim_t)wanted;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
            log_warn("app", "more descriptors than %llu are not to be had: %s",
                     (unsigned long long)before, strerror(errno));
    }
    return before;
}

static void app_build(struct app *a)
{
    const struct config *cfg = a->options->config;
    struct supervisor_options sup = {SUPERVISOR_DEFAULTS};
    sup.argv = a->options->command;
    sup.env = a->child_env = child_env_new(environ, cfg->pass_credentials);
    sup.descriptors = a->child_descriptors;
    sup.host = a->settings.comfy_host;
    sup.port = a->settings.comfy_port;
    sup.startup_ms = cfg->startup_timeout_ms;
    sup.on_state = app_on_stopping_state;
    sup.on_worker_dead = app_on_worker_dead;
    sup.ctx = a;
    a->supervisor = supervisor_new(&a->loop, &a->later, &sup);

    if (a->door != NULL)
        a->files = http_files_new(&a->loop, &a->later, cfg->output_dir, cfg->input_dir);
    struct comfy_options talk = {.files = a->files,
                                 .host = a->settings.comfy_host,
                                 .port = a->settings.comfy_port,
                                 .startup_ms = cfg->startup_timeout_ms,
                                 .on_event = app_on_event,
                                 .on_link = app_on_link,
                                 .ctx = a};
    a->comfy = comfy_new(&a->loop, &a->later, &talk);

    struct https_options outside = {HTTPS_DEFAULTS, .allow = &a->settings.allow,
                                    .user_agent = "comfy-agent/" AGENT_VERSION};
    a->https = https_new(&a->loop, &a->later, &outside);
    bool keeps = a->door != NULL && cfg->input_dir[0] != '\0';
    struct inputs_options inputs = {.keep_dir = keeps ? cfg->input_dir : NULL,
                                    .comfy = a->comfy,
                                    .https = a->https,
                                    .bytes_max = cfg->input_max_bytes,
                                    .fetch_ms = cfg->input_timeout_ms};
    a->inputs = inputs_new(&a->loop, &a->later, &inputs);

    struct task_hub_options hub = {
        .caller = a->door != NULL ? door_caller(a->door) : NULL,
        .supervisor = a->supervisor,
        .comfy = a->comfy,
        .inputs = a->door == NULL || keeps ? a->inputs : NULL,
        .store = a->store,
        .max_concurrency = (unsigned)cfg->max_concurrency,
        .max_queue = (unsigned)cfg->max_queue,
        .max_attempts = (unsigned)cfg->max_attempts,
        .lease_ms = cfg->lease_timeout_ms,
        .folder_per_task = strcmp(cfg->output_folder, "task") == 0,
        .left_is_found = a->door == NULL && !invocation_on_platform(app_getenv, cfg->platform),
        .run_timeout_ms = cfg->run_timeout_ms,
        .stall_timeout_ms = cfg->stall_timeout_ms,
        .startup_timeout_ms = cfg->startup_timeout_ms,
        .instance = a->instance,
        .on_shown = app_on_shown,
        .ctx = a};
    a->hub = task_hub_new(&a->loop, &a->later, &hub);
}

static void app_build_door(struct app *a)
{
    const struct config *cfg = a->options->config;
    struct door_options door = {DOOR_DEFAULTS, .url = cfg->run_url, .key = a->settings.door_key,
                                .patience_ms = cfg->call_timeout_ms,
                                .user_agent = "comfy-agent/" AGENT_VERSION};
    a->door = door_new(&a->loop, &a->later, &door);
}

/* As many connections as descriptors allow: a proxied WebSocket takes two of them, and without any
 * left for ourselves a task could be taken that can be neither run nor stored. */
static unsigned app_connections_max(const struct config *cfg)
{
    struct rlimit limit;
    uint64_t wanted = cfg->max_connections;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return (unsigned)wanted;
    uint64_t own = limit.rlim_cur / 2 < OWN_DESCRIPTORS ? limit.rlim_cur / 2 : OWN_DESCRIPTORS;
    uint64_t room = (limit.rlim_cur - own) / 2;
    if (room == 0 || room >= wanted)
        return (unsigned)wanted;
    log_info("app", "MAX_CONNECTIONS: %llu, as there are only %llu descriptors (ulimit -Hn)",
             (unsigned long long)room, (unsigned long long)limit.rlim_cur);
    return (unsigned)room;
}

/* What callers see: gate, routes, listener. */
static void app_build_front(struct app *a)
{
    const struct config *cfg = a->options->config;
    bool on_platform = invocation_on_platform(app_getenv, cfg->platform);
    a->admit = admit_new(slice_of(cfg->api_key), slice_of(cfg->allow_origins), on_platform);
    a->warmup = warmup_new(&a->loop, a->hub, cfg->warmup_prompt);

    struct proxy_options proxy = {.host = a->settings.comfy_host,
                                  .port = a->settings.comfy_port,
                                  .allow = proxy_allow_of(cfg->proxy_allow)};
    a->proxy = proxy_new(&a->loop, &a->later, &proxy);
    a->workflows = workflows_new(&a->loop, cfg->workflows_dir);

    struct http_server_options listen = {HTTP_SERVER_DEFAULTS};
    listen.host = cfg->listen_host;
    listen.port = app_port(a);
    listen.connections_max = app_connections_max(cfg);
    listen.head_ms = cfg->head_timeout_ms;
    listen.body_ms = cfg->body_timeout_ms;
    listen.bodies = &a->bodies;
    listen.handler = router_handle;
    listen.over = router_over;
    listen.ctx = &a->api;
    a->server = http_server_new(&a->loop, &a->later, &listen);

    a->api = (struct api){.hub = a->hub,
                          .comfy = a->comfy,
                          .lookups = lookups_new(&a->loop, &a->later, a->store),
                          .store = a->store,
                          .supervisor = a->supervisor,
                          .loop = &a->loop,
                          .later = &a->later,
                          .admit = a->admit,
                          .proxy = a->proxy,
                          .workflows = a->workflows,
                          .on_platform = on_platform,
                          .door = a->door,
                          .files = a->files,
                          .input_dir = cfg->input_dir,
                          .server = a->server,
                          .body_max = cfg->body_max_bytes,
                          .bodies = &a->bodies,
                          .started_ms = clock_wall_ms(),
                          .loop_turns = &a->turns,
                          .warmup = a->warmup,
                          .initialize_ms = app_initialize_ms(cfg),
                          .stop = app_on_pre_stop,
                          .stop_ctx = a};
    list_init(&a->api.stops);
}

static void app_tend(struct app *a)
{
    const struct config *cfg = a->options->config;
    bool folders = strcmp(cfg->output_folder, "task") == 0 && cfg->output_dir[0] != '\0';
    struct task_tend_options options = {.hub = a->hub,
                                        .store = a->store,
                                        .keep_ms = cfg->task_keep_ms,
                                        .output_dir = folders ? cfg->output_dir : NULL,
                                        .stop_ms = TEND_STOP_MS};
    a->tend = task_tend_start(&a->loop, &options);
}

/* Nothing is built yet but, perhaps, the store. */
static void app_refuse(struct app *a, struct slice faults)
{
    while (faults.len > 0) {
        struct slice fault = slice_next(&faults, '\n');
        log_error("app", "%.*s", SLICE_ARGS(fault));
    }
    a->state = CLOSING;
    a->exit_code = EXIT_CONFIG;
    if (a->store != NULL)
        store_close(a->store, APP_STORE_MS, app_close_rest, a);
    else
        app_close_rest(a);
}

static void app_start(struct app *a)
{
    const struct config *cfg = a->options->config;
    struct err err;
    a->bodies.max = cfg->bodies_max_bytes;
    a->child_descriptors = app_raise_descriptors(cfg); /* which the rest reckons with */
    if (a->settings.is_door)
        app_build_door(a);
    app_build(a);
    app_build_front(a);
    if (http_server_start(a->server, &err) != ERR_OK) {
        log_error("app", "%s", err.msg);
        a->exit_code = err.code == ERR_INVALID ? EXIT_CONFIG : EXIT_CANNOT_LISTEN;
        app_close(a);
        return;
    }
    a->reaping = getpid() == 1;
    if (a->reaping)
        process_reap_start(&a->loop);
    if (!a->api.on_platform)
        app_tend(a);
    log_info("app", "listening on %s port %u", cfg->listen_host, http_server_port(a->server));
    if (a->api.on_platform)
        log_marker(INVOCATION_INITED);
    if (a->door == NULL)
        supervisor_start(a->supervisor);
}

int app_run(const struct app_options *options)
{
    struct app *a = xcalloc(1, sizeof(*a));
    struct buf *faults = options->faults;
    struct err err;
    a->options = options;
    app_settings_read(&a->settings, options, faults);
    app_name_instance(a);
    app_init_handles(a);
    if (store_open(&a->store, &a->loop, &a->later, options->config->store_url, &err) != ERR_OK)
        buf_addf(faults, "STORE_URL: %s\n", err.msg);
    if (faults->len > 0)
        app_refuse(a, buf_slice(faults));
    else
        app_start(a);
    (void)uv_run(&a->loop, UV_RUN_DEFAULT);
    int exit_code = a->exit_code;
    if (uv_loop_close(&a->loop) != 0)
        log_error("app", "something was left open");
    log_info("app", "stopped");
    log_flush();
    if (a->admit != NULL)
        admit_free(a->admit);
    free(a->child_env);
    app_settings_done(&a->settings);
    free(a);
    return exit_code;
}
