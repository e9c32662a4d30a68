/* What blocks, on worker threads: a connection's beginning and end, and purges.
 *
 * The table, in SQL that MySQL 5.7 and 8 and MariaDB 10 understand alike:
 *
 *     doc_key     case counts
 *     body        the document, byte by byte
 *     doc_order   store_doc.order
 *     listed_us   the moment of the last write, for keys that end in ~task
 *     expires_us  the moment from which it is not there any more
 *
 * All moments are microseconds since 1970 by the server's clock, whatever its time zone. A write
 * carries the moment after which it must not be done (`last`): expires_us is NULL then, which the
 * column refuses (error 1048). So one who was frozen with a statement on its way stays silent,
 * which no look at a clock on this side could bring about.
 *
 * In ON DUPLICATE KEY UPDATE assignments are made from left to right and see those before: where
 * the order was taken over, it is equal to the new one, and so are the other columns.
 */
#include "store_mysql_lib.h"
#include "store_mysql_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NOW_US "TIMESTAMPDIFF(MICROSECOND,'1970-01-01',UTC_TIMESTAMP(6))"
#define INSERT                                                                                     \
    "INSERT INTO `@`(doc_key,body,doc_order,listed_us,expires_us) VALUES(?,?,?,IF(?," NOW_US       \
    ",NULL),IF(" NOW_US "<=?," NOW_US "+?,NULL))"
#define TAKE(column) column "=IF(doc_order=VALUES(doc_order),VALUES(" column ")," column ")"

static const char sql_table[] =
    "CREATE TABLE IF NOT EXISTS `@`("
    "doc_key VARCHAR(160) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,"
    "body LONGBLOB NOT NULL,"
    "doc_order BIGINT UNSIGNED NOT NULL,"
    "listed_us BIGINT NULL,"
    "expires_us BIGINT NOT NULL,"
    "PRIMARY KEY(doc_key),KEY newest(listed_us,doc_key),KEY expired(expires_us)) ENGINE=InnoDB";

/* What a server finds in them: '?', and columns of the answer. */
static const struct {
    unsigned params, columns;
} sql_shape[SQL_STATEMENTS] = {
    [SQL_PUT] = {6, 0},    [SQL_CREATE] = {6, 0}, [SQL_GET] = {1, 1},
    [SQL_REMOVE] = {2, 0}, [SQL_EXPIRE] = {1, 0}, [SQL_LIST] = {4, 2},
};
/* '@' stands for the table. */
static const char *const sql_text[SQL_STATEMENTS] = {
    [SQL_PUT] = INSERT
    " ON DUPLICATE KEY UPDATE doc_order=IF(VALUES(doc_order)=0 OR doc_order<=VALUES(doc_order)"
    " OR expires_us<=" NOW_US
    ",VALUES(doc_order),doc_order)," TAKE("body") "," TAKE("listed_us") "," TAKE("expires_us"),
    [SQL_CREATE] = INSERT,
    [SQL_GET] = "SELECT body FROM `@` WHERE doc_key=? AND expires_us>" NOW_US,
    [SQL_REMOVE] = "DELETE FROM `@` WHERE doc_key=? AND " NOW_US "<=?",
    [SQL_EXPIRE] = "DELETE FROM `@` WHERE doc_key=? AND expires_us<=" NOW_US,
    [SQL_LIST] =
        "SELECT doc_key,listed_us FROM `@` FORCE INDEX(newest) WHERE listed_us<=? AND (listed_us<? "
        "OR "
        "doc_key<?) AND expires_us>" NOW_US " ORDER BY listed_us DESC,doc_key DESC LIMIT ?",
};
static const char sql_purge[] =
    "DELETE FROM `@` WHERE expires_us<=" NOW_US " ORDER BY expires_us LIMIT 500";

/* --- what numbers mean ----------------------------------------------------------------------- */

