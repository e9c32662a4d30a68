/* GET /api/workflows: the names of the files in WORKFLOWS_DIR. GET /api/workflows/{name}: one of
 * them as it is, once it is seen to be JSON; what is in it is the page's business.
 *
 *     request ─► worker: read the directory or the file ─► loop: answer
 *
 * A client that leaves meanwhile costs the worker's turn and nothing else. */
#include "answer.h"
#include "api.h"
#include "json_scan.h"
#include "workers.h"
#include "workflows.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORKFLOWS_ENDING ".json"
enum {
    WORKFLOWS_MAX = 1000,
    WORKFLOWS_NAME_MAX = 200, /* bytes, without the ending */
    WORKFLOWS_BYTES_MAX = 4 * 1024 * 1024,
    WORKFLOWS_WAITING_MAX = 32, /* requests */
    WORKFLOWS_PATIENCE_MS = 1000,
};

struct workflows {
    char *dir;
    struct workers *workers;
    void (*freed)(void *ctx);
    void *freed_ctx;
};

struct workflows_call {
    struct work work;
    struct http_req *req; /* NULL: the client has left */
    char *dir;
    char file[WORKFLOWS_NAME_MAX + sizeof(WORKFLOWS_ENDING)]; /* empty: the list is asked for */
    struct buf body;
    struct err err;
};

struct workflows *workflows_new(uv_loop_t *loop, const char *dir)
{
    struct workflows *w = xcalloc(1, sizeof(*w));
    w->dir = xstrdup(dir);
    w->workers = workers_new(loop, 1);
    return w;
}

static void workflows_on_closed(void *ctx, unsigned stuck)
{
    struct workflows *w = ctx;
    (void)stuck; /* a thread in a dead mount ends with the process */
    w->freed(w->freed_ctx);
    free(w->dir);
    free(w);
}

void workflows_free(struct workflows *w, void (*freed)(void *ctx), void *ctx)
{
    w->freed = freed;
    w->freed_ctx = ctx;
    workers_close(w->workers, WORKFLOWS_PATIENCE_MS, workflows_on_closed, w);
}

/* --- names ----------------------------------------------------------------------------------- */

/* What a person would call a file. No path, nothing hidden, nothing that a log or a page would
 * show as something else. */
static bool name_is_ok(struct slice name)
{
    if (name.len == 0 || name.len > WORKFLOWS_NAME_MAX || name.ptr[0] == '.')
        return false;
    for (size_t i = 0; i < name.len;) {
        unsigned char c = (unsigned char)name.ptr[i];
        size_t len = utf8_char_len(name.ptr + i, name.len - i);
        if (len == 0 || c < ' ' || c == 0x7f || c == '/' || c == '\\')
            return false;
        i += len;
    }
    return true;
}

/* Without its ending; empty: not one of ours. */
static struct slice name_of_file(const char *file)
{
    struct slice name = slice_of(file);
    size_t ending = strlen(WORKFLOWS_ENDING);
    if (name.len <= ending || strcmp(file + name.len - ending, WORKFLOWS_ENDING) != 0)
        return SLICE_EMPTY;
    name.len -= ending;
    return name_is_ok(name) ? name : SLICE_EMPTY;
}

/* --- on the worker --------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void add_names(struct workflows_call *c, char **names, size_t count)
{
    qsort(names, count, sizeof(*names), compare_names);
    buf_adds(&c->body, "{\"workflows\":[");
    for (size_t i = 0; i < count; i++) {
        buf_adds(&c->body, i > 0 ? ",{\"name\":" : "{\"name\":");
        buf_add_json_string(&c->body, name_of_file(names[i]));
        buf_adds(&c->body, "}");
        free(names[i]);
    }
    buf_adds(&c->body, "]}");
}

static void list_work(struct work *work)
{
    struct workflows_call *c = CONTAINER_OF(work, struct workflows_call, work);
    char **names = xcalloc(WORKFLOWS_MAX, sizeof(*names));
    size_t count = 0;
    struct dirent *entry;
    DIR *dir = c->dir[0] != '\0' ? opendir(c->dir) : NULL;
    if (dir == NULL && c->dir[0] != '\0' && errno != ENOENT)
        (void)err_set(&c->err, ERR_IO, "WORKFLOWS_DIR: %s", strerror(errno));
    while (dir != NULL && count < WORKFLOWS_MAX && (entry = readdir(dir)) != NULL)
        if (name_of_file(entry->d_name).len > 0)
            names[count++] = xstrdup(entry->d_name);
    if (dir != NULL)
        (void)closedir(dir);
    add_names(c, names, count);
    free(names);
}

/* O_NONBLOCK: a pipe of that name would otherwise hold the thread for ever. Links are followed:
 * whoever can make one there can put a file there. */
