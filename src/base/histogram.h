/* How often something took how long: counts in fixed classes, as Prometheus wants them. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include "buf.h"

enum { HISTOGRAM_CLASSES = 16 }; /* and one without a bound */

struct histogram {
    uint64_t counts[HISTOGRAM_CLASSES + 1];
    uint64_t sum_ms;
};

void histogram_add(struct histogram *h, uint64_t ms);
/* Buckets, sum and count in Prometheus's text format, in seconds. `labels` is "" or `a="b",`. */
void histogram_render(const struct histogram *h, const char *name, const char *labels,
                      struct buf *out);

#endif
