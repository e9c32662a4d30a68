/* The way of a job; see the drawing in inputs.h. One input is in memory at a time. Decoding and
 * hashing run in libuv's pool: 32 MiB of them would hold up the loop for a tenth of a second. */
#include "dir_file.h"
#include "inputs_private.h"
#include "media.h"
#include "splice.h"

#include <stdio.h>
#include <stdlib.h>

enum { NAME_HASH = 40, NAME_MAX_LEN = 64 };

struct known {             /* what is remembered: a class's object_info, or an uploaded name */
    struct list_node link; /* newest first */
    char *key;             /* class token, or the name's hash */
    char *value;           /* JSON text; of an upload: the name that ComfyUI gave, as a token */
};

struct inputs {
    struct inputs_options options;
    uv_loop_t *loop;
    struct later *later;
    struct list_node classes, uploaded;
    unsigned class_count, uploaded_count;
    unsigned life; /* of ComfyUI: what a job learns about an earlier one is not kept */
};

struct inputs_job {
    struct inputs *in;
    const struct prompt *prompt;
    inputs_cb done;
    void *ctx;
    unsigned life;
    struct input found[INPUTS_MAX];
    unsigned count, at;
    struct splice edits;

    struct comfy_request req;
    struct https_call fetch;
    struct buf text;    /* the value, unescaped */
    struct buf content; /* the bytes of the file */
    uv_work_t work;
    enum err_code work_code, kept_code;
    char hash[SHA256_TEXT + 1];
    const char *ending;

    bool cancelled, fetching, working;
    struct inputs_fault fault;
    bool failed;
    struct later_item step;
};

/* --- what is remembered ---------------------------------------------------------------------- */

static void known_free(struct known *k)
{
    list_remove(&k->link);
    free(k->key);
    free(k->value);
    free(k);
}

static char *known_get(struct list_node *list, struct slice key)
{
    LIST_FOREACH (node, list) {
        struct known *k = CONTAINER_OF(node, struct known, link);
        if (slice_is(key, k->key))
            return k->value;
    }
    return NULL;
}

static char *text_copy(struct slice s)
{
    char *copy = xmalloc(s.len + 1);
    memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}

static void known_add(struct list_node *list, unsigned *count, unsigned max, struct slice key,
                      struct slice value)
{
    struct known *k = xcalloc(1, sizeof(*k));
    k->key = text_copy(key);
    k->value = text_copy(value);
    list_push(list, &k->link);
    if (++*count > max) {
        known_free(CONTAINER_OF(list->prev, struct known, link));
        --*count;
    }
}

static void known_forget(struct list_node *list, unsigned *count)
{
    LIST_FOREACH_SAFE (node, next, list)
        known_free(CONTAINER_OF(node, struct known, link));
    *count = 0;
}

struct inputs *inputs_new(uv_loop_t *loop, struct later *later,
                          const struct inputs_options *options)
{
    struct inputs *in = xcalloc(1, sizeof(*in));
    in->options = *options;
    in->loop = loop;
    in->later = later;
    list_init(&in->classes);
    list_init(&in->uploaded);
    return in;
}

void inputs_forget(struct inputs *in)
{
    in->life++;
    known_forget(&in->classes, &in->class_count);
    known_forget(&in->uploaded, &in->uploaded_count);
}

void inputs_free(struct inputs *in)
{
    inputs_forget(in);
    free(in);
}

/* --- the end of a job ------------------------------------------------------------------------ */

static const struct input *job_input(const struct inputs_job *j)
{
    return &j->found[j->at];
}

static void job_fail(struct inputs_job *j, bool is_comfyui, enum err_code code, const char *why)
{
    if (j->failed)
        return;
    j->failed = true;
    j->fault.is_comfyui = is_comfyui;
    if (j->at < j->count) {
        const struct input *i = job_input(j);
        const struct prompt_node *n = &j->prompt->nodes[i->node];
        j->fault.node_id = text_copy(n->id);
        j->fault.class_type = text_copy(n->class_type);
        j->fault.input = text_copy(i->name);
        (void)err_set(&j->fault.err, code, "input %s of node %s: %s", j->fault.input,
                      j->fault.node_id, why);
    } else {
        (void)err_set(&j->fault.err, code, "%s", why);
    }
}

