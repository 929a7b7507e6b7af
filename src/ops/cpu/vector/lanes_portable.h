// SPDX-License-Identifier: MIT
/* lanes.h for every processor: four elements, in vectors of GCC and clang. On x86-64 without FMA a fused multiply-add is made of
 * products and sums in double, about ten times as slow. */
#ifndef BB_OPS_CPU_LANES_PORTABLE_H
#define BB_OPS_CPU_LANES_PORTABLE_H

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

enum { VL = 4 };
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));

LANES_INLINE vf vload(const float *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}
LANES_INLINE void vstore(float *p, vf x) { memcpy(p, &x, sizeof x); }
LANES_INLINE vf vset1(float x) { return (vf){x, x, x, x}; }
LANES_INLINE vf vabs(vf x) { return (vf)((vi)x & 0x7fffffff); }
LANES_INLINE vf vselect(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
LANES_INLINE vf vmax(vf a, vf b) { return vselect(a > b, a, b); }

#ifndef BB_UNFUSED
LANES_INLINE vf vfma_each(vf a, vf b, vf c) {
    return (vf){fmaf(a[0], b[0], c[0]), fmaf(a[1], b[1], c[1]), fmaf(a[2], b[2], c[2]), fmaf(a[3], b[3], c[3])};
}
#endif

#if defined(BB_UNFUSED) /* the set generic_training, whose results may depend on the processor */
LANES_INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }
#elif defined(__SSE2__) && !defined(__FMA__)
/* In double the product is exact, and the sum rounded to 53 bits. Rounding that once more, to 24, is right unless it lies exactly
 * between two floats, or the float is subnormal. */
LANES_INLINE vf vfma(vf a, vf b, vf c) {
    __m128 x = (__m128)a, y = (__m128)b, z = (__m128)c;
    __m128d low = _mm_add_pd(_mm_mul_pd(_mm_cvtps_pd(x), _mm_cvtps_pd(y)), _mm_cvtps_pd(z));
    x = _mm_movehl_ps(x, x);
    y = _mm_movehl_ps(y, y);
    z = _mm_movehl_ps(z, z);
    __m128d high = _mm_add_pd(_mm_mul_pd(_mm_cvtps_pd(x), _mm_cvtps_pd(y)), _mm_cvtps_pd(z));
    __m128 low_words = _mm_shuffle_ps(_mm_castpd_ps(low), _mm_castpd_ps(high), 0x88);
    __m128 high_words = _mm_shuffle_ps(_mm_castpd_ps(low), _mm_castpd_ps(high), 0xdd);
    vi tail = (vi)low_words & 0x1fffffff, exponent = (vi)high_words & 0x7fffffff;
    vi hazard = (tail == 0x10000000) | ((exponent < 0x38100000) & (exponent > 0)); /* below 2^-126, but not 0 */
    if (__builtin_expect(_mm_movemask_epi8((__m128i)hazard), 0)) return vfma_each(a, b, c);
    return (vf)_mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high));
}
#elif defined(__ARM_NEON) && defined(__aarch64__)
LANES_INLINE vf vfma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
LANES_INLINE vf vfma(vf a, vf b, vf c) { return vfma_each(a, b, c); }
#endif

LANES_INLINE vf vkeep(vf x, int64_t n, float fill) {
    int32_t k = (int32_t)n;
    return vselect((vi){0, 1, 2, 3} < (vi){k, k, k, k}, x, vset1(fill));
}
LANES_INLINE vf vload_first(const float *p, int64_t n) {
    float t[VL] = {0};
    memcpy(t, p, (size_t)n * sizeof *p);
    return vload(t);
}
LANES_INLINE void vstore_first(float *p, vf x, int64_t n) { memcpy(p, &x, (size_t)n * sizeof *p); }
LANES_INLINE float vreduce_max(vf x) {
    float m = x[0];
    for (int i = 1; i < VL; i++) m = x[i] > m ? x[i] : m;
    return m;
}
/* Rounds down; |t| < 2^22. */
LANES_INLINE vf vfloor(vf t) {
    const vf to_units = vset1(0x1.8p23f);
    vf nearest = (t + to_units) - to_units;
    return nearest - (vf)((vi)vset1(1.0f) & (nearest > t));
}
LANES_INLINE vf vfraction(vf t) { return t - vfloor(t); }
LANES_INLINE vf vscale2(vf x, vf t) {
    vi exponent = (vi)(vfloor(t) + vset1(0x1.8p23f)) + 127; /* in the low bits */
    return x * (vf)(exponent << 23);
}

