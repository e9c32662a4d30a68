/* Request line and Host. The length of every part is bounded by its caller, so `out` has no cap. */
#include "http_request.h"

#include <stdio.h>

void http_request_authority(const char *host, unsigned port, char ret[HTTP_AUTHORITY_MAX])
{
    bool is_v6 = strchr(host, ':') != NULL;
    (void)snprintf(ret, HTTP_AUTHORITY_MAX, "%s%s%s:%u", is_v6 ? "[" : "", host, is_v6 ? "]" : "",
                   port);
}

static bool is_target(struct slice target)
{
    if (target.len == 0 || target.len > HTTP_TARGET_MAX || target.ptr[0] != '/')
        return false;
    for (size_t i = 0; i < target.len; i++)
        if ((unsigned char)target.ptr[i] <= ' ' || target.ptr[i] == 0x7f)
            return false;
    return true;
}

enum err_code http_request_begin(struct buf *out, const char *method, struct slice target,
                                 const char *authority, struct err *err)
{
    if (!is_target(target))
        return err_set(err, ERR_INVALID, "not a request target");
    buf_adds(out, method);
    buf_add(out, SLICE(" "));
    buf_add(out, target);
    buf_add(out, SLICE(" HTTP/1.1\r\n"));
    if (authority != NULL) {
        buf_add(out, SLICE("Host: "));
        buf_adds(out, authority);
        buf_add(out, SLICE("\r\n"));
    }
    return ERR_OK;
}
