// SPDX-License-Identifier: MIT
/* n-gram embeddings: lookup of table rows, their gradient, and their update. */
#include "ops/cuda/device.h"
#include "ops/cuda/entries.h"

enum { THREADS = 256, WARPS = THREADS / BB_CUDA_WARP, PARTS = 64 /* of a table's rows, for gradients */ };

/* Returns the scale of a row of C values. The whole block calls it. */
__device__ static float row_scale(const float *values, int64_t C, uint32_t *partial) {
    float absmax = 0;
    for (int64_t c = threadIdx.x; c < C; c += THREADS) absmax = bb_cuda_greater(absmax, values[c]);
    return bb_f32_from_bf16(bb_bf16_from_f32(bb_cuda_block_absmax(absmax, partial) / 127));
}

/* One block per row of x. */
static __global__ void __launch_bounds__(THREADS)
    ngram_forward(float *__restrict__ x, bb_ngram_table t, const int32_t *__restrict__ index, int64_t K) {
    SHARED(uint32_t, partial, [WARPS]);
    int64_t m = blockIdx.x, C = t.C;
    for (int64_t k = 0; k < K; k++) {
        int64_t row = index[m * K + k]; /* the same in all threads */
        if (row < 0) continue;
        const float *values = t.values ? t.values + row * C : NULL;
        float scale = values ? row_scale(values, C, partial) : bb_f32_from_bf16(t.scales[row]);
        for (int64_t c = threadIdx.x; c < C && scale > 0; c += THREADS)
            x[m * C + c] += scale * (float)(values ? bb_cuda_code(values[c], scale, 127.0f) : t.codes[row * C + c]);
    }
}

void bb_cuda_ngram_forward(bb_device *dev, float *x, const bb_ngram_table *t, const int32_t *index, int64_t M, int64_t K) {
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, ngram_forward, (unsigned)M, THREADS, 0, x, *t, index, K);
}

/* One block per part of the table's rows and THREADS columns. The block scans the batch for rows of its part, THREADS at a
 * time. Each thread adds its column of the rows that were found, in order. */
static __global__ void __launch_bounds__(THREADS)
    ngram_backward(float *__restrict__ d_table, const int32_t *__restrict__ index, const float *__restrict__ dx, int64_t count,
                   int64_t K, int64_t C) {
    SHARED(int, found, [THREADS]);
    SHARED(int, counts, [WARPS]);
    int64_t c = blockIdx.x * (int64_t)THREADS + threadIdx.x;
    unsigned warp = threadIdx.x / BB_CUDA_WARP, lane = threadIdx.x % BB_CUDA_WARP;
    for (int64_t i0 = 0; i0 < count; i0 += THREADS) {
        int32_t row = i0 + threadIdx.x < count ? index[i0 + threadIdx.x] : -1;
        bool mine = row >= 0 && (unsigned)row % PARTS == blockIdx.y;
        unsigned lanes = __ballot_sync(BB_CUDA_ALL_LANES, mine);
        if (lane == 0) counts[warp] = __popc(lanes);
        __syncthreads();
        int before = 0, total = 0;
        for (unsigned w = 0; w < WARPS; w++) {
            if (w < warp) before += counts[w];
            total += counts[w];
        }
        if (mine) found[before + __popc(lanes & ((1u << lane) - 1))] = (int)threadIdx.x;
        __syncthreads();
        for (int i = 0; i < total && c < C; i++) d_table[index[i0 + found[i]] * C + c] += dx[(i0 + found[i]) / K * C + c];
        __syncthreads();
    }
}

void bb_cuda_ngram_backward(bb_device *dev, float *d_table, const int32_t *index, const float *dx, int64_t M, int64_t K,
                            int64_t C) {
    bb_cuda_enter(dev);
    dim3 grid((unsigned)bb_ceil_div(C, THREADS), PARTS);
    BB_CUDA_LAUNCH(dev, ngram_backward, grid, THREADS, 0, d_table, index, dx, M * K, K, C);
}

/* One block per row of the table. */
static __global__ void __launch_bounds__(THREADS)
    ngram_quant(bb_ngram_table t, const float *__restrict__ values, int64_t first) {
    SHARED(uint32_t, partial, [WARPS]);
    int64_t r = blockIdx.x, C = t.C;
    float scale = row_scale(values + r * C, C, partial);
    for (int64_t c = threadIdx.x; c < C; c += THREADS)
        t.codes[(first + r) * C + c] = scale > 0 ? bb_cuda_code(values[r * C + c], scale, 127.0f) : (int8_t)0;
    if (threadIdx.x == 0) t.scales[first + r] = bb_bf16_from_f32(scale);
}

void bb_cuda_ngram_quant(bb_device *dev, const bb_ngram_table *t, const float *values, int64_t first, int64_t rows) {
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, ngram_quant, (unsigned)rows, THREADS, 0, *t, values, first);
}

/* One block per row. */
static __global__ void __launch_bounds__(THREADS)
    row_adagrad_step(float *__restrict__ p, const float *__restrict__ g, float *__restrict__ v, int64_t C, bb_row_adagrad h) {
    SHARED(double, partial, [WARPS]);
    int64_t r = blockIdx.x;
    double sum = 0;
    for (int64_t c = threadIdx.x; c < C; c += THREADS) sum += (double)g[r * C + c] * (double)g[r * C + c];
    sum = bb_cuda_block_sum(sum, partial);
    if (!(sum > 0)) return; /* all threads return */
    double v_r = (double)v[r] + sum * h.grad_scale * h.grad_scale / (double)C;
    float factor = (float)(h.lr * h.grad_scale / (sqrt(v_r) + h.eps));
    for (int64_t c = threadIdx.x; c < C; c += THREADS) p[r * C + c] -= factor * g[r * C + c];
    __syncthreads(); /* all threads have read v */
    if (threadIdx.x == 0) v[r] = (float)v_r;
}

void bb_cuda_row_adagrad_step(bb_device *dev, float *p, const float *g, float *v, int64_t rows, int64_t C,
                              const bb_row_adagrad *h) {
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, row_adagrad_step, (unsigned)rows, THREADS, 0, p, g, v, C, *h);
}
