/* Real servers for tests: on a free port of loopback, with data that is thrown away, ended with the
 * program that started them whatever happens to it. */
#ifndef SERVERS_H
#define SERVERS_H

#include "backends.h"

#include <sys/types.h>

struct server {
    pid_t pid; /* 0: does not run */
    unsigned port;
    char dir[BACKEND_URL_MAX]; /* its own, for its data and what it says; "": not made yet */
};

/* Is there such a program? */
bool server_is_installed(const char *program);
unsigned server_free_port(void);
/* Runs argv (a port of its own in it is s->port) and waits until the port takes connections. */
void server_run(struct server *s, const char *const argv[]);
void server_signal(const struct server *s, int number);
void server_kill(struct server *s);
/* Kills it if it runs, removes its data. */
void server_done(struct server *s);

/* After server_kill(): on the same port, with the data it had. */
#define SERVER_REDIS_PASSWORD "pa:ss w@rd"
void server_redis(struct server *s);
/* Inline commands of an administrator, the last of which is PING; what is answered to all of them,
 * until the next call. */
const char *server_redis_say(const struct server *s, const char *commands);
/* Users "comfy", who may do everything in the databases "comfy" and "empty", and "admin". */
#define SERVER_MYSQL_PASSWORD "pa:ss w@rd"
bool server_mysql_is_installed(void);
void server_mysql(struct server *s);
/* With a certificate of its own in <dir>/cert.pem, for the name localhost. */
void server_mysql_tls(struct server *s);
void server_mysql_say(const struct server *s, const char *sql); /* as "admin" */

/* tests/support/tablestore.py: keys SERVER_OTS_ID and SERVER_OTS_SECRET, instance "inst". */
#define SERVER_OTS_ID     "LTAI5tExampleKeyId000001"
#define SERVER_OTS_SECRET "Example/Secret+Key"
void server_ots(struct server *s);
void server_ots_flaky(struct server *s); /* each 23rd request seems to fail */
/* The same over TLS, with a certificate that is in the server's directory: "pem". */
void server_ots_tls(struct server *s);
void server_ots_v4(struct server *s); /* the same with signatures of version 4, region "here" */
/* POST /~<path>, see there; ret (or NULL) gets what is answered. */
void server_ots_steer(const struct server *s, const char *path, const char *body, char *ret,
                      size_t room);

/* tests/support/fault_proxy.py in front of a port: NULL ends the options. */
void server_proxy(struct server *s, unsigned to_port, const char *const options[]);

#endif
