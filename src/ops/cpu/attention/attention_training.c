// SPDX-License-Identifier: MIT
/* The forward pass of attention for training where a faster order of sums than that of forward_set.h exists: in int8 with VNNI, in
 * three parts of bf16 on AMX. */
#include "ops/cpu/attention/attention_training.h"

#include <omp.h>

#if defined(__x86_64__)

#include "ops/cpu/attention/attention_training_tile.h"

#include "ops/cpu/attention/attention_int8.h"

#include "ops/cpu/attention/attention_forward_int8.h"

#include "ops/cpu/attention/attention_forward_amx.h"

/* All keys and values are packed first. */
typedef struct int8_plan {
    int64_t tiles, key_tiles; /* per head */
    size_t thread_bytes, keys_bytes, bytes;
} int8_plan;

static int8_plan int8_plan_for(bb_device *dev, const bb_attention *a) {
    int8_plan p = {.tiles = bb_ceil_div(a->Tq, ATTENTION_QUERIES),
                   .key_tiles = bb_ceil_div(a->Tk, INT8_KEYS),
                   .thread_bytes = int8_forward_bytes(a->D),
                   .keys_bytes = int8_keys_bytes(a->D)};
    p.bytes = p.thread_bytes * (size_t)dev->threads + p.keys_bytes * (size_t)(a->B * a->Hk * p.key_tiles);
    return p;
}

static void forward_int8(bb_device *dev, const attention_job *job) {
    const bb_attention *a = &job->a;
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
            int8_pack_keys(packed + p.keys_bytes * (size_t)task, job, head / a->Hk, head % a->Hk, task % p.key_tiles,
                           thread_scratch);
        }
        /* the last tiles, which see most keys, go first, so that short ones balance the load at the end */
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < p.tiles * heads; task++) {
            int64_t head = task % heads;
            forward_tile t = {job, head / a->H, head % a->H, (p.tiles - 1 - task / heads) * ATTENTION_QUERIES};
            int8_forward_tile(&t, packed + p.keys_bytes * (size_t)(head / G * p.key_tiles), thread_scratch);
        }
    }
}

static void forward_amx(bb_device *dev, const attention_job *job) {
    const bb_attention *a = &job->a;
    int64_t heads = a->B * a->H, tiles = bb_ceil_div(a->Tq, ATTENTION_QUERIES);
    size_t thread_bytes = split_bytes(a->D);
    char *scratch = bb_cpu_scratch(dev, thread_bytes * (size_t)dev->threads);
    if (!scratch) return;
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic)
    for (int64_t task = 0; task < tiles * heads; task++) {
        int64_t head = task % heads;
        forward_tile t = {job, head / a->H, head % a->H, (tiles - 1 - task / heads) * ATTENTION_QUERIES};
        split_tile(&t, scratch + thread_bytes * (size_t)omp_get_thread_num());
    }
}

bool bb_cpu_attention_training(bb_device *dev, const attention_job *job) {
    bb_attention_set set = bb_cpu_of(dev)->kernels.attention;
    if (set == BB_ATTENTION_AVX512_VNNI)
        forward_int8(dev, job);
    else if (set == BB_ATTENTION_AVX512_AMX)
        forward_amx(dev, job);
    else
        return false;
    return true;
}

size_t bb_cpu_attention_forward_scratch(bb_device *dev, const bb_attention *a) {
    return bb_cpu_of(dev)->kernels.attention == BB_ATTENTION_AVX512_VNNI ? int8_plan_for(dev, a).bytes : 0;
}
#else
bool bb_cpu_attention_training(bb_device *dev, const attention_job *job) {
    (void)dev;
    (void)job;
    return false;
}

size_t bb_cpu_attention_forward_scratch(bb_device *dev, const bb_attention *a) {
    (void)dev;
    (void)a;
    return 0;
}
#endif
