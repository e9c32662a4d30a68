/* Settings from arbitrary text, a line each: NAME=value. What is loaded is described, and what is
 * described loads as the same; faults are told a line each; and what is secret changes nothing of
 * what is printed. */
#include "config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TYPE_UINT, TYPE_MSEC, TYPE_TEXT, TYPE_SECRET, TYPE_SWITCH, TYPE_CHOICE };

static const struct {
    const char *name;
    int type;
} rows[] = {
#define CFG(type, field, name, fallback, min, max, text) {name, TYPE_##type},
#include "config.def"
#undef CFG
};
static char *values[ARRAY_LEN(rows)]; /* NULL: not set */

static const char *get(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (strcmp(rows[i].name, name) == 0)
            return values[i];
    return NULL;
}

static char *text_of(struct slice s)
{
    char *text = xmalloc(s.len + 1);
    memcpy(text, s.ptr, s.len);
    text[s.len] = '\0';
    return text;
}

static void set(struct slice line)
{
    struct slice value = line;
    struct slice name = slice_next(&value, '=');
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (slice_is(name, rows[i].name)) {
            free(values[i]);
            values[i] = text_of(value);
        }
    }
}

static void forget(void)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        free(values[i]);
        values[i] = NULL;
    }
}

static void set_all(struct slice text)
{
    forget();
    while (text.len > 0) {
        const char *end = memchr(text.ptr, '\n', text.len);
        size_t len = end != NULL ? (size_t)(end - text.ptr) : text.len;
        set((struct slice){text.ptr, len});
        len += end != NULL;
        text = (struct slice){text.ptr + len, text.len - len};
    }
}

/* Everything that is ever printed about the settings. */
static bool print(struct buf *out, struct buf *faults)
{
    struct config cfg;
    buf_init(out, SIZE_MAX);
    buf_init(faults, SIZE_MAX);
    bool ok = config_load(&cfg, get, faults);
    config_describe(&cfg, out);
    config_done(&cfg);
    return ok;
}

static void check_faults(bool ok, struct slice faults)
{
    ASSERT(ok == (faults.len == 0));
    while (faults.len > 0) {
        const char *end = memchr(faults.ptr, '\n', faults.len);
        struct slice line = {faults.ptr, strcspn(faults.ptr, " ")};
        bool known = false;
        ASSERT(end != NULL);
        for (size_t i = 0; i < ARRAY_LEN(rows); i++)
            known = known || slice_is(line, rows[i].name);
        ASSERT(known);
        faults.len -= (size_t)(end + 1 - faults.ptr);
        faults.ptr = end + 1;
    }
}

/* Where a password stands in scheme://user:password@host. */
static struct slice password_in(char *text)
{
    char *scheme = strstr(text, "://");
    char *at = scheme != NULL ? strrchr(scheme, '@') : NULL;
    char *colon = at != NULL ? strchr(scheme + 3, ':') : NULL;
    if (colon == NULL || colon > at)
        return SLICE_EMPTY;
    return (struct slice){colon + 1, (size_t)(at - colon) - 1};
}

static void check_secrets(struct slice shown, struct slice faults)
{
    struct buf other, other_faults;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (values[i] == NULL)
            continue;
        struct slice secret = rows[i].type == TYPE_SECRET ? slice_of(values[i])
                              : rows[i].type == TYPE_TEXT ? password_in(values[i])
                                                          : SLICE_EMPTY;
        if (secret.len > 0)
            memset(values[i] + (secret.ptr - values[i]), 'x', secret.len);
    }
    (void)print(&other, &other_faults);
    ASSERT(slice_eq(shown, buf_slice(&other)) && slice_eq(faults, buf_slice(&other_faults)));
    buf_done(&other);
    buf_done(&other_faults);
}

/* Texts may hold blanks, which nothing sets apart from the next setting: those are left out. */
static void check_again(struct slice shown)
{
    struct buf again, faults;
    struct buf lines;
    buf_init(&lines, SIZE_MAX);
    buf_add(&lines, shown);
    for (size_t i = 0; i < lines.len; i++)
        if (lines.ptr[i] == ' ')
            lines.ptr[i] = '\n';
    set_all(buf_slice(&lines));
    ASSERT(print(&again, &faults));
    ASSERT(slice_eq(shown, buf_slice(&again)));
    buf_done(&lines);
    buf_done(&again);
    buf_done(&faults);
}

static bool has_blanks(void)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (values[i] != NULL && strpbrk(values[i], " \n") != NULL)
            return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf shown, faults;
    set_all((struct slice){size > 0 ? (const char *)data : "", size});
    bool blanks = has_blanks();
    bool ok = print(&shown, &faults);
    check_faults(ok, buf_slice(&faults));
    check_secrets(buf_slice(&shown), buf_slice(&faults));
    if (ok && !blanks)
        check_again(buf_slice(&shown));
    forget();
    buf_done(&shown);
    buf_done(&faults);
    return 0;
}
