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

/* The members of `data` that anybody needs, found in one walk. */
enum member { PROMPT_ID, NODE, DISPLAY_NODE, VALUE, MAX, OUTPUT, NODES, EXCEPTION_TYPE, SID };

static const char *const member_names[] = {
    [PROMPT_ID] = "prompt_id",
    [NODE] = "node",
    [DISPLAY_NODE] = "display_node",
    [VALUE] = "value",
    [MAX] = "max",
    [OUTPUT] = "output",
    [NODES] = "nodes",
    [EXCEPTION_TYPE] = "exception_type",
    [SID] = "sid",
};

struct members {
    struct slice value[ARRAY_LEN(member_names)];
};

static struct slice of_kind(struct slice value, enum json_kind kind)
{
    return value.len > 0 && json_kind(value) == kind ? value : SLICE_EMPTY;
}

static struct slice string_of(const struct members *m, enum member which)
{
    return of_kind(m->value[which], JSON_STRING);
}

static bool number_of(const struct members *m, enum member which, double *ret)
{
    struct slice value = of_kind(m->value[which], JSON_NUMBER);
    return value.len > 0 && json_to_double(value, ret);
}

static void read_executing(struct event *e, const struct members *m)
{
    (void)m;
    e->type = e->node.len > 0 ? EVENT_EXECUTING : EVENT_OVER;
}

static void read_progress(struct event *e, const struct members *m)
{
    e->type = EVENT_PROGRESS;
    if (!number_of(m, VALUE, &e->value) || !number_of(m, MAX, &e->max))
        e->type = EVENT_OTHER; /* a node's own idea of progress: nothing is lost with it */
}

static void read_executed(struct event *e, const struct members *m)
{
    e->type = EVENT_EXECUTED;
    e->output = of_kind(m->value[OUTPUT], JSON_OBJECT);
}

static void read_cached(struct event *e, const struct members *m)
{
    e->nodes = of_kind(m->value[NODES], JSON_ARRAY);
    e->type = e->nodes.len > 0 ? EVENT_CACHED : EVENT_ODD;
}

static void read_error(struct event *e, const struct members *m)
{
    e->type = EVENT_ERROR;
    struct slice exception = string_of(m, EXCEPTION_TYPE);
    e->is_blocked = exception.len > 0 && json_string_is(exception, "ExecutionBlocked");
}

static void read_status(struct event *e, const struct members *m)
{
    e->type = EVENT_STATUS;
    e->is_greeting = string_of(m, SID).len > 0;
}

static void read_start(struct event *e, const struct members *m)
{
    (void)m;
    e->type = EVENT_START;
}

static void read_success(struct event *e, const struct members *m)
{
    (void)m;
    e->type = EVENT_SUCCESS;
}

static void read_interrupted(struct event *e, const struct members *m)
{
    (void)m;
    e->type = EVENT_INTERRUPTED;
}

typedef void (*reader)(struct event *e, const struct members *m);

