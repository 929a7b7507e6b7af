// SPDX-License-Identifier: MIT
/* What the forward passes for training in int8 and on AMX share, in the vocabulary of attention_simd.h for VNNI. */
#ifndef BB_OPS_CPU_ATTENTION_TRAINING_TILE_H
#define BB_OPS_CPU_ATTENTION_TRAINING_TILE_H

#include "ops/cpu/attention/attention_gemm.h"

#define ATTENTION_QUERIES 512 /* per task: as many as share a packed tile of keys */
#define ATTENTION_KEYS 128    /* per packed tile */
#define ATTENTION_ROWS 32     /* queries processed against it at a time: their scores stay in the first-level cache */
#define INT8_KEYS 256         /* both for int8, whose products are faster, so that the cost per tile matters more */
#define INT8_ROWS 16

/* The state of a tile of queries. Dp: D rounded up to VL. */
typedef struct forward_buffers {
    float *s;     /* (rows, keys): raw scores, then weights before division by their sum */
    float *o;     /* (QUERIES, Dp), not yet divided */
    float *sum;   /* (QUERIES, VL), per lane */
    float *max;   /* (QUERIES), of the scaled scores in units of log2 e */
    float *alpha; /* (rows), 2^(old max - new max) */
} forward_buffers;

/* The state of a tile's online softmax: `rows` queries at a time against `keys` keys; width: of a row of o. */
INLINE void softmax_layout(forward_buffers *f, bb_arena *arena, size_t rows, size_t keys, size_t width) {
    f->s = bb_arena_alloc(arena, rows * keys * sizeof(float));
    f->o = bb_arena_alloc(arena, ATTENTION_QUERIES * width * sizeof(float));
    f->sum = bb_arena_alloc(arena, ATTENTION_QUERIES * VL * sizeof(float));
    f->max = bb_arena_alloc(arena, ATTENTION_QUERIES * sizeof(float));
    f->alpha = bb_arena_alloc(arena, rows * sizeof(float));
}

INLINE float row_max(const float *s, int64_t n) {
    vf max = vset1(-INFINITY);
    int64_t j = 0;
    for (; j + VL <= n; j += VL) max = vmax(max, vload(s + j));
    if (j < n) max = vmax(max, vkeep(vload(s + j), n - j, -INFINITY));
    return vreduce_max(max);
}

/* Updates the maxima of rows row0.. of the tile and alpha from the scores s, rows lds apart, and sets top (ROWS), unless NULL,
 * to the largest weight of each row in the tile. rows <= ROWS. */
INLINE void update_max(float *max, float *alpha, float *top, const float *s, int64_t lds, int64_t rows, int64_t keys,
                       int64_t diagonal, float c, bool first) {
    float tile_max[ATTENTION_ROWS];
    for (int64_t m = 0; m < rows; m++) tile_max[m] = row_max(s + m * lds, bb_clamp(m + diagonal + 1, 0, keys));
    for (int64_t m = 0; m < rows; m += VL) {
        vf now = vload(tile_max + m) * vset1(c), here = now;
        if (!first) {
            vf old = vload(max + m);
            now = vmax(old, now);
            vstore(alpha + m, vexp2(old - now));
        }
        vstore(max + m, now);
        if (top) vstore(top + m, vexp2(here - now));
    }
}

/* Stores the D elements of an output row, and its kept copy. */
INLINE void store_output(float *o, bb_bf16 *kept, const float *x, float scale, int64_t D) {
    for (int64_t d = 0; d < D; d += VL) {
        vf y = vload(x + d) * vset1(scale);
        vstore_first(o + d, y, bb_clamp(D - d, 0, VL));
        if (kept) store_bf16(kept + d, y, bb_clamp(D - d, 0, VL));
    }
}

/* Stores the output of the tile: rows of f->o, ldv apart, divided by their sums. */
INLINE void store_tile(float *o, bb_bf16 *kept, float *lse, const forward_buffers *f, int64_t ldv, const bb_attention *a,
                       int64_t b, int64_t h, int64_t t0, int64_t rows) {
    for (int64_t m = 0; m < rows; m++) {
        float sum = vreduce_add(vload(f->sum + m * VL));
        int64_t at = (b * a->Tq + t0 + m) * a->o_stride + h * a->D;
        store_output(o + at, kept ? kept + at : NULL, f->o + m * ldv, 1.0f / sum, a->D);
        if (lse) lse[(b * a->H + h) * a->Tq + t0 + m] = f->max[m] * (float)M_LN2 + logf(sum);
    }
}

#endif
