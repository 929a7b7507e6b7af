// SPDX-License-Identifier: MIT
/* The gradient of attention by instruction set, and what the sets share with the driver (attention_backward.c).
 * p = exp(s - lse), dp = do vT, ds = p (dp - delta), delta = rowsum(do o);  dv = pT do, dk = dsT q, dq = ds k */
#ifndef BB_OPS_CPU_BACKWARD_SET_H
#define BB_OPS_CPU_BACKWARD_SET_H

#include "ops/ops.h"

/* The arrays of all heads, addressed as bb_attention says. */
typedef struct backward_arrays {
    bb_bf16 *dq, *dk, *dv;
    const bb_bf16 *d_o, *q, *k, *v, *o;
    const float *lse;
    const bb_attention *a;
} backward_arrays;

/* Key tiles first..last-1 of KV head `head` of sequence b. dq: (G, Tp, dq_ld(D)) f32. */
typedef struct backward_keys_task {
    const backward_arrays *x;
    int64_t b, head, first, last;
    float *dq;
} backward_keys_task;

/* Rows t..t+rows-1 of head h of sequence b. parts: at these rows of the first of `count` parts, `stride` elements apart. */
typedef struct backward_rows_task {
    const backward_arrays *x;
    int64_t b, h, t, rows;
    float *parts;
    int64_t count, stride;
} backward_rows_task;

typedef struct bb_backward_set {
    int64_t queries, keys;                  /* of a tile; Tp: Tq rounded up to `queries` */
    size_t (*bytes)(const bb_attention *a); /* scratch of a thread */
    int64_t (*dq_ld)(int64_t D);
    /* Computes dk and dv of the tiles, from all query heads of the KV head, and the tiles' contribution to dq, without the
     * 1/sqrt(D). */
    void (*key_tiles)(const backward_keys_task *t, void *scratch);
    /* dq of the rows: the sum of the parts in order, which overwrites the first. */
    void (*finish_dq)(const backward_rows_task *t);
} bb_backward_set;

extern const bb_backward_set bb_backward_generic_training;
#ifdef __x86_64__
extern const bb_backward_set bb_backward_avx2, bb_backward_avx_vnni, bb_backward_avx512_vnni, bb_backward_avx512_amx;
#endif

#endif
