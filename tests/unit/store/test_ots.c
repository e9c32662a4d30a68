/* Messages, rows and signatures of Tablestore against what its vendor's own clients send and
 * conclude: the files of ots/, see ots/README.md. Each file there is one of the tests. */
#include "codec.h"
#include "json_scan.h"
#include "ots_doc.h"
#include "ots_message.h"
#include "ots_reply.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

/* What requests of all vectors were made with; checked against each. */
#define INSTANCE "inst01"
#define TABLE    "tasks"

static struct buf file; /* the vector at hand */
static char text_of_member[8][4096];
static unsigned members;

static void vector_open(const char *name)
{
    char path[512];
    char part[4096];
    size_t n;
    (void)snprintf(path, sizeof(path), "%s/%s.json", VECTORS, name);
    FILE *f = fopen(path, "r");
    if (f == NULL)
        fail_msg("%s", path);
    buf_init(&file, SIZE_MAX);
    while ((n = fread(part, 1, sizeof(part), f)) > 0)
        buf_add(&file, (struct slice){part, n});
    (void)fclose(f);
    assert_int_equal(json_check(buf_slice(&file), &json_from_client, NULL, NULL), ERR_OK);
    members = 0;
}

static void vector_close(void)
{
    buf_done(&file);
}

static struct slice value_at(const char *group, const char *key)
{
    struct slice value;
    struct slice top = json_trim(buf_slice(&file));
    bool found =
        group != NULL ? json_get_path(top, &value, group, key, NULL) : json_get(top, key, &value);
    return found ? value : SLICE_EMPTY;
}

static const char *unescaped(struct slice token)
{
    struct buf out;
    char *ret = text_of_member[members++ % ARRAY_LEN(text_of_member)];
    buf_init(&out, SIZE_MAX);
    if (token.len > 0 && token.ptr[0] == '"')
        assert_int_equal(json_unescape(token, &out), ERR_OK);
    (void)snprintf(ret, sizeof(text_of_member[0]), "%.*s", SLICE_ARGS(buf_slice(&out)));
    buf_done(&out);
    return ret;
}

/* "" for what is null or not there. */
static const char *text_at(const char *group, const char *key)
{
    return unescaped(value_at(group, key));
}

static void add_hex(struct buf *out, struct slice hex)
{
    for (size_t i = 0; i + 1 < hex.len; i += 2) {
        char pair[3] = {hex.ptr[i], hex.ptr[i + 1], '\0'};
        char byte = (char)strtoul(pair, NULL, 16);
        buf_add(out, (struct slice){&byte, 1});
    }
}

static void bytes_at(const char *key, struct buf *ret)
{
    struct slice token = value_at(NULL, key);
    buf_init(ret, SIZE_MAX);
    if (token.len > 2)
        add_hex(ret, (struct slice){token.ptr + 1, token.len - 2});
}

static uint64_t wall_ms_of(const char *date)
{
    assert_string_equal(date, "2026-01-02T03:04:05.000Z");
    return UINT64_C(1767323045000);
}

static struct ots_credentials credentials_of_vector(void)
{
    return (struct ots_credentials){text_at("credentials", "access_key_id"),
                                    text_at("credentials", "access_key_secret"),
                                    text_at("credentials", "security_token")};
}

/* --- requests -------------------------------------------------------------------------------- */

static struct slice nth(struct slice array, unsigned n)
{
    struct json_iter it;
    struct slice key, value;
    json_iter_init(&it, array);
    do {
        if (!json_next(&it, &key, &value))
            return SLICE_EMPTY;
    } while (n-- > 0);
    return value;
}

static void cell_of(struct slice described, struct ots_cell *ret)
{
    *ret = (struct ots_cell){.name = slice_of(unescaped(nth(described, 0)))};
    if (json_string_is(nth(described, 1), "INTEGER")) {
        ret->type = OTS_INTEGER;
        assert_true(json_to_i64(nth(described, 2), &ret->integer));
    } else {
        ret->type = OTS_STRING;
        ret->bytes = slice_of(unescaped(nth(described, 2)));
    }
}

