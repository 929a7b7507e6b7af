/* SwiGLU forward, fused with the quantizer of the linear layer that follows, and backward.
 * SPDX-License-Identifier: MIT */
#include "ops/cpu/simd.h"

enum { TILE_ROWS = 16 };

/* Rows m0 .. m1-1. row: (F) scratch */
BB_SIMD_INLINE void forward_rows_body(bb_rows y, bb_bf16 *kept, const float *gate_up, float *row, int64_t m0, int64_t m1,
                                      int64_t F) {
    for (int64_t m = m0; m < m1; m++) {
        const float *gate = gate_up + m * 2 * F, *up = gate + F;
#pragma omp simd
        for (int64_t f = 0; f < F; f++) row[f] = gate[f] / (1.0f + bb_simd_exp(-gate[f])) * up[f];
        bb_simd_store_row(y, m, row, F);
        if (kept) bb_simd_round_to_bf16(kept + m * 2 * F, gate, 2 * F);
    }
}

BB_SIMD_VARIANTS(forward_rows, (bb_rows y, bb_bf16 *kept, const float *gate_up, float *row, int64_t m0, int64_t m1, int64_t F),
                 (y, kept, gate_up, row, m0, m1, F))

void bb_cpu_swiglu_forward(bb_device *dev, bb_rows y, void *kept, const float *gate_up, int64_t M, int64_t F) {
    forward_rows_kernel *forward_rows = forward_rows_for(bb_cpu_of(dev)->level);
    BB_SIMD_FOR(dev, M * F, m, M, TILE_ROWS, {
        float *row = bb_cpu_scratch(dev, (size_t)F * sizeof *row);
        if (row) forward_rows(y, kept, gate_up, row, m, m + TILE_ROWS < M ? m + TILE_ROWS : M, F);
    })
}

BB_SIMD_INLINE void backward_row_body(bb_bf16 *d_gate_up, const bb_bf16 *gate_up, const bb_bf16 *dh, int64_t m, int64_t F) {
    const bb_bf16 *gate = gate_up + m * 2 * F, *up = gate + F;
    bb_bf16 *d_gate = d_gate_up + m * 2 * F, *d_up = d_gate + F;
    dh += m * F;
#pragma omp simd
    for (int64_t f = 0; f < F; f++) {
        float g = bb_f32_from_bf16(gate[f]), d = bb_f32_from_bf16(dh[f]);
        float sigmoid = 1.0f / (1.0f + bb_simd_exp(-g));
        d_gate[f] = bb_bf16_from_f32(d * bb_f32_from_bf16(up[f]) * (sigmoid * (1.0f + g * (1.0f - sigmoid))));
        d_up[f] = bb_bf16_from_f32(d * (g * sigmoid));
    }
}

BB_SIMD_VARIANTS(backward_row, (bb_bf16 * d_gate_up, const bb_bf16 *gate_up, const bb_bf16 *dh, int64_t m, int64_t F),
                 (d_gate_up, gate_up, dh, m, F))

void bb_cpu_swiglu_backward(bb_device *dev, void *d_gate_up, const void *gate_up, const void *dh, int64_t M, int64_t F) {
    backward_row_kernel *backward_row = backward_row_for(bb_cpu_of(dev)->level);
#pragma omp parallel for num_threads(dev->threads) if (M * F >= BB_SIMD_SERIAL)
    for (int64_t m = 0; m < M; m++) backward_row(d_gate_up, gate_up, dh, m, F);
}
