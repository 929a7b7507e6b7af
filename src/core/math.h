// SPDX-License-Identifier: MIT
/* Integer helpers for sizes and counts, all of which are not negative. */
#ifndef BB_CORE_MATH_H
#define BB_CORE_MATH_H

#include <stdint.h>

static inline int64_t bb_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t bb_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t bb_clamp(int64_t n, int64_t low, int64_t high) { return bb_min(bb_max(n, low), high); }
static inline int64_t bb_ceil_div(int64_t n, int64_t divisor) { return (n + divisor - 1) / divisor; }
static inline int64_t bb_round_up(int64_t n, int64_t multiple) { return bb_ceil_div(n, multiple) * multiple; }

#endif
