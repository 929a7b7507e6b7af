// SPDX-License-Identifier: MIT
/* The activation quantizer, row by row. */
#include "ops/cpu/device/entries.h"
#include "ops/cpu/vector/simd.h"

enum { TILE_ROWS = 16 };

BB_SIMD_INLINE void quantize_rows_body(bb_rows y, const float *x, int64_t m0, int64_t m1, int64_t K) {
    for (int64_t m = m0; m < m1; m++) bb_simd_store_row(y, m, x + m * K, K);
}

BB_SIMD_VARIANTS(quantize_rows, (bb_rows y, const float *x, int64_t m0, int64_t m1, int64_t K), (y, x, m0, m1, K))

void bb_cpu_act_quant(bb_device *dev, bb_rows y, const float *x, int64_t M, int64_t K) {
    quantize_rows_kernel *quantize_rows = quantize_rows_for(bb_cpu_of(dev)->kernels.simd);
    BB_SIMD_FOR(dev, M * K, m, M, TILE_ROWS, quantize_rows(y, x, m, m + TILE_ROWS < M ? m + TILE_ROWS : M, K))
}
