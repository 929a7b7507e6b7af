/* Filling the cache of keys and values.
 * SPDX-License-Identifier: MIT */
#include "ops/cpu/simd.h"

/* One row of one head. */
BB_SIMD_INLINE void append_row_body(int8_t *codes, float *scale, const float *x, int64_t D) {
    *scale = bb_simd_quantize(codes, x, D);
}
BB_SIMD_VARIANTS(append_row, (int8_t * codes, float *scale, const float *x, int64_t D), (codes, scale, x, D))

void bb_cpu_kv_append(bb_device *dev, const bb_kv *kv, int64_t first, const float *k, const float *v, int64_t stride, int64_t n,
                      int64_t Hk, int64_t D) {
    int64_t width = bb_kv_width(D);
    append_row_kernel *append_row = append_row_for(bb_cpu_of(dev)->level);
#pragma omp parallel for num_threads(dev->threads) if (n * Hk * D > BB_SIMD_SERIAL)
    for (int64_t t = 0; t < n; t++)
        for (int half = 0; half < 2; half++) {
            const float *x = (half ? v : k) + t * stride;
            void *data = half ? kv->v : kv->k;
            float *scale = half ? kv->v_scale : kv->k_scale;
            if (kv->dtype == BB_F32) {
                memcpy((float *)data + (first + t) * Hk * D, x, (size_t)(Hk * D) * sizeof *x);
                continue;
            }
            for (int64_t h = 0; h < Hk; h++) {
                int64_t row = h * kv->capacity + first + t;
                int8_t *codes = (int8_t *)data + row * width;
                append_row(codes, scale + row, x + h * D, D);
                memset(codes + D, 0, (size_t)(width - D));
            }
        }
}
