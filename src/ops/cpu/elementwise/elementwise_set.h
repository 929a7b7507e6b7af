// SPDX-License-Identifier: MIT
/* The loops of row-wise operations, and of quantizing and rounding rows elsewhere, by instruction set (elementwise_kernels.c). A run
 * of rows is m0 .. m1-1. */
#ifndef BB_OPS_CPU_ELEMENTWISE_SET_H
#define BB_OPS_CPU_ELEMENTWISE_SET_H

#include "ops/ops.h"

typedef struct bb_rmsnorm {
    const float *x, *w;
    float *r; /* (M) */
    float eps;
    int64_t C;
} bb_rmsnorm;

typedef struct bb_cross_entropy {
    const float *logits;
    const uint8_t *y;
    int64_t V;
} bb_cross_entropy;

/* Of one row: heads of 2 * half elements; cos, sin: (half). */
typedef struct bb_rotation {
    const float *cos, *sin;
    int64_t heads, half;
} bb_rotation;

typedef struct bb_elementwise_set {
    /* y = x rounded to bf16, half to even, (n). Where the processor has an instruction for it, subnormals become zeros. */
    void (*round)(bb_bf16 *y, const float *x, int64_t n);
    void (*quantize_rows)(bb_rows y, const float *x, int64_t m0, int64_t m1, int64_t K);
    /* Codes from -limit to limit <= 127 of one row; returns their scale. */
    float (*quantize_to_limit)(int8_t *codes, const float *x, int64_t n, float limit);
    void (*rmsnorm_forward)(const bb_rmsnorm *p, bb_rows y, float *row, int64_t m0, int64_t m1); /* row: (C) scratch */
    /* dw: (C), overwritten with this run's contribution */
    void (*rmsnorm_backward)(const bb_rmsnorm *p, float *dx, float *dw, const bb_bf16 *dy, int64_t m0, int64_t m1);
    void (*rope_forward)(float *x, const bb_rotation *r);
    void (*rope_backward)(bb_bf16 *dx, const bb_rotation *r);
    void (*swiglu_forward)(bb_rows y, const float *gate_up, float *row, int64_t m,
                           int64_t F); /* gate_up: (2 F); row: (F) scratch */
    void (*swiglu_backward)(float *d_gate_up, const bb_bf16 *gate_up, const bb_bf16 *dh, int64_t F); /* (2 F), (2 F), (F) */
    void (*loss_forward)(const bb_cross_entropy *p, float *nll, int64_t m0, int64_t m1);
    void (*loss_backward)(const bb_cross_entropy *p, float *dlogits, float scale, int64_t m0, int64_t m1);
    void (*add)(float *y, const float *a, const float *b, int64_t n); /* y = a + b; y may be either */
    /* x (C) += a row of a table: of f32 values, which are rounded to codes on the way, or of codes */
    void (*ngram_add_values)(float *x, const float *values, int64_t C);
    void (*ngram_add_codes)(float *x, const int8_t *codes, float scale, int64_t C);
    /* Rows begin .. end-1 of values become rows first + begin .. of the table's codes. */
    void (*ngram_quantize)(const bb_ngram_table *t, const float *values, int64_t first, int64_t begin, int64_t end);
} bb_elementwise_set;

extern const bb_elementwise_set bb_elementwise_generic;
#ifdef __x86_64__
extern const bb_elementwise_set bb_elementwise_avx2, bb_elementwise_avx512, bb_elementwise_avx512_bf16;
#endif

#endif
