/* Asks one thing again and again, over connections that stay open, each as soon as it has its
 * answer (a closed loop), and tells as JSON how long that took: what measures in ./dev bench.
 *
 *     load --port N [--connections N] --count N | --seconds N [--warmup N] [--patience N]
 *          [--path P] [--body FILE] [--task-id PREFIX] [--expect TEXT]
 *     load --port N … --direct --body FILE
 *     load --port N … --watch --body FILE
 *
 * With a body it is a POST. With a task-id each request says one of its own:
 * PREFIX-connection-turn. An answer is good if it is a 200 and `expect` is somewhere in it.
 * --direct makes a run as a client of ComfyUI would who has no agent: a WebSocket of its own, POST
 * /prompt, news until the end, GET /view of the picture. --watch makes it over a WebSocket of its
 * own at `path`: sends the prompt, and takes news until the result. The first `warmup` requests do
 * not count; they make the connections.
 *
 * One thread, epoll, no libraries of the program's but for buffers: it is not what it measures. */
#include "buf.h"

#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_BYTES = 256 * 1024,
    LINE_MAX_BYTES = 16 * 1024,
    EVENTS_MAX = 128,
    FAILURES_MAX = 100, /* then it is given up */
    TEXT_MAX = 64 << 20,
    FILE_MAX = 127,
};

enum place { AT_STATUS, AT_HEADER, AT_BODY, AT_CHUNK_SIZE, AT_CHUNK_END, AT_TRAILER };

struct slot;

struct link { /* a connection: of HTTP, or after its 101 a WebSocket */
    int fd;   /* -1: none */
    struct slot *slot;
    struct buf head; /* the request */
    struct iovec out[2];
    struct buf in; /* a line, or frames, that are not whole yet */
    enum place at;
    int status;
    bool chunked, closes, is_ws;
    uint64_t left, got;
    bool found; /* what is expected */
    struct buf window;
};

struct slot {
    struct link http, ws;
    unsigned number, turn, texts;
    bool active, resting; /* resting: begins again from the main loop */
    uint64_t began_ns;
    bool asked, posted, ended, viewing; /* of a direct run */
    char file[FILE_MAX + 1];
    struct buf content;
};

static struct {
    unsigned port, connections, count, warmup;
    double seconds, patience_s;
    const char *path, *task_id, *expect;
    bool direct, watch, given_up;
    struct buf body;

    int epoll;
    struct slot *slots;
    unsigned begun, ended, active;
    uint64_t from_ns, until_ns; /* of what counts */
    uint64_t *took_ns;
    unsigned good, failed;
    uint64_t bytes; /* of answers and of messages, since it counts */
    uint64_t texts; /* messages of what is good */
    char why[256];  /* of the first failure */
    char room[READ_BYTES];
} l = {.connections = 1, .patience_s = 60, .path = "/"};

static uint64_t now_ns(void)
{
    struct timespec t;
    ASSERT(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- turns ----------------------------------------------------------------------------------- */

static void link_drop(struct link *c)
{
    if (c->fd >= 0)
        (void)close(c->fd);
    c->fd = -1;
    c->is_ws = false;
    c->at = AT_STATUS;
    c->out[0].iov_len = c->out[1].iov_len = 0;
    buf_reset(&c->in);
}

static void slot_end(struct slot *s, bool good)
{
    uint64_t now = now_ns();
    s->active = false;
    s->resting = true;
    l.active--;
    if (good && l.ended >= l.warmup) {
        if ((l.good & (l.good - 1)) == 0) /* room for twice as many */
            l.took_ns = xrealloc(l.took_ns, ((size_t)l.good + 1) * 2 * sizeof(*l.took_ns));
        l.took_ns[l.good++] = now - s->began_ns;
        l.texts += s->texts;
    }
    if (++l.ended == l.warmup) {
        l.from_ns = now;
        l.bytes = 0;
    }
    l.until_ns = now;
}

static void slot_fail(struct slot *s, const char *what, struct slice detail)
{
    if (!s->active)
        return;
    if (l.failed++ == 0)
        (void)snprintf(l.why, sizeof(l.why), "%s %.*s", what,
                       (int)(detail.len < 160 ? detail.len : 160), detail.ptr);
    link_drop(&s->http);
    link_drop(&s->ws);
    slot_end(s, false);
}

/* --- sending --------------------------------------------------------------------------------- */

static void link_flush(struct link *c)
{
    while (c->fd >= 0 && c->out[0].iov_len + c->out[1].iov_len > 0) {
        struct msghdr message = {.msg_iov = c->out, .msg_iovlen = 2};
        ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN)
                slot_fail(c->slot, "sending:", slice_of(strerror(errno)));
            return;
        }
        for (unsigned i = 0; i < 2; i++) {
            size_t sent = (size_t)n < c->out[i].iov_len ? (size_t)n : c->out[i].iov_len;
            c->out[i].iov_base = (char *)c->out[i].iov_base + sent;
            c->out[i].iov_len -= sent;
            n -= (ssize_t)sent;
        }
    }
}

