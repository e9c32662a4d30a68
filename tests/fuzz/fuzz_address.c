/* Addresses and lists from arbitrary text: what is read is written and read again as the same; an
 * address that the system reads in some lax way is either the same to us or no name either; and no
 * list opens a metadata address. */
#include "address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_address(struct slice text)
{
    char back[ADDRESS_TEXT_MAX + 1];
    struct address a, b;
    if (!address_parse(text, &a))
        return;
    ASSERT(!address_is_name(text));
    address_format(&a, back);
    ASSERT(address_parse(slice_of(back), &b));
    ASSERT(address_equal(&a, &b));
    ASSERT(address_classify(&a) == address_classify(&b));
}

static void check_lax(const char *text)
{
    struct in_addr in;
    struct address a;
    if (inet_aton(text, &in) == 0)
        return;
    ASSERT(!address_is_name(slice_of(text)));
    if (address_parse(slice_of(text), &a))
        ASSERT(memcmp(a.bytes, &in, 4) == 0);
}

static void check_list(struct slice text, const struct address *probe)
{
    struct address_allow list;
    if (address_allow_parse(text, &list, NULL) != ERR_OK)
        return;
    ASSERT(list.network_count + list.name_count <= ADDRESS_ALLOW_MAX);
    if (address_classify(probe) == ADDRESS_METADATA)
        ASSERT(!address_may_connect(&list, true, probe));
    (void)address_allow_has_name(&list, text);
    address_allow_done(&list);
}

/* The first 17 bytes are an address, the rest is text. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct address probe = {.is_v6 = (data[0] & 1) != 0};
    size_t given = size > 16 ? 16 : size;
    memcpy(probe.bytes, data, probe.is_v6 ? given : given < 4 ? given : 4);
    size_t skip = size > 17 ? 17 : 0;
    char *text = malloc(size - skip + 1);
    ASSERT(text != NULL);
    memcpy(text, data + skip, size - skip);
    text[size - skip] = '\0';
    struct slice s = {text, size - skip};
    check_address(s);
    check_lax(text);
    check_list(s, &probe);
    free(text);
    return 0;
}
