// SPDX-License-Identifier: MIT
/* A linear layer of a block: ternary, or in f32 in a dense model. */
#ifndef BB_MODEL_LINEAR_H
#define BB_MODEL_LINEAR_H

#include "model/activations.h"

typedef struct bb_linear {
    const bb_ternary *t; /* (N,K); in a dense model only its shape counts */
    const float *w;      /* (N,K), the parameters */
    float *dw;           /* (N,K); NULL without training */
} bb_linear;

static inline bb_linear bb_linear_qkv(const bb_block *b) { return (bb_linear){&b->qkv, b->w_qkv, b->dw_qkv}; }
static inline bb_linear bb_linear_o(const bb_block *b) { return (bb_linear){&b->o, b->w_o, b->dw_o}; }
static inline bb_linear bb_linear_gate_up(const bb_block *b) { return (bb_linear){&b->gate_up, b->w_gate_up, b->dw_gate_up}; }
static inline bb_linear bb_linear_down(const bb_block *b) { return (bb_linear){&b->down, b->w_down, b->dw_down}; }

/* The operations linear_forward and linear_backward of ops.h, on the pass's device and with its add_gradients, except that y is not
 * residual. */
void bb_linear_forward(const bb_block_pass *pass, bb_linear l, float *y, const float *residual, bb_rows x, int64_t M);
void bb_linear_backward(const bb_block_pass *pass, bb_linear l, void *dx, const void *dy, bb_dtype dy_dtype, bb_rows x,
                        int64_t M);

#endif
