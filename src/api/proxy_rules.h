/* PROXY_ALLOW: which of ComfyUI's own paths can be reached through us. Pure.
 *
 *     all   everything
 *     ui    what its pages need: reading (GET, HEAD, WebSockets), queueing, interrupting,
 * uploading, and saving settings and workflows. Nothing that manages the installation (the paths of
 *           ComfyUI-Manager, which act on GET too), and nothing that deletes or moves user data.
 *     none  nothing
 *
 * Paths are compared as ComfyUI reads them: percent-decoded, with or without /api in front. What
 * could be read in two ways ("..", empty segments) is no path of its pages, and refused with `ui`.
 */
#ifndef PROXY_RULES_H
#define PROXY_RULES_H

#include "buf.h"

enum proxy_allow { PROXY_ALL, PROXY_UI, PROXY_NONE };

enum proxy_allow proxy_allow_of(const char *word); /* one of the three above */
bool proxy_allows(enum proxy_allow allow, struct slice method, struct slice path);

#endif
