// SPDX-License-Identifier: MIT
/* The backward pass over a run of key tiles, in int8, with VNNI.
 * p = exp(s - lse), dp = do vT, ds = p (dp - delta), delta = rowsum(do o);  dv = pT do, dk = dsT q, dq = ds k */
#ifndef BB_OPS_CPU_ATTENTION_BACKWARD_TILE_H
#define BB_OPS_CPU_ATTENTION_BACKWARD_TILE_H

#include "ops/cpu/attention/attention_gemm.h"
#include "ops/cpu/attention/backward_set.h"

#define ATTENTION_QUERIES 256 /* per tile */
#define ATTENTION_KEYS 128    /* per tile */

/* Columns of a task's f32 dq: (G, Tp, columns). */
KERNEL int64_t dq_ld(int64_t D) { return bb_round_up(D, VL); }

/* Computes lse and delta of head h of sequence b. */
KERNEL void row_statistics(float *lse, float *delta, const backward_arrays *x, int64_t b, int64_t h) {
    const bb_attention *a = x->a;
    int64_t D = a->D, whole = D / VL * VL;
    for (int64_t t = 0; t < a->Tq; t++) {
        int64_t at = (b * a->Tq + t) * a->o_stride + h * D;
        vf sum = vset1(0.0f);
        if (t + PREFETCH_ROWS < a->Tq) {
            prefetch_row(x->o + at + PREFETCH_ROWS * a->o_stride, (size_t)D * sizeof(bb_bf16));
            prefetch_row(x->d_o + at + PREFETCH_ROWS * a->o_stride, (size_t)D * sizeof(bb_bf16));
        }
        for (int64_t d = 0; d < whole; d += VL) sum = vfma(vload_bf16(x->o + at + d), vload_bf16(x->d_o + at + d), sum);
        if (whole < D)
            sum = vfma(vload_bf16_first(x->o + at + whole, D - whole), vload_bf16_first(x->d_o + at + whole, D - whole), sum);
        delta[t] = vreduce_add(sum);
        lse[t] = x->lse[(b * a->H + h) * a->Tq + t] * (float)M_LOG2E;
    }
    for (int64_t t = a->Tq; t < bb_round_up(a->Tq, ATTENTION_QUERIES); t++) {
        delta[t] = 0.0f;
        lse[t] = 1e30f;
    }
}

/* y (rows, D) bf16 of stride = scale x (rows, ld). */
INLINE void store_rows(bb_bf16 *y, int64_t stride, const float *x, int64_t ld, float scale, int64_t rows, int64_t D) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t d = 0; d < D; d += VL)
            store_bf16(y + r * stride + d, vload(x + r * ld + d) * vset1(scale), bb_clamp(D - d, 0, VL));
}

#include "ops/cpu/attention/attention_int8.h"

#include "ops/cpu/attention/attention_backward_int8.h"

/* Bytes of a task's scratch. */
KERNEL size_t backward_bytes(const bb_attention *a) {
    bb_arena measure = {0};
    backward_layout(&measure, a);
    return measure.used;
}

/* Computes dk and dv of key tiles first..last-1 of KV head `head` of sequence b, from all its query heads, and the contribution
 * of these tiles to dq: (G, Tp, dq_ld(D)) f32, without the 1/sqrt(D). */
KERNEL void backward_keys(const backward_keys_task *task, void *scratch) {
    const backward_arrays *x = task->x;
    const bb_attention *a = x->a;
    int64_t b = task->b, head = task->head, first = task->first, last = task->last;
    float *dq = task->dq;
    bb_arena arena = {scratch, 0};
    backward_buffers f = backward_layout(&arena, a);
    int64_t D = a->D, G = a->H / a->Hk, ld = bb_round_up(D, VL), padded = bb_round_up(a->Tq, ATTENTION_QUERIES);
    int64_t see = a->Tk - a->Tq; /* query t sees keys 0..t + see */
    float scale = (float)(1.0 / sqrt((double)D));

    memset(dq, 0, (size_t)(G * padded * ld) * sizeof *dq);
    for (int64_t g = 0; g < G; g++) {
        int64_t h = head * G + g, row = b * a->Tq;
        row_statistics(f.lse + g * padded, f.delta + g * padded, x, b, h);
        pack_query_tile(&f, g * padded, x->q + row * a->q_stride + h * D, a->q_stride, x->d_o + row * a->o_stride + h * D,
                        a->o_stride, a->Tq, D);
    }
    for (int64_t key0 = first * ATTENTION_KEYS; key0 < last * ATTENTION_KEYS && key0 < a->Tk; key0 += ATTENTION_KEYS) {
        int64_t keys = bb_clamp(a->Tk - key0, 0, ATTENTION_KEYS), at = b * a->kv_batch_stride + key0 * a->kv_stride + head * D;
        int64_t t_first = bb_clamp(key0 - see, 0, a->Tq) / ATTENTION_QUERIES * ATTENTION_QUERIES;
        pack_key_tile(&f, x->k + at, x->v + at, a->kv_stride, keys, D);
        memset(f.dk, 0, (size_t)(ATTENTION_KEYS * ld) * sizeof *f.dk);
        memset(f.dv, 0, (size_t)(ATTENTION_KEYS * ld) * sizeof *f.dv);
        for (int64_t g = 0; g < G; g++)
            for (int64_t t = t_first; t < a->Tq; t += ATTENTION_QUERIES) {
                int64_t rows = bb_round_up(bb_clamp(a->Tq - t, 0, ATTENTION_QUERIES), ATTENTION_MR), at_query = g * padded + t;
                backward_tile(&f, dq + at_query * ld, at_query, rows, t + see - key0, D);
            }
        store_rows(x->dk + at, a->kv_stride, f.dk, ld, scale, keys, D);
        store_rows(x->dv + at, a->kv_stride, f.dv, ld, 1.0f, keys, D);
    }
}

/* dq of rows t..t+rows-1 of head h of sequence b: the sum of `count` parts in order, stride elements apart; overwrites the
 * first. parts: at these rows of the first. */
KERNEL void finish_dq(const backward_rows_task *task) {
    const backward_arrays *x = task->x;
    int64_t ld = bb_round_up(x->a->D, VL), rows = task->rows, t = task->t;
    float *parts = task->parts;
    for (int64_t i = 1; i < task->count; i++)
        for (int64_t j = 0; j < rows * ld; j += VL) vstore(parts + j, vload(parts + j) + vload(parts + i * task->stride + j));
    store_rows(x->dq + (task->b * x->a->Tq + t) * x->a->q_stride + task->h * x->a->D, x->a->q_stride, parts, ld,
               (float)(1.0 / sqrt((double)x->a->D)), rows, x->a->D);
}

#endif
