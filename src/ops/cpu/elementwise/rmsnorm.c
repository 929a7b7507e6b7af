// SPDX-License-Identifier: MIT
/* RMSNorm forward, fused with the quantizer of the linear layer that follows, and backward. */
#include <math.h>

#include "ops/cpu/device/entries.h"
#include "ops/cpu/vector/simd.h"

enum {
    TILE_ROWS = 16,
    MAX_PARTIALS = 64, /* dw is summed in at most this many runs of rows, so that its scratch does not grow with M */
};

/* Rows m0 .. m1-1. row: (C) scratch. In double, like ref, so that the codes agree. */
BB_SIMD_INLINE void forward_rows_body(bb_rows y, float *r, const float *x, const float *w, float eps, float *row, int64_t m0,
                                      int64_t m1, int64_t C) {
    for (int64_t m = m0; m < m1; m++) {
        const float *xm = x + m * C;
        double sums[BB_SIMD_SUMS] = {0};
        int64_t i = 0;
        BB_SIMD_PREFETCH(xm + C, C * (int64_t)sizeof *xm, 0);
        for (; i + BB_SIMD_SUMS <= C; i += BB_SIMD_SUMS)
            for (int l = 0; l < BB_SIMD_SUMS; l++) sums[l] += (double)xm[i + l] * (double)xm[i + l];
        for (int l = 0; i < C; i++, l++) sums[l] += (double)xm[i] * (double)xm[i];
        BB_SIMD_ADD_SUMS(sums)
        double inverse = 1 / sqrt(sums[0] / (double)C + (double)eps);
        r[m] = (float)inverse;
#pragma omp simd
        for (int64_t c = 0; c < C; c++) row[c] = (float)((double)xm[c] * (double)w[c] * inverse);
        bb_simd_store_row(y, m, row, C);
    }
}

BB_SIMD_VARIANTS(forward_rows,
                 (bb_rows y, float *r, const float *x, const float *w, float eps, float *row, int64_t m0, int64_t m1,
                  int64_t C),
                 (y, r, x, w, eps, row, m0, m1, C))

void bb_cpu_rmsnorm_forward(bb_device *dev, bb_rows y, float *r, const float *x, const float *w, float eps, int64_t M,
                            int64_t C) {
    forward_rows_kernel *forward_rows = forward_rows_for(bb_cpu_of(dev)->kernels.simd);
    BB_SIMD_FOR(dev, M * C, m, M, TILE_ROWS, {
        float *row = bb_cpu_scratch(dev, (size_t)C * sizeof *row);
        if (row) forward_rows(y, r, x, w, eps, row, m, m + TILE_ROWS < M ? m + TILE_ROWS : M, C);
    })
}

/* Rows m0 .. m1-1; dw: (C), overwritten with this run's contribution */
BB_SIMD_INLINE void backward_rows_body(float *dx, float *dw, const bb_bf16 *dy, const float *x, const float *w, const float *r,
                                       int64_t m0, int64_t m1, int64_t C) {
    memset(dw, 0, (size_t)C * sizeof *dw);
    for (int64_t m = m0; m < m1; m++) {
        const bb_bf16 *dym = dy + m * C;
        const float *xm = x + m * C;
        float *dxm = dx + m * C;
        float rm = r[m], dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t c = 0; c < C; c++) dot += w[c] * bb_f32_from_bf16(dym[c]) * xm[c];
        float k = rm * rm * rm / (float)C * dot;
#pragma omp simd
        for (int64_t c = 0; c < C; c++) {
            float g = rm * bb_f32_from_bf16(dym[c]);
            dxm[c] += w[c] * g - k * xm[c];
            dw[c] += g * xm[c];
        }
    }
}

BB_SIMD_VARIANTS(backward_rows,
                 (float *dx, float *dw, const bb_bf16 *dy, const float *x, const float *w, const float *r, int64_t m0,
                  int64_t m1, int64_t C),
                 (dx, dw, dy, x, w, r, m0, m1, C))

void bb_cpu_rmsnorm_backward(bb_device *dev, float *dx, float *dw, const void *dy, const float *x, const float *w,
                             const float *r, int64_t M, int64_t C) {
    backward_rows_kernel *backward_rows = backward_rows_for(bb_cpu_of(dev)->kernels.simd);
    int64_t run = (M + MAX_PARTIALS - 1) / MAX_PARTIALS;
    if (run < TILE_ROWS) run = TILE_ROWS;
    int64_t partials = (M + run - 1) / run;
    float *partial = bb_cpu_scratch(dev, (size_t)(partials * C) * sizeof *partial); /* (partials, C), for all threads */
    if (!partial) return;
#pragma omp parallel for num_threads(dev->threads) if (M * C >= BB_SIMD_SERIAL)
    for (int64_t p = 0; p < partials; p++) {
        int64_t m0 = p * run, m1 = m0 + run < M ? m0 + run : M;
        backward_rows(dx, partial + p * C, dy, x, w, r, m0, m1, C);
    }
    for (int64_t p = 0; p < partials; p++) {
        const float *src = partial + p * C;
        for (int64_t c = 0; c < C; c++) dw[c] += src[c];
    }
}
