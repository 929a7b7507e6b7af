// SPDX-License-Identifier: MIT
/* Ternary linear layers. If x is int8, forward and dx are exact int8 products on tensor cores. If x is f32, forward is computed
 * in f32. Everything else, including every dW, is computed in the activation type (bf16 or fp16) with f32 accumulators. For a
 * few rows of int8, forward uses one warp per row of the matrix. */
#include "ops/cuda/entries.h"
#include "ops/cuda/gemm.h"
#include "ops/cuda/linear.h"
#include "ops/cuda/product.h"
#include "ops/cuda/product_f32.h"
#include "ops/cuda/rows.h"

/* ---- operands ---------------------------------------------------------------------------------------------------------- */

typedef struct int8_rows {
    const int8_t *data;
    int64_t rows, columns;
    bool aligned; /* every row begins at a multiple of 16 bytes */

    __device__ void load(int8_t *to, int64_t row, int64_t column) const {
        const int8_t *from = data + row * columns + column;
        int64_t count = row < rows ? columns - column : 0;
        if (aligned && count >= BB_CUDA_PANEL) {
            __pipeline_memcpy_async(to, from, BB_CUDA_PANEL);
            return;
        }
        for (int i = 0; i < BB_CUDA_PANEL; i++) to[i] = i < count ? from[i] : (int8_t)0;
    }
} int8_rows;

static int8_rows int8_rows_of(const int8_t *data, int64_t rows, int64_t columns) {
    return {data, rows, columns, (uintptr_t)data % BB_CUDA_PANEL == 0 && columns % BB_CUDA_PANEL == 0};
}

/* Ternary values as int8. Rows are padded with zeros to whole tiles. */
typedef struct ternary_rows {
    const uint32_t *data;
    int64_t rows, words;

    __device__ void load(int8_t *to, int64_t row, int64_t column) const {
        uint32_t *values = (uint32_t *)to;
        uint32_t word = row < rows ? data[row * words + column / BB_CUDA_WORD_CODES] : 0x55555555u;
        for (int j = 0; j < 4; j++) values[j] = bb_cuda_four_values(word, j);
    }
} ternary_rows;

/* The same values in the activation type. */
typedef struct ternary_rows_act {
    const uint32_t *data;
    int64_t rows, words;

    template <class A> __device__ void load(A *to, int64_t row, int64_t column) const {
        uint32_t word = row < rows ? data[row * words + column / BB_CUDA_WORD_CODES] : 0x55555555u;
        for (int i = 0; i < BB_CUDA_WORD_CODES; i++) to[i] = bb_cuda_act<A>((float)bb_cuda_value(word, i));
    }
} ternary_rows_act;

/* Elements of the transpose, (K,N), of a ternary matrix, for products in f32. */
typedef struct ternary_transposed {
    const uint32_t *data;
    int64_t words;
    __device__ float operator()(int64_t k, int64_t n) const {
        uint32_t word = data[n * words + k / BB_CUDA_WORD_CODES];
        return (float)bb_cuda_value(word, (int)(k % BB_CUDA_WORD_CODES));
    }
} ternary_transposed;

/* Values of x in the activation type: codes are not scaled, f32 is rounded. */
typedef struct value_rows {
    const void *data;
    bb_dtype dtype;
    int64_t rows, columns;

    template <class A> __device__ void load(A *to, int64_t row, int64_t column) const {
        int64_t first = row * columns + column, count = row < rows ? columns - column : 0;
        for (int i = 0; i < BB_CUDA_PANEL; i++) {
            float x = 0.0f;
            if (i < count) x = dtype == BB_I8 ? (float)((const int8_t *)data)[first + i] : bb_cuda_load(data, dtype, first + i);
            to[i] = bb_cuda_act<A>(x);
        }
    }
} value_rows;

/* dy (M,N), multiplied by a scale per row or per column. */
typedef struct gradient_rows {
    const void *data;
    bb_dtype dtype;
    int64_t rows, columns;
    const float *row_scale; /* (M); NULL: column_scale */
    bb_cuda_scales column_scale;
    bool scaled; /* false: by neither */

    template <class A> __device__ void load(A *to, int64_t row, int64_t column) const {
        int64_t first = row * columns + column, count = row < rows ? columns - column : 0;
        for (int i = 0; i < BB_CUDA_PANEL; i++) {
            float x = i < count ? bb_cuda_load(data, dtype, first + i) : 0.0f;
            if (i < count && scaled) x *= row_scale ? row_scale[row] : column_scale.at(column + i);
            to[i] = bb_cuda_act<A>(x);
        }
    }
} gradient_rows;

/* ---- forward ----------------------------------------------------------------------------------------------------------- */

/* For few rows: a block keeps FEW_ROWS of them in shared memory, padded with zeros to whole words. Its warps iterate over the
 * rows of the matrix. */
