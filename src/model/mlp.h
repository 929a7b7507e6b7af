// SPDX-License-Identifier: MIT
/* The gated MLP between two BitLinear layers: y = x + down(silu(gate) * up), gate and up one matrix, of norm(x). */
#ifndef BB_MODEL_MLP_H
#define BB_MODEL_MLP_H

#include "model/block.h"

/* y may be NULL: then only `saved` is filled. */
void bb_mlp_block_forward(bb_device *dev, const bb_block *block, bb_block_saved *saved, const bb_block_scratch *scratch,
                          float *y, const float *x, const bb_block_shape *shape);
void bb_mlp_block_backward(bb_device *dev, const bb_block *block, const bb_block_saved *saved, const bb_block_scratch *scratch,
                           float *dx, const float *x, const bb_block_shape *shape);

#endif
