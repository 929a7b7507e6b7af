// SPDX-License-Identifier: MIT
/* Opens the ref backend. It uses ordinary process memory and runs in the calling thread. */
#include "ops/ref/ref.h"

#include <math.h>
#include <stdlib.h>

#include "core/arena.h"
#include "core/clock.h"
#include "core/host.h"
#include "ops/registry.h"

static bb_ref *ref_of(bb_device *dev) { return (bb_ref *)dev; }

static void close_device(bb_device *dev) {
    free(ref_of(dev)->scratch);
    free(dev);
}

static bb_status sync_device(bb_device *dev, bb_error *err) {
    bb_error failure = ref_of(dev)->failure;
    ref_of(dev)->failure.code = BB_OK;
    return failure.code == BB_OK ? BB_OK : bb_fail(err, failure.code, "%s", failure.message);
}

static void *alloc(bb_device *dev, size_t bytes) {
    (void)dev;
    if (bytes > SIZE_MAX - BB_ALIGN) return NULL;
    size_t rounded = bb_align_up(bytes ? bytes : 1);
    void *p = aligned_alloc(BB_ALIGN, rounded);
    return p ? memset(p, 0, rounded) : NULL;
}

static void release(bb_device *dev, void *p, size_t bytes) {
    (void)dev;
    (void)bytes;
    free(p);
}

static void copy(bb_device *dev, void *dst, const void *src, size_t bytes) {
    (void)dev;
    memcpy(dst, src, bytes);
}

static void zero(bb_device *dev, void *p, size_t bytes) {
    (void)dev;
    memset(p, 0, bytes);
}

/* A few rows of doubles: negligible. */
static size_t scratch_bytes(bb_device *dev, const bb_attention *a, int64_t C, int64_t V) {
    (void)dev;
    (void)a;
    (void)C;
    (void)V;
    return 0;
}

/* Measures what ref's operations consist of: sequential products in double. */
static void measure_peaks(bb_device *dev, bb_peaks *out) {
    enum { RUNS = 5, N = 1 << 20 };
    *out = (bb_peaks){0};
    float *x = alloc(dev, N * sizeof *x);
    if (!x) return;
    for (int64_t i = 0; i < N; i++) x[i] = (float)(i % 7);
    double best = INFINITY;
    volatile double sink = 0;
    for (int r = 0; r < RUNS; r++) {
        double sum = 0, start = bb_clock_seconds();
        for (int64_t i = 0; i < N; i++) sum += (double)x[i] * (double)x[i];
        best = fmin(best, bb_clock_seconds() - start);
        sink = sink + sum;
    }
    release(dev, x, N * sizeof *x);
    *out = (bb_peaks){.f32 = 2.0 * N / best * 1e-9, .read_gb = N * sizeof *x / best * 1e-9};
}

static void memory(const bb_device *dev, uint64_t *total_bytes, uint64_t *free_bytes) {
    (void)dev;
    bb_host_memory("", total_bytes, free_bytes);
}

static const char *description(const bb_device *dev) {
    (void)dev;
    return "scalar reference, double accumulation, 1 thread";
}

static void act_in(bb_device *dev, void *x, const float *host, int64_t n) { copy(dev, x, host, (size_t)n * sizeof(float)); }
static void act_out(bb_device *dev, float *host, const void *x, int64_t n) { copy(dev, host, x, (size_t)n * sizeof(float)); }

static const bb_ops ops = {.name = "ref",
                           .act_dtype = BB_F32,
                           .host_memory = true,
                           .close = close_device,
                           .sync = sync_device,
                           .alloc = alloc,
                           .free = release,
                           .copy_in = copy,
                           .copy_out = copy,
                           .copy = copy,
                           .zero = zero,
                           .scratch_bytes = scratch_bytes,
                           .measure_peaks = measure_peaks,
                           .memory = memory,
                           .description = description,
                           .act_in = act_in,
                           .act_out = act_out,
                           .embedding_forward = bb_ref_embedding_forward,
                           .embedding_backward = bb_ref_embedding_backward,
                           .ngram_forward = bb_ref_ngram_forward,
                           .ngram_backward = bb_ref_ngram_backward,
                           .ngram_quant = bb_ref_ngram_quant,
                           .head_forward = bb_ref_head_forward,
                           .head_backward = bb_ref_head_backward,
                           .loss_forward = bb_ref_loss_forward,
                           .loss_backward = bb_ref_loss_backward,
                           .rmsnorm_forward = bb_ref_rmsnorm_forward,
                           .rmsnorm_backward = bb_ref_rmsnorm_backward,
                           .act_quant = bb_ref_act_quant,
                           .act_to_f32 = act_out,
                           .rope_forward = bb_ref_rope_forward,
                           .rope_backward = bb_ref_rope_backward,
                           .swiglu_forward = bb_ref_swiglu_forward,
                           .swiglu_backward = bb_ref_swiglu_backward,
                           .ternary_bytes = bb_ref_ternary_bytes,
                           .ternary_dense = bb_ref_ternary_dense,
                           .ternary_quant = bb_ref_ternary_quant,
                           .ternary_quant_rows = bb_ref_ternary_quant_rows,
                           .sum_abs = bb_ref_sum_abs,
                           .ternary_load = bb_ref_ternary_load,
                           .ternary_unpack = bb_ref_ternary_unpack,
                           .linear_forward = bb_ref_linear_forward,
                           .linear_backward = bb_ref_linear_backward,
                           .ste_clip = bb_ref_ste_clip,
                           .attention_forward = bb_ref_attention_forward,
                           .kv_bytes = bb_ref_kv_bytes,
                           .kv_append = bb_ref_kv_append,
                           .kv_copy = bb_ref_kv_copy,
                           .kv_unpack = bb_ref_kv_unpack,
                           .attention_cached = bb_ref_attention_cached,
                           .attention_backward = bb_ref_attention_backward,
                           .sum_squares = bb_ref_sum_squares,
                           .add = bb_ref_add,
                           .adamw_step = bb_ref_adamw_step,
                           .row_adagrad_step = bb_ref_row_adagrad_step,
                           .adamw8bit_init = bb_ref_adamw8bit_init,
                           .adamw8bit_step = bb_ref_adamw8bit_step,
                           .muon_step = bb_ref_muon_step,
                           .muon_scratch = bb_ref_muon_scratch};

bb_status bb_device_open_ref(int threads, bb_device **out, bb_error *err) {
    (void)threads;
    bb_ref *ref = calloc(1, sizeof *ref);
    if (!ref) return bb_fail(err, BB_ERR_MEMORY, "ref: no memory for %zu bytes", sizeof *ref);
    ref->base.ops = &ops;
    ref->base.threads = 1;
    ref->base.forward_rows = 512;
    *out = &ref->base;
    return BB_OK;
}
