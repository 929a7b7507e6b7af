// SPDX-License-Identifier: MIT
/* Products AT B of two dense matrices in bf16 with f32 sums, by a processor's dot-product tiles (dot.h). */
#ifndef BB_OPS_CPU_DOT_PRODUCT_H
#define BB_OPS_CPU_DOT_PRODUCT_H

#include "ops/cpu/device/cpu.h"

#if defined(__x86_64__)

/* c (rows, columns) = sum over k of s[k] a[k, row] b[k, column], each factor rounded to bf16; c in f32. */
typedef struct bb_dot_factors {
    float *c;
    bool add; /* c += instead of c = */
    const void *a;
    bb_dtype a_dtype; /* (k, rows) BB_F32 or BB_BF16 */
    const float *s;   /* (k), or NULL for ones */
    const void *b;
    bb_dtype b_dtype; /* (k, columns), also BB_I8 */
    int64_t rows, columns, k;
    void *scratch; /* bb_dot_product_scratch_bytes bytes of scratch */
} bb_dot_factors;

size_t bb_dot_product_scratch_bytes(bb_device *dev, int64_t columns, int64_t k);
/* However the work is partitioned, a sum runs over k in the same order. c may overlap neither factor. */
void bb_dot_product(bb_device *dev, const bb_dot_factors *f);

#endif

#endif