static void row_of_vector(const char *columns, struct ots_row *ret)
{
    struct slice given = value_at("inputs", columns);
    memset(ret, 0, sizeof(*ret));
    cell_of(nth(value_at("inputs", "pk"), 0), &ret->key);
    for (; given.len > 0 && nth(given, ret->count).len > 0; ret->count++)
        cell_of(nth(given, ret->count), &ret->columns[ret->count]);
}

static void write_body(struct buf *body, const struct ots_row *row)
{
    static const char *const names[] = {"IGNORE", "EXPECT_EXIST", "EXPECT_NOT_EXIST"};
    struct ots_condition condition = {OTS_IGNORE, NULL, 0};
    struct buf bytes;
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (json_string_is(value_at("inputs", "condition"), names[i]))
            condition.row = (enum ots_expect)i;
    buf_init(&bytes, SIZE_MAX);
    ots_row_write(&bytes, row);
    ots_write_body(body, TABLE, buf_slice(&bytes), &condition);
    buf_done(&bytes);
}

static void put_body(struct buf *body)
{
    struct ots_row row;
    row_of_vector("columns", &row);
    write_body(body, &row);
}

static void update_body(struct buf *body)
{
    struct ots_row row;
    row_of_vector("put", &row);
    row.columns[row.count++] =
        (struct ots_cell){.name = slice_of(unescaped(nth(value_at("inputs", "delete_all"), 0))),
                          .type = OTS_ABSENT,
                          .change = OTS_DELETE_ALL_VERSIONS};
    write_body(body, &row);
}

static void delete_body(struct buf *body)
{
    struct ots_row row;
    row_of_vector("columns", &row);
    row.deletes = true;
    write_body(body, &row);
}

static void get_body(struct buf *body)
{
    static const char *const all[] = {NULL};
    struct ots_row row;
    struct buf bytes;
    row_of_vector("columns", &row);
    buf_init(&bytes, SIZE_MAX);
    ots_row_write(&bytes, &row);
    ots_get_body(body, TABLE, buf_slice(&bytes), all);
    buf_done(&bytes);
}

static void create_body(struct buf *body)
{
    int64_t seconds;
    assert_true(json_to_i64(value_at("inputs", "time_to_live"), &seconds));
    ots_create_table_body(body, TABLE, "k", seconds);
}

static void describe_body(struct buf *body)
{
    ots_field_bytes(body, 1, SLICE(TABLE));
}

static void empty_body(struct buf *body)
{
    (void)body;
}

static void check_signature(const char *path, struct slice body, const char *region)
{
    struct ots_credentials who = credentials_of_vector();
    struct ots_signer signer = {&who, INSTANCE, region};
    struct http_headers headers;
    struct slice told = value_at(NULL, "headers");
    unsigned count = 0;
    struct json_iter it;
    struct slice key, value;
    http_headers_init(&headers);
    assert_int_equal(ots_sign(&headers, &signer, path, body, wall_ms_of(text_at(NULL, "date"))),
                     ERR_OK);
    json_iter_init(&it, told);
    while (json_next(&it, &key, &value)) {
        struct slice ours;
        if (!http_headers_get(&headers, unescaped(key), &ours) || !slice_is(ours, unescaped(value)))
            fail_msg("%.*s is not %.*s", SLICE_ARGS(key), SLICE_ARGS(value));
        count++;
    }
    assert_int_equal(headers.count, count);
    http_headers_done(&headers);
}

static void check_request(const char *name, const char *path, void (*build)(struct buf *body),
                          const char *region)
{
    struct buf body, expected;
    vector_open(name);
    bytes_at("body_hex", &expected);
    if (region != NULL) { /* its body is that of another vector */
        vector_close();
        vector_open("req-01-put-ascii");
    }
    buf_init(&body, SIZE_MAX);
    build(&body);
    if (region != NULL) {
        bytes_at("body_hex", &expected);
        vector_close();
        vector_open(name);
    }
    if (!slice_eq(buf_slice(&body), buf_slice(&expected)))
        fail_msg("%s: the body differs", name);
    check_signature(path, buf_slice(&body), region);
    buf_done(&body);
    buf_done(&expected);
    vector_close();
}

