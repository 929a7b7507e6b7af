// SPDX-License-Identifier: MIT
/* What the implementations of dot.h share. */
#ifndef BB_OPS_CPU_DOT_SIMD_H
#define BB_OPS_CPU_DOT_SIMD_H

#include <immintrin.h>

#include "ops/cpu/device/cpu.h"

/* Sanitized tiles take gcc half a minute to compile, but clang minutes and gigabytes. */
#if defined(__clang__)
#define UNINSTRUMENTED no_sanitize("address", "undefined")
#else
#define UNINSTRUMENTED
#endif
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"), UNINSTRUMENTED))
#define INLINE static inline __attribute__((always_inline)) TARGET

enum { LANES = 16 };

/* Mask of the valid lanes among 16 (32) columns from `first` on. */
INLINE __mmask16 lanes16(int64_t columns, int first) {
    int64_t n = columns - first;
    return n >= 16 ? (__mmask16)0xffff : n > 0 ? (__mmask16)((1u << n) - 1) : (__mmask16)0;
}

INLINE __mmask32 lanes32(int64_t columns, int first) {
    return (__mmask32)lanes16(columns, first) | (__mmask32)lanes16(columns, first + LANES) << 16;
}

/* Rounds to bf16 with the BF16 instruction; in assembler, because files without that target use these functions too. */
INLINE __m512i round_two(__m512 low, __m512 high) {
    __m512i rounded;
    __asm__("vcvtne2ps2bf16 %1, %2, %0" : "=v"(rounded) : "v"(low), "v"(high));
    return rounded;
}

#endif
