#include "backends.h"

#include "base.h"
#include "servers.h"

#include <dirent.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char dir_of_row[BACKEND_URL_MAX];

void backend_make_dir(char dir[BACKEND_URL_MAX])
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(dir, BACKEND_URL_MAX, "%s/store-XXXXXX", tmp != NULL ? tmp : "/tmp");
    ASSERT(mkdtemp(dir) != NULL);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void backend_remove_dir(const char *dir)
{
    (void)nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Two levels below what is there, so that the store has to make them. */
static bool file_start_threads(char url[BACKEND_URL_MAX], unsigned threads)
{
    backend_make_dir(dir_of_row);
    return snprintf(url, BACKEND_URL_MAX, "file://%s/a/b?threads=%u", dir_of_row, threads) > 0;
}

static bool file_start(char url[BACKEND_URL_MAX])
{
    return file_start_threads(url, 1);
}

static bool file4_start(char url[BACKEND_URL_MAX])
{
    return file_start_threads(url, 4);
}

static void file_stop(void)
{
    backend_remove_dir(dir_of_row);
}

static unsigned file_leftovers(void)
{
    char dir[BACKEND_URL_MAX + 8];
    struct dirent *entry;
    unsigned count = 0;
    (void)snprintf(dir, sizeof(dir), "%s/a/b", dir_of_row);
    DIR *d = opendir(dir);
    ASSERT(d != NULL);
    while ((entry = readdir(d)) != NULL)
        count += strstr(entry->d_name, ".tmp") != NULL;
    (void)closedir(d);
    return count;
}

static bool mem_start(char url[BACKEND_URL_MAX])
{
    return snprintf(url, BACKEND_URL_MAX, "mem:") > 0;
}

static bool slow_mem_start(char url[BACKEND_URL_MAX])
{
    return snprintf(url, BACKEND_URL_MAX, "mem:?delay_ms=2") > 0;
}

static void mem_stop(void)
{
}

#ifdef STORE_REDIS
/* One server for the whole program. A store sees only its own prefix, so a new one is an empty one.
 */
static struct server redis, redis_proxy;

static void redis_end(void)
{
    server_done(&redis_proxy);
    server_done(&redis);
}

static bool redis_start_with(char url[BACKEND_URL_MAX], const char *const proxy_options[])
{
    static unsigned stores;
    unsigned port;
    if (!server_is_installed("redis-server"))
        return false;
    if (redis.pid == 0) {
        (void)signal(SIGPIPE, SIG_IGN); /* as the program does */
        server_redis(&redis);
        if (proxy_options != NULL)
            server_proxy(&redis_proxy, redis.port, proxy_options);
        (void)atexit(redis_end);
    }
    port = proxy_options != NULL ? redis_proxy.port : redis.port;
    return snprintf(url, BACKEND_URL_MAX,
                    "redis://:pa:ss%%20w%%40rd@127.0.0.1:%u/3?prefix=%u:", port, ++stores) > 0;
}

static bool redis_start(char url[BACKEND_URL_MAX])
{
    return redis_start_with(url, NULL);
}

static bool redis_slow_start(char url[BACKEND_URL_MAX])
{
    static const char *const options[] = {"--delay-ms", "2", NULL};
    return redis_start_with(url, options);
}

static bool redis_cut_start(char url[BACKEND_URL_MAX])
{
    static const char *const options[] = {"--cut-every", "8", "40", NULL};
    return redis_start_with(url, options);
}

static void redis_stop(void)
{
}
#endif

static const struct backend_row rows[] = {
    {"file", true, file_start, file_stop, file_leftovers, NULL, NULL},
    {"file4", true, file4_start, file_stop, file_leftovers, NULL, NULL},
    {"mem", false, mem_start, mem_stop, NULL, NULL, NULL},
    {"slow_mem", false, slow_mem_start, mem_stop, NULL, NULL, NULL},
#ifdef STORE_REDIS
    {"redis", true, redis_start, redis_stop, NULL, &redis, server_redis},
    {"redis_slow", true, redis_slow_start, redis_stop, NULL, &redis, server_redis},
    {"redis_cut", true, redis_cut_start, redis_stop, NULL, &redis, server_redis},
#endif
};

const struct backend_row *backend_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}