static void link_connect(struct link *c)
{
    int one = 1;
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)l.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    ASSERT(c->fd >= 0);
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)connect(c->fd, (struct sockaddr *)&to, sizeof(to)); /* how that went is told by epoll */
    ASSERT(epoll_ctl(l.epoll, EPOLL_CTL_ADD, c->fd, &event) == 0);
}

/* What was put into c->head, and the body behind it. */
static void link_send(struct link *c, struct slice body)
{
    c->got = 0;
    c->found = l.expect == NULL;
    buf_reset(&c->window);
    c->out[0] = (struct iovec){c->head.ptr, c->head.len};
    c->out[1] = (struct iovec){(char *)(uintptr_t)body.ptr, body.len};
    if (c->fd < 0)
        link_connect(c);
    else
        link_flush(c);
}

static void head_begin(struct link *c, const char *method, const char *path)
{
    buf_reset(&c->head);
    buf_addf(&c->head, "%s %s HTTP/1.1\r\nhost: 127.0.0.1:%u\r\n", method, path, l.port);
}

static void send_request(struct slot *s, const char *path, struct slice body)
{
    struct link *c = &s->http;
    head_begin(c, body.len > 0 ? "POST" : "GET", path);
    if (body.len > 0)
        buf_addf(&c->head, "content-type: application/json\r\ncontent-length: %zu\r\n", body.len);
    if (l.task_id != NULL)
        buf_addf(&c->head, "task-id: %s-%u-%u\r\n", l.task_id, s->number, s->turn);
    buf_adds(&c->head, "\r\n");
    link_send(c, body);
}

static void send_handshake(struct slot *s)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/ws?clientId=load-%d-%u", (int)getpid(), s->number);
    head_begin(&s->ws, "GET", l.watch ? l.path : path);
    buf_adds(&s->ws.head,
             "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
             "sec-websocket-key: bm8gc2VjcmV0IGhlcmUhIQ==\r\n\r\n");
    link_send(&s->ws, SLICE_EMPTY);
}

/* One whole text, with a mask that changes nothing. */
static void send_text(struct slot *s, struct slice text)
{
    static const char mask[4];
    size_t more = text.len < 126 ? 0 : text.len <= UINT16_MAX ? 2 : 8; /* bytes of the length */
    struct buf *head = &s->ws.head;
    buf_reset(head);
    buf_addf(head, "%c%c", 0x81, 0x80 | (more == 0 ? (int)text.len : more == 2 ? 126 : 127));
    while (more-- > 0)
        buf_addf(head, "%c", (int)(text.len >> 8 * more & 0xff));
    buf_add(head, (struct slice){mask, sizeof(mask)});
    link_send(&s->ws, text);
}

static void send_prompt(struct slot *s)
{
    s->asked = true;
    s->file[0] = '\0';
    send_request(s, "/prompt", buf_slice(&s->content));
}

static void slot_begin(struct slot *s)
{
    bool more = l.seconds > 0
                    ? l.ended < l.warmup || (double)(now_ns() - l.from_ns) < l.seconds * 1e9
                    : l.begun < l.warmup + l.count;
    s->resting = false;
    if (!more || l.given_up || l.failed >= FAILURES_MAX)
        return;
    l.begun++;
    l.active++;
    s->active = true;
    s->turn++;
    s->asked = s->posted = s->ended = s->viewing = false;
    s->texts = 0;
    s->began_ns = now_ns();
    if (!l.direct && !l.watch)
        send_request(s, l.path, buf_slice(&l.body));
    else if (s->ws.fd < 0)
        send_handshake(s);
    else
        send_prompt(s);
}

/* --- a direct run ---------------------------------------------------------------------------- */

/* The answer to POST /prompt may come after the end of the run. */
static void direct_step(struct slot *s)
{
    char path[FILE_MAX + 64];
    if (!s->posted || !s->ended || s->viewing)
        return;
    if (s->file[0] == '\0') {
        slot_fail(s, "a run without a picture", SLICE_EMPTY);
        return;
    }
    s->viewing = true;
    (void)snprintf(path, sizeof(path), "/view?filename=%s&subfolder=&type=output", s->file);
    send_request(s, path, SLICE_EMPTY);
}

