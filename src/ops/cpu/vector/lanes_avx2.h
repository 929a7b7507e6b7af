// SPDX-License-Identifier: MIT
/* lanes.h for AVX2 and FMA. */
#ifndef BB_OPS_CPU_LANES_AVX2_H
#define BB_OPS_CPU_LANES_AVX2_H

#include <immintrin.h>

#include "ops/cpu/vector/dot_words.h"

enum { VL = 8 };
typedef __m256 vf;
typedef __m256i vi;

LANES_INLINE __m256i first_lanes(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

LANES_INLINE vf vload(const float *p) { return _mm256_loadu_ps(p); }
LANES_INLINE void vstore(float *p, vf x) { _mm256_storeu_ps(p, x); }
LANES_INLINE vf vset1(float x) { return _mm256_set1_ps(x); }
LANES_INLINE vf vabs(vf x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
LANES_INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
LANES_INLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
LANES_INLINE vf vkeep(vf x, int64_t n, float fill) {
    return _mm256_blendv_ps(_mm256_set1_ps(fill), x, _mm256_castsi256_ps(first_lanes(n)));
}
LANES_INLINE vf vload_first(const float *p, int64_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
LANES_INLINE void vstore_first(float *p, vf x, int64_t n) {
    if (n == VL) /* a masked store is slow on some processors */
        _mm256_storeu_ps(p, x);
    else
        _mm256_maskstore_ps(p, first_lanes(n), x);
}
LANES_INLINE float vreduce_max(vf x) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
LANES_INLINE vf vfraction(vf t) { return _mm256_sub_ps(t, _mm256_floor_ps(t)); }
LANES_INLINE vf vscale2(vf x, vf t) {
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_floor_ps(t)), _mm256_set1_epi32(127));
    return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

LANES_INLINE float vsum(const vf *x) {
    __m256 eight = _mm256_add_ps(x[0], x[1]);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

LANES_INLINE void vitranspose(vi x[VL]) {
    vf t[VL], u[VL];
    for (int i = 0; i < VL; i += 2) {
        vf a = _mm256_castsi256_ps(x[i]), b = _mm256_castsi256_ps(x[i + 1]);
        t[i] = _mm256_unpacklo_ps(a, b);
        t[i + 1] = _mm256_unpackhi_ps(a, b);
    }
    for (int i = 0; i < VL; i += 4) {
        u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < VL / 2; i++) {
        x[i] = _mm256_castps_si256(_mm256_permute2f128_ps(u[i], u[i + 4], 0x20));
        x[i + 4] = _mm256_castps_si256(_mm256_permute2f128_ps(u[i], u[i + 4], 0x31));
    }
}

LANES_INLINE void vstore_bf16(bb_bf16 *y, vf x, int64_t n) {
    float t[VL];
    vstore(t, x);
    for (int64_t i = 0; i < n; i++) y[i] = bb_bf16_from_f32(t[i]);
}

LANES_INLINE vf vload_bf16_first(const bb_bf16 *p, int64_t n) {
    __m128i half = _mm_setzero_si128();
    if (n == VL)
        half = _mm_loadu_si128((const __m128i_u *)p);
    else
        memcpy(&half, p, (size_t)n * sizeof *p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* -- integers ------------------------------------------------------------------------------------------------------------- */
LANES_INLINE vi viload(const void *p) { return _mm256_loadu_si256(p); }
LANES_INLINE void vistore(void *p, vi x) { _mm256_storeu_si256(p, x); }
LANES_INLINE vi vizero(void) { return _mm256_setzero_si256(); }
LANES_INLINE vi viset1(int32_t x) { return _mm256_set1_epi32(x); }
LANES_INLINE vi viadd(vi a, vi b) { return _mm256_add_epi32(a, b); }
LANES_INLINE vf vi_to_f32(vi x) { return _mm256_cvtepi32_ps(x); }
LANES_INLINE vi vround(vf x) { return _mm256_cvtps_epi32(x); }
LANES_INLINE vi vipair(vi even, vi odd) { return _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa); }
LANES_INLINE vi viset_8_bytes(const void *p) {
    int64_t x;
    memcpy(&x, p, sizeof x);
    return _mm256_set1_epi64x(x);
}
LANES_INLINE vi vidot_pairs(vi sum, vi a, vi b) {
#if defined(__AVXVNNI__)
    BB_DOT_PAIRS_256(sum, a, b);
#else
    __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(_mm256_madd_epi16(a, b)));
#endif
    return sum;
}
LANES_INLINE vi viload_codes(const int8_t *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i_u *)p)); }
LANES_INLINE void vstore_i16(int16_t *p, vf x) {
    __m256i words = _mm256_cvtps_epi32(x);
    _mm_storeu_si128((__m128i_u *)p, _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
LANES_INLINE vi vmax_bits(vi max, vf x) { return _mm256_max_epu32(max, _mm256_castps_si256(x)); }
LANES_INLINE float vreduce_bits(vi max) {
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    __m128i two = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
    return bb_f32_from_bits((uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32(two, 0xb1))));
}
LANES_INLINE vi visum_each(vi x[VL]) {
    __m256i low = _mm256_hadd_epi32(_mm256_hadd_epi32(x[0], x[1]), _mm256_hadd_epi32(x[2], x[3]));
    __m256i high = _mm256_hadd_epi32(_mm256_hadd_epi32(x[4], x[5]), _mm256_hadd_epi32(x[6], x[7]));
    return viadd(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31));
}
LANES_INLINE void visplit_words(vi *even, vi *odd, vi low, vi high) {
    __m256 x = _mm256_castsi256_ps(low), y = _mm256_castsi256_ps(high);
    *even = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x88)), 0xd8);
    *odd = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xdd)), 0xd8);
}

#endif
