/* Who asks, proved: the x-ots-… headers of a request, and what an answer's headers prove. Pure. */
#ifndef OTS_SIGN_H
#define OTS_SIGN_H

#include "http_msg.h"

/* The three belong together: an old secret with a new token is refused. */
struct ots_credentials {
    const char *id, *secret;
    const char *token; /* of temporary credentials; "": none */
};

struct ots_signer {
    const struct ots_credentials *credentials;
    const char *instance;
    const char *region; /* signatures of version 4; NULL: version 1 */
};

/* Adds the headers of POST path ("/PutRow") to `headers`, which has none of them. ERR_INVALID: a
 * part of the credentials cannot stand in a header. */
enum err_code ots_sign(struct http_headers *headers, const struct ots_signer *signer,
                       const char *path, struct slice body, uint64_t wall_ms) MUST_CHECK;

/* Does x-ots-contentmd5 fit the body? */
bool ots_is_whole(const struct http_headers *headers, struct slice body);
/* For plain HTTP, where nobody else vouches for an answer: is it signed with what the request of
 * that moment was signed with, and was it sent less than a quarter of an hour from then? */
bool ots_is_genuine(const struct http_headers *headers, const struct ots_signer *signer,
                    const char *path, uint64_t wall_ms);
bool ots_is_timely(const struct http_headers *headers, uint64_t wall_ms);

#endif