static void direct_on_text(struct slot *s, struct slice text)
{
    static const char name[] = "\"filename\": \"";
    if (slice_starts(text, SLICE("{\"type\": \"status\"")) && s->active && !s->asked) {
        send_prompt(s); /* that was the greeting */
    } else if (slice_starts(text, SLICE("{\"type\": \"executed\""))) {
        char *at = memmem(text.ptr, text.len, name, strlen(name));
        if (at != NULL)
            slice_copy((struct slice){at + strlen(name), strcspn(at + strlen(name), "\"")}, s->file,
                       sizeof(s->file));
    } else if (slice_starts(text, SLICE("{\"type\": \"executing\", \"data\": {\"node\": null"))) {
        s->ended = true;
        direct_step(s);
    }
}

/* --- a watched run --------------------------------------------------------------------------- */

static void watch_on_text(struct slot *s, struct slice text)
{
    if (slice_starts(text, SLICE("{\"type\":\"progress\"")))
        return;
    if (!slice_starts(text, SLICE("{\"type\":\"result\"")))
        slot_fail(s, "not a result:", text);
    else if (l.expect != NULL && memmem(text.ptr, text.len, l.expect, strlen(l.expect)) == NULL)
        slot_fail(s, "the result has no", slice_of(l.expect));
    else {
        link_drop(&s->ws);
        slot_end(s, true);
    }
}

static void ws_on_text(struct slot *s, struct slice text)
{
    l.bytes += text.len;
    s->texts++;
    if (l.watch)
        watch_on_text(s, text);
    else
        direct_on_text(s, text);
}

static void ws_feed(struct link *c, struct slice bytes)
{
    size_t at = 0;
    buf_add(&c->in, bytes);
    while (c->fd >= 0 && c->in.len - at >= 2) {
        const unsigned char *p = (const unsigned char *)c->in.ptr + at;
        size_t head = p[1] == 127 ? 10 : p[1] == 126 ? 4 : 2, len = p[1];
        if (c->in.len - at < head)
            break;
        for (size_t i = 2, n = 0; i < head; i++)
            len = n = n << 8 | p[i];
        if (p[0] != 0x81) {
            slot_fail(c->slot, "the WebSocket brought something else than whole texts",
                      SLICE_EMPTY);
            return;
        }
        if (len > TEXT_MAX) {
            slot_fail(c->slot, "a text without an end", SLICE_EMPTY);
            return;
        }
        if (c->in.len - at < head + len)
            break;
        ws_on_text(c->slot, (struct slice){c->in.ptr + at + head, len});
        at += head + len;
    }
    if (c->fd >= 0)
        buf_consume(&c->in, at);
}

static void ws_begin(struct link *c)
{
    c->is_ws = true;
    if (l.watch)
        send_text(c->slot, buf_slice(&l.body));
}

/* --- answers --------------------------------------------------------------------------------- */

static void look_for(struct link *c, struct slice part)
{
    size_t keep = strlen(l.expect) - 1;
    buf_add(&c->window, part);
    c->found = memmem(c->window.ptr, c->window.len, l.expect, strlen(l.expect)) != NULL;
    if (!c->found && c->window.len > keep)
        buf_consume(&c->window, c->window.len - keep);
}

static void http_on_body(struct link *c, struct slice part)
{
    c->got += part.len;
    l.bytes += part.len;
    if (c->status != 200 && c->window.len == 0)
        buf_add(&c->window, part); /* it says why */
    else if (!c->found)
        look_for(c, part);
}

static void http_on_answer(struct link *c)
{
    struct slot *s = c->slot;
    char what[32];
    (void)snprintf(what, sizeof(what), "status %d", c->status);
    if (c->status != 200 || l.watch)
        slot_fail(s, what, buf_slice(&c->window));
    else if (l.direct && !s->posted) {
        s->posted = true;
        direct_step(s);
    } else if (!c->found && !l.direct)
        slot_fail(s, "the answer has no", slice_of(l.expect));
    else
        slot_end(s, true);
    if (c->closes)
        link_drop(c);
}

