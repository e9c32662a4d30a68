/* A write is one script on the server: whether it may be done is looked at and it is done in one
 * step, whoever else writes, by the clock of the server, so that one who was frozen with his words
 * on the way stays silent too. The script is sent whole each time, as there is nothing to remember
 * then about what a server that was restarted or replaced still knows. What is published is a hint:
 * whoever may not publish has written nevertheless. */
#include "store_redis_command.h"

#include <stdio.h>

enum { DAY_S = 24 * 3600, KEY_LEN = REDIS_NAME_MAX + STORE_KEY_MAX + 16 };

static const char write_script[] =
    "local time = redis.call('TIME')\n"
    "local now = time[1] * 1000000 + time[2]\n"
    "local verb, last, order, ttl, member, channel, value = unpack(ARGV)\n"
    "if last ~= '' and now > tonumber(last) then return 'late' end\n"
    "if verb == 'remove' then\n"
    "  redis.call('DEL', KEYS[1], KEYS[2])\n"
    "  redis.call('ZREM', KEYS[3], member)\n"
    "else\n"
    "  if redis.call('EXISTS', KEYS[1]) == 1 then\n"
    "    if verb == 'create' then return 'exists' end\n"
    "    if verb == 'create again' then\n"
    "      return redis.call('GET', KEYS[1]) == value and 'done' or 'exists'\n"
    "    end\n"
    "    local stored = redis.call('GET', KEYS[2])\n"
    "    if order ~= '' and stored and stored > order then return 'done' end\n"
    "  end\n"
    "  local expires = tonumber(ttl) > 0 and {'EX', ttl} or {}\n"
    "  redis.call('SET', KEYS[1], value, unpack(expires))\n"
    "  if order ~= '' then\n"
    "    redis.call('SET', KEYS[2], order, unpack(expires))\n"
    "  else\n"
    "    redis.call('DEL', KEYS[2])\n"
    "  end\n"
    "  if member ~= '' then\n"
    "    local newest = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]\n"
    "    if newest and tonumber(newest) >= now then now = tonumber(newest) + 1 end\n"
    "    redis.call('ZADD', KEYS[3], string.format('%.0f', now), member)\n"
    "    if tonumber(ttl) > 0 then\n"
    "      local expired = string.format('%.0f', now - ttl * 1000000)\n"
    "      redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', expired)\n"
    "      redis.call('EXPIRE', KEYS[3], ttl)\n"
    "    end\n"
    "  end\n"
    "end\n"
    "if channel ~= '' then redis.pcall('PUBLISH', channel, KEYS[1]) end\n"
    "return 'done'\n";

static bool key_has(const char *key, const char *suffix)
{
    const char *tilde = strchr(key, '~');
    return tilde != NULL && strncmp(tilde, suffix, strlen(suffix)) == 0;
}

bool redis_key_is_listed(const char *key)
{
    const char *tilde = strchr(key, '~');
    return tilde != NULL && strcmp(tilde, "~task") == 0;
}

static unsigned key_ttl_s(const struct redis_names *names, const char *key)
{
    if (names->ttl_s == 0)
        return 0;
    if (key_has(key, "~run") || key_has(key, "~prompt"))
        return names->ttl_s + 2 * DAY_S;
    bool decides = key_has(key, "~end") || key_has(key, "~take");
    return decides ? names->ttl_s + DAY_S : names->ttl_s;
}

static const char *write_verb(const struct redis_write *write)
{
    switch (write->doc->verb) {
    case STORE_CREATE: return write->again ? "create again" : "create";
    case STORE_REMOVE: return "remove";
    default: return "put";
    }
}

void redis_send_write(const struct redis_names *names, struct redis_link *l,
                      struct redis_request *r, const struct redis_write *write)
{
    const struct store_doc *doc = write->doc;
    char key[KEY_LEN], order_key[KEY_LEN], list_key[KEY_LEN], last[24] = "", order[24] = "";
    char ttl[16];
    (void)snprintf(key, sizeof(key), "%s%s", names->prefix, doc->key);
    (void)snprintf(order_key, sizeof(order_key), "%s~order:%s", names->prefix, doc->key);
    (void)snprintf(list_key, sizeof(list_key), "%s~list", names->prefix);
    (void)snprintf(ttl, sizeof(ttl), "%u", key_ttl_s(names, doc->key));
    if (write->not_after_ms != 0)
        (void)snprintf(last, sizeof(last), "%llu",
                       (unsigned long long)redis_link_server_us(l, write->not_after_ms));
    if (doc->order != 0)
        (void)snprintf(order, sizeof(order), "%020llu", (unsigned long long)doc->order);
    const struct slice args[] = {
        SLICE("EVAL"),
        SLICE(write_script),
        SLICE("3"),
        slice_of(key),
        slice_of(order_key),
        slice_of(list_key),
        slice_of(write_verb(write)),
        slice_of(last),
        slice_of(order),
        slice_of(ttl),
        redis_key_is_listed(doc->key) ? slice_of(doc->key) : SLICE_EMPTY,
        names->channel != NULL ? slice_of(names->channel) : SLICE_EMPTY,
        doc->value != NULL ? blob_slice(doc->value) : SLICE_EMPTY,
    };
    redis_link_send(l, r, args, ARRAY_LEN(args));
}

/* One byte more than is ever stored shows what is too large without bringing all of it. */
void redis_send_get(const struct redis_names *names, struct redis_link *l, struct redis_request *r,
                    const char *doc_key)
{
    char key[KEY_LEN], last[16];
    (void)snprintf(key, sizeof(key), "%s%s", names->prefix, doc_key);
    (void)snprintf(last, sizeof(last), "%d", STORE_VALUE_MAX);
    const struct slice args[] = {SLICE("GETRANGE"), slice_of(key), SLICE("0"), slice_of(last)};
    redis_link_send(l, r, args, ARRAY_LEN(args));
}

/* Entries that have expired wait for the next write to be removed. */
void redis_send_list(const struct redis_names *names, struct redis_link *l, struct redis_request *r,
                     const struct redis_range *range)
{
    char key[KEY_LEN], newest[24] = "+inf", oldest[24] = "-inf", count[16];
    uint64_t now_us = redis_link_server_us(l, clock_mono_ms());
    uint64_t ttl_us = (uint64_t)names->ttl_s * 1000000;
    (void)snprintf(key, sizeof(key), "%s~list", names->prefix);
    if (range->before != UINT64_MAX)
        (void)snprintf(newest, sizeof(newest), "(%llu", (unsigned long long)range->before);
    if (ttl_us != 0 && now_us > ttl_us)
        (void)snprintf(oldest, sizeof(oldest), "%llu", (unsigned long long)(now_us - ttl_us));
    (void)snprintf(count, sizeof(count), "%u", range->limit);
    const struct slice args[] = {
        SLICE("ZREVRANGEBYSCORE"), slice_of(key),  slice_of(newest), slice_of(oldest),
        SLICE("WITHSCORES"),       SLICE("LIMIT"), SLICE("0"),       slice_of(count)};
    redis_link_send(l, r, args, ARRAY_LEN(args));
}
