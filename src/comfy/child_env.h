/* The environment that ComfyUI gets: ours, without what opens our doors or the platform's. Custom
 * nodes are other people's code, and some print or send their environment. Pure.
 *
 * This guards against carelessness, not against malice: code of the same user can read more.
 */
#ifndef CHILD_ENV_H
#define CHILD_ENV_H

#include <stdbool.h>

/* NULL-terminated, to be free()d; its strings are those of `from`. API_KEY, STORE_URL and the
 * store's own keys (TABLESTORE_ACCESS_KEY_ID, _SECRET, TABLESTORE_SESSION_TOKEN) are never in it;
 * the keys of the function's role (ALIBABA_CLOUD_ACCESS_KEY_ID, _SECRET,
 * ALIBABA_CLOUD_SECURITY_TOKEN) only with pass_credentials. */
char **child_env_new(char *const *from, bool pass_credentials);

#endif
