// SPDX-License-Identifier: MIT
/* Attention's forward pass in inference, and in training on processors that have nothing faster for it: the kernels of one
 * instruction set (forward_f32_kernels.c, forward_codes_kernels.c), and what they share with the drivers (attention.c,
 * attention_cached.c).
 *
 * A query's result is the same bits on every set, for any number of queries at a time, and with or without a cache of the same
 * numbers. Keys are taken in blocks of F32_BLOCK, or CODES_BLOCK where they are codes, counted from the first key of the sequence:
 * 1. Scores. f32: a chain of fused multiply-adds over d. Codes: q is rounded to integers (cached_q), the sum is exact, and is then
 *    multiplied by the product of the scales of q and of the key.
 * 2. A weight is 2^(score - m), where m is the block's largest score, in units of log2 e. Weights are added in 16 partial sums, key j
 *    of the block in sum j % 16.
 * 3. The weighted sum of values. f32: a chain of fused multiply-adds over the keys. Codes: weight times the value's scale is rounded
 *    to an integer of at most CODE_LIMIT, which is the largest in the block, and the sum is exact.
 * 4. Blocks are merged from first to last: M' = max(M, m), a = 2^(M - M'), b = 2^(m - M'), and for the partial sums and the weighted
 *    sums x, x = fma(x of the block, b, x a).
 * 5. The result is multiplied by one over the partial sums' sum (vsum in vector/lanes.h). */
#ifndef BB_OPS_CPU_FORWARD_SET_H
#define BB_OPS_CPU_FORWARD_SET_H

#include "core/math.h"
#include "ops/cpu/attention/kv_layout.h"
#include "ops/cpu/device/cpu.h"

enum {
    F32_BLOCK = 256,
    CODES_BLOCK = 512,
    FORWARD_QUERIES = 256,        /* of a tile: as many as share a packed block of keys */
    UNIT_QUERIES = 4,             /* that share one pass over a block of codes */
    CODE_LIMIT = 127 * 256 + 127, /* in two signed bytes: x = 256 high + low */
    PARTIAL_SUMS = 16
};

/* Attention of a batch, or of one sequence of a cached pass. */
typedef struct attention_job {
    bb_attention a;
    const bb_kv_layer *kv; /* the cache of one sequence; NULL: use k and v */
    const float *q, *k, *v;
    float *o;
    bb_bf16 *kept; /* NULL, like lse, when no backward pass follows */
    float *lse;
} attention_job;

/* A tile: queries t0 .. t0+FORWARD_QUERIES-1 of head h of sequence b. */
typedef struct forward_tile {
    const attention_job *job;
    int64_t b, h, t0;
} forward_tile;

/* A query as codes are multiplied by it. */
typedef struct cached_q {
    float scale;    /* of a code, times log2 e / sqrt(D) */
    int32_t bias;   /* for forward_int6_kernels.c, which orders the codes in its own way */
    int16_t *codes; /* (D rounded up to 64), zeros past D */
} cached_q;

/* One block of a cache and the queries of one KV head, few enough that reading the block once is what takes the time. The head's
 * query i is row i % Tq of head i / Tq of its group. */
typedef struct forward_unit {
    const attention_job *job;
    int64_t head, key0;
    float *partials; /* of query 0 in this block; those of the next query are partial_stride further on */
    int64_t partial_stride;
    const cached_q *queries; /* of query 0; NULL for f32 */
    const int8_t *next;      /* what is read after this block's codes; NULL if unknown */
} forward_unit;

/* A query's part in a block: the weighted sum, D rounded up to 16; the partial sums; the maximum, and room for the factors that
 * merge it. */
enum { PARTIAL_MAX = PARTIAL_SUMS, PARTIAL_OLD, PARTIAL_NEW, PARTIAL_TAIL = 32 };
static inline int64_t partial_width(int64_t D) { return bb_round_up(D, 16) + PARTIAL_TAIL; }

/* Keys of the unit's block that its query i sees; less than 1 if none. */
static inline int64_t unit_keys(const forward_unit *u, int64_t i) {
    const bb_attention *a = &u->job->a;
    return bb_min(i % a->Tq + 1 + a->Tk - a->Tq - u->key0, a->Tk - u->key0);
}

/* The rows of one head of a cache of codes, from some position to the end of its run. */
typedef struct cached_rows {
    const int8_t *k, *v; /* in the cache's layout (kv_layout.h) */
    const float *k_scale, *v_scale;
    int64_t row_bytes;
} cached_rows;

static inline cached_rows cached_from(const bb_kv_layer *kv, int64_t h, int64_t position, int64_t D) {
    int64_t row_bytes = bb_kv_row_bytes(kv->type, D), begin = bb_kv_run_begin(kv, position), row = bb_kv_row(kv, h, position);
    return (cached_rows){.k = (const int8_t *)kv->k + begin + row * row_bytes,
                         .v = (const int8_t *)kv->v + begin + row * row_bytes,
                         .k_scale = (const float *)(const void *)((const char *)kv->k_scale + begin) + row,
                         .v_scale = (const float *)(const void *)((const char *)kv->v_scale + begin) + row,
                         .row_bytes = row_bytes};
}

/* `bytes` of scratch for a thread at a head of D elements. */
typedef struct bb_f32_set {
    size_t (*bytes)(int64_t D);
    void (*tile)(const forward_tile *t, void *scratch);
    void (*unit)(const forward_unit *u, void *scratch);
    /* Merges a query's `count` partials, in the order of their keys. */
    void (*merge)(float *o, float *partials, int64_t count, int64_t D);
} bb_f32_set;

typedef struct bb_codes_set {
    size_t (*bytes)(int64_t D);
    void (*tile)(const forward_tile *t, void *scratch);
    void (*query)(cached_q *out, const float *q, int64_t D);
    void (*unit)(const forward_unit *u, void *scratch);
} bb_codes_set;

extern const bb_f32_set bb_f32_generic, bb_f32_generic_training;
extern const bb_codes_set bb_codes_generic;
#ifdef __x86_64__
extern const bb_f32_set bb_f32_avx2, bb_f32_avx512;
extern const bb_codes_set bb_codes_avx2, bb_codes_avx512, bb_codes_avx512_vnni, bb_codes_avx512_amx;
extern const bb_codes_set bb_int6_avx512_vbmi; /* query and unit only */
#endif

#endif
