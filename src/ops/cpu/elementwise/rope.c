// SPDX-License-Identifier: MIT
/* Rotary position embedding, in place. arXiv:2104.09864 */
#include "ops/cpu/device/entries.h"
#include "ops/cpu/vector/round.h"
#include "ops/cpu/vector/simd.h"

/* Rotates elements i and i + D/2 of a head, for i < half; cos, sin: (half). */
BB_SIMD_INLINE void rotate_f32(float *restrict lo, float *restrict hi, const float *restrict cos, const float *restrict sin,
                               int64_t half) {
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        float a = lo[i], b = hi[i];
        lo[i] = a * cos[i] - b * sin[i];
        hi[i] = b * cos[i] + a * sin[i];
    }
}

BB_SIMD_INLINE void rotate_back_bf16(bb_bf16 *restrict lo, bb_bf16 *restrict hi, const float *restrict cos,
                                     const float *restrict sin, int64_t half) {
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        float a = bb_f32_from_bf16(lo[i]), b = bb_f32_from_bf16(hi[i]);
        lo[i] = bb_bf16_from_f32(a * cos[i] + b * sin[i]);
        hi[i] = bb_bf16_from_f32(b * cos[i] - a * sin[i]);
    }
}

/* Rotates heads 0..heads-1 of one row of x, each of 2*half elements. */
BB_SIMD_INLINE void forward_row_body(float *x, const float *cos, const float *sin, int64_t heads, int64_t half) {
    for (int64_t h = 0; h < heads; h++) rotate_f32(x + h * 2 * half, x + h * 2 * half + half, cos, sin, half);
}
BB_SIMD_VARIANTS(forward_row, (float *x, const float *cos, const float *sin, int64_t heads, int64_t half),
                 (x, cos, sin, heads, half))

BB_SIMD_INLINE void backward_row_body(bb_bf16 *dx, const float *cos, const float *sin, int64_t heads, int64_t half) {
    for (int64_t h = 0; h < heads; h++) rotate_back_bf16(dx + h * 2 * half, dx + h * 2 * half + half, cos, sin, half);
}
BB_SIMD_VARIANTS(backward_row, (bb_bf16 * dx, const float *cos, const float *sin, int64_t heads, int64_t half),
                 (dx, cos, sin, heads, half))

void bb_cpu_rope_forward(bb_device *dev, float *x, void *kept, const float *cos, const float *sin, int64_t position0, int64_t B,
                         int64_t T, int64_t heads, int64_t D, int64_t width) {
    forward_row_kernel *row = forward_row_for(bb_cpu_of(dev)->kernels.simd);
    bb_round_kernel *round = bb_cpu_of(dev)->kernels.round;
    int64_t half = D / 2;
    BB_SIMD_FOR(dev, B * T * width, m, B * T, 1, {
        int64_t at = (position0 + m % T) * half;
        row(x + m * width, cos + at, sin + at, heads, half);
        if (kept) round((bb_bf16 *)kept + m * width, x + m * width, width);
    })
}

void bb_cpu_rope_backward(bb_device *dev, void *dx, const float *cos, const float *sin, int64_t B, int64_t T, int64_t heads,
                          int64_t D, int64_t width) {
    backward_row_kernel *row = backward_row_for(bb_cpu_of(dev)->kernels.simd);
    int64_t half = D / 2;
#pragma omp parallel for num_threads(dev->threads) if (B * T * heads * D > BB_SIMD_SERIAL)
    for (int64_t m = 0; m < B * T; m++) {
        int64_t at = m % T * half;
        row((bb_bf16 *)dx + m * width, cos + at, sin + at, heads, half);
    }
}
