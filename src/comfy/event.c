/* The type is looked up before anything is checked: `progress_state` repeats every node touched so
 * far, its traffic grows with the square of the node count, and nothing in it is not also told by
 * smaller messages. It is recognised by its first bytes and read no further. */
#include "event.h"

static bool starts_as(struct slice message, const char *type)
{
    static const char head[] = "{\"type\": \"";
    size_t head_len = sizeof(head) - 1;
    size_t type_len = strlen(type);
    return message.len > head_len + type_len && memcmp(message.ptr, head, head_len) == 0 &&
           memcmp(message.ptr + head_len, type, type_len) == 0 &&
           message.ptr[head_len + type_len] == '"';
}

static struct slice string_member(struct slice object, const char *key)
{
    struct slice value;
    if (json_get(object, key, &value) && json_kind(value) == JSON_STRING)
        return value;
    return SLICE_EMPTY;
}

static struct slice member_of_kind(struct slice object, const char *key, enum json_kind kind)
{
    struct slice value;
    if (json_get(object, key, &value) && json_kind(value) == kind)
        return value;
    return SLICE_EMPTY;
}

static void read_executing(struct event *e)
{
    e->type = e->node.len > 0 ? EVENT_EXECUTING : EVENT_OVER;
}

static void read_progress(struct event *e)
{
    struct slice value;
    struct slice max;
    e->type = EVENT_PROGRESS;
    if (!json_get(e->data, "value", &value) || json_kind(value) != JSON_NUMBER ||
        !json_to_double(value, &e->value) || !json_get(e->data, "max", &max) ||
        json_kind(max) != JSON_NUMBER || !json_to_double(max, &e->max))
        e->type = EVENT_OTHER; /* a node's own idea of progress: nothing is lost with it */
}

static void read_executed(struct event *e)
{
    e->type = EVENT_EXECUTED;
    e->output = member_of_kind(e->data, "output", JSON_OBJECT);
}

static void read_cached(struct event *e)
{
    e->nodes = member_of_kind(e->data, "nodes", JSON_ARRAY);
    e->type = e->nodes.len > 0 ? EVENT_CACHED : EVENT_ODD;
}

static void read_error(struct event *e)
{
    e->type = EVENT_ERROR;
    struct slice exception = string_member(e->data, "exception_type");
    e->is_blocked = exception.len > 0 && json_string_is(exception, "ExecutionBlocked");
}

static void read_status(struct event *e)
{
    e->type = EVENT_STATUS;
    e->is_greeting = string_member(e->data, "sid").len > 0;
}

static void read_unknown(struct event *e)
{
    e->type = e->prompt_id.len > 0 ? EVENT_OTHER : EVENT_FOREIGN;
}

static void read_start(struct event *e)
{
    e->type = EVENT_START;
}

static void read_success(struct event *e)
{
    e->type = EVENT_SUCCESS;
}

static void read_interrupted(struct event *e)
{
    e->type = EVENT_INTERRUPTED;
}

static const struct {
    const char *name;
    void (*read)(struct event *e);
} readers[] = {
    {"progress", read_progress},
    {"executing", read_executing},
    {"executed", read_executed},
    {"status", read_status},
    {"execution_start", read_start},
    {"execution_cached", read_cached},
    {"execution_success", read_success},
    {"execution_error", read_error},
    {"execution_interrupted", read_interrupted},
};

static void (*reader_of(struct slice type))(struct event *e)
{
    for (size_t i = 0; i < ARRAY_LEN(readers); i++)
        if (json_string_is(type, readers[i].name))
            return readers[i].read;
    return read_unknown;
}

void event_parse(struct event *ret, struct slice message)
{
    *ret = (struct event){.type = EVENT_OTHER};
    if (starts_as(message, "progress_state"))
        return;
    ret->type = EVENT_ODD;
    if (json_check(message, &json_from_comfyui, NULL, NULL) != ERR_OK)
        return;
    struct slice top = json_trim(message);
    struct slice type = json_kind(top) == JSON_OBJECT ? string_member(top, "type") : SLICE_EMPTY;
    if (type.len == 0)
        return;
    void (*read)(struct event * e) = reader_of(type);
    ret->data = member_of_kind(top, "data", JSON_OBJECT);
    if (ret->data.len > 0) {
        ret->prompt_id = string_member(ret->data, "prompt_id");
        ret->node = string_member(ret->data, "node");
        ret->display_node = string_member(ret->data, "display_node");
        read(ret);
    } else if (read == read_unknown) {
        read(ret);
    }
}

/* --- binary messages ------------------------------------------------------------------------- */

enum { BINARY_PREVIEW = 1, BINARY_PREVIEW_WITH_META = 4, BINARY_JPEG = 1, BINARY_PNG = 2 };

/* False: the message is shorter. */
static bool take_u32(struct slice *from, uint32_t *ret)
{
    const unsigned char *p = (const unsigned char *)from->ptr;
    if (from->len < 4)
        return false;
    *ret = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    from->ptr += 4;
    from->len -= 4;
    return true;
}

/* u32 format, image */
static void read_preview(struct event *e, struct slice rest)
{
    uint32_t format;
    if (!take_u32(&rest, &format) || (format != BINARY_JPEG && format != BINARY_PNG))
        return;
    e->media_type = format == BINARY_JPEG ? "image/jpeg" : "image/png";
    e->image = rest;
    e->type = EVENT_PREVIEW;
}

/* u32 n, n bytes of JSON, image */
static void read_preview_with_meta(struct event *e, struct slice rest)
{
    uint32_t n;
    if (!take_u32(&rest, &n) || n > rest.len)
        return;
    struct slice meta = {rest.ptr, n};
    if (json_check(meta, &json_from_comfyui, NULL, NULL) != ERR_OK)
        return;
    meta = json_trim(meta);
    struct slice type = string_member(meta, "image_type");
    if (type.len == 0)
        return;
    e->media_type = json_string_is(type, "image/jpeg") ? "image/jpeg" : "image/png";
    e->prompt_id = string_member(meta, "prompt_id");
    e->node = string_member(meta, "node_id");
    e->display_node = string_member(meta, "display_node_id");
    e->image = (struct slice){rest.ptr + n, rest.len - n};
    e->type = EVENT_PREVIEW;
}

void event_parse_binary(struct event *ret, struct slice message)
{
    uint32_t type;
    *ret = (struct event){.type = EVENT_OTHER};
    if (!take_u32(&message, &type))
        return;
    if (type == BINARY_PREVIEW)
        read_preview(ret, message);
    else if (type == BINARY_PREVIEW_WITH_META)
        read_preview_with_meta(ret, message);
}
