/* How work is cut. SPDX-License-Identifier: MIT */
#ifndef BB_OPS_CPU_CUT_H
#define BB_OPS_CPU_CUT_H

#include <stdint.h>

static inline int64_t at_most(int64_t n, int64_t limit) { return n < limit ? n : limit; }
static inline int64_t at_least(int64_t n, int64_t limit) { return n > limit ? n : limit; }
static inline int64_t clamp_to(int64_t n, int64_t low, int64_t high) { return at_most(at_least(n, low), high); }
/* of `tile` each, the last one perhaps shorter */
static inline int64_t tiles_of(int64_t n, int64_t tile) { return (n + tile - 1) / tile; }
static inline int64_t round_up(int64_t n, int64_t multiple) { return tiles_of(n, multiple) * multiple; }

#endif
