/* One call goes through
 *
 *     OPEN ─► on_head ─► READ ─► on_part ─► READ … ─► on_end, CLOSE
 *
 * where the words in capitals are work for a thread. A call that ends early (cancelled, too slow)
 * ends at once; what a thread is still at comes back to a job without a call, which closes and
 * frees. */
#include "http_file.h"

#include "closer.h"
#include "deadline.h"
#include "dir_file.h"
#include "later.h"
#include "workers.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_THREADS = 4, FILES_PART = 64 * 1024, FILES_IDLE_MS = 60000, FILES_CLOSE_MS = 1000 };

struct http_files {
    struct later *later;
    struct workers *workers;
    struct deadlines deadlines;
    struct deadline_class idle;
    char *output_dir, *input_dir;
    struct closer closer; /* workers, deadlines */
    bool closing;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

struct job {
    struct http_files *files;
    struct http_call *call; /* NULL: it has ended */
    struct later_item turn;
    struct deadline idle;
    bool ending, paused;
    struct err err; /* of the end */

    /* a thread's while `working` */
    struct work work;
    bool working;
    const char *dir;
    char folder[DIR_PATH_MAX], name[DIR_NAME_MAX + 1];
    int fd;
    struct stat st;
    uint64_t at, end; /* of what is to be read */
    struct err work_err;
    size_t part_len;
    char part[FILES_PART];
};

static void job_work(struct job *j, void (*run)(struct work *w), void (*done)(struct work *w))
{
    j->working = true;
    j->work = (struct work){.run = run, .done = done};
    list_init(&j->work.link);
    workers_add(j->files->workers, &j->work);
}

/* --- the end --------------------------------------------------------------------------------- */

static void close_run(struct work *w)
{
    (void)close(CONTAINER_OF(w, struct job, work)->fd);
}

static void close_done(struct work *w)
{
    free(CONTAINER_OF(w, struct job, work));
}

static void job_free(struct job *j)
{
    if (j->fd >= 0 && !j->files->closing) {
        job_work(j, close_run, close_done);
        return;
    }
    if (j->fd >= 0)
        (void)close(j->fd);
    free(j);
}

static void job_on_turn(struct later_item *item)
{
    struct job *j = CONTAINER_OF(item, struct job, turn);
    struct http_call *call = j->call;
    struct http_headers headers = call->res_headers;
    struct err err = j->err;
    j->call = NULL;
    deadline_clear(&j->idle);
    call->driver = NULL;
    call->on_end(call, err.code != ERR_OK ? &err : NULL);
    buf_done(&call->body);
    http_headers_done(&headers);
    if (!j->working)
        job_free(j);
}

static void job_end(struct job *j)
{
    j->ending = true;
    later_add(j->files->later, &j->turn);
}

static void job_fail(struct job *j, enum err_code code)
{
    ASSERT(code != ERR_OK);
    job_end(j);
}

static void files_on_idle(struct deadline *d)
{
    struct job *j = CONTAINER_OF(d, struct job, idle);
    if (!j->ending && j->working)
        job_fail(j, err_set(&j->err, ERR_TIMEOUT, "the disk with the file does not answer"));
}

/* First in each answer of a thread. False: nobody waits for it any more. */
static bool job_is_back(struct job *j)
{
    j->working = false;
    if (j->call != NULL)
        return !j->ending;
    job_free(j);
    return false;
}

/* --- the body -------------------------------------------------------------------------------- */

static void read_run(struct work *w)
{
    struct job *j = CONTAINER_OF(w, struct job, work);
    uint64_t left = j->end - j->at;
    ssize_t n = pread(j->fd, j->part, left < FILES_PART ? left : FILES_PART, (off_t)j->at);
    j->part_len = n > 0 ? (size_t)n : 0;
    if (n == 0)
        (void)err_set(&j->work_err, ERR_CLOSED, "the file became shorter");
    else if (n < 0)
        (void)err_set(&j->work_err, ERR_UNAVAILABLE, "the file cannot be read");
}

static void read_done(struct work *w);

static void job_go_on(struct job *j)
{
    if (j->ending || j->paused || j->working)
        return;
    if (j->at == j->end) {
        job_end(j);
        return;
    }
    deadline_set(&j->files->deadlines, 0, &j->idle);
    job_work(j, read_run, read_done);
}

static void read_done(struct work *w)
{
    struct job *j = CONTAINER_OF(w, struct job, work);
    if (!job_is_back(j))
        return;
    struct http_call *call = j->call;
    struct slice part = {j->part, j->part_len};
    j->at += part.len;
    if (part.len == 0) {
        j->err = j->work_err;
        job_end(j);
        return;
    }
    if (call->on_part != NULL)
        call->on_part(call, part);
    else if (buf_append(&call->body, part) != ERR_OK)
        job_fail(j, err_set(&j->err, ERR_TOO_LARGE, "more than %zu bytes", call->body_max));
    job_go_on(j);
}

/* --- the head -------------------------------------------------------------------------------- */

static void job_add(struct job *j, const char *name, const char *value)
{
    ASSERT(http_headers_add(&j->call->res_headers, slice_of(name), slice_of(value)) == ERR_OK);
}

static bool job_asked(const struct job *j, const char *name, struct slice *ret)
{
    return j->call->headers != NULL && http_headers_get(j->call->headers, name, ret);
}

/* A script among the outputs is none of ours. */
static const char *job_media_type(const struct job *j)
{
    const char *type = http_media_type(slice_of(j->name));
    bool runs = strncmp(type, "text/html", 9) == 0 || strncmp(type, "text/javascript", 15) == 0 ||
                strncmp(type, "text/css", 8) == 0 || strcmp(type, "image/svg+xml") == 0;
    return runs ? "application/octet-stream" : type;
}

static int job_status(struct job *j, const char *etag)
{
    struct slice value;
    char text[96];
    j->at = 0;
    j->end = (uint64_t)j->st.st_size;
    if (job_asked(j, "if-none-match", &value) &&
        (http_list_has(value, slice_of(etag)) || slice_is(slice_trim(value), "*")))
        return 304;
    if (!job_asked(j, "range", &value))
        return 200;
    struct slice condition;
    if (job_asked(j, "if-range", &condition) && !slice_is(slice_trim(condition), etag))
        return 200;
    enum http_range range = http_range_read(value, j->end, &j->at, &j->end);
    if (range == HTTP_RANGE_WHOLE)
        return 200;
    if (range == HTTP_RANGE_BEHIND) {
        (void)snprintf(text, sizeof(text), "bytes */%lld", (long long)j->st.st_size);
        job_add(j, "content-range", text);
        return 416;
    }
    (void)snprintf(text, sizeof(text), "bytes %llu-%llu/%lld", (unsigned long long)j->at,
                   (unsigned long long)(j->end - 1), (long long)j->st.st_size);
    job_add(j, "content-range", text);
    return 206;
}

static void job_answer(struct job *j, int status)
{
    struct http_call *call = j->call;
    bool has_body = status == 200 || status == 206;
    call->status = status;
    call->res_length = has_body ? (int64_t)(j->end - j->at) : 0;
    call->sent = true;
    if (!has_body || strcmp(call->method, "HEAD") == 0)
        j->at = j->end;
    if (call->on_head != NULL)
        call->on_head(call);
    job_go_on(j);
}

/* As aiohttp makes it, so that what ComfyUI has told of a file can be compared. */
static void job_answer_file(struct job *j)
{
    char etag[64];
    uint64_t nanoseconds =
        (uint64_t)j->st.st_mtim.tv_sec * 1000000000 + (uint64_t)j->st.st_mtim.tv_nsec;
    (void)snprintf(etag, sizeof(etag), "\"%llx-%llx\"", (unsigned long long)nanoseconds,
                   (unsigned long long)j->st.st_size);
    job_add(j, "content-type", job_media_type(j));
    job_add(j, "etag", etag);
    job_add(j, "accept-ranges", "bytes");
    job_answer(j, job_status(j, etag));
}

static void open_run(struct work *w)
{
    struct job *j = CONTAINER_OF(w, struct job, work);
    const struct dir_path path = {j->dir, j->folder, j->name};
    enum err_code code = dir_open(&path, &j->fd, &j->work_err);
    if (code == ERR_OK && fstat(j->fd, &j->st) != 0)
        (void)err_set(&j->work_err, ERR_UNAVAILABLE, "the file cannot be read");
}

static void open_done(struct work *w)
{
    struct job *j = CONTAINER_OF(w, struct job, work);
    if (!job_is_back(j))
        return;
    if (j->work_err.code == ERR_OK) {
        job_answer_file(j);
    } else if (j->work_err.code == ERR_NOT_FOUND) {
        job_answer(j, 404);
    } else {
        j->err = j->work_err;
        job_end(j);
    }
}

/* --- the request ----------------------------------------------------------------------------- */

static bool query_text(struct slice query, const char *key, char *ret, size_t room)
{
    struct buf text;
    buf_init(&text, room - 1);
    enum err_code code = http_query_get(query, key, &text);
    struct slice value = buf_slice(&text);
    bool ok = code == ERR_NOT_FOUND || code == ERR_OK;
    slice_copy(code == ERR_OK ? value : SLICE_EMPTY, ret, room);
    buf_done(&text);
    return ok;
}

/* "a.png [input]": ComfyUI's way to name the directory with the file. */
static void take_annotation(char *name, char *type, size_t room)
{
    static const char *const types[] = {"output", "input", "temp"};
    size_t len = strlen(name);
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        char mark[16];
        size_t n = (size_t)snprintf(mark, sizeof(mark), " [%s]", types[i]);
        if (len > n && strcmp(name + len - n, mark) == 0) {
            name[len - n] = '\0';
            (void)snprintf(type, room, "%s", types[i]);
            return;
        }
    }
}

