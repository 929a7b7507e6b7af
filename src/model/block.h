// SPDX-License-Identifier: MIT
/* One transformer block: x += attention(rmsnorm(x)); x += mlp(rmsnorm(x)). */
#ifndef BB_MODEL_BLOCK_H
#define BB_MODEL_BLOCK_H

#include "model/activations.h"

/* y (M,C) from x (M,C), f32. y may be x if no backward pass follows. y NULL: only fills `saved` (recomputation). */
void bb_block_forward(const bb_block_pass *pass, float *y, const float *x);
/* dx: on entry the gradient of y, on return the gradient of x. Parameter gradients go to pass->weights. */
void bb_block_backward(const bb_block_pass *pass, float *dx, const float *x);

#endif
