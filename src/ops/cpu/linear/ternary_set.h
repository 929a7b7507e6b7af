// SPDX-License-Identifier: MIT
/* The loops over ternary matrices that are not products of integers, by instruction set (ternary_kernels.c). */
#ifndef BB_OPS_CPU_TERNARY_SET_H
#define BB_OPS_CPU_TERNARY_SET_H

#include "core/tensor.h"

enum { BB_TERNARY_LINE = 64 /* bytes of codes */ };

typedef struct bb_ternary_set {
    double (*sum_abs)(const float *w, int64_t n); /* the same bits on every set */
    /* q + 1 for q = round_half_even(clip(w / g, -1, 1)); above_half: the smallest w that becomes 1 */
    void (*quantize_row)(uint8_t *q, const float *w, float above_half, int64_t n);
    void (*clip)(float *dw, const float *w, float above_one, int64_t n); /* zeros where |w| >= above_one */
    /* Expands `blocks` blocks (ternary.h) to k-steps: four of BB_K_STEP_BYTES each. */
    void (*expand)(uint8_t *k_steps, const uint8_t *panel, int64_t blocks);
    /* BB_TERNARY_LINE bytes of each of a panel's rows, in column order, to 16 blocks. */
    void (*load_line)(uint8_t *panel, const uint8_t *codes, int64_t row_bytes, int64_t rows);
    /* A k-step's line in the dense layout from a block: its codes as digits in base 3 or 4, plus 85 times the codes of the fifth block's
     * line at `place`, if there is one. */
    void (*pack_k_step)(uint8_t *line, const uint8_t *block, int k_step, int base, const uint8_t *fifth, int place);
    /* y = residual + scale * (sums - offset); y may be residual; residual NULL means zeros. */
    void (*finish_row)(float *y, const float *residual, const int32_t *sums, int32_t offset, float scale, int64_t n);
    void (*columns)(float *q, const uint8_t *k_steps, int64_t K); /* q of a panel, (K, BB_PANEL), from its k-steps */
    /* y (n) = residual + g times the product of x (K) and q */
    void (*float_row)(float *y, const float *residual, const float *x, const float *q, float g, int64_t K, int64_t n);
    void (*to_f32)(float *y, const void *x, bb_dtype dtype, float s, int64_t n); /* y = x * s, for x of any dtype */
} bb_ternary_set;

extern const bb_ternary_set bb_ternary_generic;
#ifdef __x86_64__
extern const bb_ternary_set bb_ternary_avx2, bb_ternary_avx512;
#endif

#endif