/* The directory and what is in it; work_err: there is none. */
static void job_read_target(struct job *j)
{
    struct http_target target;
    char type[16];
    (void)err_set(&j->work_err, ERR_NOT_FOUND, "that is no name of a file");
    if (http_target_split(j->call->target, &target) != ERR_OK ||
        !query_text(target.query, "filename", j->name, sizeof(j->name)) ||
        !query_text(target.query, "subfolder", j->folder, sizeof(j->folder)) ||
        !query_text(target.query, "type", type, sizeof(type)))
        return;
    take_annotation(j->name, type, sizeof(type));
    if (type[0] == '\0' || strcmp(type, "output") == 0)
        j->dir = j->files->output_dir;
    else if (strcmp(type, "input") == 0)
        j->dir = j->files->input_dir;
    if (j->dir == NULL || !dir_path_ok(slice_of(j->folder), slice_of(j->name)))
        return;
    j->work_err.code = ERR_OK;
    if (j->dir[0] == '\0')
        (void)err_set(&j->work_err, ERR_UNAVAILABLE, "where such files lie is not set");
}

static void none_run(struct work *w)
{
    (void)w; /* what is wrong is known; it is only not told inside the caller's call */
}

void http_files_start(struct http_files *files, struct http_call *call)
{
    struct job *j = xcalloc(1, sizeof(*j));
    j->files = files;
    j->call = call;
    j->fd = -1;
    later_item_init(&j->turn, job_on_turn);
    deadline_init(&j->idle);
    call->driver = j;
    call->status = 0;
    call->res_length = -1;
    call->sent = false;
    http_headers_init(&call->res_headers);
    buf_init(&call->body, call->body_max);
    deadline_set(&files->deadlines, 0, &j->idle);
    job_read_target(j);
    job_work(j, j->work_err.code == ERR_OK ? open_run : none_run, open_done);
}

