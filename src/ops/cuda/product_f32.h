// SPDX-License-Identifier: MIT
/* Matrix products in f32 without tensor cores: store(m, n, sum over k of a(m, k) b(k, n)), each sum in the order of k. A block
 * computes 64 x 64 elements, a thread 4 x 4. a, b and store are structs with an operator() for kernels. a and b are only called
 * with indices inside the matrices. BY_K: elements that are adjacent in memory are adjacent in k. */
#ifndef BB_OPS_CUDA_PRODUCT_F32_H
#define BB_OPS_CUDA_PRODUCT_F32_H

#include "ops/cuda/device.h"

enum { BB_CUDA_F32_TILE = 64, BB_CUDA_F32_DEPTH = 16, BB_CUDA_F32_EACH = 4, BB_CUDA_F32_THREADS = 256 };

/* A matrix with rows `stride` apart. */
typedef struct bb_cuda_matrix {
    const float *data;
    int64_t stride;
    __device__ float operator()(int64_t row, int64_t column) const { return data[row * stride + column]; }
} bb_cuda_matrix;

/* The transpose of such a matrix. */
typedef struct bb_cuda_transposed {
    const float *data;
    int64_t stride;
    __device__ float operator()(int64_t row, int64_t column) const { return data[column * stride + row]; }
} bb_cuda_transposed;

template <bool BY_K, class F>
__device__ static inline void bb_cuda_fill_f32(float (*tile)[BB_CUDA_F32_TILE + 4], int64_t first, int64_t count, int64_t k0,
                                               int64_t K, F element) {
    for (int i = threadIdx.x; i < BB_CUDA_F32_TILE * BB_CUDA_F32_DEPTH; i += BB_CUDA_F32_THREADS) {
        int row = BY_K ? i / BB_CUDA_F32_DEPTH : i % BB_CUDA_F32_TILE, k = BY_K ? i % BB_CUDA_F32_DEPTH : i / BB_CUDA_F32_TILE;
        tile[k][row] = first + row < count && k0 + k < K ? element(first + row, k0 + k) : 0.0f;
    }
}

/* Not static: nvcc instantiates such templates from the host code of their file. */
template <bool A_BY_K, bool B_BY_K, class A, class B, class S>
__global__ void __launch_bounds__(BB_CUDA_F32_THREADS) bb_cuda_product_f32(A a, B b, S store, int64_t M, int64_t N, int64_t K) {
    enum { EACH = BB_CUDA_F32_EACH, ACROSS = BB_CUDA_F32_TILE / EACH };
    SHARED(float, as, [BB_CUDA_F32_DEPTH][BB_CUDA_F32_TILE + 4]);
    SHARED(float, bs, [BB_CUDA_F32_DEPTH][BB_CUDA_F32_TILE + 4]);
    int64_t m0 = blockIdx.y * (int64_t)BB_CUDA_F32_TILE, n0 = blockIdx.x * (int64_t)BB_CUDA_F32_TILE;
    int row = threadIdx.x / ACROSS * EACH, column = threadIdx.x % ACROSS * EACH;
    float sum[EACH][EACH] = {};
    for (int64_t k0 = 0; k0 < K; k0 += BB_CUDA_F32_DEPTH) {
        bb_cuda_fill_f32<A_BY_K>(as, m0, M, k0, K, a);
        bb_cuda_fill_f32<B_BY_K>(bs, n0, N, k0, K, [=](int64_t n, int64_t k) { return b(k, n); });
        __syncthreads();
        for (int k = 0; k < BB_CUDA_F32_DEPTH; k++)
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < EACH; j++) sum[i][j] = fmaf(as[k][row + i], bs[k][column + j], sum[i][j]);
        __syncthreads();
    }
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++)
            if (m0 + row + i < M && n0 + column + j < N) store(m0 + row + i, n0 + column + j, sum[i][j]);
}

/* Launches the kernel. M is at most 65535 tiles: four million rows. */
template <bool A_BY_K, bool B_BY_K, class A, class B, class S>
static void bb_cuda_multiply_f32(bb_device *dev, A a, B b, S store, int64_t M, int64_t N, int64_t K) {
    dim3 grid((unsigned)bb_ceil_div(N, BB_CUDA_F32_TILE), (unsigned)bb_ceil_div(M, BB_CUDA_F32_TILE));
    BB_CUDA_LAUNCH(dev, (bb_cuda_product_f32<A_BY_K, B_BY_K, A, B, S>), grid, BB_CUDA_F32_THREADS, 0, a, b, store, M, N, K);
}

#endif
