#include "proxy_rules.h"

#include "http_msg.h"

enum { PATH_MAX_BYTES = HTTP_TARGET_MAX };

/* A pattern that ends in '*' matches all that begins like it. */
static const char *const ui_writes[] = {
    "/prompt",      "/queue",    "/interrupt",  "/history",    "/free",        "/upload/image",
    "/upload/mask", "/settings", "/settings/*", "/userdata/*", "/jobs/cancel", "/jobs/*",
};
static const char *const manages[] = {
    "/manager",         "/manager/*", "/customnode", "/customnode/*",    "/externalmodel",
    "/externalmodel/*", "/snapshot",  "/snapshot/*", "/comfyui_manager", "/comfyui_manager/*",
};

static bool matches(struct slice path, const char *const *patterns, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct slice pattern = slice_of(patterns[i]);
        bool is_prefix = pattern.ptr[pattern.len - 1] == '*';
        if (is_prefix)
            pattern.len--;
        if (is_prefix ? slice_starts(path, pattern) : slice_eq(path, pattern))
            return true;
    }
    return false;
}

/* No segment but the last is empty, none is "." or "..", and there is no backslash, which some
 * servers take for a slash. */
static bool is_plain(struct slice path)
{
    const char *end = path.ptr + path.len;
    if (path.len == 0 || path.ptr[0] != '/' || memchr(path.ptr, '\\', path.len) != NULL)
        return false;
    for (const char *at = path.ptr + 1; at < end;) {
        const char *slash = memchr(at, '/', (size_t)(end - at));
        struct slice segment = {at, (size_t)((slash != NULL ? slash : end) - at)};
        if (segment.len == 0 || slice_is(segment, ".") || slice_is(segment, ".."))
            return false;
        at += segment.len + 1;
    }
    return true;
}

static struct slice without(struct slice path, struct slice prefix)
{
    if (slice_starts(path, prefix) && path.len > prefix.len && path.ptr[prefix.len] == '/')
        return (struct slice){path.ptr + prefix.len, path.len - prefix.len};
    return path;
}

/* Both, as often as they are in front: a node's own /api/manager is behind two of them. */
static struct slice without_all(struct slice path, struct slice first, struct slice second)
{
    struct slice bare = without(without(path, first), second);
    while (bare.len < path.len) {
        path = bare;
        bare = without(without(path, first), second);
    }
    return path;
}

/* /userdata/{file}/move/{to}: for ComfyUI, too, an escaped slash is part of a name. */
static bool moves(struct slice escaped)
{
    const char *end = escaped.ptr + escaped.len;
    bool found = false;
    struct buf segment;
    buf_init(&segment, PATH_MAX_BYTES);
    for (const char *at = escaped.ptr; at < end && !found;) {
        const char *slash = memchr(at, '/', (size_t)(end - at));
        struct slice part = {at, (size_t)((slash != NULL ? slash : end) - at)};
        buf_reset(&segment);
        found = slash != NULL && http_percent_decode(part, &segment) == ERR_OK &&
                slice_is(buf_slice(&segment), "move");
        at += part.len + 1;
    }
    buf_done(&segment);
    return found;
}

/* `path`: with its escapes decoded. */
static bool ui_allows(struct slice method, struct slice path, struct slice escaped)
{
    struct slice bare = without(path, SLICE("/api"));
    struct slice barest = without_all(path, SLICE("/api"), SLICE("/v2"));
    if (!is_plain(path) || matches(barest, manages, ARRAY_LEN(manages)))
        return false;
    if (slice_is(method, "GET") || slice_is(method, "HEAD"))
        return true;
    return slice_is(method, "POST") && matches(bare, ui_writes, ARRAY_LEN(ui_writes)) &&
           !(slice_starts(bare, SLICE("/userdata/")) && moves(escaped));
}

enum proxy_allow proxy_allow_of(const char *word)
{
    if (strcmp(word, "none") == 0)
        return PROXY_NONE;
    return strcmp(word, "ui") == 0 ? PROXY_UI : PROXY_ALL;
}

bool proxy_allows(enum proxy_allow allow, struct slice method, struct slice path)
{
    struct buf decoded;
    if (allow != PROXY_UI)
        return allow == PROXY_ALL;
    buf_init(&decoded, PATH_MAX_BYTES);
    bool allows = http_percent_decode(path, &decoded) == ERR_OK &&
                  ui_allows(method, buf_slice(&decoded), path);
    buf_done(&decoded);
    return allows;
}