static void requests_are_the_vendors_byte_for_byte(void **state)
{
    (void)state;
    check_request("req-01-put-ascii", "/PutRow", put_body, NULL);
    check_request("req-02-put-unicode", "/PutRow", put_body, NULL);
    check_request("req-04-put-two-columns", "/PutRow", put_body, NULL);
    check_request("req-05-put-sts", "/PutRow", put_body, NULL);
    check_request("req-06-put-expect-not-exist", "/PutRow", put_body, NULL);
    check_request("req-09-get", "/GetRow", get_body, NULL);
    check_request("req-11-update", "/UpdateRow", update_body, NULL);
    check_request("req-12-delete", "/DeleteRow", delete_body, NULL);
    check_request("req-13-create-table", "/CreateTable", create_body, NULL);
    check_request("req-14-describe-table", "/DescribeTable", describe_body, NULL);
    check_request("req-15-list-table", "/ListTable", empty_body, NULL);
    check_request("req-17-put-v4-signature", "/PutRow", put_body, "cn-hangzhou");
}

static void credentials_that_no_header_can_have_are_refused(void **state)
{
    (void)state;
    const struct ots_credentials bad[] = {
        {"id\r\nx: y", "secret", ""}, {"id", "secret", "token\n"}, {"", "secret", ""}};
    for (size_t i = 0; i < 2; i++) {
        struct ots_signer signer = {&bad[i], INSTANCE, NULL};
        struct http_headers headers;
        http_headers_init(&headers);
        assert_int_equal(ots_sign(&headers, &signer, "/PutRow", SLICE_EMPTY, 0), ERR_INVALID);
        http_headers_done(&headers);
    }
}

/* --- answers --------------------------------------------------------------------------------- */

static void headers_of_vector(struct http_headers *ret)
{
    struct json_iter it;
    struct slice key, value;
    http_headers_init(ret);
    json_iter_init(&it, value_at(NULL, "headers"));
    while (json_next(&it, &key, &value))
        assert_int_equal(
            http_headers_add(ret, slice_of(unescaped(key)), slice_of(unescaped(value))), ERR_OK);
}

static void check_row(struct slice body, bool has_row)
{
    struct ots_rows rows;
    struct ots_row row;
    struct slice bytes;
    struct slice columns = value_at("expect", "columns");
    assert_int_equal(ots_got_read(body, &bytes), ERR_OK);
    assert_int_equal(ots_rows_begin(&rows, bytes), ERR_OK);
    assert_int_equal(ots_rows_next(&rows, &row), has_row ? ERR_OK : ERR_NOT_FOUND);
    if (!has_row)
        return;
    struct slice key = nth(value_at("expect", "pk"), 0);
    assert_true(json_string_is(nth(key, 0), "k") && slice_is(row.key.name, "k"));
    assert_true(slice_is(row.key.bytes, unescaped(nth(key, 1))));
    for (unsigned i = 0; i < row.count; i++) {
        struct slice told = nth(columns, i);
        const struct ots_cell *cell = &row.columns[i];
        int64_t number;
        assert_true(slice_is(cell->name, unescaped(nth(told, 0))));
        if (json_to_i64(nth(told, 1), &number))
            assert_true(cell->type == OTS_INTEGER && cell->integer == number);
        else
            assert_true(slice_is(cell->bytes, unescaped(nth(told, 1))));
        assert_true(json_to_i64(nth(told, 2), &number) && cell->time_ms == number);
    }
    assert_int_equal(nth(columns, row.count).len, 0);
    assert_int_equal(ots_rows_next(&rows, &row), ERR_NOT_FOUND);
}

static void check_corrupt_row(struct slice body)
{
    struct ots_rows rows;
    struct ots_row row;
    struct slice bytes;
    assert_int_equal(ots_got_read(body, &bytes), ERR_OK);
    assert_int_equal(ots_rows_begin(&rows, bytes), ERR_OK);
    assert_int_equal(ots_rows_next(&rows, &row), ERR_CORRUPT);
}

