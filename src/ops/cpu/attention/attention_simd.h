// SPDX-License-Identifier: MIT
/* The vocabulary in which attention for training with VNNI and on AMX is written. */
#ifndef BB_OPS_CPU_ATTENTION_SIMD_H
#define BB_OPS_CPU_ATTENTION_SIMD_H

#include <immintrin.h>
#include <math.h>

#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/device/cpu.h"
#include "ops/cpu/vector/transpose.h"

#define ATTENTION_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
/* INLINE functions are inlined into their callers, so that constant arguments reach their loops. */
#define KERNEL ATTENTION_TARGET static
#define INLINE ATTENTION_TARGET static inline __attribute__((always_inline))

enum { VL = 16, NR = 4 };
typedef __m512 vf; /* f32 (VL) */

INLINE vf vload(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vstore(float *p, vf x) { _mm512_storeu_ps(p, x); }
INLINE vf vset1(float x) { return _mm512_set1_ps(x); }
INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf vkeep(vf x, int64_t n, float fill) { return _mm512_mask_mov_ps(_mm512_set1_ps(fill), (__mmask16)((1u << n) - 1), x); }
INLINE float vreduce_max(vf x) { return _mm512_reduce_max_ps(x); }
INLINE float vreduce_add(vf x) { return _mm512_reduce_add_ps(x); }
/* The first n elements, n <= VL; the rest zeros. */
INLINE vf vload_first(const float *p, int64_t n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE void vstore_first(float *p, vf x, int64_t n) {
    if (n == VL) /* a masked store is slow on some processors */
        _mm512_storeu_ps(p, x);
    else
        _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), x);
}
INLINE vf vload_bf16_first(const bb_bf16 *p, int64_t n) {
    __m256i half = _mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
INLINE vf vload_bf16(const bb_bf16 *p) {
    __m256i half = _mm256_loadu_si256((const __m256i_u *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
/* The bits of x with the bf16, rounded to nearest even, in the upper half; undefined for NaN. */
INLINE __m512i round_to_bf16(vf x) {
    __m512i bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
}
/* y[0..n) = x, n <= VL; NaN stays NaN */
INLINE void store_bf16(bb_bf16 *y, vf x, int64_t n) {
    __m512i rounded = _mm512_mask_or_epi32(round_to_bf16(x), _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), _mm512_castps_si512(x),
                                           _mm512_set1_epi32(0x400000));
    __m256i half = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
    if (n == VL) /* a masked store is slow on some processors */
        _mm256_storeu_si256((__m256i_u *)y, half);
    else
        _mm256_mask_storeu_epi16(y, (__mmask16)((1u << n) - 1), half);
}

/* 2^f on [0, 1], relative error below 1.5e-7: a minimax polynomial in relative error, exact at 0. */
INLINE vf exp2_fraction(vf f) {
    vf p = vfma(f, vset1(0.00186713021f), vset1(0.00901703002f));
    p = vfma(p, f, vset1(0.0557999133f));
    p = vfma(p, f, vset1(0.24016445f));
    p = vfma(p, f, vset1(0.693151312f));
    return vfma(p, f, vset1(1.0f));
}

/* 2^t, NaN for NaN; below 2^-126 it may be 0 or 2^-126. */
INLINE vf vexp2(vf t) {
    return _mm512_scalef_ps(exp2_fraction(_mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)), t);
}

/* Broadcasts the 4 bytes at p. */
INLINE __m512i four_bytes(const void *p) {
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

#endif
