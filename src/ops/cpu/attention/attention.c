// SPDX-License-Identifier: MIT
/* Attention without the (Tq,Tk) matrix: tiles of queries against tiles of keys, with an online softmax. Scores beyond the
 * causal diagonal are not computed. A tile of the output is one task's, so nothing depends on which thread runs it.
 * arXiv:2205.14135 */
#include <omp.h>

#include "ops/cpu/device/entries.h"

#define ATTENTION_TILE "ops/cpu/attention/attention_forward_tile.h"
#include "ops/cpu/attention/attention_sets.h"
#ifdef __x86_64__
#include "ops/cpu/attention/attention_forward_amx.h"
#endif

typedef struct forward_functions {
    size_t (*tile_bytes)(int64_t D);
    void (*tile)(float *o, bb_bf16 *kept, float *lse, const float *q, const float *k, const float *v, const bb_kv *kv,
                 const bb_attention *a, int64_t b, int64_t h, int64_t t0, void *scratch);
    /* NULL, or what is faster than tile where the keys and values are codes */
    size_t (*codes_bytes)(int64_t D);
    void (*codes_tile)(float *o, const float *q, const bb_kv *kv, const bb_attention *a, int64_t h, int64_t t0, void *scratch);
    /* NULL, or the same where a backward pass follows: in int8 */
    size_t (*rows_bytes)(int64_t D);
    size_t (*keys_bytes)(int64_t D);
    void (*keys_pack)(void *to, const float *k, const float *v, const bb_attention *a, int64_t b, int64_t head, int64_t tile,
                      void *scratch);
    void (*rows_tile)(float *o, bb_bf16 *kept, float *lse, const float *q, const char *packed, const bb_attention *a, int64_t b,
                      int64_t h, int64_t t0, void *scratch);
    void (*partial)(float *partial, const float *q, const float *k, const float *v, int64_t kv_stride, int64_t keys, int64_t D,
                    void *scratch);
    void (*query)(cached_q *out, const float *q, int64_t D);
    void (*cached)(float *partial, int64_t stride, const cached_q *q, int queries, const cached_rows *rows, const int64_t *keys,
                   int64_t most, int64_t D, void *scratch);
    void (*whole)(cached_rows *rows, int8_t *room, int64_t keys, int64_t most, int64_t D);
    void (*merge)(float *o, bb_bf16 *kept, float *lse, const float *partials, int64_t count, int64_t D);
} forward_functions;

/* none of these; forward_tile on AMX is faster still */
#define codes_bytes_generic NULL
#define codes_tile_generic NULL
#define rows_bytes_generic NULL
#define keys_bytes_generic NULL
#define keys_pack_generic NULL
#define rows_tile_generic NULL
#define codes_bytes_avx2 NULL
#define codes_tile_avx2 NULL
#define rows_bytes_avx2 NULL
#define keys_bytes_avx2 NULL
#define keys_pack_avx2 NULL
#define rows_tile_avx2 NULL
#define codes_bytes_avx512 NULL
#define codes_tile_avx512 NULL
#define rows_bytes_avx512 NULL
#define keys_bytes_avx512 NULL
#define keys_pack_avx512 NULL
#define rows_tile_avx512 NULL
#define codes_bytes_avx512amx NULL
#define codes_tile_avx512amx NULL
#define rows_bytes_avx512amx NULL
#define keys_bytes_avx512amx NULL
#define keys_pack_avx512amx NULL
#define rows_tile_avx512amx NULL
#define FORWARD(set)                                                                                                           \
    {                                                                                                                          \
        forward_bytes_##set, forward_tile_##set, codes_bytes_##set, codes_tile_##set, rows_bytes_##set, keys_bytes_##set,      \
            keys_pack_##set, rows_tile_##set, direct_partial_##set, cached_query_##set, cached_partial_##set,                  \
            cached_whole_##set, direct_merge_##set                                                                             \
    }
ATTENTION_TABLE(forward_functions, forward_for, FORWARD)

enum {
    DIRECT_QUERIES = BB_FEW_ROWS, /* up to so many, packing the keys hardly pays */
    /* elements of k, and of partial results, under which a second thread costs more than it saves */
    DIRECT_SERIAL = 1 << 15,
    MERGE_SERIAL = 1 << 14
};

