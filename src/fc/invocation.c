#include "invocation.h"

#include <stdio.h>

enum { MARGIN_MAX_MS = 10000, SECONDS_MAX = 7 * 86400 };

static struct slice header(const struct invocation_source *source, const char *name)
{
    struct slice value;
    if (!source->header(source->ctx, name, &value))
        return SLICE_EMPTY;
    return slice_trim(value);
}

static uint64_t seconds(struct slice text)
{
    uint64_t value;
    return slice_to_u64(text, SECONDS_MAX, &value) ? value * 1000 : 0;
}

void invocation_read(struct invocation *ret, const struct invocation_source *source)
{
    struct slice async_id = header(source, "x-fc-async-task-id");
    *ret = (struct invocation){.request_id = header(source, "x-fc-request-id")};
    ret->control_path = header(source, "x-fc-control-path");
    ret->task_id = header(source, "task-id");
    if (ret->task_id.len == 0)
        ret->task_id = async_id;
    ret->has_retry_count =
        slice_to_u64(header(source, "x-fc-retry-count"), UINT32_MAX, &ret->retry_count);
    ret->asks_async = slice_eq_nocase(header(source, "x-fc-invocation-type"), SLICE("async"));
    ret->is_async = ret->asks_async || async_id.len > 0 || ret->retry_count > 0;
    ret->timeout_ms = seconds(header(source, "x-fc-function-timeout"));
    ret->initialize_ms = seconds(header(source, "x-fc-initialization-timeout"));
    ret->key_id = header(source, "x-fc-access-key-id");
    ret->key_secret = header(source, "x-fc-access-key-secret");
    ret->security_token = header(source, "x-fc-security-token");
}

bool invocation_is_users(const struct invocation *inv)
{
    return slice_is(inv->control_path, "/http-invoke");
}

uint64_t invocation_margin_ms(const struct invocation *inv)
{
    uint64_t tenth = inv->timeout_ms / 10;
    return tenth < MARGIN_MAX_MS ? tenth : MARGIN_MAX_MS;
}

static bool is_plain_id(struct slice id)
{
    for (size_t i = 0; i < id.len; i++) {
        char c = id.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_' || c == '.'))
            return false;
    }
    return id.len > 0 && id.len <= INVOCATION_ID_MAX;
}

void invocation_marker(const struct invocation *inv, struct slice path, bool is_end,
                       char ret[INVOCATION_MARKER_MAX])
{
    static const struct {
        const char *path, *what;
    } hooks[] = {
        {"/initialize", "Initialize"}, {"/pre-stop", "PreStop"}, {"/pre-freeze", "PreFreeze"}};
    const char *what = "Invoke";
    ret[0] = '\0';
    if (!is_plain_id(inv->request_id))
        return;
    for (size_t i = 0; i < ARRAY_LEN(hooks); i++)
        if (!invocation_is_users(inv) && slice_is(path, hooks[i].path))
            what = hooks[i].what;
    (void)snprintf(ret, INVOCATION_MARKER_MAX, "FC %s %s RequestId: %.*s", what,
                   is_end ? "End" : "Start", SLICE_ARGS(inv->request_id));
}

static struct slice variable(const char *(*get)(const char *name), const char *name)
{
    const char *value = get(name);
    return value != NULL ? slice_of(value) : SLICE_EMPTY;
}

const char *invocation_instance(const char *(*get)(const char *name))
{
    return variable(get, "FC_INSTANCE_ID").len > 0 ? get("FC_INSTANCE_ID") : NULL;
}

bool invocation_on_platform(const char *(*get)(const char *name), const char *setting)
{
    if (strcmp(setting, "auto") != 0)
        return strcmp(setting, "fc") == 0;
    return invocation_instance(get) != NULL;
}

uint64_t invocation_initialize_ms(const char *(*get)(const char *name))
{
    return seconds(variable(get, "FC_INITIALIZATION_TIMEOUT"));
}
