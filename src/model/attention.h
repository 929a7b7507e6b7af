// SPDX-License-Identifier: MIT
/* Causal self-attention with RoPE between two BitLinear layers: y = x + o_proj(attention(rope(qkv_proj(norm(x))))). */
#ifndef BB_MODEL_ATTENTION_H
#define BB_MODEL_ATTENTION_H

#include "model/block.h"

void bb_attention_block_forward(bb_device *dev, const bb_block *block, bb_block_saved *saved, const bb_block_scratch *scratch,
                                float *y, const float *x, const bb_block_shape *shape, const bb_kv_view *kv);
void bb_attention_block_backward(bb_device *dev, const bb_block *block, const bb_block_saved *saved,
                                 const bb_block_scratch *scratch, float *dx, const float *x, const bb_block_shape *shape);

#endif
