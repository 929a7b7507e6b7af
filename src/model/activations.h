// SPDX-License-Identifier: MIT
/* The memory of a block's passes: what the forward pass saves for backward, and scratch shared by all blocks. */
#ifndef BB_MODEL_ACTIVATIONS_H
#define BB_MODEL_ACTIVATIONS_H

#include "core/arena.h"
#include "core/math.h"
#include "model/weights.h"

typedef struct bb_block_shape {
    int64_t B, T, C, H, Hk, D, F;
    int64_t rows; /* the device's forward_rows: about how many rows each half of a block processes at a time */
    float norm_eps;
    bool act_quant;
    bool dense;
    bool training;      /* a backward pass follows */
    bool add_gradients; /* accumulate the gradients of ternary weights; otherwise overwrite them */
    const float *rope_cos, *rope_sin;
} bb_block_shape;

/* The values that backward needs from the forward pass, besides the block's input. M = B*T. */
typedef struct bb_block_saved {
    bb_rows qkv_in, o_in, gate_up_in, down_in; /* inputs of the linear layers: (M,C) (M,C) (M,C) (M,F) */
    float *r1, *r2;                            /* (M), of the two norms */
    float *x_mid;                              /* (M,C) f32, the residual between the two halves */
    /* NULL without training */
    void *qkv;     /* act (M, C+2HkD), after RoPE */
    void *att;     /* act (M, C), attention's output */
    void *gate_up; /* act (M,2F) */
    float *lse;    /* (B,H,T) */
} bb_block_saved;

typedef struct bb_block_scratch {
    /* scratch of the forward pass, for the rows processed at a time */
    float *wide; /* (rows, C+2HkD): q, k and v; then (rows, 2F): gate and up */
    float *att;  /* (rows, C) */
    /* scratch of the backward pass, in the same memory; NULL without training */
    void *d_wide;   /* act (M, max(2F, C+2HkD)): d_gate_up, then dqkv */
    void *d_narrow; /* act (M, max(F, C)): dh, da, do */
    float *d_dense; /* (M, max(2F, C+2HkD)), d_wide in f32; in a dense model only */
} bb_block_scratch;

/* One pass of a block, or of one of its halves. */
typedef struct bb_block_pass {
    bb_device *device;
    const bb_block *weights;
    bb_block_saved *saved;
    const bb_block_scratch *scratch;
    const bb_block_shape *shape;
    /* For a cached pass: the sequences of the batch, whose rows are stacked (in the shape, B is 1 and T their number);
     * otherwise NULL. */
    const bb_kv_sequence *sequences;
    int64_t sequence_count;
    int layer;
} bb_block_pass;

/* Rows that the MLP processes at a time, and sequences that attention processes at a time (at least one). */
static inline int64_t bb_block_rows(const bb_block_shape *s) { return bb_min(s->B * s->T, s->rows); }
static inline int64_t bb_block_sequences(const bb_block_shape *s) { return bb_min(bb_max(s->rows / s->T, 1), s->B); }

/* x from row `first` on, with rows of K elements. NULL stays NULL. */
static inline void *bb_rows_at(void *x, bb_dtype dtype, int64_t first, int64_t K) {
    return x ? (unsigned char *)x + (size_t)(first * K) * bb_dtype_bytes(dtype) : NULL;
}
static inline bb_rows bb_rows_from(bb_rows x, int64_t first, int64_t K) {
    return (bb_rows){bb_rows_at(x.data, x.dtype, first, K), x.scale ? x.scale + first : NULL, x.dtype};
}

void bb_block_saved_layout(bb_block_saved *s, bb_arena *arena, bb_dtype act, const bb_block_shape *shape);
void bb_block_scratch_layout(bb_block_scratch *s, bb_arena *arena, bb_dtype act, const bb_block_shape *shape);

#endif
