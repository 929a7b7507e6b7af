// SPDX-License-Identifier: MIT
/* Softmax cross-entropy, row by row. */
#include "core/exact_math.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/vector/simd.h"

enum { TILE_ROWS = 16 };

/* Maps a float's bits to an integer of the same order (the magnitude bits are inverted below zero), and back. */
BB_SIMD_INLINE int32_t ordered_bits(int32_t bits) { return bits ^ (int32_t)((uint32_t)(bits >> 31) >> 1); }

/* On integers, because a maximum of floats vectorizes only if NaN may be ignored. */
BB_SIMD_INLINE float row_max(const float *x, int64_t V) {
    int32_t max = INT32_MIN;
#pragma omp simd reduction(max : max)
    for (int64_t v = 0; v < V; v++) {
        int32_t i = ordered_bits((int32_t)bb_bits_of_f32(x[v]));
        max = i > max ? i : max;
    }
    return bb_f32_from_bits((uint32_t)ordered_bits(max));
}

BB_SIMD_INLINE void nll_rows_body(float *nll, const float *logits, const uint8_t *y, int64_t m0, int64_t m1, int64_t V) {
    for (int64_t m = m0; m < m1; m++) {
        const float *x = logits + m * V;
        float max = row_max(x, V), sums[BB_SIMD_SUMS] = {0};
        int64_t v = 0;
        for (; v + BB_SIMD_SUMS <= V; v += BB_SIMD_SUMS)
            for (int l = 0; l < BB_SIMD_SUMS; l++) sums[l] += bb_simd_exp(x[v + l] - max);
        for (int l = 0; v < V; v++, l++) sums[l] += bb_simd_exp(x[v] - max);
        BB_SIMD_ADD_SUMS(sums)
        nll[m] = (float)(bb_log((double)sums[0]) + (double)max - (double)x[y[m]]);
    }
}

BB_SIMD_VARIANTS(nll_rows, (float *nll, const float *logits, const uint8_t *y, int64_t m0, int64_t m1, int64_t V),
                 (nll, logits, y, m0, m1, V))

void bb_cpu_loss_forward(bb_device *dev, float *nll, const float *logits, const uint8_t *y, int64_t M, int64_t V) {
    nll_rows_kernel *nll_rows = nll_rows_for(bb_cpu_of(dev)->kernels.simd);
#pragma omp parallel for num_threads(dev->threads) if (M * V >= BB_SIMD_SERIAL)
    for (int64_t m = 0; m < M; m += TILE_ROWS) nll_rows(nll, logits, y, m, m + TILE_ROWS < M ? m + TILE_ROWS : M, V);
}

/* dlogits may be logits. */
BB_SIMD_INLINE void softmax_rows_body(float *dlogits, const float *logits, const uint8_t *y, float scale, int64_t m0,
                                      int64_t m1, int64_t V) {
    for (int64_t m = m0; m < m1; m++) {
        const float *x = logits + m * V;
        float *d = dlogits + m * V;
        float max = row_max(x, V), sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t v = 0; v < V; v++) {
            d[v] = bb_simd_exp(x[v] - max);
            sum += d[v];
        }
        float factor = scale / sum;
#pragma omp simd
        for (int64_t v = 0; v < V; v++) d[v] *= factor;
        d[y[m]] -= scale;
    }
}

BB_SIMD_VARIANTS(softmax_rows,
                 (float *dlogits, const float *logits, const uint8_t *y, float scale, int64_t m0, int64_t m1, int64_t V),
                 (dlogits, logits, y, scale, m0, m1, V))

void bb_cpu_loss_backward(bb_device *dev, float *dlogits, const float *logits, const uint8_t *y, float scale, int64_t M,
                          int64_t V) {
    softmax_rows_kernel *softmax_rows = softmax_rows_for(bb_cpu_of(dev)->kernels.simd);
#pragma omp parallel for num_threads(dev->threads) if (M * V >= BB_SIMD_SERIAL)
    for (int64_t m = 0; m < M; m += TILE_ROWS) {
        softmax_rows(dlogits, logits, y, scale, m, m + TILE_ROWS < M ? m + TILE_ROWS : M, V);
    }
}