static void http_on_header(struct link *c, struct slice line)
{
    struct slice value = line, name = slice_next(&value, ':');
    value = slice_trim(value);
    if (slice_eq_nocase(name, SLICE("content-length")))
        (void)slice_to_u64(value, UINT64_MAX, &c->left);
    else if (slice_eq_nocase(name, SLICE("transfer-encoding")))
        c->chunked = true;
    else if (slice_eq_nocase(name, SLICE("connection")))
        c->closes = slice_eq_nocase(value, SLICE("close"));
}

/* One line of a head or around a chunk, without its end. True: the answer is whole. */
static bool http_on_line(struct link *c, struct slice line)
{
    switch (c->at) {
    case AT_STATUS:
        c->status = line.len >= 12 ? (int)strtol(line.ptr + 9, NULL, 10) : 0;
        c->left = 0;
        c->chunked = c->closes = false;
        c->at = AT_HEADER;
        return false;
    case AT_HEADER:
        if (line.len > 0)
            http_on_header(c, line);
        else if (c->status == 101)
            ws_begin(c);
        else
            c->at = c->chunked ? AT_CHUNK_SIZE : c->left > 0 ? AT_BODY : AT_STATUS;
        return line.len == 0 && c->at == AT_STATUS;
    case AT_CHUNK_SIZE:
        c->left = strtoull(line.ptr, NULL, 16);
        c->at = c->left > 0 ? AT_BODY : AT_TRAILER;
        return false;
    case AT_CHUNK_END: c->at = AT_CHUNK_SIZE; return false;
    default:
        if (line.len == 0)
            c->at = AT_STATUS;
        return line.len == 0;
    }
}

static struct slice slice_from(struct slice s, size_t n)
{
    return (struct slice){s.ptr + n, s.len - n};
}

/* A line's end may be yet to come. True: the answer is whole. */
static bool http_take_line(struct link *c, struct slice *bytes)
{
    const char *end = memchr(bytes->ptr, '\n', bytes->len);
    size_t n = end != NULL ? (size_t)(end - bytes->ptr) + 1 : bytes->len;
    buf_add(&c->in, (struct slice){bytes->ptr, n});
    *bytes = slice_from(*bytes, n);
    if (c->in.len > LINE_MAX_BYTES)
        slot_fail(c->slot, "a line without an end", SLICE_EMPTY);
    if (end == NULL || c->fd < 0)
        return false;
    size_t len = c->in.len >= 2 && c->in.ptr[c->in.len - 2] == '\r' ? c->in.len - 2 : c->in.len - 1;
    bool whole = http_on_line(c, (struct slice){c->in.ptr, len});
    buf_reset(&c->in);
    return whole;
}

static void http_feed(struct link *c, struct slice bytes)
{
    bool whole = false;
    while (bytes.len > 0 && !whole && c->fd >= 0 && !c->is_ws) {
        if (c->at != AT_BODY) {
            whole = http_take_line(c, &bytes);
            continue;
        }
        size_t n = bytes.len < c->left ? bytes.len : c->left;
        http_on_body(c, (struct slice){bytes.ptr, n});
        bytes = slice_from(bytes, n);
        c->left -= n;
        if (c->left == 0) {
            c->at = c->chunked ? AT_CHUNK_END : AT_STATUS;
            whole = !c->chunked;
        }
    }
    if (c->fd >= 0 && c->is_ws)
        ws_feed(c, bytes);
    else if (whole && bytes.len > 0)
        slot_fail(c->slot, "more than was asked for", SLICE_EMPTY);
    else if (whole)
        http_on_answer(c);
}

static void link_on_event(struct link *c)
{
    link_flush(c);
    while (c->fd >= 0) {
        ssize_t n = recv(c->fd, l.room, sizeof(l.room), 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            const char *why = n == 0 ? "it was closed" : strerror(errno);
            slot_fail(c->slot, "the connection:", slice_of(why));
            link_drop(c);
        } else if (c->is_ws) {
            ws_feed(c, (struct slice){l.room, (size_t)n});
        } else {
            http_feed(c, (struct slice){l.room, (size_t)n});
        }
    }
}

/* --- all together ---------------------------------------------------------------------------- */

