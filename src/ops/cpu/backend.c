// SPDX-License-Identifier: MIT
/* The cpu backend: its operation table, opening and closing. */
#include <stdio.h>
#include <stdlib.h>

#include "core/host.h"
#include "ops/cpu/device/cpu.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/linear/gemm.h"
#include "ops/registry.h"

#define COPY_TILE ((size_t)2 << 20)

enum { ACT_TILE = 65536 };

static void cpu_close(bb_device *dev) {
    bb_cpu *cpu = bb_cpu_of(dev);
    bb_team_free(cpu->team);
    bb_gemm_close(dev);
    for (int i = 0; cpu->scratch && cpu->scratch_bytes && i < dev->threads; i++)
        bb_cpu_free(dev, cpu->scratch[i], cpu->scratch_bytes[i]);
    free(cpu->scratch);
    free(cpu->scratch_bytes);
    bb_cpu_free(dev, cpu->shared, cpu->shared_bytes);
    free(cpu);
}

static bb_status cpu_sync(bb_device *dev, bb_error *err) {
    bb_cpu *cpu = bb_cpu_of(dev);
    bb_error failure = cpu->failure;
    cpu->failure.code = BB_OK;
    return failure.code == BB_OK ? BB_OK : bb_fail(err, failure.code, "%s", failure.message);
}

static void cpu_copy(bb_device *dev, void *dst, const void *src, size_t bytes) {
    if (bytes < COPY_TILE) {
        memcpy(dst, src, bytes);
        return;
    }
    int64_t tiles = (int64_t)((bytes + COPY_TILE - 1) / COPY_TILE);
#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t i = 0; i < tiles; i++) {
        size_t at = (size_t)i * COPY_TILE, n = bytes - at < COPY_TILE ? bytes - at : COPY_TILE;
        memcpy((uint8_t *)dst + at, (const uint8_t *)src + at, n);
    }
}

static void cpu_zero(bb_device *dev, void *p, size_t bytes) {
    if (bytes < COPY_TILE) {
        memset(p, 0, bytes);
        return;
    }
    int64_t tiles = (int64_t)((bytes + COPY_TILE - 1) / COPY_TILE);
#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t i = 0; i < tiles; i++) {
        size_t at = (size_t)i * COPY_TILE, n = bytes - at < COPY_TILE ? bytes - at : COPY_TILE;
        memset((uint8_t *)p + at, 0, n);
    }
}

/* Shared by all threads: a slab of expanded weights (linear_*.c) or the head's sums. Per thread: a tile of dW, or rows of
 * a product with the head's matrix. Attention's buffers depend on the shape. */
static size_t cpu_scratch_bytes(bb_device *dev, const bb_attention *a, int64_t C, int64_t V) {
    enum { SLAB = 9000000, TILE = 1 << 20 };
    size_t head = bb_cpu_head_scratch(a->B * a->Tq, V, C), rows = bb_gemm_rows_scratch(C, V);
    size_t forward = bb_cpu_attention_forward_scratch(dev, a), backward = bb_cpu_attention_backward_scratch(dev, a);
    return (head > SLAB ? head : SLAB) + (size_t)dev->threads * (rows > TILE ? rows : TILE) +
           (forward > backward ? forward : backward);
}

static void cpu_memory(const bb_device *dev, uint64_t *total_bytes, uint64_t *free_bytes) {
    (void)dev;
    bb_host_memory("", total_bytes, free_bytes);
}

static const char *cpu_description(const bb_device *dev) { return ((const bb_cpu *)dev)->description; }

static void cpu_act_in(bb_device *dev, void *x, const float *host, int64_t n) {
    bb_bf16 *out = x;
#pragma omp parallel for num_threads(dev->threads) if (n > ACT_TILE)
    for (int64_t i = 0; i < n; i++) out[i] = bb_bf16_from_f32(host[i]);
}

static void cpu_act_out(bb_device *dev, float *host, const void *x, int64_t n) {
    const bb_bf16 *in = x;
#pragma omp parallel for num_threads(dev->threads) if (n > ACT_TILE)
    for (int64_t i = 0; i < n; i++) host[i] = bb_f32_from_bf16(in[i]);
}

