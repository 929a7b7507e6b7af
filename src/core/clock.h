// SPDX-License-Identifier: MIT
/* The monotonic clock. Differences mean something, absolute values do not. */
#ifndef BB_CORE_CLOCK_H
#define BB_CORE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t bb_clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline double bb_clock_seconds(void) { return 1e-9 * (double)bb_clock_ns(); }

#endif
