/* What stands in a mysql: URL; see store_mysql.c. */
#include "store_mysql_link.h"
#include "store_url.h"

#include <stdlib.h>

enum {
    PORT_DEFAULT = 3306,
    POOL_DEFAULT = 2,
    TTL_DEFAULT_S = 7 * 24 * 3600,
    TTL_MAX_S = 10 * 366 * 24 * 3600,
    TIMEOUT_DEFAULT_MS = 5000,
    WAIT_DEFAULT_MS = 3000,
    NAME_MAX_LEN = 64,
};

static bool sql_is_name(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > NAME_MAX_LEN || (name[0] >= '0' && name[0] <= '9'))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= 'A' && name[i] <= 'Z') ||
              (name[i] >= '0' && name[i] <= '9') || name[i] == '_'))
            return false;
    return true;
}

static enum err_code sql_read_tls(struct sql_options *o, struct store_url *url, struct err *err)
{
    char *tls = store_url_param(url, "tls");
    bool ok = true;
    if (tls == NULL || strcmp(tls, "off") == 0)
        o->tls = SQL_TLS_OFF;
    else if (strcmp(tls, "require") == 0)
        o->tls = SQL_TLS_REQUIRE;
    else if (strcmp(tls, "verify") == 0)
        o->tls = SQL_TLS_VERIFY;
    else
        ok = false;
    free(tls);
    o->ca = store_url_param(url, "ca");
    if (!ok)
        return err_set(err, ERR_INVALID, "store URL: tls must be off, require or verify");
    if (o->ca != NULL && o->tls != SQL_TLS_VERIFY)
        return err_set(err, ERR_INVALID, "store URL: a ca without tls=verify");
    return ERR_OK;
}

static enum err_code sql_read_parts(struct sql_options *o, struct store_url *url, struct err *err)
{
    unsigned create = 0;
    o->ttl_s = TTL_DEFAULT_S;
    o->pool = POOL_DEFAULT;
    o->wait_ms = WAIT_DEFAULT_MS;
    o->timeout_ms = TIMEOUT_DEFAULT_MS;
    o->port = url->port != 0 ? url->port : PORT_DEFAULT;
    o->table = store_url_param(url, "table");
    if (o->table == NULL)
        o->table = xstrdup("comfy_task");
    if (url->host == NULL || url->user == NULL || url->path == NULL || strlen(url->path) < 2 ||
        strchr(url->path + 1, '/') != NULL)
        return err_set(err, ERR_INVALID, "store URL: mysql://user:password@host[:port]/database");
    if (!sql_is_name(o->table))
        return err_set(err, ERR_INVALID,
                       "store URL: a table's name is at most %d letters, digits and '_'",
                       NAME_MAX_LEN);
    if (sql_read_tls(o, url, err) != ERR_OK ||
        store_url_param_uint(url, "create", 0, 1, &create, err) != ERR_OK ||
        store_url_param_uint(url, "pool", 1, SQL_LINKS_MAX, &o->pool, err) != ERR_OK ||
        store_url_param_uint(url, "ttl", 0, TTL_MAX_S, &o->ttl_s, err) != ERR_OK ||
        store_url_param_uint(url, "wait_ms", 0, 60000, &o->wait_ms, err) != ERR_OK ||
        store_url_param_uint(url, "timeout_ms", 10, 60000, &o->timeout_ms, err) != ERR_OK)
        return ERR_INVALID;
    o->create = create == 1;
    o->host = xstrdup(url->host);
    o->user = xstrdup(url->user);
    o->password = url->password != NULL ? xstrdup(url->password) : NULL;
    o->database = xstrdup(url->path + 1);
    return ERR_OK;
}

void sql_options_done(struct sql_options *o)
{
    char *texts[] = {o->host, o->user, o->password, o->database, o->table, o->ca};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        free(texts[i]);
}

enum err_code sql_options_read(struct sql_options *ret, struct store_url *url, struct err *err)
{
    struct sql_options o = {.host = NULL};
    if (sql_read_parts(&o, url, err) != ERR_OK) {
        sql_options_done(&o);
        return ERR_INVALID;
    }
    *ret = o;
    return ERR_OK;
}
