#include "buf.h"

#include "eight.h"

#include <stdio.h>
#include <stdlib.h>

static int lower(int c)
{
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

bool bytes_eq_nocase(const char *a, const char *b, size_t len)
{
    size_t i = 0;
    while (len - i >= 8 && eight_load(a + i) == eight_load(b + i)) /* mostly it is the same case */
        i += 8;
    for (; i < len; i++)
        if (a[i] != b[i] && lower(a[i]) != lower(b[i]))
            return false;
    return true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct slice slice_trim(struct slice s)
{
    while (s.len > 0 && is_blank(s.ptr[0])) {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && is_blank(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

struct slice slice_next(struct slice *list, char separator)
{
    const char *found = memchr(list->ptr, separator, list->len);
    struct slice element = {list->ptr, found != NULL ? (size_t)(found - list->ptr) : list->len};
    size_t used = element.len + (found != NULL ? 1 : 0);
    list->ptr += used;
    list->len -= used;
    return slice_trim(element);
}

bool slice_to_u64(struct slice s, uint64_t max, uint64_t *ret)
{
    uint64_t value = 0;
    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(s.ptr[i] - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    if (value > max)
        return false;
    *ret = value;
    return true;
}

void buf_init(struct buf *b, size_t max)
{
    buf_init_within(b, max, NULL);
}

void buf_init_within(struct buf *b, size_t max, struct budget *budget)
{
    *b = (struct buf){.max = max, .budget = budget};
}

void buf_charge(struct buf *b, struct budget *budget)
{
    ASSERT(b->budget == NULL);
    b->budget = budget;
    if (budget != NULL)
        budget->used += b->cap;
}

void buf_done(struct buf *b)
{
    if (b->budget != NULL)
        b->budget->used -= b->cap;
    free(b->ptr);
    *b = (struct buf){.max = b->max, .budget = b->budget};
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    if (b->ptr != NULL)
        b->ptr[0] = '\0';
}

/* Twice as much as before, but no more than it may ever have; need <= max + 1. */
static size_t buf_next_cap(const struct buf *b, size_t need)
{
    size_t cap = b->cap > SIZE_MAX / 2 ? SIZE_MAX : b->cap * 2;
    cap = cap < 64 ? 64 : cap;
    if (cap > b->max)
        cap = b->max + 1; /* max is less than SIZE_MAX then */
    return cap < need ? need : cap;
}

enum err_code buf_grow(struct buf *b, size_t more)
{
    if (more > b->max || b->len > b->max - more)
        return ERR_TOO_LARGE;
    size_t need = b->len + more + 1; /* and the NUL */
    if (need <= b->cap)
        return ERR_OK;
    size_t cap = buf_next_cap(b, need);
    if (b->budget != NULL && cap - b->cap > budget_left(b->budget)) {
        b->budget->refused++;
        return ERR_BUSY;
    }
    char *ptr = realloc(b->ptr, cap);
    if (ptr == NULL)
        return ERR_BUSY;
    if (b->budget != NULL)
        b->budget->used += cap - b->cap;
    b->ptr = ptr;
    b->cap = cap;
    b->ptr[b->len] = '\0';
    return ERR_OK;
}

enum err_code buf_append(struct buf *b, struct slice s)
{
    enum err_code code = buf_reserve(b, s.len);
    if (code != ERR_OK)
        return code;
    if (s.len > 0) /* an empty slice may point nowhere */
        memcpy(b->ptr + b->len, s.ptr, s.len);
    b->len += s.len;
    b->ptr[b->len] = '\0';
    return ERR_OK;
}

/* Most of the time there is room already. */
PRINTF_LIKE(2, 0) static enum err_code buf_vprintf(struct buf *b, const char *fmt, va_list args)
{
    va_list again;
    size_t room = b->cap - b->len;
    va_copy(again, args);
    int n = vsnprintf(room > 0 ? b->ptr + b->len : NULL, room, fmt, args);
    ASSERT(n >= 0);
    enum err_code code = buf_reserve(b, (size_t)n);
    if (code == ERR_OK && (size_t)n >= room)
        (void)vsnprintf(b->ptr + b->len, (size_t)n + 1, fmt, again);
    va_end(again);
    if (code == ERR_OK)
        b->len += (size_t)n;
    else if (room > 0)
        b->ptr[b->len] = '\0';
    return code;
}

enum err_code buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    enum err_code code = buf_vprintf(b, fmt, args);
    va_end(args);
    return code;
}

static void buf_must(enum err_code code)
{
    if (code == ERR_BUSY)
        out_of_memory();
    ASSERT(code == ERR_OK);
}

void buf_expect(struct buf *b, size_t more)
{
    enum err_code code = buf_reserve(b, more);
    (void)code; /* who adds it will see it */
}

void buf_add_growing(struct buf *b, struct slice s)
{
    buf_must(buf_append(b, s));
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    buf_must(buf_vprintf(b, fmt, args));
    va_end(args);
}

void buf_add_u64(struct buf *b, uint64_t n)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                                "25262728293031323334353637383940414243444546474849"
                                "50515253545556575859606162636465666768697071727374"
                                "75767778798081828384858687888990919293949596979899";
    char digits[20];
    size_t at = sizeof(digits);
    for (; n >= 100; n /= 100)
        memcpy(digits + (at -= 2), pairs + n % 100 * 2, 2);
    memcpy(digits + (at -= 2), pairs + n * 2, 2);
    at += n < 10; /* no zero in front */
    buf_add(b, (struct slice){digits + at, sizeof(digits) - at});
}

size_t utf8_char_len(const char *text, size_t left)
{
    const unsigned char *s = (const unsigned char *)text;
    static const struct {
        unsigned char first_min, first_max, second_min, second_max, len;
    } forms[] = {
        {0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        if (s[0] < forms[i].first_min || s[0] > forms[i].first_max)
            continue;
        if (forms[i].len > left)
            return 0;
        if (forms[i].len > 1 && (s[1] < forms[i].second_min || s[1] > forms[i].second_max))
            return 0;
        for (size_t k = 2; k < forms[i].len; k++)
            if ((s[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].len;
    }
    return 0;
}

static void add_json_char(struct buf *b, const unsigned char *s, size_t len)
{
    if (len > 1)
        buf_add(b, (struct slice){(const char *)s, len});
    else if (*s == '"' || *s == '\\')
        buf_addf(b, "\\%c", *s);
    else if (*s == '\n')
        buf_add(b, SLICE("\\n"));
    else if (*s < 0x20 || *s == 0x7f)
        buf_addf(b, "\\u%04x", *s);
    else
        buf_add(b, (struct slice){(const char *)s, 1});
}

void buf_add_json_string(struct buf *b, struct slice text)
{
    const unsigned char *s = (const unsigned char *)text.ptr;
    size_t left = text.len;
    buf_add(b, SLICE("\""));
    while (left > 0) {
        size_t len = utf8_char_len((const char *)s, left);
        if (len == 0) {
            buf_add(b, SLICE("\xef\xbf\xbd"));
            len = 1;
        } else {
            add_json_char(b, s, len);
        }
        s += len;
        left -= len;
    }
    buf_add(b, SLICE("\""));
}

void buf_consume(struct buf *b, size_t n)
{
    ASSERT(n <= b->len);
    if (n == 0)
        return;
    memmove(b->ptr, b->ptr + n, b->len - n);
    b->len -= n;
    b->ptr[b->len] = '\0';
}

static struct blob *blob_fill(struct blob *b, struct slice bytes)
{
    b->refs = 1;
    b->len = bytes.len;
    memcpy(b->bytes, bytes.ptr, bytes.len);
    b->bytes[bytes.len] = '\0';
    return b;
}

struct blob *blob_new(struct slice bytes)
{
    return blob_fill(xmalloc(sizeof(struct blob) + bytes.len + 1), bytes);
}

struct blob *blob_try_new(struct slice bytes)
{
    struct blob *b = malloc(sizeof(*b) + bytes.len + 1);
    return b != NULL ? blob_fill(b, bytes) : NULL;
}

struct blob *blob_ref(struct blob *b)
{
    ASSERT(b->refs > 0);
    b->refs++;
    return b;
}

void blob_unref(struct blob *b)
{
    if (b == NULL)
        return;
    ASSERT(b->refs > 0);
    if (--b->refs == 0)
        free(b);
}
