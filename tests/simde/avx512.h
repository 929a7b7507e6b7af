// SPDX-License-Identifier: MIT
/* Included before everything else in units for AVX-512 that are compiled for AVX2: their intrinsics are SIMDe's, or those below,
 * which SIMDe 0.7.4 lacks or has wrong. The units do not know: they see the compiler's macros for the instruction sets that the
 * build names by BB_SIMDE_FLAG, e.g. BB_SIMDE_avx512f for -mavx512f. */
#ifndef BB_TESTS_SIMDE_AVX512_H
#define BB_TESTS_SIMDE_AVX512_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVXVNNI__) || !defined(__AVX2__) || !defined(__FMA__)
#error "these units are compiled for AVX2 and FMA, and no more"
#endif

#define SIMDE_ENABLE_NATIVE_ALIASES

/* Inlined, as SIMDe's functions are by default, they would take minutes to compile. */
#include <simde/simde-common.h>
#undef SIMDE_FUNCTION_ATTRIBUTES
#undef SIMDE_HUGE_FUNCTION_ATTRIBUTES
#define SIMDE_FUNCTION_ATTRIBUTES static
#define SIMDE_HUGE_FUNCTION_ATTRIBUTES static
#include <simde/x86/avx512.h>

#define EMULATED static __attribute__((noinline, unused))

/* A vector's parts. */
typedef union parts_of {
    __m512 f;
    __m512i i;
    __m256 f_half[2];
    __m256i half[2];
    uint32_t u32[16];
    int32_t i32[16];
    float f32[16];
    uint8_t u8[64];
} parts_of;

EMULATED __m512 fill_join_f(__m256 low, __m256 high) { return ((parts_of){.f_half = {low, high}}).f; }
EMULATED __m512i fill_join(__m256i low, __m256i high) { return ((parts_of){.half = {low, high}}).i; }

/* ---- masked loads and stores: the other elements are neither read nor written -------------------------------------------- */

EMULATED void fill_copy_lanes(void *to, const void *from, uint64_t mask, int lanes, size_t bytes) {
    for (int i = 0; i < lanes; i++)
        if (mask >> i & 1) memcpy((char *)to + (size_t)i * bytes, (const char *)from + (size_t)i * bytes, bytes);
}

#define MASKZ_LOAD(name, vector, lanes, bytes)                                                                                 \
    EMULATED vector fill##name(uint64_t mask, const void *from) {                                                              \
        vector x;                                                                                                              \
        memset(&x, 0, sizeof x);                                                                                               \
        fill_copy_lanes(&x, from, mask, lanes, bytes);                                                                         \
        return x;                                                                                                              \
    }
#define MASK_STORE(name, vector, lanes, bytes)                                                                                 \
    EMULATED void fill##name(void *to, uint64_t mask, vector x) { fill_copy_lanes(to, &x, mask, lanes, bytes); }

MASKZ_LOAD(_mm_maskz_loadu_epi8, __m128i, 16, 1)
MASKZ_LOAD(_mm256_maskz_loadu_epi16, __m256i, 16, 2)
MASKZ_LOAD(_mm512_maskz_loadu_epi8, __m512i, 64, 1)
MASKZ_LOAD(_mm512_maskz_loadu_epi16, __m512i, 32, 2)
MASKZ_LOAD(_mm512_maskz_loadu_ps, __m512, 16, 4)
MASK_STORE(_mm_mask_storeu_epi8, __m128i, 16, 1)
MASK_STORE(_mm256_mask_storeu_epi16, __m256i, 16, 2)
MASK_STORE(_mm512_mask_storeu_epi16, __m512i, 32, 2)
MASK_STORE(_mm512_mask_storeu_ps, __m512, 16, 4)

#define _mm_maskz_loadu_epi8 fill_mm_maskz_loadu_epi8
#define _mm256_maskz_loadu_epi16 fill_mm256_maskz_loadu_epi16
#define _mm512_maskz_loadu_epi8 fill_mm512_maskz_loadu_epi8
#define _mm512_maskz_loadu_epi16 fill_mm512_maskz_loadu_epi16
#define _mm512_maskz_loadu_ps fill_mm512_maskz_loadu_ps
#define _mm_mask_storeu_epi8 fill_mm_mask_storeu_epi8
#define _mm256_mask_storeu_epi16 fill_mm256_mask_storeu_epi16
#define _mm512_mask_storeu_epi16 fill_mm512_mask_storeu_epi16
#define _mm512_mask_storeu_ps fill_mm512_mask_storeu_ps
#define _mm512_stream_ps(to, x) _mm512_store_ps(to, x)

/* ---- conversions ----------------------------------------------------------------------------------------------------------- */

