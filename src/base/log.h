/* One line per event on stderr (or log_set_output()): `2026-01-02T03:04:05.678Z info task  ended
 * task=x status=failed`.
 *
 * Lines gather in one buffer and leave with log_flush() (the loop calls it once per turn; error
 * lines, a full buffer and the end of the program flush at once), so a burst costs one write. Text
 * from outside is escaped and quoted; a line has at most 1 KiB. Never bodies, never secrets.
 * `error` = somebody must act; `warn` = we went on; `info` = changes of state; `debug` = off.
 * Loop thread only.
 */
#ifndef LOG_H
#define LOG_H

#include "buf.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum { LOG_LINE_MAX = 1024, LOG_JSON_VALUE = 1024 };

struct log_field {
    const char *key; /* NULL ends the list */
    struct slice value;
};

/* Lines as JSON objects: time, level, module, message, then the fields. Values are cut to
 * LOG_JSON_VALUE bytes, so that a line always parses. */
void log_set_json(bool json);
void log_set_output(int fd);
void log_set_level(enum log_level level);
bool log_level_parse(const char *name, enum log_level *ret);
bool log_enabled(enum log_level level);

/* "module" has at most 8 letters; fmt is our own text, fields are escaped. */
void log_fields(enum log_level level, const char *module, const struct log_field *fields,
                const char *fmt, ...) PRINTF_LIKE(4, 5);
/* What a child printed, as a line of its own with its name in front. */
void log_child(const char *name, struct slice line);
/* A line as it is, for others to look for; leaves at once, with all before it. */
void log_marker(const char *line);
void log_flush(void);

#define log_error(module, ...) log_fields(LOG_ERROR, module, NULL, __VA_ARGS__)
#define log_warn(module, ...)  log_fields(LOG_WARN, module, NULL, __VA_ARGS__)
#define log_info(module, ...)  log_fields(LOG_INFO, module, NULL, __VA_ARGS__)
#define log_debug(module, ...) log_fields(LOG_DEBUG, module, NULL, __VA_ARGS__)

#endif