static void check_table(struct slice body)
{
    struct ots_field meta, name;
    assert_int_equal(ots_field_next(&body, &meta), ERR_OK);
    assert_int_equal(meta.number, 1);
    assert_int_equal(ots_field_next(&meta.bytes, &name), ERR_OK);
    assert_true(slice_is(name.bytes, TABLE));
}

static enum ots_verdict judge(struct slice body, const struct http_headers *headers, bool plain,
                              struct err *err)
{
    struct ots_credentials who = credentials_of_vector();
    struct ots_signer signer = {&who, INSTANCE, NULL};
    struct ots_asked asked = {&signer, text_at(NULL, "path"),
                              wall_ms_of(text_at(NULL, "client_clock")), plain};
    int64_t status;
    assert_true(json_to_i64(value_at(NULL, "status"), &status));
    struct ots_reply reply = {(int)status, headers, body};
    return ots_judge(&reply, &asked, err);
}

static void check_response(const char *name, enum ots_verdict verdict)
{
    struct http_headers headers;
    struct err err = {.code = ERR_OK};
    struct buf body;
    vector_open(name);
    bytes_at("body_hex", &body);
    headers_of_vector(&headers);
    const char *result = text_at("expect", "result");
    for (unsigned plain = 0; plain < 2; plain++)
        if (judge(buf_slice(&body), &headers, plain == 1, &err) != verdict)
            fail_msg("%s: %s", name, err.msg);
    if (strcmp(result, "row") == 0 || strcmp(result, "not_found") == 0)
        check_row(buf_slice(&body), result[0] == 'r');
    else if (strcmp(result, "corrupt") == 0 && verdict == OTS_OK)
        check_corrupt_row(buf_slice(&body));
    else if (strcmp(result, "table") == 0)
        check_table(buf_slice(&body));
    else if (strcmp(result, "error") == 0 && text_at("expect", "code")[0] != '\0')
        assert_non_null(strstr(err.msg, text_at("expect", "code")));
    http_headers_done(&headers);
    buf_done(&body);
    vector_close();
}

static void answers_get_the_vendors_verdict(void **state)
{
    (void)state;
    check_response("resp-01-get-ascii", OTS_OK);
    check_response("resp-02-get-unicode", OTS_OK);
    check_response("resp-04-get-missing-row", OTS_OK);
    check_response("resp-05-get-row-without-columns", OTS_OK);
    check_response("resp-06-put-ok", OTS_OK);
    check_response("resp-07-bad-cell-crc", OTS_OK); /* the row is read afterwards */
    check_response("resp-08-bad-row-crc", OTS_OK);
    check_response("resp-09-bad-md5", OTS_CORRUPT);
    check_response("resp-13-error-server-busy", OTS_AGAIN);
    check_response("resp-15-error-condition-check", OTS_REFUSED);
    check_response("resp-16-error-table-missing", OTS_NO_TABLE);
    check_response("resp-17-error-auth-unsigned", OTS_NO_ENTRY);
    check_response("resp-18-error-html-gateway", OTS_UNKNOWN);
    check_response("resp-20-describe-table", OTS_OK);
}

static void over_plain_http_an_answer_must_be_signed_and_timely(void **state)
{
    (void)state;
    struct http_headers headers, unsigned_headers;
    struct err err;
    struct buf body;
    vector_open("resp-01-get-ascii");
    bytes_at("body_hex", &body);
    headers_of_vector(&headers);
    http_headers_init(&unsigned_headers);
    for (unsigned i = 0; i < headers.count; i++)
        if (!slice_is(http_headers_name(&headers, i), "Authorization"))
            assert_int_equal(http_headers_add(&unsigned_headers, http_headers_name(&headers, i),
                                              http_headers_value(&headers, i)),
                             ERR_OK);
    assert_int_equal(judge(buf_slice(&body), &unsigned_headers, true, &err), OTS_CORRUPT);
    assert_int_equal(judge(buf_slice(&body), &unsigned_headers, false, &err), OTS_OK);
    uint64_t then = wall_ms_of(text_at(NULL, "client_clock"));
    assert_true(ots_is_timely(&headers, then + 14 * 60 * 1000));
    assert_true(ots_is_timely(&headers, then - 14 * 60 * 1000));
    assert_false(ots_is_timely(&headers, then + 16 * 60 * 1000));
    assert_false(ots_is_timely(&headers, then - 16 * 60 * 1000));
    http_headers_done(&headers);
    http_headers_done(&unsigned_headers);
    buf_done(&body);
    vector_close();
}

