/* Two tables decide: the networks with their classes, the first that fits counts, and the ways in
 * which IPv6 carries IPv4. The networks are those of IANA's special-purpose registries; what lies
 * outside the range that is given out to the world (2000::/3) is never public. */
#include "address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

/* --- what is what ---------------------------------------------------------------------------- */

struct network_class {
    struct address base;
    unsigned bits;
    enum address_class class;
};

/* Single addresses that answer with credentials or with what leads to them. 168.63.129.16 is a
 * public one that means something else inside Azure. */
static const struct address metadata[] = {
    {false, {169, 254, 169, 254}},                              /* nearly everybody */
    {false, {169, 254, 170, 2}},                                /* AWS, containers */
    {false, {169, 254, 170, 23}},                               /* AWS, EKS */
    {false, {100, 100, 100, 200}},                              /* Alibaba Cloud */
    {false, {168, 63, 129, 16}},                                /* Azure */
    {false, {192, 0, 0, 192}},                                  /* Oracle, older */
    {true, {0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, [15] = 0x54}}, /* AWS */
    {true, {0xfd, 0x00, 0x0e, 0xc2, [14] = 0x00, [15] = 0x23}}, /* AWS, EKS */
    {true, {0xfd, 0x20, 0x00, 0xce, [14] = 0x02, [15] = 0x54}}, /* Google */
    {true, {0xfe, 0x80, [12] = 0xa9, 0xfe, 0xa9, 0xfe}},        /* OpenStack */
};

static const struct network_class classes[] = {
    {{false, {0}}, 8, ADDRESS_UNSPECIFIED},
    {{false, {10}}, 8, ADDRESS_PRIVATE},
    {{false, {100, 64}}, 10, ADDRESS_SHARED},
    {{false, {127}}, 8, ADDRESS_LOOPBACK},
    {{false, {169, 254}}, 16, ADDRESS_LINK_LOCAL},
    {{false, {172, 16}}, 12, ADDRESS_PRIVATE},
    {{false, {192, 0, 0}}, 24, ADDRESS_RESERVED},
    {{false, {192, 0, 2}}, 24, ADDRESS_DOCUMENTATION},
    {{false, {192, 88, 99}}, 24, ADDRESS_RESERVED}, /* relays of 6to4 */
    {{false, {192, 168}}, 16, ADDRESS_PRIVATE},
    {{false, {198, 18}}, 15, ADDRESS_RESERVED}, /* benchmarks */
    {{false, {198, 51, 100}}, 24, ADDRESS_DOCUMENTATION},
    {{false, {203, 0, 113}}, 24, ADDRESS_DOCUMENTATION},
    {{false, {224}}, 4, ADDRESS_MULTICAST},
    {{false, {240}}, 4, ADDRESS_RESERVED}, /* and broadcast */
    {{false, {0}}, 0, ADDRESS_PUBLIC},

    {{true, {0}}, 128, ADDRESS_UNSPECIFIED},
    {{true, {[15] = 1}}, 128, ADDRESS_LOOPBACK},
    {{true, {0}}, 96, ADDRESS_TUNNELLED},                      /* compatible */
    {{true, {[8] = 0xff, [9] = 0xff}}, 96, ADDRESS_TUNNELLED}, /* translated (SIIT) */
    {{true, {0x00, 0x64, 0xff, 0x9b}}, 96, ADDRESS_TUNNELLED}, /* NAT64: see address_classify() */
    {{true, {0x00, 0x64, 0xff, 0x9b, 0, 1}}, 48, ADDRESS_TUNNELLED}, /* NAT64, local use */
    {{true, {0x20, 0x01}}, 32, ADDRESS_TUNNELLED},                   /* Teredo */
    {{true, {0x20, 0x01}}, 23, ADDRESS_RESERVED}, /* protocol assignments, benchmarks */
    {{true, {0x20, 0x01, 0x0d, 0xb8}}, 32, ADDRESS_DOCUMENTATION},
    {{true, {0x20, 0x02}}, 16, ADDRESS_TUNNELLED}, /* 6to4 */
    {{true, {0x3f, 0xff}}, 20, ADDRESS_DOCUMENTATION},
    {{true, {0x20}}, 3, ADDRESS_PUBLIC},
    {{true, {0xfc}}, 7, ADDRESS_PRIVATE},
    {{true, {0xfe, 0x80}}, 10, ADDRESS_LINK_LOCAL},
    {{true, {0xfe, 0xc0}}, 10, ADDRESS_PRIVATE},
    {{true, {0xff}}, 8, ADDRESS_MULTICAST},
    {{true, {0}}, 0, ADDRESS_RESERVED},
};

