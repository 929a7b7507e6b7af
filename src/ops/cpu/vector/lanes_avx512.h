// SPDX-License-Identifier: MIT
/* lanes.h for AVX-512 F, BW, DQ, VL. */
#ifndef BB_OPS_CPU_LANES_AVX512_H
#define BB_OPS_CPU_LANES_AVX512_H

#include <immintrin.h>

#include "ops/cpu/vector/dot_words.h"
#include "ops/cpu/vector/transpose.h"

enum { VL = 16 };
typedef __m512 vf;
typedef __m512i vi;

LANES_INLINE __mmask16 first_lanes(int64_t n) { return (__mmask16)((1u << n) - 1); }

LANES_INLINE vf vload(const float *p) { return _mm512_loadu_ps(p); }
LANES_INLINE void vstore(float *p, vf x) { _mm512_storeu_ps(p, x); }
LANES_INLINE vf vset1(float x) { return _mm512_set1_ps(x); }
LANES_INLINE vf vabs(vf x) { return _mm512_abs_ps(x); }
/* b if either is NaN. */
LANES_INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
LANES_INLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
/* The first n <= VL elements of x, then `fill`. */
LANES_INLINE vf vkeep(vf x, int64_t n, float fill) { return _mm512_mask_mov_ps(_mm512_set1_ps(fill), first_lanes(n), x); }
/* The first n <= VL elements at p, then zeros; reads no more. */
LANES_INLINE vf vload_first(const float *p, int64_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
LANES_INLINE void vstore_first(float *p, vf x, int64_t n) {
    if (n == VL) /* a masked store is slow on some processors */
        _mm512_storeu_ps(p, x);
    else
        _mm512_mask_storeu_ps(p, first_lanes(n), x);
}
LANES_INLINE float vreduce_max(vf x) { return _mm512_reduce_max_ps(x); }
/* t - floor(t), rounded to nearest, which vreduceps does not do. */
LANES_INLINE vf vfraction(vf t) { return _mm512_sub_ps(t, _mm512_roundscale_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)); }
/* x 2^floor(t), where neither overflows nor underflows. */
LANES_INLINE vf vscale2(vf x, vf t) { return _mm512_scalef_ps(x, t); }

/* Of 16 partial sums: i and i + 8, then i and i + 4, i + 2, i + 1. */
LANES_INLINE float vsum(const vf *x) {
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(*x), _mm512_extractf32x8_ps(*x, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* Transposes VL vectors of VL words. */
LANES_INLINE void vitranspose(vi x[VL]) { bb_transpose16(x); }

/* Stores the first n <= VL elements, rounded to bf16 half to even; NaN stays NaN. */
LANES_INLINE void vstore_bf16(bb_bf16 *y, vf x, int64_t n) {
    __m512i bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
    rounded = _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), bits, _mm512_set1_epi32(0x400000));
    __m256i half = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
    if (n == VL)
        _mm256_storeu_si256((__m256i_u *)y, half);
    else
        _mm256_mask_storeu_epi16(y, first_lanes(n), half);
}

/* The first n <= VL elements at p, then zeros. */
LANES_INLINE vf vload_bf16_first(const bb_bf16 *p, int64_t n) {
    __m256i half = n == VL ? _mm256_loadu_si256((const __m256i_u *)p) : _mm256_maskz_loadu_epi16(first_lanes(n), p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* -- integers ------------------------------------------------------------------------------------------------------------- */
LANES_INLINE vi viload(const void *p) { return _mm512_loadu_si512(p); }
LANES_INLINE void vistore(void *p, vi x) { _mm512_storeu_si512(p, x); }
LANES_INLINE vi vizero(void) { return _mm512_setzero_si512(); }
LANES_INLINE vi viset1(int32_t x) { return _mm512_set1_epi32(x); }
LANES_INLINE vi viadd(vi a, vi b) { return _mm512_add_epi32(a, b); }
LANES_INLINE vf vi_to_f32(vi x) { return _mm512_cvtepi32_ps(x); }
/* Rounded half to even; |x| < 2^22. */
LANES_INLINE vi vround(vf x) { return _mm512_cvtps_epi32(x); }
/* Words of the low halves of two. */
LANES_INLINE vi vipair(vi even, vi odd) { return _mm512_mask_mov_epi16(even, 0xaaaaaaaa, _mm512_slli_epi32(odd, 16)); }
/* The 8 bytes at p, again and again. */
LANES_INLINE vi viset_8_bytes(const void *p) {
    int64_t x;
    memcpy(&x, p, sizeof x);
    return _mm512_set1_epi64(x);
}
/* sum + the dot products of pairs of int16, lane by lane. */
LANES_INLINE vi vidot_pairs(vi sum, vi a, vi b) {
#if defined(__AVX512VNNI__)
    BB_DOT_PAIRS_512(sum, a, b);
    return sum;
#else
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#endif
}
/* 2 VL int8 as int16. */
LANES_INLINE vi viload_codes(const int8_t *p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i_u *)p)); }
/* VL int16 from VL numbers, rounded half to even. */
LANES_INLINE void vstore_i16(int16_t *p, vf x) {
    _mm256_storeu_si256((__m256i_u *)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x)));
}
/* The largest bits of numbers that are not negative, which compare like the numbers, NaN largest. */
LANES_INLINE vi vmax_bits(vi max, vf x) { return _mm512_max_epu32(max, _mm512_castps_si512(x)); }
LANES_INLINE float vreduce_bits(vi max) { return bb_f32_from_bits((uint32_t)_mm512_reduce_max_epu32(max)); }
/* Element i: the sum of the elements of x[i]. */
LANES_INLINE vi visum_each(vi x[VL]) {
    for (int i = 0; i < 8; i++)
        x[i] = viadd(_mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]), _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]));
    for (int i = 0; i < 4; i++)
        x[i] = viadd(_mm512_unpacklo_epi64(x[2 * i], x[2 * i + 1]), _mm512_unpackhi_epi64(x[2 * i], x[2 * i + 1]));
    for (int n = 2; n > 0; n--)
        for (int i = 0; i < n; i++)
            x[i] =
                viadd(_mm512_shuffle_i32x4(x[2 * i], x[2 * i + 1], 0x88), _mm512_shuffle_i32x4(x[2 * i], x[2 * i + 1], 0xdd));
    return x[0];
}
/* The even and the odd words of two vectors. */
LANES_INLINE void visplit_words(vi *even, vi *odd, vi low, vi high) {
    const __m512i order = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    *even = _mm512_permutex2var_epi32(low, order, high);
    *odd = _mm512_permutex2var_epi32(low, _mm512_add_epi32(order, _mm512_set1_epi32(1)), high);
}

#endif
