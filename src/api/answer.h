/* The shapes of answers: JSON with the headers that ours carry, and the one error envelope
 *
 *     {"message": "<type>", "error": {"code": "<stable_code>", "detail": "<sentence>", …}}
 *
 * Here, and only here, a failure gets its HTTP status. */
#ifndef ANSWER_H
#define ANSWER_H

#include "http_server.h"
#include "task.h"

/* Headers that go with an answer; all may be absent ("" or NULL). */
struct answer_about {
    const char *task_id;
    const char *task_status;
    const char *etag;  /* without quotes; also makes the answer revalidated */
    bool is_of_moment; /* without a tag, too */
    bool not_stored;   /* the end could not be stored: `task-stored: no` */
    unsigned retry_after_s;
    const char *allow;
};

#define ANSWER_JSON "application/json"
enum { ANSWER_RETRY_S = 5 }; /* when to come again, where nothing better is known */

/* Has the client this very thing already (If-None-Match)? The answer is then 304. */
bool answer_is_fresh(struct http_req *req, const char *etag);

void answer_headers(struct http_headers *ret, const struct answer_about *about); /* inits ret */
void answer_json(struct http_req *req, int status, struct slice body,
                 const struct answer_about *about);

/* {"message": …, "error": …}; `error` is a whole JSON object. */
void answer_envelope(struct buf *out, const char *message, struct slice error);
/* The same of a task that has ended badly. */
void answer_failure_envelope(struct buf *out, const struct failure *f);

/* Requests that fail before there is a task. `message` is one of the older types. */
void answer_error(struct http_req *req, int status, const char *message, const char *code,
                  const char *detail, const struct answer_about *about);
/* `error` is a whole JSON object. */
void answer_error_object(struct http_req *req, int status, const char *message, struct slice error,
                         const struct answer_about *about);
/* A task that has ended badly. */
void answer_failure(struct http_req *req, const struct failure *f,
                    const struct answer_about *about);

int answer_status_of(enum failure_code code);
const char *answer_message_of(enum failure_code code);

#endif
