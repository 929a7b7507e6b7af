// SPDX-License-Identifier: MIT
/* Causal self-attention with RoPE between two BitLinear layers: y = x + o_proj(attention(rope(qkv_proj(norm(x))))). */
#ifndef BB_MODEL_ATTENTION_H
#define BB_MODEL_ATTENTION_H

#include "model/activations.h"

/* Like bb_block_forward and bb_block_backward; y is never NULL. */
void bb_attention_block_forward(const bb_block_pass *pass, float *y, const float *x);
void bb_attention_block_backward(const bb_block_pass *pass, float *dx, const float *x);

#endif
