// SPDX-License-Identifier: MIT
/* Attention without the (Tq,Tk) matrix: tiles of queries against tiles of keys, with an online softmax. Scores beyond the
 * causal diagonal are not computed. Each tile of the output belongs to one task, so results do not depend on which thread runs
 * it. arXiv:2205.14135 */
#include <omp.h>

#include "ops/cpu/attention/attention_forward.h"
#include "ops/cpu/device/entries.h"

#define ATTENTION_TILE "ops/cpu/attention/attention_forward_tile.h"
#include "ops/cpu/attention/attention_sets.h"
#ifdef __x86_64__
#include "ops/cpu/attention/attention_forward_amx.h"
#endif

/* only VNNI has these; on AMX, forward_tile is faster */
#define codes_forward_bytes_generic NULL
#define codes_forward_tile_generic NULL
#define int8_forward_bytes_generic NULL
#define int8_keys_bytes_generic NULL
#define int8_pack_keys_generic NULL
#define int8_forward_tile_generic NULL
#define codes_forward_bytes_avx2 NULL
#define codes_forward_tile_avx2 NULL
#define int8_forward_bytes_avx2 NULL
#define int8_keys_bytes_avx2 NULL
#define int8_pack_keys_avx2 NULL
#define int8_forward_tile_avx2 NULL
#define codes_forward_bytes_avx512 NULL
#define codes_forward_tile_avx512 NULL
#define int8_forward_bytes_avx512 NULL
#define int8_keys_bytes_avx512 NULL
#define int8_pack_keys_avx512 NULL
#define int8_forward_tile_avx512 NULL
#define codes_forward_bytes_avx512amx NULL
#define codes_forward_tile_avx512amx NULL
#define int8_forward_bytes_avx512amx NULL
#define int8_keys_bytes_avx512amx NULL
#define int8_pack_keys_avx512amx NULL
#define int8_forward_tile_avx512amx NULL
#define FORWARD(set)                                                                                                           \
    {                                                                                                                          \
        forward_bytes_##set, forward_tile_##set, codes_forward_bytes_##set, codes_forward_tile_##set,                          \
            int8_forward_bytes_##set, int8_keys_bytes_##set, int8_pack_keys_##set, int8_forward_tile_##set,                    \
            direct_partial_##set, cached_query_##set, cached_partial_##set, cached_unpack_##set, direct_merge_##set            \
    }
ATTENTION_TABLE(forward_functions, forward_for, FORWARD)

const forward_functions *bb_cpu_forward_functions(bb_device *dev) { return &forward_for[bb_cpu_of(dev)->kernels.attention]; }

bool bb_cpu_int6_functions(bb_device *dev, cached_query_function **query, cached_partial_function **cached) {
#ifdef __x86_64__
    if (bb_cpu_of(dev)->kernels.vbmi) {
        *query = int6_query_avx512vbmi;
        *cached = int6_partial_avx512vbmi;
        return true;
    }
#endif
    (void)dev;
    (void)query;
    (void)cached;
    return false;
}

static void forward_direct(bb_device *dev, float *o, bb_bf16 *kept, float *lse, const float *q, const float *k, const float *v,
                           const bb_attention *a) {
    const forward_functions *f = &forward_for[bb_cpu_of(dev)->kernels.attention];
    int64_t D = a->D, G = a->H / a->Hk, splits = bb_ceil_div(a->Tk, DIRECT_KEYS), ld = partial_width(D);
    int64_t tasks = a->B * a->Hk * splits, queries = a->B * a->H * a->Tq;
    size_t partial_bytes = (size_t)(queries * splits * ld) * sizeof(float), thread_bytes = direct_bytes(D);
    float *partials = bb_cpu_scratch(dev, partial_bytes + thread_bytes * (size_t)dev->threads);
    if (!partials) return;
#pragma omp parallel num_threads(dev->threads) if (a->B * a->Hk * a->Tk * D > DIRECT_SERIAL)
    {
        void *scratch = (char *)partials + partial_bytes + thread_bytes * (size_t)omp_get_thread_num();
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks; task++) {
            int64_t key0 = task % splits * DIRECT_KEYS, head = task / splits % a->Hk, b = task / splits / a->Hk;
            int64_t at = b * a->kv_batch_stride + key0 * a->kv_stride + head * D;
            for (int64_t i = 0; i < G * a->Tq; i++) {
                int64_t h = head * G + i / a->Tq, t = i % a->Tq;
                int64_t keys = bb_clamp(t + 1 + a->Tk - a->Tq - key0, 0, DIRECT_KEYS);
                float *partial = partials + (((b * a->H + h) * a->Tq + t) * splits + key0 / DIRECT_KEYS) * ld;
                if (keys > 0)
                    f->partial(partial, q + (b * a->Tq + t) * a->q_stride + h * D, k + at, v + at, a->kv_stride, keys, D,
                               scratch);
            }
        }
#pragma omp for
        for (int64_t row = 0; row < queries; row++) {
            int64_t t = row % a->Tq, h = row / a->Tq % a->H, b = row / a->Tq / a->H;
            int64_t count = (t + 1 + a->Tk - a->Tq + DIRECT_KEYS - 1) / DIRECT_KEYS;
            int64_t at = (b * a->Tq + t) * a->o_stride + h * D;
            f->merge(o + at, kept ? kept + at : NULL, lse ? lse + row : NULL, partials + row * splits * ld, count, D);
        }
    }
}

