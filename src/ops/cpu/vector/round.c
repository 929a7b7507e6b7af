// SPDX-License-Identifier: MIT
#include "ops/cpu/vector/round.h"

#include "ops/cpu/vector/simd.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

void bb_round_generic(bb_bf16 *y, const float *x, int64_t n) { bb_simd_round_to_bf16(y, x, n); }

#ifdef __x86_64__
__attribute__((target("avx2"))) void bb_round_avx2(bb_bf16 *y, const float *x, int64_t n) { bb_simd_round_to_bf16(y, x, n); }

__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) void bb_round_avx512(bb_bf16 *y, const float *x, int64_t n) {
    bb_simd_round_to_bf16(y, x, n);
}

__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))) void bb_round_avx512bf16(bb_bf16 *y, const float *x,
                                                                                                  int64_t n) {
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        _mm512_storeu_si512(y + i, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(x + i)));
    for (; i < n; i += 16) {
        __mmask16 lanes = n - i >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << (n - i)) - 1);
        _mm256_mask_storeu_epi16(y + i, lanes, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, x + i)));
    }
}
#endif
