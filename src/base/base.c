#include "base.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void assert_failed(const char *what, const char *file, int line)
{
    (void)fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, what);
    abort();
}

static const char *const err_names[] = {
#define X(code, name) [code] = name,
    ERR_CODES(X)
#undef X
};

const char *err_name(enum err_code code)
{
    ASSERT((size_t)code < ARRAY_LEN(err_names));
    return err_names[code];
}

enum err_code err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, fmt);
        err->code = code;
        (void)vsnprintf(err->msg, sizeof(err->msg), fmt, args);
        va_end(args);
    }
    return code;
}

enum err_code err_sys(struct err *err, enum err_code code, int errnum, const char *fmt, ...)
{
    if (err != NULL) {
        va_list args;
        char text[sizeof(err->msg)];
        va_start(args, fmt);
        (void)vsnprintf(text, sizeof(text), fmt, args);
        va_end(args);
        err->code = code;
        (void)snprintf(err->msg, sizeof(err->msg), "%s: %s", text, strerror(errnum));
    }
    return code;
}

enum err_code err_prefix(struct err *err, const char *fmt, ...)
{
    if (err == NULL)
        return ERR_OK;
    va_list args;
    char prefix[sizeof(err->msg)];
    char old[sizeof(err->msg)];
    va_start(args, fmt);
    (void)vsnprintf(prefix, sizeof(prefix), fmt, args);
    va_end(args);
    memcpy(old, err->msg, sizeof(old));
    (void)snprintf(err->msg, sizeof(err->msg), "%s: %s", prefix, old);
    return err->code;
}

void out_of_memory(void)
{
    (void)fputs("out of memory\n", stderr);
    abort();
}

static void *or_abort(void *ptr)
{
    if (ptr == NULL)
        out_of_memory();
    return ptr;
}

void *xmalloc(size_t size)
{
    return or_abort(malloc(size > 0 ? size : 1));
}

void *xcalloc(size_t count, size_t size)
{
    return or_abort(calloc(count > 0 ? count : 1, size > 0 ? size : 1));
}

void *xrealloc(void *ptr, size_t size)
{
    return or_abort(realloc(ptr, size > 0 ? size : 1));
}

char *xstrdup(const char *s)
{
    return or_abort(strdup(s));
}

/* The whole product of two words, folded: each bit of either reaches all of the result. */
static uint64_t hash_mix(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 product;
    product p = (product)a * b;
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

uint64_t hash_bytes(uint64_t seed, const void *bytes, size_t len)
{
    static const uint64_t odd[] = {0x9e3779b97f4a7c15u, 0xff51afd7ed558ccdu};
    const unsigned char *at = bytes;
    uint64_t hash = hash_mix(seed ^ odd[0], len ^ odd[1]);
    uint64_t word;
    for (; len >= sizeof(word); at += sizeof(word), len -= sizeof(word)) {
        memcpy(&word, at, sizeof(word));
        hash = hash_mix(hash ^ word, odd[1]);
    }
    word = 0;
    if (len > 0)
        memcpy(&word, at, len);
    return hash_mix(hash_mix(hash ^ word, odd[1]), odd[0]);
}

static uint64_t clock_ms(clockid_t id)
{
    struct timespec ts;
    (void)clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

uint64_t clock_wall_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

uint64_t clock_mono_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}
