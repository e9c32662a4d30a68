#include "warmup.h"

#include "codec.h"
#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WARMUP_BYTES_MAX = 4 * 1024 * 1024 };

struct warmup {
    uv_loop_t *loop;
    struct task_hub *hub;
    char *path;
    bool started, over, freed;
    uv_work_t work; /* the file may lie on a mount that hangs */
    bool working;
    struct buf text;
    struct err err;
    struct task_watch watch;
    bool watching;
};

struct warmup *warmup_new(uv_loop_t *loop, struct task_hub *hub, const char *path)
{
    struct warmup *w = xcalloc(1, sizeof(*w));
    w->loop = loop;
    w->hub = hub;
    w->path = xstrdup(path);
    w->over = path[0] == '\0';
    buf_init(&w->text, WARMUP_BYTES_MAX);
    return w;
}

void warmup_free(struct warmup *w)
{
    w->freed = true;
    if (w->watching)
        task_watch_stop(&w->watch);
    w->watching = false;
    if (w->working)
        return;
    buf_done(&w->text);
    free(w->path);
    free(w);
}

bool warmup_is_over(const struct warmup *w)
{
    return w->over;
}

static void warmup_fail(struct warmup *w, const char *why)
{
    const struct log_field fields[] = {
        {"file", slice_of(w->path)}, {"why", slice_of(why)}, {NULL, SLICE_EMPTY}};
    log_fields(LOG_WARN, "warmup", fields, "did not work");
    w->over = true;
}

/* --- the run --------------------------------------------------------------------------------- */

static void warmup_on_end(struct task_watch *watch)
{
    struct warmup *w = CONTAINER_OF(watch, struct warmup, watch);
    const struct failure *f = task_failure(watch->task);
    if (f != NULL)
        warmup_fail(w, f->json.ptr);
    else
        log_info("warmup", "done");
    w->over = true;
    w->watching = false;
    task_watch_stop(watch);
}

static void warmup_run(struct warmup *w)
{
    char id[UUID_TEXT + 1];
    struct prompt prompt;
    struct prompt_fault fault;
    struct task *t;
    struct err err;
    bool joined;
    if (prompt_parse(&prompt, &w->text, &fault) != ERR_OK) {
        warmup_fail(w, fault.err.msg);
        prompt_done(&prompt);
        return;
    }
    uuid_v4(id);
    struct task_spec spec = {.id = id, .request_id = "", .take_prompt = &prompt};
    if (task_hub_create(w->hub, &spec, &t, &joined, &err) != ERR_OK) {
        warmup_fail(w, err.msg);
        prompt_done(&prompt);
        return;
    }
    log_info("warmup", "runs as task %s", id);
    w->watch.on_end = warmup_on_end;
    w->watching = true;
    task_watch_start(&w->watch, t);
    task_unref(t);
}

/* --- the file -------------------------------------------------------------------------------- */

static void warmup_read_work(uv_work_t *work)
{
    struct warmup *w = work->data;
    char part[16 * 1024];
    size_t n;
    FILE *file = fopen(w->path, "re");
    if (file == NULL) {
        (void)err_set(&w->err, ERR_IO, "%s", strerror(errno));
        return;
    }
    while ((n = fread(part, 1, sizeof(part), file)) > 0)
        if (buf_append(&w->text, (struct slice){part, n}) != ERR_OK) {
            (void)err_set(&w->err, ERR_TOO_LARGE, "more than %d bytes", WARMUP_BYTES_MAX);
            break;
        }
    if (ferror(file) != 0)
        (void)err_set(&w->err, ERR_IO, "it cannot be read");
    (void)fclose(file);
}

static void warmup_on_read(uv_work_t *work, int status)
{
    struct warmup *w = work->data;
    (void)status; /* is never cancelled */
    w->working = false;
    if (w->freed)
        warmup_free(w);
    else if (w->err.code != ERR_OK)
        warmup_fail(w, w->err.msg);
    else
        warmup_run(w);
}

void warmup_start(struct warmup *w)
{
    if (w->started || w->over)
        return;
    w->started = true;
    w->working = true;
    w->work.data = w;
    ASSERT(uv_queue_work(w->loop, &w->work, warmup_read_work, warmup_on_read) == 0);
}
