/* GET /metrics, in Prometheus's text format: what happened to tasks, how ComfyUI, the store and
 * this process are. Names begin with comfy_agent_; times are in seconds. */
#include "answer.h"
#include "api.h"
#include "door.h"

#include <sys/resource.h>

static void add_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_addf(out, "# HELP comfy_agent_%s %s\n# TYPE comfy_agent_%s %s\n", name, help, name, type);
}

static void add_number(struct buf *out, const char *name, const char *type, const char *help,
                       double value)
{
    add_head(out, name, type, help);
    buf_addf(out, "comfy_agent_%s %.15g\n", name, value);
}

static void add_tasks(struct api *api, struct buf *out)
{
    struct task_hub_stats s = task_hub_stats(api->hub);
    add_head(out, "tasks_total", "counter", "Tasks by how they ended.");
    buf_addf(out, "comfy_agent_tasks_total{end=\"succeeded\"} %llu\n",
             (unsigned long long)s.succeeded);
    buf_addf(out, "comfy_agent_tasks_total{end=\"failed\"} %llu\n", (unsigned long long)s.failed);
    buf_addf(out, "comfy_agent_tasks_total{end=\"cancelled\"} %llu\n",
             (unsigned long long)s.cancelled);
    add_number(out, "tasks_waiting", "gauge", "Tasks in the queue.", s.waiting);
    add_number(out, "tasks_active", "gauge", "Tasks in ComfyUI's hands.", s.active);
    add_number(out, "tasks_unstored", "gauge", "Ended tasks that the store has not taken yet.",
               s.unstored);
    add_head(out, "task_queued_seconds", "histogram", "From a task's arrival to its submission.");
    histogram_render(&s.queued, "comfy_agent_task_queued_seconds", "", out);
    add_head(out, "task_run_seconds", "histogram", "From a task's submission to its end.");
    histogram_render(&s.run, "comfy_agent_task_run_seconds", "", out);
}

static void add_comfyui(struct api *api, struct buf *out)
{
    enum supervisor_state now = supervisor_state(api->supervisor);
    static const enum supervisor_state states[] = {
#define X(id, name) id,
        SUPERVISOR_STATES(X)
#undef X
    };
    add_head(out, "comfyui_state", "gauge", "1 for the state that ComfyUI is in.");
    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        buf_addf(out, "comfy_agent_comfyui_state{state=\"%s\"} %d\n",
                 supervisor_state_name(states[i]), states[i] == now);
    add_number(out, "comfyui_open", "gauge", "1 while prompts can be sent to ComfyUI.",
               comfy_is_open(api->comfy));
    add_number(out, "comfyui_restarts_total", "counter", "Times ComfyUI was started again.",
               supervisor_restarts(api->supervisor));
}

static void add_store(struct api *api, struct buf *out)
{
    struct store_stats s = store_stats(api->store);
    add_number(out, "store_up", "gauge", "1 while the store is believed to work.",
               store_healthy(api->store, NULL));
    add_number(out, "store_operations_total", "counter", "Operations of the store.", (double)s.ops);
    add_number(out, "store_documents_written_total", "counter", "Documents written.",
               (double)s.docs_written);
    add_number(out, "store_documents_read_total", "counter", "Documents read.",
               (double)s.docs_read);
    add_number(out, "store_failures_total", "counter", "Operations that failed.",
               (double)s.failures);
    add_number(out, "store_timeouts_total", "counter", "Operations that were not done in time.",
               (double)s.timeouts);
    add_number(out, "store_in_flight", "gauge", "Operations under way.", s.in_flight);
}

static void add_http(struct api *api, struct buf *out)
{
    struct http_server_stats s = http_server_stats(api->server);
    add_number(out, "http_connections", "gauge", "Open client connections.", s.connections);
    add_number(out, "http_in_flight", "gauge", "Requests being answered.", s.in_flight);
    add_number(out, "http_connections_total", "counter", "Client connections.", (double)s.accepted);
    add_number(out, "http_requests_total", "counter", "Requests.", (double)s.requests);
    add_number(out, "http_refused_total", "counter", "Heads that were no HTTP.", (double)s.refused);
    add_number(out, "bodies_bytes", "gauge", "Memory of request bodies and prompts.",
               (double)api->bodies->used);
    add_number(out, "bodies_refused_total", "counter", "Times there was too little left of it.",
               (double)api->bodies->refused);
    add_number(out, "http_received_bytes_total", "counter", "Bytes from clients.",
               (double)s.bytes_in);
    add_number(out, "http_sent_bytes_total", "counter", "Bytes to clients.", (double)s.bytes_out);
}

static double seconds_of(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void add_process(struct api *api, struct buf *out)
{
    struct rusage usage;
    size_t resident = 0;
    add_head(out, "loop_turn_seconds", "histogram",
             "How long the loop worked before it could take up anything new.");
    histogram_render(api->loop_turns, "comfy_agent_loop_turn_seconds", "", out);
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        add_number(out, "process_cpu_seconds_total", "counter", "CPU time of this process.",
                   seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime));
    if (uv_resident_set_memory(&resident) == 0)
        add_number(out, "process_resident_bytes", "gauge", "Memory of this process.",
                   (double)resident);
    add_number(out, "process_start_time_seconds", "gauge", "When this process began, Unix time.",
               (double)api->started_ms / 1000);
}

void api_metrics(struct api *api, struct http_req *req, struct slice param)
{
    struct buf out;
    (void)param;
    buf_init(&out, SIZE_MAX);
    add_tasks(api, &out);
    if (api->door != NULL)
        add_number(&out, "door_calls", "gauge", "Tasks that RUN_URL has not taken yet.",
                   door_calls(api->door));
    else
        add_comfyui(api, &out);
    add_store(api, &out);
    add_http(api, &out);
    add_process(api, &out);
    http_respond(req, 200, "text/plain; version=0.0.4; charset=utf-8", buf_slice(&out), NULL);
    buf_done(&out);
}
