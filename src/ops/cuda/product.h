// SPDX-License-Identifier: MIT
/* Matrix products on tensor cores: store(m, n, sum over k of a(m, k) b(k, n)). Operands are int8 with int32 accumulators, or
 * bf16 or fp16 with f32 accumulators.
 *
 * A block of four warps computes 64 x 64 elements, a warp 32 x 32, in steps of 64 (int8) or 32 (other types) of k. The tiles of
 * the next step are loaded while those of the current step are multiplied. A tile is stored in shared memory as panels of 16
 * columns, (columns / 16, rows, 16). So the 16 x 16 elements of a fragment are contiguous and aligned as wmma requires, no
 * matter whether the tile's rows are rows of the product or run over the summed dimension.
 *
 * An operand is a struct with load(to, row, column), which writes 16 elements, starting at (row, column), to shared memory,
 * with zeros past the end of the matrix. It may leave the copying to cp.async. A_BY_ROWS: a's rows are rows of the product, and
 * its columns are summed over; otherwise a is the transpose. B_BY_ROWS: b's rows are columns of the product; otherwise its rows
 * are summed over. */
#ifndef BB_OPS_CUDA_PRODUCT_H
#define BB_OPS_CUDA_PRODUCT_H

#include "ops/cuda/device.h"

enum { BB_CUDA_TILE = 64, BB_CUDA_PANEL = 16, BB_CUDA_PRODUCT_THREADS = 128 };

template <class T> struct bb_cuda_sum_of;
template <> struct bb_cuda_sum_of<int8_t> { typedef int type; };
template <> struct bb_cuda_sum_of<bb_cuda_bf16> { typedef float type; };
template <> struct bb_cuda_sum_of<bb_cuda_f16> { typedef float type; };

template <bool BY_ROWS> struct bb_cuda_order;
template <> struct bb_cuda_order<true> {
    typedef nvcuda::wmma::row_major a;
    typedef nvcuda::wmma::col_major b;
};
template <> struct bb_cuda_order<false> {
    typedef nvcuda::wmma::col_major a;
    typedef nvcuda::wmma::row_major b;
};

/* Loads one stage of an operand: ROWS x COLUMNS elements, starting at (row0, column0). */
template <int ROWS, int COLUMNS, class T, class L>
__device__ static inline void bb_cuda_fill_tile(T *tile, const L &operand, int64_t row0, int64_t column0) {
    enum { PANELS = COLUMNS / BB_CUDA_PANEL };
    for (int i = threadIdx.x; i < ROWS * PANELS; i += BB_CUDA_PRODUCT_THREADS) {
        int row = i / PANELS, panel = i % PANELS;
        operand.load(tile + (panel * ROWS + row) * BB_CUDA_PANEL, row0 + row, column0 + panel * BB_CUDA_PANEL);
    }
}