static void forward_direct(bb_device *dev, float *o, bb_bf16 *kept, float *lse, const float *q, const float *k, const float *v,
                           const bb_attention *a) {
    const forward_functions *f = &forward_for[bb_cpu_of(dev)->kernels.attention];
    int64_t D = a->D, G = a->H / a->Hk, splits = (a->Tk + DIRECT_KEYS - 1) / DIRECT_KEYS, ld = bb_round_up(D, 16) + 16;
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

/* All queries in tiles; kv NULL: the keys and values are k and v. */
static void forward_tiles(bb_device *dev, float *o, bb_bf16 *kept, float *lse, const float *q, const float *k, const float *v,
                          const bb_kv *kv, const bb_attention *a) {
    const forward_functions *f = &forward_for[bb_cpu_of(dev)->kernels.attention];
    int64_t tiles = (a->Tq + ATTENTION_QUERIES - 1) / ATTENTION_QUERIES, heads = a->B * a->H;
    bool by_codes = kv && f->codes_tile;
    size_t thread_bytes = by_codes ? f->codes_bytes(a->D) : f->tile_bytes(a->D);
    char *scratch = bb_cpu_scratch(dev, thread_bytes * (size_t)dev->threads);
    if (!scratch) return;
        /* the last tiles, which see most, first: the short ones fill up the end */
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic)
    for (int64_t task = 0; task < tiles * heads; task++) {
        int64_t tile = tiles - 1 - task / heads, head = task % heads;
        void *own = scratch + thread_bytes * (size_t)omp_get_thread_num();
        if (by_codes)
            f->codes_tile(o, q, kv, a, head, tile * ATTENTION_QUERIES, own);
        else
            f->tile(o, kept, lse, q, k, v, kv, a, head / a->H, head % a->H, tile * ATTENTION_QUERIES, own);
    }
}

/* The same in int8: all keys and values are packed first. */
typedef struct int8_plan {
    int64_t tiles, key_tiles; /* of a head */
    size_t thread_bytes, keys_bytes, bytes;
} int8_plan;

static bool is_in_int8(bb_device *dev) { return forward_for[bb_cpu_of(dev)->kernels.attention].rows_tile != NULL; }

static int8_plan int8_plan_for(bb_device *dev, const bb_attention *a) {
    const forward_functions *f = &forward_for[bb_cpu_of(dev)->kernels.attention];
    int8_plan p = {.tiles = (a->Tq + ATTENTION_QUERIES - 1) / ATTENTION_QUERIES,
                   .key_tiles = (a->Tk + INT8_KEYS - 1) / INT8_KEYS,
                   .thread_bytes = f->rows_bytes(a->D),
                   .keys_bytes = f->keys_bytes(a->D)};
    p.bytes = p.thread_bytes * (size_t)dev->threads + p.keys_bytes * (size_t)(a->B * a->Hk * p.key_tiles);
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
        void *own = scratch + p.thread_bytes * (size_t)omp_get_thread_num();
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < a->B * a->Hk * p.key_tiles; task++) {
            int64_t head = task / p.key_tiles;
            f->keys_pack(packed + p.keys_bytes * (size_t)task, k, v, a, head / a->Hk, head % a->Hk, task % p.key_tiles, own);
        }
        /* the last tiles first, as above */
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < p.tiles * heads; task++) {
            int64_t tile = p.tiles - 1 - task / heads, head = task % heads;
            f->rows_tile(o, kept, lse, q, packed + p.keys_bytes * (size_t)(head / G * p.key_tiles), a, head / a->H, head % a->H,
                         tile * ATTENTION_QUERIES, own);
        }
    }
}

void bb_cpu_attention_forward(bb_device *dev, float *o, void *kept, float *lse, const float *q, const float *k, const float *v,
                              const bb_attention *a) {
    if (a->Tq <= DIRECT_QUERIES)
        forward_direct(dev, o, kept, lse, q, k, v, a);
    else if (lse && is_in_int8(dev))
        forward_int8(dev, o, kept, lse, q, k, v, a);
    else
        forward_tiles(dev, o, kept, lse, q, k, v, NULL, a);
}

/* ---- the cache ------------------------------------------------------------------------------------------------------- */

/* Few queries on the cache, by a team of threads: what it holds in int8 is read once. */
typedef struct cached_work {
    forward_functions f;
    bool in_place; /* codes of six bits are read by f.cached */
    const bb_kv *kv;
    const bb_attention *a;
    float *o;
    int64_t splits, ld; /* runs of DIRECT_KEYS keys; elements of a partial result */
    float *partials;    /* (H * Tq, splits, ld) */
    cached_q *query;    /* (H * Tq): query i is head i / Tq, row i % Tq */
    char *scratch;      /* (threads, cached_bytes(D)) */
} cached_work;

