/* STORE_URL. What was taken apart is put together and taken apart as the same; nothing of a
 * password is in what is said about it; and cursors of lists are what was handed out, or none. */
#include "ots_url.h"
#include "store_url.h"
#ifdef STORE_MYSQL
#include "store_mysql_link.h"
#endif

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STORE_URL_MAX = 4096 };

/* --- put together ---------------------------------------------------------------------------- */

static void encode(struct buf *out, const char *part, const char *also)
{
    for (; part != NULL && *part != '\0'; part++) {
        char c = *part;
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || strchr(also, c) != NULL;
        if (plain)
            buf_add(out, (struct slice){&c, 1});
        else
            buf_addf(out, "%%%02X", (unsigned char)c);
    }
}

static void write_url(struct buf *out, const struct store_url *url, const char *password)
{
    bool has_user = url->user != NULL || password != NULL;
    buf_init(out, SIZE_MAX);
    buf_addf(out, "%s:", url->scheme);
    if (url->host != NULL || has_user || url->port != 0 ||
        (url->path != NULL && strncmp(url->path, "//", 2) == 0))
        buf_adds(out, "//");
    encode(out, url->user, "");
    if (password != NULL)
        buf_adds(out, ":");
    encode(out, password, "");
    buf_adds(out, has_user ? "@" : "");
    encode(out, url->host, "");
    if (url->port != 0)
        buf_addf(out, ":%u", url->port);
    encode(out, url->path, "/");
    if (url->query.len > 0)
        buf_addf(out, "?%.*s", SLICE_ARGS(url->query));
}

static bool same_part(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static void check_again(const struct store_url *url)
{
    struct store_url again;
    struct buf text;
    write_url(&text, url, url->password);
    if (text.len <= STORE_URL_MAX) { /* escapes make it longer */
        ASSERT(store_url_parse(&again, text.ptr, NULL) == ERR_OK);
        ASSERT(same_part(url->scheme, again.scheme) && same_part(url->user, again.user) &&
               same_part(url->password, again.password) && same_part(url->host, again.host) &&
               same_part(url->path, again.path) && url->port == again.port &&
               slice_eq(url->query, again.query));
        store_url_done(&again);
    }
    buf_done(&text);
}

/* --- read by the backends -------------------------------------------------------------------- */

/* Everything that is ever said about it. */
static void say(struct buf *out, const char *text)
{
    struct store_url url;
    struct ots_url ots;
    struct err err = {.code = ERR_OK};
    buf_init(out, SIZE_MAX);
    if (store_url_parse(&url, text, &err) != ERR_OK) {
        buf_adds(out, err.msg);
        return;
    }
    if (ots_url_read(&ots, &url, &err) == ERR_OK)
        ots_url_done(&ots);
    buf_addf(out, "%s\n", err.msg);
#ifdef STORE_MYSQL
    struct sql_options sql;
    if (sql_options_read(&sql, &url, &err) == ERR_OK)
        sql_options_done(&sql);
    buf_addf(out, "%s\n", err.msg);
#endif
    if (store_url_check_rest(&url, &err) != ERR_OK)
        buf_addf(out, "%s\n", err.msg);
    store_url_done(&url);
}

/* With another password the same is said. */
static void check_password(const struct store_url *url)
{
    struct buf text, said, other;
    char *password = xstrdup(url->password);
    write_url(&text, url, password);
    say(&said, text.ptr);
    buf_done(&text);
    memset(password, 'x', strlen(password));
    write_url(&text, url, password);
    if (text.len <= STORE_URL_MAX) {
        say(&other, text.ptr);
        ASSERT(slice_eq(buf_slice(&said), buf_slice(&other)));
        buf_done(&other);
    }
    buf_done(&text);
    buf_done(&said);
    free(password);
}

static void check_params(struct store_url *url)
{
    static const char *const names[] = {"ttl", "a", "", "table"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        size_t before = url->query.len;
        char *value = store_url_param(url, names[i]);
        ASSERT(value != NULL ? url->query.len < before : url->query.len == before);
        free(value);
    }
}

/* --- cursors --------------------------------------------------------------------------------- */

static void check_cursor(const char *text)
{
    static struct store_page page;
    char back[STORE_KEY_MAX + 1];
    const char *key;
    if (!store_cursor_read(text, &page.stamps[0], &key))
        return;
    size_t len = strlen(key);
    ASSERT(store_key_ok((struct slice){key, len}));
    if (len < 5 || strcmp(key + len - 5, "~task") != 0)
        return; /* of nobody's list */
    page.count = 1;
    memcpy(page.keys[0], key, len + 1);
    store_page_cursor(&page, 0, back);
    ASSERT(strcmp(back, text) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct store_url url;
    struct err err = {.code = ERR_OK};
    struct buf said;
    char *text = xmalloc(size + 1);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    check_cursor(text);
    say(&said, text);
    buf_done(&said);
    if (store_url_parse(&url, text, &err) == ERR_OK) {
        check_again(&url);
        if (url.password != NULL)
            check_password(&url);
        check_params(&url);
        store_url_done(&url);
    } else {
        ASSERT(strncmp(err.msg, "store URL: ", 11) == 0);
    }
    free(text);
    return 0;
}
