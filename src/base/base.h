/* Words every room uses: assertions, errors, memory, time.
 *
 * Errors. A function that can fail returns `enum err_code`, is MUST_CHECK and takes
 * `struct err *err` last (NULL allowed); it says what went wrong where it went wrong with
 * err_set(), and callers add context with err_prefix(). Outputs named `ret_…` are written only on
 * success. Codes say what a caller can do about it; the text is for people and never for parsing.
 */
#ifndef BASE_H
#define BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MUST_CHECK                      __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a)               __attribute__((format(printf, f, a)))
#define NORETURN                        __attribute__((noreturn))
#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* On in every build: a broken precondition is a crash, which the platform recovers from; going on
 * with a broken one is a lie to somebody who pays. Never used on what comes from outside. */
#define ASSERT(x) ((x) ? (void)0 : assert_failed(#x, __FILE__, __LINE__))
NORETURN void assert_failed(const char *what, const char *file, int line);

/* code, stable name */
#define ERR_CODES(X)                                                                               \
    X(ERR_OK, "ok")                                                                                \
    X(ERR_INVALID, "invalid")     /* what was given is wrong; again is useless */                  \
    X(ERR_FORBIDDEN, "forbidden") /* what is asked for is well-formed, and not allowed */          \
    X(ERR_NOT_FOUND, "not_found")                                                                  \
    X(ERR_EXISTS, "exists")                                                                        \
    X(ERR_TOO_LARGE, "too_large") /* a bound of ours or of a peer */                               \
    X(ERR_BUSY, "busy")           /* a queue is full; later may work */                            \
    X(ERR_TIMEOUT, "timeout")                                                                      \
    X(ERR_UNAVAILABLE, "unavailable") /* refused, unreachable, stopping */                         \
    X(ERR_PROTOCOL, "protocol")       /* a peer said what its protocol forbids */                  \
    X(ERR_CLOSED, "closed")           /* the peer went away, in or out of form */                  \
    X(ERR_CANCELLED, "cancelled")     /* by us */                                                  \
    X(ERR_CORRUPT, "corrupt")         /* stored bytes are not what was stored */                   \
    X(ERR_IO, "io")                   /* the system said no */

enum err_code {
#define X(code, name) code,
    ERR_CODES(X)
#undef X
};

struct err {
    enum err_code code;
    char msg[192]; /* UTF-8, one line, no secrets */
};

/* Fills *err (if any) and returns code, so that `return err_set(…)` reads well. */
enum err_code err_set(struct err *err, enum err_code code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The same with strerror(errnum) behind the text. */
enum err_code err_sys(struct err *err, enum err_code code, int errnum, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/* Puts "<text>: " in front of what *err says; returns err->code (ERR_OK for NULL). */
enum err_code err_prefix(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
const char *err_name(enum err_code code);

/* Our own fixed-size things: failure aborts. Sizes a client chooses go through buf_append(). */
NORETURN void out_of_memory(void);
void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *ptr, size_t size);
char *xstrdup(const char *s);

/* For tables and for "is it the same as before?"; `seed` is random where strangers choose the
 * bytes.
 */
uint64_t hash_bytes(uint64_t seed, const void *bytes, size_t len);

/* Milliseconds since 1970 / since some fixed moment that no clock change moves. */
uint64_t clock_wall_ms(void);
uint64_t clock_mono_ms(void);

#endif
