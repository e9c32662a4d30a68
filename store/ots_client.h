/* Signed requests to one instance of Tablestore. Each is tried again where that may help: signed
 * anew with the newest credentials, after a pause, on a connection of its own. So a request may
 * arrive more than once, and what comes late may have happened before: who asks must bear it.
 *
 * Loop thread only. Nothing is opened before the first request.
 */
#ifndef OTS_CLIENT_H
#define OTS_CLIENT_H

#include "later.h"
#include "ots_reply.h"

struct ots_client;

struct ots_client_options { /* copied */
    const char *host;       /* a name or an address; it may lead anywhere but to metadata */
    unsigned port;
    bool plain; /* HTTP */
    const char *instance;
    const char *region;  /* signatures of version 4; NULL: version 1 */
    const char *ca_file; /* certificates to trust; NULL: the system's */
    unsigned connections;
};

/* The struct is the caller's from ots_ask_start() until `done`, which comes once, from the loop,
 * never inside the start. */
struct ots_ask {
    const char *path; /* "/PutRow"; a literal */
    struct buf body;
    uint64_t asked_at;           /* on clock_mono_ms() … */
    const uint64_t *patience_ms; /* … no attempt goes on for longer; it may grow meanwhile */
    uint64_t not_after_ms;       /* on that clock: when the request must have left; 0: none */
    void (*done)(struct ots_ask *ask);

    enum ots_verdict verdict; /* OTS_OK: the answer is there */
    struct err err;
    struct buf answer; /* the caller's to free, whatever the verdict */
    bool maybe;        /* an attempt may have done it although no answer says so */

    struct ots_client *client; /* from here on the client's */
    struct list_node link;
    struct later_item turn;
    uint64_t due_ms;
    unsigned attempts;
    uint64_t signed_with; /* which credentials */
    bool renewed;
};

struct ots_client *ots_client_new(uv_loop_t *loop, struct later *later,
                                  const struct ots_client_options *options);
/* Used from the next attempt on. ERR_INVALID: id or secret is missing, or the token of an id that
 * has one, or no header can have them; then the old ones stay. */
enum err_code ots_client_credentials(struct ots_client *client, struct slice id,
                                     struct slice secret, struct slice token) MUST_CHECK;
static inline uint64_t ots_ask_gives_up_at(const struct ots_ask *ask)
{
    return ask->asked_at + *ask->patience_ms;
}
void ots_ask_start(struct ots_client *client, struct ots_ask *ask);
/* Asks nothing: `done` comes with OTS_WRONG, and ask->err stays as it is. */
void ots_ask_refuse(struct ots_client *client, struct ots_ask *ask);
/* Breaks off what runs: each ask is done before `closed` comes. */
void ots_client_close(struct ots_client *client, void (*closed)(void *ctx), void *ctx);

#endif
