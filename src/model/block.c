// SPDX-License-Identifier: MIT
#include "model/block.h"

#include "model/attention.h"
#include "model/mlp.h"

/* Int8 with a scale a row, or as the activations are. */
static bb_rows carve_rows(bb_arena *arena, bb_dtype act, int64_t M, int64_t K, bool act_quant) {
    bb_dtype dtype = act_quant ? BB_I8 : act;
    return (bb_rows){.data = bb_arena_take(arena, (size_t)(M * K) * bb_dtype_bytes(dtype)),
                     .scale = act_quant ? bb_arena_take(arena, (size_t)M * sizeof(float)) : NULL,
                     .dtype = dtype};
}

static int64_t qkv_width(const bb_block_shape *s) { return (s->H + 2 * s->Hk) * s->D; }

void bb_block_saved_carve(bb_block_saved *v, bb_arena *arena, bb_dtype act, const bb_block_shape *s) {
    int64_t M = s->B * s->T;
    size_t act_bytes = bb_dtype_bytes(act), f32 = sizeof(float);
    *v = (bb_block_saved){0};
    v->a1 = carve_rows(arena, act, M, s->C, s->act_quant);
    v->a2 = carve_rows(arena, act, M, s->C, s->act_quant);
    v->a3 = carve_rows(arena, act, M, s->C, s->act_quant);
    v->a4 = carve_rows(arena, act, M, s->F, s->act_quant);
    v->r1 = bb_arena_take(arena, (size_t)M * f32);
    v->r2 = bb_arena_take(arena, (size_t)M * f32);
    v->x_mid = bb_arena_take(arena, (size_t)(M * s->C) * f32);
    if (!s->training) return;
    v->qkv = bb_arena_take(arena, (size_t)(M * qkv_width(s)) * act_bytes);
    v->att = bb_arena_take(arena, (size_t)(M * s->C) * act_bytes);
    v->gate_up = bb_arena_take(arena, (size_t)(2 * M * s->F) * act_bytes);
    v->lse = bb_arena_take(arena, (size_t)(M * s->H) * f32);
}

void bb_block_scratch_carve(bb_block_scratch *v, bb_arena *arena, bb_dtype act, const bb_block_shape *s) {
    int64_t M = s->B * s->T, qkv = qkv_width(s), rows = bb_block_rows(s);
    int64_t att_rows = s->T > rows ? s->T : rows; /* also of shorter sequences, and more of them */
    int64_t att_wide = att_rows * qkv, mlp_wide = rows * 2 * s->F;
    bb_arena backward = *arena;
    *v = (bb_block_scratch){0};
    v->wide = bb_arena_take(arena, (size_t)(att_wide > mlp_wide ? att_wide : mlp_wide) * sizeof(float));
    v->att = bb_arena_take(arena, (size_t)(att_rows * s->C) * sizeof(float));
    if (!s->training) return;
    /* the two passes of a block do not overlap */
    v->d_wide = bb_arena_take(&backward, (size_t)(M * (2 * s->F > qkv ? 2 * s->F : qkv)) * bb_dtype_bytes(act));
    v->d_narrow = bb_arena_take(&backward, (size_t)(M * (s->F > s->C ? s->F : s->C)) * bb_dtype_bytes(act));
    if (backward.used > arena->used) arena->used = backward.used;
}

void bb_block_forward(bb_device *dev, const bb_block *block, bb_block_saved *saved, const bb_block_scratch *scratch, float *y,
                      const float *x, const bb_block_shape *shape, const bb_kv_view *kv) {
    bb_attention_block_forward(dev, block, saved, scratch, saved->x_mid, x, shape, kv);
    bb_mlp_block_forward(dev, block, saved, scratch, y, saved->x_mid, shape);
}

void bb_block_backward(bb_device *dev, const bb_block *block, const bb_block_saved *saved, const bb_block_scratch *scratch,
                       float *dx, const float *x, const bb_block_shape *shape) {
    bb_mlp_block_backward(dev, block, saved, scratch, dx, saved->x_mid, shape);
    bb_attention_block_backward(dev, block, saved, scratch, dx, x, shape);
}
