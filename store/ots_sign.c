/* What is signed: path, method, an empty line for the query, then all x-ots-… headers but the
 * signature, sorted. ots_sign() adds them in sorted order. An answer is signed likewise, headers
 * first, and in a header of another name. */
#include "ots_sign.h"

#include "codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { KEY_ROOM = BASE64_ROOM(SHA256_RAW), DATE_ROOM = 64, SKEW_MAX_MS = 15 * 60 * 1000 };

/* --- keys ------------------------------------------------------------------------------------ */

/* A key of version 4 is good for one day, region and service. It is the text that counts, not the
 * bytes it stands for. */
static void derive_key(const struct ots_signer *signer, const char *day, char ret[KEY_ROOM])
{
    unsigned char key[SHA256_RAW];
    const char *const steps[] = {signer->region, "ots", "aliyun_v4_request"};
    struct buf first;
    buf_init(&first, SIZE_MAX);
    buf_addf(&first, "aliyun_v4%s", signer->credentials->secret);
    hmac_sha256(buf_slice(&first), slice_of(day), key);
    explicit_bzero(first.ptr, first.len);
    buf_done(&first);
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        unsigned char next[SHA256_RAW];
        hmac_sha256((struct slice){(char *)key, sizeof(key)}, slice_of(steps[i]), next);
        memcpy(key, next, sizeof(key));
    }
    (void)base64_encode((struct slice){(char *)key, sizeof(key)}, ret);
    explicit_bzero(key, sizeof(key));
}

static void format_date(uint64_t wall_ms, char date[DATE_ROOM], char day[DATE_ROOM])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    ASSERT(gmtime_r(&seconds, &tm) != NULL);
    (void)snprintf(date, DATE_ROOM, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ", tm.tm_year + 1900,
                   tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
                   (unsigned)(wall_ms % 1000));
    (void)snprintf(day, DATE_ROOM, "%04d%02d%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
}

static void md5_text(struct slice body, char ret[BASE64_ROOM(MD5_RAW)])
{
    unsigned char raw[MD5_RAW];
    md5_raw(body, raw);
    (void)base64_encode((struct slice){(char *)raw, sizeof(raw)}, ret);
}

/* --- requests -------------------------------------------------------------------------------- */

static enum err_code add_text(struct http_headers *headers, const char *name, const char *value)
{
    return http_headers_add(headers, slice_of(name), slice_of(value));
}

static enum err_code add_parts(struct http_headers *headers, const struct ots_signer *signer,
                               const char *date, const char *day, const char *md5)
{
    const struct ots_credentials *who = signer->credentials;
    bool is_v4 = signer->region != NULL;
    const char *const parts[][2] = {
        {"x-ots-accesskeyid", who->id},
        {"x-ots-apiversion", "2015-12-31"},
        {"x-ots-contentmd5", md5},
        {"x-ots-date", date},
        {"x-ots-instancename", signer->instance},
        {"x-ots-signdate", is_v4 ? day : ""},
        {"x-ots-signregion", is_v4 ? signer->region : ""},
        {"x-ots-ststoken", who->token},
    };
    enum err_code code = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(parts) && code == ERR_OK; i++)
        if (parts[i][1][0] != '\0')
            code = add_text(headers, parts[i][0], parts[i][1]);
    return code;
}

static void sign(struct slice key, struct slice text, bool is_v4, char ret[KEY_ROOM])
{
    unsigned char raw[SHA256_RAW];
    if (is_v4)
        hmac_sha256(key, text, raw);
    else
        hmac_sha1(key, text, raw);
    (void)base64_encode((struct slice){(char *)raw, is_v4 ? SHA256_RAW : SHA1_RAW}, ret);
}

enum err_code ots_sign(struct http_headers *headers, const struct ots_signer *signer,
                       const char *path, struct slice body, uint64_t wall_ms)
{
    bool is_v4 = signer->region != NULL;
    char date[DATE_ROOM], day[DATE_ROOM], md5[BASE64_ROOM(MD5_RAW)];
    char key[KEY_ROOM], signature[KEY_ROOM];
    struct buf text;
    unsigned from = headers->count;
    format_date(wall_ms, date, day);
    md5_text(body, md5);
    enum err_code code = add_parts(headers, signer, date, day, md5);
    if (code != ERR_OK)
        return code;
    buf_init(&text, SIZE_MAX);
    buf_addf(&text, "%s\nPOST\n\n", path);
    for (unsigned i = from; i < headers->count; i++)
        buf_addf(&text, "%.*s:%.*s\n", SLICE_ARGS(http_headers_name(headers, i)),
                 SLICE_ARGS(http_headers_value(headers, i)));
    if (is_v4) {
        buf_adds(&text, "ots");
        derive_key(signer, day, key);
    }
    sign(slice_of(is_v4 ? key : signer->credentials->secret), buf_slice(&text), is_v4, signature);
    buf_done(&text);
    return add_text(headers, is_v4 ? "x-ots-signaturev4" : "x-ots-signature", signature);
}

