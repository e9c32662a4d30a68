/* What a request's headers and the environment say about the invocation. Pure: the caller lends a
 * way to read headers. No other file reads an `x-fc-` header or an `FC_` variable.
 *
 * Function Compute spells header names in capitals and sends many of them with an empty value;
 * empty means absent. Clients cannot send headers of its own (x-fc-…) but those that ask for an
 * asynchronous call.
 *
 * What is not documented is read so that either answer is right:
 * - whether an asynchronous call shows that it is one. `is_async` is set by any of its marks; a
 * call without a mark may still be one, so the request's id names the task on the platform, and a
 *   delivery that is repeated finds it;
 * - which control path the hooks' requests carry. They are told by theirs not being that of users;
 * - where an Initializer is told its limit: a header of older versions, a variable, or nowhere.
 */
#ifndef INVOCATION_H
#define INVOCATION_H

#include "buf.h"

enum { INVOCATION_ID_MAX = 128, INVOCATION_MARKER_MAX = 256 };

struct invocation_source {
    /* The value of a header, any case of its name; false if it is not there. */
    bool (*header)(void *ctx, const char *name, struct slice *ret);
    void *ctx;
};

struct invocation {
    struct slice task_id;      /* given by the caller; empty: none. Not checked here */
    struct slice request_id;   /* the platform's; empty: none */
    struct slice control_path; /* who calls: see invocation_is_users() */
    bool asks_async;           /* x-fc-invocation-type, which need not reach the instance */
    bool is_async;             /* asked for, or shown by what only asynchronous calls have */
    bool has_retry_count;
    uint64_t retry_count;
    uint64_t timeout_ms;    /* after which the platform kills the function; 0: not told */
    uint64_t initialize_ms; /* the same for the Initializer; 0: not told */
    /* Of the function's role, for calls in its name; empty without one. Never logged, never sent on
     * to ComfyUI. */
    struct slice key_id, key_secret, security_token;
};

/* Slices borrow from the headers. */
void invocation_read(struct invocation *ret, const struct invocation_source *source);
/* Came in by an HTTP trigger or a domain, with the client's own method and path. Else the platform
 * itself calls: InvokeFunction, a trigger of another kind, a hook. */
bool invocation_is_users(const struct invocation *inv);
/* An invocation is ended by ourselves so long before its timeout. */
uint64_t invocation_margin_ms(const struct invocation *inv);

/* The line that the platform's log collection looks for at the begin and the end of a request;
 * `path` tells a hook's request. "" if there is no request id, or an odd one. */
void invocation_marker(const struct invocation *inv, struct slice path, bool is_end,
                       char ret[INVOCATION_MARKER_MAX]);
/* The same for the process. */
#define INVOCATION_INITED "FunctionCompute comfy-agent runtime inited."

/* Are we on the platform? `setting` is PLATFORM: fc, none, or auto: FC_INSTANCE_ID is set there,
 * and only there. */
bool invocation_on_platform(const char *(*get)(const char *name), const char *setting);
/* This instance's name: the platform's, else NULL. */
const char *invocation_instance(const char *(*get)(const char *name));
/* The Initializer's limit by the environment; 0: not told. */
uint64_t invocation_initialize_ms(const char *(*get)(const char *name));

#endif