/* Where the IPv4 address lies; a prefix that allows several places has several rows. */
struct embedding {
    struct address base;
    unsigned char bits;
    unsigned char at[4];
    unsigned char flipped; /* its bits are stored inverted: 0xff */
};
static const struct embedding embeddings[] = {
    {{true, {0}}, 96, {12, 13, 14, 15}, 0},
    {{true, {[8] = 0xff, [9] = 0xff}}, 96, {12, 13, 14, 15}, 0},
    {{true, {0x00, 0x64, 0xff, 0x9b}}, 96, {12, 13, 14, 15}, 0},
    {{true, {0x00, 0x64, 0xff, 0x9b, 0, 1}}, 48, {6, 7, 9, 10}, 0}, /* the places of RFC 6052 */
    {{true, {0x00, 0x64, 0xff, 0x9b, 0, 1}}, 48, {7, 9, 10, 11}, 0},
    {{true, {0x00, 0x64, 0xff, 0x9b, 0, 1}}, 48, {9, 10, 11, 12}, 0},
    {{true, {0x00, 0x64, 0xff, 0x9b, 0, 1}}, 48, {12, 13, 14, 15}, 0},
    {{true, {0x20, 0x01}}, 32, {4, 5, 6, 7}, 0},        /* Teredo: its server … */
    {{true, {0x20, 0x01}}, 32, {12, 13, 14, 15}, 0xff}, /* … and its client */
    {{true, {0x20, 0x02}}, 16, {2, 3, 4, 5}, 0},
};
static const struct address_network nat64 = {{true, {0x00, 0x64, 0xff, 0x9b}}, 96};

static bool address_in(const struct address *a, const struct address *base, unsigned bits)
{
    unsigned whole = bits / 8;
    unsigned mask = 0xff00u >> (bits % 8) & 0xffu;
    return a->is_v6 == base->is_v6 && memcmp(a->bytes, base->bytes, whole) == 0 &&
           (mask == 0 || ((a->bytes[whole] ^ base->bytes[whole]) & mask) == 0);
}

bool address_equal(const struct address *a, const struct address *b)
{
    return address_in(a, b, a->is_v6 ? 128 : 32);
}

static bool is_metadata(const struct address *a)
{
    for (size_t i = 0; i < ARRAY_LEN(metadata); i++)
        if (address_equal(a, &metadata[i]))
            return true;
    return false;
}

static struct address address_inside(const struct address *a, const struct embedding *e)
{
    struct address inner = {.is_v6 = false};
    for (unsigned i = 0; i < 4; i++)
        inner.bytes[i] = a->bytes[e->at[i]] ^ e->flipped;
    return inner;
}

enum address_class address_classify(const struct address *a)
{
    if (is_metadata(a))
        return ADDRESS_METADATA;
    for (size_t i = 0; i < ARRAY_LEN(embeddings); i++) {
        const struct embedding *e = &embeddings[i];
        if (!address_in(a, &e->base, e->bits))
            continue;
        struct address inner = address_inside(a, e);
        if (is_metadata(&inner))
            return ADDRESS_METADATA;
        if (address_in(a, &nat64.base, nat64.bits))
            return address_classify(&inner);
    }
    size_t i = 0;
    while (!address_in(a, &classes[i].base, classes[i].bits))
        i++; /* the last row of each family takes everything */
    return classes[i].class;
}

