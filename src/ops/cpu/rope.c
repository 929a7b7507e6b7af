/* Rotary position embedding, in place. arXiv:2104.09864
 * SPDX-License-Identifier: MIT */
#include "ops/cpu/simd.h"

/* One head: lo, hi: (half), the elements i and i + D/2; cos, sin: (half); sign -1 turns back. */
BB_SIMD_INLINE void rotate(bb_bf16 *restrict lo, bb_bf16 *restrict hi, const float *restrict cos, const float *restrict sin,
                           float sign, int64_t half) {
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        float a = bb_f32_from_bf16(lo[i]), b = bb_f32_from_bf16(hi[i]), s = sign * sin[i];
        lo[i] = bb_bf16_from_f32(a * cos[i] - b * s);
        hi[i] = bb_bf16_from_f32(b * cos[i] + a * s);
    }
}

/* One row of x: heads 0..heads-1, each of 2*half elements. */
BB_SIMD_INLINE void rope_row_body(bb_bf16 *x, const float *cos, const float *sin, float sign, int64_t heads, int64_t half) {
    for (int64_t h = 0; h < heads; h++) rotate(x + h * 2 * half, x + h * 2 * half + half, cos, sin, sign, half);
}
BB_SIMD_VARIANTS(rope_row, (bb_bf16 * x, const float *cos, const float *sin, float sign, int64_t heads, int64_t half),
                 (x, cos, sin, sign, heads, half))

void bb_cpu_rope(bb_device *dev, void *x, const float *cos, const float *sin, int64_t position0, bool inverse, int64_t B,
                 int64_t T, int64_t heads, int64_t D, int64_t stride) {
    rope_row_kernel *row = rope_row_for(bb_cpu_of(dev)->level);
    int64_t half = D / 2;
#pragma omp parallel for num_threads(dev->threads) if (B * T * heads * D > BB_SIMD_SERIAL)
    for (int64_t m = 0; m < B * T; m++) {
        int64_t at = (position0 + m % T) * half;
        row((bb_bf16 *)x + m * stride, cos + at, sin + at, inverse ? -1.0f : 1.0f, heads, half);
    }
}
