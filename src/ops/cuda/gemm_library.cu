// SPDX-License-Identifier: MIT
/* Products of ternary layers by a library: the codes are unpacked to int8, the library multiplies plain matrices, and a kernel
 * finishes the sums. */
#include "ops/cuda/cublaslt.h"
#include "ops/cuda/entries.h"
#include "ops/cuda/gemm.h"
#include "ops/cuda/linear.h"

enum { THREADS = 256, PIECE = 256, ACT_BYTES = 2 };

/* With fewer rows, a product costs little more than reading the matrix, and unpacking makes the matrix four times as large. */
enum { LEAST_ROWS = 64 };

/* Scratch: the workspace, then the buffers of a product. If the scratch already holds an int8 gradient, that comes first. */
typedef struct pieces {
    void *workspace;
    char *first, *second;
} pieces;

static size_t piece(int64_t bytes) { return (size_t)bb_round_up(bytes, PIECE); }

static size_t scratch(int64_t M, int64_t N, int64_t K) {
    size_t products = piece(N * K) + piece(M * bb_max(N, K) * (int64_t)sizeof(int32_t));
    size_t gradients = piece(M * N * ACT_BYTES) + piece(M * K * ACT_BYTES);
    return BB_CUDA_BLAS_WORKSPACE + (products > gradients ? products : gradients);
}

/* after: bytes at the beginning of the scratch that are in use. */
static bool take(bb_device *dev, size_t after, int64_t first_bytes, int64_t second_bytes, pieces *out) {
    after = piece((int64_t)after);
    char *at = (char *)bb_cuda_scratch(dev, after + BB_CUDA_BLAS_WORKSPACE + piece(first_bytes) + piece(second_bytes));
    if (!at) return false;
    out->workspace = at + after;
    out->first = at + after + BB_CUDA_BLAS_WORKSPACE;
    out->second = out->first + piece(first_bytes);
    return true;
}

template <class S>
static __global__ void __launch_bounds__(THREADS) finish(const int32_t *__restrict__ sums, S store, int64_t M, int64_t N) {
    for (BB_CUDA_GRID_STRIDE(i, M * N)) store(i / N, i % N, sums[i]);
}

/* Writes the transpose, (K,N), of a matrix of codes. One thread per word; adjacent threads write adjacent elements. */
static __global__ void __launch_bounds__(THREADS)
    unpack_transposed(int8_t *__restrict__ q, const uint32_t *__restrict__ data, int64_t N, int64_t K) {
    int64_t words = bb_cuda_row_words(K);
    for (BB_CUDA_GRID_STRIDE(i, N * words)) {
        int64_t n = i % N, first = i / N * BB_CUDA_WORD_CODES;
        uint32_t word = data[n * words + i / N];
        for (int c = 0; c < BB_CUDA_WORD_CODES && first + c < K; c++) q[(first + c) * N + n] = (int8_t)bb_cuda_value(word, c);
    }
}

static bool forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    int64_t N = t->n, K = t->k;
    pieces p;
    if (M < LEAST_ROWS || !bb_cuda_blas_has(dev, true, {M, N, K})) return false;
    if (!take(dev, 0, N * K, M * N * (int64_t)sizeof(int32_t), &p)) return false;
    int8_t *w = (int8_t *)p.first;
    int32_t *sums = (int32_t *)p.second;
    bb_cuda_ternary_unpack(dev, w, t);
    if (!bb_cuda_blas_int8(dev, sums, (const int8_t *)x.data, w, {M, N, K}, p.workspace)) return false;
    bb_cuda_store_y store = {y, residual, x.scale, bb_cuda_scales_of(t), N};
    BB_CUDA_LAUNCH(dev, finish<bb_cuda_store_y>, bb_cuda_blocks(dev, M * N, THREADS), THREADS, 0, sums, store, M, N);
    return true;
}

static bool input_gradient(bb_device *dev, void *dx, bb_rows q, const bb_ternary *t, int64_t M) {
    int64_t N = t->n, K = t->k;
    pieces p;
    if (M < LEAST_ROWS || !bb_cuda_blas_has(dev, true, {M, K, N})) return false;
    if (!take(dev, bb_cuda_linear_scratch(M, N), N * K, M * K * (int64_t)sizeof(int32_t), &p)) return false;
    int8_t *w = (int8_t *)p.first;
    int32_t *sums = (int32_t *)p.second;
    BB_CUDA_LAUNCH(dev, unpack_transposed, bb_cuda_blocks(dev, N * bb_cuda_row_words(K), THREADS), THREADS, 0, w,
                   (const uint32_t *)t->data, N, K);
    if (!bb_cuda_blas_int8(dev, sums, (const int8_t *)q.data, w, {M, K, N}, p.workspace)) return false;
    bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        bb_cuda_store_dx<A> store = {(A *)dx, q.scale, K};
        BB_CUDA_LAUNCH(dev, finish<bb_cuda_store_dx<A>>, bb_cuda_blocks(dev, M * K, THREADS), THREADS, 0, sums, store, M, K);
    });
    return true;
}

template <class A>
static __global__ void __launch_bounds__(THREADS)
    gradient_to_act(A *__restrict__ to, bb_cuda_gradient dy, int64_t n, int64_t N) {
    for (BB_CUDA_GRID_STRIDE(i, n)) {
        float x = bb_cuda_load(dy.data, dy.dtype, i);
        to[i] = bb_cuda_act<A>(dy.row_scale ? x * dy.row_scale[i / N] : x);
    }
}

template <class A>
static __global__ void __launch_bounds__(THREADS) codes_to_act(A *__restrict__ to, const int8_t *__restrict__ x, int64_t n) {
    for (BB_CUDA_GRID_STRIDE(i, n)) to[i] = bb_cuda_act<A>((float)x[i]);
}

static bool weight_gradient(bb_device *dev, float *dw, bool add, bb_cuda_gradient dy, bb_rows x, const bb_ternary *t,
                            int64_t M) {
    int64_t N = t->n, K = t->k;
    pieces p;
    if (M < LEAST_ROWS || !bb_cuda_blas_has(dev, false, {N, K, M})) return false;
    if (!take(dev, 0, M * N * ACT_BYTES, M * K * ACT_BYTES, &p)) return false;
    bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        BB_CUDA_LAUNCH(dev, gradient_to_act<A>, bb_cuda_blocks(dev, M * N, THREADS), THREADS, 0, (A *)p.first, dy, M * N, N);
        BB_CUDA_LAUNCH(dev, codes_to_act<A>, bb_cuda_blocks(dev, M * K, THREADS), THREADS, 0, (A *)p.second,
                       (const int8_t *)x.data, M * K);
    });
    return bb_cuda_blas_act(dev, dw, add, p.first, p.second, {N, K, M}, p.workspace);
}

const bb_cuda_gemm bb_cuda_gemm_library = {"cuBLASLt", forward, input_gradient, weight_gradient, scratch};