const char *address_class_name(enum address_class class)
{
    static const char *const names[] = {
#define X(class, word) [class] = word,
        ADDRESS_CLASSES(X)
#undef X
    };
    ASSERT((size_t) class < ARRAY_LEN(names));
    return names[class];
}

/* --- reading and writing --------------------------------------------------------------------- */

static void address_unmap(struct address *a)
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (!a->is_v6 || memcmp(a->bytes, mapped, sizeof(mapped)) != 0)
        return;
    struct address v4 = {.is_v6 = false};
    memcpy(v4.bytes, a->bytes + 12, 4);
    *a = v4;
}

bool address_parse(struct slice text, struct address *ret)
{
    char copy[ADDRESS_TEXT_MAX + 1];
    struct address a = {.is_v6 = false};
    if (text.len == 0 || text.len >= sizeof(copy) || memchr(text.ptr, '\0', text.len) != NULL)
        return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    a.is_v6 = memchr(copy, ':', text.len) != NULL;
    if (inet_pton(a.is_v6 ? AF_INET6 : AF_INET, copy, a.bytes) != 1)
        return false;
    address_unmap(&a);
    *ret = a;
    return true;
}

void address_format(const struct address *a, char ret[ADDRESS_TEXT_MAX + 1])
{
    ASSERT(inet_ntop(a->is_v6 ? AF_INET6 : AF_INET, a->bytes, ret, ADDRESS_TEXT_MAX + 1) != NULL);
}

