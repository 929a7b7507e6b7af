// SPDX-License-Identifier: MIT
/* The loops of the gradient norm, AdamW and row-wise Adagrad, by instruction set (optimizer_kernels.c), for optimizer.c. */
#ifndef BB_OPS_CPU_OPTIMIZER_SET_H
#define BB_OPS_CPU_OPTIMIZER_SET_H

#include "ops/ops.h"

/* bb_adamw with all that is constant across elements precomputed. */
typedef struct adamw_constants {
    float beta1, beta2, one_minus_beta1, one_minus_beta2, eps, grad_scale;
    float decay;      /* lr * weight_decay */
    float step_size;  /* lr / bias_correction1 */
    float inv_sqrt2;  /* 1 / sqrt(bias_correction2) */
    float min_root_v; /* sqrt(bb_adam8_min_v) */
} adamw_constants;

typedef struct adagrad_constants {
    float lr, scale, eps;
} adagrad_constants;

/* Up to BB_ADAM8_BLOCK elements, whose moments share a scale. */
typedef struct adam8_block {
    float *p;
    const float *g;
    uint8_t *m, *v;
    float *m_absmax, *v_absmax;
    int64_t n;
} adam8_block;

typedef struct bb_optimizer_set {
    double (*sum_squares)(const float *x, int64_t n);
    void (*adamw)(float *p, const float *g, float *m, float *v, int64_t n, const adamw_constants *k);
    void (*adamw8bit)(const adam8_block *b, const adamw_constants *k);
    void (*adagrad)(float *p, const float *g, float *v, int64_t rows, int64_t C, const adagrad_constants *k);
} bb_optimizer_set;

extern const bb_optimizer_set bb_optimizer_generic;
#ifdef __x86_64__
extern const bb_optimizer_set bb_optimizer_avx2, bb_optimizer_avx512;
#endif

#endif
