/* What STORE_URL says to the Tablestore backend:
 *
 *     ots://[id:secret@]host[:port]/table[?instance=…&region=…&sign=v1|v4&scheme=https|http
 *         &create=0|1&ttl=seconds&connections=1..64&ca=/file]
 *
 * Instance and region are by default the first two labels of the host. create: a table that is
 * missing is made; ttl: its rows are dropped so long after they were written, by default never. ca:
 * certificates to trust instead of the system's. */
#ifndef OTS_URL_H
#define OTS_URL_H

#include "store_url.h"

enum { OTS_CONNECTIONS = 8 };

struct ots_url {
    char *instance, *table;
    char *region; /* NULL: signatures of version 1 */
    char *ca_file;
    bool plain, create;
    int64_t ttl_s; /* -1: for ever */
    unsigned connections;
};

/* Takes its parameters out of the URL. ots_url_done() after success. */
enum err_code ots_url_read(struct ots_url *ret, struct store_url *url, struct err *err) MUST_CHECK;
void ots_url_done(struct ots_url *u);

#endif
