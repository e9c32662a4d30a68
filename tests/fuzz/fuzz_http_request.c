/* What clients send to the server's parser. */
#include "http_events.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return http_events_compare(HTTP_PARSE_REQUEST, data, size);
}
