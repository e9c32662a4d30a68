/* The table is compiled into an array of rows; each row knows where in struct config its value lies
 * and how to read a text into it. */
#include "config.h"

#include <inttypes.h>
#include <stdlib.h>

enum config_type { TYPE_UINT, TYPE_MSEC, TYPE_TEXT, TYPE_SECRET, TYPE_SWITCH, TYPE_CHOICE };

struct config_row {
    enum config_type type;
    size_t at; /* of the field in struct config */
    const char *name, *fallback, *text;
    uint64_t min, max;
};

#define CFG_AT_UINT(field)   offsetof(struct config, field)
#define CFG_AT_MSEC(field)   offsetof(struct config, field##_ms)
#define CFG_AT_TEXT(field)   offsetof(struct config, field)
#define CFG_AT_SECRET(field) offsetof(struct config, field)
#define CFG_AT_SWITCH(field) offsetof(struct config, field)
#define CFG_AT_CHOICE(field) offsetof(struct config, field)

static const struct config_row rows[] = {
#define CFG(type, field, name, fallback, min, max, text)                                           \
    {TYPE_##type, CFG_AT_##type(field), name, fallback, text, min, max},
#include "config.def"
#undef CFG
};

static void *field_of(struct config *cfg, const struct config_row *row)
{
    return (char *)cfg + row->at;
}

static const void *const_field_of(const struct config *cfg, const struct config_row *row)
{
    return (const char *)cfg + row->at;
}

/* --- one value ------------------------------------------------------------------------------- */

/* 90, 90s, 15m, 24h, 500ms → milliseconds. */
static bool parse_msec(struct slice s, uint64_t max, uint64_t *ret)
{
    static const struct {
        const char *suffix;
        uint64_t factor;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"", 1000}};
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        size_t len = strlen(units[i].suffix);
        if (s.len < len || memcmp(s.ptr + s.len - len, units[i].suffix, len) != 0)
            continue;
        uint64_t count;
        if (!slice_to_u64((struct slice){s.ptr, s.len - len}, max / units[i].factor, &count))
            return false;
        *ret = count * units[i].factor;
        return true;
    }
    return false;
}

static bool parse_switch(struct slice s, bool *ret)
{
    static const char *const yes[] = {"1", "true", "yes", "on"};
    static const char *const no[] = {"0", "false", "no", "off"};
    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        bool is_yes = slice_eq_nocase(s, slice_of(yes[i]));
        if (is_yes || slice_eq_nocase(s, slice_of(no[i]))) {
            *ret = is_yes;
            return true;
        }
    }
    return false;
}

/* The word of `words` (blanks between) that s is: a copy, to be freed; NULL if it is none. */
static char *find_word(const char *words, struct slice s)
{
    while (*words != '\0') {
        size_t len = strcspn(words, " ");
        if (slice_eq_nocase(s, (struct slice){words, len})) {
            char *word = xmalloc(len + 1);
            memcpy(word, words, len);
            word[len] = '\0';
            return word;
        }
        words += len + strspn(words + len, " ");
    }
    return NULL;
}

static const char *default_of(const struct config_row *row, char *room, size_t size)
{
    size_t len = row->type == TYPE_CHOICE ? strcspn(row->fallback, " ") : strlen(row->fallback);
    ASSERT(len < size);
    memcpy(room, row->fallback, len);
    room[len] = '\0';
    return room;
}

static bool read_value(struct config *cfg, const struct config_row *row, const char *text)
{
    struct slice s = slice_of(text);
    void *field = field_of(cfg, row);
    uint64_t number = 0;
    char *word = NULL;
    switch (row->type) {
    case TYPE_UINT:
        if (!slice_to_u64(s, row->max, &number) || number < row->min)
            return false;
        *(uint64_t *)field = number;
        return true;
    case TYPE_MSEC:
        if (!parse_msec(s, row->max, &number) || number < row->min)
            return false;
        *(uint64_t *)field = number;
        return true;
    case TYPE_TEXT:
    case TYPE_SECRET:
        if (s.len < row->min || s.len > row->max)
            return false;
        *(char **)field = xstrdup(text);
        return true;
    case TYPE_SWITCH: return parse_switch(s, field);
    case TYPE_CHOICE:
        word = find_word(row->fallback, s);
        if (word != NULL)
            *(char **)field = word;
        return word != NULL;
    }
    return false;
}

/* --- what is allowed, for people ---------------------------------------------------------------
 */

static void add_msec(struct buf *out, uint64_t ms)
{
    if (ms % 3600000 == 0 && ms > 0)
        buf_addf(out, "%" PRIu64 "h", ms / 3600000);
    else if (ms % 60000 == 0 && ms > 0)
        buf_addf(out, "%" PRIu64 "m", ms / 60000);
    else if (ms % 1000 == 0)
        buf_addf(out, "%" PRIu64 "s", ms / 1000);
    else
        buf_addf(out, "%" PRIu64 "ms", ms);
}