/* False: there was room. Where it was memory that was missing, it may be there soon. */
static bool job_had_no_room(struct inputs_job *j, enum err_code code)
{
    if (code == ERR_TOO_LARGE)
        job_fail(j, false, code, "it is too large");
    else if (code == ERR_BUSY)
        job_fail(j, true, code, "there is no memory for it at the moment");
    return code == ERR_TOO_LARGE || code == ERR_BUSY;
}

static void job_end(struct inputs_job *j)
{
    struct buf text;
    inputs_cb done = j->done;
    void *ctx = j->ctx;
    buf_init(&text, SIZE_MAX);
    if (!j->failed && j->edits.count > 0)
        (void)job_had_no_room(j, splice_apply(&j->edits, buf_slice(&j->prompt->text), &text));
    struct inputs_fault fault = j->fault;
    bool failed = j->failed;
    splice_done(&j->edits);
    buf_done(&j->text);
    buf_done(&j->content);
    comfy_request_done(&j->req);
    later_cancel(j->in->later, &j->step);
    free(j);
    done(ctx, failed ? &fault : NULL, &text);
    free(fault.node_id);
    free(fault.class_type);
    free(fault.input);
    buf_done(&text);
}

static void job_go_on(struct inputs_job *j)
{
    later_add(j->in->later, &j->step);
}

/* --- uploading ------------------------------------------------------------------------------- */

static void job_replace(struct inputs_job *j, const char *name)
{
    splice_replace(&j->edits, buf_slice(&j->prompt->text), job_input(j)->value, name);
    j->at++;
    buf_done(&j->content);
    job_go_on(j);
}

/* {"name": …, "subfolder": "", "type": "input"}: ComfyUI may have chosen another name. It is
 * spelled anew: a prompt must be stricter than what ComfyUI says. */
static bool read_upload(struct slice body, struct buf *ret_name)
{
    struct slice value;
    struct buf name;
    buf_init(&name, 1024);
    bool read = json_check(body, &json_from_comfyui, NULL, NULL) == ERR_OK &&
                json_get(json_trim(body), "name", &value) && json_kind(value) == JSON_STRING &&
                json_unescape(value, &name) == ERR_OK && name.len > 0;
    if (read)
        buf_add_json_string(ret_name, buf_slice(&name));
    buf_done(&name);
    return read;
}

static void job_on_uploaded(struct comfy_request *r, const struct err *err)
{
    struct inputs_job *j = r->ctx;
    struct buf name;
    char why[64];
    buf_init(&name, SIZE_MAX);
    if (err != NULL) {
        job_fail(j, true, err->code, err->msg);
    } else if (r->status == 413) {
        job_fail(j, false, ERR_TOO_LARGE, "it is larger than ComfyUI's --max-upload-size");
    } else if (r->status != 200) {
        (void)snprintf(why, sizeof(why), "ComfyUI answered the upload with %d", r->status);
        job_fail(j, true, ERR_PROTOCOL, why);
    } else if (!read_upload(buf_slice(&r->body), &name)) {
        job_fail(j, true, ERR_PROTOCOL, "ComfyUI answered the upload with garbage");
    } else {
        if (j->life == j->in->life)
            known_add(&j->in->uploaded, &j->in->uploaded_count, INPUTS_UPLOADED_MAX,
                      slice_of(j->hash), buf_slice(&name));
        job_replace(j, name.ptr);
        buf_done(&name);
        return;
    }
    buf_done(&name);
    job_go_on(j);
}

/* The name of an upload, whichever way it gets there. */
static void job_name(const struct inputs_job *j, char ret[NAME_MAX_LEN])
{
    (void)snprintf(ret, NAME_MAX_LEN, "%.*s.%s", NAME_HASH, j->hash, j->ending);
}

static void job_upload(struct inputs_job *j)
{
    char name[NAME_MAX_LEN];
    job_name(j, name);
    j->req.done = job_on_uploaded;
    j->req.ctx = j;
    comfy_upload(j->in->options.comfy, &j->req, name, buf_slice(&j->content));
}

static void job_on_looked(struct comfy_request *r, const struct err *err)
{
    struct inputs_job *j = r->ctx;
    const char *known = known_get(&j->in->uploaded, slice_of(j->hash));
    if (j->cancelled)
        job_go_on(j);
    else if (err == NULL && r->status == 200 && known != NULL)
        job_replace(j, known);
    else
        job_upload(j);
}

