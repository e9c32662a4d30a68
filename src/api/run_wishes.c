#include "run_wishes.h"

static void read_prefer(struct run_wishes *w, const struct http_headers *headers)
{
    struct http_list prefer = http_list_begin(headers, "prefer");
    struct slice value;
    while (http_list_next(&prefer, &value)) {
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
static struct slice only_media(const struct http_headers *headers)
{
    struct http_list accept = http_list_begin(headers, "accept");
    struct slice first = SLICE_EMPTY;
    struct slice element;
    while (http_list_next(&accept, &element)) {
        struct slice range = slice_next(&element, ';');
        if (!is_media(range))
            return SLICE_EMPTY;
        if (first.len == 0)
            first = range;
    }
    return first;
}

void run_wishes_read(struct run_wishes *ret, const struct http_headers *headers, struct slice query)
{
    struct buf room;
    *ret = (struct run_wishes){.media = only_media(headers), .headers = headers};
    buf_init(&room, 64);
    if (http_query_get(query, "results", &room) == ERR_OK && slice_is(buf_slice(&room), "none"))
        ret->no_results = true;
    buf_done(&room);
    read_prefer(ret, headers);
}

static bool accepts(const struct http_headers *headers, struct slice type)
{
    struct http_list accept = http_list_begin(headers, "accept");
    struct slice element;
    while (http_list_next(&accept, &element)) {
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
        if (accepts(w->headers, slice_of(outputs[i].media_type)))
            return (int)i;
    return -1;
}