static const bb_ops ops = {
    .name = "cpu",
    .act_dtype = BB_BF16,
    .host_memory = true,
    .close = cpu_close,
    .sync = cpu_sync,
    .alloc = bb_cpu_alloc,
    .free = bb_cpu_free,
    .copy_in = cpu_copy,
    .copy_out = cpu_copy,
    .copy = cpu_copy,
    .zero = cpu_zero,
    .scratch_bytes = cpu_scratch_bytes,
    .measure_peaks = bb_cpu_measure_peaks,
    .memory = cpu_memory,
    .description = cpu_description,
    .act_in = cpu_act_in,
    .act_out = cpu_act_out,
    .embedding_forward = bb_cpu_embedding_forward,
    .embedding_backward = bb_cpu_embedding_backward,
    .ngram_forward = bb_cpu_ngram_forward,
    .ngram_backward = bb_cpu_ngram_backward,
    .ngram_quant = bb_cpu_ngram_quant,
    .head_forward = bb_cpu_head_forward,
    .head_backward = bb_cpu_head_backward,
    .loss_forward = bb_cpu_loss_forward,
    .loss_backward = bb_cpu_loss_backward,
    .rmsnorm_forward = bb_cpu_rmsnorm_forward,
    .rmsnorm_backward = bb_cpu_rmsnorm_backward,
    .act_quant = bb_cpu_act_quant,
    .act_to_f32 = cpu_act_out,
    .rope_forward = bb_cpu_rope_forward,
    .rope_backward = bb_cpu_rope_backward,
    .swiglu_forward = bb_cpu_swiglu_forward,
    .swiglu_backward = bb_cpu_swiglu_backward,
    .ternary_bytes = bb_cpu_ternary_bytes,
    .ternary_dense = bb_cpu_ternary_dense,
    .ternary_quant = bb_cpu_ternary_quant,
    .ternary_quant_rows = bb_cpu_ternary_quant_rows,
    .sum_abs = bb_cpu_sum_abs,
    .ternary_load = bb_cpu_ternary_load,
    .ternary_unpack = bb_cpu_ternary_unpack,
    .linear_forward = bb_cpu_linear_forward,
    .linear_backward = bb_cpu_linear_backward,
    .ste_clip = bb_cpu_ste_clip,
    .attention_forward = bb_cpu_attention_forward,
    .kv_bytes = bb_cpu_kv_bytes,
    .kv_append = bb_cpu_kv_append,
    .kv_copy = bb_cpu_kv_copy,
    .kv_unpack = bb_cpu_kv_unpack,
    .attention_cached = bb_cpu_attention_cached,
    .attention_backward = bb_cpu_attention_backward,
    .sum_squares = bb_cpu_sum_squares,
    .add = bb_cpu_add,
    .adamw_step = bb_cpu_adamw_step,
    .row_adagrad_step = bb_cpu_row_adagrad_step,
    .adamw8bit_init = bb_cpu_adamw8bit_init,
    .adamw8bit_step = bb_cpu_adamw8bit_step,
    .muon_step = bb_cpu_muon_step,
    .muon_scratch = bb_cpu_muon_scratch,
};

bb_status bb_device_open_cpu(int threads, bb_device **out, bb_error *err) {
    *out = NULL;
    bb_cpu_choice choice;
    BB_TRY(bb_cpu_detect(&choice, err));
    bb_cpu *cpu = calloc(1, sizeof *cpu);
    if (!cpu) return bb_fail(err, BB_ERR_MEMORY, "out of memory for the cpu device");
    cpu->base.ops = &ops;
    cpu->base.threads = threads;
    cpu->kernels = bb_cpu_kernels_for(choice.features);
    cpu->base.forward_rows = cpu->kernels.forward_rows;
    cpu->scratch = calloc((size_t)threads, sizeof *cpu->scratch);
    cpu->scratch_bytes = calloc((size_t)threads, sizeof *cpu->scratch_bytes);
    bb_status status = BB_OK;
    if (!cpu->scratch || !cpu->scratch_bytes)
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory for the cpu device");
    else
        status = bb_gemm_open(&cpu->base, err);
    if (status != BB_OK) {
        cpu_close(&cpu->base);
        return status;
    }
    snprintf(cpu->description, sizeof cpu->description, "%s, %s, %s", choice.set->name,
             choice.limited ? "limited by BITBYTE_CPU" : "this processor's best", bb_gemm_version());
    *out = &cpu->base;
    return BB_OK;
}
