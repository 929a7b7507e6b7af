// SPDX-License-Identifier: MIT
/* The vocabulary in which the attention tiles are written, for the instruction set ATTENTION_SET. It is included once for each
 * set, followed by the code that uses it, so it has no guard; the names below stand for those of the set being compiled. */
#ifndef ATTENTION_GENERIC
#define ATTENTION_GENERIC 0
#define ATTENTION_AVX2 1
#define ATTENTION_AVX512 2
#define ATTENTION_VNNI 3

#include <math.h>

#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/device/cpu.h"
#include "ops/cpu/vector/transpose.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define ATTENTION_JOIN_(a, b) a##_##b
#define ATTENTION_JOIN(a, b) ATTENTION_JOIN_(a, b)
#define ATTENTION_NAME(x) ATTENTION_JOIN(x, ATTENTION_SUFFIX)

/* A function of this set; INLINE functions are inlined into their callers, so that constant arguments reach their loops. */
#define KERNEL ATTENTION_TARGET static
#define INLINE ATTENTION_TARGET static inline __attribute__((always_inline))

#define vf ATTENTION_NAME(vf) /* f32 (VL) */
#define vload ATTENTION_NAME(vload)
#define vstore ATTENTION_NAME(vstore)
#define vset1 ATTENTION_NAME(vset1)
#define vmax ATTENTION_NAME(vmax)
#define vfma ATTENTION_NAME(vfma)
#define vkeep ATTENTION_NAME(vkeep)
#define vexp2 ATTENTION_NAME(vexp2)
#define exp2_fraction ATTENTION_NAME(exp2_fraction)
#define vreduce_max ATTENTION_NAME(vreduce_max)
#define vreduce_add ATTENTION_NAME(vreduce_add)
#define vload_first ATTENTION_NAME(vload_first)
#define vstore_first ATTENTION_NAME(vstore_first)
#define vload_bf16 ATTENTION_NAME(vload_bf16)
#define vload_bf16_first ATTENTION_NAME(vload_bf16_first)
#define round_to_bf16 ATTENTION_NAME(round_to_bf16)
#define store_bf16 ATTENTION_NAME(store_bf16)
#define dot_pairs ATTENTION_NAME(dot_pairs)
#define four_bytes ATTENTION_NAME(four_bytes)
#endif

#undef ATTENTION_SUFFIX
#undef ATTENTION_TARGET
#undef VL
#undef NR

/* -- f32 vectors ---------------------------------------------------------------------------------------------------------- */
#if ATTENTION_SET >= ATTENTION_AVX512
#define VL 16
#define NR 4
#if ATTENTION_SET == ATTENTION_VNNI
#define ATTENTION_SUFFIX avx512vnni
#define ATTENTION_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#else
#define ATTENTION_SUFFIX avx512
#define ATTENTION_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#endif
typedef __m512 vf;

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

#elif ATTENTION_SET == ATTENTION_AVX2
#define VL 8
#define NR 2
#define ATTENTION_SUFFIX avx2
#define ATTENTION_TARGET __attribute__((target("avx2,fma")))
typedef __m256 vf;

