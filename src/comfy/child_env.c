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

static bool is_ours(const char *variable)
{
    return is_named(variable, ours, ARRAY_LEN(ours));
}

static bool is_platforms(const char *variable)
{
    return is_named(variable, platforms, ARRAY_LEN(platforms));
}

char **child_env_new(char *const *from, bool pass_credentials)
{
    size_t count = 0;
    size_t kept = 0;
    while (from[count] != NULL)
        count++;
    char **env = xcalloc(count + 1, sizeof(*env));
    for (size_t i = 0; i < count; i++)
        if (!is_ours(from[i]) && (pass_credentials || !is_platforms(from[i])))
            env[kept++] = from[i];
    return env;
}

void child_env_hide(char **variables)
{
    for (size_t i = 0; variables[i] != NULL; i++)
        if (is_ours(variables[i]) || is_platforms(variables[i])) {
            char *moved = xstrdup(variables[i]);
            explicit_bzero(variables[i], strlen(variables[i]));
            variables[i] = moved;
        }
}