/* The vendor's clients check answers with the key that they have asked with. */
static void an_answer_past_midnight_has_the_key_of_the_request(void **state)
{
    (void)state;
    static const char *const lines[][2] = {
        {"Authorization", "OTS id:NRyi16MvP2lWvNnffrWLxPqa3Ck="},
        {"x-ots-contentmd5", "1B2M2Y8AsgTpgAmY7PhCfg=="},
        {"x-ots-date", "2026-01-03T00:00:00.100000Z"},
        {"x-ots-requestid", "r"},
    };
    struct http_headers headers;
    struct err err;
    struct ots_credentials who = {"id", "secret", ""};
    struct ots_signer signer = {&who, INSTANCE, "here"};
    struct ots_asked asked = {&signer, "/PutRow", UINT64_C(1767398399900), true};
    http_headers_init(&headers);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        assert_int_equal(http_headers_add(&headers, slice_of(lines[i][0]), slice_of(lines[i][1])),
                         ERR_OK);
    struct ots_reply reply = {200, &headers, SLICE_EMPTY};
    assert_int_equal(ots_judge(&reply, &asked, &err), OTS_OK);
    asked.wall_ms += 1000; /* asked on the next day */
    assert_int_equal(ots_judge(&reply, &asked, &err), OTS_CORRUPT);
    http_headers_done(&headers);
}

static void what_a_refusal_repeats_is_not_shown(void **state)
{
    (void)state;
    struct http_headers headers;
    struct err err;
    struct ots_credentials who = {"id", "the-secret", ""};
    struct ots_signer signer = {&who, INSTANCE, NULL};
    struct ots_asked asked = {&signer, "/GetRow", 0, false};
    struct buf body;
    char md5[BASE64_ROOM(MD5_RAW)];
    unsigned char raw[MD5_RAW];
    buf_init(&body, SIZE_MAX);
    ots_field_bytes(&body, 1, SLICE("OTSAuthFailed"));
    ots_field_bytes(&body, 2, SLICE("no: the-secret"));
    md5_raw(buf_slice(&body), raw);
    (void)base64_encode((struct slice){(char *)raw, MD5_RAW}, md5);
    http_headers_init(&headers);
    assert_int_equal(http_headers_add(&headers, SLICE("x-ots-requestid"), SLICE("r\"1")), ERR_OK);
    assert_int_equal(http_headers_add(&headers, SLICE("x-ots-contentmd5"), slice_of(md5)), ERR_OK);
    struct ots_reply reply = {403, &headers, buf_slice(&body)};
    assert_int_equal(ots_judge(&reply, &asked, &err), OTS_NO_ENTRY);
    assert_null(strstr(err.msg, "the-secret"));
    http_headers_done(&headers);
    buf_done(&body);
}

