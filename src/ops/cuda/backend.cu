// SPDX-License-Identifier: MIT
/* The cuda backend: its operation table, opening and closing a device, memory and copies. */
#include "ops/cuda/device.h"

#include <stdio.h>
#include <stdlib.h>

#include "ops/cuda/cublaslt.h"
#include "ops/cuda/entries.h"
#include "ops/cuda/gemm.h"

extern "C" {
#include "core/arena.h"
#include "ops/registry.h"
}

/* Minimum compute capabilities, major * 10 + minor. Turing is the first with tensor cores that multiply int8. Ampere is the
 * first with tensor cores that multiply bf16. */
enum { LEAST_COMPUTE = 75, BF16_COMPUTE = 80 };

enum { MOST_NGRAMS = 6 }; /* maximum n-gram lookups per byte */

static void close_device(bb_device *dev) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    cuda->forget_passes(cuda);
    if (cuda->positions) (void)cudaFree(cuda->positions);
    if (cuda->pinned) (void)cudaFreeHost(cuda->pinned);
    bb_cuda_ahead_close(cuda);
    bb_cuda_peers_close(cuda);
    bb_cuda_blas_close(cuda->blas);
    if (cuda->scratch) (void)cudaFree(cuda->scratch);
    (void)cudaStreamDestroy(cuda->stream);
    free(cuda->staging);
    free(cuda);
}

static bb_status sync_device(bb_device *dev, bb_error *err) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    bb_cuda_check(dev, cudaStreamSynchronize(cuda->stream), "the work before");
    bb_error failure = cuda->failure;
    cuda->failure.code = BB_OK;
    cuda->pinned_used = 0;
    return failure.code == BB_OK ? BB_OK : bb_fail(err, failure.code, "%s", failure.message);
}

static void *alloc(bb_device *dev, size_t bytes) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    void *p = NULL;
    if (cudaMalloc(&p, bytes ? bytes : 1) != cudaSuccess) {
        (void)cudaGetLastError(); /* the caller reports what the memory was for */
        return NULL;
    }
    bb_cuda_check(dev, cudaMemsetAsync(p, 0, bytes ? bytes : 1, cuda->stream), "cudaMemsetAsync");
    cuda->allocations++;
    return p;
}

static void release(bb_device *dev, void *p, size_t bytes) {
    (void)bytes;
    bb_cuda *cuda = bb_cuda_enter(dev);
    if (!p) return;
    bb_cuda_check(dev, cudaStreamSynchronize(cuda->stream), "cudaStreamSynchronize");
    cuda->forget_passes(cuda);
    bb_cuda_check(dev, cudaFree(p), "cudaFree");
    cuda->allocations--;
}

/* Short copies go through pinned memory and are not waited for. */
static void copy_in(bb_device *dev, void *dst, const void *host, size_t bytes) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    const void *pinned = bb_cuda_pin(dev, host, bytes);
    if (pinned) {
        bb_cuda_check(dev, cudaMemcpyAsync(dst, pinned, bytes, cudaMemcpyHostToDevice, cuda->stream), "a copy to the card");
        return;
    }
    bb_cuda_check(dev, cudaMemcpyAsync(dst, host, bytes, cudaMemcpyHostToDevice, cuda->stream), "a copy to the card");
    bb_cuda_check(dev, cudaStreamSynchronize(cuda->stream), "a copy to the card");
}

static void copy_out(bb_device *dev, void *host, const void *src, size_t bytes) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    bb_cuda_check(dev, cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost, cuda->stream), "a copy from the card");
    bb_cuda_check(dev, cudaStreamSynchronize(cuda->stream), "a copy from the card");
}

static void copy(bb_device *dev, void *dst, const void *src, size_t bytes) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    bb_cuda_check(dev, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, cuda->stream), "a copy on the card");
}

static void zero(bb_device *dev, void *p, size_t bytes) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    bb_cuda_check(dev, cudaMemsetAsync(p, 0, bytes, cuda->stream), "cudaMemsetAsync");
}

