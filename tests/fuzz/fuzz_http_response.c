/* What ComfyUI, or something in its place, answers. */
#include "http_events.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return http_events_compare(HTTP_PARSE_RESPONSE, data, size);
}