static int64_t tiles_of(const bb_attention *a) { return bb_ceil_div(a->Tq, ATTENTION_QUERIES); }

int64_t bb_cpu_forward_tasks(const attention_job *job) { return tiles_of(&job->a) * job->a.B * job->a.H; }

void bb_cpu_forward_tiles(bb_device *dev, const attention_job *jobs, const int64_t *first_task, int64_t n) {
    const forward_functions *f = bb_cpu_forward_functions(dev);
    int64_t D = jobs->a.D;
    size_t thread_bytes = f->tile_bytes(D);
    if (f->codes_forward_tile) thread_bytes = (size_t)bb_max((int64_t)thread_bytes, (int64_t)f->codes_forward_bytes(D));
    char *scratch = bb_cpu_scratch(dev, thread_bytes * (size_t)dev->threads);
    if (!scratch) return;
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic)
    for (int64_t i = 0; i < first_task[n]; i++) {
        int64_t group = bb_group_of(first_task, n, i);
        const attention_job *j = &jobs[group];
        const bb_attention *a = &j->a;
        int64_t task = i - first_task[group], heads = a->B * a->H, head = task % heads;
        /* the last tiles, which see most keys, go first, so that short ones balance the load at the end */
        int64_t t0 = (tiles_of(a) - 1 - task / heads) * ATTENTION_QUERIES;
        void *thread_scratch = scratch + thread_bytes * (size_t)omp_get_thread_num();
        if (j->kv && f->codes_forward_tile)
            f->codes_forward_tile(j->o, j->q, j->kv, a, head, t0, thread_scratch);
        else
            f->tile(j->o, j->kept, j->lse, j->q, j->k, j->v, j->kv, a, head / a->H, head % a->H, t0, thread_scratch);
    }
}

/* The int8 path: all keys and values are packed first. */
typedef struct int8_plan {
    int64_t tiles, key_tiles; /* per head */
    size_t thread_bytes, int8_keys_bytes, bytes;
} int8_plan;

static bool is_in_int8(bb_device *dev) { return forward_for[bb_cpu_of(dev)->kernels.attention].int8_forward_tile != NULL; }

static int8_plan int8_plan_for(bb_device *dev, const bb_attention *a) {
    const forward_functions *f = &forward_for[bb_cpu_of(dev)->kernels.attention];
    int8_plan p = {.tiles = (a->Tq + ATTENTION_QUERIES - 1) / ATTENTION_QUERIES,
                   .key_tiles = (a->Tk + INT8_KEYS - 1) / INT8_KEYS,
                   .thread_bytes = f->int8_forward_bytes(a->D),
                   .int8_keys_bytes = f->int8_keys_bytes(a->D)};
    p.bytes = p.thread_bytes * (size_t)dev->threads + p.int8_keys_bytes * (size_t)(a->B * a->Hk * p.key_tiles);
    return p;
}

size_t bb_cpu_attention_forward_scratch(bb_device *dev, const bb_attention *a) {
    return is_in_int8(dev) ? int8_plan_for(dev, a).bytes : 0;
}

static void forward_int8(bb_device *dev, float *o, bb_bf16 *kept, float *lse, const float *q, const float *k, const float *v,
                         const bb_attention *a) {
    const forward_functions *f = &forward_for[bb_cpu_of(dev)->kernels.attention];
    const int8_plan p = int8_plan_for(dev, a);
    int64_t heads = a->B * a->H, G = a->H / a->Hk;
    char *scratch = bb_cpu_scratch(dev, p.bytes);
    if (!scratch) return;
    char *packed = scratch + p.thread_bytes * (size_t)dev->threads;
#pragma omp parallel num_threads(dev->threads)
    {
        void *thread_scratch = scratch + p.thread_bytes * (size_t)omp_get_thread_num();
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < a->B * a->Hk * p.key_tiles; task++) {
            int64_t head = task / p.key_tiles;
            f->int8_pack_keys(packed + p.int8_keys_bytes * (size_t)task, k, v, a, head / a->Hk, head % a->Hk,
                              task % p.key_tiles, thread_scratch);
        }
        /* last tiles first, as above */
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < p.tiles * heads; task++) {
            int64_t tile = p.tiles - 1 - task / heads, head = task % heads;
            f->int8_forward_tile(o, kept, lse, q, packed + p.int8_keys_bytes * (size_t)(head / G * p.key_tiles), a, head / a->H,
                                 head % a->H, tile * ATTENTION_QUERIES, thread_scratch);
        }
    }
}

void bb_cpu_attention_forward(bb_device *dev, float *o, void *kept, float *lse, const float *q, const float *k, const float *v,
                              const bb_attention *a) {
    if (a->Tq <= DIRECT_QUERIES) {
        forward_direct(dev, o, kept, lse, q, k, v, a);
    } else if (lse && is_in_int8(dev)) {
        forward_int8(dev, o, kept, lse, q, k, v, a);
    } else {
        attention_job job = {.a = *a, .q = q, .k = k, .v = v, .o = o, .kept = kept, .lse = lse};
        const int64_t first_task[] = {0, bb_cpu_forward_tasks(&job)};
        bb_cpu_forward_tiles(dev, &job, first_task, 1);
    }
}