/* Converts on the host, one part at a time. */
static void act_in(bb_device *dev, void *x, const float *host, int64_t n) {
    bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        A *part = (A *)bb_cuda_of(dev)->staging;
        const int64_t most = (int64_t)(BB_CUDA_STAGING / sizeof *part);
        for (int64_t at = 0; at < n; at += most) {
            int64_t count = bb_min(n - at, most);
            for (int64_t i = 0; i < count; i++) part[i] = bb_cuda_act<A>(host[at + i]);
            copy_in(dev, (A *)x + at, part, (size_t)count * sizeof *part);
        }
    });
}

static void act_out(bb_device *dev, float *host, const void *x, int64_t n) {
    bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        A *part = (A *)bb_cuda_of(dev)->staging;
        const int64_t most = (int64_t)(BB_CUDA_STAGING / sizeof *part);
        for (int64_t at = 0; at < n; at += most) {
            int64_t count = bb_min(n - at, most);
            copy_out(dev, part, (const A *)x + at, (size_t)count * sizeof *part);
            for (int64_t i = 0; i < count; i++) host[at + i] = bb_cuda_f32(part[i]);
        }
    });
}

static void memory(const bb_device *dev, uint64_t *total_bytes, uint64_t *free_bytes) {
    size_t total = 0, available = 0;
    if (cudaSetDevice(bb_cuda_of(dev)->index) != cudaSuccess || cudaMemGetInfo(&available, &total) != cudaSuccess) {
        (void)cudaGetLastError();
        total = available = 0;
    }
    *total_bytes = total;
    *free_bytes = available;
}

static const char *description(const bb_device *dev) { return bb_cuda_of(dev)->description; }

/* The largest scratch of any one operation: attention's gradient, the partial sums of a norm's gradient, or a quantized
 * gradient. */
static size_t scratch_bytes(bb_device *dev, const bb_attention *a, int64_t C, int64_t V) {
    (void)V;
    size_t attention = bb_cuda_attention_scratch(a), norm = (size_t)(bb_ceil_div(a->B * a->Tq, 64) * C) * sizeof(float);
    /* gate and up together are rarely wider than 8 * C */
    size_t gradient = bb_cuda_linear_scratch(a->B * a->Tq, 8 * C) + bb_cuda_of(dev)->gemm->scratch(a->B * a->Tq, 8 * C, C);
    size_t most = norm > attention ? norm : attention;
    /* plus the buffers of copy_ahead, for a batch's bytes or its n-gram indices: per byte, one index for each n-gram length */
    size_t copies = bb_cuda_ahead_bytes((size_t)(a->B * a->Tq) * sizeof(int32_t) * MOST_NGRAMS);
    return (gradient > most ? gradient : most) + copies;
}

static bb_status set_act_dtype(bb_device *dev, bb_dtype act, bb_error *err);

static bb_optional_ops make_optional(void) {
    bb_optional_ops o = {};
    o.set_act_dtype = set_act_dtype;
    o.copy_ahead = bb_cuda_copy_ahead;
    o.pass_begin = bb_cuda_pass_begin;
    o.pass_end = bb_cuda_pass_end;
    bb_cuda_peers_entries(&o);
    return o;
}

