/* The only string types: `struct slice` borrows, `struct buf` owns, `struct blob` is shared.
 *
 * A buf grows up to a cap given at the start; reaching it is ERR_TOO_LARGE and the buf stays as it
 * was. What strangers make grow can have a budget, too, which it shares with others: when that is
 * used up, ERR_BUSY. It is always NUL-terminated. A blob is immutable once shared and counted on
 * the loop thread only; a worker is handed a reference that the loop drops after the job.
 */
#ifndef BUF_H
#define BUF_H

#include "base.h"

#include <stdarg.h>
#include <string.h>

struct slice {
    const char *ptr;
    size_t len;
};

#define SLICE(literal) ((struct slice){(literal), sizeof(literal) - 1})
#define SLICE_INIT(literal)                                                                        \
    {                                                                                              \
        (literal), sizeof(literal) - 1                                                             \
    } /* in a table */
#define SLICE_EMPTY   ((struct slice){"", 0})
#define SLICE_ARGS(s) (int)(s).len, (s).ptr /* for "%.*s" */

static inline struct slice slice_of(const char *s)
{
    return (struct slice){s, strlen(s)};
}

static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0;
}

static inline bool slice_is(struct slice a, const char *s)
{
    return slice_eq(a, slice_of(s));
}

static inline bool slice_starts(struct slice a, struct slice with)
{
    return a.len >= with.len && memcmp(a.ptr, with.ptr, with.len) == 0;
}

/* To an array of so many bytes, at least one: as much as fits, and a NUL. */
static inline void slice_copy(struct slice s, char *to, size_t size)
{
    ASSERT(size > 0);
    size_t len = s.len < size ? s.len : size - 1;
    if (len > 0) /* an empty slice may point nowhere */
        memcpy(to, s.ptr, len);
    to[len] = '\0';
}

bool bytes_eq_nocase(const char *a, const char *b, size_t len);
/* ASCII letters compare equal in either case. */
static inline bool slice_eq_nocase(struct slice a, struct slice b)
{
    return a.len == b.len && bytes_eq_nocase(a.ptr, b.ptr, a.len);
}

/* Without spaces and tabs at both ends. */
struct slice slice_trim(struct slice s);
/* What stands before the separator, or all if there is none; trimmed. It and the separator leave
 * *list. */
struct slice slice_next(struct slice *list, char separator);
/* Whole slice is a decimal number <= max. */
bool slice_to_u64(struct slice s, uint64_t max, uint64_t *ret);

/* Length of the well-formed UTF-8 character at text (RFC 3629: no overlong forms, no surrogates),
 * or 0 if there is none. left > 0. */
size_t utf8_char_len(const char *text, size_t left);

/* Bytes of memory that many bufs may have together. */
struct budget {
    size_t used, max;
    uint64_t refused; /* how often there was not enough left */
};

static inline size_t budget_left(const struct budget *b)
{
    return b->used < b->max ? b->max - b->used : 0;
}

struct buf {
    char *ptr;
    size_t len, cap, max;
    struct budget *budget; /* has `cap` of it; goes along when a buf is handed over; or NULL */
};

void buf_init(struct buf *b, size_t max);                               /* allocates nothing */
void buf_init_within(struct buf *b, size_t max, struct budget *budget); /* budget: NULL is fine */
/* It has its memory already, and there is no refusing it: takes from the budget what it has. */
void buf_charge(struct buf *b, struct budget *budget);
void buf_done(struct buf *b);
void buf_reset(struct buf *b); /* length 0, memory kept */
static inline struct slice buf_slice(const struct buf *b)
{
    return (struct slice){b->ptr != NULL ? b->ptr : "", b->len};
}
/* ERR_TOO_LARGE past max. ERR_BUSY: the budget, or the system has no memory; later may do. */
enum err_code buf_grow(struct buf *b, size_t more) MUST_CHECK; /* when there is no room yet */
static inline enum err_code MUST_CHECK buf_reserve(struct buf *b, size_t more)
{
    return more < b->cap - b->len ? ERR_OK : buf_grow(b, more); /* cap is never above max + 1 */
}
enum err_code buf_append(struct buf *b, struct slice s) MUST_CHECK;
enum err_code buf_printf(struct buf *b, const char *fmt, ...) MUST_CHECK PRINTF_LIKE(2, 3);
/* So much will probably be added: one allocation instead of many. Nothing depends on it. */
void buf_expect(struct buf *b, size_t more);
/* For bufs without a client-chosen size (max = SIZE_MAX): failure aborts. */
void buf_add_growing(struct buf *b, struct slice s);
static inline void buf_add(struct buf *b, struct slice s)
{
    if (s.len >= b->cap - b->len) {
        buf_add_growing(b, s);
        return;
    }
    if (s.len > 0) /* an empty slice may point nowhere */
        memcpy(b->ptr + b->len, s.ptr, s.len);
    b->len += s.len;
    b->ptr[b->len] = '\0';
}
void buf_addf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
static inline void buf_adds(struct buf *b, const char *s)
{
    buf_add(b, slice_of(s));
}
void buf_add_u64(struct buf *b, uint64_t n); /* in decimal */
/* A JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void buf_add_json_string(struct buf *b, struct slice text);
/* Drops the first n bytes. */
void buf_consume(struct buf *b, size_t n);

struct blob {
    unsigned refs;
    size_t len;
    char bytes[]; /* len bytes and a NUL */
};

struct blob *blob_new(struct slice bytes);     /* refs = 1 */
struct blob *blob_try_new(struct slice bytes); /* NULL: no memory for what others have sent */
struct blob *blob_ref(struct blob *b);
void blob_unref(struct blob *b); /* NULL is fine */
static inline struct slice blob_slice(const struct blob *b)
{
    return (struct slice){b->bytes, b->len};
}

#endif
