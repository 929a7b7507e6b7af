// SPDX-License-Identifier: MIT
/* Tiles of matrix products by AVX-512's dot-product instructions (VNNI for int8, BF16) or by AMX, with what follows the product
 * done before its sums leave the caches nearest. For processors with AVX-512 BF16; what is in int8 and has f32 results needs VNNI
 * alone. A tile is `rows` rows of A times a panel: 64 columns of B, cut into steps of 4
 * (int8) or 2 (bf16) k; for each step the panel has 4 bytes of each column, 256 in all, and each row of A has 4 bytes. */
#ifndef BB_OPS_CPU_DOT_H
#define BB_OPS_CPU_DOT_H

#include "ops/cpu/device/cpu.h"

#if defined(__x86_64__)

enum { BB_DOT_COLUMNS = 64, BB_DOT_STEP_BYTES = 256, BB_DOT_QUAD_ROWS = 96 };

/* Where the tile's rows go. */
typedef struct bb_dot_output {
    void *y;
    bb_dtype dtype;        /* BB_F32 or BB_BF16 */
    const float *residual; /* at the same places, added where y is f32; it may be y itself, or NULL */
    int64_t stride;        /* elements from row to row */
    int64_t columns;       /* 1 .. 64, of the panel's */
    bool past_caches;      /* more than they hold is written before any of it is read */
} bb_dot_output;

/* What differs between instruction sets. */
typedef struct bb_dot_set {
    bool int8_by_rows;         /* forward in int8: a row tile is read once for all panels, rather than a panel for all rows */
    bool int8_weight_gradient; /* dW is an int8 product where x is int8; otherwise bf16 */
    int64_t steps;             /* those of int8() and add() are a multiple of this */
    /* of dW, the most that is worked on at a time: rows and columns, whose sums stay in the second-level cache with the rows of
     * so many tokens, which are packed anew for each */
    int64_t rows, columns, tokens;
    /* Around these products, on each thread. */
    void (*open)(void);
    void (*close)(void);
    /* y = s[row] * g * (sum_k a * b - a_sums[row]).  a: int8, its rows a_stride bytes apart; panel: uint8. With b = q + 1 and
     * a_sums the sums of a's rows, that is the product with q. */
    void (*int8)(bb_dot_output out, const int8_t *a, int64_t a_stride, int64_t rows, int64_t steps, const uint8_t *panel,
                 const int32_t *a_sums, const float *s, float g);
    /* c = (add ? c : 0) + sum_k a * b, c in f32, its rows c_stride elements apart, `columns` of them; panel: bf16; next: the
     * panel that the next call is for, or NULL. left: a, k first: */
    void (*add)(float *c, bool add, int64_t c_stride, int64_t columns, const uint32_t *left, int64_t rows, int64_t steps,
                const void *panel, const void *next);
    /* packed from x (tokens, rows), its rows x_stride elements apart, times s (tokens) or, where that is NULL, as it is: step i
     * has the tokens 2i and 2i + 1, zeros where there are none. left: `steps` times the most rows words. */
    void (*pack_left)(uint32_t *left, const void *x, bb_dtype dtype, int64_t x_stride, const float *s, int64_t tokens,
                      int64_t steps, int64_t rows);
} bb_dot_set;

extern const bb_dot_set bb_dot_avx512, bb_dot_amx;

/* A run of k with a scale of its own. */
typedef struct bb_dot_part {
    const bb_bf16 *a;
    const void *panel; /* bf16 */
    int64_t steps;
    float g;
} bb_dot_part;

/* y = sum over parts of g * (sum_k a * b). Rows of each part's a are a_stride elements apart. */
void bb_dot_bf16(bb_dot_output out, int64_t a_stride, int64_t rows, const bb_dot_part *parts, int count);

/* sums[r] = sum_k a[r,k].  a: (rows, K) int8. */
void bb_dot_row_sums(int32_t *sums, const int8_t *a, int64_t rows, int64_t K);

/* pairs[p * pairs_stride + i] = (s[2p] * x[2p,i], s[2p+1] * x[2p+1,i]) in bf16, for 0 <= 2p < rows; x: (rows, n), its rows
 * x_stride elements apart, of dtype BB_I8, BB_BF16 or BB_F32; a last odd row is paired with zeros. n up to the next multiple of
 * 16 is written, with zeros. s NULL: ones. */
void bb_dot_pack_pairs(uint32_t *pairs, int64_t pairs_stride, const void *x, bb_dtype dtype, int64_t x_stride, const float *s,
                       int64_t rows, int64_t n);

/* For dW in int8: rows of A (columns of dy) for a run of tokens, each rounded to steps of 1/127 of its largest. */
typedef struct bb_dot_quads {
    uint32_t *left; /* (steps, BB_DOT_QUAD_ROWS): four tokens of int8, zeros where there are none */
    int32_t *sums;  /* (BB_DOT_QUAD_ROWS): of the numbers of a row */
    float *scales;  /* (BB_DOT_QUAD_ROWS): a row's step */
} bb_dot_quads;

/* From x (tokens, n), its rows x_stride elements apart, of dtype BB_BF16 or BB_F32, times s (tokens). */
void bb_dot_pack_quads(bb_dot_quads *a, const void *x, bb_dtype dtype, int64_t x_stride, const float *s, int64_t tokens,
                       int64_t n);
/* A panel of B, bytes x + 128, from codes x (tokens, columns), its rows x_stride apart; 128 stands where there are no tokens,
 * anything where there are no columns. */
void bb_dot_pack_codes(uint8_t *panel, const int8_t *x, int64_t x_stride, int64_t tokens, int64_t columns);
/* c = (add ? c : 0) + scale * sum_k a * x, the sum exact; c in f32, its rows c_stride elements apart, `columns` of them. */
void bb_dot_add_int8(float *c, bool add, int64_t c_stride, int64_t columns, const bb_dot_quads *a, int64_t rows, int64_t steps,
                     const uint8_t *panel);

/* Expanded steps of a panel of ternary.h (64 rows of W, as columns of B) in bf16: two steps from each. */
void bb_dot_expand_panel(bb_bf16 *out, const uint8_t *from, int64_t steps);
/* The first 64 columns of the same 64 rows as rows of B, k now the rows of W: 32 steps. Where there are fewer, zeros follow. */
void bb_dot_expand_rows(bb_bf16 *out, const uint8_t *from, int64_t columns);
/* The same as bytes q + 1, for bb_dot_int8: 16 steps. Where there are fewer columns, anything follows. */
void bb_dot_expand_rows_int8(uint8_t *out, const uint8_t *from, int64_t columns);

/* max |x[i]|, NaN if any is; x: (n), BB_F32 or BB_BF16. */
float bb_dot_absmax(const void *x, bb_dtype dtype, int64_t n);
/* q[i] = round_half_even(x[i] * scale), for |x[i]| * scale <= 127; returns the sum of q. */
int32_t bb_dot_quantize(int8_t *q, const void *x, bb_dtype dtype, float scale, int64_t n);

#endif

#endif
