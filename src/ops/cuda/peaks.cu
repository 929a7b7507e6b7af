// SPDX-License-Identifier: MIT
/* Measures the card's peak rates: independent products in registers, and a stream of reads. Benchmarks report results relative
 * to these rates. */
#include "ops/cuda/device.h"
#include "ops/cuda/entries.h"

using namespace nvcuda;

enum { THREADS = 256, BLOCKS_EACH = 4 /* blocks per SM */, SUMS = 4, ATTEMPTS = 3 };

#define READ_BYTES ((size_t)1 << 30)
#define LEAST_MS 20.0f /* minimum duration of a measurement */

static __global__ void __launch_bounds__(THREADS) products_f32(float *out, int iterations) {
    float sum[SUMS * 4], x = (float)threadIdx.x * 1e-9f;
    for (float &s : sum) s = x;
    for (int i = 0; i < iterations; i++)
        for (float &s : sum) s = fmaf(s, x, x);
    for (float s : sum) x += s;
    if (x == 1.0f) *out = x; /* never true, but the compiler must keep the sums */
}

template <class T, class X> __device__ static inline void multiply(X *out, int iterations) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, T, wmma::row_major> a;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::col_major> b;
    wmma::fragment<wmma::accumulator, 16, 16, 16, X> sum[SUMS];
    wmma::fill_fragment(a, T());
    wmma::fill_fragment(b, T());
    for (auto &s : sum) wmma::fill_fragment(s, (X)0);
    for (int i = 0; i < iterations; i++)
        for (auto &s : sum) wmma::mma_sync(s, a, b, s);
    X total = 0;
    for (auto &s : sum) total += s.x[0];
    if (total == (X)1) *out = total;
}

template <class T, class X> static __global__ void __launch_bounds__(THREADS) products(X *out, int iterations) {
    if constexpr (bb_cuda_multiplies<T>) multiply<T>(out, iterations);
}

static __global__ void __launch_bounds__(THREADS) reads(float *out, const float4 *__restrict__ x, int64_t n) {
    float sum = 0;
    for (BB_CUDA_GRID_STRIDE(i, n)) {
        float4 v = x[i];
        sum += v.x + v.y + v.z + v.w;
    }
    if (sum == 1.0f) *out = sum;
}

/* Returns the milliseconds that the work started by `start` takes on the stream; the minimum of ATTEMPTS attempts. */
template <class F> static float time_of(bb_device *dev, F start) {
    cudaStream_t stream = bb_cuda_of(dev)->stream;
    cudaEvent_t begin, end;
    float best = INFINITY;
    if (!bb_cuda_check(dev, cudaEventCreate(&begin), "cudaEventCreate")) return best;
    if (bb_cuda_check(dev, cudaEventCreate(&end), "cudaEventCreate")) {
        for (int i = 0; i < ATTEMPTS; i++) {
            float ms = INFINITY;
            (void)cudaEventRecord(begin, stream);
            start();
            (void)cudaEventRecord(end, stream);
            if (!bb_cuda_check(dev, cudaEventSynchronize(end), "a measurement")) break;
            (void)cudaEventElapsedTime(&ms, begin, end);
            best = fminf(best, ms);
        }
        (void)cudaEventDestroy(end);
    }
    (void)cudaEventDestroy(begin);
    return best;
}

/* Returns 10^9 operations per second. start(iterations) does `operations` operations in each iteration. The number of
 * iterations doubles until a measurement takes LEAST_MS. */
template <class F> static double rate_of(bb_device *dev, double operations, F start) {
    for (int iterations = 16;; iterations *= 2) {
        float ms = time_of(dev, [&] { start(iterations); });
        if (ms >= LEAST_MS || iterations >= 1 << 24) return operations * iterations / ((double)ms * 1e6);
    }
}

void bb_cuda_measure_peaks(bb_device *dev, bb_peaks *out) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    *out = {};
    void *sink = dev->ops->alloc(dev, 256);
    if (!sink) return;
    unsigned blocks = (unsigned)(cuda->processors * BLOCKS_EACH);
    double threads = (double)blocks * THREADS, warps = threads / BB_CUDA_WARP, each = 2.0 * 16 * 16 * 16 * SUMS;
    out->f32 = rate_of(dev, 2 * threads * SUMS * 4,
                       [&](int n) { BB_CUDA_LAUNCH(dev, products_f32, blocks, THREADS, 0, (float *)sink, n); });
    out->bf16 = bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        return rate_of(dev, warps * each,
                       [&](int n) { BB_CUDA_LAUNCH(dev, (products<A, float>), blocks, THREADS, 0, (float *)sink, n); });
    });
    out->int8 = rate_of(dev, warps * each,
                        [&](int n) { BB_CUDA_LAUNCH(dev, (products<int8_t, int>), blocks, THREADS, 0, (int *)sink, n); });
    size_t bytes = READ_BYTES;
    uint64_t total, available;
    dev->ops->memory(dev, &total, &available);
    while (bytes > available / 4) bytes /= 2;
    void *data = dev->ops->alloc(dev, bytes);
    if (data) {
        float ms = time_of(dev, [&] {
            BB_CUDA_LAUNCH(dev, reads, (unsigned)(cuda->processors * 16), THREADS, 0, (float *)sink, (const float4 *)data,
                           (int64_t)(bytes / sizeof(float4)));
        });
        out->read_gb = (double)bytes / ((double)ms * 1e6);
        dev->ops->free(dev, data, bytes);
    }
    dev->ops->free(dev, sink, 256);
}
