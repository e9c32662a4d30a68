/* What an answer of Tablestore means: a verdict, and words for people. Pure. */
#ifndef OTS_REPLY_H
#define OTS_REPLY_H

#include "ots_sign.h"

/* verdict: what may be done about it */
enum ots_verdict {
    OTS_OK,
    OTS_REFUSED,      /* the condition does not hold: nothing was written */
    OTS_NO_TABLE,     /* the table does not exist */
    OTS_TABLE_EXISTS, /* … does already */
    OTS_NOT_READY,    /* … was made a moment ago */
    OTS_AGAIN,        /* nothing was done; soon it may be */
    OTS_SLOWER,       /* nothing was done: too many requests */
    OTS_UNKNOWN,      /* perhaps it was done, perhaps not */
    OTS_CORRUPT,      /* an answer that is damaged or not the service's: unknown too */
    OTS_NO_ENTRY,     /* the credentials are refused */
    OTS_TOO_LARGE,
    OTS_LATE,  /* no answer's: it was too late to ask, and nothing left */
    OTS_WRONG, /* the request, the table or the rights are not right: again is useless */
};

struct ots_reply {
    int status;
    const struct http_headers *headers;
    struct slice body;
};

/* How it was asked for. plain: over HTTP without TLS, where the signature of the answer is all that
 * says whose it is. */
struct ots_asked {
    const struct ots_signer *signer;
    const char *path;
    uint64_t wall_ms;
    bool plain;
};

/* err has the service's code, words and request id for everything but OTS_OK; no secrets. */
enum ots_verdict ots_judge(const struct ots_reply *reply, const struct ots_asked *asked,
                           struct err *err) MUST_CHECK;

#endif
