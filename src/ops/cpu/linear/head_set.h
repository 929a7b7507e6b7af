// SPDX-License-Identifier: MIT
/* The head's products by instruction set (head_kernels.c). */
#ifndef BB_OPS_CPU_HEAD_SET_H
#define BB_OPS_CPU_HEAD_SET_H

#include <stdint.h>

/* logits (M,V) = h (M,C) e (V,C)T */
typedef struct bb_head_product {
    float *logits;
    const float *h, *e;
    int64_t M, V, C;
} bb_head_product;

typedef struct bb_head_set {
    /* Rows m0 .. m1-1 and symbols v0 .. v1-1. A sum over C runs in 16 partial sums of fused multiply-adds (vector/lanes.h), so that
     * it is the same bits on every set and for any M. */
    void (*product)(const bb_head_product *p, int64_t m0, int64_t m1, int64_t v0, int64_t v1);
} bb_head_set;

extern const bb_head_set bb_head_generic;
#ifdef __x86_64__
extern const bb_head_set bb_head_avx2, bb_head_avx512;
#endif

#endif