INLINE vf vload(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vstore(float *p, vf x) { _mm256_storeu_ps(p, x); }
INLINE vf vset1(float x) { return _mm256_set1_ps(x); }
INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf vkeep(vf x, int64_t n, float fill) {
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i kept = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane);
    return _mm256_blendv_ps(_mm256_set1_ps(fill), x, _mm256_castsi256_ps(kept));
}
INLINE vf vload_bf16(const bb_bf16 *p) {
    __m128i half = _mm_loadu_si128((const __m128i_u *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

#else
#define VL 4
#define NR 2
#define ATTENTION_SUFFIX generic
#define ATTENTION_TARGET
typedef float vf __attribute__((vector_size(16)));
typedef int32_t ATTENTION_NAME(vi) __attribute__((vector_size(16)));
#define vi ATTENTION_NAME(vi)
#define vselect ATTENTION_NAME(vselect)

INLINE vf vload(const float *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}
INLINE void vstore(float *p, vf x) { memcpy(p, &x, sizeof x); }
INLINE vf vset1(float x) { return (vf){x, x, x, x}; }
INLINE vf vselect(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
INLINE vf vmax(vf a, vf b) { return vselect(a > b, a, b); }
INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }
INLINE vf vkeep(vf x, int64_t n, float fill) {
    int32_t k = (int32_t)n;
    return vselect((vi){0, 1, 2, 3} < (vi){k, k, k, k}, x, vset1(fill));
}
INLINE vf vload_bf16(const bb_bf16 *p) {
    return (vf){bb_f32_from_bf16(p[0]), bb_f32_from_bf16(p[1]), bb_f32_from_bf16(p[2]), bb_f32_from_bf16(p[3])};
}
#endif

#if ATTENTION_SET < ATTENTION_AVX512
INLINE float vreduce_max(vf x) {
    float t[VL], m;
    vstore(t, x);
    m = t[0];
    for (int i = 1; i < VL; i++) m = t[i] > m ? t[i] : m;
    return m;
}
INLINE float vreduce_add(vf x) {
    float t[VL], sum;
    vstore(t, x);
    sum = t[0];
    for (int i = 1; i < VL; i++) sum += t[i];
    return sum;
}
INLINE vf vload_first(const float *p, int64_t n) {
    float t[VL] = {0};
    memcpy(t, p, (size_t)n * sizeof *p);
    return vload(t);
}
INLINE void vstore_first(float *p, vf x, int64_t n) {
    float t[VL];
    vstore(t, x);
    memcpy(p, t, (size_t)n * sizeof *p);
}
INLINE vf vload_bf16_first(const bb_bf16 *p, int64_t n) {
    float t[VL] = {0};
    for (int64_t i = 0; i < n; i++) t[i] = bb_f32_from_bf16(p[i]);
    return vload(t);
}
INLINE void store_bf16(bb_bf16 *y, vf x, int64_t n) {
    float t[VL];
    vstore(t, x);
    for (int64_t i = 0; i < n; i++) y[i] = bb_bf16_from_f32(t[i]);
}
#endif

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
#if ATTENTION_SET >= ATTENTION_AVX512
    return _mm512_scalef_ps(exp2_fraction(_mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)), t);
#elif ATTENTION_SET == ATTENTION_AVX2
    /* max and min return their second operand if one is NaN */
    t = _mm256_min_ps(vset1(127.0f), _mm256_max_ps(vset1(-126.0f), t));
    vf floor = _mm256_floor_ps(t);
    __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(floor), _mm256_set1_epi32(127)), 23);
    return exp2_fraction(t - floor) * _mm256_castsi256_ps(power);
#else
    t = vselect(t < vset1(-126.0f), vset1(-126.0f), vselect(t > vset1(127.0f), vset1(127.0f), t));
    float parts[VL], powers[VL];
    vstore(parts, t);
    for (int i = 0; i < VL; i++) {
        int32_t floor = parts[i] == parts[i] ? (int32_t)(parts[i] + 126.0f) - 126 : 0;
        uint32_t bits = (uint32_t)(floor + 127) << 23;
        memcpy(&powers[i], &bits, sizeof bits);
        parts[i] -= (float)floor;
    }
    return exp2_fraction(vload(parts)) * vload(powers);
#endif
}

/* -- integers ------------------------------------------------------------------------------------------------------------- */
#if ATTENTION_SET == ATTENTION_VNNI
/* sum + the dot products of pairs of int16, lane by lane. (In assembler: GCC 12 copies the sums around the intrinsics.) */
INLINE __m512i dot_pairs(__m512i sum, __m512i a, __m512i b) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}
/* Broadcasts the 4 bytes at p. */
INLINE __m512i four_bytes(const void *p) {
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}
#endif