void http_files_cancel(struct http_call *call)
{
    struct job *j = call->driver;
    if (j != NULL && !j->ending)
        job_fail(j, err_set(&j->err, ERR_CANCELLED, "cancelled"));
}

void http_files_pause(struct http_call *call)
{
    struct job *j = call->driver;
    if (j != NULL)
        j->paused = true;
}

/* Goes on from the loop: a part must not come inside the caller's call. */
void http_files_resume(struct http_call *call)
{
    struct job *j = call->driver;
    if (j == NULL || !j->paused)
        return;
    j->paused = false;
    job_go_on(j);
}

/* --- life ------------------------------------------------------------------------------------ */

struct http_files *http_files_new(uv_loop_t *loop, struct later *later, const char *output_dir,
                                  const char *input_dir)
{
    struct http_files *f = xcalloc(1, sizeof(*f));
    f->later = later;
    f->output_dir = xstrdup(output_dir);
    f->input_dir = xstrdup(input_dir);
    f->idle = (struct deadline_class){.ms = FILES_IDLE_MS, .over = files_on_idle};
    closer_init(&f->closer, loop);
    f->workers = workers_new(loop, FILES_THREADS);
    closer_hold(&f->closer);
    deadlines_init(&f->deadlines, loop, &f->idle, 1);
    closer_hold(&f->closer);
    return f;
}

static void files_on_workers_closed(void *ctx, unsigned stuck)
{
    struct http_files *f = ctx;
    (void)stuck; /* their jobs are left behind with them */
    closer_release(&f->closer);
}

static void files_on_deadlines_closed(struct deadlines *ds)
{
    struct http_files *f = CONTAINER_OF(ds, struct http_files, deadlines);
    closer_release(&f->closer);
}

static void files_on_closed(struct closer *closer)
{
    struct http_files *f = CONTAINER_OF(closer, struct http_files, closer);
    void (*closed)(void *ctx) = f->closed;
    void *ctx = f->closed_ctx;
    free(f->output_dir);
    free(f->input_dir);
    free(f);
    if (closed != NULL)
        closed(ctx);
}

void http_files_free(struct http_files *f, void (*closed)(void *ctx), void *ctx)
{
    f->closing = true;
    f->closed = closed;
    f->closed_ctx = ctx;
    workers_close(f->workers, FILES_CLOSE_MS, files_on_workers_closed, f);
    deadlines_close(&f->deadlines, files_on_deadlines_closed);
    closer_begin(&f->closer, files_on_closed);
}
