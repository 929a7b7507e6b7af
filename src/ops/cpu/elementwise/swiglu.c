// SPDX-License-Identifier: MIT
/* SwiGLU forward, fused with the quantizer of the linear layer that follows, and backward. */
#include "ops/cpu/device/entries.h"
#include "ops/cpu/vector/round.h"
#include "ops/cpu/vector/simd.h"

enum { TILE_ROWS = 16 };

/* gate_up: (2 F); row: (F) scratch */
BB_SIMD_INLINE void forward_row_body(bb_rows y, const float *gate_up, float *row, int64_t m, int64_t F) {
    const float *gate = gate_up, *up = gate + F;
#pragma omp simd
    for (int64_t f = 0; f < F; f++) row[f] = gate[f] / (1.0f + bb_simd_exp(-gate[f])) * up[f];
    bb_simd_store_row(y, m, row, F);
}

BB_SIMD_VARIANTS(forward_row, (bb_rows y, const float *gate_up, float *row, int64_t m, int64_t F), (y, gate_up, row, m, F))

void bb_cpu_swiglu_forward(bb_device *dev, bb_rows y, void *kept, const float *gate_up, int64_t M, int64_t F) {
    forward_row_kernel *forward_row = forward_row_for(bb_cpu_of(dev)->kernels.simd);
    bb_round_kernel *round = bb_cpu_of(dev)->kernels.round;
    BB_SIMD_FOR(dev, M * F, m, M, TILE_ROWS, {
        float *row = bb_cpu_scratch(dev, (size_t)F * sizeof *row);
        for (int64_t r = m; row && r < m + TILE_ROWS && r < M; r++) {
            forward_row(y, gate_up + r * 2 * F, row, r, F);
            if (kept) round((bb_bf16 *)kept + r * 2 * F, gate_up + r * 2 * F, 2 * F);
        }
    })
}

/* d_gate_up, gate_up: (2 F); dh: (F) */
BB_SIMD_INLINE void backward_row_body(float *d_gate_up, const bb_bf16 *gate_up, const bb_bf16 *dh, int64_t F) {
    const bb_bf16 *gate = gate_up, *up = gate + F;
    float *d_gate = d_gate_up, *d_up = d_gate + F;
#pragma omp simd
    for (int64_t f = 0; f < F; f++) {
        float g = bb_f32_from_bf16(gate[f]), d = bb_f32_from_bf16(dh[f]);
        float sigmoid = 1.0f / (1.0f + bb_simd_exp(-g));
        d_gate[f] = d * bb_f32_from_bf16(up[f]) * (sigmoid * (1.0f + g * (1.0f - sigmoid)));
        d_up[f] = d * (g * sigmoid);
    }
}

BB_SIMD_VARIANTS(backward_row, (float *d_gate_up, const bb_bf16 *gate_up, const bb_bf16 *dh, int64_t F),
                 (d_gate_up, gate_up, dh, F))

void bb_cpu_swiglu_backward(bb_device *dev, void *d_gate_up, const void *gate_up, const void *dh, int64_t M, int64_t F) {
    backward_row_kernel *backward_row = backward_row_for(bb_cpu_of(dev)->kernels.simd);
    bb_round_kernel *round = bb_cpu_of(dev)->kernels.round;
    BB_SIMD_FOR(dev, M * F, m, M, TILE_ROWS, {
        float *row = bb_cpu_scratch(dev, 2 * (size_t)F * sizeof *row);
        for (int64_t r = m; row && r < m + TILE_ROWS && r < M; r++) {
            backward_row(row, (const bb_bf16 *)gate_up + r * 2 * F, (const bb_bf16 *)dh + r * F, F);
            round((bb_bf16 *)d_gate_up + r * 2 * F, row, 2 * F);
        }
    })
}
