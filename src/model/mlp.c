// SPDX-License-Identifier: MIT
#include "model/mlp.h"

#include "model/linear.h"

void bb_mlp_block_forward(const bb_block_pass *pass, float *y, const float *x) {
    bb_device *dev = pass->device;
    const bb_ops *ops = dev->ops;
    const bb_block *block = pass->weights;
    const bb_block_saved *saved = pass->saved;
    const bb_block_shape *s = pass->shape;
    float *gate_up = pass->scratch->wide;
    int64_t M = s->B * s->T, C = s->C, F = s->F, max_rows = bb_block_rows(s);
    for (int64_t m = 0; m < M; m += max_rows) {
        int64_t n = bb_min(M - m, max_rows);
        bb_rows in = bb_rows_from(saved->gate_up_in, m, C), hidden = bb_rows_from(saved->down_in, m, F);
        ops->rmsnorm_forward(dev, in, saved->r2 + m, x + m * C, &(bb_norm){block->n2, s->norm_eps, n, C});
        bb_linear_forward(pass, bb_linear_gate_up(block), gate_up, NULL, in, n);
        ops->swiglu_forward(dev, hidden, bb_rows_at(saved->gate_up, ops->act_dtype, m, 2 * F), gate_up, n, F);
        if (y) bb_linear_forward(pass, bb_linear_down(block), y + m * C, x + m * C, hidden, n);
    }
}

void bb_mlp_block_backward(const bb_block_pass *pass, float *dx, const float *x) {
    bb_device *dev = pass->device;
    const bb_ops *ops = dev->ops;
    const bb_block *block = pass->weights;
    const bb_block_saved *saved = pass->saved;
    const bb_block_shape *s = pass->shape;
    int64_t M = s->B * s->T;
    void *d_h = pass->scratch->d_narrow, *d_gate_up = pass->scratch->d_wide, *d_norm = pass->scratch->d_narrow;
    bb_linear_backward(pass, bb_linear_down(block), d_h, dx, BB_F32, saved->down_in, M);
    ops->swiglu_backward(dev, d_gate_up, saved->gate_up, d_h, M, s->F);
    bb_linear_backward(pass, bb_linear_gate_up(block), d_norm, d_gate_up, ops->act_dtype, saved->gate_up_in, M);
    ops->rmsnorm_backward(dev, dx, block->dn2, d_norm, x, saved->r2, &(bb_norm){block->n2, s->norm_eps, M, s->C});
}