static void cached_run(const cached_work *w, int64_t unit, void *scratch) {
    const bb_attention *a = w->a;
    int64_t D = a->D, G = a->H / a->Hk, splits = w->splits, key0 = unit % splits * DIRECT_KEYS, head = unit / splits;
    cached_rows rows = cached_from(w->kv, head, key0, D);
    if (unit + 1 < a->Hk * splits) rows.next = cached_from(w->kv, (unit + 1) / splits, (unit + 1) % splits * DIRECT_KEYS, D).k;
    if (w->kv->type == BB_KV_INT6 && !w->in_place)
        w->f.whole(&rows, (int8_t *)scratch + cached_partial_bytes(), bb_clamp(a->Tk - key0, 0, DIRECT_KEYS), DIRECT_KEYS, D);
    int64_t end = (head + 1) * G * a->Tq;
    for (int64_t i = head * G * a->Tq; i < end; i += CACHED_QUERIES) {
        int64_t keys[CACHED_QUERIES], most = 0, count = bb_clamp(end - i, 1, CACHED_QUERIES);
        for (int64_t n = 0; n < count; n++) {
            keys[n] = bb_clamp((i + n) % a->Tq + 1 + a->Tk - a->Tq - key0, 0, DIRECT_KEYS);
            most = keys[n] > most ? keys[n] : most;
        }
        w->f.cached(w->partials + (i * splits + key0 / DIRECT_KEYS) * w->ld, splits * w->ld, &w->query[i], (int)count, &rows,
                    keys, most, D, scratch);
    }
}

static void cached_runs(void *user, bb_team *team, int thread) {
    const cached_work *w = user;
    for (int64_t i = bb_team_take(team, thread); i >= 0; i = bb_team_take(team, thread))
        cached_run(w, i, w->scratch + (size_t)thread * cached_bytes(w->a->D));
}

static void cached_merges(void *user, bb_team *team, int thread) {
    const cached_work *w = user;
    const bb_attention *a = w->a;
    for (int64_t i = bb_team_take(team, thread); i >= 0; i = bb_team_take(team, thread)) {
        int64_t count = (i % a->Tq + 1 + a->Tk - a->Tq + DIRECT_KEYS - 1) / DIRECT_KEYS;
        w->f.merge(w->o + i % a->Tq * a->o_stride + i / a->Tq * a->D, NULL, NULL, w->partials + i * w->splits * w->ld, count,
                   a->D);
    }
}

static void cached_direct(bb_device *dev, float *o, const float *q, const bb_kv *kv, const bb_attention *a) {
    int64_t D = a->D, queries = a->H * a->Tq, step_count = bb_round_up(D, 64);
    cached_work w = {.f = forward_for[bb_cpu_of(dev)->kernels.attention],
                     .kv = kv,
                     .a = a,
                     .o = o,
                     .splits = (a->Tk + DIRECT_KEYS - 1) / DIRECT_KEYS,
                     .ld = bb_round_up(D, 16) + 16};
#ifdef __x86_64__
    if (kv->type == BB_KV_INT6 && bb_cpu_of(dev)->kernels.vbmi) {
        w.in_place = true;
        w.f.query = int6_query_avx512vbmi;
        w.f.cached = int6_partial_avx512vbmi;
    }
#endif
    bb_team *team = bb_cpu_team(dev);
    size_t partial_bytes = bb_align_up((size_t)(queries * w.splits * w.ld) * sizeof(float));
    size_t query_bytes = bb_align_up((size_t)queries * sizeof(cached_q));
    size_t steps_bytes = bb_align_up((size_t)(queries * step_count) * sizeof(int16_t));
    char *memory = bb_cpu_shared(dev, partial_bytes + query_bytes + steps_bytes + cached_bytes(D) * (size_t)dev->threads);
    if (!memory || !team) return;
    w.partials = (float *)(void *)memory;
    w.query = (cached_q *)(void *)(memory + partial_bytes);
    w.scratch = memory + partial_bytes + query_bytes + steps_bytes;
    int16_t *steps = (int16_t *)(void *)(memory + partial_bytes + query_bytes);
    for (int64_t i = 0; i < queries; i++) {
        w.query[i].steps = steps + i * step_count;
        w.f.query(&w.query[i], q + i % a->Tq * a->q_stride + i / a->Tq * D, D);
    }
    bb_team_fetch unknown = {0};
    bb_team_run(team, a->Hk * a->Tk * D <= DIRECT_SERIAL, a->Hk * w.splits, cached_runs, &w, unknown);
    bb_team_run(team, queries * w.splits * D <= MERGE_SERIAL, queries, cached_merges, &w, unknown);
}

void bb_cpu_attention_cached(bb_device *dev, float *o, const float *q, const bb_kv *kv, const bb_attention *a) {
    if (kv->type == BB_KV_F32) {
        bb_attention plain = *a;
        plain.kv_stride = a->Hk * a->D;
        plain.kv_batch_stride = 0;
        bb_cpu_attention_forward(dev, o, NULL, NULL, q, kv->k, kv->v, &plain);
    } else if (a->Tq <= DIRECT_QUERIES) {
        cached_direct(dev, o, q, kv, a);
    } else {
        forward_tiles(dev, o, NULL, NULL, q, NULL, NULL, kv, a);
    }
}
