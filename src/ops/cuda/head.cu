// SPDX-License-Identifier: MIT
/* Embedding, head and loss, in f32. */
#include "ops/cuda/entries.h"
#include "ops/cuda/product_f32.h"

enum { THREADS = 256, WARPS = THREADS / BB_CUDA_WARP, LOSS_THREADS = 128, LOSS_WARPS = LOSS_THREADS / BB_CUDA_WARP };

static __global__ void __launch_bounds__(THREADS) embedding_forward(float *__restrict__ x, const uint8_t *__restrict__ idx,
                                                                    const float *__restrict__ e, int64_t n, int64_t C) {
    for (BB_CUDA_GRID_STRIDE(i, n)) x[i] = e[idx[i / C] * C + i % C];
}

void bb_cuda_embedding_forward(bb_device *dev, float *x, const uint8_t *idx, const float *e, int64_t M, int64_t V, int64_t C) {
    (void)V;
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, embedding_forward, bb_cuda_blocks(dev, M * C, THREADS), THREADS, 0, x, idx, e, M * C, C);
}

/* One block per byte value and THREADS columns. The block scans the batch for rows with its byte value, THREADS rows at a time.
 * Each thread adds its column of the rows that were found, in order. */
static __global__ void __launch_bounds__(THREADS) embedding_backward(float *__restrict__ de, const uint8_t *__restrict__ idx,
                                                                     const float *__restrict__ dx, int64_t M, int64_t C) {
    SHARED(int, found, [THREADS]);
    SHARED(int, counts, [WARPS]);
    int64_t c = blockIdx.x * (int64_t)THREADS + threadIdx.x;
    unsigned v = blockIdx.y, warp = threadIdx.x / BB_CUDA_WARP, lane = threadIdx.x % BB_CUDA_WARP;
    float sum = c < C ? de[v * C + c] : 0.0f;
    for (int64_t m0 = 0; m0 < M; m0 += THREADS) {
        bool mine = m0 + threadIdx.x < M && idx[m0 + threadIdx.x] == v;
        unsigned lanes = __ballot_sync(BB_CUDA_ALL_LANES, mine);
        if (lane == 0) counts[warp] = __popc(lanes);
        __syncthreads();
        int before = 0, count = 0;
        for (unsigned w = 0; w < WARPS; w++) {
            if (w < warp) before += counts[w];
            count += counts[w];
        }
        if (mine) found[before + __popc(lanes & ((1u << lane) - 1))] = (int)threadIdx.x;
        __syncthreads();
        for (int i = 0; i < count; i++)
            if (c < C) sum += dx[(m0 + found[i]) * C + c];
        __syncthreads();
    }
    if (c < C) de[v * C + c] = sum;
}

void bb_cuda_embedding_backward(bb_device *dev, float *de, const uint8_t *idx, const float *dx, int64_t M, int64_t V,
                                int64_t C) {
    bb_cuda_enter(dev);
    dim3 grid((unsigned)bb_ceil_div(C, THREADS), (unsigned)V);
    BB_CUDA_LAUNCH(dev, embedding_backward, grid, THREADS, 0, de, idx, dx, M, C);
}

/* ---- head -------------------------------------------------------------------------------------------------------------- */

typedef struct store_f32 {
    float *data;
    int64_t stride;
    __device__ void operator()(int64_t row, int64_t column, float sum) const { data[row * stride + column] = sum; }
} store_f32;

typedef struct add_f32 {
    float *data;
    int64_t stride;
    __device__ void operator()(int64_t row, int64_t column, float sum) const { data[row * stride + column] += sum; }
} add_f32;

template <class A> struct store_act {
    A *data;
    int64_t stride;
    __device__ void operator()(int64_t row, int64_t column, float sum) const {
        data[row * stride + column] = bb_cuda_act<A>(sum);
    }
};

void bb_cuda_head_forward(bb_device *dev, float *logits, const float *h, const bb_head *head) {
    bb_cuda_enter(dev);
    int64_t M = head->M, V = head->V, C = head->C;
    bb_cuda_multiply_f32<true, true>(dev, bb_cuda_matrix{h, C}, bb_cuda_transposed{head->e, C}, store_f32{logits, V}, M, V, C);
}

