#include "ending.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static const char *const oom_files[] = {
    "/sys/fs/cgroup/memory.events",             /* version 2 */
    "/sys/fs/cgroup/memory/memory.oom_control", /* version 1 */
};

static bool slice_has(struct slice text, const char *what)
{
    return memmem(text.ptr, text.len, what, strlen(what)) != NULL;
}

uint64_t ending_oom_kills(struct slice text)
{
    static const char key[] = "oom_kill ";
    while (text.len > 0) {
        const char *end = memchr(text.ptr, '\n', text.len);
        size_t len = end == NULL ? text.len : (size_t)(end - text.ptr);
        struct slice line = {text.ptr, len};
        uint64_t count;
        if (slice_starts(line, slice_of(key)) &&
            slice_to_u64((struct slice){line.ptr + strlen(key), len - strlen(key)}, UINT64_MAX,
                         &count))
            return count;
        len += end == NULL ? 0 : 1;
        text.ptr += len;
        text.len -= len;
    }
    return 0;
}

bool ending_tells_out_of_memory(struct slice text)
{
    static const char *const words[] = {"out of memory", "OutOfMemory", "MemoryError",
                                        "DefaultCPUAllocator: can't allocate memory"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (slice_has(text, words[i]))
            return true;
    }
    return false;
}

/* Kernel files: reading them never waits. */
static uint64_t count_oom_kills(void)
{
    uint64_t all = 0;
    for (size_t i = 0; i < ARRAY_LEN(oom_files); i++) {
        char text[1024];
        int fd = open(oom_files[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        ssize_t n = read(fd, text, sizeof(text));
        (void)close(fd);
        if (n > 0)
            all += ending_oom_kills((struct slice){text, (size_t)n});
    }
    return all;
}

void ending_init(struct ending *e)
{
    *e = (struct ending){.count = 0};
    buf_init(&e->tail, SIZE_MAX);
    e->exit.reason = e->reason;
    e->exit.log_tail = SLICE_EMPTY;
}

void ending_done(struct ending *e)
{
    buf_done(&e->tail);
}

void ending_begin(struct ending *e)
{
    e->next = e->count = 0;
    e->condemned = false;
    e->oom_kills = count_oom_kills();
}

void ending_add_line(struct ending *e, struct slice line)
{
    size_t len = line.len < ENDING_LINE_MAX ? line.len : ENDING_LINE_MAX;
    memcpy(e->lines[e->next], line.ptr, len);
    e->lens[e->next] = len;
    e->next = (e->next + 1) % SUPERVISOR_TAIL_LINES;
    if (e->count < SUPERVISOR_TAIL_LINES)
        e->count++;
}

static void ending_tell(struct ending *e, int code, int signum)
{
    buf_reset(&e->tail);
    for (unsigned i = 0; i < e->count; i++) {
        unsigned at = (e->next + SUPERVISOR_TAIL_LINES - e->count + i) % SUPERVISOR_TAIL_LINES;
        if (i > 0)
            buf_adds(&e->tail, "\n");
        buf_add(&e->tail, (struct slice){e->lines[at], e->lens[at]});
    }
    e->exit = (struct supervisor_exit){.happened = true,
                                       .code = code,
                                       .signal = signum,
                                       .condemned = e->condemned,
                                       .reason = e->reason,
                                       .log_tail = buf_slice(&e->tail)};
}

void ending_condemn(struct ending *e, const char *why)
{
    e->condemned = true;
    (void)snprintf(e->reason, sizeof(e->reason), "ComfyUI was killed to be started again: %s", why);
    ending_tell(e, 0, SIGTERM);
}

void ending_not_started(struct ending *e, const struct err *err)
{
    (void)snprintf(e->reason, sizeof(e->reason), "ComfyUI could not be started: %s", err->msg);
    ending_tell(e, 127, 0);
}

static void ending_say(struct ending *e, int code, int signum, const char *when)
{
    const char *what = signum != 0 ? sigdescr_np(signum) : NULL;
    if (e->exit.out_of_memory)
        what = "out of memory";
    else if (signum == SIGKILL)
        what = "often out of memory";
    else if (signum == 0 && (code == 126 || code == 127))
        what = "its command cannot be executed";
    (void)snprintf(e->reason, sizeof(e->reason), "ComfyUI %s %d%s%s%s%s",
                   signum != 0 ? "was killed by signal" : "exited with code",
                   signum != 0 ? signum : code, what != NULL ? " (" : "", what != NULL ? what : "",
                   what != NULL ? ")" : "", when);
}

void ending_seen(struct ending *e, int code, int signum, enum ending_hand hand, bool was_ready)
{
    ending_tell(e, code, signum);
    if (e->condemned)
        return; /* that is why, whatever it died of in the end */
    if (hand == ENDING_BY_US) {
        (void)snprintf(e->reason, sizeof(e->reason), "ComfyUI was stopped");
        return;
    }
    bool failed = signum != 0 || code != 0;
    bool kernel = signum == SIGKILL && count_oom_kills() > e->oom_kills;
    e->exit.out_of_memory = kernel || (failed && ending_tells_out_of_memory(e->exit.log_tail));
    ending_say(e, code, signum, was_ready ? "" : " before it had answered");
}
