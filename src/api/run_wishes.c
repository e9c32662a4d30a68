#include "run_wishes.h"

static void read_prefer(struct run_wishes *w, struct slice prefer)
{
    while (prefer.len > 0) {
        struct slice element = slice_next(&prefer, ',');
        struct slice value = element;
        struct slice name = slice_next(&value, '=');
        uint64_t seconds;
        if (slice_eq_nocase(name, SLICE("respond-async")))
            w->respond_async = true;
        if (slice_eq_nocase(name, SLICE("wait")) &&
            slice_to_u64(slice_trim(value), RUN_WAIT_MAX_S, &seconds)) {
            w->has_wait = true;
            w->wait_ms = seconds * 1000;
        }
    }
    w->respond_async =
        w->respond_async && !w->has_wait; /* not before that is over: RFC 7240, 4.3 */
}

static bool is_media(struct slice range)
{
    static const char *const types[] = {"image/", "video/", "audio/"};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        size_t len = strlen(types[i]);
        if (range.len > len && slice_eq_nocase((struct slice){range.ptr, len}, slice_of(types[i])))
            return true;
    }
    return false;
}

/* A browser's or curl's Accept has a star or a document type in it: they want JSON. */
static bool only_media(struct slice accept)
{
    if (accept.len == 0)
        return false;
    while (accept.len > 0) {
        struct slice element = slice_next(&accept, ',');
        if (!is_media(slice_next(&element, ';')))
            return false;
    }
    return true;
}

void run_wishes_read(struct run_wishes *ret, const struct http_headers *headers, struct slice query)
{
    struct slice value;
    struct buf room;
    *ret = (struct run_wishes){.media = SLICE_EMPTY};
    buf_init(&room, 64);
    if (http_query_get(query, "results", &room) == ERR_OK && slice_is(buf_slice(&room), "none"))
        ret->no_results = true;
    buf_done(&room);
    if (http_headers_get(headers, "prefer", &value))
        read_prefer(ret, value);
    if (http_headers_get(headers, "accept", &value) && only_media(value))
        ret->media = value;
}

static bool accepts(struct slice accept, struct slice type)
{
    while (accept.len > 0) {
        struct slice element = slice_next(&accept, ',');
        struct slice range = slice_next(&element, ';');
        size_t main = range.len >= 2 && range.ptr[range.len - 1] == '*' ? range.len - 1 : 0;
        if (main > 0 ? type.len > main && slice_eq_nocase((struct slice){range.ptr, main},
                                                          (struct slice){type.ptr, main})
                     : slice_eq_nocase(range, type))
            return true;
    }
    return false;
}

int run_wishes_output(const struct run_wishes *w, const struct task *t)
{
    const struct task_output *outputs;
    unsigned count = task_outputs(t, &outputs);
    for (unsigned i = 0; i < count; i++)
        if (accepts(w->media, slice_of(outputs[i].media_type)))
            return (int)i;
    return -1;
}
