// SPDX-License-Identifier: MIT
/* Products of int8 rows with panels of 64 columns, and what prepares their operands: one set of micro-kernels per instruction
 * set, with the epilogue applied before the sums leave the registers. linear_int8.c and linear_weight.c drive them. A panel is
 * divided into k-steps of 4 k, of 4 bytes per column, 256 in all. */
#ifndef BB_OPS_CPU_DOT_H
#define BB_OPS_CPU_DOT_H

#include "ops/cpu/device/cpu.h"

enum { BB_DOT_COLUMNS = 64, BB_DOT_K_STEP_BYTES = 256, BB_DOT_LEFT_ROWS = 96, BB_DOT_PACK_TOKENS = 64 };

enum { BB_DOT_RUN_TOKENS = 256 /* of dW that share a scale */ };

/* Where a tile's results go. */
typedef struct bb_dot_output {
    void *y;
    bb_dtype dtype;        /* BB_F32 or BB_BF16 */
    const float *residual; /* same layout as y, added if y is f32; may be y itself, or NULL */
    int64_t stride;        /* elements between rows */
    int64_t columns;       /* 1 .. 64 of the panel's columns */
    bool non_temporal;     /* use non-temporal stores: the output exceeds the caches and is not read soon */
} bb_dot_output;

/* Rows of A: int8, `stride` bytes apart, with the sum of each row and its scale. */
typedef struct bb_dot_rows {
    const int8_t *a;
    int64_t stride, count;
    const int32_t *sums;
    const float *scales;
} bb_dot_rows;

/* A panel of B: bytes of 0..2, and the scale of its columns. */
typedef struct bb_dot_panel {
    const uint8_t *codes;
    int64_t k_steps;
    float g;
} bb_dot_panel;

/* Rows of the backward pass, of dtype BB_F32 or BB_BF16, `stride` elements apart, `columns` of each; row t is multiplied by
 * s[t]. */
typedef struct bb_dot_tokens {
    const void *x;
    bb_dtype dtype;
    int64_t stride;
    const float *s;
    int64_t tokens, columns;
} bb_dot_tokens;

/* For dW: rows of A (columns of dy) over a run of tokens, each quantized with a scale of its own, in the set's layout. */
typedef struct bb_dot_left {
    uint32_t *left; /* k_steps x BB_DOT_LEFT_ROWS words of int8 or int16, zeros for missing tokens and rows */
    int32_t *sums;  /* (BB_DOT_LEFT_ROWS): sum of each row's codes, where the set uses it */
    float *scales;  /* (BB_DOT_LEFT_ROWS) */
    int64_t rows;
} bb_dot_left;

/* f32 sums in memory: c = (add ? c : 0) + product. */
typedef struct bb_dot_sums {
    float *c;
    bool add;
    int64_t stride, columns; /* columns: 1 .. 64 */
} bb_dot_sums;

/* The product of the forward pass and of dx. */
typedef struct bb_dot_set {
    int64_t k_steps; /* those of panels must be a multiple of this */
    /* Called on each thread before and after int8(); NULL: nothing to do. */
    void (*open)(void);
    void (*close)(void);
    /* y = scale[row] * g * (sum_k a * b - a_sums[row]). With b = q + 1 this is the product with q. */
    void (*int8)(bb_dot_output out, bb_dot_rows a, bb_dot_panel b);
} bb_dot_set;

/* What prepares its operands. */
typedef struct bb_dot_operands {
    /* sums[r] = sum_k a[r,k].  a: (rows, K) */
    void (*row_sums)(int32_t *sums, const int8_t *a, int64_t rows, int64_t K);
    /* max |x[i]|, NaN if any is NaN; x: (n), BB_F32 or BB_BF16. */
    float (*absmax)(const void *x, bb_dtype dtype, int64_t n);
    /* q[i] = round_half_even(x[i] * scale), for |x[i]| * scale <= 127; returns the sum of q. */
    int32_t (*quantize)(int8_t *q, const void *x, bb_dtype dtype, float scale, int64_t n);
    /* Transposes the first 64 columns of a panel's expanded k-steps (64 rows of W) into a panel with the rows of W as k: 16
     * k-steps. Missing columns are undefined. */
    void (*transpose)(uint8_t *out, const uint8_t *k_steps, int64_t columns);
} bb_dot_operands;

/* The product of dW and its operands. Its k-steps have one word of tokens per column. */
typedef struct bb_dot_weight {
    int64_t word_tokens; /* 4 in int8, 2 in int16 */
    void (*pack_left)(bb_dot_left *a, const bb_dot_tokens *x);
    /* Packs up to BB_DOT_PACK_TOKENS tokens of a panel, from codes x (tokens, columns), rows x_stride apart, in the set's layout.
     * Missing tokens count as zeros; missing columns are undefined. */
    void (*pack_codes)(uint8_t *panel, const int8_t *x, int64_t x_stride, int64_t tokens, int64_t columns);
    /* adds scale * sum_k a * x, the sum exact; panel: packed piece by piece, each of BB_DOT_PACK_TOKENS but the last */
    void (*add)(bb_dot_sums out, const bb_dot_left *a, int64_t k_steps, const uint8_t *panel);
} bb_dot_weight;

extern const bb_dot_set bb_dot_generic;
extern const bb_dot_operands bb_dot_operands_generic;
#if defined(__x86_64__)
extern const bb_dot_set bb_dot_avx2, bb_dot_avx_vnni, bb_dot_vnni, bb_dot_amx;
extern const bb_dot_operands bb_dot_operands_avx2, bb_dot_operands_vnni;
extern const bb_dot_weight bb_dot_weight_avx2, bb_dot_weight_avx_vnni, bb_dot_weight_vnni;
#elif defined(__aarch64__)
extern const bb_dot_set bb_dot_neon_dotprod, bb_dot_neon_i8mm;
extern const bb_dot_weight bb_dot_weight_neon_dotprod, bb_dot_weight_neon_i8mm;
#endif

#endif
