// SPDX-License-Identifier: MIT
#include "model/weights.h"

enum {
    MATRICES = 4,           /* per block */
    CACHED_BYTES = 64000000 /* bytes of 2-bit matrices that may stay in the last-level cache */
};

/* The dense layout pays off if small batches are limited by memory. From the caches, reading is faster than unpacking it. */
static bool dense_for(bb_device *device, const bb_config *c) {
    int64_t C = c->d_model, kv = c->n_kv_head * (C / c->n_head), weights = c->n_layer * C * (2 * (C + kv) + 3 * c->d_ff);
    return weights / 4 > CACHED_BYTES && device->ops->ternary_dense(device);
}

static void lay_out(bb_block *blocks, int layers, bb_arena *arena, bb_device *device, const bb_config *c, bool dense_layout) {
    int64_t C = c->d_model, kv = c->n_kv_head * (C / c->n_head), F = c->d_ff;
    for (int l = 0; l < layers; l++) {
        bb_block *b = &blocks[l];
        b->qkv = (bb_ternary){.n = C + 2 * kv, .k = C, .segments = 3, .segment_end = {C, C + kv, C + 2 * kv}};
        b->o = (bb_ternary){.n = C, .k = C, .segments = 1, .segment_end = {C}};
        b->gate_up = (bb_ternary){.n = 2 * F, .k = C, .segments = 1, .segment_end = {2 * F}};
        b->down = (bb_ternary){.n = C, .k = F, .segments = 1, .segment_end = {C}};
        bb_ternary *matrices[MATRICES] = {&b->qkv, &b->o, &b->gate_up, &b->down};
        for (int i = 0; i < MATRICES; i++) {
            matrices[i]->dense = dense_layout;
            if (c->dense) continue; /* only the shapes: the layers read their parameters */
            matrices[i]->data = bb_arena_alloc(arena, device->ops->ternary_bytes(device, matrices[i]));
        }
    }
    for (int l = 0; l < layers && !c->dense; l++) {
        bb_block *b = &blocks[l];
        bb_ternary *matrices[MATRICES] = {&b->qkv, &b->o, &b->gate_up, &b->down};
        for (int i = 0; i < MATRICES; i++) {
            matrices[i]->scale = bb_arena_alloc(arena, (size_t)matrices[i]->segments * sizeof(float));
            matrices[i]->next = i + 1 < MATRICES ? matrices[i + 1] : l + 1 < layers ? &blocks[l + 1].qkv : NULL;
        }
    }
}

void bb_weights_layout(bb_block *blocks, bb_arena *arena, bb_device *device, const bb_config *c, bool for_inference) {
    lay_out(blocks, c->n_layer, arena, device, c, for_inference && dense_for(device, c));
}

size_t bb_weights_bytes(bb_device *device, const bb_config *c, bool for_inference) {
    bb_arena measure = {0};
    bb_block block;
    lay_out(&block, 1, &measure, device, c, for_inference && dense_for(device, c));
    return measure.used * (size_t)c->n_layer;
}

static float *tensor_at(float *base, const bb_param_table *table, int index) {
    int64_t offset = table->entries[index].offset;
    return base && offset >= 0 ? base + offset : NULL;
}

void bb_weights_bind(bb_block *blocks, const bb_param_table *table, int n_layer, float *params, float *grads) {
    for (int l = 0; l < n_layer; l++) {
        int first = table->first_block + l * BB_PARAMS_PER_BLOCK;
        bb_block *b = &blocks[l];
        b->n1 = tensor_at(params, table, first + BB_P_N1);
        b->n2 = tensor_at(params, table, first + BB_P_N2);
        b->w_qkv = tensor_at(params, table, first + BB_P_Q); /* k and v follow q without gaps */
        b->w_o = tensor_at(params, table, first + BB_P_O);
        b->w_gate_up = tensor_at(params, table, first + BB_P_GATE_UP);
        b->w_down = tensor_at(params, table, first + BB_P_DOWN);
        b->dn1 = tensor_at(grads, table, first + BB_P_N1);
        b->dn2 = tensor_at(grads, table, first + BB_P_N2);
        b->dw_qkv = tensor_at(grads, table, first + BB_P_Q);
        b->dw_o = tensor_at(grads, table, first + BB_P_O);
        b->dw_gate_up = tensor_at(grads, table, first + BB_P_GATE_UP);
        b->dw_down = tensor_at(grads, table, first + BB_P_DOWN);
    }
}

void bb_weights_quantize(bb_device *device, const bb_block *blocks, int n_layer) {
    const bb_ops *ops = device->ops;
    for (int l = 0; l < n_layer; l++) {
        const bb_block *b = &blocks[l];
        ops->ternary_quant(device, &b->qkv, b->w_qkv);
        ops->ternary_quant(device, &b->o, b->w_o);
        ops->ternary_quant(device, &b->gate_up, b->w_gate_up);
        ops->ternary_quant(device, &b->down, b->w_down);
    }
}

void bb_weights_clip_gradients(bb_device *device, const bb_block *b) {
    const bb_ops *ops = device->ops;
    ops->ste_clip(device, b->dw_qkv, b->w_qkv, &b->qkv);
    ops->ste_clip(device, b->dw_o, b->w_o, &b->o);
    ops->ste_clip(device, b->dw_gate_up, b->w_gate_up, &b->gate_up);
    ops->ste_clip(device, b->dw_down, b->w_down, &b->down);
}

bb_ternary bb_weights_ternary(bb_device *device, const bb_block *blocks, int index) {
    const bb_block *b = &blocks[index / BB_PARAMS_PER_BLOCK];
    switch (index % BB_PARAMS_PER_BLOCK) {
    case BB_P_Q: return bb_ternary_segment(device, &b->qkv, 0);
    case BB_P_K: return bb_ternary_segment(device, &b->qkv, 1);
    case BB_P_V: return bb_ternary_segment(device, &b->qkv, 2);
    case BB_P_O: return b->o;
    case BB_P_GATE_UP: return b->gate_up;
    default: return b->down;
    }
}
