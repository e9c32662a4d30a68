/* Internet addresses: reading and writing them, what kind each is, and the list of those that may
 * be reached although they are not public. Pure: nothing is looked up.
 *
 * Requests to addresses that a caller names go to public ones only; otherwise anybody could use us
 * to talk to what lies behind our network's border: our own ports, neighbours, and the metadata
 * service, which gives away the machine's credentials. IPv6 has many ways to spell an IPv4 address.
 * A mapped one (::ffff:1.2.3.4) is the IPv4 address to the kernel, so it is one here from the
 * moment it is read. The other ways (compatible, translated, NAT64, 6to4, Teredo) need a router
 * that undoes them; they are looked through when the metadata addresses are concerned, and only
 * NAT64's well-known prefix, by which IPv6-only networks reach the rest of the world, can be
 * public.
 */
#ifndef ADDRESS_H
#define ADDRESS_H

#include "buf.h"

struct sockaddr;
struct sockaddr_storage;

enum {
    ADDRESS_TEXT_MAX = 45, /* without the NUL */
    ADDRESS_NAME_MAX = 253,
    ADDRESS_ALLOW_MAX = 256, /* entries of a list */
};

struct address {
    bool is_v6;
    unsigned char bytes[16]; /* IPv4: the first four, the others are 0 */
};

/* class, word */
#define ADDRESS_CLASSES(X)                                                                         \
    X(ADDRESS_PUBLIC, "public")                                                                    \
    X(ADDRESS_UNSPECIFIED, "unspecified") /* 0.0.0.0/8, which Linux takes for loopback; :: */      \
    X(ADDRESS_LOOPBACK, "loopback")                                                                \
    X(ADDRESS_PRIVATE, "private") /* RFC 1918, unique local, site-local */                         \
    X(ADDRESS_LINK_LOCAL, "link-local")                                                            \
    X(ADDRESS_SHARED, "shared") /* carrier-grade NAT; clouds' inner services too */                \
    X(ADDRESS_MULTICAST, "multicast")                                                              \
    X(ADDRESS_DOCUMENTATION, "documentation")                                                      \
    X(ADDRESS_TUNNELLED, "tunnelled") /* an IPv4 address inside an IPv6 one */                     \
    X(ADDRESS_RESERVED, "reserved")                                                                \
    X(ADDRESS_METADATA, "metadata") /* of a cloud; no list opens these */

enum address_class {
#define X(class, word) class,
    ADDRESS_CLASSES(X)
#undef X
};

/* The usual spelling only: four decimal numbers without leading zeros, or IPv6 without zone. What
 * inet_aton() takes besides (0x7f.1, 2130706433, 0177.0.0.1) is no address. */
bool address_parse(struct slice text, struct address *ret) MUST_CHECK;
/* Would somebody else read this host as an IPv4 address? Its last label is a number. */
bool address_looks_numeric(struct slice host);
/* A host name: labels of letters, digits, '-' and '_'; no dot at the end; not numeric. */
bool address_is_name(struct slice host);
void address_format(const struct address *a, char ret[ADDRESS_TEXT_MAX + 1]);
bool address_equal(const struct address *a, const struct address *b);
/* False for families other than IPv4 and IPv6. */
bool address_from_sockaddr(const struct sockaddr *from, struct address *ret) MUST_CHECK;

enum address_class address_classify(const struct address *a);
const char *address_class_name(enum address_class class);

/* The list FETCH_ALLOW: entries set apart by commas or blanks. An entry is an address (10.0.0.7), a
 * network (10.0.0.0/8, fd00::/8), a name (oss-internal.example.com) or, with a dot in front, all
 * names beneath one (.example.com). */
struct address_network {
    struct address base;
    unsigned bits;
};
struct address_allow {
    struct address_network *networks;
    char **names;
    unsigned network_count, name_count;
};
/* ERR_INVALID names the entry that is wrong, ERR_TOO_LARGE: more than ADDRESS_ALLOW_MAX. */
enum err_code address_allow_parse(struct slice text, struct address_allow *ret,
                                  struct err *err) MUST_CHECK;
void address_allow_done(struct address_allow *list);
bool address_allow_has_name(const struct address_allow *list, struct slice host);
/* May this address be connected to? `named`: the host that led to it is on the list by its name.
 * list may be NULL: nothing but what is public. */
bool address_may_connect(const struct address_allow *list, bool named, const struct address *a);

#endif
