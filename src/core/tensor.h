// SPDX-License-Identifier: MIT
/* Element types, and the dimension letters used in every comment:
 * B sequences, T bytes each, M = B*T rows; C = d_model, H heads of D = C/H, Hk KV heads, F = d_ff, V = vocabulary, L layers;
 * a linear layer maps K inputs to N outputs. */
#ifndef BB_CORE_TENSOR_H
#define BB_CORE_TENSOR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Marks what the kernels of src/ops/cuda call, too. */
#ifdef __CUDACC__
#define BB_HOST_DEVICE __host__ __device__
#else
#define BB_HOST_DEVICE
#endif

typedef enum bb_dtype { BB_F32 = 0, BB_BF16, BB_I8, BB_U8, BB_F16 } bb_dtype;

static inline size_t bb_dtype_bytes(bb_dtype t) { return t == BB_F32 ? 4 : t == BB_BF16 || t == BB_F16 ? 2 : 1; }

BB_HOST_DEVICE static inline float bb_f32_from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

BB_HOST_DEVICE static inline uint32_t bb_bits_of_f32(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* bf16 is the upper half of an f32; rounding is half to even, NaN stays NaN. */
typedef uint16_t bb_bf16;

BB_HOST_DEVICE static inline float bb_f32_from_bf16(bb_bf16 v) { return bb_f32_from_bits((uint32_t)v << 16); }

BB_HOST_DEVICE static inline bb_bf16 bb_bf16_from_f32(float f) {
    uint32_t u = bb_bits_of_f32(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (bb_bf16)((u >> 16) | 0x40u);
    return (bb_bf16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

#endif
