#include "ots_url.h"

#include "address.h"

#include <stdlib.h>

enum {
    TABLE_NAME_MAX = 255,
    CONNECTIONS_MAX = 64,
    TTL_MIN_S = 86400, /* the service's rule */
};

static bool is_table_name(const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && !(i > 0 && c >= '0' && c <= '9'))
            return false;
    }
    return len > 0 && len <= TABLE_NAME_MAX;
}

/* The nth label of "instance.region.ots.aliyuncs.com"; NULL where the host is no such name. */
static char *label_of(const char *host, unsigned n)
{
    struct address literal;
    if (address_parse(slice_of(host), &literal) || strchr(host, '.') == NULL)
        return NULL;
    for (; n > 0 && host != NULL; n--) {
        host = strchr(host, '.');
        host = host != NULL ? host + 1 : NULL;
    }
    if (host == NULL)
        return NULL;
    char *label = xstrdup(host);
    label[strcspn(label, ".")] = '\0';
    return label;
}

static enum err_code check_place(const struct store_url *url, struct err *err)
{
    struct address literal;
    if (url->host == NULL)
        return err_set(err, ERR_INVALID, "store URL: ots: needs a host");
    if (!address_parse(slice_of(url->host), &literal) && !address_is_name(slice_of(url->host)))
        return err_set(err, ERR_INVALID, "store URL: the host is not valid");
    if (url->path == NULL || url->path[0] != '/' || !is_table_name(url->path + 1))
        return err_set(err, ERR_INVALID,
                       "store URL: behind the host comes the table: letters, digits and _");
    if ((url->user == NULL) != (url->password == NULL))
        return err_set(err, ERR_INVALID, "store URL: a key id needs its secret, and the reverse");
    return ERR_OK;
}

/* Goes into a header, and is signed as it stands there. */
static bool fits_a_header(const char *text)
{
    for (size_t i = 0; text[i] != '\0'; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return false;
    return text[0] != '\0';
}

/* One of two words: is it the second? The first is what is meant where nothing is said. */
static enum err_code param_word(struct store_url *url, const char *name, const char *const words[2],
                                bool *ret, struct err *err)
{
    char *text = store_url_param(url, name);
    bool second = text != NULL && strcmp(text, words[1]) == 0;
    bool valid = text == NULL || second || strcmp(text, words[0]) == 0;
    free(text);
    if (!valid)
        return err_set(err, ERR_INVALID, "store URL: %s must be %s or %s", name, words[0],
                       words[1]);
    *ret = second;
    return ERR_OK;
}

static enum err_code read_names(struct ots_url *u, struct store_url *url, bool is_v4,
                                struct err *err)
{
    u->instance = store_url_param(url, "instance");
    u->region = store_url_param(url, "region");
    if (u->instance == NULL)
        u->instance = label_of(url->host, 0);
    if (u->region == NULL)
        u->region = label_of(url->host, 1);
    if (u->instance == NULL || !fits_a_header(u->instance))
        return err_set(err, ERR_INVALID, "store URL: this host needs instance=");
    if (is_v4 && (u->region == NULL || !fits_a_header(u->region)))
        return err_set(err, ERR_INVALID, "store URL: sign=v4 needs region=");
    if (!is_v4) {
        free(u->region);
        u->region = NULL;
    }
    return ERR_OK;
}

static enum err_code read_all(struct ots_url *u, struct store_url *url, struct err *err)
{
    static const char *const versions[] = {"v1", "v4"};
    static const char *const schemes[] = {"https", "http"};
    static const char *const switches[] = {"0", "1"};
    unsigned ttl_s = 0;
    bool is_v4 = false;
    if (check_place(url, err) != ERR_OK ||
        param_word(url, "sign", versions, &is_v4, err) != ERR_OK ||
        param_word(url, "scheme", schemes, &u->plain, err) != ERR_OK ||
        param_word(url, "create", switches, &u->create, err) != ERR_OK ||
        store_url_param_uint(url, "ttl", TTL_MIN_S, INT32_MAX, &ttl_s, err) != ERR_OK ||
        store_url_param_uint(url, "connections", 1, CONNECTIONS_MAX, &u->connections, err) !=
            ERR_OK ||
        read_names(u, url, is_v4, err) != ERR_OK)
        return ERR_INVALID;
    u->ca_file = store_url_param(url, "ca");
    u->ttl_s = ttl_s > 0 ? (int64_t)ttl_s : -1;
    u->table = xstrdup(url->path + 1);
    return ERR_OK;
}

enum err_code ots_url_read(struct ots_url *ret, struct store_url *url, struct err *err)
{
    struct ots_url u = {.connections = OTS_CONNECTIONS};
    if (read_all(&u, url, err) != ERR_OK) {
        ots_url_done(&u);
        return ERR_INVALID;
    }
    *ret = u;
    return ERR_OK;
}

void ots_url_done(struct ots_url *u)
{
    free(u->instance);
    free(u->region);
    free(u->table);
    free(u->ca_file);
}
