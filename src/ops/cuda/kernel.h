// SPDX-License-Identifier: MIT
/* Every file of this backend includes this header first: CUDA, and the helpers that kernels use.
 *
 * Kernels are CUDA C++ that also compiles as plain C++. For that, tests first include an emulation of the names used here
 * (tests/cuda/emulation). So a kernel declares shared memory with SHARED(type, name, [dimensions]) or DYN_SHARED(type, name),
 * is launched with BB_CUDA_LAUNCH (device.h), and uses no extension that the emulation lacks.
 *
 * Rules for kernels: no float atomics, so that sums have a fixed order and results are the same each time. Products and sums
 * are rounded separately (-fmad=false) unless fmaf says otherwise, so that formulas give the same bits as ref if ref computes
 * in f32. */
#ifndef BB_OPS_CUDA_KERNEL_H
#define BB_OPS_CUDA_KERNEL_H

#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

/* BB_CUDA_UNROLL: before a loop whose body indexes an array that must stay in registers. BB_CUDA_ROLL: before a loop that would
 * need too many registers if it were unrolled. */
#ifdef BB_CUDA_EMULATED
#define BB_CUDA_UNROLL
#define BB_CUDA_ROLL
#else
#define BB_CUDA_UNROLL _Pragma("unroll")
#define BB_CUDA_ROLL _Pragma("unroll 1")
#endif

#ifndef BB_CUDA_EMULATED
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#include <cuda_runtime.h>
#include <mma.h>
#define SHARED(T, name, dims) __shared__ __align__(128) T name dims
#define DYN_SHARED(T, name)                                                                                                    \
    extern __shared__ __align__(128) unsigned char bb_dynamic_shared[];                                                        \
    T *name = (T *)bb_dynamic_shared
#define LAUNCH(kernel, grid, block, shared, stream, ...) (kernel)<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
#endif

extern "C" {
#include "core/math.h"
#include "core/status.h"
#include "ops/ops.h"
}

enum { BB_CUDA_WARP = 32 };
#define BB_CUDA_ALL_LANES 0xffffffffu

/* for (BB_CUDA_GRID_STRIDE(i, n)) is a grid-stride loop over n elements. */
#define BB_CUDA_GRID_STRIDE(i, n)                                                                                              \
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;                                                                \
    i < (n);                                                                                                                   \
    i += (int64_t)gridDim.x * blockDim.x

/* ---- over the lanes of a warp: every lane calls these and gets the result. Compute capability 8.0 and later has instructions
 * for them. */

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
__device__ static inline uint32_t bb_cuda_warp_max(uint32_t x) {
    for (int distance = BB_CUDA_WARP / 2; distance; distance /= 2) x = max(x, __shfl_xor_sync(BB_CUDA_ALL_LANES, x, distance));
    return x;
}
__device__ static inline int bb_cuda_warp_sum(int x) {
    for (int distance = BB_CUDA_WARP / 2; distance; distance /= 2) x += __shfl_xor_sync(BB_CUDA_ALL_LANES, x, distance);
    return x;
}
#else
__device__ static inline uint32_t bb_cuda_warp_max(uint32_t x) { return __reduce_max_sync(BB_CUDA_ALL_LANES, x); }
__device__ static inline int bb_cuda_warp_sum(int x) { return __reduce_add_sync(BB_CUDA_ALL_LANES, x); }
#endif

/* ---- over the threads of a block: every thread calls these and gets the result. partial: in shared memory, one element per
 * warp. The sum adds the warps in order. */

__device__ static inline double bb_cuda_block_sum(double v, double *partial) {
    for (int distance = BB_CUDA_WARP / 2; distance; distance /= 2) v += __shfl_xor_sync(BB_CUDA_ALL_LANES, v, distance);
    if (threadIdx.x % BB_CUDA_WARP == 0) partial[threadIdx.x / BB_CUDA_WARP] = v;
    __syncthreads();
    v = 0;
    for (unsigned warp = 0; warp < blockDim.x / BB_CUDA_WARP; warp++) v += partial[warp];
    __syncthreads(); /* before the next call overwrites partial */
    return v;
}

/* Largest magnitude; NaN if any value is NaN. The bits of magnitudes are ordered like their values, with NaN last. */
__device__ static inline float bb_cuda_warp_absmax(float x) {
    return __uint_as_float(bb_cuda_warp_max(__float_as_uint(x) & 0x7fffffffu));
}
__device__ static inline float bb_cuda_block_absmax(float x, uint32_t *partial) {
    uint32_t v = __float_as_uint(bb_cuda_warp_absmax(x));
    if (threadIdx.x % BB_CUDA_WARP == 0) partial[threadIdx.x / BB_CUDA_WARP] = v;
    __syncthreads();
    for (unsigned warp = 0; warp < blockDim.x / BB_CUDA_WARP; warp++) v = partial[warp] > v ? partial[warp] : v;
    __syncthreads();
    return __uint_as_float(v);
}

/* Returns |x| if it is greater than a or NaN, otherwise a. a >= 0, or NaN. */
__device__ static inline float bb_cuda_greater(float a, float x) {
    uint32_t u = __float_as_uint(x) & 0x7fffffffu;
    return u > __float_as_uint(a) ? __uint_as_float(u) : a;
}

/* ---- the quantizer of ops.h's act_quant, for codes up to `limit` */

__device__ static inline float bb_cuda_scale(float absmax, float limit) {
    float s = absmax / limit;
    return s < 1e-8f ? 1e-8f : s;
}

__device__ static inline int8_t bb_cuda_code(float x, float s, float limit) {
    return (int8_t)fminf(fmaxf(rintf(x / s), -limit), limit);
}

/* ---- activations: the device sets their type A, bf16 or fp16, for memory and for operands of tensor cores */

typedef __nv_bfloat16 bb_cuda_bf16;
typedef __half bb_cuda_f16;

template <class A> __host__ __device__ static inline A bb_cuda_act(float x) {
    if constexpr (std::is_same<A, bb_cuda_f16>::value)
        return __float2half(x);
    else
        return __float2bfloat16(x);
}
__host__ __device__ static inline float bb_cuda_f32(bb_cuda_bf16 x) { return __bfloat162float(x); }
__host__ __device__ static inline float bb_cuda_f32(bb_cuda_f16 x) { return __half2float(x); }

/* Whether tensor cores multiply T: all types, except bf16 before compute capability 8.0. Kernels that would multiply other
 * types are compiled without a body. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <class T> constexpr bool bb_cuda_multiplies = !std::is_same<T, bb_cuda_bf16>::value;
#else
template <class T> constexpr bool bb_cuda_multiplies = true;
#endif

/* Calls f with a value of the device's activation type. */
template <class F> static inline auto bb_cuda_by_act(const bb_device *dev, F f) {
    return dev->ops->act_dtype == BB_F16 ? f(bb_cuda_f16()) : f(bb_cuda_bf16());
}

/* Loads element i as f32. dtype is not I8. */
__device__ static inline float bb_cuda_load(const void *x, bb_dtype dtype, int64_t i) {
    if (dtype == BB_F32) return ((const float *)x)[i];
    return dtype == BB_F16 ? bb_cuda_f32(((const bb_cuda_f16 *)x)[i]) : bb_cuda_f32(((const bb_cuda_bf16 *)x)[i]);
}

#endif
