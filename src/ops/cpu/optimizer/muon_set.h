// SPDX-License-Identifier: MIT
/* Muon's loops by instruction set (muon_kernels.c), for muon.c and muon_products.c. Products are made of blocks of 32 x 32 with f32
 * results, from elements of 16 bits: bf16, or int16 with a scale for each row of a left and each column of a right operand.
 *
 * An operand is stored in words of two elements along k, padded to whole blocks with zeros. As a left operand (rows, k) its rows are in
 * order, `stride` words apart. As a right operand (k, columns) it is in panels of 32 columns, k / 2 rows of 32 words each: word c of row
 * p has elements 2p and 2p + 1 of column c. So the two forms of a matrix and its transpose are transposes of words. */
#ifndef BB_OPS_CPU_MUON_SET_H
#define BB_OPS_CPU_MUON_SET_H

#include "ops/cpu/device/cpu.h"

enum { BB_MUON_SIDE = 32, BB_MUON_WORDS = BB_MUON_SIDE / 2, BB_MUON_BLOCK = BB_MUON_SIDE * BB_MUON_SIDE };

typedef struct bb_muon_momentum {
    float mu, rest, scale; /* rest: 1 - mu; scale: of gradients */
} bb_muon_momentum;

/* What makes sums of codes a block of a product: c = row_scale column_scale c + left_diagonal right + left right_diagonal, by element,
 * each (32) or a block; the diagonals of symmetric factors are kept apart from their codes. left, right: NULL if there are none. */
typedef struct bb_muon_correction {
    const float *row_scale, *column_scale, *left, *right, *left_diagonal, *right_diagonal;
} bb_muon_correction;

/* c: blocks */
typedef struct bb_muon_set {
    /* The largest code of int16, of which 256 products can be summed; 0: elements are bf16, without scales and corrections. */
    float code_max;
    /* m = mu m + g, u = g + mu m, where g is times scale (1 - mu); *squares: sum of u^2 */
    void (*momentum)(float *u, double *squares, const float *g, bb_bf16 *m, int64_t n, const bb_muon_momentum *k);
    void (*scale)(float *x, float factor, int64_t n);
    void (*update)(float *p, const float *x, float kept, float lr, int64_t n); /* p = kept p - lr x */
    /* The words of c's rows, `stride` apart, each row times inverse[row]; and of its columns: a panel's rows, each column times
     * inverse[column]. bf16 ignores inverse. */
    void (*rows)(uint32_t *to, int64_t stride, const float *c, const float *inverse);
    void (*columns)(uint32_t *to, const float *c, const float *inverse);
    /* Transposes 16 rows of 16 words; strides in words. */
    void (*transpose)(uint32_t *to, int64_t to_stride, const uint32_t *from, int64_t from_stride);
    void (*polynomial)(float *c, const float *a); /* c = BB_MUON_B a + BB_MUON_C c */
    void (*correct)(float *c, const bb_muon_correction *f);
    /* Maxima of |c| by row and column, as bits, which compare like the numbers, NaN largest. */
    void (*maxima)(uint32_t rows[BB_MUON_SIDE], uint32_t columns[BB_MUON_SIDE], const float *c);
} bb_muon_set;

typedef struct bb_muon_blocks {
    /* Called on each thread before and after multiply(); NULL: nothing to do. */
    void (*open)(void);
    void (*close)(void);
    /* c = (add ? c : 0) + left right, over k_tiles times 32 k; right: the panel's row for the first of these. */
    void (*multiply)(float *c, bool add, const uint32_t *left, int64_t stride, const uint32_t *right, int64_t k_tiles);
} bb_muon_blocks;

extern const bb_muon_set bb_muon_generic_training;
extern const bb_muon_blocks bb_muon_blocks_generic_training;
#if defined(__x86_64__)
extern const bb_muon_set bb_muon_avx2, bb_muon_avx512, bb_muon_avx512_bf16;
extern const bb_muon_blocks bb_muon_blocks_avx2, bb_muon_blocks_avx_vnni, bb_muon_blocks_avx512, bb_muon_blocks_avx512_vnni,
    bb_muon_blocks_avx512_bf16, bb_muon_blocks_amx;
#endif

#endif
