// SPDX-License-Identifier: MIT
/* The gradient of attention, from the rows' logsumexp: scores are recomputed, tile by tile. A task takes a run of key tiles of
 * one KV head; its dk and dv are its own, its dq is summed with that of the head's other runs in a fixed order.
 * arXiv:2205.14135 */
#include <omp.h>

#include "core/math.h"
#include "ops/cpu/attention/backward_set.h"
#include "ops/cpu/device/cpu.h"
#include "ops/cpu/device/entries.h"

static const bb_backward_set *set_of(bb_device *dev) { return bb_cpu_of(dev)->kernels.attention_backward; }

enum { MIN_TASKS = 16 }; /* with fewer heads than this, the keys of a head are divided into runs */

/* The first key tile of run `run`. Runs have about equal work; the work of a tile is the number of queries that see it. */
static int64_t run_begin(const bb_attention *a, int64_t keys, int64_t run, int64_t runs) {
    int64_t tiles = bb_ceil_div(a->Tk, keys), total = 0, before = 0, tile = 0;
    for (int64_t i = 0; i < tiles; i++) total += a->Tq - bb_clamp(i * keys - (a->Tk - a->Tq), 0, a->Tq - 1);
    while (tile < tiles && before * runs < run * total) {
        before += a->Tq - bb_clamp(tile * keys - (a->Tk - a->Tq), 0, a->Tq - 1);
        tile++;
    }
    return tile;
}

/* How a call is partitioned, and the memory that it needs. */
typedef struct backward_plan {
    int64_t runs; /* of a head's key tiles */
    int64_t padded, ld;
    int64_t part, parts; /* floats of a task's dq; with one run per head, the thread's next task reuses it */
    size_t thread_bytes;
} backward_plan;

static backward_plan plan_for(bb_device *dev, const bb_attention *a) {
    const bb_backward_set *f = set_of(dev);
    int64_t heads = a->B * a->Hk, tiles = bb_ceil_div(a->Tk, f->keys);
    backward_plan p = {.runs = bb_clamp((MIN_TASKS + heads - 1) / heads, 1, tiles),
                       .padded = bb_round_up(a->Tq, f->queries),
                       .ld = f->dq_ld(a->D),
                       .thread_bytes = f->bytes(a)};
    p.part = a->H / a->Hk * p.padded * p.ld;
    p.parts = p.runs > 1 ? heads * p.runs : dev->threads;
    return p;
}

static size_t plan_bytes(bb_device *dev, const backward_plan *p) {
    return p->thread_bytes * (size_t)dev->threads + (size_t)(p->parts * p->part) * sizeof(float);
}

size_t bb_cpu_attention_backward_scratch(bb_device *dev, const bb_attention *a) {
    backward_plan p = plan_for(dev, a);
    return plan_bytes(dev, &p);
}

void bb_cpu_attention_backward(bb_device *dev, bb_qkv_gradient dx, const void *d_o, bb_qkv x, const void *o, const float *lse,
                               const bb_attention *a) {
    const bb_backward_set *f = set_of(dev);
    const backward_arrays arrays = {dx.q, dx.k, dx.v, d_o, x.q, x.k, x.v, o, lse, a};
    const backward_plan p = plan_for(dev, a);
    int64_t G = a->H / a->Hk, heads = a->B * a->Hk, runs = p.runs, part = p.part, padded = p.padded, ld = p.ld;
    size_t thread_bytes = p.thread_bytes;
    char *scratch = bb_cpu_scratch(dev, plan_bytes(dev, &p));
    if (!scratch) return;
    float *dq_parts = (float *)(void *)(scratch + thread_bytes * (size_t)dev->threads);

#pragma omp parallel for num_threads(dev->threads) schedule(dynamic)
    for (int64_t task = 0; task < heads * runs; task++) {
        int64_t head = task / runs, run = task % runs, thread = omp_get_thread_num();
        const backward_keys_task keys = {.x = &arrays,
                                         .b = head / a->Hk,
                                         .head = head % a->Hk,
                                         .first = run_begin(a, f->keys, run, runs),
                                         .last = run_begin(a, f->keys, run + 1, runs),
                                         .dq = dq_parts + (runs > 1 ? task : thread) * part};
        f->key_tiles(&keys, scratch + thread_bytes * (size_t)thread);
        for (int64_t g = 0; g < G && runs == 1; g++)
            f->finish_dq(&(backward_rows_task){&arrays, keys.b, keys.head * G + g, 0, a->Tq, keys.dq + g * padded * ld, 1, 0});
    }
    if (runs == 1) return;
    int64_t tiles = padded / f->queries;
#pragma omp parallel for num_threads(dev->threads)
    for (int64_t tile = 0; tile < heads * G * tiles; tile++) {
        int64_t t = tile % tiles * f->queries, h = tile / tiles;
        f->finish_dq(&(backward_rows_task){&arrays, h / a->H, h % a->H, t, bb_clamp(a->Tq - t, 0, f->queries),
                                           dq_parts + h / G * runs * part + (h % G * padded + t) * ld, runs, part});
    }
}
