/* What comes from a Redis server: the same answers whether they come whole or in pieces, and no
 * secret and nothing that is not plain text in what is told of an error. The first byte chooses the
 * pieces. */
#include "store_redis_link.h"

#include <stdlib.h>

#include <hiredis/hiredis.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SECRET_TELLS = 16, TEXT_MAX = 100 };

static char user[] = "someone";
static char password[] = "correct horse battery staple";

static void check_error(const struct redis_answer *a)
{
    static struct redis_link link = {.user = user, .password = password};
    char part[SECRET_TELLS + 1];
    struct slice shown = redis_link_text(&link, a);
    (void)snprintf(part, sizeof(part), "%s", password);
    ASSERT(shown.len <= TEXT_MAX);
    ASSERT(memmem(shown.ptr, shown.len, part, strlen(part)) == NULL);
    ASSERT(memmem(shown.ptr, shown.len, user, strlen(user)) == NULL);
    for (size_t i = 0; i < shown.len; i++)
        ASSERT(shown.ptr[i] >= ' ' && shown.ptr[i] <= '~');
}

static void tell(struct buf *out, const struct redis_answer *a)
{
    buf_addf(out, "%d %zu %zu ", a->kind, a->text.len, a->count);
    buf_add(out, a->text);
    if (a->kind == REDIS_ERROR)
        check_error(a);
    for (size_t i = 0; i < a->count; i++) {
        struct redis_answer item = redis_answer_item(a, i);
        tell(out, &item);
    }
}

/* False: what answers is no Redis server. */
static bool take_answers(redisReader *reader, struct buf *out)
{
    void *reply = NULL;
    while (redisReaderGetReply(reader, &reply) == REDIS_OK) {
        if (reply == NULL)
            return true;
        struct redis_answer a = redis_answer_of(reply);
        tell(out, &a);
        freeReplyObject(reply);
    }
    return false;
}

static void run(struct buf *out, struct slice bytes, size_t piece)
{
    redisReader *reader = redisReaderCreate();
    bool good = true;
    ASSERT(reader != NULL);
    buf_init(out, SIZE_MAX);
    while (bytes.len > 0 && good) {
        size_t n = bytes.len < piece ? bytes.len : piece;
        ASSERT(redisReaderFeed(reader, bytes.ptr, n) == REDIS_OK);
        good = take_answers(reader, out);
        bytes = (struct slice){bytes.ptr + n, bytes.len - n};
    }
    buf_adds(out, good ? "more" : "bad");
    redisReaderFree(reader);
}

/* hiredis makes room for as many elements as are announced, which is the server's affair: five
 * digits are enough here. */
static bool announces_much(struct slice bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        size_t digits = 0;
        if (bytes.ptr[i] != '*')
            continue;
        while (i + 1 + digits < bytes.len && strchr("+-0123456789", bytes.ptr[i + 1 + digits]) &&
               bytes.ptr[i + 1 + digits] != '\0')
            digits++;
        if (digits > 5)
            return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole, pieces;
    if (size == 0)
        return 0;
    struct slice bytes = {(const char *)data + 1, size - 1};
    if (announces_much(bytes))
        return 0;
    run(&whole, bytes, SIZE_MAX);
    run(&pieces, bytes, (size_t)(data[0] % 16) + 1);
    ASSERT(slice_eq(buf_slice(&whole), buf_slice(&pieces)));
    buf_done(&whole);
    buf_done(&pieces);
    return 0;
}