static const struct {
    const char *name;
    reader read;
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

static reader reader_of(struct slice type)
{
    for (size_t i = 0; i < ARRAY_LEN(readers); i++)
        if (json_string_is(type, readers[i].name))
            return readers[i].read;
    return NULL;
}

/* {"type": …, "data": {…}}; false: it is none. *ret_read is NULL for a type not known. */
static bool take_apart(struct slice message, reader *ret_read, struct slice *ret_data,
                       struct members *ret_m)
{
    static const char *const names[] = {"type", "data"};
    struct slice found[ARRAY_LEN(names)];
    *ret_m = (struct members){{SLICE_EMPTY}};
    if (json_check(message, &json_from_comfyui, NULL, NULL) != ERR_OK)
        return false;
    json_pick(json_trim(message), names, found, ARRAY_LEN(names));
    struct slice type = of_kind(found[0], JSON_STRING);
    if (type.len == 0)
        return false;
    *ret_read = reader_of(type);
    *ret_data = of_kind(found[1], JSON_OBJECT);
    if (ret_data->len > 0)
        json_pick(*ret_data, member_names, ret_m->value, ARRAY_LEN(member_names));
    return true;
}

static bool skip(struct slice *from, struct slice text)
{
    if (!slice_starts(*from, text))
        return false;
    from->ptr += text.len;
    from->len -= text.len;
    return true;
}

/* The same for what most messages are, in one walk instead of three: of a known type, spelled as
 * ComfyUI's json.dumps() does it, and nothing nested in `data`. False: it is not of that kind. */
static bool take_apart_flat(struct slice message, reader *ret_read, struct slice *ret_data,
                            struct members *ret_m)
{
    size_t known = 0;
    size_t len;
    if (!skip(&message, SLICE("{\"type\": \"")))
        return false;
    while (known < ARRAY_LEN(readers) && !skip(&message, slice_of(readers[known].name)))
        known++;
    if (known == ARRAY_LEN(readers) || !skip(&message, SLICE("\", \"data\": ")) ||
        !json_pick_flat(message, member_names, ret_m->value, ARRAY_LEN(member_names), &len))
        return false;
    *ret_read = readers[known].read;
    *ret_data = (struct slice){message.ptr, len};
    return message.len == len + 1 && message.ptr[len] == '}';
}

static void parse(struct event *ret, struct slice message, struct members *ret_m)
{
    reader read;
    *ret = (struct event){.type = EVENT_OTHER};
    if (starts_as(message, "progress_state"))
        return;
    ret->type = EVENT_ODD;
    if (!take_apart_flat(message, &read, &ret->data, ret_m) &&
        !take_apart(message, &read, &ret->data, ret_m))
        return;
    ret->prompt_id = string_of(ret_m, PROMPT_ID);
    ret->node = string_of(ret_m, NODE);
    ret->display_node = string_of(ret_m, DISPLAY_NODE);
    if (read == NULL)
        ret->type = ret->prompt_id.len > 0 ? EVENT_OTHER : EVENT_FOREIGN;
    else if (ret->data.len > 0)
        read(ret, ret_m);
}

void event_parse(struct event *ret, struct slice message)
{
    struct members m;
    parse(ret, message, &m);
}

/* --- the same again and again ---------------------------------------------------------------- */

/* Kept around its value, the message is JSON with any other number there: digits without a zero in
 * front are one. */
static bool repeats(const struct event_reader *r, struct slice message, double *ret_value)
{
    uint64_t value;
    size_t around = r->before + r->after;
    if (r->len == 0 || message.len <= around || memcmp(message.ptr, r->message, r->before) != 0 ||
        memcmp(message.ptr + message.len - r->after, r->message + r->len - r->after, r->after) != 0)
        return false;
    struct slice digits = {message.ptr + r->before, message.len - around};
    if ((digits.len > 1 && digits.ptr[0] == '0') || !slice_to_u64(digits, UINT64_MAX, &value))
        return false;
    *ret_value = (double)value;
    return true;
}

/* A part of the kept message, in one that repeats it. */
static struct slice part_in(struct slice message, const struct event_reader *r, struct slice part)
{
    size_t more = message.len - r->len; /* perhaps less: it wraps */
    if (part.len == 0)
        return SLICE_EMPTY;
    size_t at = (size_t)(part.ptr - r->message);
    size_t end = at + part.len;
    at += at > r->before ? more : 0;
    end += end > r->before ? more : 0;
    return (struct slice){message.ptr + at, end - at};
}

static struct slice part_kept(const struct event_reader *r, struct slice message, struct slice part)
{
    return part.len > 0 ? (struct slice){r->message + (part.ptr - message.ptr), part.len}
                        : SLICE_EMPTY;
}

static void keep(struct event_reader *r, const struct event *e, struct slice message,
                 struct slice value)
{
    if (message.len > sizeof(r->message))
        return;
    memcpy(r->message, message.ptr, message.len);
    r->len = message.len;
    r->before = (size_t)(value.ptr - message.ptr);
    r->after = message.len - r->before - value.len;
    r->progress = *e;
    r->progress.prompt_id = part_kept(r, message, e->prompt_id);
    r->progress.node = part_kept(r, message, e->node);
    r->progress.display_node = part_kept(r, message, e->display_node);
    r->progress.data = part_kept(r, message, e->data);
}

void event_read(struct event_reader *r, struct event *ret, struct slice message)
{
    double value;
    if (repeats(r, message, &value)) {
        *ret = r->progress;
        ret->value = value;
        ret->prompt_id = part_in(message, r, ret->prompt_id);
        ret->node = part_in(message, r, ret->node);
        ret->display_node = part_in(message, r, ret->display_node);
        ret->data = part_in(message, r, ret->data);
        return;
    }
    struct members m = {{SLICE_EMPTY}};
    parse(ret, message, &m);
    if (ret->type == EVENT_PROGRESS)
        keep(r, ret, message, m.value[VALUE]);
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
    static const char *const names[] = {"image_type", "prompt_id", "node_id", "display_node_id"};
    struct slice found[ARRAY_LEN(names)];
    json_pick(meta, names, found, ARRAY_LEN(names));
    struct slice type = of_kind(found[0], JSON_STRING);
    if (type.len == 0)
        return;
    e->media_type = json_string_is(type, "image/jpeg") ? "image/jpeg" : "image/png";
    e->prompt_id = of_kind(found[1], JSON_STRING);
    e->node = of_kind(found[2], JSON_STRING);
    e->display_node = of_kind(found[3], JSON_STRING);
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
