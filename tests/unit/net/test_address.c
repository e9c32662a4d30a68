/* Every row of the tables from both sides of its border, every spelling of an IPv4 address that
 * somebody understands, and the list with its mistakes. */
#include "address.h"
#include "unit.h"

#include <netinet/in.h>
#include <stdio.h>

struct row {
    const char *text;
    enum address_class class;
};

static const struct row v4_rows[] = {
    {"0.0.0.0", ADDRESS_UNSPECIFIED},
    {"0.255.255.255", ADDRESS_UNSPECIFIED},
    {"1.0.0.0", ADDRESS_PUBLIC},
    {"8.8.8.8", ADDRESS_PUBLIC},
    {"9.255.255.255", ADDRESS_PUBLIC},
    {"10.0.0.0", ADDRESS_PRIVATE},
    {"10.255.255.255", ADDRESS_PRIVATE},
    {"11.0.0.0", ADDRESS_PUBLIC},
    {"100.63.255.255", ADDRESS_PUBLIC},
    {"100.64.0.0", ADDRESS_SHARED},
    {"100.100.100.199", ADDRESS_SHARED},
    {"100.100.100.200", ADDRESS_METADATA},
    {"100.127.255.255", ADDRESS_SHARED},
    {"100.128.0.0", ADDRESS_PUBLIC},
    {"126.255.255.255", ADDRESS_PUBLIC},
    {"127.0.0.0", ADDRESS_LOOPBACK},
    {"127.0.0.1", ADDRESS_LOOPBACK},
    {"127.255.255.255", ADDRESS_LOOPBACK},
    {"128.0.0.0", ADDRESS_PUBLIC},
    {"168.63.129.16", ADDRESS_METADATA},
    {"168.63.129.17", ADDRESS_PUBLIC},
    {"169.253.255.255", ADDRESS_PUBLIC},
    {"169.254.0.0", ADDRESS_LINK_LOCAL},
    {"169.254.169.253", ADDRESS_LINK_LOCAL},
    {"169.254.169.254", ADDRESS_METADATA},
    {"169.254.170.2", ADDRESS_METADATA},
    {"169.254.170.23", ADDRESS_METADATA},
    {"169.254.255.255", ADDRESS_LINK_LOCAL},
    {"169.255.0.0", ADDRESS_PUBLIC},
    {"172.15.255.255", ADDRESS_PUBLIC},
    {"172.16.0.0", ADDRESS_PRIVATE},
    {"172.31.255.255", ADDRESS_PRIVATE},
    {"172.32.0.0", ADDRESS_PUBLIC},
    {"192.0.0.0", ADDRESS_RESERVED},
    {"192.0.0.192", ADDRESS_METADATA},
    {"192.0.0.255", ADDRESS_RESERVED},
    {"192.0.1.0", ADDRESS_PUBLIC},
    {"192.0.2.0", ADDRESS_DOCUMENTATION},
    {"192.0.2.255", ADDRESS_DOCUMENTATION},
    {"192.0.3.0", ADDRESS_PUBLIC},
    {"192.88.98.255", ADDRESS_PUBLIC},
    {"192.88.99.1", ADDRESS_RESERVED},
    {"192.88.100.0", ADDRESS_PUBLIC},
    {"192.167.255.255", ADDRESS_PUBLIC},
    {"192.168.0.0", ADDRESS_PRIVATE},
    {"192.168.255.255", ADDRESS_PRIVATE},
    {"192.169.0.0", ADDRESS_PUBLIC},
    {"198.17.255.255", ADDRESS_PUBLIC},
    {"198.18.0.0", ADDRESS_RESERVED},
    {"198.19.255.255", ADDRESS_RESERVED},
    {"198.20.0.0", ADDRESS_PUBLIC},
    {"198.51.100.7", ADDRESS_DOCUMENTATION},
    {"203.0.113.7", ADDRESS_DOCUMENTATION},
    {"223.255.255.255", ADDRESS_PUBLIC},
    {"224.0.0.0", ADDRESS_MULTICAST},
    {"239.255.255.255", ADDRESS_MULTICAST},
    {"240.0.0.0", ADDRESS_RESERVED},
    {"255.255.255.255", ADDRESS_RESERVED},
};