static bb_ops make_ops(bb_dtype act, const bb_optional_ops *optional) {
    bb_ops o = {};
    o.name = "cuda";
    o.act_dtype = act;
    o.host_memory = false;
    o.close = close_device;
    o.sync = sync_device;
    o.alloc = alloc;
    o.free = release;
    o.copy_in = copy_in;
    o.copy_out = copy_out;
    o.copy = copy;
    o.zero = zero;
    o.scratch_bytes = scratch_bytes;
    o.measure_peaks = bb_cuda_measure_peaks;
    o.memory = memory;
    o.description = description;
    o.act_in = act_in;
    o.act_out = act_out;
    o.embedding_forward = bb_cuda_embedding_forward;
    o.embedding_backward = bb_cuda_embedding_backward;
    o.ngram_forward = bb_cuda_ngram_forward;
    o.ngram_backward = bb_cuda_ngram_backward;
    o.ngram_quant = bb_cuda_ngram_quant;
    o.head_forward = bb_cuda_head_forward;
    o.head_backward = bb_cuda_head_backward;
    o.loss_forward = bb_cuda_loss_forward;
    o.loss_backward = bb_cuda_loss_backward;
    o.rmsnorm_forward = bb_cuda_rmsnorm_forward;
    o.rmsnorm_backward = bb_cuda_rmsnorm_backward;
    o.act_quant = bb_cuda_act_quant;
    o.act_to_f32 = bb_cuda_act_to_f32;
    o.rope_forward = bb_cuda_rope_forward;
    o.rope_backward = bb_cuda_rope_backward;
    o.swiglu_forward = bb_cuda_swiglu_forward;
    o.swiglu_backward = bb_cuda_swiglu_backward;
    o.ternary_bytes = bb_cuda_ternary_bytes;
    o.ternary_dense = bb_cuda_ternary_dense;
    o.ternary_quant = bb_cuda_ternary_quant;
    o.ternary_quant_rows = bb_cuda_ternary_quant_rows;
    o.sum_abs = bb_cuda_sum_abs;
    o.ternary_load = bb_cuda_ternary_load;
    o.ternary_unpack = bb_cuda_ternary_unpack;
    o.linear_forward = bb_cuda_linear_forward;
    o.linear_backward = bb_cuda_linear_backward;
    o.ste_clip = bb_cuda_ste_clip;
    o.attention_forward = bb_cuda_attention_forward;
    o.kv_bytes = bb_cuda_kv_bytes;
    o.kv_append = bb_cuda_kv_append;
    o.attention_cached = bb_cuda_attention_cached;
    o.kv_unpack = bb_cuda_kv_unpack;
    o.attention_backward = bb_cuda_attention_backward;
    o.sum_squares = bb_cuda_sum_squares;
    o.add = bb_cuda_add;
    o.adamw_step = bb_cuda_adamw_step;
    o.row_adagrad_step = bb_cuda_row_adagrad_step;
    o.adamw8bit_init = bb_cuda_adamw8bit_init;
    o.adamw8bit_step = bb_cuda_adamw8bit_step;
    o.muon_step = bb_cuda_muon_step;
    o.muon_scratch = bb_cuda_muon_scratch;
    o.optional = optional;
    return o;
}

/* CUDA encodes a version as 1000 * major + 10 * minor. */
static const char *driver_too_old(void) {
    static char text[160];
    int driver = 0, runtime = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver == 0) return "NVIDIA's driver is missing: install driver 580 or later, and see that nvidia-smi lists a card";
    snprintf(text, sizeof text, "NVIDIA's driver is for CUDA %d.%d, and this build needs %d.%d: install driver 580 or later",
             driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    return text;
}

extern "C" const char *bb_device_cuda_unavailable(void) {
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    (void)cudaGetLastError();
    if (error == cudaErrorInsufficientDriver) return driver_too_old();
    if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
        return "no card is visible; see what nvidia-smi lists, and CUDA_VISIBLE_DEVICES";
    return error == cudaSuccess ? NULL : cudaGetErrorString(error);
}

