// SPDX-License-Identifier: MIT
/* n-gram embeddings: rows that are looked up, and their gradient. Of a large table few rows have a gradient in a step; to
 * find them costs one read of it. */
#include "core/math.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/elementwise/elementwise_set.h"
#include "ops/cpu/vector/simd.h"

enum { TILE_ROWS = 16, TILE_COLUMNS = 64 };

void bb_cpu_ngram_forward(bb_device *dev, float *x, const bb_ngram_table *t, const int32_t *index, int64_t M, int64_t K) {
    const bb_elementwise_set *set = bb_cpu_of(dev)->kernels.elementwise;
    int64_t C = t->C;
    BB_SIMD_FOR(dev, M * K * C, m, M, 1, {
        for (int64_t k = 0; k < K; k++) {
            int64_t row = index[m * K + k];
            if (row < 0) continue;
            if (t->values)
                set->ngram_add_values(x + m * C, t->values + row * C, C);
            else
                set->ngram_add_codes(x + m * C, t->codes + row * C, bb_f32_from_bf16(t->scales[row]), C);
        }
    })
}

/* Split by columns, as the embedding's. */
void bb_cpu_ngram_backward(bb_device *dev, float *d_table, const int32_t *index, const float *dx, int64_t M, int64_t K,
                           int64_t C) {
#pragma omp parallel for num_threads(dev->threads) if (M * K * C >= BB_SIMD_SERIAL)
    for (int64_t c0 = 0; c0 < C; c0 += TILE_COLUMNS) {
        int64_t n = C - c0 < TILE_COLUMNS ? C - c0 : TILE_COLUMNS;
        for (int64_t i = 0; i < M * K; i++) {
            if (index[i] < 0) continue;
            float *to = d_table + index[i] * C + c0;
            const float *from = dx + i / K * C + c0;
#pragma omp simd
            for (int64_t c = 0; c < n; c++) to[c] += from[c];
        }
    }
}

void bb_cpu_ngram_quant(bb_device *dev, const bb_ngram_table *t, const float *values, int64_t first, int64_t rows) {
    const bb_elementwise_set *set = bb_cpu_of(dev)->kernels.elementwise;
    BB_SIMD_FOR(dev, rows * t->C, r, rows, TILE_ROWS, set->ngram_quantize(t, values, first, r, bb_min(rows, r + TILE_ROWS)))
}