/* A success without one may be half of it. */
static void an_error_needs_no_checksum(void **state)
{
    (void)state;
    struct http_headers headers;
    struct err err;
    struct ots_credentials who = {"id", "the-secret", ""};
    struct ots_signer signer = {&who, INSTANCE, NULL};
    struct ots_asked asked = {&signer, "/PutRow", 0, false};
    struct buf body;
    buf_init(&body, SIZE_MAX);
    ots_field_bytes(&body, 1, SLICE("OTSServerBusy"));
    http_headers_init(&headers);
    assert_int_equal(http_headers_add(&headers, SLICE("x-ots-requestid"), SLICE("1")), ERR_OK);
    struct ots_reply reply = {503, &headers, buf_slice(&body)};
    assert_int_equal(ots_judge(&reply, &asked, &err), OTS_AGAIN);
    reply.status = 200;
    assert_int_equal(ots_judge(&reply, &asked, &err), OTS_CORRUPT);
    reply.status = 503;
    assert_int_equal(http_headers_add(&headers, SLICE("x-ots-contentmd5"), SLICE("1")), ERR_OK);
    assert_int_equal(ots_judge(&reply, &asked, &err), OTS_CORRUPT);
    http_headers_done(&headers);
    buf_done(&body);
}

/* --- checksums and damage -------------------------------------------------------------------- */

static void checksums_are_the_published_ones(void **state)
{
    (void)state;
    vector_open("crc8");
    struct slice cases = value_at(NULL, "cases");
    assert_int_equal(ots_crc8(0, SLICE("123456789")), 0xf4);
    unsigned i = 0;
    for (; nth(cases, i).len > 0; i++) {
        struct buf bytes;
        struct slice hex, crc;
        assert_true(json_get(nth(cases, i), "hex", &hex) && json_get(nth(cases, i), "crc", &crc));
        buf_init(&bytes, SIZE_MAX);
        add_hex(&bytes, (struct slice){hex.ptr + 1, hex.len - 2});
        assert_int_equal(ots_crc8(0, buf_slice(&bytes)), strtoul(crc.ptr + 1, NULL, 16));
        buf_done(&bytes);
    }
    assert_true(i >= 8);
    vector_close();
}

static void one_row(struct buf *out)
{
    struct ots_row row = {.key = {.name = SLICE("k"), .type = OTS_STRING, .bytes = SLICE("key")},
                          .columns = {{.name = SLICE("v"), .type = OTS_BLOB, .bytes = SLICE("ab")},
                                      {.name = SLICE("o"), .integer = -2}},
                          .count = 2};
    buf_init(out, SIZE_MAX);
    ots_row_write(out, &row);
}

/* Nothing is read beyond the end, and no changed byte goes unseen but those that no checksum
 * covers: of those the lengths betray all. */
static void damaged_rows_are_seen(void **state)
{
    (void)state;
    struct ots_rows rows;
    struct ots_row row;
    struct buf whole;
    one_row(&whole);
    assert_int_equal(ots_rows_begin(&rows, buf_slice(&whole)), ERR_OK);
    assert_int_equal(ots_rows_next(&rows, &row), ERR_OK);
    assert_true(slice_is(ots_row_column(&row, "v")->bytes, "ab"));
    assert_int_equal(ots_row_column(&row, "o")->integer, -2);
    assert_null(ots_row_column(&row, "x"));
    for (size_t len = 1; len < whole.len; len++) {
        char *cut = xmalloc(len); /* its end is the end of memory */
        memcpy(cut, whole.ptr, len);
        enum err_code code = ots_rows_begin(&rows, (struct slice){cut, len});
        if (code == ERR_OK && len > 4)
            code = ots_rows_next(&rows, &row);
        assert_int_equal(code, len == 4 ? ERR_OK : ERR_CORRUPT);
        free(cut);
    }
    for (size_t at = 0; at < whole.len; at++)
        for (unsigned change = 1; change < 256; change++) {
            whole.ptr[at] = (char)(whole.ptr[at] ^ (char)change);
            enum err_code code = ots_rows_begin(&rows, buf_slice(&whole));
            if (code == ERR_OK)
                code = ots_rows_next(&rows, &row);
            if (code == ERR_OK)
                code = rows.rest.len == 0 ? ERR_OK : ERR_CORRUPT;
            if (code != ERR_CORRUPT)
                fail_msg("byte %zu changed by %02x", at, change);
            whole.ptr[at] = (char)(whole.ptr[at] ^ (char)change);
        }
    buf_done(&whole);
}