extern "C" int bb_device_cuda_count(void) {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

static void describe(bb_cuda *cuda) {
    int driver = 0, runtime = 0;
    cudaDeviceProp properties = {}, *card = &properties;
    (void)cudaGetDeviceProperties(card, cuda->index);
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    snprintf(cuda->description, sizeof cuda->description,
             "%.99s, card %d, %d processors, %.0f GB, compute %d.%d, CUDA %d.%d, driver %d.%d%s", card->name, cuda->index,
             card->multiProcessorCount, (double)card->totalGlobalMem * 1e-9, card->major, card->minor, runtime / 1000,
             runtime % 1000 / 10, driver / 1000, driver % 1000 / 10, cuda->base.ops->act_dtype == BB_F16 ? ", fp16" : "");
}

/* Called when the device is opened and when the activation type changes. cuBLASLt is compared with the kernels in this type. */
static void use_act_dtype(bb_cuda *cuda, bb_dtype act) {
    static const bb_optional_ops optional = make_optional();
    static const bb_ops in_bf16 = make_ops(BB_BF16, &optional), in_f16 = make_ops(BB_F16, &optional);
    cuda->base.ops = act == BB_F16 ? &in_f16 : &in_bf16;
    bb_cuda_blas_close(cuda->blas);
    cuda->blas = NULL;
    describe(cuda);
    size_t length = strlen(cuda->description);
    bb_cuda_gemm_choose(&cuda->base, cuda->description + length, sizeof cuda->description - length);
}

static bb_status set_act_dtype(bb_device *dev, bb_dtype act, bb_error *err) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    if (act != BB_BF16 && act != BB_F16)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "device \"cuda\" keeps activations in bf16 or fp16, not f32");
    if (act == BB_BF16 && cuda->major * 10 + cuda->minor < BF16_COMPUTE)
        return bb_fail(
            err, BB_ERR_UNSUPPORTED,
            "cuda:%d: the card has compute capability %d.%d and no products in bf16, which 8.0 is the first to have: "
            "fp16 is what it can do",
            cuda->index, cuda->major, cuda->minor);
    if (cuda->allocations > 0)
        return bb_fail(err, BB_ERR_ARGUMENT, "the type of activations is set before a model is created on the device");
    use_act_dtype(cuda, act);
    return BB_OK;
}

extern "C" bb_status bb_device_open_cuda(int index, int threads, bb_device **out, bb_error *err) {
    (void)threads; /* the calling thread only launches kernels */
    *out = NULL;
    int count = 0;
    cudaDeviceProp card;
    if (cudaGetDeviceCount(&count) != cudaSuccess || index >= count)
        return bb_fail(err, BB_ERR_ARGUMENT, "device \"cuda:%d\": there are %d cards, numbered from 0", index, count);
    cudaError_t error = cudaGetDeviceProperties(&card, index);
    if (error != cudaSuccess) return bb_fail(err, BB_ERR_INTERNAL, "cuda:%d: %s", index, cudaGetErrorString(error));
    int compute = card.major * 10 + card.minor;
    if (compute < LEAST_COMPUTE)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "cuda:%d: %s has compute capability %d.%d; 7.5 (Turing) is the least", index,
                       card.name, card.major, card.minor);
    bb_cuda *cuda = (bb_cuda *)calloc(1, sizeof *cuda);
    if (cuda) cuda->staging = malloc(BB_CUDA_STAGING);
    if (!cuda || !cuda->staging) {
        free(cuda);
        return bb_fail(err, BB_ERR_MEMORY, "out of memory for a cuda device");
    }
    cuda->index = index;
    cuda->forget_passes = bb_cuda_forget_passes;
    cuda->processors = card.multiProcessorCount;
    cuda->major = card.major;
    cuda->minor = card.minor;
    cuda->base.threads = 1;
    cuda->base.forward_rows = 8192; /* enough to fill a card; with wide rows, more would only take memory */
    error = cudaSetDevice(index);
    if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking);
    if (error != cudaSuccess) {
        free(cuda->staging);
        free(cuda);
        char card_name[24];
        snprintf(card_name, sizeof card_name, "card %d", index);
        bb_error why;
        bb_cuda_describe_error(error, card_name, &why);
        return bb_fail(err, error == cudaErrorMemoryAllocation ? BB_ERR_MEMORY : BB_ERR_UNSUPPORTED, "%s", why.message);
    }
    if (cudaHostAlloc(&cuda->pinned, BB_CUDA_PINNED, cudaHostAllocDefault) != cudaSuccess ||
        cudaMalloc(&cuda->positions, BB_PASS_POSITIONS * sizeof *cuda->positions) != cudaSuccess) {
        close_device(&cuda->base);
        return bb_fail(err, BB_ERR_MEMORY, "cuda:%d: no memory for copies to the card", index);
    }
    for (size_t i = 0; i < sizeof card.uuid.bytes; i++)
        snprintf(cuda->base.exclusive + 2 * i, 3, "%02x", (unsigned char)card.uuid.bytes[i]);
    use_act_dtype(cuda, compute < BF16_COMPUTE ? BB_F16 : BB_BF16);
    *out = &cuda->base;
    return BB_OK;
}
