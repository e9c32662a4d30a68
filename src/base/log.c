#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { LOG_BUFFER = 16 * 1024 };

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static enum log_level log_threshold = LOG_INFO;
static int log_fd = STDERR_FILENO;
static char log_buffer[LOG_BUFFER];
static size_t log_used;

void log_set_output(int fd)
{
    log_flush();
    log_fd = fd;
}

void log_set_level(enum log_level level)
{
    log_threshold = level;
}

bool log_level_parse(const char *name, enum log_level *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *ret = (enum log_level)i;
            return true;
        }
    }
    return false;
}

bool log_enabled(enum log_level level)
{
    return level <= log_threshold;
}

void log_flush(void)
{
    size_t done = 0;
    while (done < log_used) {
        ssize_t n = write(log_fd, log_buffer + done, log_used - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* nobody reads it: the lines are lost, the work goes on */
        done += (size_t)n;
    }
    log_used = 0;
}

struct line {
    char text[LOG_LINE_MAX];
    size_t len;
};

static void line_char(struct line *l, char c)
{
    if (l->len < LOG_LINE_MAX - 1) /* the last place is the newline's */
        l->text[l->len++] = c;
}

static void line_text(struct line *l, const char *s)
{
    while (*s != '\0')
        line_char(l, *s++);
}

static void line_escaped(struct line *l, struct slice s, bool quoted)
{
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < 0x20 || c == 0x7f || (quoted && (c == '"' || c == '\\'))) {
            line_text(l, "\\x");
            line_char(l, hex[c >> 4]);
            line_char(l, hex[c & 15]);
        } else {
            line_char(l, (char)c);
        }
    }
}

static bool is_plain(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c <= 0x20 || c >= 0x7f || c == '"' || c == '\\' || c == '=')
            return false;
    }
    return s.len > 0;
}

static void line_value(struct line *l, struct slice s)
{
    if (is_plain(s)) {
        line_escaped(l, s, false);
        return;
    }
    line_char(l, '"');
    line_escaped(l, s, true);
    line_char(l, '"');
}

static char digit(unsigned n)
{
    return (char)('0' + n);
}

static void line_time(struct line *l)
{
    static time_t second = -1;
    static char text[40]; /* of that second */
    struct timespec ts;
    struct tm tm;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    if (ts.tv_sec != second) {
        second = ts.tv_sec;
        (void)gmtime_r(&second, &tm);
        (void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S.", &tm);
    }
    line_text(l, text);
    unsigned ms = (unsigned)(ts.tv_nsec / 1000000);
    const char rest[] = {digit(ms / 100), digit(ms / 10 % 10), digit(ms % 10), 'Z', ' ', '\0'};
    line_text(l, rest);
}

static void log_out(struct slice line)
{
    if (log_used + line.len > LOG_BUFFER)
        log_flush();
    ASSERT(line.len <= LOG_BUFFER);
    memcpy(log_buffer + log_used, line.ptr, line.len);
    log_used += line.len;
}

static void line_out(struct line *l)
{
    l->text[l->len++] = '\n';
    log_out((struct slice){l->text, l->len});
}

/* --- JSON ------------------------------------------------------------------------------------ */

static bool log_json;

void log_set_json(bool json)
{
    log_json = json;
}

static void json_member(struct buf *out, const char *key, struct slice value)
{
    if (value.len > LOG_JSON_VALUE)
        value.len = LOG_JSON_VALUE;
    buf_adds(out, ",");
    buf_add_json_string(out, slice_of(key));
    buf_adds(out, ":");
    buf_add_json_string(out, value);
}

static void json_line(enum log_level level, const char *module, struct slice message,
                      const struct log_field *fields)
{
    struct line time = {.len = 0};
    struct buf out;
    line_time(&time);
    buf_init(&out, SIZE_MAX);
    buf_addf(&out, "{\"time\":\"%.*s\"", (int)time.len - 1, time.text); /* without its blank */
    json_member(&out, "level", slice_of(level_names[level]));
    json_member(&out, "module", slice_of(module));
    json_member(&out, "message", message);
    for (; fields != NULL && fields->key != NULL; fields++)
        if (fields->value.len > 0)
            json_member(&out, fields->key, fields->value);
    buf_adds(&out, "}\n");
    log_out(buf_slice(&out));
    buf_done(&out);
}

void log_fields(enum log_level level, const char *module, const struct log_field *fields,
                const char *fmt, ...)
{
    if (!log_enabled(level))
        return;
    struct line l = {.len = 0};
    char text[LOG_LINE_MAX];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1;
    if (log_json) {
        json_line(level, module, (struct slice){text, len}, fields);
        if (level == LOG_ERROR)
            log_flush();
        return;
    }
    line_time(&l);
    line_text(&l, level_names[level]);
    line_char(&l, ' ');
    line_text(&l, module);
    line_char(&l, ' ');
    line_escaped(&l, (struct slice){text, len}, false);
    for (; fields != NULL && fields->key != NULL; fields++) {
        line_char(&l, ' ');
        line_text(&l, fields->key);
        line_char(&l, '=');
        line_value(&l, fields->value);
    }
    line_out(&l);
    if (level == LOG_ERROR)
        log_flush();
}

void log_child(const char *name, struct slice line)
{
    struct line l = {.len = 0};
    if (log_json) {
        json_line(LOG_INFO, name, line, NULL);
        return;
    }
    line_text(&l, name);
    line_text(&l, ": ");
    line_escaped(&l, line, false);
    line_out(&l);
}

void log_marker(const char *line)
{
    struct line l = {.len = 0};
    line_text(&l, line);
    line_out(&l);
    log_flush();
}
