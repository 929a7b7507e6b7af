// SPDX-License-Identifier: MIT
/* What the kernels of training_set.h share: the online softmax of a tile of queries. */
#ifndef BB_OPS_CPU_TRAINING_SOFTMAX_H
#define BB_OPS_CPU_TRAINING_SOFTMAX_H

#include "core/arena.h"
#include "ops/cpu/attention/training_set.h"
#include "ops/cpu/vector/lanes.h"

enum { QUERIES = 512 /* per task: as many as share a packed tile of keys */ };

typedef struct softmax_state {
    float *o;   /* (QUERIES, dp), not yet divided */
    float *sum; /* (QUERIES, VL), per lane */
    float *max; /* (QUERIES), of the scaled scores in units of log2 e */
    int64_t dp;
} softmax_state;

LANES_INLINE softmax_state softmax_layout(bb_arena *arena, int64_t dp) {
    softmax_state s = {.dp = dp};
    s.o = bb_arena_alloc(arena, QUERIES * (size_t)dp * sizeof(float));
    s.sum = bb_arena_alloc(arena, QUERIES * VL * sizeof(float));
    s.max = bb_arena_alloc(arena, QUERIES * sizeof(float));
    return s;
}

/* Raw scores of `rows` rows against a tile of keys. */
typedef struct score_rows {
    const float *s;
    int64_t stride, rows, keys, diagonal; /* row m sees keys 0 .. m + diagonal */
    float c;                              /* of a raw score, in units of log2 e */
    bool first;                           /* no tile of keys came before */
} score_rows;

/* Updates the maxima of the rows, and sets alpha to 2^(old - new) unless `first`, and top, unless NULL, to the largest weight of each
 * row in the tile. At most MAX_ROWS rows; all of (rows rounded up to VL). */
LANES_INLINE void update_max(float *max, float *alpha, float *top, const score_rows *x) {
    enum { MAX_ROWS = 32 };
    float tile_max[MAX_ROWS];
    for (int64_t m = 0; m < x->rows; m++)
        tile_max[m] = row_max(x->s + m * x->stride, bb_clamp(m + x->diagonal + 1, 0, x->keys));
    for (int64_t m = 0; m < x->rows; m += VL) {
        vf here = vload(tile_max + m) * vset1(x->c), now = here;
        if (!x->first) {
            vf old = vload(max + m);
            now = vmax(old, here);
            vstore(alpha + m, vexp2(old - now));
        }
        vstore(max + m, now);
        if (top) vstore(top + m, vexp2(here - now));
    }
}

/* Stores the tile's `rows` results, divided by their sums. */
LANES_INLINE void softmax_store(const softmax_state *s, const forward_tile *t, int64_t rows) {
    const attention_job *j = t->job;
    const bb_attention *a = &j->a;
    for (int64_t m = 0; m < rows; m++) {
        float sum = 0;
        for (int i = 0; i < VL; i++) sum += s->sum[m * VL + i];
        vf factor = vset1(1.0f / sum);
        int64_t at = (t->b * a->Tq + t->t0 + m) * a->o_stride + t->h * a->D;
        for (int64_t d = 0; d < a->D; d += VL) {
            vf y = vload(s->o + m * s->dp + d) * factor;
            vstore_first(j->o + at + d, y, bb_min(a->D - d, VL));
            if (j->kept) vstore_bf16(j->kept + at + d, y, bb_min(a->D - d, VL));
        }
        if (j->lse) j->lse[(t->b * a->H + t->h) * a->Tq + t->t0 + m] = s->max[m] * (float)M_LN2 + logf(sum);
    }
}

#endif
