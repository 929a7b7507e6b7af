// SPDX-License-Identifier: MIT
/* The 256 values that an 8-bit optimizer state can take within a block, as parts of the block's absmax: the dynamic map of
 * Dettmers et al., arXiv:2110.02861, 7 exponent bits of 8. Decade e = 0..6, from 10^(e-7) to 10^(e-6), holds 2^(e+1) values, or
 * 2^e on each side of 0 in the signed map: the midpoints of equal parts of it. Then there are 0 and 1. Codes count by value.
 * The f32 arithmetic here is the definition; whoever uses other instructions takes the same steps. */
#ifndef BB_CORE_ADAM8_MAP_H
#define BB_CORE_ADAM8_MAP_H

#include <float.h>
#include <math.h>
#include <stdbool.h>

#include "core/tensor.h"

/* Into its caller's loops, which are compiled for several instruction sets. */
#define BB_ADAM8_INLINE static inline __attribute__((always_inline))

/* Values have places on a scale t = 2^k (1 + f), 0 <= f < 1. k = 0 is the value 0, and k = 8 the value 1. From 1 to 7 it is
 * decade k - 1, whose end the value is 0.1 + 0.9 f of. The unsigned code c has the places from c + 1 to c + 2, the signed code
 * 127 + a or 127 - a those from 2a to 2a + 2; its value is that of their middle. */
enum { BB_ADAM8_K = 8 };

/* [k - 1], the ends of the decades. The last is not one: its values are cut to 1. */
static const float bb_adam8_ends[BB_ADAM8_K] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1e0f, 1e1f};

/* Values on their way to a code are divided by 0.9: then 1 + f is such a value's part of its decade's end, plus 8/9. */
#define BB_ADAM8_SCALED(x) ((float)((x) / 0.9))

/* [is_signed][k - 1], scaled: the midpoint of the last value before k's and k's first. What is greater has at least that k. */
static const float bb_adam8_edges[2][BB_ADAM8_K] = {
    {BB_ADAM8_SCALED(1.625e-7), BB_ADAM8_SCALED(1.45e-6), BB_ADAM8_SCALED(1.225e-5), BB_ADAM8_SCALED(1.1125e-4),
     BB_ADAM8_SCALED(1.05625e-3), BB_ADAM8_SCALED(1.028125e-2), BB_ADAM8_SCALED(1.0140625e-1), BB_ADAM8_SCALED(9.982421875e-1)},
    {BB_ADAM8_SCALED(2.75e-7), BB_ADAM8_SCALED(1.9e-6), BB_ADAM8_SCALED(1.45e-5), BB_ADAM8_SCALED(1.225e-4),
     BB_ADAM8_SCALED(1.1125e-3), BB_ADAM8_SCALED(1.05625e-2), BB_ADAM8_SCALED(1.028125e-1), BB_ADAM8_SCALED(9.96484375e-1)}};

/* [k]: a value times this is a part of its decade's end. Those of the values 0 and 1 give an f within their places. None needs
 * the lowest nine bits, where k finds room. */
static const float bb_adam8_factors[BB_ADAM8_K + 1] = {1e6f, 1e6f, 1e5f, 1e4f, 1e3f, 1e2f, 1e1f, 1e0f, 0.1015625f};

#define BB_ADAM8_OFFSET (8.0f / 9.0f)
#define BB_ADAM8_MOST 0x1.fffffep0f /* of 1 + f: what is past a decade's last value has the last one's place */
#define BB_ADAM8_LEAST 0x1p-23f     /* less has the code of 0, as this has */

BB_ADAM8_INLINE float bb_adam8_value_at(float t) {
    float f = bb_f32_from_bits((bb_bits_of_f32(t) & 0x7fffffu) | 0x3f800000u) - 1.0f, end = 0.0f;
    for (int k = 1; k <= BB_ADAM8_K; k++) end = t >= (float)(1 << k) ? bb_adam8_ends[k - 1] : end;
    float value = end * (0.1f + 0.9f * f);
    return value < 1.0f ? value : 1.0f;
}

BB_ADAM8_INLINE float bb_adam8_place(float x, bool is_signed) {
    uint32_t u = bb_bits_of_f32(bb_adam8_factors[0]); /* with k in its low bits: one choice instead of two */
    x = x > BB_ADAM8_LEAST ? x : BB_ADAM8_LEAST;
    for (uint32_t k = 1; k <= BB_ADAM8_K; k++)
        u = x > bb_adam8_edges[is_signed][k - 1] ? bb_bits_of_f32(bb_adam8_factors[k]) | k : u;
    float t = x * bb_f32_from_bits(u & ~0x1ffu) + BB_ADAM8_OFFSET;
    t = t < BB_ADAM8_MOST ? t : BB_ADAM8_MOST;
    return bb_f32_from_bits(bb_bits_of_f32(t) + (u << 23));
}

/* The value of a code, from -1 to 1. */
BB_ADAM8_INLINE float bb_adam8_value(uint8_t code, bool is_signed) {
    if (!is_signed) return bb_adam8_value_at((float)code + 1.5f);
    float a = (float)code - 127.0f, value = bb_adam8_value_at(fabsf(a) * 2.0f + 1.0f);
    return a < 0.0f ? -value : value;
}

/* What a block's moments are multiplied by for bb_adam8_code: they become parts of absmax, scaled. 0 where absmax is 0, or too
 * small for that, or NaN. */
BB_ADAM8_INLINE float bb_adam8_scale(float absmax) { return absmax >= FLT_MIN ? BB_ADAM8_SCALED(1.0) / absmax : 0.0f; }

/* The code of the value nearest to x, but for f32's rounding. x is a part of absmax, scaled; NaN has the code of 0. */
BB_ADAM8_INLINE uint8_t bb_adam8_code(float x, bool is_signed) {
    if (!is_signed) return (uint8_t)((int32_t)bb_adam8_place(x, false) - 1);
    int32_t a = (int32_t)bb_adam8_place(fabsf(x), true) >> 1, code = x < 0.0f ? 127 - a : 127 + a;
    return (uint8_t)(code < 0 ? 0 : code);
}

#endif
