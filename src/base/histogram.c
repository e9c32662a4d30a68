#include "histogram.h"

static const uint64_t bounds_ms[HISTOGRAM_CLASSES] = {
    5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 120000, 300000, 900000,
};

void histogram_add(struct histogram *h, uint64_t ms)
{
    unsigned i = 0;
    while (i < HISTOGRAM_CLASSES && ms > bounds_ms[i])
        i++;
    h->counts[i]++;
    h->sum_ms += ms;
}

void histogram_render(const struct histogram *h, const char *name, const char *labels,
                      struct buf *out)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < HISTOGRAM_CLASSES; i++) {
        count += h->counts[i];
        buf_addf(out, "%s_bucket{%sle=\"%g\"} %llu\n", name, labels, (double)bounds_ms[i] / 1000,
                 (unsigned long long)count);
    }
    count += h->counts[HISTOGRAM_CLASSES];
    buf_addf(out, "%s_bucket{%sle=\"+Inf\"} %llu\n", name, labels, (unsigned long long)count);
    size_t len = strlen(labels); /* they end in a comma, which is not wanted alone */
    buf_addf(out, "%s_sum%s%.*s%s %g\n", name, len > 0 ? "{" : "", (int)(len > 0 ? len - 1 : 0),
             labels, len > 0 ? "}" : "", (double)h->sum_ms / 1000);
    buf_addf(out, "%s_count%s%.*s%s %llu\n", name, len > 0 ? "{" : "", (int)(len > 0 ? len - 1 : 0),
             labels, len > 0 ? "}" : "", (unsigned long long)count);
}
