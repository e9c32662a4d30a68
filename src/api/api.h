/* What route handlers may use, and the handlers. One file per route family. */
#ifndef API_H
#define API_H

#include "histogram.h"
#include "http_server.h"
#include "task_hub.h"

struct admit;
struct warmup;
struct proxy;
struct lookups;
struct workflows;
struct door;
struct http_files;
struct api {
    struct task_hub *hub;
    struct lookups *lookups;
    struct comfy *comfy;
    struct store *store;
    struct supervisor *supervisor;
    uv_loop_t *loop;
    struct later *later;
    bool on_platform; /* Function Compute: it answers async calls itself, before we see them */
    const struct door *door;  /* NULL, or this is a front door: there is no ComfyUI here, but … */
    struct http_files *files; /* … its outputs and inputs … */
    const char *input_dir;    /* … and where uploads go; "": nowhere */
    struct admit *admit;
    struct proxy *proxy;
    struct workflows *workflows;
    struct http_server *server;
    size_t body_max;
    struct budget *bodies; /* request bodies and prompts of all */
    uint64_t started_ms;   /* wall clock */
    const struct histogram *loop_turns;
    struct warmup *warmup;
    uint64_t initialize_ms;                   /* the hook's limit unless it says itself */
    void (*stop)(void *ctx, const char *why); /* idempotent; api_stopped() follows */
    void *stop_ctx;
    struct list_node stops; /* hooks that wait for it */
};

/* `param` is what stands for {id} in the route's path, still percent-encoded; empty without one.
 * With two of them it reaches from the first to the last. */
typedef void (*api_handler)(struct api *api, struct http_req *req, struct slice param);

void api_run(struct api *api, struct http_req *req, struct slice param);
void api_run_ws(struct api *api, struct http_req *req, struct slice param);
void api_status(struct api *api, struct http_req *req, struct slice param);
void api_task(struct api *api, struct http_req *req, struct slice param);
void api_task_events(struct api *api, struct http_req *req, struct slice param);
void api_task_list(struct api *api, struct http_req *req, struct slice param);
void api_task_cancel(struct api *api, struct http_req *req, struct slice param);
void api_task_prompt(struct api *api, struct http_req *req, struct slice param);
void api_task_output(struct api *api, struct http_req *req, struct slice param);
void api_workflow_list(struct api *api, struct http_req *req, struct slice param);
void api_workflow(struct api *api, struct http_req *req, struct slice param);
void api_ui(struct api *api, struct http_req *req, struct slice param);
void api_ui_slash(struct api *api, struct http_req *req, struct slice param);
void api_metrics(struct api *api, struct http_req *req, struct slice param);
void api_openapi(struct api *api, struct http_req *req, struct slice param);
void api_healthz(struct api *api, struct http_req *req, struct slice param);
void api_readyz(struct api *api, struct http_req *req, struct slice param);
void api_initialize(struct api *api, struct http_req *req, struct slice param);
void api_pre_stop(struct api *api, struct http_req *req, struct slice param);
void api_pre_freeze(struct api *api, struct http_req *req, struct slice param);
/* What a front door answers of ComfyUI's own routes. */
void api_door_view(struct api *api, struct http_req *req, struct slice param);
void api_door_upload(struct api *api, struct http_req *req, struct slice param);
void api_door_missing(struct api *api, struct http_req *req, struct slice param);
/* Everything that is no route of ours. */
void api_proxy(struct api *api, struct http_req *req, struct slice param);

/* The tasks have ended and are stored, or the time for it is over. */
void api_stopped(struct api *api);

#endif
