// SPDX-License-Identifier: MIT
/* The gradient norm and AdamW with f32 moments. */
#include "ops/cpu/optimizer/adamw.h"
#include "ops/cpu/device/entries.h"

enum { TILE = 4096 };

BB_SIMD_INLINE void sum_tile_body(double *out, const float *x, int64_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    *out = sum;
}

BB_SIMD_VARIANTS(sum_tile, (double *out, const float *x, int64_t n), (out, x, n))

void bb_cpu_sum_squares(bb_device *dev, double *sums, const float *x, int64_t n) {
    sum_tile_kernel *sum_tile = sum_tile_for(bb_cpu_of(dev)->kernels.simd);
#pragma omp parallel for num_threads(dev->threads) if (n >= BB_SIMD_SERIAL)
    for (int64_t i = 0; i < n; i += BB_NORM_TILE)
        sum_tile(&sums[i / BB_NORM_TILE], x + i, n - i < BB_NORM_TILE ? n - i : BB_NORM_TILE);
}

BB_SIMD_INLINE void add_tile_body(float *y, const float *x, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

BB_SIMD_VARIANTS(add_tile, (float *y, const float *x, int64_t n), (y, x, n))

void bb_cpu_add(bb_device *dev, float *y, const float *x, int64_t n) {
    add_tile_kernel *add_tile = add_tile_for(bb_cpu_of(dev)->kernels.simd);
#pragma omp parallel for num_threads(dev->threads) if (n >= BB_SIMD_SERIAL)
    for (int64_t i = 0; i < n; i += TILE) add_tile(y + i, x + i, n - i < TILE ? n - i : TILE);
}

BB_SIMD_INLINE void step_tile_body(float *p, const float *g, float *m, float *v, int64_t n, const adamw_constants *k) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float mi = m[i], vi = v[i];
        adamw_moments(g[i], &mi, &vi, k);
        p[i] = adamw_apply(p[i], mi, vi, k);
        m[i] = mi;
        v[i] = vi;
    }
}

BB_SIMD_VARIANTS(step_tile, (float *p, const float *g, float *m, float *v, int64_t n, const adamw_constants *k),
                 (p, g, m, v, n, k))

void bb_cpu_adamw_step(bb_device *dev, float *p, const float *g, float *m, float *v, int64_t n, const bb_adamw *h) {
    step_tile_kernel *step_tile = step_tile_for(bb_cpu_of(dev)->kernels.simd);
    adamw_constants k = adamw_prepare(h);
#pragma omp parallel for num_threads(dev->threads) if (n >= BB_SIMD_SERIAL)
    for (int64_t i = 0; i < n; i += TILE) {
        step_tile(p + i, g + i, m + i, v + i, n - i < TILE ? n - i : TILE, &k);
    }
}