static const struct row v6_rows[] = {
    {"::", ADDRESS_UNSPECIFIED},
    {"::1", ADDRESS_LOOPBACK},
    {"0:0:0:0:0:0:0:1", ADDRESS_LOOPBACK},
    {"::2", ADDRESS_TUNNELLED},
    /* mapped: IPv4 in all respects */
    {"::ffff:127.0.0.1", ADDRESS_LOOPBACK},
    {"::ffff:7f00:1", ADDRESS_LOOPBACK},
    {"0:0:0:0:0:FFFF:7F00:0001", ADDRESS_LOOPBACK},
    {"::ffff:0.0.0.0", ADDRESS_UNSPECIFIED},
    {"::ffff:10.1.2.3", ADDRESS_PRIVATE},
    {"::ffff:a9fe:a9fe", ADDRESS_METADATA},
    {"::ffff:100.100.100.200", ADDRESS_METADATA},
    {"::ffff:8.8.8.8", ADDRESS_PUBLIC},
    /* compatible, translated */
    {"::127.0.0.1", ADDRESS_TUNNELLED},
    {"::8.8.8.8", ADDRESS_TUNNELLED},
    {"::169.254.169.254", ADDRESS_METADATA},
    {"::ffff:0:127.0.0.1", ADDRESS_TUNNELLED},
    {"::ffff:0:169.254.169.254", ADDRESS_METADATA},
    /* NAT64 */
    {"64:ff9b::8.8.8.8", ADDRESS_PUBLIC},
    {"64:ff9b::127.0.0.1", ADDRESS_LOOPBACK},
    {"64:ff9b::10.0.0.1", ADDRESS_PRIVATE},
    {"64:ff9b::169.254.169.254", ADDRESS_METADATA},
    {"64:ff9b::100.100.100.200", ADDRESS_METADATA},
    {"64:ff9b:0:1::8.8.8.8", ADDRESS_RESERVED},
    {"64:ff9b:1::8.8.8.8", ADDRESS_TUNNELLED},
    {"64:ff9b:1::169.254.169.254", ADDRESS_METADATA},
    {"64:ff9b:1:a9fe:a9:fe00::", ADDRESS_METADATA},
    {"64:ff9b:1:a9:fe:a9fe::", ADDRESS_METADATA},
    {"64:ff9b:1:0:a9:fea9:fe00:0", ADDRESS_METADATA},
    /* Teredo: server and client; 6to4 */
    {"2001:0:808:808::1", ADDRESS_TUNNELLED},
    {"2001:0:a9fe:a9fe::1", ADDRESS_METADATA},
    {"2001:0:808:808::5601:5601", ADDRESS_METADATA},
    {"2002:7f00:1::", ADDRESS_TUNNELLED},
    {"2002:808:808::1", ADDRESS_TUNNELLED},
    {"2002:a9fe:a9fe::1", ADDRESS_METADATA},
    /* the rest */
    {"100::1", ADDRESS_RESERVED},
    {"1fff:ffff::", ADDRESS_RESERVED},
    {"2000::", ADDRESS_PUBLIC},
    {"2001:2::1", ADDRESS_RESERVED},
    {"2001:20::1", ADDRESS_RESERVED},
    {"2001:1ff:ffff::", ADDRESS_RESERVED},
    {"2001:200::", ADDRESS_PUBLIC},
    {"2001:4860:4860::8888", ADDRESS_PUBLIC},
    {"2001:db7:ffff::", ADDRESS_PUBLIC},
    {"2001:db8::1", ADDRESS_DOCUMENTATION},
    {"2001:db9::", ADDRESS_PUBLIC},
    {"2003::", ADDRESS_PUBLIC},
    {"2408:4005:100::1", ADDRESS_PUBLIC},
    {"3ffe::", ADDRESS_PUBLIC},
    {"3fff::1", ADDRESS_DOCUMENTATION},
    {"3fff:fff::1", ADDRESS_DOCUMENTATION},
    {"3fff:1000::", ADDRESS_PUBLIC},
    {"4000::", ADDRESS_RESERVED},
    {"5f00::1", ADDRESS_RESERVED},
    {"fbff::", ADDRESS_RESERVED},
    {"fc00::", ADDRESS_PRIVATE},
    {"fd00:ec2::253", ADDRESS_PRIVATE},
    {"fd00:ec2::254", ADDRESS_METADATA},
    {"fd00:ec2::23", ADDRESS_METADATA},
    {"fd20:ce::254", ADDRESS_METADATA},
    {"fdff::", ADDRESS_PRIVATE},
    {"fe00::", ADDRESS_RESERVED},
    {"fe80::1", ADDRESS_LINK_LOCAL},
    {"fe80::a9fe:a9fe", ADDRESS_METADATA},
    {"febf::", ADDRESS_LINK_LOCAL},
    {"fec0::1", ADDRESS_PRIVATE},
    {"ff00::", ADDRESS_MULTICAST},
    {"ff02::1", ADDRESS_MULTICAST},
    {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ADDRESS_MULTICAST},
};

