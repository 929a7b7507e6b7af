// SPDX-License-Identifier: MIT
/* The gated MLP between two BitLinear layers: h = norm(x); y = x + down(silu(gate(h)) * up(h)), where gate and up are one
 * matrix. */
#ifndef BB_MODEL_MLP_H
#define BB_MODEL_MLP_H

#include "model/activations.h"

/* Like bb_block_forward and bb_block_backward. */
void bb_mlp_block_forward(const bb_block_pass *pass, float *y, const float *x);
void bb_mlp_block_backward(const bb_block_pass *pass, float *dx, const float *x);

#endif
