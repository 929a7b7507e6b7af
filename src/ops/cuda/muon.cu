// SPDX-License-Identifier: MIT
/* Muon's update of one matrix (arXiv:2502.16982), with products in f32. The iteration works on a matrix X (m,n), m <= n. X is
 * transposed if the weights have more rows than columns. */
#include "ops/cuda/entries.h"
#include "ops/cuda/product_f32.h"

enum { THREADS = 256 };

/* Parts of the scratch. */
typedef struct muon {
    double *tiles;            /* sums of squares */
    float *factor;            /* 1 / (|u| + eps) */
    float *x, *y;             /* (m,n) */
    float *gram, *polynomial; /* (m,m) */
    size_t bytes;
} muon;

static muon layout(void *base, int64_t N, int64_t K) {
    muon s = {};
    int64_t m = bb_min(N, K);
    auto piece = [&](int64_t bytes) {
        char *at = (char *)base + s.bytes;
        s.bytes += (size_t)bb_round_up(bytes, 256);
        return at;
    };
    s.tiles = (double *)piece(bb_ceil_div(N * K, BB_NORM_TILE) * (int64_t)sizeof(double));
    s.factor = (float *)piece(sizeof(float));
    s.x = (float *)piece(N * K * (int64_t)sizeof(float));
    s.y = (float *)piece(N * K * (int64_t)sizeof(float));
    s.gram = (float *)piece(m * m * (int64_t)sizeof(float));
    s.polynomial = (float *)piece(m * m * (int64_t)sizeof(float));
    return s;
}

size_t bb_cuda_muon_scratch(bb_device *dev, int64_t N, int64_t K) {
    (void)dev;
    return layout((void *)256, N, K).bytes; /* not NULL: an offset from NULL is undefined */
}

/* Index in X of element i = n K + k of the weights. */
__device__ static inline int64_t place(int64_t i, int64_t N, int64_t K) { return N > K ? i % K * N + i / K : i; }

static __global__ void __launch_bounds__(THREADS)
    momentum(float *__restrict__ x, bb_bf16 *__restrict__ m, const float *__restrict__ g, int64_t N, int64_t K, float mu,
             float rest, float grad_scale) {
    for (BB_CUDA_GRID_STRIDE(i, N * K)) {
        float gradient = rest * (grad_scale * g[i]), b = mu * bb_f32_from_bf16(m[i]) + gradient;
        m[i] = bb_bf16_from_f32(b);
        x[place(i, N, K)] = gradient + mu * b;
    }
}

/* Adds in order, in one thread. */
static __global__ void normalizing(float *factor, const double *__restrict__ tiles, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += tiles[i];
    *factor = (float)(1.0 / (sqrt(sum) + BB_MUON_EPS));
}

static __global__ void __launch_bounds__(THREADS) multiply(float *x, const float *__restrict__ factor, int64_t n) {
    for (BB_CUDA_GRID_STRIDE(i, n)) x[i] *= *factor;
}

static __global__ void __launch_bounds__(THREADS)
    update(float *__restrict__ p, const float *__restrict__ x, int64_t N, int64_t K, float decay, float scale) {
    for (BB_CUDA_GRID_STRIDE(i, N * K)) p[i] -= decay * p[i] + scale * x[place(i, N, K)];
}

typedef struct store_product {
    float *data;
    int64_t stride;
    __device__ void operator()(int64_t i, int64_t j, float sum) const { data[i * stride + j] = sum; }
} store_product;

/* Stores an element of a I + b A + c A^2, given that element of A^2. */
typedef struct store_polynomial {
    float *data;
    const float *gram;
    int64_t m;
    __device__ void operator()(int64_t i, int64_t j, float sum) const {
        int64_t at = i * m + j;
        data[at] = (float)BB_MUON_B * gram[at] + (float)BB_MUON_C * sum + (i == j ? (float)BB_MUON_A : 0.0f);
    }
} store_polynomial;

static void update_matrix(bb_device *dev, const bb_muon_matrix *matrix, const bb_muon *h) {
    int64_t N = matrix->N, K = matrix->K;
    void *scratch = bb_cuda_scratch(dev, bb_cuda_muon_scratch(dev, N, K));
    if (!scratch) return;
    muon s = layout(scratch, N, K);
    int64_t rows = bb_min(N, K), columns = bb_max(N, K);
    unsigned blocks = bb_cuda_blocks(dev, N * K, THREADS);
    BB_CUDA_LAUNCH(dev, momentum, blocks, THREADS, 0, s.x, matrix->m, matrix->g, N, K, (float)h->momentum,
                   (float)(1 - h->momentum), (float)h->grad_scale);
    bb_cuda_tile_sums(dev, s.tiles, s.x, N * K, true);
    BB_CUDA_LAUNCH(dev, normalizing, 1, 1, 0, s.factor, s.tiles, bb_ceil_div(N * K, BB_NORM_TILE));
    BB_CUDA_LAUNCH(dev, multiply, blocks, THREADS, 0, s.x, s.factor, N * K);
    for (int i = 0; i < h->iterations; i++) {
        bb_cuda_matrix x = {s.x, columns}, gram = {s.gram, rows}, polynomial = {s.polynomial, rows};
        bb_cuda_multiply_f32<true, true>(dev, x, bb_cuda_transposed{s.x, columns}, store_product{s.gram, rows}, rows, rows,
                                         columns);
        bb_cuda_multiply_f32<true, false>(dev, gram, gram, store_polynomial{s.polynomial, s.gram, rows}, rows, rows, rows);
        bb_cuda_multiply_f32<true, false>(dev, polynomial, x, store_product{s.y, columns}, rows, columns, rows);
        float *y = s.y;
        s.y = s.x;
        s.x = y;
    }
    BB_CUDA_LAUNCH(dev, update, blocks, THREADS, 0, matrix->p, s.x, N, K, (float)(h->lr * h->weight_decay),
                   (float)(h->lr * bb_muon_scale(N, K)));
}

void bb_cuda_muon_step(bb_device *dev, const bb_muon_matrix *matrices, int64_t count, const bb_muon *h) {
    bb_cuda_enter(dev);
    for (int64_t i = 0; i < count; i++) update_matrix(dev, &matrices[i], h);
}
