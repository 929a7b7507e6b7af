// SPDX-License-Identifier: MIT
#include "model/activations.h"

/* Int8 with one scale per row, or `act` if activations are not quantized; f32 in a dense model. */
static bb_rows rows_layout(bb_arena *arena, bb_dtype act, int64_t M, int64_t K, const bb_block_shape *s) {
    bb_dtype dtype = s->act_quant ? BB_I8 : s->dense ? BB_F32 : act;
    return (bb_rows){.data = bb_arena_alloc(arena, (size_t)(M * K) * bb_dtype_bytes(dtype)),
                     .scale = s->act_quant ? bb_arena_alloc(arena, (size_t)M * sizeof(float)) : NULL,
                     .dtype = dtype};
}

static int64_t qkv_width(const bb_block_shape *s) { return (s->H + 2 * s->Hk) * s->D; }

void bb_block_saved_layout(bb_block_saved *v, bb_arena *arena, bb_dtype act, const bb_block_shape *s) {
    int64_t M = s->B * s->T;
    size_t act_bytes = bb_dtype_bytes(act), f32 = sizeof(float);
    *v = (bb_block_saved){0};
    v->qkv_in = rows_layout(arena, act, M, s->C, s);
    v->o_in = rows_layout(arena, act, M, s->C, s);
    v->gate_up_in = rows_layout(arena, act, M, s->C, s);
    v->down_in = rows_layout(arena, act, M, s->F, s);
    v->r1 = bb_arena_alloc(arena, (size_t)M * f32);
    v->r2 = bb_arena_alloc(arena, (size_t)M * f32);
    v->x_mid = bb_arena_alloc(arena, (size_t)(M * s->C) * f32);
    if (!s->training) return;
    v->qkv = bb_arena_alloc(arena, (size_t)(M * qkv_width(s)) * act_bytes);
    v->att = bb_arena_alloc(arena, (size_t)(M * s->C) * act_bytes);
    v->gate_up = bb_arena_alloc(arena, (size_t)(2 * M * s->F) * act_bytes);
    v->lse = bb_arena_alloc(arena, (size_t)(M * s->H) * f32);
}

void bb_block_scratch_layout(bb_block_scratch *v, bb_arena *arena, bb_dtype act, const bb_block_shape *s) {
    int64_t M = s->B * s->T, qkv = qkv_width(s), rows = bb_block_rows(s);
    int64_t att_rows = bb_max(s->T, rows); /* a workspace for (B,T) also serves a larger number of shorter sequences */
    bb_arena backward = *arena;
    *v = (bb_block_scratch){0};
    v->wide = bb_arena_alloc(arena, (size_t)bb_max(att_rows * qkv, rows * 2 * s->F) * sizeof(float));
    v->att = bb_arena_alloc(arena, (size_t)(att_rows * s->C) * sizeof(float));
    if (!s->training) return;
    /* the two passes of a block never run at the same time */
    v->d_wide = bb_arena_alloc(&backward, (size_t)(M * bb_max(2 * s->F, qkv)) * bb_dtype_bytes(act));
    v->d_narrow = bb_arena_alloc(&backward, (size_t)(M * bb_max(s->F, s->C)) * bb_dtype_bytes(act));
    if (s->dense) v->d_dense = bb_arena_alloc(&backward, (size_t)(M * bb_max(2 * s->F, qkv)) * sizeof(float));
    if (backward.used > arena->used) arena->used = backward.used;
}