enum sql_outcome sql_outcome_of(unsigned number)
{
    switch (number) {
    case ER_DUP_ENTRY: return SQL_EXISTS;
    case ER_BAD_NULL_ERROR: return SQL_LATE;
    case ER_LOCK_WAIT_TIMEOUT:
    case ER_LOCK_DEADLOCK: return SQL_AGAIN;
    case ER_NET_PACKET_TOO_LARGE:
    case ER_TOO_BIG_ROWSIZE:
    case ER_DATA_TOO_LONG:
    case CR_NET_PACKET_TOO_LARGE: return SQL_TOO_LARGE;
    case ER_SERVER_SHUTDOWN:
    case ER_QUERY_INTERRUPTED:
    case ER_UNKNOWN_STMT_HANDLER:
    case ER_NEED_REPREPARE:
    case ER_NET_READ_ERROR:
    case ER_NET_READ_INTERRUPTED:
    case ER_NET_ERROR_ON_WRITE:
    case ER_NET_WRITE_INTERRUPTED:
    case ER_CONNECTION_KILLED:
    case 4031: /* MySQL 8: disconnected by the server because of inactivity */ return SQL_LOST;
    default: return number >= CR_MIN_ERROR && number <= CR_MAX_ERROR ? SQL_LOST : SQL_REFUSED;
    }
}

/* The table is gone (create=1 makes it with the next connection), or the server has become a
 * replica (the name may lead to another one now). */
bool sql_outcome_drops(unsigned number)
{
    return number == ER_NO_SUCH_TABLE || number == ER_BAD_FIELD_ERROR ||
           number == ER_OPTION_PREVENTS_STATEMENT || number == ER_READ_ONLY_MODE;
}

/* Refused for what stands in the URL or for what the server lacks. */
static bool sql_is_hard(unsigned number)
{
    switch (number) {
    case ER_ACCESS_DENIED_ERROR:
    case ER_ACCESS_DENIED_NO_PASSWORD_ERROR:
    case ER_DBACCESS_DENIED_ERROR:
    case ER_TABLEACCESS_DENIED_ERROR:
    case ER_HOST_NOT_PRIVILEGED:
    case ER_HOST_IS_BLOCKED:
    case ER_BAD_DB_ERROR:
    case ER_NO_SUCH_TABLE:
    case ER_BAD_FIELD_ERROR:
    case ER_NOT_SUPPORTED_AUTH_MODE:
    case CR_SSL_CONNECTION_ERROR:
    case CR_AUTH_PLUGIN_CANNOT_LOAD: return true;
    default: return false;
    }
}

/* --- connecting ------------------------------------------------------------------------------ */

static char sql_plugins[4096]; /* "": where the library was built to look */

/* How an account logs in may be a file that the library loads; a package has it beside the program
 * (cmake/Package.cmake). */
void sql_global_init(void)
{
    char self[sizeof(sql_plugins) - 64], file[sizeof(sql_plugins)];
    size_t len = sizeof(self);
    ASSERT(mysql_library_init(0, NULL, NULL) == 0);
    if (uv_exepath(self, &len) != 0 || strrchr(self, '/') == NULL)
        return;
    *strrchr(self, '/') = '\0';
    (void)snprintf(file, sizeof(file), "%s/lib/caching_sha2_password.so", self);
    if (access(file, R_OK) == 0)
        (void)snprintf(sql_plugins, sizeof(sql_plugins), "%s/lib", self);
}

static enum err_code sql_fail(MYSQL *my, struct err *err)
{
    if (mysql_errno(my) == ER_NO_SUCH_TABLE)
        return err_set(err, ERR_UNAVAILABLE, "the table is not there; ?create=1 makes it");
    return err_set(err, ERR_UNAVAILABLE, "%s", mysql_error(my));
}

/* Of a connection that stood: what goes wrong with its TLS is that it was lost. */
static unsigned sql_number(MYSQL *my)
{
    unsigned number = mysql_errno(my);
    return number == CR_SSL_CONNECTION_ERROR ? CR_SERVER_LOST : number;
}

