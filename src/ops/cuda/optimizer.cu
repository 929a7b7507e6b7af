// SPDX-License-Identifier: MIT
/* Sums over tiles, and AdamW with moments in f32 and in 8 bits. */
#include "ops/cuda/device.h"
#include "ops/cuda/entries.h"

extern "C" {
#include "core/adam8_map.h"
}

enum { THREADS = 256, WARPS = THREADS / BB_CUDA_WARP };

static __global__ void __launch_bounds__(THREADS)
    tile_sums(double *__restrict__ sums, const float *__restrict__ x, int64_t n, bool squares) {
    SHARED(double, partial, [WARPS]);
    int64_t first = blockIdx.x * (int64_t)BB_NORM_TILE, end = min(first + BB_NORM_TILE, n);
    double sum = 0;
    for (int64_t i = first + threadIdx.x; i < end; i += THREADS)
        sum += squares ? (double)x[i] * (double)x[i] : fabs((double)x[i]);
    sum = bb_cuda_block_sum(sum, partial);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

void bb_cuda_tile_sums(bb_device *dev, double *sums, const float *x, int64_t n, bool squares) {
    BB_CUDA_LAUNCH(dev, tile_sums, (unsigned)bb_ceil_div(n, BB_NORM_TILE), THREADS, 0, sums, x, n, squares);
}

void bb_cuda_sum_squares(bb_device *dev, double *sums, const float *x, int64_t n) {
    bb_cuda_enter(dev);
    bb_cuda_tile_sums(dev, sums, x, n, true);
}

static __global__ void __launch_bounds__(THREADS) add(float *__restrict__ y, const float *__restrict__ x, int64_t n) {
    for (BB_CUDA_GRID_STRIDE(i, n)) y[i] += x[i];
}

void bb_cuda_add(bb_device *dev, float *y, const float *x, int64_t n) {
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, add, bb_cuda_blocks(dev, n, THREADS), THREADS, 0, y, x, n);
}

/* ---- AdamW (arXiv:1711.05101) ------------------------------------------------------------------------------------------ */

/* bb_adamw, with the factors that are the same for every element precomputed. */
typedef struct adamw {
    float beta1, beta2, one_minus_beta1, one_minus_beta2, eps, grad_scale;
    float decay, step_size; /* lr * weight_decay, lr / bias_correction1 */
    float inv_sqrt2;        /* 1 / sqrt(bias_correction2) */
    float min_root_v;       /* sqrt(bb_adam8_min_v) */
} adamw;

static adamw prepare(const bb_adamw *h) {
    adamw a;
    a.beta1 = (float)h->beta1;
    a.beta2 = (float)h->beta2;
    a.one_minus_beta1 = (float)(1 - h->beta1);
    a.one_minus_beta2 = (float)(1 - h->beta2);
    a.eps = (float)h->eps;
    a.grad_scale = (float)h->grad_scale;
    a.decay = (float)(h->lr * h->weight_decay);
    a.step_size = (float)(h->lr / h->bias_correction1);
    a.inv_sqrt2 = (float)(1 / sqrt(h->bias_correction2));
    a.min_root_v = (float)sqrt(bb_adam8_min_v(h));
    return a;
}

__device__ static inline void moments(float g, float *m, float *v, const adamw &a) {
    g *= a.grad_scale;
    *m = a.beta1 * *m + a.one_minus_beta1 * g;
    *v = a.beta2 * *v + a.one_minus_beta2 * (g * g);
}

/* Returns the new p. The decay is a separate product: 1 - lr * wd would round it to three digits. */
__device__ static inline float apply(float p, float m, float v, const adamw &a) {
    return p - (a.decay * p + a.step_size * m / (sqrtf(v) * a.inv_sqrt2 + a.eps));
}

static __global__ void __launch_bounds__(THREADS) adamw_step(float *__restrict__ p, const float *__restrict__ g,
                                                             float *__restrict__ m, float *__restrict__ v, int64_t n, adamw a) {
    for (BB_CUDA_GRID_STRIDE(i, n)) {
        float mi = m[i], vi = v[i];
        moments(g[i], &mi, &vi, a);
        p[i] = apply(p[i], mi, vi, a);
        m[i] = mi;
        v[i] = vi;
    }
}

void bb_cuda_adamw_step(bb_device *dev, float *p, const float *g, float *m, float *v, int64_t n, const bb_adamw *h) {
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, adamw_step, bb_cuda_blocks(dev, n, THREADS), THREADS, 0, p, g, m, v, n, prepare(h));
}

/* ---- 8-bit moments (arXiv:2110.02861): one CUDA block per block of moments, one thread per element ---------------------- */

static_assert((int)THREADS == (int)BB_ADAM8_BLOCK, "a thread an element");

static __global__ void __launch_bounds__(THREADS) adamw8bit_init(bb_adam8_state s, int64_t n) {
    int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x;
    if (i < n) {
        s.m[i] = bb_adam8_code(0.0f, true);
        s.v[i] = bb_adam8_code(0.0f, false);
    }
    if (threadIdx.x == 0) s.m_absmax[blockIdx.x] = s.v_absmax[blockIdx.x] = 0.0f;
}

void bb_cuda_adamw8bit_init(bb_device *dev, bb_adam8_state s, int64_t n) {
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, adamw8bit_init, (unsigned)bb_ceil_div(n, BB_ADAM8_BLOCK), THREADS, 0, s, n);
}

static __global__ void __launch_bounds__(THREADS)
    adamw8bit_step(float *__restrict__ p, const float *__restrict__ g, bb_adam8_state s, int64_t n, adamw a) {
    SHARED(uint32_t, partial, [WARPS]);
    int64_t block = blockIdx.x, i = block * THREADS + threadIdx.x;
    float m = 0, v = 0;
    if (i < n) {
        m = bb_adam8_value(s.m[i], true) * s.m_absmax[block];
        v = bb_adam8_value(s.v[i], false) * s.v_absmax[block];
        moments(g[i], &m, &v, a);
        float root = a.min_root_v * fabsf(m);
        if (root * root > v) v = root * root;
        p[i] = apply(p[i], m, v, a);
    }
    float m_absmax = bb_cuda_block_absmax(m, partial), v_absmax = bb_cuda_block_absmax(v, partial);
    if (i < n) {
        s.m[i] = bb_adam8_code(bb_adam8_scale(m_absmax) * m, true);
        s.v[i] = bb_adam8_code(bb_adam8_scale(v_absmax) * v, false);
    }
    if (threadIdx.x == 0) {
        s.m_absmax[block] = m_absmax;
        s.v_absmax[block] = v_absmax;
    }
}

void bb_cuda_adamw8bit_step(bb_device *dev, float *p, const float *g, bb_adam8_state s, int64_t n, const bb_adamw *h) {
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, adamw8bit_step, (unsigned)bb_ceil_div(n, BB_ADAM8_BLOCK), THREADS, 0, p, g, s, n, prepare(h));
}
