/* The 256 values that an 8-bit optimizer state can take within a block, as parts of the block's absmax.
 * SPDX-License-Identifier: MIT */
#ifndef BB_CORE_ADAM8_MAP_H
#define BB_CORE_ADAM8_MAP_H

#include <stdbool.h>

/* The dynamic map of Dettmers et al., arXiv:2110.02861, 7 exponent bits of 8: decade 10^(e-6), e = 0..6, holds 2^e (signed, on
 * each side of 0) or 2^(e+1) (unsigned) values, the midpoints of equal parts of [0.1, 1]; and 0 and 1. 256 floats, ascending.
 * Safe to call from any thread; the same pointer each time. */
const float *bb_adam8_map(bool is_signed);

/* Where the nearest entry changes: 255 floats, ascending. The code of x is the number of edges that are < x, which is the
 * index of the entry nearest to x, ties to the lower one. (Each edge is the midpoint of two entries, rounded down to f32: no
 * f32 lies between the two, so the rule is exact.) */
const float *bb_adam8_edges(bool is_signed);

#endif
