/* Filling the cache of keys and values.
 * SPDX-License-Identifier: MIT */
#include "ops/cpu/simd.h"

/* One row of one head. */
BB_SIMD_INLINE void append_row_body(int8_t *codes, float *scale, const float *x, int64_t D) {
    *scale = bb_simd_quantize(codes, x, D);
}
BB_SIMD_VARIANTS(append_row, (int8_t * codes, float *scale, const float *x, int64_t D), (codes, scale, x, D))

/* One position of the keys, or of the values. x: (Hk*D) */
static void append(append_row_kernel *append_row, const bb_kv *kv, void *data, float *scales, int64_t position, const float *x,
                   int64_t Hk, int64_t D) {
    int64_t width = bb_kv_width(D);
    if (kv->dtype == BB_F32) {
        memcpy((float *)data + position * Hk * D, x, (size_t)(Hk * D) * sizeof *x);
        return;
    }
    for (int64_t h = 0; h < Hk; h++) {
        int64_t begin = bb_kv_run_begin(kv, position), row = bb_kv_row(kv, h, position);
        int8_t *codes = (int8_t *)data + begin + row * width;
        append_row(codes, (float *)(void *)((char *)scales + begin) + row, x + h * D, D);
        memset(codes + D, 0, (size_t)(width - D));
    }
}

void bb_cpu_kv_append(bb_device *dev, const bb_kv *kv, int64_t first, const float *k, const float *v, int64_t stride, int64_t n,
                      int64_t Hk, int64_t D) {
    append_row_kernel *append_row = append_row_for(bb_cpu_of(dev)->level);
    BB_SIMD_FOR(dev, n * Hk * D, t, n, 1, {
        append(append_row, kv, kv->k, kv->k_scale, first + t, k + t * stride, Hk, D);
        append(append_row, kv, kv->v, kv->v_scale, first + t, v + t * stride, Hk, D);
    })
}
