// SPDX-License-Identifier: MIT
/* The weights of the blocks: pointers to their parameters and gradients, and the ternary matrices prepared from them. */
#ifndef BB_MODEL_WEIGHTS_H
#define BB_MODEL_WEIGHTS_H

#include "core/arena.h"
#include "model/params.h"
#include "ops/ops.h"

typedef struct bb_block {
    /* Device memory. Parameters of ternary matrices are NULL in a model for inference; gradients are NULL without training. */
    float *n1, *n2, *dn1, *dn2;              /* (C) */
    float *w_qkv, *w_o, *w_gate_up, *w_down; /* (C+2HkD,C) (C,C) (2F,C) (C,F) */
    float *dw_qkv, *dw_o, *dw_gate_up, *dw_down;
    bb_ternary qkv, o, gate_up, down; /* prepared: qkv has the segments q, k and v. In a dense model only their shapes count. */
} bb_block;

/* Lays out the prepared matrices of blocks (n_layer) in the arena: all data in the order of the parameters, then all scales. */
void bb_weights_layout(bb_block *blocks, bb_arena *arena, bb_device *device, const bb_config *config, bool for_inference);
/* Returns the size of the prepared matrices; 0 for a dense model. */
size_t bb_weights_bytes(bb_device *device, const bb_config *config, bool for_inference);
/* Points blocks (n_layer) at their parameters and gradients; either may be NULL. */
void bb_weights_bind(bb_block *blocks, const bb_param_table *table, int n_layer, float *params, float *grads);
/* Quantizes all ternary matrices from their parameters. */
void bb_weights_quantize(bb_device *device, const bb_block *blocks, int n_layer);
/* Zeroes the gradients of weights with |w| > scale (the clipped straight-through estimator). */
void bb_weights_clip_gradients(bb_device *device, const bb_block *block);
/* Returns the prepared matrix of ternary tensor `index` of the blocks, layer * BB_PARAMS_PER_BLOCK + BB_P_*: one segment, in
 * the blocks' memory. */
bb_ternary bb_weights_ternary(bb_device *device, const bb_block *blocks, int index);

#endif