static void look_at_slots(void)
{
    uint64_t now = now_ns();
    for (unsigned i = 0; i < l.connections; i++) {
        struct slot *s = &l.slots[i];
        if (s->active && (double)(now - s->began_ns) > l.patience_s * 1e9) {
            slot_fail(s, "no answer in time", SLICE_EMPTY);
            l.given_up = true; /* nobody waits so long for each of a hundred */
        }
        if (s->resting)
            slot_begin(s);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile_us(double part)
{
    return l.good > 0 ? (double)l.took_ns[(unsigned)((double)(l.good - 1) * part)] / 1e3 : 0;
}

static void report(void)
{
    struct buf why;
    double seconds = l.until_ns > l.from_ns ? (double)(l.until_ns - l.from_ns) / 1e9 : 0;
    buf_init(&why, SIZE_MAX);
    buf_add_json_string(&why, slice_of(l.why));
    if (l.good > 0)
        qsort(l.took_ns, l.good, sizeof(*l.took_ns), compare);
    (void)printf("{\"good\":%u,\"failed\":%u,\"first_failure\":%s,\"seconds\":%.6f,\"rate\":%.2f,"
                 "\"p50_us\":%.1f,\"p99_us\":%.1f,\"bytes\":%llu,\"texts\":%llu}\n",
                 l.good, l.failed, why.ptr, seconds, seconds > 0 ? l.good / seconds : 0,
                 percentile_us(0.5), percentile_us(0.99), (unsigned long long)l.bytes,
                 (unsigned long long)l.texts);
    buf_done(&why);
}

static void read_body(const char *file)
{
    FILE *from = fopen(file, "rbe");
    size_t n;
    ASSERT(from != NULL);
    while ((n = fread(l.room, 1, sizeof(l.room), from)) > 0)
        buf_add(&l.body, (struct slice){l.room, n});
    (void)fclose(from);
}

static void slots_init(void)
{
    l.slots = xcalloc(l.connections, sizeof(*l.slots));
    for (unsigned i = 0; i < l.connections; i++) {
        struct slot *s = &l.slots[i];
        struct link *links[] = {&s->http, &s->ws};
        *s = (struct slot){.number = i, .resting = true};
        for (unsigned n = 0; n < ARRAY_LEN(links); n++) {
            *links[n] = (struct link){.fd = -1, .slot = s};
            buf_init(&links[n]->head, SIZE_MAX);
            buf_init(&links[n]->in, SIZE_MAX);
            buf_init(&links[n]->window, SIZE_MAX);
        }
        buf_init(&s->content, SIZE_MAX);
        if (l.direct) {
            buf_addf(&s->content, "{\"client_id\":\"load-%d-%u\",\"prompt\":", (int)getpid(), i);
            buf_add(&s->content, buf_slice(&l.body));
            buf_adds(&s->content, "}");
        }
    }
}

static bool read_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},
        {"connections", required_argument, NULL, 'c'},
        {"count", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 's'},
        {"warmup", required_argument, NULL, 'w'},
        {"patience", required_argument, NULL, 't'},
        {"path", required_argument, NULL, 'u'},
        {"body", required_argument, NULL, 'b'},
        {"task-id", required_argument, NULL, 'i'},
        {"expect", required_argument, NULL, 'e'},
        {"direct", no_argument, NULL, 'd'},
        {"watch", no_argument, NULL, 'r'},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'p': l.port = (unsigned)strtoul(optarg, NULL, 10); break;
        case 'c': l.connections = (unsigned)strtoul(optarg, NULL, 10); break;
        case 'n': l.count = (unsigned)strtoul(optarg, NULL, 10); break;
        case 's': l.seconds = strtod(optarg, NULL); break;
        case 'w': l.warmup = (unsigned)strtoul(optarg, NULL, 10); break;
        case 't': l.patience_s = strtod(optarg, NULL); break;
        case 'u': l.path = optarg; break;
        case 'b': read_body(optarg); break;
        case 'i': l.task_id = optarg; break;
        case 'e': l.expect = optarg; break;
        case 'd': l.direct = true; break;
        case 'r': l.watch = true; break;
        default: return false;
        }
    }
    return l.port > 0 && l.connections > 0 && (l.seconds > 0 || l.count > 0) &&
           (!(l.direct || l.watch) || l.body.len > 0) && !(l.direct && l.watch) &&
           (l.expect == NULL || l.expect[0] != '\0');
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_MAX];
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    buf_init(&l.body, SIZE_MAX);
    if (!read_options(argc, argv)) {
        (void)fprintf(stderr, "load: what is asked for is at the top of load.c\n");
        return 64;
    }
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    ASSERT(l.epoll >= 0);
    slots_init();
    l.from_ns = now_ns();
    look_at_slots();
    while (l.active > 0) {
        int n = epoll_wait(l.epoll, events, EVENTS_MAX, 100);
        for (int i = 0; i < n; i++)
            link_on_event(events[i].data.ptr);
        look_at_slots();
    }
    report();
    return 0;
}
