#include "servers.h"

#include "base.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_MS = 60000, ARGS_MAX = 24, PORT_MIN = 10000, PORT_MAX = 32000, ANSWER_MAX = 4096 };

bool server_is_installed(const char *program)
{
    char path[4096];
    const char *dirs = getenv("PATH");
    while (dirs != NULL && *dirs != '\0') {
        int len = (int)strcspn(dirs, ":");
        (void)snprintf(path, sizeof(path), "%.*s/%s", len, dirs, program);
        if (access(path, X_OK) == 0)
            return true;
        dirs += len + (dirs[len] == ':');
    }
    return false;
}

/* Below the range that the kernel hands out: there a client that looks for a server which is down
 * may take its port, or even find itself. */
unsigned server_free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    uint16_t random;
    for (;;) {
        ASSERT(getrandom(&random, sizeof(random), 0) == (ssize_t)sizeof(random));
        unsigned port = PORT_MIN + random % (PORT_MAX - PORT_MIN);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        at.sin_port = htons((uint16_t)port);
        bool is_free = bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0;
        (void)close(fd);
        if (is_free)
            return port;
    }
}

/* -1: nobody listens there. */
static int connect_to(unsigned port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

static bool port_answers(unsigned port)
{
    int fd = connect_to(port);
    if (fd >= 0)
        (void)close(fd);
    return fd >= 0;
}

static void run_child(const struct server *s, const char *const argv[])
{
    char log[BACKEND_URL_MAX + 8];
    (void)snprintf(log, sizeof(log), "%s/log", s->dir);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (out < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(126);
    (void)execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* Its last words: nobody can look into a directory of the machine that tests. */
_Noreturn static void give_up(const struct server *s, const char *program, const char *why)
{
    char log[BACKEND_URL_MAX + 8], tail[4096];
    (void)snprintf(log, sizeof(log), "%s/log", s->dir);
    (void)fprintf(stderr, "%s %s; %s ends with:\n", program, why, log);
    FILE *f = fopen(log, "r");
    if (f != NULL) {
        if (fseek(f, -(long)sizeof(tail), SEEK_END) != 0)
            rewind(f);
        size_t n = fread(tail, 1, sizeof(tail), f);
        (void)fwrite(tail, 1, n, stderr);
        (void)fclose(f);
    }
    abort();
}

void server_run(struct server *s, const char *const argv[])
{
    uint64_t end = clock_mono_ms() + PATIENCE_MS;
    int status;
    ASSERT(s->pid == 0);
    if (s->dir[0] == '\0')
        backend_make_dir(s->dir);
    pid_t pid = fork();
    ASSERT(pid >= 0);
    if (pid == 0)
        run_child(s, argv);
    s->pid = pid;
    while (!port_answers(s->port)) {
        if (clock_mono_ms() > end || waitpid(pid, &status, WNOHANG) != 0)
            give_up(s, argv[0], "does not start");
        (void)usleep(2000);
    }
}

void server_signal(const struct server *s, int number)
{
    int status = 0;
    ASSERT(s->pid > 0 && kill(s->pid, number) == 0);
    if (number == SIGSTOP) /* each of its threads */
        ASSERT(waitpid(s->pid, &status, WUNTRACED) == s->pid && WIFSTOPPED(status));
}

void server_kill(struct server *s)
{
    if (s->pid == 0)
        return;
    (void)kill(s->pid, SIGKILL);
    while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    s->pid = 0;
}

void server_done(struct server *s)
{
    server_kill(s);
    if (s->dir[0] != '\0')
        backend_remove_dir(s->dir);
    s->dir[0] = '\0';
}

void server_redis(struct server *s)
{
    char port[8];
    if (s->port == 0)
        s->port = server_free_port();
    if (s->dir[0] == '\0')
        backend_make_dir(s->dir);
    (void)snprintf(port, sizeof(port), "%u", s->port);
    const char *const argv[] = {"redis-server",
                                "--port",
                                port,
                                "--bind",
                                "127.0.0.1",
                                "--dir",
                                s->dir,
                                "--save",
                                "",
                                "--appendonly",
                                "yes",
                                "--appendfsync",
                                "no",
                                "--auto-aof-rewrite-percentage",
                                "0",
                                "--requirepass",
                                SERVER_REDIS_PASSWORD,
                                NULL};
    server_run(s, argv);
}

static void send_all(int fd, const char *text)
{
    ASSERT(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

const char *server_redis_say(const struct server *s, const char *commands)
{
    static char answer[ANSWER_MAX];
    size_t len = 0;
    int fd = connect_to(s->port);
    ASSERT(fd >= 0);
    send_all(fd, "AUTH \"" SERVER_REDIS_PASSWORD "\"\r\n");
    send_all(fd, commands);
    send_all(fd, "\r\nPING\r\n");
    answer[0] = '\0';
    while (strstr(answer, "+PONG\r\n") == NULL) {
        ssize_t n = read(fd, answer + len, sizeof(answer) - 1 - len);
        ASSERT(n > 0);
        len += (size_t)n;
        answer[len] = '\0';
    }
    (void)close(fd);
    ASSERT(strncmp(answer, "+OK\r\n", 5) == 0);
    return answer + 5;
}

/* Debian's servers are not in everybody's PATH. */
bool server_mysql_is_installed(void)
{
    static bool looked;
    const char *path = getenv("PATH");
    char longer[8192];
    (void)snprintf(longer, sizeof(longer), "%s:/usr/sbin", path != NULL ? path : "/usr/bin");
    if (!looked)
        ASSERT(setenv("PATH", longer, 1) == 0);
    looked = true;
    return server_is_installed("mariadbd") && server_is_installed("mariadb-install-db");
}

static void run_and_wait(const struct server *s, const char *const argv[])
{
    int status = 0;
    pid_t pid = fork();
    ASSERT(pid >= 0);
    if (pid == 0)
        run_child(s, argv);
    ASSERT(waitpid(pid, &status, 0) == pid);
    if (status != 0)
        give_up(s, argv[0], "fails");
}

/* A server that starts removes each temporary table that lies in its directory for them: in /tmp
 * also those of the servers that start beside it. Each has its own. */
static void mysql_tmpdir(const struct server *s, char option[BACKEND_URL_MAX + 32])
{
    (void)snprintf(option, BACKEND_URL_MAX + 32, "--tmpdir=%s", s->dir);
}

/* It does not run as root unless it is told to; others cannot tell it. */
static const char *mysql_user(void)
{
    return getuid() == 0 ? "--user=root" : "--skip-name-resolve";
}

static void mysql_set_up(struct server *s, const char *data, const char *tmp, const char *init)
{
    static const char sql[] = "CREATE DATABASE IF NOT EXISTS comfy;\n"
                              "CREATE DATABASE IF NOT EXISTS empty;\n"
                              "CREATE USER IF NOT EXISTS comfy@'%' IDENTIFIED BY "
                              "'" SERVER_MYSQL_PASSWORD "';\n"
                              "GRANT ALL ON comfy.* TO comfy@'%';\n"
                              "GRANT ALL ON empty.* TO comfy@'%';\n"
                              "CREATE USER IF NOT EXISTS admin@'%' IDENTIFIED BY "
                              "'" SERVER_MYSQL_PASSWORD "';\n"
                              "GRANT ALL ON *.* TO admin@'%' WITH GRANT OPTION;\n";
    const char *const argv[] = {"mariadb-install-db",
                                "--no-defaults",
                                "--rpm", /* and touches no file of the system's */
                                mysql_user(),
                                data,
                                tmp,
                                "--auth-root-authentication-method=normal",
                                "--skip-test-db",
                                "--skip-name-resolve",
                                "--innodb-log-file-size=64M",
                                NULL};
    int fd = open(init, O_WRONLY | O_CREAT | O_EXCL, 0600);
    ASSERT(fd >= 0 && write(fd, sql, sizeof(sql) - 1) == (ssize_t)sizeof(sql) - 1);
    (void)close(fd);
    run_and_wait(s, argv);
}

static void mysql_run(struct server *s, const char *more1, const char *more2)
{
    char data[BACKEND_URL_MAX + 32], init[BACKEND_URL_MAX + 32], init_option[BACKEND_URL_MAX + 64];
    char port[24], tmp[BACKEND_URL_MAX + 32];
    if (s->port == 0)
        s->port = server_free_port();
    if (s->dir[0] == '\0')
        backend_make_dir(s->dir);
    mysql_tmpdir(s, tmp);
    (void)snprintf(data, sizeof(data), "--datadir=%s/data", s->dir);
    (void)snprintf(init, sizeof(init), "%s/init.sql", s->dir);
    (void)snprintf(init_option, sizeof(init_option), "--init-file=%s", init);
    (void)snprintf(port, sizeof(port), "--port=%u", s->port);
    const char *const argv[] = {
        "mariadbd",
        "--no-defaults",
        mysql_user(),
        data,
        tmp,
        init_option,
        "--socket=socket", /* in its directory: a path may be too long for one */
        port,
        "--bind-address=127.0.0.1",
        "--skip-name-resolve",
        "--max-allowed-packet=32M",
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=64M",
        "--innodb-flush-log-at-trx-commit=2",
        more1,
        more2,
        NULL};
    if (access(strchr(data, '=') + 1, F_OK) != 0)
        mysql_set_up(s, data, tmp, init);
    server_run(s, argv);
}

void server_mysql(struct server *s)
{
    mysql_run(s, NULL, NULL);
}

void server_mysql_tls(struct server *s)
{
    char cert[BACKEND_URL_MAX + 32], key[BACKEND_URL_MAX + 32];
    if (s->dir[0] == '\0')
        backend_make_dir(s->dir);
    (void)snprintf(cert, sizeof(cert), "--ssl-cert=%s/cert.pem", s->dir);
    (void)snprintf(key, sizeof(key), "--ssl-key=%s/key.pem", s->dir);
    const char *const argv[] = {"openssl",
                                "req",
                                "-x509",
                                "-newkey",
                                "ec",
                                "-pkeyopt",
                                "ec_paramgen_curve:prime256v1",
                                "-nodes",
                                "-keyout",
                                strchr(key, '=') + 1,
                                "-out",
                                strchr(cert, '=') + 1,
                                "-days",
                                "2",
                                "-subj",
                                "/CN=localhost",
                                "-addext",
                                "subjectAltName=DNS:localhost",
                                NULL};
    if (access(strchr(cert, '=') + 1, R_OK) != 0)
        run_and_wait(s, argv);
    mysql_run(s, cert, key);
}

void server_mysql_say(const struct server *s, const char *sql)
{
    char port[16];
    (void)snprintf(port, sizeof(port), "--port=%u", s->port);
    const char *const argv[] = {"mariadb",
                                "--no-defaults",
                                "--host=127.0.0.1",
                                port,
                                "--user=admin",
                                "--password=" SERVER_MYSQL_PASSWORD,
                                "--execute",
                                sql,
                                NULL};
    run_and_wait(s, argv);
}

static void ots_prepare(struct server *s)
{
    if (s->port == 0)
        s->port = server_free_port();
    if (s->dir[0] == '\0')
        backend_make_dir(s->dir);
}

static void ots_run(struct server *s, const char *option, const char *value)
{
    char port[8], data[BACKEND_URL_MAX + 8];
    ots_prepare(s);
    (void)snprintf(port, sizeof(port), "%u", s->port);
    (void)snprintf(data, sizeof(data), "%s/rows", s->dir);
    /* Pages of 7 rows: every list takes several. */
    const char *const argv[] = {"/usr/bin/python3",
                                TABLESTORE,
                                "--port",
                                port,
                                "--data",
                                data,
                                "--id",
                                SERVER_OTS_ID,
                                "--secret",
                                SERVER_OTS_SECRET,
                                "--instance",
                                "inst",
                                "--page",
                                "7",
                                option,
                                value,
                                NULL};
    server_run(s, argv);
}

void server_ots(struct server *s)
{
    ots_run(s, NULL, NULL);
}

void server_ots_v4(struct server *s)
{
    ots_run(s, "--region", "here");
}

void server_ots_flaky(struct server *s)
{
    ots_run(s, "--flaky", "23");
}

void server_ots_steer(const struct server *s, const char *path, const char *body, char *ret,
                      size_t room)
{
    char text[ANSWER_MAX];
    size_t len = 0;
    ssize_t n;
    int fd = connect_to(s->port);
    ASSERT(fd >= 0);
    (void)snprintf(text, sizeof(text), "POST /~%s HTTP/1.1\r\nContent-Length: %zu\r\n\r\n%s", path,
                   strlen(body), body);
    send_all(fd, text);
    ASSERT(shutdown(fd, SHUT_WR) == 0);
    while ((n = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)n;
    (void)close(fd);
    text[len] = '\0';
    const char *answer = strstr(text, "\r\n\r\n");
    ASSERT(answer != NULL);
    if (ret != NULL)
        (void)snprintf(ret, room, "%s", answer + 4);
}

static void make_certificate(const char *pem)
{
    int status;
    const char *const argv[] = {"openssl",
                                "req",
                                "-x509",
                                "-newkey",
                                "ec",
                                "-pkeyopt",
                                "ec_paramgen_curve:prime256v1",
                                "-nodes",
                                "-days",
                                "2",
                                "-subj",
                                "/CN=test",
                                "-addext",
                                "subjectAltName=IP:127.0.0.1",
                                "-out",
                                pem,
                                "-keyout",
                                pem,
                                NULL};
    pid_t pid = fork();
    ASSERT(pid >= 0);
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        (void)dup2(null, 2);
        (void)execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    ASSERT(waitpid(pid, &status, 0) == pid && status == 0);
}

void server_ots_tls(struct server *s)
{
    char pem[BACKEND_URL_MAX + 8];
    ots_prepare(s);
    (void)snprintf(pem, sizeof(pem), "%s/pem", s->dir);
    if (access(pem, R_OK) != 0)
        make_certificate(pem);
    ots_run(s, "--pem", pem);
}

void server_proxy(struct server *s, unsigned to_port, const char *const options[])
{
    char port[8], to[8];
    const char *argv[ARGS_MAX] = {"/usr/bin/python3", FAULT_PROXY, "--port", port, "--to", to};
    unsigned n = 6;
    s->port = server_free_port();
    (void)snprintf(port, sizeof(port), "%u", s->port);
    (void)snprintf(to, sizeof(to), "%u", to_port);
    for (; *options != NULL; options++) {
        ASSERT(n + 1 < ARGS_MAX);
        argv[n++] = *options;
    }
    server_run(s, argv);
}
