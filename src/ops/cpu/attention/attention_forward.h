// SPDX-License-Identifier: MIT
/* What attention over a batch (attention.c) and over caches (attention_cached.c) share: the kernels of an instruction set, and
 * tiled processing of many queries. */
#ifndef BB_OPS_CPU_ATTENTION_FORWARD_H
#define BB_OPS_CPU_ATTENTION_FORWARD_H

#include "core/math.h"
#include "ops/cpu/attention/kv_layout.h"
#include "ops/cpu/device/cpu.h"

enum {
    DIRECT_KEYS = 512,                    /* per task of the path for small batches of queries */
    DIRECT_QUERIES = BB_SMALL_BATCH_ROWS, /* with so few queries, packing the keys does not pay */
    /* elements of k and of partial results below which a second thread costs more than it saves */
    DIRECT_SERIAL = 1 << 15,
    MERGE_SERIAL = 1 << 14,
    CACHED_QUERIES = 4 /* that share one pass over the codes */
};

/* A query as `cached` reads it: int16 codes, so that its products with cached codes are integers whose sum fits in 32 bits. */
typedef struct cached_q {
    float scale;      /* of a code, times log2 e / sqrt(D) */
    int32_t bias;     /* for attention_int6_tile.h, which orders q_codes in its own way */
    int16_t *q_codes; /* (D rounded up to 64), zeros past D */
} cached_q;

/* The rows of one head, from some position to the end of its run. */
typedef struct cached_rows {
    const int8_t *k, *v; /* (keys, width), or six-bit codes, as kv_layout.h says */
    const float *k_scale, *v_scale;
    int64_t width;      /* bytes per row */
    const int8_t *next; /* what will be read next */
} cached_rows;

static inline cached_rows cached_from(const bb_kv_layer *kv, int64_t h, int64_t position, int64_t D) {
    int64_t width = bb_kv_row_bytes(kv->type, D), begin = bb_kv_run_begin(kv, position), row = bb_kv_row(kv, h, position);
    const int8_t *v = (const int8_t *)kv->v + begin + row * width;
    return (cached_rows){.k = (const int8_t *)kv->k + begin + row * width,
                         .v = v,
                         .k_scale = (const float *)(const void *)((const char *)kv->k_scale + begin) + row,
                         .v_scale = (const float *)(const void *)((const char *)kv->v_scale + begin) + row,
                         .width = width,
                         .next = v};
}

/* Scratch of `partial`; of `cached`; and of the latter with a run of keys and values in int8 behind it, which is the
 * largest. */
static inline size_t direct_bytes(int64_t D) { return (size_t)(bb_round_up(D, 16) + DIRECT_KEYS) * sizeof(float); }
static inline size_t cached_partial_bytes(void) { return 2 * CACHED_QUERIES * DIRECT_KEYS * sizeof(float); }
static inline size_t cached_bytes(int64_t D) { return cached_partial_bytes() + (size_t)(2 * DIRECT_KEYS * bb_kv_width(D)); }

/* Elements of a partial result: the weighted sum of values, D rounded up to 16, then the maximum and the sum of the weights. */
static inline int64_t partial_width(int64_t D) { return bb_round_up(D, 16) + 16; }

typedef void cached_query_function(cached_q *out, const float *q, int64_t D);
typedef void cached_partial_function(float *partial, int64_t stride, const cached_q *q, int queries, const cached_rows *rows,
                                     const int64_t *keys, int64_t max_keys, int64_t D, void *scratch);

typedef struct forward_functions {
    size_t (*tile_bytes)(int64_t D);
    void (*tile)(float *o, bb_bf16 *kept, float *lse, const float *q, const float *k, const float *v, const bb_kv_layer *kv,
                 const bb_attention *a, int64_t b, int64_t h, int64_t t0, void *scratch);
    /* NULL, or a faster version of tile for keys and values that are codes */
    size_t (*codes_forward_bytes)(int64_t D);
    void (*codes_forward_tile)(float *o, const float *q, const bb_kv_layer *kv, const bb_attention *a, int64_t h, int64_t t0,
                               void *scratch);
    /* NULL, or a faster version, in int8, when a backward pass follows */
    size_t (*int8_forward_bytes)(int64_t D);
    size_t (*int8_keys_bytes)(int64_t D);
    void (*int8_pack_keys)(void *to, const float *k, const float *v, const bb_attention *a, int64_t b, int64_t head,
                           int64_t tile, void *scratch);
    void (*int8_forward_tile)(float *o, bb_bf16 *kept, float *lse, const float *q, const char *packed, const bb_attention *a,
                              int64_t b, int64_t h, int64_t t0, void *scratch);
    void (*partial)(float *partial, const float *q, const float *k, const float *v, int64_t kv_stride, int64_t keys, int64_t D,
                    void *scratch);
    cached_query_function *query;
    cached_partial_function *cached;
    void (*unpack)(cached_rows *rows, int8_t *buffer, int64_t keys, int64_t max_keys, int64_t D);
    void (*merge)(float *o, bb_bf16 *kept, float *lse, const float *partials, int64_t count, int64_t D);
} forward_functions;

const forward_functions *bb_cpu_forward_functions(bb_device *dev);

/* The kernels that read six-bit codes in place. False if this processor has none. */
bool bb_cpu_int6_functions(bb_device *dev, cached_query_function **query, cached_partial_function **cached);

/* Attention of a batch, or of one sequence of a cached pass. */
typedef struct attention_job {
    bb_attention a;
    const bb_kv_layer *kv; /* codes of keys and values; NULL: use k and v */
    const float *q, *k, *v;
    float *o;
    bb_bf16 *kept; /* NULL, like lse, when no backward pass follows */
    float *lse;
} attention_job;

/* Number of tiles of a job. */
int64_t bb_cpu_forward_tasks(const attention_job *job);
/* Processes all queries of n jobs in tiles. first_task (n+1): the number of tasks of the preceding jobs. */
void bb_cpu_forward_tiles(bb_device *dev, const attention_job *jobs, const int64_t *first_task, int64_t n);

/* For items numbered through n groups: the group of item i. first (n+1): the number of items in the preceding groups. */
static inline int64_t bb_group_of(const int64_t *first, int64_t n, int64_t i) {
    int64_t low = 0;
    while (n - low > 1) {
        int64_t middle = (low + n) / 2;
        if (first[middle] <= i)
            low = middle;
        else
            n = middle;
    }
    return low;
}

#endif