EMULATED __m512 fill_to_f32(__m512i x) {
    parts_of p = {.i = x};
    return fill_join_f(_mm256_cvtepi32_ps(p.half[0]), _mm256_cvtepi32_ps(p.half[1]));
}
EMULATED __m512i fill_round_to_i32(__m512 x) {
    parts_of p = {.f = x};
    return fill_join(_mm256_cvtps_epi32(p.f_half[0]), _mm256_cvtps_epi32(p.f_half[1]));
}
EMULATED __m512i fill_truncate_to_i32(__m512 x) {
    parts_of p = {.f = x};
    return fill_join(_mm256_cvttps_epi32(p.f_half[0]), _mm256_cvttps_epi32(p.f_half[1]));
}
/* The low halves of words, and their low bytes. */
EMULATED __m256i fill_low_halves(__m512i x) {
    parts_of p = {.i = x};
    int16_t y[16];
    for (int i = 0; i < 16; i++) y[i] = (int16_t)(uint16_t)p.u32[i];
    return _mm256_loadu_si256((const __m256i *)(const void *)y);
}
EMULATED __m128i fill_low_bytes(__m512i x) {
    parts_of p = {.i = x};
    uint8_t y[16];
    for (int i = 0; i < 16; i++) y[i] = (uint8_t)p.u32[i];
    return _mm_loadu_si128((const __m128i *)(const void *)y);
}

/* Rounded to bf16, half to even; subnormal numbers become 0, NaN stays NaN. */
EMULATED uint16_t fill_bf16(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    if ((u & 0x7f800000) == 0) return (uint16_t)(u >> 16 & 0x8000);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
EMULATED __m256i fill_to_bf16(__m512 x) {
    parts_of p = {.f = x};
    uint16_t y[16];
    for (int i = 0; i < 16; i++) y[i] = fill_bf16(p.f32[i]);
    return _mm256_loadu_si256((const __m256i *)(const void *)y);
}

#undef _mm512_extractf32x8_ps
#define _mm512_cvtepi32_ps fill_to_f32
#define _mm512_cvtps_epi32 fill_round_to_i32
#define _mm512_cvttps_epi32 fill_truncate_to_i32
#define _mm512_cvtepi32_epi16 fill_low_halves
#define _mm512_cvtepi32_epi8 fill_low_bytes
#define _mm512_cvtneps_pbh fill_to_bf16
#define _mm512_cvtne2ps_pbh(high, low) fill_join(fill_to_bf16(low), fill_to_bf16(high))
#define _mm512_extractf32x8_ps(x, i) (((parts_of){.f = (x)}).f_half[i])
#define _mm512_mask_cvtsepi32_storeu_epi8(to, mask, x) _mm_mask_storeu_epi8(to, mask, _mm512_cvtsepi32_epi8(x))

EMULATED __m512i fill_i8_to_i32(__m128i x) {
    return fill_join(_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128(x, 8)));
}
EMULATED __m512i fill_u8_to_i32(__m128i x) {
    return fill_join(_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128(x, 8)));
}
EMULATED __m512i fill_u16_to_i32(__m256i x) {
    return fill_join(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(x)), _mm256_cvtepu16_epi32(_mm256_extracti128_si256(x, 1)));
}
EMULATED __m512i fill_u8_to_i16(__m256i x) {
    return fill_join(_mm256_cvtepu8_epi16(_mm256_castsi256_si128(x)), _mm256_cvtepu8_epi16(_mm256_extracti128_si256(x, 1)));
}
#define _mm512_cvtepi8_epi32 fill_i8_to_i32
#define _mm512_cvtepu8_epi32 fill_u8_to_i32
#define _mm512_cvtepu16_epi32 fill_u16_to_i32
#define _mm512_cvtepu8_epi16 fill_u8_to_i16

/* ---- arithmetic ------------------------------------------------------------------------------------------------------------ */

#define BY_HALVES(name, ...)                                                                                                   \
    EMULATED __m512i name(__m512i a, __m512i b) {                                                                              \
        parts_of x = {.i = a}, y = {.i = b};                                                                                   \
        for (int i = 0; i < 2; i++) x.half[i] = __VA_ARGS__(x.half[i], y.half[i]);                                             \
        return x.i;                                                                                                            \
    }
BY_HALVES(fill_madd_i16, _mm256_madd_epi16)
BY_HALVES(fill_mulhi_u16, _mm256_mulhi_epu16)

/* Sums of products of the even and of the odd bytes. */
static inline __m256i fill_dot_bytes_256(__m256i sum, __m256i u, __m256i s) {
    __m256i even =
        _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(255)), _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
