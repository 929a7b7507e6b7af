// SPDX-License-Identifier: MIT
#include "model/mlp.h"

void bb_mlp_block_forward(bb_device *dev, const bb_block *block, bb_block_saved *sv, const bb_block_scratch *scratch, float *y,
                          const float *x, const bb_block_shape *s) {
    const bb_ops *ops = dev->ops;
    int64_t M = s->B * s->T, C = s->C, F = s->F;
    int64_t most = bb_block_rows(s);
    for (int64_t m = 0; m < M; m += most) {
        int64_t n = M - m < most ? M - m : most;
        bb_rows in = bb_rows_from(sv->a3, m, C), hidden = bb_rows_from(sv->a4, m, F);
        ops->rmsnorm_forward(dev, in, sv->r2 + m, x + m * C, block->n2, s->norm_eps, n, C);
        ops->linear_forward(dev, scratch->wide, NULL, in, &block->gate_up, n);
        ops->swiglu_forward(dev, hidden, bb_rows_at(sv->gate_up, ops->act_dtype, m, 2 * F), scratch->wide, n, F);
        if (y) ops->linear_forward(dev, y + m * C, x + m * C, hidden, &block->down, n);
    }
}

void bb_mlp_block_backward(bb_device *dev, const bb_block *block, const bb_block_saved *sv, const bb_block_scratch *scratch,
                           float *dx, const float *x, const bb_block_shape *s) {
    const bb_ops *ops = dev->ops;
    int64_t M = s->B * s->T;
    void *d_h = scratch->d_narrow, *d_gate_up = scratch->d_wide, *d_norm = scratch->d_narrow;
    ops->linear_backward(dev, d_h, block->dw_down, s->add_gradients, dx, BB_F32, sv->a4, &block->down, M);
    ops->swiglu_backward(dev, d_gate_up, sv->gate_up, d_h, M, s->F);
    ops->linear_backward(dev, d_norm, block->dw_gate_up, s->add_gradients, d_gate_up, ops->act_dtype, sv->a3, &block->gate_up,
                         M);
    ops->rmsnorm_backward(dev, dx, block->dn2, d_norm, x, block->n2, sv->r2, M, s->C);
}
