/* The end is read from the last of the recorded messages, not from `status_str` alone: after an
 * error between two nodes the success flag is left over from the node before. */
#include "history.h"

static struct slice member(struct slice object, const char *key, enum json_kind kind)
{
    struct slice value;
    if (json_get(object, key, &value) && json_kind(value) == kind)
        return value;
    return SLICE_EMPTY;
}

/* [name, data] → name; data in *ret_data. */
static struct slice message_parts(struct slice message, struct slice *ret_data)
{
    struct json_iter it;
    struct slice name;
    if (json_kind(message) != JSON_ARRAY)
        return SLICE_EMPTY;
    json_iter_init(&it, message);
    if (!json_next(&it, NULL, &name) || json_kind(name) != JSON_STRING ||
        !json_next(&it, NULL, ret_data) || json_kind(*ret_data) != JSON_OBJECT)
        return SLICE_EMPTY;
    return name;
}

static void read_messages(struct history *h, struct slice messages)
{
    struct json_iter it;
    struct slice message;
    json_iter_init(&it, messages);
    while (json_next(&it, NULL, &message)) {
        struct slice data;
        struct slice name = message_parts(message, &data);
        if (name.len == 0)
            continue;
        if (json_string_is(name, "execution_cached"))
            h->cached = member(data, "nodes", JSON_ARRAY);
        else if (json_string_is(name, "execution_success"))
            h->end = HISTORY_SUCCESS;
        else if (json_string_is(name, "execution_error"))
            h->end = HISTORY_ERROR;
        else if (json_string_is(name, "execution_interrupted"))
            h->end = HISTORY_INTERRUPTED;
        else
            continue;
        h->last = data;
    }
}

static void read_status(struct history *h, struct slice entry)
{
    struct slice status = member(entry, "status", JSON_OBJECT);
    if (status.len == 0) { /* before 2024: an entry is all there is */
        h->end = HISTORY_SUCCESS;
        return;
    }
    struct slice says = member(status, "status_str", JSON_STRING);
    struct slice messages = member(status, "messages", JSON_ARRAY);
    h->end = says.len > 0 && json_string_is(says, "success") ? HISTORY_SUCCESS : HISTORY_ERROR;
    if (messages.len > 0)
        read_messages(h, messages);
}

enum err_code history_parse(struct history *ret, struct slice body, const char *prompt_id,
                            struct err *err)
{
    *ret = (struct history){.end = HISTORY_NONE, .outputs = SLICE("{}")};
    enum err_code code = json_check(body, &json_from_comfyui, NULL, err);
    if (code != ERR_OK) {
        err_prefix(err, "ComfyUI's history is not JSON");
        return ERR_PROTOCOL;
    }
    struct slice top = json_trim(body);
    if (json_kind(top) != JSON_OBJECT)
        return err_set(err, ERR_PROTOCOL, "ComfyUI's history is not an object");
    struct slice entry;
    if (!json_get(top, prompt_id, &entry))
        return ERR_OK;
    if (json_kind(entry) != JSON_OBJECT)
        return err_set(err, ERR_PROTOCOL, "ComfyUI's history has an entry that is no object");
    read_status(ret, entry);
    struct slice outputs = member(entry, "outputs", JSON_OBJECT);
    if (outputs.len > 0)
        ret->outputs = outputs;
    ret->meta = member(entry, "meta", JSON_OBJECT);
    return ERR_OK;
}

typedef void on_prompt_fn(void *ctx, struct slice id, enum queue_place place);

/* Items are [number, prompt_id, graph, …]. */
static void list_each(struct slice list, enum queue_place place, on_prompt_fn *on_prompt, void *ctx)
{
    struct json_iter it;
    struct slice item;
    json_iter_init(&it, list);
    while (json_next(&it, NULL, &item)) {
        struct json_iter parts;
        struct slice number;
        struct slice id;
        if (json_kind(item) != JSON_ARRAY)
            continue;
        json_iter_init(&parts, item);
        if (json_next(&parts, NULL, &number) && json_next(&parts, NULL, &id) &&
            json_kind(id) == JSON_STRING)
            on_prompt(ctx, id, place);
    }
}

enum err_code queue_parse(struct queue *ret, struct slice body, struct err *err)
{
    if (json_check(body, &json_from_comfyui, NULL, err) != ERR_OK) {
        err_prefix(err, "ComfyUI's queue is not JSON");
        return ERR_PROTOCOL;
    }
    struct slice top = json_trim(body);
    *ret = (struct queue){.running = SLICE_EMPTY, .pending = SLICE_EMPTY};
    if (json_kind(top) == JSON_OBJECT) {
        ret->running = member(top, "queue_running", JSON_ARRAY);
        ret->pending = member(top, "queue_pending", JSON_ARRAY);
    }
    if (ret->running.len == 0 || ret->pending.len == 0)
        return err_set(err, ERR_PROTOCOL, "ComfyUI's queue lacks its lists");
    return ERR_OK;
}

void queue_each(const struct queue *q, on_prompt_fn *on_prompt, void *ctx)
{
    list_each(q->pending, QUEUE_PENDING, on_prompt, ctx);
    list_each(q->running, QUEUE_RUNNING, on_prompt, ctx);
}

struct sought {
    const char *prompt_id;
    enum queue_place place;
};

static void seek(void *ctx, struct slice id, enum queue_place place)
{
    struct sought *s = ctx;
    if (json_string_is(id, s->prompt_id))
        s->place = place;
}

enum queue_place queue_place_of(const struct queue *q, const char *prompt_id)
{
    struct sought s = {.prompt_id = prompt_id, .place = QUEUE_ABSENT};
    queue_each(q, seek, &s);
    return s.place;
}