static struct address parsed(const char *text)
{
    struct address a;
    if (!address_parse(slice_of(text), &a))
        fail_msg("%s: not parsed", text);
    return a;
}

static void check_rows(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct address a = parsed(rows[i].text);
        enum address_class class = address_classify(&a);
        if (class != rows[i].class)
            fail_msg("%s: %s instead of %s", rows[i].text, address_class_name(class),
                     address_class_name(rows[i].class));
        assert_true(address_may_connect(NULL, false, &a) == (class == ADDRESS_PUBLIC));
    }
}

static void test_classes(void **state)
{
    (void)state;
    check_rows(v4_rows, ARRAY_LEN(v4_rows));
    check_rows(v6_rows, ARRAY_LEN(v6_rows));
}

static void test_unusual_spellings_are_no_addresses(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "127.1",
        "127.0.1",
        "0",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.01",
        "127.0.0.001",
        "00.0.0.0",
        "127.0.0.1.",
        ".127.0.0.1",
        "127..0.1",
        "127.0.0.256",
        "1.2.3.4.5",
        "127.0.0.1 ",
        " 127.0.0.1",
        "127.0.0.1/8",
        "+127.0.0.1",
        "127.0.0.1x",
        "127。0。0。1",
        "[::1]",
        "::1%lo",
        "fe80::1%eth0",
        ":::1",
        "::1::",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "::ffff:127.1",
        "::ffff:0177.0.0.1",
        "::fffff",
        "localhost",
        "0000000000000000000000000000000000000000000000::1",
    };
    struct address a;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (address_parse(slice_of(texts[i]), &a))
            fail_msg("%s: parsed", texts[i]);
    assert_false(address_parse((struct slice){"127.0.0.1\0", 10}, &a));
}

static void test_names(void **state)
{
    (void)state;
    static const char *const names[] = {
        "localhost",    "example.com", "A.b-c.D_e", "1.example",       "1.2.3.4.com", "xn--fsq.cn",
        "0x7f.0x1.0xg", "-a.b",        "a.1b",      "oss-cn.internal", "deadbeef"};
    static const char *const numeric[] = {"127.1",     "2130706433", "0x7f.1", "a.0x1f",
                                          "1.2.3.4.5", "0177.0.0.1", "a.b.9",  "127.0.0.1.",
                                          "08",        "a.0x",       "0xA",    "256.256.256.256"};
    static const char *const neither[] = {"",    ".",    "a.",  ".a",   "a..b",         "a b",
                                          "a%b", "a/b",  "a@b", "é",    "a\tb",         "[::1]",
                                          "::1", "a:80", "a,b", "a\\b", "127。0。0。1", "a#b"};
    char longest[260];
    memset(longest, 'a', sizeof(longest));
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (!address_is_name(slice_of(names[i])))
            fail_msg("%s: no name", names[i]);
    for (size_t i = 0; i < ARRAY_LEN(numeric); i++)
        if (address_is_name(slice_of(numeric[i])) || !address_looks_numeric(slice_of(numeric[i])))
            fail_msg("%s: not taken for a number", numeric[i]);
    for (size_t i = 0; i < ARRAY_LEN(neither); i++)
        if (address_is_name(slice_of(neither[i])))
            fail_msg("%s: a name", neither[i]);
    assert_true(address_is_name((struct slice){longest, 63}));
    assert_false(address_is_name((struct slice){longest, 64}));
    for (size_t i = 63; i < sizeof(longest); i += 64)
        longest[i] = '.';
    assert_true(address_is_name((struct slice){longest, 253}));
    assert_false(address_is_name((struct slice){longest, 254}));
    assert_false(address_is_name((struct slice){"a\0b", 3}));
}

