// SPDX-License-Identifier: MIT
#include "model/block.h"

#include "model/attention.h"
#include "model/mlp.h"

void bb_block_forward(const bb_block_pass *pass, float *y, const float *x) {
    bb_attention_block_forward(pass, pass->saved->x_mid, x);
    bb_mlp_block_forward(pass, y, pass->saved->x_mid);
}

void bb_block_backward(const bb_block_pass *pass, float *dx, const float *x) {
    bb_mlp_block_backward(pass, dx, pass->saved->x_mid);
    bb_attention_block_backward(pass, dx, x);
}