static void messages_are_read_strictly(void **state)
{
    (void)state;
    const struct {
        struct slice bytes;
        enum err_code code;
    } table[] = {
        {SLICE(""), ERR_OK},
        {SLICE("\x12\x01r"), ERR_OK},
        {SLICE("\x12\x01r\x0d"
               "1234"
               "\x09"
               "12345678"
               "\x18\x01"),
         ERR_OK},                          /* unknown ones */
        {SLICE("\x12\x02r"), ERR_CORRUPT}, /* cut off */
        {SLICE("\x12"), ERR_CORRUPT},
        {SLICE("\x10\x01"), ERR_CORRUPT},  /* of another type */
        {SLICE("\x02\x01r"), ERR_CORRUPT}, /* number 0 */
        {SLICE("\x13"), ERR_CORRUPT},      /* a group */
        {SLICE("\x0d"
               "123"),
         ERR_CORRUPT},
        {SLICE("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01r"), ERR_CORRUPT},
        {SLICE("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), ERR_CORRUPT}, /* over 64 bits */
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct slice row = SLICE_EMPTY;
        enum err_code code = ots_got_read(table[i].bytes, &row);
        if (code != table[i].code)
            fail_msg("%zu: %s", i, err_name(code));
        if (code == ERR_OK)
            assert_true(slice_is(row, i > 0 ? "r" : ""));
    }
}

static void a_condition_on_a_column(void **state)
{
    (void)state;
    struct ots_condition condition = {OTS_IGNORE, "o", 7};
    struct buf body;
    buf_init(&body, SIZE_MAX);
    ots_write_body(&body, "t", SLICE("row"), &condition);
    static const char expected[] =
        "\x0a\x01t\x12\x03row\x1a\x1c\x08\x00\x12\x18\x08\x01\x12\x14"
        "\x08\x06\x12\x01o\x1a\x09\x00\x07\x00\x00\x00\x00\x00\x00\x00\x20\x00\x28\x01";
    assert_true(slice_eq(buf_slice(&body), SLICE(expected)));
    buf_done(&body);
}

/* --- documents ------------------------------------------------------------------------------- */

static void keys_and_rows_are_one_to_one(void **state)
{
    (void)state;
    static const char *const table[][2] = {
        {"a", "a"},
        {"a~task", "~a"},
        {"a~task.1", "a~task.1"},
        {"a~run.1", "a~run.1"},
        {"A-b_c.d", "A-b_c.d"},
        {"a.~task", "~a."},
    };
    char key[STORE_KEY_MAX + 1];
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct ots_name name = ots_name_of_key(table[i][0]);
        assert_string_equal(name.text, table[i][1]);
        assert_int_equal(ots_key_of_name(slice_of(name.text), key), name.text[0] == '~');
        if (name.text[0] == '~') {
            assert_string_equal(key, table[i][0]);
            assert_true(strcmp(OTS_LIST_FROM, name.text) <= 0);
        }
        assert_int_equal(strcmp(OTS_LIST_FROM, name.text) <= 0, name.text[0] == '~');
        assert_true(strcmp(name.text, OTS_LIST_BEFORE) < 0);
        assert_true(ots_name_of_part(table[i][0], "0123456789abcdef", 15).text[0] == '-');
    }
    static const char *const foreign[] = {"", "~", "~.a", "~a b", "~a~task", "~a.tmp", "a", "~-a"};
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++)
        assert_false(ots_key_of_name(slice_of(foreign[i]), key));
    char longest[STORE_KEY_MAX + 1];
    memset(longest, 'k', STORE_KEY_MAX);
    longest[STORE_KEY_MAX] = '\0';
    assert_false(ots_key_of_name(slice_of(longest), key));
    longest[0] = '~';
    assert_false(ots_key_of_name(slice_of(longest), key));
}

static enum err_code read_doc(const struct ots_row *row, struct ots_doc *ret)
{
    struct buf bytes, body;
    buf_init(&bytes, SIZE_MAX);
    buf_init(&body, SIZE_MAX);
    ots_row_write(&bytes, row);
    ots_field_bytes(&body, 2, buf_slice(&bytes));
    enum err_code code = ots_doc_read(buf_slice(&body), "k", ret);
    buf_done(&bytes);
    buf_done(&body);
    return code;
}