LANES_INLINE float vsum(const vf *x) {
    vf four = (x[0] + x[2]) + (x[1] + x[3]);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

LANES_INLINE void vitranspose(vi x[VL]) {
    vi t[VL];
    for (int i = 0; i < VL; i++) t[i] = (vi){x[0][i], x[1][i], x[2][i], x[3][i]};
    for (int i = 0; i < VL; i++) x[i] = t[i];
}

LANES_INLINE void vstore_bf16(bb_bf16 *y, vf x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = bb_bf16_from_f32(x[i]);
}

LANES_INLINE vf vload_bf16_first(const bb_bf16 *p, int64_t n) {
    vf x = vset1(0.0f);
    for (int64_t i = 0; i < n; i++) x[i] = bb_f32_from_bf16(p[i]);
    return x;
}

/* -- integers ------------------------------------------------------------------------------------------------------------- */
LANES_INLINE vi viload(const void *p) {
    vi x;
    memcpy(&x, p, sizeof x);
    return x;
}
LANES_INLINE void vistore(void *p, vi x) { memcpy(p, &x, sizeof x); }
LANES_INLINE vi vizero(void) { return (vi){0, 0, 0, 0}; }
LANES_INLINE vi viset1(int32_t x) { return (vi){x, x, x, x}; }
LANES_INLINE vi viadd(vi a, vi b) { return a + b; }
LANES_INLINE vf vi_to_f32(vi x) { return __builtin_convertvector(x, vf); }
LANES_INLINE vi vround(vf x) { return (vi)(x + vset1(0x1.8p23f)) - (vi)vset1(0x1.8p23f); }
LANES_INLINE vi vipair(vi even, vi odd) { return (even & 0xffff) | (odd << 16); }
LANES_INLINE vi viset_8_bytes(const void *p) {
    int32_t x[2];
    memcpy(x, p, sizeof x);
    return (vi){x[0], x[1], x[0], x[1]};
}
LANES_INLINE vi vidot_pairs(vi sum, vi a, vi b) {
#if defined(__SSE2__)
    return sum + (vi)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;
    return sum + (vi)vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
#else
    int16_t x[2 * VL], y[2 * VL];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    for (int i = 0; i < VL; i++) sum[i] += x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1];
    return sum;
#endif
}
LANES_INLINE vi viload_codes(const int8_t *p) {
#if defined(__SSE2__)
    __m128i bytes = _mm_loadl_epi64((const __m128i_u *)p);
    return (vi)_mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8);
#else
    int16_t x[2 * VL];
    for (int i = 0; i < 2 * VL; i++) x[i] = p[i];
    return viload(x);
#endif
}
/* |x| < 2^15 */
LANES_INLINE void vstore_i16(int16_t *p, vf x) {
    vi words = (vi)(x + vset1(0x1.8p23f));
    for (int i = 0; i < VL; i++) p[i] = (int16_t)words[i];
}
LANES_INLINE vi vmax_bits(vi max, vf x) {
    typedef uint32_t vu __attribute__((vector_size(16)));
    vi larger = (vu)x > (vu)max;
    return (larger & (vi)x) | (~larger & max);
}
LANES_INLINE float vreduce_bits(vi max) {
    uint32_t m = 0;
    for (int i = 0; i < VL; i++) m = (uint32_t)max[i] > m ? (uint32_t)max[i] : m;
    return bb_f32_from_bits(m);
}
LANES_INLINE vi visum_each(vi x[VL]) {
    vitranspose(x);
    return (x[0] + x[1]) + (x[2] + x[3]);
}
LANES_INLINE void visplit_words(vi *even, vi *odd, vi low, vi high) {
    *even = (vi){low[0], low[2], high[0], high[2]};
    *odd = (vi){low[1], low[3], high[1], high[3]};
}

#endif
