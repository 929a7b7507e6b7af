// SPDX-License-Identifier: MIT
#include "model/linear.h"

/* A dense layer is the head's product with other weights. */
static bb_head product_of(bb_linear l, int64_t M) { return (bb_head){.e = l.w, .M = M, .V = l.t->n, .C = l.t->k}; }

void bb_linear_forward(const bb_block_pass *pass, bb_linear l, float *y, const float *residual, bb_rows x, int64_t M) {
    bb_device *dev = pass->device;
    if (!pass->shape->dense) {
        dev->ops->linear_forward(dev, y, residual, x, l.t, M);
        return;
    }
    const bb_head product = product_of(l, M);
    dev->ops->head_forward(dev, y, x.data, &product);
    if (residual) dev->ops->add(dev, y, residual, M * l.t->n);
}

void bb_linear_backward(const bb_block_pass *pass, bb_linear l, void *dx, const void *dy, bb_dtype dy_dtype, bb_rows x,
                        int64_t M) {
    bb_device *dev = pass->device;
    if (!pass->shape->dense) {
        dev->ops->linear_backward(dev, dx, (bb_layer_gradient){dy, dy_dtype, l.dw, pass->shape->add_gradients}, x, l.t, M);
        return;
    }
    if (dy_dtype != BB_F32) {
        dev->ops->act_to_f32(dev, pass->scratch->d_dense, dy, M * l.t->n);
        dy = pass->scratch->d_dense;
    }
    /* dw accumulates: it is among the gradients that the backward pass zeroes first */
    const bb_head product = product_of(l, M);
    dev->ops->head_backward(dev, dx, l.dw, dy, x.data, &product);
}
