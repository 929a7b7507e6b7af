// SPDX-License-Identifier: MIT
/* Attention without the (Tq,Tk) matrix: tiles of queries against blocks of keys, with an online softmax. Scores beyond the causal
 * diagonal are not computed. Each tile of the output belongs to one task, so results do not depend on which thread runs it.
 * arXiv:2205.14135 */
#include <omp.h>

#include "ops/cpu/attention/attention_forward.h"
#include "ops/cpu/attention/training_set.h"
#include "ops/cpu/device/entries.h"

static const bb_cpu_kernels *kernels_of(bb_device *dev) { return &bb_cpu_of(dev)->kernels; }

static bool in_codes(const attention_job *job) { return job->kv && job->kv->type != BB_KV_F32; }

static int64_t tiles_of(const bb_attention *a) { return bb_ceil_div(a->Tq, FORWARD_QUERIES); }

int64_t bb_cpu_forward_tasks(const attention_job *job) { return tiles_of(&job->a) * job->a.B * job->a.H; }

/* Task `task` of a job in tiles of `queries`. The last tiles, which see most keys, go first, so that short ones balance the load at
 * the end. */
static forward_tile tile_of(const attention_job *job, int64_t task, int64_t queries) {
    int64_t H = job->a.H, heads = job->a.B * H, head = task % heads, tiles = bb_ceil_div(job->a.Tq, queries);
    return (forward_tile){job, head / H, head % H, (tiles - 1 - task / heads) * queries};
}

void bb_cpu_forward_tiles(bb_device *dev, const attention_job *jobs, const int64_t *first_task, int64_t n) {
    const bb_f32_set *f32 = kernels_of(dev)->attention_f32;
    const bb_codes_set *codes = kernels_of(dev)->attention_codes;
    if (jobs->lse && f32 == &bb_f32_generic) f32 = &bb_f32_generic_training;
    size_t thread_bytes = bb_cpu_forward_bytes(dev, jobs->a.D);
    char *scratch = bb_cpu_scratch(dev, thread_bytes * (size_t)dev->threads);
    if (!scratch) return;
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic)
    for (int64_t i = 0; i < first_task[n]; i++) {
        int64_t group = bb_group_of(first_task, n, i);
        forward_tile t = tile_of(&jobs[group], i - first_task[group], FORWARD_QUERIES);
        (in_codes(t.job) ? codes->tile : f32->tile)(&t, scratch + thread_bytes * (size_t)omp_get_thread_num());
    }
}

size_t bb_cpu_forward_bytes(bb_device *dev, int64_t D) {
    size_t f32 = kernels_of(dev)->attention_f32->bytes(D), codes = kernels_of(dev)->attention_codes->bytes(D);
    return f32 > codes ? f32 : codes;
}

/* ---- where a backward pass follows ----------------------------------------------------------------------------------- */

typedef struct training_plan {
    int64_t key_tiles; /* per KV head, packed first */
    size_t thread_bytes, keys_bytes, bytes;
} training_plan;

static training_plan plan_for(bb_device *dev, const bb_attention *a) {
    const bb_training_set *set = kernels_of(dev)->attention_training;
    training_plan p = {.thread_bytes = set->bytes(a->D), .keys_bytes = set->pack_keys ? set->keys_bytes(a->D) : 0};
    p.key_tiles = set->pack_keys ? bb_ceil_div(a->Tk, set->keys) : 0;
    p.bytes = p.thread_bytes * (size_t)dev->threads + p.keys_bytes * (size_t)(a->B * a->Hk * p.key_tiles);
    return p;
}

size_t bb_cpu_attention_forward_scratch(bb_device *dev, const bb_attention *a) {
    return kernels_of(dev)->attention_training ? plan_for(dev, a).bytes : 0;
}

static void forward_training(bb_device *dev, const attention_job *job) {
    const bb_training_set *set = kernels_of(dev)->attention_training;
    const bb_attention *a = &job->a;
    const training_plan p = plan_for(dev, a);
    int64_t tiles = bb_ceil_div(a->Tq, set->queries), G = a->H / a->Hk;
    char *scratch = bb_cpu_scratch(dev, p.bytes);
    if (!scratch) return;
    char *packed = scratch + p.thread_bytes * (size_t)dev->threads;
#pragma omp parallel num_threads(dev->threads)
    {
        void *thread_scratch = scratch + p.thread_bytes * (size_t)omp_get_thread_num();
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < a->B * a->Hk * p.key_tiles; i++) {
            int64_t head = i / p.key_tiles;
            const forward_tile of = {job, head / a->Hk, head % a->Hk, 0};
            set->pack_keys(packed + p.keys_bytes * (size_t)i, &of, i % p.key_tiles * set->keys, thread_scratch);
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < tiles * a->B * a->H; i++) {
            forward_tile t = tile_of(job, i, set->queries);
            int64_t head = (t.b * a->H + t.h) / G;
            set->tile(&t, packed + p.keys_bytes * (size_t)(head * p.key_tiles), thread_scratch);
        }
    }
}

void bb_cpu_attention_forward(bb_device *dev, float *o, void *kept, float *lse, bb_qkv x, const bb_attention *a) {
    attention_job job = {.a = *a, .q = x.q, .k = x.k, .v = x.v, .o = o, .kept = kept, .lse = lse};
    const int64_t first_task[] = {0, bb_cpu_forward_tasks(&job)};
    if (lse && kernels_of(dev)->attention_training)
        forward_training(dev, &job);
    else
        bb_cpu_forward_tiles(dev, &job, first_task, 1);
}