/* A row that somebody else wrote. */
static void what_is_no_document_is_corrupt(void **state)
{
    (void)state;
#define KEY .key = {.name = SLICE("k"), .type = OTS_STRING, .bytes = SLICE("k") }
#define O(n)                                                                                       \
    {                                                                                              \
        .name = SLICE("o"), .type = OTS_INTEGER, .integer = (n)                                    \
    }
#define N(n)                                                                                       \
    {                                                                                              \
        .name = SLICE("n"), .type = OTS_INTEGER, .integer = (n)                                    \
    }
#define P(text)                                                                                    \
    {                                                                                              \
        .name = SLICE("p"), .type = OTS_STRING, .bytes = SLICE(text)                               \
    }
    const struct {
        struct ots_row row;
        enum err_code code;
    } table[] = {
        {{KEY, .columns = {O(1), {.name = SLICE("v"), .type = OTS_BLOB, .bytes = SLICE("x")}},
          .count = 2},
         ERR_OK},
        {{KEY, .columns = {O(1), {.name = SLICE("v"), .type = OTS_STRING, .bytes = SLICE("x")}},
          .count = 2},
         ERR_CORRUPT},
        {{KEY, .columns = {O(1), {.name = SLICE("v"), .type = OTS_BLOB, .bytes = SLICE("")}},
          .count = 2},
         ERR_CORRUPT},
        {{KEY, .columns = {O(-1), {.name = SLICE("v"), .type = OTS_BLOB, .bytes = SLICE("x")}},
          .count = 2},
         ERR_CORRUPT},
        {{KEY, .columns = {{.name = SLICE("v"), .type = OTS_BLOB, .bytes = SLICE("x")}},
          .count = 1},
         ERR_CORRUPT},
        {{KEY, .columns = {O(1)}, .count = 1}, ERR_NOT_FOUND},
        {{KEY, .columns = {O(1), P("0123456789abcdef"), N(5)}, .count = 3}, ERR_OK},
        {{KEY, .columns = {O(1), P("0123456789abcdef"), N(0)}, .count = 3}, ERR_CORRUPT},
        {{KEY, .columns = {O(1), P("0123456789abcdef"), N(STORE_VALUE_MAX + 1)}, .count = 3},
         ERR_CORRUPT},
        {{KEY, .columns = {O(1), P("0123456789abcdef")}, .count = 2}, ERR_CORRUPT},
        {{KEY, .columns = {O(1), P("0123456789abcde"), N(5)}, .count = 3}, ERR_CORRUPT},
        {{.key = {.name = SLICE("k"), .type = OTS_STRING, .bytes = SLICE("other")},
          .columns = {O(1), {.name = SLICE("v"), .type = OTS_BLOB, .bytes = SLICE("x")}},
          .count = 2},
         ERR_CORRUPT},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct ots_doc doc;
        enum err_code code = read_doc(&table[i].row, &doc);
        if (code != table[i].code)
            fail_msg("%zu: %s", i, err_name(code));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_the_vendors_byte_for_byte),
        cmocka_unit_test(credentials_that_no_header_can_have_are_refused),
        cmocka_unit_test(answers_get_the_vendors_verdict),
        cmocka_unit_test(over_plain_http_an_answer_must_be_signed_and_timely),
        cmocka_unit_test(an_answer_past_midnight_has_the_key_of_the_request),
        cmocka_unit_test(what_a_refusal_repeats_is_not_shown),
        cmocka_unit_test(an_error_needs_no_checksum),
        cmocka_unit_test(checksums_are_the_published_ones),
        cmocka_unit_test(damaged_rows_are_seen),
        cmocka_unit_test(messages_are_read_strictly),
        cmocka_unit_test(a_condition_on_a_column),
        cmocka_unit_test(keys_and_rows_are_one_to_one),
        cmocka_unit_test(what_is_no_document_is_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
