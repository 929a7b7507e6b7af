// SPDX-License-Identifier: MIT
/* What the kernels of forward_set.h share: a query's state from block to block. */
#ifndef BB_OPS_CPU_FORWARD_SOFTMAX_H
#define BB_OPS_CPU_FORWARD_SOFTMAX_H

#include "core/arena.h"
#include "ops/cpu/attention/forward_set.h"
#include "ops/cpu/vector/lanes.h"

enum { STATE_ROWS = FORWARD_QUERIES + 16 };

/* The queries of a tile. dp: D rounded up to 16. */
typedef struct forward_state {
    float *o;    /* (STATE_ROWS, dp), not yet divided */
    float *sums; /* (STATE_ROWS, SUMS) */
    float *max;  /* (STATE_ROWS), in units of log2 e */
    /* of the rows at hand, in one block of keys */
    float *block_sums;          /* (rows, SUMS) */
    float *block_max;           /* (rows) */
    float *old_part, *new_part; /* (rows): what multiplies the state, and the block, to merge the two */
    int64_t dp;
} forward_state;

LANES_INLINE forward_state state_layout(bb_arena *arena, int64_t D, int64_t rows) {
    forward_state s = {.dp = bb_round_up(D, 16)};
    size_t row_bytes = (size_t)bb_round_up(rows, 16) * sizeof(float);
    s.o = bb_arena_alloc(arena, STATE_ROWS * (size_t)s.dp * sizeof(float));
    s.sums = bb_arena_alloc(arena, STATE_ROWS * SUMS * sizeof(float));
    s.max = bb_arena_alloc(arena, STATE_ROWS * sizeof(float));
    s.block_sums = bb_arena_alloc(arena, row_bytes * SUMS);
    s.block_max = bb_arena_alloc(arena, row_bytes);
    s.old_part = bb_arena_alloc(arena, row_bytes);
    s.new_part = bb_arena_alloc(arena, row_bytes);
    return s;
}

LANES_INLINE void state_clear(const forward_state *s) {
    memset(s->o, 0, STATE_ROWS * (size_t)s->dp * sizeof(float));
    memset(s->sums, 0, STATE_ROWS * SUMS * sizeof(float));
    for (int64_t i = 0; i < STATE_ROWS; i++) s->max[i] = -INFINITY;
}

LANES_INLINE void store_sums(float *to, const vsums *sums) { LANES_EACH(i, VECTORS) vstore(to + i * VL, sums->v[i]); }

/* The factors that merge a block whose maximum is `now` into what has been merged. Returns the maximum of both. */
LANES_INLINE vf merge_factors(vf *old_part, vf *new_part, vf max, vf now) {
    vf both = vmax(max, now);
    *old_part = vexp2(max - both);
    *new_part = vexp2(now - both);
    return both;
}

LANES_INLINE vf merged(vf x, vf of_block, vf old_part, vf new_part) { return vfma(of_block, new_part, x * old_part); }

/* Merges the block's maxima and sums into rows row0 .. row0+rows-1, and sets the factors that merge their o. */
LANES_INLINE void state_merge(const forward_state *s, int64_t row0, int64_t rows) {
    for (int64_t m = 0; m < rows; m += VL) {
        vf old_part, new_part, max = vload_first(s->max + row0 + m, bb_min(rows - m, VL));
        max = merge_factors(&old_part, &new_part, max, vload(s->block_max + m));
        vstore_first(s->max + row0 + m, max, bb_min(rows - m, VL));
        vstore(s->old_part + m, old_part);
        vstore(s->new_part + m, new_part);
    }
    for (int64_t m = 0; m < rows; m++)
        for (int i = 0; i < SUMS; i += VL) {
            float *sum = s->sums + (row0 + m) * SUMS + i;
            vstore(sum, merged(vload(sum), vload(s->block_sums + m * SUMS + i), vset1(s->old_part[m]), vset1(s->new_part[m])));
        }
}

LANES_INLINE float one_over_sum(const float *sums) {
    vsums total;
    LANES_EACH(i, VECTORS) total.v[i] = vload(sums + i * VL);
    return 1.0f / vsum(total.v);
}

/* Stores the tile's `rows` results. */
LANES_INLINE void state_store(const forward_state *s, const forward_tile *t, int64_t rows) {
    const attention_job *j = t->job;
    const bb_attention *a = &j->a;
    for (int64_t m = 0; m < rows; m++) {
        int64_t at = (t->b * a->Tq + t->t0 + m) * a->o_stride + t->h * a->D;
        float factor = one_over_sum(s->sums + m * SUMS);
        for (int64_t d = 0; d < a->D; d += VL) {
            vf y = vload(s->o + m * s->dp + d) * vset1(factor);
            vstore_first(j->o + at + d, y, bb_min(a->D - d, VL));
            if (j->kept) vstore_bf16(j->kept + at + d, y, bb_min(a->D - d, VL));
        }
        if (j->lse) j->lse[(t->b * a->H + t->h) * a->Tq + t->t0 + m] = s->max[m] * (float)M_LN2 - logf(factor);
    }
}

#endif
