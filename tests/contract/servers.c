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

enum { PATIENCE_MS = 60000, ARGS_MAX = 24, PORT_MIN = 10000, PORT_MAX = 32000 };

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

static bool port_answers(unsigned port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0;
    (void)close(fd);
    return ok;
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
        if (clock_mono_ms() > end || waitpid(pid, &status, WNOHANG) != 0) {
            (void)fprintf(stderr, "%s does not start: see %s/log\n", argv[0], s->dir);
            abort();
        }
        (void)usleep(2000);
    }
}

void server_signal(const struct server *s, int number)
{
    ASSERT(s->pid > 0 && kill(s->pid, number) == 0);
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
    ots_run(s, "--flaky", "13");
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
