/* An http_call answered from directories instead of by ComfyUI: GET and HEAD of
 * "/view?filename=…&subfolder=…&type=output" (or input), as far as ComfyUI answers them from files:
 * with the length, the type by the name's ending, the ETag that ComfyUI's server gives the same
 * file, Range, If-Range and If-None-Match. What is no name of a file beneath the directory is 404.
 *
 * For a process that shares ComfyUI's files (on a NAS) and not ComfyUI. Files are opened and read
 * by threads of its own, because a mount may hang: then a call ends with ERR_TIMEOUT after idle_ms
 * (60 s if the call says nothing), and the thread is left behind. */
#ifndef HTTP_FILE_H
#define HTTP_FILE_H

#include "http_call.h"

#include <uv.h>

struct later;
struct http_files;

/* Empty: not known; calls for files of that type end with ERR_UNAVAILABLE. */
struct http_files *http_files_new(uv_loop_t *loop, struct later *later, const char *output_dir,
                                  const char *input_dir);
/* The rest as in http_up.h. */
void http_files_start(struct http_files *files, struct http_call *call);
void http_files_cancel(struct http_call *call);
void http_files_pause(struct http_call *call);
void http_files_resume(struct http_call *call);
/* No call may be under way. `closed` comes from the loop. */
void http_files_free(struct http_files *files, void (*closed)(void *ctx), void *ctx);

#endif
