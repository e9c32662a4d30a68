/* GET /api/tasks?status=&limit=&cursor=: records without their node maps, newest first.
 *
 * The store lists keys; the records are read a few at a time, those of this process's own tasks are
 * taken from memory, if it is sure of them; else the store is asked for LOOKUP_HERE_MS. What cannot
 * be read (corrupt, too large) is left out like what was removed since it was listed; a store that
 * fails is told, or the answer would have holes. With a status whole pages are asked for and read
 * on until enough match, or LIST_KEYS_MAX keys were looked at. Any list ends when LIST_ENOUGH_MS
 * are over and something was looked at: it is then shorter. Its cursor goes on behind the last key
 * that was looked at. All of it together has LIST_MS, and that second. */
#include "answer.h"
#include "api.h"
#include "lookup.h"

#include <stdio.h>
#include <stdlib.h>

enum { LIST_LIMIT = 20, LIST_KEYS_MAX = 1000, LIST_ENOUGH_MS = 5000, LIST_MS = 10000 };

struct list_call {
    struct api *api;
    struct http_req *req;
    bool gone;
    struct store_op op;
    bool here; /* the one record that op reads is of a task that is here */
    struct store_page page;
    unsigned at; /* next key of the page */
    unsigned looked, limit, count;
    uint64_t began_ms;
    char status[16]; /* "": any */
    struct buf body;
};

static void list_free(struct list_call *c)
{
    buf_done(&c->body);
    free(c);
}

static void list_on_abort(struct http_req *req)
{
    struct list_call *c = http_req_data(req);
    c->gone = true; /* what is under way ends, and frees it */
}

/* "": there is no more. */
static void list_cursor(const struct list_call *c, char ret[STORE_KEY_MAX + 1])
{
    if (c->at == c->page.count)
        memcpy(ret, c->page.next, sizeof(c->page.next));
    else if (c->at > 0)
        store_page_cursor(&c->page, c->at - 1, ret);
    else
        memcpy(ret, c->page.cursor, sizeof(c->page.cursor));
}

static void list_end(struct list_call *c)
{
    char cursor[STORE_KEY_MAX + 1];
    list_cursor(c, cursor);
    buf_adds(&c->body, "],\"cursor\":");
    if (cursor[0] != '\0')
        buf_add_json_string(&c->body, slice_of(cursor));
    else
        buf_adds(&c->body, "null");
    buf_adds(&c->body, "}");
    answer_json(c->req, 200, buf_slice(&c->body), NULL);
    list_free(c);
}

static void list_fail(struct list_call *c, const struct err *err)
{
    answer_error(c->req, err->code == ERR_TIMEOUT ? 504 : 503, "LoadProgressError", "store_failed",
                 err->msg, NULL);
    list_free(c);
}

/* A record, all of it but its nodes. */
static void list_add_record(struct list_call *c, struct slice text)
{
    struct json_iter it;
    struct slice key;
    struct slice value;
    bool first = true;
    const struct json_limits limits = {.depth = JSON_DEPTH_MAX};
    if (json_check(text, &limits, NULL, NULL) != ERR_OK)
        return;
    struct slice top = json_trim(text);
    if (json_kind(top) != JSON_OBJECT || !json_get(top, "status", &value) ||
        json_kind(value) != JSON_STRING ||
        (c->status[0] != '\0' && !json_string_is(value, c->status)))
        return;
    buf_adds(&c->body, c->count++ > 0 ? ",{" : "{");
    json_iter_init(&it, top);
    while (json_next(&it, &key, &value)) {
        if (json_string_is(key, "nodes"))
            continue;
        buf_addf(&c->body, "%s%.*s:", first ? "" : ",", SLICE_ARGS(key));
        buf_add(&c->body, value);
        first = false;
    }
    buf_adds(&c->body, "}");
}

/* If it is here. */
static struct task *list_task(const struct list_call *c, const char *key)
{
    return task_hub_find(c->api->hub, (struct slice){key, strcspn(key, "~")});
}

static void list_read(struct list_call *c);

static void list_on_read(struct store_op *op)
{
    struct list_call *c = op->ctx;
    struct err err = op->err;
    bool failed = false;
    for (unsigned i = 0; i < op->n; i++) {
        const struct store_doc *doc = &op->doc[i];
        bool wanted = !c->gone && c->count < c->limit;
        struct slice record = doc->result == ERR_OK ? blob_slice(doc->value) : SLICE_EMPTY;
        if (wanted && (record.len > 0 || c->here))
            record = lookup_newest(list_task(c, doc->key), record);
        failed = failed || (store_doc_ends_op(doc) && record.len == 0);
        c->at += wanted;
        c->looked += wanted;
        if (wanted && record.len > 0)
            list_add_record(c, record);
        blob_unref(doc->result == ERR_OK ? doc->value : NULL);
    }
    if (c->gone)
        list_free(c);
    else if (failed)
        list_fail(c, &err);
    else
        list_read(c);
}

