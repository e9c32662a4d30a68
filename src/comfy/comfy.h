/* The conversation with one ComfyUI: requests over HTTP, and the one WebSocket that brings news.
 *
 * comfy_up() when ComfyUI answers, comfy_down() when it does not any more. In between the socket is
 * kept open: first it is asked what this version can do, then a socket is opened under a fresh
 * client id, and only when it has been greeted the link is OPEN and prompts may be sent: events
 * that nobody listens to are gone. A lost socket is replaced under another client id (ComfyUI
 * makes a socket deaf when an older one of the same id ends); what was submitted under an
 * earlier one brings no more news, and comfy_link() tells.
 *
 *     DOWN ─up─► ASKING ─► CONNECTING ─► GREETING ─status─► OPEN
 *                              ▲  lost, refused, silent │      │
 *                              └───── PAUSING ◄─────────┴──────┘
 */
#ifndef COMFY_H
#define COMFY_H

#include "event.h"
#include "http_up.h"
#include "later.h"
#include "progress.h"

struct comfy;

enum {
    COMFY_GREETING_MS = 10000,
    COMFY_REPLY_MAX = 64 * 1024 * 1024, /* history and queue repeat whole prompts */
    COMFY_LOOK_BYTES = 16 * 1024,
    COMFY_VIEWS_MAX = 256, /* transfers to clients at once; further ones wait in order */
};

struct http_files;
struct comfy_options {
    struct http_files *files; /* NULL, or what answers for /view instead: there is no ComfyUI */
    const char *host;         /* in numbers */
    unsigned port;
    uint64_t startup_ms; /* how long anybody waits for ComfyUI at most */
    /* Every message of the socket, decoded. */
    void (*on_event)(struct comfy *c, const struct event *e);
    /* Open or no longer open. */
    void (*on_link)(struct comfy *c, bool open);
    void *ctx;
};

struct comfy *comfy_new(uv_loop_t *loop, struct later *later, const struct comfy_options *options);
void *comfy_ctx(const struct comfy *c);
void comfy_up(struct comfy *c);
void comfy_down(struct comfy *c);
/* It will not come up any more, as far as anybody can tell: who waits for it is told so, now, and
 * nobody waits until comfy_up(). `why` is a literal. Ignored while it is up. */
void comfy_give_up(struct comfy *c, const char *why);
/* The process did not run for a while: connections that wait unused are not trusted any more. */
void comfy_thaw(struct comfy *c);
/* Every request must have ended. */
void comfy_free(struct comfy *c, void (*closed)(void *ctx), void *ctx);

bool comfy_is_open(const struct comfy *c);
unsigned comfy_link(const struct comfy *c); /* another number for each socket */
/* Does it take our prompt_id with a prompt, and interrupt by it (0.3.45; 0.3.57)? */
bool comfy_takes_ids(const struct comfy *c);
/* GET or HEAD of what comfy_view_target() names, for a client, who may be slow: on connections of
 * its own, so that no task waits for one. As http_up_start() and the others, but that it waits for
 * ComfyUI first: until comfy_up(), for wait_ms and for startup_ms at most (0: not), which ends in
 * ERR_UNAVAILABLE. */
void comfy_view_start(struct comfy *c, struct http_call *call, uint64_t wait_ms);
void comfy_view_cancel(struct comfy *c, struct http_call *call);
void comfy_view_pause(struct comfy *c, struct http_call *call);
void comfy_view_resume(struct comfy *c, struct http_call *call);

/* One request and its answer; embedded by whoever asks, one at a time each. `done` comes exactly
 * once, from the loop; err == NULL: answered, whatever the status. Inside it the request may be
 * used again; its answer stays readable until then. */
struct comfy_request {
    void (*done)(struct comfy_request *r, const struct err *err);
    void *ctx;
    uint64_t head_ms; /* until the answer begins; 0: the client's own bound */
    bool busy;

    int status;
    struct buf body;
    int64_t length; /* declared; -1: not. Of the whole file, where its beginning was asked for */
    char media_type[96]; /* "" if none */
    char etag[96];       /* with its quotes; "" if none */

    struct http_call call;
    struct buf target, content;
    struct http_headers headers;
    bool with_headers;
    bool looks; /* comfy_look_view(), until its end */
    struct later *later;
    struct later_item answered;
    struct err err;
};

struct comfy_submission {
    struct slice prompt;              /* object */
    struct slice extra_data, targets; /* empty: none */
    const char *prompt_id;            /* ours; sent whether the version takes it or not */
};

void comfy_request_init(struct comfy_request *r);
void comfy_request_done(struct comfy_request *r);   /* frees what it holds; not busy */
void comfy_request_cancel(struct comfy_request *r); /* `done` follows, later; idle is fine */
struct buf comfy_request_take_body(struct comfy_request *r); /* to be freed with buf_done() */

void comfy_request_get(struct comfy *c, struct comfy_request *r, const char *target);
void comfy_post_prompt(struct comfy *c, struct comfy_request *r, const struct comfy_submission *s);
void comfy_get_history(struct comfy *c, struct comfy_request *r, const char *prompt_id);
void comfy_get_queue(struct comfy *c, struct comfy_request *r);
void comfy_delete_pending(struct comfy *c, struct comfy_request *r, const char *const prompt_ids[],
                          unsigned count);
/* Unload models, free memory, forget cached outputs; done by the worker between two prompts. */
void comfy_free_memory(struct comfy *c, struct comfy_request *r);
void comfy_interrupt(struct comfy *c, struct comfy_request *r, const char *prompt_id);
/* POST /upload/image into the input folder. `name` is plain (letters, digits, dots). */
void comfy_upload(struct comfy *c, struct comfy_request *r, const char *name, struct slice content);
/* "/view?filename=…&subfolder=…&type=…" of an output; ERR_INVALID for what is no name. */
enum err_code comfy_view_target(const struct progress_file *file, struct buf *out) MUST_CHECK;
void comfy_head_view(struct comfy *c, struct comfy_request *r, const struct progress_file *file);
/* The same with the file itself in r->body, if it is of COMFY_LOOK_BYTES at most: its beginning is
 * asked for. ERR_TOO_LARGE, 206, 416, or 200 without a length: only HEAD can tell, be it because
 * the file is empty or because ranges are not known there. */
void comfy_look_view(struct comfy *c, struct comfy_request *r, const struct progress_file *file);

#endif
