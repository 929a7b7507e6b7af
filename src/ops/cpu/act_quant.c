/* The activation quantizer, row by row.
 * SPDX-License-Identifier: MIT */
#include "ops/cpu/simd.h"

enum { TILE_ROWS = 16 };

/* Rows m0 .. m1-1. row: (K) scratch, for x in bf16 */
BB_SIMD_INLINE void quantize_rows_body(bb_rows y, const void *x, bb_dtype x_dtype, float *row, int64_t m0, int64_t m1,
                                       int64_t K) {
    for (int64_t m = m0; m < m1; m++) {
        if (x_dtype == BB_BF16) bb_simd_widen(row, (const bb_bf16 *)x + m * K, K);
        bb_simd_store_row(y, m, x_dtype == BB_BF16 ? row : (const float *)x + m * K, K);
    }
}

BB_SIMD_VARIANTS(quantize_rows, (bb_rows y, const void *x, bb_dtype x_dtype, float *row, int64_t m0, int64_t m1, int64_t K),
                 (y, x, x_dtype, row, m0, m1, K))

void bb_cpu_act_quant(bb_device *dev, bb_rows y, const void *x, bb_dtype x_dtype, int64_t M, int64_t K) {
    quantize_rows_kernel *quantize_rows = quantize_rows_for(bb_cpu_of(dev)->level);
#pragma omp parallel for num_threads(dev->threads) if (M * K >= BB_SIMD_SERIAL)
    for (int64_t m = 0; m < M; m += TILE_ROWS) {
        float *row = bb_cpu_scratch(dev, (size_t)K * sizeof *row);
        if (row) quantize_rows(y, x, x_dtype, row, m, m + TILE_ROWS < M ? m + TILE_ROWS : M, K);
    }
}
