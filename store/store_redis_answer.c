/* What a server says, as this room sees it. */
#include "store_redis_link.h"

#include <hiredis/hiredis.h>

enum { ERROR_TEXT_MAX = 100, SECRET_TELLS = 16 };

/* Before version 7 a server tells what a script of ours was refused only behind where it was:
 * "ERR Error running script (call to f_…): @user_script:15: @user_script: 15: -READONLY You …". */
static struct slice error_of_script(struct slice text)
{
    static const struct slice place = {"@user_script:", 13};
    const char *end = text.ptr + text.len;
    const char *at = memmem(text.ptr, text.len, place.ptr, place.len);
    if (at == NULL || !slice_starts(text, SLICE("ERR Error running script")))
        return text;
    while (slice_starts((struct slice){at, (size_t)(end - at)}, place)) {
        at += place.len;
        const char *behind = memmem(at, (size_t)(end - at), ": ", 2);
        if (behind == NULL)
            return text;
        at = behind + 2;
    }
    if (at < end && *at == '-')
        at++;
    return (struct slice){at, (size_t)(end - at)};
}

struct redis_answer redis_answer_of(const struct redisReply *reply)
{
    struct redis_answer a = {.kind = REDIS_NIL, .text = SLICE_EMPTY, .reply = reply};
    switch (reply->type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
        a.kind = REDIS_TEXT;
        a.text = (struct slice){reply->str, reply->len};
        break;
    case REDIS_REPLY_ERROR:
        a.kind = REDIS_ERROR;
        a.text = error_of_script((struct slice){reply->str, reply->len});
        break;
    case REDIS_REPLY_INTEGER: a.kind = REDIS_NUMBER; break;
    case REDIS_REPLY_ARRAY:
        a.kind = REDIS_LIST;
        a.count = reply->elements;
        break;
    default: break;
    }
    return a;
}

struct redis_answer redis_answer_item(const struct redis_answer *list, size_t i)
{
    ASSERT(list->kind == REDIS_LIST && i < list->count);
    return redis_answer_of(list->reply->element[i]);
}

/* Or its beginning: what is long may be repeated in part. */
static bool text_holds(struct slice text, const char *secret)
{
    if (secret == NULL)
        return false;
    size_t len = strlen(secret);
    return memmem(text.ptr, text.len, secret, len < SECRET_TELLS ? len : SECRET_TELLS) != NULL;
}

/* A server that knows no AUTH repeats the arguments of what it does not know. */
struct slice redis_link_text(const struct redis_link *l, const struct redis_answer *error)
{
    struct slice text = error->text;
    if (text_holds(text, l->password) || text_holds(text, l->user))
        return SLICE("an error that holds a secret");
    for (size_t i = 0; i < text.len; i++)
        if (i == ERROR_TEXT_MAX || text.ptr[i] < ' ' || text.ptr[i] > '~')
            text.len = i;
    return text;
}
