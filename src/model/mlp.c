/* SPDX-License-Identifier: MIT */
#include "model/mlp.h"

void bb_mlp_block_forward(bb_device *dev, const bb_block *block, bb_block_saved *sv, const bb_block_scratch *scratch, float *y,
                          const float *x, const bb_block_shape *s) {
    const bb_ops *ops = dev->ops;
    int64_t M = s->B * s->T;
    ops->rmsnorm_forward(dev, sv->a3, sv->r2, x, block->n2, s->norm_eps, M, s->C);
    ops->linear_forward(dev, scratch->wide, NULL, sv->a3, &block->gate_up, M);
    ops->swiglu_forward(dev, sv->a4, sv->gate_up, scratch->wide, M, s->F);
    if (y) ops->linear_forward(dev, y, x, sv->a4, &block->down, M);
}

void bb_mlp_block_backward(bb_device *dev, const bb_block *block, const bb_block_saved *sv, const bb_block_scratch *scratch,
                           float *dx, const float *x, const bb_block_shape *s) {
    const bb_ops *ops = dev->ops;
    int64_t M = s->B * s->T;
    void *d_h = scratch->d_narrow, *d_gate_up = scratch->d_wide, *d_norm = scratch->d_narrow;
    ops->linear_backward(dev, d_h, block->dw_down, dx, BB_F32, sv->a4, &block->down, M);
    ops->swiglu_backward(dev, d_gate_up, sv->gate_up, d_h, M, s->F);
    ops->linear_backward(dev, d_norm, block->dw_gate_up, d_gate_up, ops->act_dtype, sv->a3, &block->gate_up, M);
    ops->rmsnorm_backward(dev, dx, block->dn2, d_norm, x, block->n2, sv->r2, M, s->C);
}
