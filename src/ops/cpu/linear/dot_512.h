// SPDX-License-Identifier: MIT
/* What the units of dot.h and dot_bf16.h with AVX-512 share. */
#ifndef BB_OPS_CPU_DOT_512_H
#define BB_OPS_CPU_DOT_512_H

#include <immintrin.h>

#include "core/math.h"
#include "ops/cpu/linear/dot.h"

/* Sanitized tiles take gcc half a minute to compile, but clang minutes and gigabytes. */
#if defined(__clang__)
#define UNINSTRUMENTED __attribute__((no_sanitize("address", "undefined")))
#else
#define UNINSTRUMENTED
#endif
#define INLINE static inline __attribute__((always_inline)) UNINSTRUMENTED

enum { LANES = 16, PREFETCH_ROWS = 16 };

/* Mask of the valid lanes among 16 (32) columns from `first` on. */
INLINE __mmask16 lanes16(int64_t columns, int first) {
    int64_t n = columns - first;
    return n >= 16 ? (__mmask16)0xffff : n > 0 ? (__mmask16)((1u << n) - 1) : (__mmask16)0;
}

INLINE __mmask32 lanes32(int64_t columns, int first) {
    return (__mmask32)lanes16(columns, first) | (__mmask32)lanes16(columns, first + LANES) << 16;
}

/* Rounds 32 values to bf16. Each unit defines it with what its processors have. */
static inline __m512i round_two(__m512 low, __m512 high);

INLINE __m512 load_row(const void *row, bb_dtype dtype, int64_t i, __mmask16 lanes) {
    if (dtype == BB_I8) return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, (const int8_t *)row + i)));
    if (dtype == BB_F32) return _mm512_maskz_loadu_ps(lanes, (const float *)row + i);
    __m256i half = _mm256_maskz_loadu_epi16(lanes, (const bb_bf16 *)row + i);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

#endif