/* What was uploaded before may have been tidied away since. */
static void job_find_uploaded(struct inputs_job *j)
{
    char *known = known_get(&j->in->uploaded, slice_of(j->hash));
    char no_subfolder[] = "\"\"";
    char type[] = "\"input\"";
    if (known == NULL) {
        job_upload(j);
        return;
    }
    j->req.done = job_on_looked;
    j->req.ctx = j;
    comfy_head_view(j->in->options.comfy, &j->req,
                    &(struct progress_file){known, no_subfolder, type});
}

/* --- reading: decode, look what it is, hash ----------------------------------------------------
 */

static void job_on_work(uv_work_t *work)
{
    struct inputs_job *j = CONTAINER_OF(work, struct inputs_job, work);
    const char *dir = j->in->options.keep_dir; /* does not change */
    char name[NAME_MAX_LEN];
    char kept[DIR_NAME_MAX + 1];
    enum input_kind kind = job_input(j)->kind;
    j->work_code = ERR_OK;
    if (kind != INPUT_ADDRESS)
        j->work_code = input_decode(buf_slice(&j->text), kind, &j->content, NULL);
    j->ending = j->work_code == ERR_OK ? media_ending(buf_slice(&j->content)) : NULL;
    if (j->ending != NULL)
        sha256_hex(buf_slice(&j->content), j->hash);
    if (j->ending == NULL || dir == NULL)
        return;
    job_name(j, name);
    const struct dir_path path = {dir, "", name};
    j->kept_code = dir_keep(&path, buf_slice(&j->content), DIR_KEEP_AS_IS, kept, NULL);
}

static void job_replace_by_kept(struct inputs_job *j)
{
    char token[NAME_MAX_LEN + 2];
    char name[NAME_MAX_LEN];
    job_name(j, name);
    (void)snprintf(token, sizeof(token), "\"%s\"", name);
    job_replace(j, token);
}

static void job_on_kept(struct inputs_job *j)
{
    if (j->ending != NULL && j->kept_code == ERR_OK) {
        job_replace_by_kept(j);
        return;
    }
    if (job_had_no_room(j, j->work_code))
        ; /* told */
    else if (j->ending != NULL)
        job_fail(j, true, j->kept_code, "it cannot be written to INPUT_DIR");
    else
        j->at++;
    buf_done(&j->content);
    job_go_on(j);
}

static void job_on_worked(uv_work_t *work, int status)
{
    struct inputs_job *j = CONTAINER_OF(work, struct inputs_job, work);
    const struct input *i = job_input(j);
    (void)status; /* it is never cancelled */
    j->working = false;
    buf_done(&j->text);
    if (j->in->options.keep_dir != NULL && !j->cancelled) {
        job_on_kept(j);
        return;
    }
    if (j->ending != NULL && !j->cancelled) {
        job_find_uploaded(j);
        return;
    }
    if (job_had_no_room(j, j->work_code))
        ; /* told */
    else if (i->kind == INPUT_BASE64 && !j->cancelled)
        j->at++; /* a long name that happens to have only those letters */
    else
        job_fail(j, false, ERR_INVALID,
                 j->work_code != ERR_OK ? "it is no well-formed data: URI"
                                        : "it is no picture, video or audio of a known format");
    buf_done(&j->content);
    job_go_on(j);
}

static void job_read(struct inputs_job *j)
{
    j->working = true;
    ASSERT(uv_queue_work(j->in->loop, &j->work, job_on_work, job_on_worked) == 0);
}

/* --- obtaining ------------------------------------------------------------------------------- */

static void job_on_fetched(struct https_call *call, const struct err *err)
{
    struct inputs_job *j = call->ctx;
    char why[64];
    j->fetching = false;
    if (err == NULL && call->status == 200) {
        j->content = call->body;
        buf_init(&call->body, 0);
        job_read(j);
        return;
    }
    if (err == NULL)
        buf_done(&call->body);
    (void)snprintf(why, sizeof(why), "its address answers with status %d", call->status);
    job_fail(j, false, err != NULL ? err->code : ERR_INVALID, err != NULL ? err->msg : why);
    job_go_on(j);
}

static void job_fetch(struct inputs_job *j)
{
    j->fetch = (struct https_call){
        .url = j->text.ptr,
        .method = "GET",
        .total_ms = j->in->options.fetch_ms,
        .body_max = j->in->options.bytes_max,
        .redirects_max = 3,
        .on_end = job_on_fetched,
        .ctx = j,
    };
    j->fetching = true;
    https_start(j->in->options.https, &j->fetch);
}

