// SPDX-License-Identifier: MIT
/* Tiles of matrix products with AVX-512's dot-product instructions (VNNI for int8, BF16) or AMX, with the epilogue applied
 * before the sums leave the nearest caches. For processors with AVX-512 BF16; functions with int8 inputs and f32 results need
 * only VNNI. A tile is `rows` rows of A times a panel: 64 columns of B, divided into k-steps of 4 k (int8) or 2 k (bf16). For
 * each k-step the panel has 4 bytes per column, 256 in all, and each row of A has 4 bytes. */
#ifndef BB_OPS_CPU_DOT_H
#define BB_OPS_CPU_DOT_H

#include "ops/cpu/device/cpu.h"

#if defined(__x86_64__)

enum { BB_DOT_COLUMNS = 64, BB_DOT_K_STEP_BYTES = 256, BB_DOT_QUAD_ROWS = 96 };

/* Where a tile's results go. */
typedef struct bb_dot_output {
    void *y;
    bb_dtype dtype;        /* BB_F32 or BB_BF16 */
    const float *residual; /* same layout as y, added if y is f32; may be y itself, or NULL */
    int64_t stride;        /* elements between rows */
    int64_t columns;       /* 1 .. 64 of the panel's columns */
    bool non_temporal;     /* use non-temporal stores: the output exceeds the caches and is not read soon */
} bb_dot_output;

/* What differs between instruction sets. */
typedef struct bb_dot_set {
    bool int8_by_rows;         /* int8 forward: read a row tile once for all panels, rather than a panel once for all rows */
    bool int8_weight_gradient; /* dW is an int8 product if x is int8; otherwise bf16 */
    int64_t k_steps;           /* k_steps of int8() and add() must be a multiple of this */
    /* largest tile of dW: its rows and columns, whose sums stay in the second-level cache together with the rows of `tokens`
     * tokens, which are packed anew for each tile */
    int64_t rows, columns, tokens;
    /* Called on each thread before and after these products. */
    void (*open)(void);
    void (*close)(void);
    /* y = s[row] * g * (sum_k a * b - a_sums[row]).  a: int8, rows a_stride bytes apart; panel: uint8. With b = q + 1 and
     * a_sums the sums of a's rows, this is the product with q. */
    void (*int8)(bb_dot_output out, const int8_t *a, int64_t a_stride, int64_t rows, int64_t k_steps, const uint8_t *panel,
                 const int32_t *a_sums, const float *s, float g);
    /* c = (add ? c : 0) + sum_k a * b, c in f32, rows c_stride elements apart, `columns` of them; panel: bf16; next: the panel
     * of the next call, or NULL. left: a, packed by pack_left: */
    void (*add)(float *c, bool add, int64_t c_stride, int64_t columns, const uint32_t *left, int64_t rows, int64_t k_steps,
                const void *panel, const void *next);
    /* packs x (tokens, rows), rows x_stride elements apart, times s (tokens) unless s is NULL: k-step i has tokens 2i and 2i +
     * 1, zeros for missing ones. left: `k_steps` times the set's `rows` words. */
    void (*pack_left)(uint32_t *left, const void *x, bb_dtype dtype, int64_t x_stride, const float *s, int64_t tokens,
                      int64_t k_steps, int64_t rows);
} bb_dot_set;

extern const bb_dot_set bb_dot_avx512, bb_dot_amx;

/* A run of k with its own scale. */
typedef struct bb_dot_part {
    const bb_bf16 *a;
    const void *panel; /* bf16 */
    int64_t k_steps;
    float g;
} bb_dot_part;

/* y = sum over parts of g * (sum_k a * b). Rows of each part's a are a_stride elements apart. */
void bb_dot_bf16(bb_dot_output out, int64_t a_stride, int64_t rows, const bb_dot_part *parts, int count);

/* sums[r] = sum_k a[r,k].  a: (rows, K) int8. */
void bb_dot_row_sums(int32_t *sums, const int8_t *a, int64_t rows, int64_t K);

/* pairs[p * pairs_stride + i] = (s[2p] * x[2p,i], s[2p+1] * x[2p+1,i]) in bf16, for 0 <= 2p < rows; x: (rows, n), rows x_stride
 * elements apart, of dtype BB_I8, BB_BF16 or BB_F32. An odd last row is paired with zeros. Writes n rounded up to a multiple of
 * 16, padded with zeros. s NULL: ones. */
void bb_dot_pack_pairs(uint32_t *pairs, int64_t pairs_stride, const void *x, bb_dtype dtype, int64_t x_stride, const float *s,
                       int64_t rows, int64_t n);

/* For dW in int8: rows of A (columns of dy) over a run of tokens, each quantized with scale max/127. */
typedef struct bb_dot_quads {
    uint32_t *left; /* (k_steps, BB_DOT_QUAD_ROWS): four tokens of int8, zeros for missing ones */
    int32_t *sums;  /* (BB_DOT_QUAD_ROWS): sum of each row's codes */
    float *scales;  /* (BB_DOT_QUAD_ROWS) */
} bb_dot_quads;

/* Packs x (tokens, n), rows x_stride elements apart, of dtype BB_BF16 or BB_F32, times s (tokens). */
void bb_dot_pack_quads(bb_dot_quads *a, const void *x, bb_dtype dtype, int64_t x_stride, const float *s, int64_t tokens,
                       int64_t n);
/* Packs a panel of B, bytes x + 128, from codes x (tokens, columns), rows x_stride apart. Missing tokens are 128; missing
 * columns are undefined. */
void bb_dot_pack_codes(uint8_t *panel, const int8_t *x, int64_t x_stride, int64_t tokens, int64_t columns);
/* c = (add ? c : 0) + scale * sum_k a * x, the sum exact; c in f32, rows c_stride elements apart, `columns` of them. */
void bb_dot_add_int8(float *c, bool add, int64_t c_stride, int64_t columns, const bb_dot_quads *a, int64_t rows,
                     int64_t k_steps, const uint8_t *panel);

/* Converts expanded k-steps of a panel of ternary.h (64 rows of W, as columns of B) to bf16: two k-steps from each. */
void bb_dot_expand_panel(bb_bf16 *out, const uint8_t *from, int64_t k_steps);
/* Transposes the first 64 columns of these 64 rows into rows of B, with the rows of W as k: 32 k-steps. Missing columns are
 * zero. */
void bb_dot_expand_rows(bb_bf16 *out, const uint8_t *from, int64_t columns);
/* The same as bytes q + 1, for bb_dot_set.int8: 16 k-steps. Missing columns are undefined. */
void bb_dot_expand_rows_int8(uint8_t *out, const uint8_t *from, int64_t columns);

/* max |x[i]|, NaN if any is NaN; x: (n), BB_F32 or BB_BF16. */
float bb_dot_absmax(const void *x, bb_dtype dtype, int64_t n);
/* q[i] = round_half_even(x[i] * scale), for |x[i]| * scale <= 127; returns the sum of q. */
int32_t bb_dot_quantize(int8_t *q, const void *x, bb_dtype dtype, float scale, int64_t n);

#endif

#endif