/* The work of one block. */
template <class T, bool A_BY_ROWS, bool B_BY_ROWS, class A, class B, class S>
__device__ static inline void bb_cuda_product_tile(const A &a, const B &b, const S &store, int64_t M, int64_t N, int64_t K) {
    using namespace nvcuda;
    typedef typename bb_cuda_sum_of<T>::type X;
    enum { TILE = BB_CUDA_TILE, DEPTH = 64 / sizeof(T), ELEMENTS = TILE * DEPTH, EACH = 2 };
    enum { A_ROWS = A_BY_ROWS ? TILE : DEPTH, B_ROWS = B_BY_ROWS ? TILE : DEPTH };
    /* two stages of both operands; the sums reuse the memory */
    SHARED(unsigned char, memory, [TILE * TILE * sizeof(X)]);
    static_assert(4 * ELEMENTS * sizeof(T) <= TILE * TILE * sizeof(X), "the stages fit");
    T *as = (T *)memory, *bs = as + 2 * ELEMENTS;
    int64_t m0 = blockIdx.y * (int64_t)TILE, n0 = blockIdx.x * (int64_t)TILE;
    int warp = threadIdx.x / BB_CUDA_WARP, wm = warp / 2 * 32, wn = warp % 2 * 32;

    auto load = [&](int stage, int64_t k0) {
        T *at = as + stage * ELEMENTS, *bt = bs + stage * ELEMENTS;
        if (A_BY_ROWS)
            bb_cuda_fill_tile<A_ROWS, ELEMENTS / A_ROWS>(at, a, m0, k0);
        else
            bb_cuda_fill_tile<A_ROWS, ELEMENTS / A_ROWS>(at, a, k0, m0);
        if (B_BY_ROWS)
            bb_cuda_fill_tile<B_ROWS, ELEMENTS / B_ROWS>(bt, b, n0, k0);
        else
            bb_cuda_fill_tile<B_ROWS, ELEMENTS / B_ROWS>(bt, b, k0, n0);
        __pipeline_commit();
    };

    wmma::fragment<wmma::accumulator, 16, 16, 16, X> sum[EACH][EACH];
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) wmma::fill_fragment(sum[i][j], (X)0);
    load(0, 0);
    int stage = 0;
    for (int64_t k0 = 0; k0 < K; k0 += DEPTH, stage ^= 1) {
        if (k0 + DEPTH < K)
            load(stage ^ 1, k0 + DEPTH);
        else
            __pipeline_commit();
        __pipeline_wait_prior(1);
        __syncthreads();
        const T *at = as + stage * ELEMENTS, *bt = bs + stage * ELEMENTS;
        for (int k = 0; k < DEPTH; k += 16) {
            wmma::fragment<wmma::matrix_a, 16, 16, 16, T, typename bb_cuda_order<A_BY_ROWS>::a> fa[EACH];
            wmma::fragment<wmma::matrix_b, 16, 16, 16, T, typename bb_cuda_order<B_BY_ROWS>::b> fb[EACH];
            for (int i = 0; i < EACH; i++) {
                int m = wm + i * 16, n = wn + i * 16;
                const T *fragment_a = A_BY_ROWS ? at + k * TILE + m * BB_CUDA_PANEL : at + m * DEPTH + k * BB_CUDA_PANEL;
                const T *fragment_b = B_BY_ROWS ? bt + k * TILE + n * BB_CUDA_PANEL : bt + n * DEPTH + k * BB_CUDA_PANEL;
                wmma::load_matrix_sync(fa[i], fragment_a, BB_CUDA_PANEL);
                wmma::load_matrix_sync(fb[i], fragment_b, BB_CUDA_PANEL);
            }
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < EACH; j++) wmma::mma_sync(sum[i][j], fa[i], fb[j], sum[i][j]);
        }
        __syncthreads();
    }
    __pipeline_wait_prior(0);
    X *sums = (X *)memory;
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++)
            wmma::store_matrix_sync(sums + (wm + i * 16) * TILE + wn + j * 16, sum[i][j], TILE, wmma::mem_row_major);
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * TILE; i += BB_CUDA_PRODUCT_THREADS) {
        int64_t m = m0 + i / TILE, n = n0 + i % TILE;
        if (m < M && n < N) store(m, n, sums[i]);
    }
}

template <class T, bool A_BY_ROWS, bool B_BY_ROWS, class A, class B, class S>
__global__ void __launch_bounds__(BB_CUDA_PRODUCT_THREADS) bb_cuda_product(A a, B b, S store, int64_t M, int64_t N, int64_t K) {
    if constexpr (bb_cuda_multiplies<T>) bb_cuda_product_tile<T, A_BY_ROWS, B_BY_ROWS>(a, b, store, M, N, K);
}

/* Launches the kernel. M is at most 65535 tiles: four million rows. */
template <class T, bool A_BY_ROWS, bool B_BY_ROWS, class A, class B, class S>
static void bb_cuda_multiply(bb_device *dev, A a, B b, S store, int64_t M, int64_t N, int64_t K) {
    dim3 grid((unsigned)bb_ceil_div(N, BB_CUDA_TILE), (unsigned)bb_ceil_div(M, BB_CUDA_TILE));
    BB_CUDA_LAUNCH(dev, (bb_cuda_product<T, A_BY_ROWS, B_BY_ROWS, A, B, S>), grid, BB_CUDA_PRODUCT_THREADS, 0, a, b, store, M,
                   N, K);
}

#endif