static void test_text(void **state)
{
    (void)state;
    char text[ADDRESS_TEXT_MAX + 1];
    struct address a = parsed("0:0:0:0:0:ffff:0a00:0001");
    assert_false(a.is_v6);
    address_format(&a, text);
    assert_string_equal(text, "10.0.0.1");
    a = parsed("2001:DB8:0:0::1");
    address_format(&a, text);
    assert_string_equal(text, "2001:db8::1");
    a = parsed("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    address_format(&a, text);
    assert_int_equal(strlen(text), 39);
}

static void test_sockaddr(void **state)
{
    (void)state;
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    struct sockaddr other = {.sa_family = AF_UNIX};
    struct address a, b = parsed("10.1.2.3");
    memcpy(&in.sin_addr, b.bytes, 4);
    assert_true(address_from_sockaddr((const struct sockaddr *)&in, &a));
    assert_true(address_equal(&a, &b));
    memcpy(&in6.sin6_addr, (const unsigned char[16]){[10] = 0xff, 0xff, 10, 1, 2, 3}, 16);
    assert_true(address_from_sockaddr((const struct sockaddr *)&in6, &a));
    assert_true(address_equal(&a, &b));
    b = parsed("2001:db8::1");
    memcpy(&in6.sin6_addr, b.bytes, 16);
    assert_true(address_from_sockaddr((const struct sockaddr *)&in6, &a));
    assert_true(address_equal(&a, &b));
    assert_false(address_from_sockaddr(&other, &a));
}

/* --- the list -------------------------------------------------------------------------------- */

static bool may(const char *list_text, const char *address_text)
{
    struct address_allow list;
    struct err err;
    struct address a = parsed(address_text);
    if (address_allow_parse(slice_of(list_text), &list, &err) != ERR_OK)
        fail_msg("%s: %s", list_text, err.msg);
    bool ret = address_may_connect(&list, false, &a);
    address_allow_done(&list);
    return ret;
}

static void test_allowed_networks(void **state)
{
    (void)state;
    assert_false(may("", "10.0.0.1"));
    assert_true(may("", "8.8.8.8"));
    assert_true(may("10.0.0.7", "10.0.0.7"));
    assert_true(may("10.0.0.7", "::ffff:10.0.0.7"));
    assert_true(may("::ffff:10.0.0.7", "10.0.0.7"));
    assert_false(may("10.0.0.7", "10.0.0.6"));
    assert_true(may("10.0.0.0/8", "10.255.255.255"));
    assert_false(may("10.16.0.0/12", "10.32.0.0"));
    assert_true(may("10.16.0.0/12", "10.31.255.255"));
    assert_true(may("10.0.0.6/31", "10.0.0.7"));
    assert_false(may("10.0.0.6/32", "10.0.0.7"));
    assert_true(may("0.0.0.0/0", "127.0.0.1"));
    assert_false(may("0.0.0.0/0", "::1"));
    assert_true(may("::/0", "::1"));
    assert_false(may("::/0", "127.0.0.1"));
    assert_true(may("fd00::/8", "fd12::1"));
    assert_false(may("fd00::/8", "fc00::1"));
    assert_true(may(" 192.168.1.0/24 ,, 127.0.0.0/8\tfd00::1\n", "fd00::1"));
    assert_false(may("127.0.0.0/8", "::127.0.0.1"));
}

static void test_metadata_stays_closed(void **state)
{
    (void)state;
    static const char *const everything =
        "0.0.0.0/0 ::/0 169.254.169.254 100.100.100.200/32 fd00:ec2::254 64:ff9b::/96 2002::/16";
    struct address_allow list;
    assert_int_equal(address_allow_parse(slice_of(everything), &list, NULL), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(v4_rows) + ARRAY_LEN(v6_rows); i++) {
        const struct row *row =
            i < ARRAY_LEN(v4_rows) ? &v4_rows[i] : &v6_rows[i - ARRAY_LEN(v4_rows)];
        struct address a = parsed(row->text);
        bool open = row->class != ADDRESS_METADATA;
        if (address_may_connect(&list, false, &a) != open ||
            address_may_connect(NULL, true, &a) != open)
            fail_msg("%s: open is not %d", row->text, open);
    }
    address_allow_done(&list);
}

static void test_allowed_names(void **state)
{
    (void)state;
    struct address_allow list;
    assert_int_equal(
        address_allow_parse(slice_of("Intra.example .oss.example, 10.0.0.0/8"), &list, NULL),
        ERR_OK);
    assert_true(address_allow_has_name(&list, slice_of("intra.EXAMPLE")));
    assert_false(address_allow_has_name(&list, slice_of("a.intra.example")));
    assert_false(address_allow_has_name(&list, slice_of("xintra.example")));
    assert_false(address_allow_has_name(&list, slice_of("intra.example.com")));
    assert_true(address_allow_has_name(&list, slice_of("a.oss.example")));
    assert_true(address_allow_has_name(&list, slice_of("a.b.oss.example")));
    assert_false(address_allow_has_name(&list, slice_of("oss.example")));
    assert_false(address_allow_has_name(&list, slice_of(".oss.example")));
    assert_false(address_allow_has_name(&list, slice_of("aoss.example")));
    assert_false(address_allow_has_name(&list, slice_of("10.0.0.1")));
    assert_false(address_allow_has_name(&list, slice_of("")));
    assert_false(address_allow_has_name(NULL, slice_of("intra.example")));
    address_allow_done(&list);
    address_allow_done(&list); /* once more is fine */
}

static void test_bad_lists(void **state)
{
    (void)state;
    static const char *const texts[] = {"10.0.0.0/33",
                                        "10.0.0.0/-1",
                                        "10.0.0.0/",
                                        "10.0.0.0/8/8",
                                        "10.0.0.1/8",
                                        "fd00::/129",
                                        "fd00::1/8",
                                        "0x7f.1",
                                        "127.1",
                                        "a b/8",
                                        "example.com.",
                                        "*.a.example",
                                        "http://a.example",
                                        "[::1]",
                                        "a.example:80",
                                        "..a.example",
                                        ".",
                                        "10.0.0.0/8;a",
                                        "::ffff:10.0.0.0/104",
                                        "10.0.0.0 /8",
                                        "fe80::1%eth0",
                                        "user@a",
                                        ".10.0.0.1",
                                        "ok.example, 10.0.0.0/",
                                        "é"};
    struct address_allow list = {.name_count = 77};
    struct err err;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        err.code = ERR_OK;
        if (address_allow_parse(slice_of(texts[i]), &list, &err) != ERR_INVALID ||
            err.code != ERR_INVALID)
            fail_msg("%s: taken", texts[i]);
    }
    assert_int_equal(list.name_count, 77); /* written on success only */
    assert_int_equal(address_allow_parse((struct slice){"a\0b", 3}, &list, &err), ERR_INVALID);
    char text[4 * (ADDRESS_ALLOW_MAX + 1)];
    memset(text, 'a', sizeof(text));
    assert_int_equal(address_allow_parse((struct slice){text, 300}, &list, &err), ERR_INVALID);
    for (size_t i = 3; i < sizeof(text); i += 4)
        text[i] = ',';
    assert_int_equal(address_allow_parse((struct slice){text, sizeof(text)}, &list, &err),
                     ERR_TOO_LARGE);
    assert_int_equal(address_allow_parse((struct slice){text, sizeof(text) - 4}, &list, &err),
                     ERR_OK);
    assert_int_equal(list.name_count, ADDRESS_ALLOW_MAX);
    address_allow_done(&list);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_unusual_spellings_are_no_addresses),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_sockaddr),
        cmocka_unit_test(test_allowed_networks),
        cmocka_unit_test(test_metadata_stays_closed),
        cmocka_unit_test(test_allowed_names),
        cmocka_unit_test(test_bad_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