static void list_refuse(struct http_req *req)
{
    answer_error(req, 400, "RequestParamsError", "bad_query",
                 "limit is 1 to 100, status a status of tasks, cursor what a list gave", NULL);
}

static bool list_is_enough(const struct list_call *c)
{
    return c->count >= c->limit || c->looked >= LIST_KEYS_MAX ||
           (c->looked > 0 && clock_mono_ms() >= c->began_ms + LIST_ENOUGH_MS);
}

static uint64_t list_ms_left(const struct list_call *c)
{
    uint64_t gone = clock_mono_ms() - c->began_ms;
    return gone < LIST_MS ? LIST_MS - gone : 1;
}

static void list_page(struct list_call *c);

static void list_read(struct list_call *c)
{
    c->op = (struct store_op){.deadline_ms = list_ms_left(c), .done = list_on_read, .ctx = c};
    while (!list_is_enough(c) && c->at + c->op.n < c->page.count && c->op.n < STORE_DOCS_MAX) {
        const char *key = c->page.keys[c->at + c->op.n];
        struct task *t = list_task(c, key);
        bool is_sure = t != NULL && task_is_authority(t);
        bool is_here = lookup_newest(t, SLICE_EMPTY).len > 0;
        if (is_here && c->op.n > 0)
            break; /* in order: those before it first */
        if (is_sure) {
            list_add_record(c, blob_slice(task_record(t)));
            c->at++;
            c->looked++;
            continue;
        }
        c->op.doc[c->op.n].verb = STORE_GET;
        memcpy(c->op.doc[c->op.n++].key, key, STORE_KEY_MAX + 1);
        c->here = is_here;
        if (is_here) {
            c->op.deadline_ms = LOOKUP_HERE_MS;
            break;
        }
    }
    if (c->op.n > 0) {
        store_run(c->api->store, &c->op);
    } else if (list_is_enough(c) || c->page.next[0] == '\0') {
        list_end(c);
    } else {
        memcpy(c->page.cursor, c->page.next, sizeof(c->page.cursor));
        list_page(c);
    }
}

static void list_on_page(struct store_op *op)
{
    struct list_call *c = op->ctx;
    if (c->gone) {
        list_free(c);
    } else if (op->err.code == ERR_INVALID) {
        list_refuse(c->req);
        list_free(c);
    } else if (op->err.code != ERR_OK) {
        list_fail(c, &op->err);
    } else {
        c->at = 0;
        list_read(c);
    }
}

static void list_page(struct list_call *c)
{
    c->page.limit = c->status[0] != '\0' ? STORE_PAGE_MAX : c->limit - c->count;
    c->op = (struct store_op){
        .page = &c->page, .deadline_ms = list_ms_left(c), .done = list_on_page, .ctx = c};
    store_run(c->api->store, &c->op);
}

static bool list_read_query(struct list_call *c, struct slice query)
{
    struct buf room;
    uint64_t limit = LIST_LIMIT;
    buf_init(&room, 1024);
    bool ok = true;
    if (http_query_get(query, "limit", &room) == ERR_OK && room.len > 0)
        ok = slice_to_u64(buf_slice(&room), STORE_PAGE_MAX, &limit) && limit > 0;
    buf_reset(&room);
    if (ok && http_query_get(query, "status", &room) == ERR_OK && room.len > 0) {
        enum task_status status;
        ok = task_status_read(buf_slice(&room), &status);
        (void)snprintf(c->status, sizeof(c->status), "%s", room.ptr);
    }
    buf_reset(&room);
    if (ok && http_query_get(query, "cursor", &room) == ERR_OK && room.len > 0) {
        ok = room.len < sizeof(c->page.cursor);
        (void)snprintf(c->page.cursor, sizeof(c->page.cursor), "%s", room.ptr);
    }
    c->limit = (unsigned)limit;
    buf_done(&room);
    return ok;
}

void api_task_list(struct api *api, struct http_req *req, struct slice param)
{
    struct list_call *c = xcalloc(1, sizeof(*c));
    (void)param;
    c->api = api;
    c->req = req;
    c->began_ms = clock_mono_ms();
    buf_init(&c->body, SIZE_MAX);
    if (!list_read_query(c, http_req_query(req))) {
        list_refuse(req);
        list_free(c);
        return;
    }
    http_req_set_data(req, c);
    http_on_abort(req, list_on_abort);
    buf_adds(&c->body, "{\"tasks\":[");
    list_page(c);
}
