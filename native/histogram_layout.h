/* A histogram's words and how a value is counted; what they mean stands in histogram.pyx. */
#ifndef FABRIC_HISTOGRAM_LAYOUT_H
#define FABRIC_HISTOGRAM_LAYOUT_H

#include <stdint.h>

#define HISTOGRAM_SUB_BUCKETS 256
#define HISTOGRAM_HALF_BITS 7
#define HISTOGRAM_MAX_BITS 42
#define HISTOGRAM_HEAD_WORDS 4

static inline int histogram_index(uint64_t value) {
    const int bucket = 64 - __builtin_clzll(value | (HISTOGRAM_SUB_BUCKETS - 1)) - (HISTOGRAM_HALF_BITS + 1);
    return (bucket << HISTOGRAM_HALF_BITS) + (int)(value >> bucket);
}

/* Count one value; a negative one (a clock that stepped back) counts as 0. */
static inline void histogram_add(uint64_t *words, int64_t value) {
    uint64_t v = value > 0 ? (uint64_t)value : 0;
    if (v >> HISTOGRAM_MAX_BITS) v = ((uint64_t)1 << HISTOGRAM_MAX_BITS) - 1;
    words[0] += 1;
    words[1] += v;
    if (v > words[2]) words[2] = v;
    if (words[3] == 0 || v + 1 < words[3]) words[3] = v + 1;
    words[HISTOGRAM_HEAD_WORDS + histogram_index(v)] += 1;
}

#endif
