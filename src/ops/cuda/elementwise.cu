// SPDX-License-Identifier: MIT
/* Norm, quantizer, SwiGLU and RoPE: one block per row, or one thread per element. */
#include "ops/cuda/device.h"
#include "ops/cuda/entries.h"
#include "ops/cuda/rows.h"

enum { THREADS = BB_CUDA_ROW_THREADS, WARPS = BB_CUDA_ROW_WARPS };

/* Computes in double, like ref, so that the codes agree. */
static __global__ void __launch_bounds__(THREADS)
    rmsnorm_forward(bb_rows y, float *r, const float *__restrict__ x, const float *__restrict__ w, float eps, int64_t C) {
    SHARED(double, sums, [WARPS]);
    SHARED(uint32_t, largest, [WARPS]);
    const float *row = x + blockIdx.x * C;
    double sum = 0;
    for (int64_t c = threadIdx.x; c < C; c += THREADS) sum += (double)row[c] * (double)row[c];
    double inverse = 1.0 / sqrt(bb_cuda_block_sum(sum, sums) / (double)C + (double)eps);
    auto value = [=](int64_t c) { return (float)((double)row[c] * (double)w[c] * inverse); };
    bb_cuda_store_row(y, blockIdx.x, C, value, largest);
    if (threadIdx.x == 0) r[blockIdx.x] = (float)inverse;
}

void bb_cuda_rmsnorm_forward(bb_device *dev, bb_rows y, float *r, const float *x, const bb_norm *norm) {
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, rmsnorm_forward, (unsigned)norm->M, THREADS, 0, y, r, x, norm->w, norm->eps, norm->C);
}

template <class A>
static __global__ void __launch_bounds__(THREADS)
    rmsnorm_backward_rows(float *__restrict__ dx, const A *__restrict__ dy, const float *__restrict__ x,
                          const float *__restrict__ w, const float *__restrict__ r, int64_t C) {
    SHARED(double, sums, [WARPS]);
    int64_t first = blockIdx.x * C;
    float dot = 0, rm = r[blockIdx.x];
    for (int64_t c = threadIdx.x; c < C; c += THREADS) dot += w[c] * bb_cuda_f32(dy[first + c]) * x[first + c];
    float norm = (float)(bb_cuda_block_sum((double)dot, sums) / (double)C) * rm * rm * rm;
    for (int64_t c = threadIdx.x; c < C; c += THREADS) {
        int64_t i = first + c;
        dx[i] += w[c] * (rm * bb_cuda_f32(dy[i])) - norm * x[i];
    }
}

/* Each row of dw's partial sums adds this many rows of the batch, in order. */
enum { SUM_ROWS = 64 };

/* partial[blockIdx.y, c] = the sum of dy * x * r over this block's rows. */
template <class A>
static __global__ void __launch_bounds__(THREADS)
    rmsnorm_backward_columns(float *__restrict__ partial, const A *__restrict__ dy, const float *__restrict__ x,
                             const float *__restrict__ r, int64_t M, int64_t C) {
    int64_t c = blockIdx.x * (int64_t)THREADS + threadIdx.x, first = blockIdx.y * (int64_t)SUM_ROWS,
            end = min(first + SUM_ROWS, M);
    if (c >= C) return;
    float sum = 0;
    for (int64_t m = first; m < end; m++) sum += bb_cuda_f32(dy[m * C + c]) * r[m] * x[m * C + c];
    partial[blockIdx.y * C + c] = sum;
}

static __global__ void __launch_bounds__(THREADS)
    add_columns(float *__restrict__ sums, const float *__restrict__ partial, int64_t rows, int64_t C) {
    for (BB_CUDA_GRID_STRIDE(c, C)) {
        float sum = sums[c];
        for (int64_t i = 0; i < rows; i++) sum += partial[i * C + c];
        sums[c] = sum;
    }
}

/* Maximum number of blocks in a grid's second dimension. */
enum { MAX_GRID_Y = 65535 };