bool address_from_sockaddr(const struct sockaddr *from, struct address *ret)
{
    struct address a = {.is_v6 = from->sa_family == AF_INET6};
    if (from->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, from, sizeof(in));
        memcpy(a.bytes, &in.sin_addr, 4);
    } else if (from->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, from, sizeof(in6));
        memcpy(a.bytes, &in6.sin6_addr, 16);
    } else {
        return false;
    }
    address_unmap(&a);
    *ret = a;
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_label_char(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

/* The URL standard's rule: a number at the end, decimal, octal or hexadecimal, makes it an IPv4
 * address or an error. */
bool address_looks_numeric(struct slice host)
{
    if (host.len > 0 && host.ptr[host.len - 1] == '.')
        host.len--;
    const char *dot = memrchr(host.ptr, '.', host.len);
    size_t from = dot != NULL ? (size_t)(dot - host.ptr) + 1 : 0;
    struct slice last = {host.ptr + from, host.len - from};
    size_t i = 0;
    if (last.len >= 2 && last.ptr[0] == '0' && (last.ptr[1] | 0x20) == 'x') {
        for (i = 2; i < last.len && is_hex(last.ptr[i]);)
            i++;
        return i == last.len;
    }
    while (i < last.len && is_digit(last.ptr[i]))
        i++;
    return i > 0 && i == last.len;
}

bool address_is_name(struct slice host)
{
    size_t label = 0;
    if (host.len == 0 || host.len > ADDRESS_NAME_MAX || address_looks_numeric(host))
        return false;
    for (size_t i = 0; i < host.len; i++) {
        char c = host.ptr[i];
        if (c == '.' ? label == 0 : !is_label_char(c) || label >= 63)
            return false;
        label = c == '.' ? 0 : label + 1;
    }
    return label > 0;
}

/* --- the list -------------------------------------------------------------------------------- */

static enum err_code network_parse(struct slice entry, struct address_network *ret, struct err *err)
{
    const char *slash = memchr(entry.ptr, '/', entry.len);
    struct slice base = {entry.ptr, slash != NULL ? (size_t)(slash - entry.ptr) : entry.len};
    struct slice length = {entry.ptr + base.len + 1, entry.len - base.len - (slash != NULL)};
    struct address_network n;
    if (!address_parse(base, &n.base))
        return err_set(err, ERR_INVALID, "'%.64s': no address", entry.ptr);
    uint64_t bits = n.base.is_v6 ? 128 : 32;
    if (slash != NULL) {
        if (!n.base.is_v6 && memchr(base.ptr, ':', base.len) != NULL)
            return err_set(err, ERR_INVALID, "'%.64s': write this network as IPv4", entry.ptr);
        if (!slice_to_u64(length, bits, &bits))
            return err_set(err, ERR_INVALID, "'%.64s': no network length", entry.ptr);
    }
    n.bits = (unsigned)bits;
    for (unsigned i = n.bits; i < 128; i++)
        if (n.base.bytes[i / 8] & 0x80u >> i % 8)
            return err_set(err, ERR_INVALID, "'%.64s': has bits beyond the network's length",
                           entry.ptr);
    *ret = n;
    return ERR_OK;
}

/* `entry` is NUL-terminated. */
static enum err_code allow_add(struct address_allow *list, struct slice entry, struct err *err)
{
    struct slice name = entry;
    if (list->network_count + list->name_count == ADDRESS_ALLOW_MAX)
        return err_set(err, ERR_TOO_LARGE, "more than %d entries", ADDRESS_ALLOW_MAX);
    if (name.ptr[0] == '.')
        name = (struct slice){name.ptr + 1, name.len - 1};
    if (address_is_name(name)) {
        list->names = xrealloc(list->names, (list->name_count + 1) * sizeof(*list->names));
        list->names[list->name_count++] = xstrdup(entry.ptr);
        return ERR_OK;
    }
    struct address_network network;
    enum err_code code = network_parse(entry, &network, err);
    if (code == ERR_OK) {
        size_t size = (list->network_count + 1) * sizeof(*list->networks);
        list->networks = xrealloc(list->networks, size);
        list->networks[list->network_count++] = network;
    }
    return code;
}

enum err_code address_allow_parse(struct slice text, struct address_allow *ret, struct err *err)
{
    struct address_allow list = {.networks = NULL};
    enum err_code code = ERR_OK;
    char entry[ADDRESS_NAME_MAX + 2]; /* a dot in front, a NUL behind */
    size_t len = 0;
    for (size_t i = 0; i <= text.len && code == ERR_OK; i++) {
        if (i < text.len && strchr(", \t\n", text.ptr[i]) == NULL) {
            if (len == sizeof(entry) - 1)
                code = err_set(err, ERR_INVALID, "'%.32s…': too long", entry);
            else
                entry[len++] = text.ptr[i];
            entry[len] = '\0';
        } else if (i < text.len && text.ptr[i] == '\0') {
            code = err_set(err, ERR_INVALID, "NUL");
        } else if (len > 0) {
            code = allow_add(&list, (struct slice){entry, len}, err);
            len = 0;
        }
    }
    if (code == ERR_OK)
        *ret = list;
    else
        address_allow_done(&list);
    return code;
}

void address_allow_done(struct address_allow *list)
{
    for (unsigned i = 0; i < list->name_count; i++)
        free(list->names[i]);
    free(list->names);
    free(list->networks);
    *list = (struct address_allow){.networks = NULL};
}

bool address_allow_has_name(const struct address_allow *list, struct slice host)
{
    for (unsigned i = 0; list != NULL && i < list->name_count; i++) {
        struct slice name = slice_of(list->names[i]);
        size_t front = host.len > name.len ? host.len - name.len : 0;
        struct slice end = {host.ptr + front, host.len - front};
        if ((front > 0) == (name.ptr[0] == '.') && slice_eq_nocase(end, name))
            return true;
    }
    return false;
}

bool address_may_connect(const struct address_allow *list, bool named, const struct address *a)
{
    enum address_class class = address_classify(a);
    if (class == ADDRESS_METADATA)
        return false;
    if (class == ADDRESS_PUBLIC || named)
        return true;
    for (unsigned i = 0; list != NULL && i < list->network_count; i++)
        if (address_in(a, &list->networks[i].base, list->networks[i].bits))
            return true;
    return false;
}