enum { FEW_ROWS = 4, FEW_THREADS = 128, FEW_WARPS = FEW_THREADS / BB_CUDA_WARP, FEW_BYTES = 48 << 10 };

static __global__ void __launch_bounds__(FEW_THREADS) multiply_few(const int8_t *__restrict__ x, const uint32_t *__restrict__ w,
                                                                   bb_cuda_store_y store, int64_t M, int64_t N, int64_t K) {
    DYN_SHARED(uint32_t, shared);
    int64_t words = bb_cuda_row_words(K), m0 = blockIdx.y * (int64_t)FEW_ROWS;
    int rows = (int)min((int64_t)FEW_ROWS, M - m0), lane = threadIdx.x % BB_CUDA_WARP;
    int8_t *bytes = (int8_t *)shared;
    for (int64_t i = threadIdx.x; i < rows * words * BB_CUDA_WORD_CODES; i += FEW_THREADS) {
        int64_t k = i % (words * BB_CUDA_WORD_CODES), m = i / (words * BB_CUDA_WORD_CODES);
        bytes[i] = k < K ? x[(m0 + m) * K + k] : (int8_t)0;
    }
    __syncthreads();
    for (int64_t n = blockIdx.x * (int64_t)FEW_WARPS + threadIdx.x / BB_CUDA_WARP; n < N; n += gridDim.x * (int64_t)FEW_WARPS) {
        int sum[FEW_ROWS] = {};
        for (int64_t i = lane; i < words; i += BB_CUDA_WARP) {
            uint32_t word = w[n * words + i];
            for (int j = 0; j < 4; j++) {
                int values = (int)bb_cuda_four_values(word, j);
                for (int r = 0; r < FEW_ROWS; r++)
                    if (r < rows) sum[r] = __dp4a((int)shared[(r * words + i) * 4 + j], values, sum[r]);
            }
        }
        for (int r = 0; r < FEW_ROWS; r++) {
            int total = bb_cuda_warp_sum(sum[r]);
            if (lane == 0 && r < rows) store(m0 + r, n, total);
        }
    }
}

static bool forward_int8(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    const uint32_t *w = (const uint32_t *)t->data;
    const int8_t *q = (const int8_t *)x.data;
    int64_t N = t->n, K = t->k, words = bb_cuda_row_words(K);
    bb_cuda_store_y store = {y, residual, x.scale, bb_cuda_scales_of(t), N};
    size_t bytes = (size_t)(bb_min(M, FEW_ROWS) * words * BB_CUDA_WORD_CODES);
    if (M <= BB_SMALL_BATCH_ROWS && bytes <= FEW_BYTES) {
        dim3 grid((unsigned)bb_clamp(bb_ceil_div(N, FEW_WARPS), 1, bb_cuda_of(dev)->processors * (int64_t)16),
                  (unsigned)bb_ceil_div(M, FEW_ROWS));
        BB_CUDA_LAUNCH(dev, multiply_few, grid, FEW_THREADS, bytes, q, w, store, M, N, K);
    } else {
        bb_cuda_multiply<int8_t, true, true>(dev, int8_rows_of(q, M, K), ternary_rows{w, N, words}, store, M, N, K);
    }
    return true;
}

void bb_cuda_linear_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    const uint32_t *w = (const uint32_t *)t->data;
    int64_t N = t->n, K = t->k, words = bb_cuda_row_words(K);
    if (x.dtype == BB_I8) {
        if (!cuda->gemm->forward(dev, y, residual, x, t, M)) (void)forward_int8(dev, y, residual, x, t, M);
        return;
    }
    bb_cuda_store_y store = {y, residual, NULL, bb_cuda_scales_of(t), N};
    if (x.dtype == BB_F32)
        bb_cuda_multiply_f32<true, true>(dev, bb_cuda_matrix{(const float *)x.data, K}, ternary_transposed{w, words}, store, M,
                                         N, K);
    else
        bb_cuda_by_act(dev, [&](auto act) {
            bb_cuda_multiply<decltype(act), true, true>(dev, value_rows{x.data, x.dtype, M, K}, ternary_rows_act{w, N, words},
                                                        store, M, N, K);
        });
}

/* ---- backward ---------------------------------------------------------------------------------------------------------- */

typedef struct store_dw {
    float *dw;
    bool add;
    int64_t K;

    __device__ void operator()(int64_t n, int64_t k, float sum) const {
        float *to = dw + n * K + k;
        *to = add ? *to + sum : sum;
    }
} store_dw;

/* Quantizes row m of dy * g to int8 and stores its scale. Gradients can have any magnitude, so this scale has no minimum. If it
 * would be subnormal, the row is too small to matter. */
