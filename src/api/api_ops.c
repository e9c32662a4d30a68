/* For whoever operates it: /healthz says that this process works, and never waits for anything;
 * /readyz whether a run would work now. */
#include "answer.h"
#include "api.h"
#include "door.h"

void api_healthz(struct api *api, struct http_req *req, struct slice param)
{
    struct buf body;
    (void)param;
    buf_init(&body, SIZE_MAX);
    buf_addf(&body, "{\"status\":\"ok\",\"uptime_ms\":%llu}",
             (unsigned long long)(clock_wall_ms() - api->started_ms));
    answer_json(req, 200, buf_slice(&body), NULL);
    buf_done(&body);
}

/* Made of openapi.json by the build. */
extern const unsigned char openapi_json[];
extern const size_t openapi_json_len;

void api_openapi(struct api *api, struct http_req *req, struct slice param)
{
    (void)api;
    (void)param;
    answer_json(req, 200, (struct slice){(const char *)openapi_json, openapi_json_len}, NULL);
}

static void add_comfyui(struct api *api, struct buf *out)
{
    const struct supervisor *s = api->supervisor;
    const struct supervisor_exit *exit = supervisor_last_exit(s);
    buf_addf(out, ",\"comfyui\":{\"state\":\"%s\",\"open\":%s,\"restarts\":%u,\"version\":",
             supervisor_state_name(supervisor_state(s)),
             comfy_is_open(api->comfy) ? "true" : "false", supervisor_restarts(s));
    buf_add_json_string(out, slice_of(supervisor_version(s)));
    if (exit->happened) {
        buf_adds(out, ",\"last_exit\":");
        buf_add_json_string(out, slice_of(exit->reason));
    }
    buf_adds(out, "}");
}

static void add_store(struct api *api, bool healthy, const struct err *why, struct buf *out)
{
    buf_addf(out, ",\"store\":{\"scheme\":\"%s\",\"ok\":%s", store_scheme(api->store),
             healthy ? "true" : "false");
    if (!healthy) {
        buf_adds(out, ",\"detail\":");
        buf_add_json_string(out, slice_of(why->msg));
    }
    buf_adds(out, "}");
}

void api_readyz(struct api *api, struct http_req *req, struct slice param)
{
    struct buf body;
    struct err why;
    struct task_hub_stats tasks = task_hub_stats(api->hub);
    bool stores = store_healthy(api->store, &why);
    bool ready = stores && (api->door != NULL || comfy_is_open(api->comfy));
    struct answer_about about = {.retry_after_s = ready ? 0 : ANSWER_RETRY_S};
    (void)param;
    buf_init(&body, SIZE_MAX);
    buf_addf(&body, "{\"status\":\"%s\"", ready ? "ready" : "not_ready");
    if (api->door != NULL)
        buf_addf(&body, ",\"door\":{\"calls\":%u}", door_calls(api->door));
    else
        add_comfyui(api, &body);
    add_store(api, stores, &why, &body);
    buf_addf(&body, ",\"tasks\":{\"waiting\":%u,\"active\":%u,\"unstored\":%u}}", tasks.waiting,
             tasks.active, tasks.unstored);
    answer_json(req, ready ? 200 : 503, buf_slice(&body), &about);
    buf_done(&body);
}