void bb_cuda_rmsnorm_backward(bb_device *dev, float *dx, float *dw, const void *dy, const float *x, const float *r,
                              const bb_norm *norm) {
    bb_cuda_enter(dev);
    int64_t M = norm->M, C = norm->C;
    bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        const A *gradient = (const A *)dy;
        BB_CUDA_LAUNCH(dev, rmsnorm_backward_rows<A>, (unsigned)M, THREADS, 0, dx, gradient, x, norm->w, r, C);
        const int64_t most = (int64_t)MAX_GRID_Y * SUM_ROWS; /* maximum rows per launch */
        for (int64_t m = 0; m < M; m += most) {
            int64_t rows = bb_min(M - m, most), parts = bb_ceil_div(rows, SUM_ROWS);
            float *partial = (float *)bb_cuda_scratch(dev, (size_t)(parts * C) * sizeof *partial);
            if (!partial) return;
            dim3 grid((unsigned)bb_ceil_div(C, THREADS), (unsigned)parts);
            BB_CUDA_LAUNCH(dev, rmsnorm_backward_columns<A>, grid, THREADS, 0, partial, gradient + m * C, x + m * C, r + m,
                           rows, C);
            BB_CUDA_LAUNCH(dev, add_columns, bb_cuda_blocks(dev, C, THREADS), THREADS, 0, dw, partial, parts, C);
        }
    });
}

static __global__ void __launch_bounds__(THREADS) act_quant(bb_rows y, const float *__restrict__ x, int64_t K) {
    SHARED(uint32_t, largest, [WARPS]);
    const float *row = x + blockIdx.x * K;
    auto value = [=](int64_t k) { return row[k]; };
    bb_cuda_store_row(y, blockIdx.x, K, value, largest);
}

void bb_cuda_act_quant(bb_device *dev, bb_rows y, const float *x, int64_t M, int64_t K) {
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, act_quant, (unsigned)M, THREADS, 0, y, x, K);
}

template <class A>
static __global__ void __launch_bounds__(THREADS) act_to_f32(float *__restrict__ y, const A *__restrict__ x, int64_t n) {
    for (BB_CUDA_GRID_STRIDE(i, n)) y[i] = bb_cuda_f32(x[i]);
}

void bb_cuda_act_to_f32(bb_device *dev, float *y, const void *x, int64_t n) {
    bb_cuda_enter(dev);
    bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        BB_CUDA_LAUNCH(dev, act_to_f32<A>, bb_cuda_blocks(dev, n, THREADS), THREADS, 0, y, (const A *)x, n);
    });
}

/* ---- SwiGLU ------------------------------------------------------------------------------------------------------------ */

__device__ static inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <class A>
static __global__ void __launch_bounds__(THREADS)
    swiglu_forward(bb_rows y, A *__restrict__ kept, const float *__restrict__ gate_up, int64_t F) {
    SHARED(uint32_t, largest, [WARPS]);
    const float *gate = gate_up + blockIdx.x * 2 * F, *up = gate + F;
    auto value = [=](int64_t f) { return gate[f] * sigmoid(gate[f]) * up[f]; };
    bb_cuda_store_row(y, blockIdx.x, F, value, largest);
    for (int64_t f = threadIdx.x; kept && f < 2 * F; f += THREADS) kept[blockIdx.x * 2 * F + f] = bb_cuda_act<A>(gate[f]);
}

void bb_cuda_swiglu_forward(bb_device *dev, bb_rows y, void *kept, const float *gate_up, int64_t M, int64_t F) {
    bb_cuda_enter(dev);
    bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        BB_CUDA_LAUNCH(dev, swiglu_forward<A>, (unsigned)M, THREADS, 0, y, (A *)kept, gate_up, F);
    });
}

template <class A>
static __global__ void __launch_bounds__(THREADS)
    swiglu_backward(A *__restrict__ d_gate_up, const A *__restrict__ gate_up, const A *__restrict__ dh, int64_t n, int64_t F) {
    for (BB_CUDA_GRID_STRIDE(i, n)) {
        int64_t at = i / F * 2 * F + i % F;
        float z = bb_cuda_f32(gate_up[at]), up = bb_cuda_f32(gate_up[at + F]), grad = bb_cuda_f32(dh[i]);
        float s = sigmoid(z);
        d_gate_up[at] = bb_cuda_act<A>(grad * up * s * (1.0f + z * (1.0f - s)));
        d_gate_up[at + F] = bb_cuda_act<A>(grad * z * s);
    }
}

