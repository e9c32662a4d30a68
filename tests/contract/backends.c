#include "backends.h"

#include "base.h"
#include "fault.h"
#include "servers.h"

#include <dirent.h>
#include <errno.h>
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

/* Each link is made and then denied, as when the answer was lost and the request came twice. */
static bool file_lost_start(char url[BACKEND_URL_MAX])
{
    fault_pretend_nfs(true);
    fault_arm(FAULT_LINK, 1, EEXIST, true, true);
    return file_start(url);
}

static void file_full(bool on)
{
    if (on)
        fault_arm(FAULT_WRITE, 1, ENOSPC, true, false);
    else
        (void)fault_disarm();
}

static void file_stop(void)
{
    (void)fault_disarm();
    fault_pretend_nfs(false);
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

static void redis_full(bool on)
{
    (void)server_redis_say(&redis, on ? "CONFIG SET maxmemory 1" : "CONFIG SET maxmemory 0");
}

static void redis_stop(void)
{
}
#endif

#ifdef STORE_MYSQL
/* One server for the whole program; each store has a new table. */
static struct server mysql, mysql_proxy;

static void mysql_end(void)
{
    server_done(&mysql_proxy);
    server_done(&mysql);
}

/* Connections that are cut again and again are waited for longer than a server that is not there.
 */
enum { WAIT_MS = 1000, CUT_WAIT_MS = 10000 };

static bool mysql_start_with(char url[BACKEND_URL_MAX], const char *const proxy_options[],
                             void (*run)(struct server *s), const char *more)
{
    static unsigned stores;
    unsigned port;
    if (!server_mysql_is_installed())
        return false;
    if (mysql.pid == 0) {
        (void)signal(SIGPIPE, SIG_IGN); /* as the program does */
        run(&mysql);
        if (proxy_options != NULL)
            server_proxy(&mysql_proxy, mysql.port, proxy_options);
        (void)atexit(mysql_end);
    }
    port = proxy_options != NULL ? mysql_proxy.port : mysql.port;
    return snprintf(url, BACKEND_URL_MAX,
                    "mysql://comfy:pa:ss%%20w%%40rd@127.0.0.1:%u/comfy?create=1&table=t%u"
                    "&wait_ms=%u%s",
                    port, ++stores, proxy_options != NULL ? CUT_WAIT_MS : WAIT_MS, more) > 0;
}

static bool mysql_start(char url[BACKEND_URL_MAX])
{
    return mysql_start_with(url, NULL, server_mysql, "");
}

static bool mysql_slow_start(char url[BACKEND_URL_MAX])
{
    static const char *const options[] = {"--delay-ms", "2", NULL};
    return mysql_start_with(url, options, server_mysql, "");
}

static bool mysql_cut_start(char url[BACKEND_URL_MAX])
{
    static const char *const options[] = {"--cut-every", "20", "80", NULL};
    return mysql_start_with(url, options, server_mysql, "");
}

static bool mysql_tls_start(char url[BACKEND_URL_MAX])
{
    return mysql_start_with(url, NULL, server_mysql_tls, "&tls=require");
}

static bool mysql_tls_cut_start(char url[BACKEND_URL_MAX])
{
    static const char *const options[] = {"--cut-every", "20", "80", NULL};
    return mysql_start_with(url, options, server_mysql_tls, "&tls=require");
}

static void mysql_read_only(bool on)
{
    server_mysql_say(&mysql, on ? "SET GLOBAL read_only=1" : "SET GLOBAL read_only=0");
}

static void mysql_stop(void)
{
}
#endif

/* One server for the whole program, a new table for each store. */
static struct server ots, ots_proxy;

static void ots_end(void)
{
    server_done(&ots_proxy);
    server_done(&ots);
}

static bool ots_start_with(char url[BACKEND_URL_MAX], const char *const proxy_options[],
                           void (*run)(struct server *s), const char *more)
{
    static unsigned tables;
    unsigned port;
    if (ots.pid == 0) {
        (void)signal(SIGPIPE, SIG_IGN); /* as the program does */
        run(&ots);
        if (proxy_options != NULL)
            server_proxy(&ots_proxy, ots.port, proxy_options);
        (void)atexit(ots_end);
    }
    port = proxy_options != NULL ? ots_proxy.port : ots.port;
    return snprintf(url, BACKEND_URL_MAX,
                    "ots://" SERVER_OTS_ID ":Example%%2FSecret%%2BKey@127.0.0.1:%u/"
                    "t%u?instance=inst&create=1%s",
                    port, ++tables, more) > 0;
}

static bool ots_start(char url[BACKEND_URL_MAX])
{
    return ots_start_with(url, NULL, server_ots, "&scheme=http");
}

static bool ots_v4_start(char url[BACKEND_URL_MAX])
{
    return ots_start_with(url, NULL, server_ots_v4,
                          "&scheme=http&sign=v4&region=here&connections=2");
}

static bool ots_tls_start(char url[BACKEND_URL_MAX])
{
    char url_to[BACKEND_URL_MAX];
    return ots_start_with(url_to, NULL, server_ots_tls, "") &&
           snprintf(url, BACKEND_URL_MAX, "%s&ca=%s/pem", url_to, ots.dir) > 0;
}

static bool ots_flaky_start(char url[BACKEND_URL_MAX])
{
    return ots_start_with(url, NULL, server_ots_flaky, "&scheme=http");
}

static bool ots_slow_start(char url[BACKEND_URL_MAX])
{
    static const char *const options[] = {"--delay-ms", "2", NULL};
    return ots_start_with(url, options, server_ots, "&scheme=http");
}

static bool ots_cut_start(char url[BACKEND_URL_MAX])
{
    static const char *const options[] = {"--cut-every", "8", "40", NULL};
    return ots_start_with(url, options, server_ots, "&scheme=http");
}

static void ots_busy(bool on)
{
    server_ots_steer(&ots, on ? "fault" : "calm", on ? "* 99 busy" : "", NULL, 0);
}

static void ots_stop(void)
{
}

static const struct backend_row rows[] = {
    {"file", true, file_start, file_stop, file_leftovers, NULL, NULL, NULL},
    {"file4", true, file4_start, file_stop, file_leftovers, NULL, NULL, NULL},
    {"file_full", true, file_start, file_stop, file_leftovers, NULL, NULL, file_full},
    {"file_lost", true, file_lost_start, file_stop, file_leftovers, NULL, NULL, NULL},
    {"mem", false, mem_start, mem_stop, NULL, NULL, NULL, NULL},
    {"slow_mem", false, slow_mem_start, mem_stop, NULL, NULL, NULL, NULL},
    {"ots", true, ots_start, ots_stop, NULL, &ots, server_ots, NULL},
    {"ots_v4", true, ots_v4_start, ots_stop, NULL, &ots, server_ots_v4, NULL},
    {"ots_tls", true, ots_tls_start, ots_stop, NULL, &ots, server_ots_tls, NULL},
    {"ots_flaky", true, ots_flaky_start, ots_stop, NULL, &ots, server_ots_flaky, NULL},
    {"ots_slow", true, ots_slow_start, ots_stop, NULL, &ots, server_ots, NULL},
    {"ots_cut", true, ots_cut_start, ots_stop, NULL, &ots, server_ots, NULL},
    {"ots_busy", true, ots_start, ots_stop, NULL, &ots, server_ots, ots_busy},
#ifdef STORE_REDIS
    {"redis", true, redis_start, redis_stop, NULL, &redis, server_redis, NULL},
    {"redis_slow", true, redis_slow_start, redis_stop, NULL, &redis, server_redis, NULL},
    {"redis_cut", true, redis_cut_start, redis_stop, NULL, &redis, server_redis, NULL},
    {"redis_full", true, redis_start, redis_stop, NULL, &redis, server_redis, redis_full},
#endif
#ifdef STORE_MYSQL
    {"mysql", true, mysql_start, mysql_stop, NULL, &mysql, server_mysql, NULL},
    {"mysql_slow", true, mysql_slow_start, mysql_stop, NULL, &mysql, server_mysql, NULL},
    {"mysql_cut", true, mysql_cut_start, mysql_stop, NULL, &mysql, server_mysql, NULL},
    {"mysql_tls", true, mysql_tls_start, mysql_stop, NULL, &mysql, server_mysql_tls, NULL},
    {"mysql_tls_cut", true, mysql_tls_cut_start, mysql_stop, NULL, &mysql, server_mysql_tls, NULL},
    {"mysql_read_only", true, mysql_start, mysql_stop, NULL, &mysql, server_mysql, mysql_read_only},
#endif
};

const struct backend_row *backend_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}