static void add_allowed(struct buf *out, const struct config_row *row)
{
    switch (row->type) {
    case TYPE_UINT:
        buf_addf(out, "a whole number from %" PRIu64 " to %" PRIu64, row->min, row->max);
        break;
    case TYPE_MSEC:
        buf_adds(out, "a time from ");
        add_msec(out, row->min);
        buf_adds(out, " to ");
        add_msec(out, row->max);
        buf_adds(out, ", such as 90s, 15m, 24h or 500ms");
        break;
    case TYPE_TEXT:
    case TYPE_SECRET:
        buf_addf(out, "a text of %" PRIu64 " to %" PRIu64 " characters", row->min, row->max);
        break;
    case TYPE_SWITCH: buf_adds(out, "0 or 1"); break;
    case TYPE_CHOICE: buf_addf(out, "one of: %s", row->fallback); break;
    }
}

/* As much of a value as helps to find it; of a URL, which may hold a password, its scheme. */
static struct slice shown(const char *text)
{
    enum { SHOWN_MAX = 100 };
    const char *scheme = strstr(text, "://");
    size_t len = scheme != NULL ? (size_t)(scheme - text) + 3 : strlen(text);
    return (struct slice){text, len < SHOWN_MAX ? len : SHOWN_MAX};
}

static void add_fault(struct buf *out, const struct config_row *row, const char *text)
{
    buf_addf(out, "%s must be ", row->name);
    add_allowed(out, row);
    if (row->type != TYPE_SECRET) {
        struct slice start = shown(text);
        buf_adds(out, text[start.len] == '\0' ? ", but is " : ", but begins with ");
        buf_add_json_string(out, start);
    }
    buf_adds(out, "\n");
}

/* --- all ------------------------------------------------------------------------------------- */

bool config_load(struct config *cfg, config_getenv_fn get, struct buf *faults)
{
    bool ok = true;
    char room[256];
    *cfg = (struct config){.max_queue = 0};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *text = get(rows[i].name);
        if (text != NULL && text[0] != '\0' && !read_value(cfg, &rows[i], text)) {
            add_fault(faults, &rows[i], text);
            ok = false;
            text = NULL;
        }
        if (text == NULL || text[0] == '\0')
            ASSERT(read_value(cfg, &rows[i], default_of(&rows[i], room, sizeof(room))));
    }
    return ok;
}

static bool is_text(const struct config_row *row)
{
    return row->type == TYPE_TEXT || row->type == TYPE_SECRET || row->type == TYPE_CHOICE;
}

void config_done(struct config *cfg)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (is_text(&rows[i]))
            free(*(char **)field_of(cfg, &rows[i]));
    *cfg = (struct config){.max_queue = 0};
}

void config_help(struct buf *out)
{
    char room[256];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        buf_addf(out, "  %s", rows[i].name);
        const char *fallback = default_of(&rows[i], room, sizeof(room));
        if (fallback[0] != '\0')
            buf_addf(out, " (%s)", fallback);
        buf_addf(out, "\n      %s\n", rows[i].text);
    }
}

void config_markdown(struct buf *out)
{
    char room[256];
    buf_adds(out, "| variable | default | meaning |\n|---|---|---|\n");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *fallback = default_of(&rows[i], room, sizeof(room));
        buf_addf(out, "| `%s` | ", rows[i].name);
        buf_addf(out, fallback[0] != '\0' ? "`%s` | " : "%s– | ", fallback);
        buf_addf(out, "%s |\n", rows[i].text);
    }
}

static void add_value(struct buf *out, const struct config *cfg, const struct config_row *row)
{
    const void *field = const_field_of(cfg, row);
    switch (row->type) {
    case TYPE_UINT: buf_addf(out, "%" PRIu64, *(const uint64_t *)field); break;
    case TYPE_MSEC: add_msec(out, *(const uint64_t *)field); break;
    case TYPE_SECRET: buf_adds(out, **(char *const *)field != '\0' ? "***" : ""); break;
    case TYPE_SWITCH: buf_adds(out, *(const bool *)field ? "1" : "0"); break;
    case TYPE_TEXT:
    case TYPE_CHOICE: buf_adds(out, *(char *const *)field); break;
    }
}

/* A URL's password is none of the log's business: scheme://user:***@host. */
static void hide_password(struct buf *value)
{
    char *scheme = strstr(value->ptr, "://");
    char *at = scheme != NULL ? strrchr(scheme, '@') : NULL;
    char *colon = at != NULL ? strchr(scheme + 3, ':') : NULL;
    if (colon == NULL || colon > at)
        return;
    struct buf hidden;
    buf_init(&hidden, SIZE_MAX);
    buf_add(&hidden, (struct slice){value->ptr, (size_t)(colon + 1 - value->ptr)});
    buf_adds(&hidden, "***");
    buf_adds(&hidden, at);
    buf_done(value);
    *value = hidden;
}

void config_describe(const struct config *cfg, struct buf *out)
{
    struct config defaults;
    char room[256];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf now;
        struct buf usual;
        buf_init(&now, SIZE_MAX);
        buf_init(&usual, SIZE_MAX);
        defaults = (struct config){.max_queue = 0};
        ASSERT(read_value(&defaults, &rows[i], default_of(&rows[i], room, sizeof(room))));
        add_value(&now, cfg, &rows[i]);
        add_value(&usual, &defaults, &rows[i]);
        if (!slice_eq(buf_slice(&now), buf_slice(&usual))) {
            hide_password(&now);
            buf_addf(out, "%s%s=%s", out->len > 0 ? " " : "", rows[i].name, now.ptr);
        }
        if (is_text(&rows[i]))
            free(*(char **)field_of(&defaults, &rows[i]));
        buf_done(&now);
        buf_done(&usual);
    }
}
