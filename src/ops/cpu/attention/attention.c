// SPDX-License-Identifier: MIT
/* Attention without the (Tq,Tk) matrix: tiles of queries against blocks of keys, with an online softmax. Scores beyond the causal
 * diagonal are not computed. Each tile of the output belongs to one task, so results do not depend on which thread runs it.
 * arXiv:2205.14135 */
#include <omp.h>

#include "ops/cpu/attention/attention_forward.h"
#include "ops/cpu/attention/attention_training.h"
#include "ops/cpu/device/entries.h"

#ifdef __x86_64__
static const bb_f32_set *const f32_sets[] = {[BB_ATTENTION_GENERIC] = &bb_f32_generic,
                                             [BB_ATTENTION_AVX2] = &bb_f32_avx2,
                                             [BB_ATTENTION_AVX512] = &bb_f32_avx512,
                                             [BB_ATTENTION_AVX512_VNNI] = &bb_f32_avx512,
                                             [BB_ATTENTION_AVX512_AMX] = &bb_f32_avx512};
static const bb_codes_set *const codes_sets[] = {[BB_ATTENTION_GENERIC] = &bb_codes_generic,
                                                 [BB_ATTENTION_AVX2] = &bb_codes_avx2,
                                                 [BB_ATTENTION_AVX512] = &bb_codes_avx512,
                                                 [BB_ATTENTION_AVX512_VNNI] = &bb_codes_avx512_vnni,
                                                 [BB_ATTENTION_AVX512_AMX] = &bb_codes_avx512_amx};
#else
static const bb_f32_set *const f32_sets[] = {[BB_ATTENTION_GENERIC] = &bb_f32_generic};
static const bb_codes_set *const codes_sets[] = {[BB_ATTENTION_GENERIC] = &bb_codes_generic};
#endif

const bb_f32_set *bb_cpu_f32_set(bb_device *dev) { return f32_sets[bb_cpu_of(dev)->kernels.attention]; }

const bb_codes_set *bb_cpu_codes_set(bb_device *dev) { return codes_sets[bb_cpu_of(dev)->kernels.attention]; }

const bb_codes_set *bb_cpu_int6_set(bb_device *dev) {
#ifdef __x86_64__
    if (bb_cpu_of(dev)->kernels.vbmi) return &bb_int6_avx512_vbmi;
#endif
    return bb_cpu_codes_set(dev);
}

static bool in_codes(const attention_job *job) { return job->kv && job->kv->type != BB_KV_F32; }

static int64_t tiles_of(const bb_attention *a) { return bb_ceil_div(a->Tq, FORWARD_QUERIES); }

int64_t bb_cpu_forward_tasks(const attention_job *job) { return tiles_of(&job->a) * job->a.B * job->a.H; }

void bb_cpu_forward_tiles(bb_device *dev, const attention_job *jobs, const int64_t *first_task, int64_t n) {
    const bb_f32_set *f32 = bb_cpu_f32_set(dev);
    const bb_codes_set *codes = bb_cpu_codes_set(dev);
    if (jobs->lse && f32 == &bb_f32_generic) f32 = &bb_f32_generic_training;
    size_t thread_bytes = bb_cpu_forward_bytes(dev, jobs->a.D);
    char *scratch = bb_cpu_scratch(dev, thread_bytes * (size_t)dev->threads);
    if (!scratch) return;
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic)
    for (int64_t i = 0; i < first_task[n]; i++) {
        int64_t group = bb_group_of(first_task, n, i);
        const attention_job *j = &jobs[group];
        int64_t task = i - first_task[group], heads = j->a.B * j->a.H, head = task % heads;
        /* the last tiles, which see most keys, go first, so that short ones balance the load at the end */
        forward_tile t = {j, head / j->a.H, head % j->a.H, (tiles_of(&j->a) - 1 - task / heads) * FORWARD_QUERIES};
        (in_codes(j) ? codes->tile : f32->tile)(&t, scratch + thread_bytes * (size_t)omp_get_thread_num());
    }
}

size_t bb_cpu_forward_bytes(bb_device *dev, int64_t D) {
    size_t f32 = bb_cpu_f32_set(dev)->bytes(D), codes = bb_cpu_codes_set(dev)->bytes(D);
    return f32 > codes ? f32 : codes;
}

void bb_cpu_attention_forward(bb_device *dev, float *o, void *kept, float *lse, const float *q, const float *k, const float *v,
                              const bb_attention *a) {
    attention_job job = {.a = *a, .q = q, .k = k, .v = v, .o = o, .kept = kept, .lse = lse};
    const int64_t first_task[] = {0, bb_cpu_forward_tasks(&job)};
    if (!lse || !bb_cpu_attention_training(dev, &job)) bb_cpu_forward_tiles(dev, &job, first_task, 1);
}
