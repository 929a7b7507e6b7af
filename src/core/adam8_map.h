// SPDX-License-Identifier: MIT
/* The 256 values of an 8-bit optimizer state, relative to the absmax of its block: the dynamic map of Dettmers et al.,
 * arXiv:2110.02861, with 7 exponent bits of 8. Decade e = 0..6, from 10^(e-7) to 10^(e-6), is divided into 2^(e+1) equal
 * parts, or 2^e on each side of 0 in the signed map; their midpoints are the values. 0 and 1 are values too. Codes are in
 * ascending order of value. The f32 arithmetic here is the definition: vector code takes the same steps. */
#ifndef BB_CORE_ADAM8_MAP_H
#define BB_CORE_ADAM8_MAP_H

#include <float.h>
#include <math.h>
#include <stdbool.h>

#include "core/tensor.h"

/* Inlined into loops that are compiled for several instruction sets. */
#ifdef __CUDACC__ /* for kernels, whose constants lie in the card's memory */
#define BB_ADAM8_INLINE __device__ static inline __attribute__((always_inline))
#define BB_ADAM8_TABLE static __device__ const float
#else
#define BB_ADAM8_INLINE static inline __attribute__((always_inline))
#define BB_ADAM8_TABLE static const float
#endif

/* Values have positions on a scale t = 2^k (1 + f), 0 <= f < 1. k = 0 is the value 0, and k = 8 the value 1. k from 1 to 7 is
 * decade k - 1, where the value is 0.1 + 0.9 f times the decade's end. The unsigned code c covers the positions from c + 1 to
 * c + 2, the signed codes 127 + a and 127 - a those from 2a to 2a + 2. The value of a code is that of its middle position. */
enum { BB_ADAM8_K = 8 };

/* [k - 1], the ends of the decades. The last is no decade: its values are clamped to 1. */
BB_ADAM8_TABLE bb_adam8_ends[BB_ADAM8_K] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1e0f, 1e1f};

/* Values to be encoded are divided by 0.9: then 1 + f is the value relative to its decade's end, plus 8/9. */
#define BB_ADAM8_SCALED(x) ((float)((x) / 0.9))

/* [is_signed][k - 1], scaled: the midpoint between the last value before k and the first of k. Greater values have at least
 * that k. */
BB_ADAM8_TABLE bb_adam8_edges[2][BB_ADAM8_K] = {
    {BB_ADAM8_SCALED(1.625e-7), BB_ADAM8_SCALED(1.45e-6), BB_ADAM8_SCALED(1.225e-5), BB_ADAM8_SCALED(1.1125e-4),
     BB_ADAM8_SCALED(1.05625e-3), BB_ADAM8_SCALED(1.028125e-2), BB_ADAM8_SCALED(1.0140625e-1), BB_ADAM8_SCALED(9.982421875e-1)},
    {BB_ADAM8_SCALED(2.75e-7), BB_ADAM8_SCALED(1.9e-6), BB_ADAM8_SCALED(1.45e-5), BB_ADAM8_SCALED(1.225e-4),
     BB_ADAM8_SCALED(1.1125e-3), BB_ADAM8_SCALED(1.05625e-2), BB_ADAM8_SCALED(1.028125e-1), BB_ADAM8_SCALED(9.96484375e-1)}};

/* [k]: a value times this is relative to its decade's end. The factors of the values 0 and 1 give an f within their positions.
 * None uses its lowest nine bits, where bb_adam8_position keeps k. */
BB_ADAM8_TABLE bb_adam8_factors[BB_ADAM8_K + 1] = {1e6f, 1e6f, 1e5f, 1e4f, 1e3f, 1e2f, 1e1f, 1e0f, 0.1015625f};

#define BB_ADAM8_OFFSET (8.0f / 9.0f)
#define BB_ADAM8_MAX 0x1.fffffep0f /* of 1 + f: past a decade's last value, the position of the last one */
#define BB_ADAM8_MIN 0x1p-23f      /* this and smaller magnitudes have the code of 0 */

BB_ADAM8_INLINE float bb_adam8_value_at(float t) {
    float f = bb_f32_from_bits((bb_bits_of_f32(t) & 0x7fffffu) | 0x3f800000u) - 1.0f, end = 0.0f;
    for (int k = 1; k <= BB_ADAM8_K; k++) end = t >= (float)(1 << k) ? bb_adam8_ends[k - 1] : end;
    float value = end * (0.1f + 0.9f * f);
    return value < 1.0f ? value : 1.0f;
}

BB_ADAM8_INLINE float bb_adam8_position(float x, bool is_signed) {
    uint32_t u = bb_bits_of_f32(bb_adam8_factors[0]); /* with k in the low bits: one select instead of two */
    x = x > BB_ADAM8_MIN ? x : BB_ADAM8_MIN;
    for (uint32_t k = 1; k <= BB_ADAM8_K; k++)
        u = x > bb_adam8_edges[is_signed][k - 1] ? bb_bits_of_f32(bb_adam8_factors[k]) | k : u;
    float t = x * bb_f32_from_bits(u & ~0x1ffu) + BB_ADAM8_OFFSET;
    t = t < BB_ADAM8_MAX ? t : BB_ADAM8_MAX;
    return bb_f32_from_bits(bb_bits_of_f32(t) + (u << 23));
}

/* The value of a code, from -1 to 1. */
BB_ADAM8_INLINE float bb_adam8_value(uint8_t code, bool is_signed) {
    if (!is_signed) return bb_adam8_value_at((float)code + 1.5f);
    float a = (float)code - 127.0f, value = bb_adam8_value_at(fabsf(a) * 2.0f + 1.0f);
    return a < 0.0f ? -value : value;
}

/* The factor that makes a block's moments the argument of bb_adam8_code: relative to absmax, and scaled. 0 if absmax is 0, too
 * small to divide by, or NaN. */
BB_ADAM8_INLINE float bb_adam8_scale(float absmax) { return absmax >= FLT_MIN ? BB_ADAM8_SCALED(1.0) / absmax : 0.0f; }

/* The code of the value nearest to x, except for rounding in f32. x is relative to absmax, and scaled. NaN: the code of 0. */
BB_ADAM8_INLINE uint8_t bb_adam8_code(float x, bool is_signed) {
    if (!is_signed) return (uint8_t)((int32_t)bb_adam8_position(x, false) - 1);
    int32_t a = (int32_t)bb_adam8_position(fabsf(x), true) >> 1, code = x < 0.0f ? 127 - a : 127 + a;
    return (uint8_t)(code < 0 ? 0 : code);
}

#endif
