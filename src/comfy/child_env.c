#include "child_env.h"

#include "base.h"

#include <string.h>

static const char *const ours[] = {
    "API_KEY",
    "STORE_URL",
    "TABLESTORE_ACCESS_KEY_ID",
    "TABLESTORE_ACCESS_KEY_SECRET",
    "TABLESTORE_SESSION_TOKEN",
};
static const char *const platforms[] = {
    "ALIBABA_CLOUD_ACCESS_KEY_ID",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
    "ALIBABA_CLOUD_SECURITY_TOKEN",
};

static bool is_named(const char *variable, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(names[i]);
        if (strncmp(variable, names[i], len) == 0 && variable[len] == '=')
            return true;
    }
    return false;
}

char **child_env_new(char *const *from, bool pass_credentials)
{
    size_t count = 0;
    size_t kept = 0;
    while (from[count] != NULL)
        count++;
    char **env = xcalloc(count + 1, sizeof(*env));
    for (size_t i = 0; i < count; i++)
        if (!is_named(from[i], ours, ARRAY_LEN(ours)) &&
            (pass_credentials || !is_named(from[i], platforms, ARRAY_LEN(platforms))))
            env[kept++] = from[i];
    return env;
}
