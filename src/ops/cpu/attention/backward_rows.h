// SPDX-License-Identifier: MIT
/* What the kernels of backward_set.h share. */
#ifndef BB_OPS_CPU_BACKWARD_ROWS_H
#define BB_OPS_CPU_BACKWARD_ROWS_H

#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/attention/backward_set.h"
#include "ops/cpu/vector/lanes.h"

/* lse in units of log2 e, and delta, of head h of sequence b; of the rows past the last up to `padded` so that their p is 0. */
LANES_INLINE void row_statistics(float *lse, float *delta, const backward_arrays *x, int64_t b, int64_t h, int64_t padded) {
    const bb_attention *a = x->a;
    for (int64_t t = 0; t < a->Tq; t++) {
        int64_t at = (b * a->Tq + t) * a->o_stride + h * a->D;
        if (t + PREFETCH_ROWS < a->Tq) {
            prefetch_row(x->o + at + PREFETCH_ROWS * a->o_stride, (size_t)a->D * sizeof(bb_bf16));
            prefetch_row(x->d_o + at + PREFETCH_ROWS * a->o_stride, (size_t)a->D * sizeof(bb_bf16));
        }
        vsums sum = vsums_zero();
        for (int64_t d = 0; d < a->D; d += VL) {
            int64_t n = bb_min(a->D - d, VL), i = d / VL % VECTORS;
            sum.v[i] = vfma(vload_bf16_first(x->o + at + d, n), vload_bf16_first(x->d_o + at + d, n), sum.v[i]);
        }
        delta[t] = vsum(sum.v);
        lse[t] = x->lse[(b * a->H + h) * a->Tq + t] * (float)M_LOG2E;
    }
    for (int64_t t = a->Tq; t < padded; t++) {
        delta[t] = 0.0f;
        lse[t] = 1e30f;
    }
}

/* y (rows, D) bf16 of stride = scale x (rows, ld). */
LANES_INLINE void store_rows(bb_bf16 *y, int64_t stride, const float *x, int64_t ld, int64_t rows, int64_t D, float scale) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t d = 0; d < D; d += VL)
            vstore_bf16(y + r * stride + d, vload(x + r * ld + d) * vset1(scale), bb_min(D - d, VL));
}

/* finish_dq of parts in rows of ld elements. */
LANES_INLINE void sum_dq(const backward_rows_task *t, int64_t ld) {
    const bb_attention *a = t->x->a;
    for (int64_t i = 1; i < t->count; i++)
        for (int64_t j = 0; j < t->rows * ld; j += VL)
            vstore(t->parts + j, vload(t->parts + j) + vload(t->parts + i * t->stride + j));
    store_rows(t->x->dq + (t->b * a->Tq + t->t) * a->q_stride + t->h * a->D, a->q_stride, t->parts, ld, t->rows, a->D,
               (float)(1.0 / sqrt((double)a->D)));
}

#endif
