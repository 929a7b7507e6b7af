// SPDX-License-Identifier: MIT
/* AMX products with 32 x 32 sums, for the packed operands of both passes of attention. */
#ifndef BB_OPS_CPU_ATTENTION_AMX_H
#define BB_OPS_CPU_ATTENTION_AMX_H

#include <stdbool.h>

#include "ops/cpu/vector/amx.h"

enum { AMX_SIDE = 2 * BB_AMX_ROWS /* of a block: rows, columns, and k of a product */ };

/* A product's operands; a_k_stride and b_k_stride are bytes per 32 elements of k. */
typedef struct amx_sides {
    const void *a, *b;
    int64_t a_stride, b_stride; /* bytes between rows */
    int64_t a_k_stride, b_k_stride;
} amx_sides;

/* Initializes the sums from c, whose rows are c_stride bytes apart, or with zeros. */
static inline __attribute__((always_inline)) void amx_init_sums(bool add, const float *c, int64_t c_stride) {
    const float *below = c + BB_AMX_ROWS * c_stride / (int64_t)sizeof *c;
    if (add) {
        BB_AMX_LOAD(0, c, c_stride);
        BB_AMX_LOAD(1, c + BB_AMX_WORDS, c_stride);
        BB_AMX_LOAD(2, below, c_stride);
        BB_AMX_LOAD(3, below + BB_AMX_WORDS, c_stride);
    } else {
        BB_AMX_ZERO(0);
        BB_AMX_ZERO(1);
        BB_AMX_ZERO(2);
        BB_AMX_ZERO(3);
    }
}

static inline __attribute__((always_inline)) void amx_store_sums(float *c, int64_t c_stride) {
    float *below = c + BB_AMX_ROWS * c_stride / (int64_t)sizeof *c;
    BB_AMX_STORE(0, c, c_stride);
    BB_AMX_STORE(1, c + BB_AMX_WORDS, c_stride);
    BB_AMX_STORE(2, below, c_stride);
    BB_AMX_STORE(3, below + BB_AMX_WORDS, c_stride);
}

#endif
