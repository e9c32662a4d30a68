/* Settings: environment variables from one table (config.def), which makes the struct, the parser,
 * --help and the README's table. All bad variables are reported together. Only main.c, app.c and
 * app_settings.c read struct config; everything else is given options. */
#ifndef CONFIG_H
#define CONFIG_H

#include "buf.h"

#define CFG_FIELD_UINT(field)   uint64_t field;
#define CFG_FIELD_MSEC(field)   uint64_t field##_ms;
#define CFG_FIELD_TEXT(field)   char *field;
#define CFG_FIELD_SECRET(field) char *field;
#define CFG_FIELD_SWITCH(field) bool field;
#define CFG_FIELD_CHOICE(field) char *field; /* one of the row's words */

struct config {
#define CFG(type, field, name, fallback, min, max, text) CFG_FIELD_##type(field)
#include "config.def"
#undef CFG
};

typedef const char *(*config_getenv_fn)(const char *name);

/* False: one line per fault was appended to *faults and config_done() must still be called. */
bool config_load(struct config *cfg, config_getenv_fn get, struct buf *faults) MUST_CHECK;
void config_done(struct config *cfg);

void config_help(struct buf *out);     /* for --help */
void config_markdown(struct buf *out); /* the README's table */
/* NAME=value of every setting that differs from its default, secrets as ***. For the start line. */
void config_describe(const struct config *cfg, struct buf *out);

#endif
