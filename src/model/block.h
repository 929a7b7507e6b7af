// SPDX-License-Identifier: MIT
/* One transformer block: x += attention(rmsnorm(x)); x += mlp(rmsnorm(x)). Forward and backward. */
#ifndef BB_MODEL_BLOCK_H
#define BB_MODEL_BLOCK_H

#include "core/arena.h"
#include "ops/ops.h"

typedef struct bb_block {
    /* parameters and their gradients (NULL when not training), device */
    float *n1, *n2, *dn1, *dn2;              /* (C) */
    float *w_qkv, *w_o, *w_gate_up, *w_down; /* (C+2HkD,C) (C,C) (2F,C) (C,F) */
    float *dw_qkv, *dw_o, *dw_gate_up, *dw_down;
    bb_ternary qkv, o, gate_up, down;
} bb_block;

/* What backward needs of a forward pass, besides the block's input. */
typedef struct bb_block_saved {
    bb_rows a1, a2, a3, a4; /* inputs of qkv (M,C), o (M,C), gate_up (M,C), down (M,F) */
    float *r1, *r2;         /* (M) */
    float *x_mid;           /* (M,C) f32, between the two halves */
    /* kept for the backward pass; NULL without training */
    void *qkv;     /* act (M, C+2HkD), after RoPE */
    void *att;     /* act (M, C), attention's output */
    void *gate_up; /* act (M,2F) */
    float *lse;    /* (B,H,T) */
} bb_block_saved;

/* Shared by all blocks. */
typedef struct bb_block_scratch {
    /* of the forward pass, for rows taken at a time */
    float *wide; /* (rows, C+2HkD): q, k and v; then (rows, 2F): gate and up */
    float *att;  /* (rows, C) */
    /* of the backward pass, in wide's place; NULL without training */
    void *d_wide;   /* act (M, max(2F, C+2HkD)): d_gate_up, then dqkv */
    void *d_narrow; /* act (M, max(F, C)): dh, da, do */
} bb_block_scratch;

/* Where the keys and values of this block go and come from when generating; NULL in training. */
typedef struct bb_kv_view {
    bb_kv kv;       /* of this layer */
    int64_t length; /* filled before this call */
} bb_kv_view;

typedef struct bb_block_shape {
    int64_t B, T, C, H, Hk, D, F;
    int64_t rows; /* the device's forward_rows: about so many go through each half of a block at a time */
    float norm_eps;
    bool act_quant;
    bool training;      /* a backward pass follows */
    bool add_gradients; /* to what is there; else those of the ternary weights are overwritten */
    const float *rope_cos, *rope_sin;
} bb_block_shape;

/* Rows that the MLP's half takes at a time, and sequences that attention's does, at least one. */
static inline int64_t bb_block_rows(const bb_block_shape *s) { return s->B * s->T < s->rows ? s->B * s->T : s->rows; }
static inline int64_t bb_block_sequences(const bb_block_shape *s) {
    int64_t n = s->rows / s->T;
    return n < 1 ? 1 : n < s->B ? n : s->B;
}

/* x from row `first` on; rows of K. */
static inline void *bb_rows_at(void *x, bb_dtype dtype, int64_t first, int64_t K) {
    return x ? (unsigned char *)x + (size_t)(first * K) * bb_dtype_bytes(dtype) : NULL;
}
static inline bb_rows bb_rows_from(bb_rows x, int64_t first, int64_t K) {
    return (bb_rows){bb_rows_at(x.data, x.dtype, first, K), x.scale ? x.scale + first : NULL, x.dtype};
}

void bb_block_saved_carve(bb_block_saved *s, bb_arena *arena, bb_dtype act, const bb_block_shape *shape);
void bb_block_scratch_carve(bb_block_scratch *s, bb_arena *arena, bb_dtype act, const bb_block_shape *shape);

/* y (M,C) from x (M,C), f32; y may be x when no backward follows, and NULL when only `saved` is wanted (recomputing). */
void bb_block_forward(bb_device *dev, const bb_block *block, bb_block_saved *saved, const bb_block_scratch *scratch, float *y,
                      const float *x, const bb_block_shape *shape, const bb_kv_view *kv);
/* dx: in, the gradient of y; out, the gradient of x. Adds to the block's parameter gradients. */
void bb_block_backward(bb_device *dev, const bb_block *block, const bb_block_saved *saved, const bb_block_scratch *scratch,
                       float *dx, const float *x, const bb_block_shape *shape);

#endif
