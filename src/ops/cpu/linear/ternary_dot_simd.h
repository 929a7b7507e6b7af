// SPDX-License-Identifier: MIT
/* What the kernels of ternary_dot.h by vpdpbusd share. */
#ifndef BB_OPS_CPU_TERNARY_DOT_SIMD_H
#define BB_OPS_CPU_TERNARY_DOT_SIMD_H

#include <immintrin.h>

#include "ops/cpu/linear/ternary_dot.h"

/* Instrumented tiles take clang minutes. */
#if defined(__clang__)
#define UNINSTRUMENTED no_sanitize("address", "undefined")
#else
#define UNINSTRUMENTED
#endif
#define VNNI "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
#define VNNI_INLINE static inline __attribute__((always_inline, target(VNNI), UNINSTRUMENTED))

enum { AHEAD = 10240 }; /* bytes that a panel is fetched ahead; panels follow each other */

/* Written as assembler: GCC 12 copies the sums around the intrinsic. */
VNNI_INLINE __m512i add(__m512i sum, __m512i codes, __m512i a) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(a));
    return sum;
}

/* The same 4 bytes for each of 16 rows. */
VNNI_INLINE __m512i four(const int8_t *a) {
    int32_t bytes;
    memcpy(&bytes, a, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

#endif