void bb_cuda_swiglu_backward(bb_device *dev, void *d_gate_up, const void *gate_up, const void *dh, int64_t M, int64_t F) {
    bb_cuda_enter(dev);
    bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        BB_CUDA_LAUNCH(dev, swiglu_backward<A>, bb_cuda_blocks(dev, M * F, THREADS), THREADS, 0, (A *)d_gate_up,
                       (const A *)gate_up, (const A *)dh, M * F, F);
    });
}

/* ---- RoPE -------------------------------------------------------------------------------------------------------------- */

typedef struct rope_shape {
    int64_t position0, rows, T, heads, D, width;
    const int64_t *position; /* in a captured pass, used instead of position0; else NULL */
} rope_shape;

/* One thread per pair of a head's elements, or per element that is only copied to `kept`. */
template <class A>
static __global__ void __launch_bounds__(THREADS)
    rope_forward(float *__restrict__ x, A *__restrict__ kept, const float *__restrict__ cosine, const float *__restrict__ sine,
                 rope_shape s) {
    int64_t half = s.D / 2, pairs = s.heads * half, items = pairs + (kept ? s.width - 2 * pairs : 0);
    int64_t position0 = s.position ? *s.position : s.position0;
    for (BB_CUDA_GRID_STRIDE(i, s.rows * items)) {
        int64_t row = i / items, item = i % items, first = row * s.width;
        if (item >= pairs) {
            int64_t at = first + pairs + item;
            kept[at] = bb_cuda_act<A>(x[at]);
            continue;
        }
        int64_t at = first + item / half * s.D + item % half, angle = (position0 + row % s.T) * half + item % half;
        float c = cosine[angle], sn = sine[angle], a = x[at], b = x[at + half];
        x[at] = a * c - b * sn;
        x[at + half] = b * c + a * sn;
        if (!kept) continue;
        kept[at] = bb_cuda_act<A>(x[at]);
        kept[at + half] = bb_cuda_act<A>(x[at + half]);
    }
}

void bb_cuda_rope_forward(bb_device *dev, float *x, void *kept, int64_t position0, const bb_rope *rope) {
    bb_cuda *cuda = bb_cuda_enter(dev);
    int64_t rows = rope->B * rope->T;
    rope_shape s = {position0, rows, rope->T, rope->heads, rope->D, rope->width, NULL};
    if (cuda->recorded_positions) s.position = cuda->positions + cuda->rotations++ % cuda->recorded_positions;
    bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        BB_CUDA_LAUNCH(dev, rope_forward<A>, bb_cuda_blocks(dev, rows * rope->width, THREADS), THREADS, 0, x, (A *)kept,
                       rope->cos, rope->sin, s);
    });
}

template <class A>
static __global__ void __launch_bounds__(THREADS)
    rope_backward(A *__restrict__ dx, const float *__restrict__ cosine, const float *__restrict__ sine, rope_shape s) {
    int64_t half = s.D / 2, pairs = s.heads * half;
    for (BB_CUDA_GRID_STRIDE(i, s.rows * pairs)) {
        int64_t row = i / pairs, pair = i % pairs;
        int64_t at = row * s.width + pair / half * s.D + pair % half, angle = row % s.T * half + pair % half;
        float c = cosine[angle], sn = sine[angle], a = bb_cuda_f32(dx[at]), b = bb_cuda_f32(dx[at + half]);
        dx[at] = bb_cuda_act<A>(a * c + b * sn);
        dx[at + half] = bb_cuda_act<A>(b * c - a * sn);
    }
}

void bb_cuda_rope_backward(bb_device *dev, void *dx, const bb_rope *rope) {
    bb_cuda_enter(dev);
    int64_t rows = rope->B * rope->T;
    rope_shape s = {0, rows, rope->T, rope->heads, rope->D, rope->width, NULL};
    bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        BB_CUDA_LAUNCH(dev, rope_backward<A>, bb_cuda_blocks(dev, rows * rope->heads * rope->D / 2, THREADS), THREADS, 0,
                       (A *)dx, rope->cos, rope->sin, s);
    });
}
