// SPDX-License-Identifier: MIT
#include "ops/cpu/vector/round.h"

#include "ops/cpu/vector/simd.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

BB_SIMD_INLINE void round_body(bb_bf16 *y, const float *x, int64_t n) { bb_simd_round_to_bf16(y, x, n); }
BB_SIMD_VARIANTS(round, (bb_bf16 * y, const float *x, int64_t n), (y, x, n))

#ifdef __x86_64__
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))) static void
round_avx512bf16(bb_bf16 *y, const float *x, int64_t n) {
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        _mm512_storeu_si512(y + i, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(x + i)));
    for (; i < n; i += 16) {
        __mmask16 lanes = n - i >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << (n - i)) - 1);
        _mm256_mask_storeu_epi16(y + i, lanes, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, x + i)));
    }
}
#endif

bb_round_kernel *bb_round_for(bb_cpu_level level) {
#ifdef __x86_64__
    if (level >= BB_CPU_AVX512_BF16) return round_avx512bf16;
#endif
    return round_for(level);
}