static __global__ void __launch_bounds__(BB_CUDA_ROW_THREADS)
    quantize_gradient(int8_t *__restrict__ q, float *__restrict__ scale, const void *__restrict__ dy, bb_dtype dtype,
                      bb_cuda_scales g, int64_t N) {
    SHARED(uint32_t, largest, [BB_CUDA_ROW_WARPS]);
    int64_t first = blockIdx.x * N;
    float absmax = 0;
    for (int64_t n = threadIdx.x; n < N; n += BB_CUDA_ROW_THREADS)
        absmax = bb_cuda_greater(absmax, bb_cuda_load(dy, dtype, first + n) * g.at(n));
    float s = bb_cuda_block_absmax(absmax, largest) / 127.0f;
    bool none = s < 0x1p-126f;
    for (int64_t n = threadIdx.x; n < N; n += BB_CUDA_ROW_THREADS)
        q[first + n] = none ? (int8_t)0 : bb_cuda_code(bb_cuda_load(dy, dtype, first + n) * g.at(n), s, 127.0f);
    if (threadIdx.x == 0) scale[blockIdx.x] = none ? 0.0f : s;
}

static bool input_gradient_int8(bb_device *dev, void *dx, bb_rows q, const bb_ternary *t, int64_t M) {
    int64_t N = t->n, K = t->k;
    bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        bb_cuda_multiply<int8_t, true, false>(dev, int8_rows_of((const int8_t *)q.data, M, N),
                                              ternary_rows{(const uint32_t *)t->data, N, bb_cuda_row_words(K)},
                                              bb_cuda_store_dx<A>{(A *)dx, q.scale, K}, M, K, N);
    });
    return true;
}

static bool weight_gradient(bb_device *dev, float *dw, bool add, bb_cuda_gradient dy, bb_rows x, const bb_ternary *t,
                            int64_t M) {
    gradient_rows rows = {dy.data, dy.dtype, M, t->n, dy.row_scale, {}, dy.row_scale != NULL};
    bb_cuda_by_act(dev, [&](auto act) {
        bb_cuda_multiply<decltype(act), false, false>(dev, rows, value_rows{x.data, x.dtype, M, t->k}, store_dw{dw, add, t->k},
                                                      t->n, t->k, M);
    });
    return true;
}

static size_t no_scratch(int64_t, int64_t, int64_t) { return 0; }

const bb_cuda_gemm bb_cuda_gemm_kernels = {"kernels", forward_int8, input_gradient_int8, weight_gradient, no_scratch};

static void input_gradient(bb_device *dev, void *dx, const void *dy, bb_dtype dy_dtype, bool in_int8, const bb_ternary *t,
                           int64_t M) {
    const uint32_t *w = (const uint32_t *)t->data;
    const bb_cuda_gemm *gemm = bb_cuda_of(dev)->gemm;
    int64_t N = t->n, K = t->k, words = bb_cuda_row_words(K);
    bb_cuda_scales g = bb_cuda_scales_of(t);
    if (!in_int8) {
        gradient_rows rows = {dy, dy_dtype, M, N, NULL, g, true};
        bb_cuda_by_act(dev, [&](auto act) {
            typedef decltype(act) A;
            bb_cuda_multiply<A, true, false>(dev, rows, ternary_rows_act{w, N, words}, bb_cuda_store_dx<A>{(A *)dx, NULL, K}, M,
                                             K, N);
        });
        return;
    }
    float *scale = (float *)bb_cuda_scratch(dev, bb_cuda_linear_scratch(M, N) + gemm->scratch(M, N, K));
    if (!scale) return;
    bb_rows q = {(int8_t *)scale + bb_round_up(M * (int64_t)sizeof *scale, 256), scale, BB_I8};
    BB_CUDA_LAUNCH(dev, quantize_gradient, (unsigned)M, BB_CUDA_ROW_THREADS, 0, (int8_t *)q.data, scale, dy, dy_dtype, g, N);
    if (!gemm->input_gradient(dev, dx, q, t, M)) (void)input_gradient_int8(dev, dx, q, t, M);
}

size_t bb_cuda_linear_scratch(int64_t M, int64_t N) { return (size_t)(bb_round_up(M * (int64_t)sizeof(float), 256) + M * N); }

void bb_cuda_linear_backward(bb_device *dev, void *dx, bb_layer_gradient g, bb_rows x, const bb_ternary *t, int64_t M) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    bool in_int8 = x.dtype == BB_I8;
    bb_cuda_gradient gradient = {g.dy, g.dtype, in_int8 ? x.scale : NULL};
    if (dx) input_gradient(dev, dx, g.dy, g.dtype, in_int8, t, M);
    if (!in_int8 || !cuda->gemm->weight_gradient(dev, g.dw, g.add, gradient, x, t, M))
        (void)weight_gradient(dev, g.dw, g.add, gradient, x, t, M);
}