/* --- answers --------------------------------------------------------------------------------- */

bool ots_is_whole(const struct http_headers *headers, struct slice body)
{
    char md5[BASE64_ROOM(MD5_RAW)];
    struct slice told;
    md5_text(body, md5);
    return http_headers_get(headers, "x-ots-contentmd5", &told) && slice_is(told, md5);
}

/* "2026-01-02T03:04:05.123456Z": of the fraction any number of digits may come. */
static bool read_date(struct slice text, uint64_t *ret_wall_ms)
{
    char copy[DATE_ROOM];
    struct tm tm = {.tm_year = 0};
    if (text.len >= sizeof(copy))
        return false;
    slice_copy(text, copy, sizeof(copy));
    const char *rest = strptime(copy, "%Y-%m-%dT%H:%M:%S", &tm);
    if (rest == NULL)
        return false;
    if (*rest == '.')
        rest += 1 + strspn(rest + 1, "0123456789");
    time_t seconds = timegm(&tm);
    if (strcmp(rest, "Z") != 0 || seconds < 0)
        return false;
    *ret_wall_ms = (uint64_t)seconds * 1000;
    return true;
}

bool ots_is_timely(const struct http_headers *headers, uint64_t wall_ms)
{
    struct slice date;
    uint64_t then;
    if (!http_headers_get(headers, "x-ots-date", &date) || !read_date(date, &then))
        return false;
    return (then > wall_ms ? then - wall_ms : wall_ms - then) <= SKEW_MAX_MS;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_signed_header(struct slice name)
{
    struct slice prefix = SLICE("x-ots-");
    return name.len > prefix.len && slice_eq_nocase((struct slice){name.ptr, prefix.len}, prefix);
}

/* Lines of the answer's x-ots-… headers, names in lower case, sorted. */
static void lines_of(const struct http_headers *headers, struct buf *out)
{
    char *lines[HTTP_HEADERS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < headers->count && count < HTTP_HEADERS_MAX; i++) {
        struct slice name = http_headers_name(headers, i);
        struct buf line;
        if (!is_signed_header(name))
            continue;
        buf_init(&line, SIZE_MAX);
        buf_addf(&line, "%.*s:%.*s\n", SLICE_ARGS(name),
                 SLICE_ARGS(http_headers_value(headers, i)));
        for (size_t k = 0; k < name.len; k++)
            if (line.ptr[k] >= 'A' && line.ptr[k] <= 'Z')
                line.ptr[k] = (char)(line.ptr[k] - 'A' + 'a');
        lines[count++] = line.ptr;
    }
    qsort(lines, count, sizeof(lines[0]), compare_names);
    for (unsigned i = 0; i < count; i++) {
        buf_adds(out, lines[i]);
        free(lines[i]);
    }
}

/* "OTS <key id>:<signature>". A version 4 key is that of the request, whatever day it is by now. */
bool ots_is_genuine(const struct http_headers *headers, const struct ots_signer *signer,
                    const char *path, uint64_t wall_ms)
{
    char key[KEY_ROOM], signature[KEY_ROOM], date[DATE_ROOM], day[DATE_ROOM];
    struct slice told;
    struct buf text;
    const char *secret = signer->credentials->secret;
    if (!http_headers_get(headers, "authorization", &told))
        return false;
    if (signer->region != NULL) {
        format_date(wall_ms, date, day);
        derive_key(signer, day, key);
        secret = key;
    }
    buf_init(&text, SIZE_MAX);
    lines_of(headers, &text);
    buf_adds(&text, path);
    sign(slice_of(secret), buf_slice(&text), false, signature);
    buf_reset(&text);
    buf_addf(&text, "OTS %s:%s", signer->credentials->id, signature);
    bool same = text.len == told.len && bytes_equal_secretly(text.ptr, told.ptr, told.len);
    buf_done(&text);
    return same;
}
