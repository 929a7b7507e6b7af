// SPDX-License-Identifier: MIT
/* Embedding lookup and its gradient. */
#include "ops/cpu/device/entries.h"
#include "ops/cpu/vector/simd.h"

enum { TILE_COLUMNS = 64 };

void bb_cpu_embedding_forward(bb_device *dev, float *x, const uint8_t *idx, const float *e, int64_t M, int64_t V, int64_t C) {
    (void)V;
    BB_SIMD_FOR(dev, M * C, m, M, 1, memcpy(x + m * C, e + idx[m] * C, (size_t)C * sizeof *x))
}

/* Split by columns: each row of E then sums its tokens in ascending m, whatever the number of threads. */
void bb_cpu_embedding_backward(bb_device *dev, float *de, const uint8_t *idx, const float *dx, int64_t M, int64_t V,
                               int64_t C) {
    (void)V;
#pragma omp parallel for num_threads(dev->threads) if (M * C >= BB_SIMD_SERIAL)
    for (int64_t c0 = 0; c0 < C; c0 += TILE_COLUMNS) {
        int64_t n = C - c0 < TILE_COLUMNS ? C - c0 : TILE_COLUMNS;
        for (int64_t m = 0; m < M; m++) {
            float *to = de + idx[m] * C + c0;
            const float *from = dx + m * C + c0;
#pragma omp simd
            for (int64_t c = 0; c < n; c++) to[c] += from[c];
        }
    }
}
