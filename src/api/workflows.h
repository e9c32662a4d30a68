/* The workflows that the page offers: the *.json files of one directory, which may lie on a NAS
 * that hangs, so that a worker thread of their own reads them. Bounded: files, their size, requests
 * that wait for the thread. */
#ifndef WORKFLOWS_H
#define WORKFLOWS_H

#include <uv.h>

struct workflows;

/* `dir` is copied; empty: there are none. */
struct workflows *workflows_new(uv_loop_t *loop, const char *dir);
/* The server must have closed. */
void workflows_free(struct workflows *w, void (*freed)(void *ctx), void *ctx);

#endif