static void sql_set_up(MYSQL *my, const struct sql_options *o)
{
    unsigned timeout = SQL_CONNECT_S;
    unsigned protocol = MYSQL_PROTOCOL_TCP; /* "localhost" would be a socket in the file system */
    unsigned no = 0;
    my_bool yes = 1;
    (void)mysql_options(my, MYSQL_OPT_NONBLOCK, 0);
    if (sql_plugins[0] != '\0')
        (void)mysql_options(my, MYSQL_PLUGIN_DIR, sql_plugins);
    (void)mysql_options(my, MYSQL_OPT_CONNECT_TIMEOUT, &timeout);
    (void)mysql_options(my, MYSQL_OPT_READ_TIMEOUT, &timeout);
    (void)mysql_options(my, MYSQL_OPT_WRITE_TIMEOUT, &timeout);
    (void)mysql_options(my, MYSQL_OPT_PROTOCOL, &protocol);
    (void)mysql_options(my, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    (void)mysql_options(my, MYSQL_OPT_LOCAL_INFILE, &no); /* a server may not ask for files */
    /* A server may ask for the password in another way, but not in clear (Connector/C complies). */
    (void)mysql_options(
        my, MARIADB_OPT_RESTRICTED_AUTH,
        "mysql_native_password,caching_sha2_password,sha256_password,client_ed25519");
    if (o->tls == SQL_TLS_OFF)
        return;
    (void)mysql_options(my, MYSQL_OPT_SSL_ENFORCE, &yes);
    if (o->ca != NULL)
        (void)mysql_options(my, MYSQL_OPT_SSL_CA, o->ca);
    if (o->tls == SQL_TLS_VERIFY)
        (void)mysql_options(my, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &yes);
}

/* Keys are ASCII: compared as such, or an index would be of no use. */
static bool sql_greet(MYSQL *my)
{
    static const char mode[] = "SET NAMES ascii, SESSION sql_mode='STRICT_ALL_TABLES', "
                               "SESSION autocommit=1, SESSION innodb_lock_wait_timeout=3, "
                               "SESSION lock_wait_timeout=3";
    return mysql_real_query(my, mode, sizeof(mode) - 1) == 0;
}

static MYSQL *sql_connect(const struct sql_options *o, unsigned *ret_number, struct err *err)
{
    MYSQL *my = mysql_init(NULL);
    ASSERT(my != NULL);
    sql_set_up(my, o);
    MYSQL *connected =
        mysql_real_connect(my, o->host, o->user, o->password, o->database, o->port, NULL, 0);
    /* Connector/C 3.3 takes a server without TLS for good enough, unless it is to verify it. */
    if (connected != NULL && o->tls != SQL_TLS_OFF && mysql_get_ssl_cipher(my) == NULL) {
        *ret_number = CR_SSL_CONNECTION_ERROR;
        (void)err_set(err, ERR_UNAVAILABLE, "the server does not speak TLS");
    } else if (connected == NULL || !sql_greet(my)) {
        *ret_number = connected == NULL ? mysql_errno(my) : sql_number(my);
        (void)sql_fail(my, err);
    } else {
        return my;
    }
    mysql_close(my);
    return NULL;
}

static struct buf sql_for_table(const char *text, const char *table)
{
    struct buf sql;
    buf_init(&sql, SIZE_MAX);
    for (const char *at = strchr(text, '@'); at != NULL; at = strchr(text, '@')) {
        buf_add(&sql, (struct slice){text, (size_t)(at - text)});
        buf_adds(&sql, table);
        text = at + 1;
    }
    buf_adds(&sql, text);
    return sql;
}

static enum err_code sql_do(MYSQL *my, const char *text, const char *table, struct err *err)
{
    struct buf sql = sql_for_table(text, table);
    int failed = mysql_real_query(my, sql.ptr, sql.len);
    buf_done(&sql);
    return failed == 0 ? ERR_OK : sql_fail(my, err);
}

/* The clock is asked before the answer is here: what is added is rather too little. */
static enum err_code sql_ask_server(struct sql_link *l, struct err *err)
{
    static const char ask[] = "SELECT @@max_allowed_packet," NOW_US;
    if (mysql_real_query(l->my, ask, sizeof(ask) - 1) != 0)
        return sql_fail(l->my, err);
    MYSQL_RES *res = mysql_store_result(l->my);
    MYSQL_ROW row = res != NULL ? mysql_fetch_row(res) : NULL;
    uint64_t now_us = 0;
    bool ok = row != NULL && row[0] != NULL && row[1] != NULL &&
              slice_to_u64(slice_of(row[0]), UINT64_MAX, &l->packet_max) &&
              slice_to_u64(slice_of(row[1]), INT64_MAX, &now_us);
    mysql_free_result(res);
    if (!ok)
        return err_set(err, ERR_UNAVAILABLE, "the server does not tell its limits and its time");
    l->clock_us = (int64_t)now_us - (int64_t)(clock_mono_ms() + 1) * 1000;
    return ERR_OK;
}

static enum err_code sql_prepare(struct sql_link *l, struct err *err)
{
    for (unsigned i = 0; i < SQL_STATEMENTS; i++) {
        struct buf sql = sql_for_table(sql_text[i], l->needs.options->table);
        if (l->stmt[i] == NULL)
            l->stmt[i] = mysql_stmt_init(l->my);
        ASSERT(l->stmt[i] != NULL);
        int failed = mysql_stmt_prepare(l->stmt[i], sql.ptr, sql.len);
        buf_done(&sql);
        if (failed != 0)
            return sql_fail(l->my, err);
        /* Who believes other numbers reads and writes beyond what is bound. */
        if (mysql_stmt_param_count(l->stmt[i]) != sql_shape[i].params ||
            mysql_stmt_field_count(l->stmt[i]) != sql_shape[i].columns)
            return err_set(err, ERR_UNAVAILABLE, "the server understands statements otherwise");
    }
    return ERR_OK;
}

/* A server that lets nobody write has perhaps the table. */
static enum err_code sql_prepare_or_create(struct sql_link *l, struct err *err)
{
    const struct sql_options *o = l->needs.options;
    enum err_code code = sql_prepare(l, err);
    if (code == ERR_OK || !o->create || mysql_errno(l->my) != ER_NO_SUCH_TABLE)
        return code;
    code = sql_do(l->my, sql_table, o->table, err);
    return code == ERR_OK ? sql_prepare(l, err) : code;
}

void sql_close_work(struct sql_link *l)
{
    if (l->my == NULL)
        return;
    for (unsigned i = 0; i < SQL_STATEMENTS; i++) {
        if (l->stmt[i] != NULL)
            (void)mysql_stmt_close(l->stmt[i]);
        l->stmt[i] = NULL;
    }
    mysql_close(l->my);
    l->my = NULL;
}

void sql_connect_work(struct sql_link *l)
{
    unsigned number = 0;
    l->is_hard = l->is_handshake = false;
    l->my = sql_connect(l->needs.options, &number, &l->err);
    if (l->my == NULL) {
        l->is_hard = sql_is_hard(number);
        l->is_handshake = number == CR_SSL_CONNECTION_ERROR;
        return;
    }
    if (sql_prepare_or_create(l, &l->err) != ERR_OK || sql_ask_server(l, &l->err) != ERR_OK) {
        l->is_hard = sql_is_hard(sql_number(l->my));
        sql_close_work(l);
        return;
    }
}

/* --- purging --------------------------------------------------------------------------------- */

enum err_code sql_purge_work(const struct sql_options *options, const _Atomic bool *stop,
                             uint64_t *ret_count, struct err *err)
{
    unsigned number = 0;
    uint64_t count = 0;
    MYSQL *my = sql_connect(options, &number, err);
    if (my == NULL)
        return err->code;
    enum err_code code = ERR_OK;
    uint64_t rows;
    do {
        code = sql_do(my, sql_purge, options->table, err);
        rows = code == ERR_OK ? mysql_affected_rows(my) : 0;
        count += rows;
    } while (rows > 0 && !atomic_load(stop));
    mysql_close(my);
    *ret_count = count;
    return code;
}
