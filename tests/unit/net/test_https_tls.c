/* Certificates are verified: against the system's when nothing else is said, and for the host that
 * was asked for. The server is openssl's, with a certificate made for the test. */
#include "https_fixture.h"
#include "unit.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
    char dir[64], cert[96], key[96];
    pid_t pid;
    unsigned port;
} server;

/* Runs a command with its output going to fd; -1: to nowhere. */
static pid_t run(const char *command, int fd)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    int null = open("/dev/null", O_RDWR);
    (void)dup2(null, STDIN_FILENO);
    (void)dup2(fd >= 0 ? fd : null, STDOUT_FILENO);
    (void)dup2(null, STDERR_FILENO);
    (void)execl("/bin/sh", "sh", "-c", command, NULL);
    _exit(127);
}

static int make_certificate(void)
{
    char command[512];
    int status;
    (void)snprintf(server.dir, sizeof(server.dir), "/tmp/test_https_tls.XXXXXX");
    assert_non_null(mkdtemp(server.dir));
    (void)snprintf(server.cert, sizeof(server.cert), "%s/cert.pem", server.dir);
    (void)snprintf(server.key, sizeof(server.key), "%s/key.pem", server.dir);
    (void)snprintf(command, sizeof(command),
                   "exec openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
                   " -days 2 -subj /CN=good.test -addext subjectAltName=DNS:good.test -out %s"
                   " -keyout %s",
                   server.cert, server.key);
    pid_t pid = run(command, -1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* It says "ACCEPT 127.0.0.1:<port>" when it listens. */
static int server_start(void **state)
{
    (void)state;
    char command[512];
    char line[256];
    int out[2];
    if (make_certificate() != 0 || pipe2(out, O_CLOEXEC) != 0)
        return -1;
    (void)snprintf(command, sizeof(command),
                   "exec openssl s_server -accept 127.0.0.1:0 -cert %s -key %s -www", server.cert,
                   server.key);
    server.pid = run(command, out[1]);
    (void)close(out[1]);
    FILE *said = fdopen(out[0], "r");
    while (server.port == 0 && said != NULL && fgets(line, sizeof(line), said) != NULL)
        if (strncmp(line, "ACCEPT ", 7) == 0 && strrchr(line, ':') != NULL)
            server.port = (unsigned)strtoul(strrchr(line, ':') + 1, NULL, 10);
    return server.port != 0 ? 0 : -1; /* the pipe stays open: the server writes to it */
}

static int server_stop(void **state)
{
    (void)state;
    if (server.pid > 0) {
        (void)kill(server.pid, SIGKILL);
        (void)waitpid(server.pid, NULL, 0);
    }
    (void)unlink(server.cert);
    (void)unlink(server.key);
    return rmdir(server.dir);
}

static struct watched_call *ask(const char *host, const char *ca_file)
{
    char url[128];
    fixture_open("127.0.0.0/8", NULL);
    fixture_free();
    loop_run_until(&fix.loop, &fix.closed, "close");
    fix.freed = fix.closed = false;
    fix.options.ca_file = ca_file;
    fix.https = https_new(&fix.loop.loop, &fix.loop.later, &fix.options);
    fix.names[0] = (struct known_name){"good.test", "127.0.0.1"};
    fix.names[1] = (struct known_name){"other.test", "127.0.0.1"};
    (void)snprintf(url, sizeof(url), "https://%s:%u/", host, server.port);
    struct watched_call *one = call_prepare_url(0, url);
    one->call.body_max = 1024 * 1024;
    call_start(one);
    loop_run_until(&fix.loop, &one->ended, "on_end");
    return one;
}

static void test_a_good_certificate(void **state)
{
    (void)state;
    struct watched_call *one = ask("good.test", server.cert);
    call_check(one, ERR_OK, "");
    assert_int_equal(one->call.status, 200);
    assert_non_null(strstr(one->body.ptr, "TLSv1"));
    fixture_close();
}

static void test_an_unknown_issuer(void **state)
{
    (void)state;
    struct watched_call *one = ask("good.test", NULL);
    call_check(one, ERR_PROTOCOL, "certificate");
    assert_false(one->call.sent);
    fixture_close();
}

static void test_another_host(void **state)
{
    (void)state;
    static const char *const hosts[] = {"other.test", "127.0.0.1"};
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        struct watched_call *one = ask(hosts[i], server.cert);
        call_check(one, ERR_PROTOCOL, hosts[i]);
        assert_false(one->call.sent);
        fixture_close();
    }
}

/* Plain HTTP is spoken where TLS is expected. */
static void test_no_tls(void **state)
{
    (void)state;
    static const struct peer_step plain[] = {SENDS("HTTP/1.1 400 Bad Request\r\n\r\n"),
                                             DOES(PEER_CLOSE)};
    char url[64];
    fixture_open("127.0.0.0/8", plain);
    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/", fix.peer.port);
    struct watched_call *one = call_prepare_url(0, url);
    call_start(one);
    call_check(one, ERR_PROTOCOL, "127.0.0.1");
    fixture_close();
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_certificate),
        cmocka_unit_test(test_an_unknown_issuer),
        cmocka_unit_test(test_another_host),
        cmocka_unit_test(test_no_tls),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    if (https_global_init(NULL) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, server_start, server_stop);
}
