/* Which strings of a prompt are files, and what is in them. */
#include "codec.h"
#include "inputs_private.h"

static bool starts_nocase(struct slice s, const char *with)
{
    size_t len = strlen(with);
    return s.len >= len && slice_eq_nocase((struct slice){s.ptr, len}, slice_of(with));
}

/* JSON may spell '/' as "\/". */
static bool is_base64_token(struct slice s)
{
    size_t letters = 0;
    if (s.len < INPUTS_BASE64_MIN)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (c == '\\' && i + 1 < s.len && s.ptr[i + 1] == '/')
            continue;
        bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                      c == '+' || c == '/';
        bool padding = c == '=' && i + 2 >= s.len;
        if (!letter && !padding)
            return false;
        letters++;
    }
    return letters >= INPUTS_BASE64_MIN;
}

enum input_kind input_kind_of(struct slice token)
{
    struct slice s = {token.ptr + 1, token.len - 2};
    if (starts_nocase(s, "http:") || starts_nocase(s, "https:"))
        return INPUT_ADDRESS;
    if (starts_nocase(s, "data:"))
        return INPUT_DATA;
    return is_base64_token(s) ? INPUT_BASE64 : INPUT_NAME;
}

static bool loads_images(struct slice class_type)
{
    return json_string_is(class_type, "LoadImage") || json_string_is(class_type, "LoadImageMask");
}

unsigned inputs_find(const struct prompt *p, struct input ret[INPUTS_MAX])
{
    unsigned count = 0;
    for (unsigned n = 0; n < p->count; n++) {
        struct json_iter it;
        struct input found = {.node = n};
        bool loader = loads_images(p->nodes[n].class_type);
        json_iter_init(&it, p->nodes[n].inputs);
        while (json_next(&it, &found.name, &found.value)) {
            if (json_kind(found.value) != JSON_STRING)
                continue;
            found.kind = input_kind_of(found.value);
            found.sure = loader && json_string_is(found.name, "image");
            if (found.kind == INPUT_NAME)
                continue;
            if (count < INPUTS_MAX)
                ret[count] = found;
            count++;
        }
    }
    return count;
}

bool inputs_are_there(const struct prompt *p)
{
    struct input found[INPUTS_MAX];
    return inputs_find(p, found) > 0;
}

static bool ends_with_upload(struct slice key)
{
    static const struct slice suffix = {"_upload", 7};
    struct buf name;
    buf_init(&name, SIZE_MAX);
    bool ends = json_unescape(key, &name) == ERR_OK && name.len > suffix.len &&
                memcmp(name.ptr + name.len - suffix.len, suffix.ptr, suffix.len) == 0;
    buf_done(&name);
    return ends;
}

/* {"image_upload": true}, and what other nodes call it: video_upload, audio_upload, file_upload …
 */
static bool marks_upload(struct slice options)
{
    struct json_iter it;
    struct slice key;
    struct slice value;
    if (json_kind(options) != JSON_OBJECT)
        return false;
    json_iter_init(&it, options);
    while (json_next(&it, &key, &value))
        if (json_kind(value) == JSON_TRUE && ends_with_upload(key))
            return true;
    return false;
}

static bool section_marks(struct slice inputs, const char *section, struct slice name)
{
    struct json_iter it;
    struct slice members;
    struct slice key;
    struct slice spec;
    if (!json_get(inputs, section, &members) || json_kind(members) != JSON_OBJECT)
        return false;
    json_iter_init(&it, members);
    while (json_next(&it, &key, &spec)) {
        struct json_iter parts;
        struct slice type;
        struct slice options;
        if (!json_strings_equal(key, name) || json_kind(spec) != JSON_ARRAY)
            continue;
        json_iter_init(&parts, spec);
        return json_next(&parts, NULL, &type) && json_next(&parts, NULL, &options) &&
               marks_upload(options);
    }
    return false;
}

bool inputs_class_takes(struct slice info, struct slice class_type, struct slice name)
{
    struct json_iter it;
    struct slice key;
    struct slice about;
    struct slice inputs;
    if (json_kind(info) != JSON_OBJECT)
        return false;
    json_iter_init(&it, info);
    while (json_next(&it, &key, &about))
        if (json_strings_equal(key, class_type) && json_kind(about) == JSON_OBJECT &&
            json_get(about, "input", &inputs) && json_kind(inputs) == JSON_OBJECT)
            return section_marks(inputs, "required", name) ||
                   section_marks(inputs, "optional", name);
    return false;
}

static enum err_code percent_decode(struct slice s, struct buf *out)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (c == '%') {
            int high = i + 2 < s.len ? hex_value(s.ptr[i + 1]) : -1;
            int low = i + 2 < s.len ? hex_value(s.ptr[i + 2]) : -1;
            if (high < 0 || low < 0)
                return ERR_INVALID;
            c = (char)(high * 16 + low);
            i += 2;
        }
        enum err_code code = buf_append(out, (struct slice){&c, 1});
        if (code != ERR_OK)
            return code;
    }
    return ERR_OK;
}

/* data:[<type>][;base64],<data> */
static enum err_code decode_uri(struct slice text, struct buf *out)
{
    static const char mark[] = ";base64";
    size_t mark_len = strlen(mark);
    const char *comma = memchr(text.ptr, ',', text.len);
    if (comma == NULL)
        return ERR_INVALID;
    struct slice head = {text.ptr, (size_t)(comma - text.ptr)};
    struct slice data = {comma + 1, text.len - head.len - 1};
    bool is_base64 = head.len >= mark_len &&
                     slice_eq_nocase((struct slice){comma - mark_len, mark_len}, slice_of(mark));
    return is_base64 ? base64_decode(data, out) : percent_decode(data, out);
}

enum err_code input_decode(struct slice text, enum input_kind kind, struct buf *out,
                           struct err *err)
{
    enum err_code code = kind == INPUT_DATA ? decode_uri(text, out) : base64_decode(text, out);
    if (code == ERR_TOO_LARGE)
        return err_set(err, code, "it has more than %zu bytes", out->max);
    if (code == ERR_BUSY)
        return err_set(err, code, "there is no memory for it at the moment");
    if (code != ERR_OK)
        return err_set(err, code,
                       kind == INPUT_DATA ? "it is no well-formed data: URI" : "it is not base64");
    return ERR_OK;
}