static void job_obtain(struct inputs_job *j)
{
    const struct input *i = job_input(j);
    buf_reset(&j->text);
    enum err_code code = json_unescape(i->value, &j->text);
    if (code != ERR_OK || memchr(j->text.ptr, '\0', j->text.len) != NULL) {
        if (!job_had_no_room(j, code))
            job_fail(j, false, ERR_INVALID, "it has a NUL in it");
        job_go_on(j);
    } else if (i->kind == INPUT_ADDRESS) {
        job_fetch(j);
    } else {
        job_read(j);
    }
}

/* --- searching ------------------------------------------------------------------------------- */

static void job_on_class(struct comfy_request *r, const struct err *err)
{
    struct inputs_job *j = r->ctx;
    struct slice body = buf_slice(&r->body);
    if (err != NULL || r->status != 200 ||
        json_check(body, &json_from_comfyui, NULL, NULL) != ERR_OK)
        job_fail(j, true, err != NULL ? err->code : ERR_PROTOCOL,
                 err != NULL ? err->msg : "ComfyUI does not say what its class takes");
    else
        known_add(&j->in->classes, &j->in->class_count, INPUTS_CLASSES_MAX,
                  j->prompt->nodes[job_input(j)->node].class_type, json_trim(body));
    job_go_on(j);
}

static void job_ask_class(struct inputs_job *j, struct slice class_type)
{
    struct buf name;
    struct buf target;
    buf_init(&name, HTTP_TARGET_MAX / 4);
    buf_init(&target, SIZE_MAX);
    if (json_unescape(class_type, &name) != ERR_OK) {
        j->at++; /* no class has such a name: ComfyUI will say so */
        job_go_on(j);
    } else {
        buf_adds(&target, "/object_info/");
        http_percent_encode(&target, buf_slice(&name));
        j->req.done = job_on_class;
        j->req.ctx = j;
        comfy_request_get(j->in->options.comfy, &j->req, target.ptr);
    }
    buf_done(&name);
    buf_done(&target);
}

static bool input_is_kept(const struct input *i)
{
    return i->sure && i->kind != INPUT_ADDRESS && i->value.len / 4 * 3 > INPUTS_KEEP_MIN;
}

/* The next input: is it one at all? */
static void job_turn(struct inputs_job *j)
{
    const struct input *i = job_input(j);
    struct slice class_type = j->prompt->nodes[i->node].class_type;
    if (j->in->options.keep_dir != NULL && !input_is_kept(i)) {
        j->at++;
        job_go_on(j);
        return;
    }
    if (i->sure) {
        job_obtain(j);
        return;
    }
    const char *info = known_get(&j->in->classes, class_type);
    if (info == NULL) {
        job_ask_class(j, class_type);
    } else if (inputs_class_takes(slice_of(info), class_type, i->name)) {
        job_obtain(j);
    } else {
        j->at++;
        job_go_on(j);
    }
}

static void job_on_step(struct later_item *item)
{
    struct inputs_job *j = CONTAINER_OF(item, struct inputs_job, step);
    if (j->fetching || j->working || j->req.busy)
        return; /* its end goes on */
    if (j->cancelled)
        job_fail(j, true, ERR_CANCELLED, "cancelled");
    if (j->failed || j->at >= j->count)
        job_end(j);
    else
        job_turn(j);
}

struct inputs_job *inputs_start(struct inputs *in, const struct prompt *p, inputs_cb done,
                                void *ctx)
{
    struct inputs_job *j = xcalloc(1, sizeof(*j));
    j->in = in;
    j->prompt = p;
    j->done = done;
    j->ctx = ctx;
    j->life = in->life;
    splice_init(&j->edits);
    buf_init(&j->text, in->options.bytes_max / 3 * 4 + 1024);
    buf_init(&j->content, in->options.bytes_max);
    comfy_request_init(&j->req);
    later_item_init(&j->step, job_on_step);
    j->count = inputs_find(p, j->found);
    if (j->count > INPUTS_MAX) {
        j->count = 0;
        job_fail(j, false, ERR_TOO_LARGE, "a prompt may have 64 inputs that are files");
    }
    job_go_on(j);
    return j;
}

void inputs_cancel(struct inputs_job *j)
{
    j->cancelled = true;
    if (j->fetching)
        https_cancel(&j->fetch);
    if (j->req.busy)
        comfy_request_cancel(&j->req);
    job_go_on(j);
}