static int file_open(struct workflows_call *c)
{
    struct stat st;
    int fd = -1;
    int dir = c->dir[0] != '\0' ? open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (dir >= 0) {
        fd = openat(dir, c->file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        (void)close(dir);
    }
    if (fd < 0) {
        (void)err_set(&c->err, ERR_NOT_FOUND, "there is no such workflow");
    } else if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)err_set(&c->err, ERR_NOT_FOUND, "there is no such workflow");
        (void)close(fd);
        fd = -1;
    }
    return fd;
}

static void file_work(struct work *work)
{
    struct workflows_call *c = CONTAINER_OF(work, struct workflows_call, work);
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX, .values = JSON_VALUES_MAX};
    char part[16 * 1024];
    ssize_t n;
    int fd = file_open(c);
    if (fd < 0)
        return;
    while ((n = read(fd, part, sizeof(part))) > 0)
        if (buf_append(&c->body, (struct slice){part, (size_t)n}) != ERR_OK) {
            (void)err_set(&c->err, ERR_TOO_LARGE, "the file has more than %d bytes",
                          WORKFLOWS_BYTES_MAX);
            break;
        }
    if (n < 0)
        (void)err_set(&c->err, ERR_IO, "%s", strerror(errno));
    (void)close(fd);
    if (c->err.code == ERR_OK && json_check(buf_slice(&c->body), &limits, NULL, &c->err) != ERR_OK)
        c->err.code = ERR_CORRUPT;
}

/* --- on the loop ----------------------------------------------------------------------------- */

static void call_free(struct workflows_call *c)
{
    buf_done(&c->body);
    free(c->dir);
    free(c);
}

static void call_on_abort(struct http_req *req)
{
    struct workflows_call *c = http_req_data(req);
    c->req = NULL;
}

static void call_on_done(struct work *work)
{
    struct workflows_call *c = CONTAINER_OF(work, struct workflows_call, work);
    const char *why = c->err.msg;
    if (c->req == NULL)
        ;
    else if (c->err.code == ERR_OK)
        answer_json(c->req, 200, buf_slice(&c->body), NULL);
    else if (c->err.code == ERR_NOT_FOUND)
        answer_error(c->req, 404, "NotFoundError", "not_found", why, NULL);
    else if (c->err.code == ERR_CORRUPT)
        answer_error(c->req, 502, "WorkflowError", "workflow_not_json", why, NULL);
    else
        answer_error(c->req, 502, "WorkflowError", "workflow_unreadable", why, NULL);
    call_free(c);
}

static void call_start(struct api *api, struct http_req *req, struct slice name)
{
    if (workers_pending(api->workflows->workers) >= WORKFLOWS_WAITING_MAX) {
        answer_error(req, 503, "WorkflowError", "busy", "WORKFLOWS_DIR does not answer", NULL);
        return;
    }
    struct workflows_call *c = xcalloc(1, sizeof(*c));
    c->req = req;
    c->dir = xstrdup(api->workflows->dir);
    if (name.len > 0)
        (void)snprintf(c->file, sizeof(c->file), "%.*s" WORKFLOWS_ENDING, SLICE_ARGS(name));
    buf_init(&c->body, name.len > 0 ? WORKFLOWS_BYTES_MAX : SIZE_MAX);
    c->work.run = name.len > 0 ? file_work : list_work;
    c->work.done = call_on_done;
    http_req_set_data(req, c);
    http_on_abort(req, call_on_abort);
    workers_add(api->workflows->workers, &c->work);
}

void api_workflow_list(struct api *api, struct http_req *req, struct slice param)
{
    (void)param;
    call_start(api, req, SLICE_EMPTY);
}

void api_workflow(struct api *api, struct http_req *req, struct slice param)
{
    struct buf name;
    buf_init(&name, WORKFLOWS_NAME_MAX);
    if (http_percent_decode(param, &name) != ERR_OK || !name_is_ok(buf_slice(&name)))
        answer_error(req, 404, "NotFoundError", "not_found", "there is no such workflow", NULL);
    else
        call_start(api, req, buf_slice(&name));
    buf_done(&name);
}