void bb_cuda_head_backward(bb_device *dev, void *dh, float *de, const float *dlogits, const float *h, const bb_head *head) {
    bb_cuda_enter(dev);
    int64_t M = head->M, V = head->V, C = head->C;
    bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        bb_cuda_multiply_f32<true, false>(dev, bb_cuda_matrix{dlogits, V}, bb_cuda_matrix{head->e, C}, store_act<A>{(A *)dh, C},
                                          M, C, V);
    });
    bb_cuda_multiply_f32<false, false>(dev, bb_cuda_transposed{dlogits, V}, bb_cuda_matrix{h, C}, add_f32{de, C}, V, C, M);
}

/* ---- loss: one block per row -------------------------------------------------------------------------------------------- */

/* Maximum of x over the block's threads. maximum: in shared memory, one element per warp. */
__device__ static inline float block_max(float x, float *maximum) {
    for (int distance = BB_CUDA_WARP / 2; distance; distance /= 2)
        x = fmaxf(x, __shfl_xor_sync(BB_CUDA_ALL_LANES, x, distance));
    if (threadIdx.x % BB_CUDA_WARP == 0) maximum[threadIdx.x / BB_CUDA_WARP] = x;
    __syncthreads();
    for (int w = 0; w < LOSS_WARPS; w++) x = fmaxf(x, maximum[w]);
    return x;
}

/* logsumexp of a row, the same in every thread: the maximum, and the logarithm of the sum relative to it. fmaxf drops a NaN,
 * but the sum does not. */
typedef struct log_sum {
    float max, log;
} log_sum;

__device__ static log_sum log_sum_of(const float *row, int64_t V, float *maximum, double *sums) {
    float max = -INFINITY;
    double sum = 0;
    for (int64_t v = threadIdx.x; v < V; v += LOSS_THREADS) max = fmaxf(max, row[v]);
    max = block_max(max, maximum);
    for (int64_t v = threadIdx.x; v < V; v += LOSS_THREADS) sum += (double)expf(row[v] - max);
    return {max, logf((float)bb_cuda_block_sum(sum, sums))};
}

static __global__ void __launch_bounds__(LOSS_THREADS)
    loss_forward(float *__restrict__ nll, const float *__restrict__ logits, const uint8_t *__restrict__ y, int64_t V) {
    SHARED(float, maximum, [LOSS_WARPS]);
    SHARED(double, sums, [LOSS_WARPS]);
    const float *row = logits + blockIdx.x * V;
    log_sum s = log_sum_of(row, V, maximum, sums);
    if (threadIdx.x == 0) nll[blockIdx.x] = s.max - row[y[blockIdx.x]] + s.log;
}

void bb_cuda_loss_forward(bb_device *dev, float *nll, const float *logits, const uint8_t *y, int64_t M, int64_t V) {
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, loss_forward, (unsigned)M, LOSS_THREADS, 0, nll, logits, y, V);
}

/* dlogits may be the same array as logits: all threads have read the row when log_sum_of returns. */
static __global__ void __launch_bounds__(LOSS_THREADS)
    loss_backward(float *dlogits, const float *logits, const uint8_t *__restrict__ y, float scale, int64_t V) {
    SHARED(float, maximum, [LOSS_WARPS]);
    SHARED(double, sums, [LOSS_WARPS]);
    int64_t first = blockIdx.x * V;
    log_sum s = log_sum_of(logits + first, V, maximum, sums);
    for (int64_t v = threadIdx.x; v < V; v += LOSS_THREADS)
        dlogits[first + v] = scale * (expf(logits[first + v] - s.max - s.log) - (v == y[blockIdx.x] ? 1.0f : 0.0f));
}

void bb_cuda_loss_backward(bb_device *dev, float *dlogits, const float *logits, const uint8_t *y, float scale, int64_t M,
                           int64_t V) {
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, loss_backward, (unsigned)M, LOSS_THREADS, 0, dlogits, logits, y, scale, V);
}
