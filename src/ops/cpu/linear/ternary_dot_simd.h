// SPDX-License-Identifier: MIT
/* What the kernels of ternary_dot.h with vpdpbusd share. */
#ifndef BB_OPS_CPU_TERNARY_DOT_SIMD_H
#define BB_OPS_CPU_TERNARY_DOT_SIMD_H

#include <immintrin.h>

#include "ops/cpu/linear/ternary_dot.h"
#include "ops/cpu/vector/dot_words.h"

/* Sanitized tiles take clang minutes to compile. */
#if defined(__clang__)
#define UNINSTRUMENTED no_sanitize("address", "undefined")
#else
#define UNINSTRUMENTED
#endif
#define VNNI "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
#define VNNI_INLINE static inline __attribute__((always_inline, target(VNNI), UNINSTRUMENTED))

enum { PREFETCH_BYTES = 10240 }; /* how far ahead of use; panels are contiguous */

VNNI_INLINE __m512i add(__m512i sum, __m512i codes, __m512i a) {
    BB_DOT_BYTES_512(sum, codes, a);
    return sum;
}

/* Broadcasts 4 bytes to 16 rows. */
VNNI_INLINE __m512i broadcast4(const int8_t *a) {
    int32_t bytes;
    memcpy(&bytes, a, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

#endif
