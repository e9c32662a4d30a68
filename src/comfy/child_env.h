/* The environment that ComfyUI gets: ours, without what opens our doors or the platform's. Custom
 * nodes are other people's code, and some print or send their environment.
 *
 * This guards against carelessness, and against a look at /proc, not against all malice: code of
 * the same user may read our memory where the kernel lets it (ptrace(2), /proc/PID/mem). */
#ifndef CHILD_ENV_H
#define CHILD_ENV_H

#include <stdbool.h>

/* NULL-terminated, to be free()d; its strings are those of `from`. API_KEY, STORE_URL and the
 * store's own keys (TABLESTORE_ACCESS_KEY_ID, _SECRET, TABLESTORE_SESSION_TOKEN) are never in it;
 * the keys of the function's role (ALIBABA_CLOUD_ACCESS_KEY_ID, _SECRET,
 * ALIBABA_CLOUD_SECURITY_TOKEN) only with pass_credentials. */
char **child_env_new(char *const *from, bool pass_credentials);

/* Moves these variables, the platform's too, off the place where the kernel put them and where
 * whoever is of our user reads them as /proc/PID/environ (proc(5)); zeros are left there. getenv()
 * finds them as before. For `environ`, once, before there are threads; what it moves is never
 * freed. */
void child_env_hide(char **variables);

#endif