EMULATED __m512i fill_dot_bytes(__m512i sum, __m512i u, __m512i s) {
    parts_of x = {.i = sum}, y = {.i = u}, z = {.i = s};
    for (int i = 0; i < 2; i++) x.half[i] = fill_dot_bytes_256(x.half[i], y.half[i], z.half[i]);
    return x.i;
}
EMULATED __m512i fill_dot_pairs(__m512i sum, __m512i a, __m512i b) {
    parts_of x = {.i = sum}, y = {.i = a}, z = {.i = b};
    for (int i = 0; i < 2; i++) x.half[i] = _mm256_add_epi32(x.half[i], _mm256_madd_epi16(y.half[i], z.half[i]));
    return x.i;
}

EMULATED __m512i fill_shift_right_i32(__m512i x, unsigned n) {
    parts_of p = {.i = x};
    return fill_join(_mm256_srai_epi32(p.half[0], (int)n), _mm256_srai_epi32(p.half[1], (int)n));
}

EMULATED int32_t fill_add_all(__m512i x) {
    parts_of p = {.i = x};
    uint32_t sum = 0;
    for (int i = 0; i < 16; i++) sum += p.u32[i];
    return (int32_t)sum;
}
EMULATED uint32_t fill_max_all_u32(__m512i x) {
    parts_of p = {.i = x};
    uint32_t max = 0;
    for (int i = 0; i < 16; i++) max = p.u32[i] > max ? p.u32[i] : max;
    return max;
}
/* In the order in which compilers reduce: halves, quarters and so on; if either is NaN, the second. */
EMULATED float fill_max_all(__m512 x) {
    parts_of p = {.f = x};
    for (int n = 8; n > 0; n /= 2)
        for (int i = 0; i < n; i++) p.f32[i] = p.f32[i] > p.f32[i + n] ? p.f32[i] : p.f32[i + n];
    return p.f32[0];
}

/* x 2^floor(t). SIMDe's goes through exp2, and is not exact. */
EMULATED __m512 fill_scale(__m512 x, __m512 t) {
    parts_of p = {.f = x}, q = {.f = t};
    for (int i = 0; i < 16; i++) {
        float n = floorf(q.f32[i]);
        parts_of power = {.u32[0] = (uint32_t)((int)n + 127) << 23};
        if (n > -126 && n < 128)
            p.f32[i] *= power.f32[0];
        else
            p.f32[i] = isnan(n) ? n : ldexpf(p.f32[i], n > 300 ? 300 : n < -300 ? -300 : (int)n);
    }
    return p.f;
}

#undef _mm512_madd_epi16 /* SIMDe's has four arguments */
/* SIMDe's are right, and slow. */
EMULATED __m512 fill_fma(__m512 a, __m512 b, __m512 c) {
    parts_of x = {.f = a}, y = {.f = b}, z = {.f = c};
    for (int i = 0; i < 2; i++) z.f_half[i] = _mm256_fmadd_ps(x.f_half[i], y.f_half[i], z.f_half[i]);
    return z.f;
}
#undef _mm512_fmadd_ps
#define _mm512_fmadd_ps fill_fma
#undef _mm256_dpbusd_epi32
#undef _mm256_dpwssd_epi32
#undef _mm512_dpbusd_epi32
#undef _mm512_dpwssd_epi32
#define _mm256_dpbusd_epi32 fill_dot_bytes_256
#define _mm256_dpwssd_epi32(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
#define _mm512_dpbusd_epi32 fill_dot_bytes
#define _mm512_dpwssd_epi32 fill_dot_pairs

#undef _mm512_roundscale_ps /* SIMDe's macro lacks parentheses */
#undef _mm512_scalef_ps
#define _mm512_madd_epi16 fill_madd_i16
#define _mm512_mulhi_epu16 fill_mulhi_u16
#define _mm512_srai_epi32 fill_shift_right_i32
#define _mm512_reduce_add_epi32 fill_add_all
#define _mm512_reduce_max_epu32 fill_max_all_u32
#define _mm512_reduce_max_ps fill_max_all
#define _mm512_roundscale_ps(x, how) simde_mm512_roundscale_ps(x, (how))
#define _mm512_scalef_ps fill_scale

/* ---- what the units see ---------------------------------------------------------------------------------------------------- */

#define BB_SIMDE

#ifdef BB_SIMDE_avx512f
#define __AVX512F__ 1
#endif
#ifdef BB_SIMDE_avx512vnni
#define __AVX512VNNI__ 1
#endif
#ifdef BB_SIMDE_avx512vbmi
#define __AVX512VBMI__ 1
#endif
#ifdef BB_SIMDE_avx512bf16
#define __AVX512BF16__ 1
#endif
#ifdef BB_SIMDE_avxvnni
#define __AVXVNNI__ 1
#endif

/* Functions that are compiled for AVX-512 by an attribute. */
#define target(...) unused

/* Not "intel": the way of other processors, which Intel's do not test. */
#define __builtin_cpu_is(vendor) 0

#endif
