// SPDX-License-Identifier: MIT
/* How linear layers store the sums of their products. */
#ifndef BB_OPS_CUDA_LINEAR_H
#define BB_OPS_CUDA_LINEAR_H

#include "ops/cuda/ternary.h"

/* y[m,n] = residual[m,n] + s[m] g[n] sum. s NULL: 1; residual NULL: 0. */
typedef struct bb_cuda_store_y {
    float *y;
    const float *residual, *s;
    bb_cuda_scales g;
    int64_t N;

    __device__ void operator()(int64_t m, int64_t n, float sum) const {
        int64_t i = m * N + n;
        float product = (s ? s[m] * g.at(n) : g.at(n)) * sum;
        y[i] = residual ? residual[i] + product : product;
    }
    __device__ void operator()(int64_t m, int64_t n, int sum) const { (*this)(m, n, (float)sum); }
} bb_cuda_store_y;

/* dx[m,k] = s[m] sum. s NULL: 1. */
template <class A> struct bb_cuda_store_dx {
    A *dx;
    const float *s;
    int64_t K;

    __device__ void operator()(int64_t m, int64_t k, float sum) const { dx[m * K + k] = bb_cuda_act<A>(s ? s[m] * sum : sum); }
    __device__ void operator()(int64_t m, int64_t k, int sum) const { (*this)(m, k, (float)sum); }
};

#endif
