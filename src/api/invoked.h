/* A request as an invocation: what src/fc makes of its headers, who called, and the lines at its
 * begin and end that the platform's log collection looks for. */
#ifndef INVOKED_H
#define INVOKED_H

#include "api.h"
#include "invocation.h"

/* Slices live as long as the request. */
void invoked_read(struct http_req *req, struct invocation *ret);
/* The platform itself, by a hook or InvokeFunction, which is nobody from outside. Never true off
 * the platform. */
bool invoked_by_platform(struct http_req *req, bool on_platform);

/* On the platform only, nothing happens elsewhere. The begin also hands the keys of the function's
 * role to the store. */
void invoked_begin(const struct api *api, struct http_req *req);
void invoked_end(const struct api *api, struct http_req *req);
/* `x-fc-status` of the answer that follows. `again`: the same may work when it is delivered once
 * more. */
void invoked_judge(const struct api *api, struct http_req *req, bool again);

#endif
