// SPDX-License-Identifier: MIT
/* Plain loops, which the compiler vectorizes for each instruction set; for AVX-512 the codes of moments in 8 bits by hand. */
#include "ops/cpu/optimizer/optimizer_set.h"

#include "core/adam8_map.h"
#include "ops/cpu/vector/lanes.h"
#include "ops/cpu/vector/simd.h"

static double sum_squares(const float *x, int64_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sum;
}

/* ---- AdamW (arXiv:1711.05101), however the moments are stored --------------------------------------------------------- */

BB_SIMD_INLINE void adamw_moments(float g, float *m, float *v, const adamw_constants *k) {
    g *= k->grad_scale;
    *m = k->beta1 * *m + k->one_minus_beta1 * g;
    *v = k->beta2 * *v + k->one_minus_beta2 * (g * g);
}

/* Returns the new p. The decay is subtracted as a separate product: 1 - lr*wd would round it to three digits. */
BB_SIMD_INLINE float adamw_apply(float p, float m, float v, const adamw_constants *k) {
    return p - (k->decay * p + k->step_size * m / (sqrtf(v) * k->inv_sqrt2 + k->eps));
}

static void adamw(float *p, const float *g, float *m, float *v, int64_t n, const adamw_constants *k) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float m1 = m[i], v1 = v[i];
        adamw_moments(g[i], &m1, &v1, k);
        p[i] = adamw_apply(p[i], m1, v1, k);
        m[i] = m1;
        v[i] = v1;
    }
}

/* ---- moments in 8 bits: codes to values, and back --------------------------------------------------------------------- */

/* decode: x[i] = the value of codes[i]; encode: codes[i] = the code of scale * x[i]. n <= BB_ADAM8_BLOCK; x holds
 * BB_ADAM8_BLOCK elements, all of which may be written. is_signed is a constant. */
#if defined(__AVX512F__)
/* The same arithmetic in vectors of 16. AVX-512 looks up a decade's constants in a register, where the loops select among them
 * in eight steps; indices wrap modulo 16. */
/* a | (b & sign) */
BB_SIMD_INLINE __m512 with_sign_of(__m512 a, __m512 b) {
    const __m512i sign = _mm512_set1_epi32(INT32_MIN);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b), sign, 0xf8));
}

BB_SIMD_INLINE __m512 values(__m128i codes, bool is_signed) {
    const __m512 ends = _mm512_maskz_loadu_ps(0xff, bb_adam8_ends); /* at 127 + k, and 0 for k = 0 */
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512i mantissa = _mm512_set1_epi32(0x7fffff);
    __m512 code = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes));
    __m512 twice = _mm512_sub_ps(_mm512_add_ps(code, code), _mm512_set1_ps(254.0f));
    __m512 t = is_signed ? _mm512_add_ps(_mm512_abs_ps(twice), one) : _mm512_add_ps(code, _mm512_set1_ps(1.5f));
    __m512i bits = _mm512_castps_si512(t);
    __m512 end = _mm512_permutexvar_ps(_mm512_srli_epi32(bits, 23), ends);
    __m512i f1 = _mm512_ternarylogic_epi32(bits, mantissa, _mm512_castps_si512(one), 0xea); /* (bits & mantissa) | one */
    __m512 f = _mm512_sub_ps(_mm512_castsi512_ps(f1), one);
    __m512 value = _mm512_mul_ps(end, _mm512_add_ps(_mm512_set1_ps(0.1f), _mm512_mul_ps(_mm512_set1_ps(0.9f), f)));
    value = _mm512_min_ps(value, one);
    return is_signed ? with_sign_of(value, twice) : value;
}

/* The codes in 32 bits, before saturation to 0..255. */
BB_SIMD_INLINE __m512i codes_of(__m512 x, bool is_signed) {
    const __m512 edges = _mm512_maskz_loadu_ps(0xff, bb_adam8_edges[is_signed]);
    const __m512 factors = _mm512_maskz_loadu_ps(0x1ff, bb_adam8_factors);
    const __m512i counting = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i exponents = _mm512_slli_epi32(_mm512_sub_epi32(counting, _mm512_set1_epi32(is_signed)), 23);
    __m512 a = _mm512_max_ps(is_signed ? _mm512_abs_ps(x) : x, _mm512_set1_ps(BB_ADAM8_MIN)); /* NaN becomes this */
    /* From the exponent and the first bits of the mantissa: 32 + k, or one less, for all magnitudes from BB_ADAM8_MIN to
     * 1 and beyond. */
    __m512i k = _mm512_srli_epi32(_mm512_mulhi_epu16(_mm512_castps_si512(a), _mm512_set1_epi32(159 << 16)), 16);
    k = _mm512_mask_add_epi32(k, _mm512_cmp_ps_mask(a, _mm512_permutexvar_ps(k, edges), _CMP_GT_OQ), k, _mm512_set1_epi32(1));
    __m512 t = _mm512_add_ps(_mm512_mul_ps(a, _mm512_permutexvar_ps(k, factors)), _mm512_set1_ps(BB_ADAM8_OFFSET));
    t = _mm512_min_ps(t, _mm512_set1_ps(BB_ADAM8_MAX));
    t = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(t), _mm512_permutexvar_epi32(k, exponents)));
    if (!is_signed) return _mm512_sub_epi32(_mm512_cvttps_epi32(t), _mm512_set1_epi32(1));
    /* half the position, with x's sign, is as far from 0 as the code is from 127 */
    return _mm512_add_epi32(_mm512_cvttps_epi32(with_sign_of(t, x)), _mm512_set1_epi32(127));
}

enum { GROUP = 64 }; /* codes per register; BB_ADAM8_BLOCK is a multiple */

BB_SIMD_INLINE void decode(float *x, const uint8_t *codes, int64_t n, bool is_signed) {
    uint8_t last[GROUP] = {0};
    for (int64_t i = 0; i < n; i += GROUP) {
        const uint8_t *group = codes + i;
        if (n - i < GROUP) group = memcpy(last, group, (size_t)(n - i));
        for (int j = 0; j < GROUP; j += 16)
            _mm512_storeu_ps(x + i + j, values(_mm_loadu_si128((const void *)(group + j)), is_signed));
    }
}

BB_SIMD_INLINE void encode(uint8_t *codes, const float *x, float scale, int64_t n, bool is_signed) {
    /* saturating packs work within 128 bits: the result holds the first four bytes of each vector, the next four of each,
     * ... */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (int64_t i = 0; i < n; i += GROUP) {
        __m512i c[GROUP / 16];
        for (int j = 0; j < GROUP / 16; j++)
            c[j] = codes_of(_mm512_mul_ps(_mm512_set1_ps(scale), _mm512_loadu_ps(x + i + 16 * j)), is_signed);
        __m512i packed = _mm512_packus_epi16(_mm512_packs_epi32(c[0], c[1]), _mm512_packs_epi32(c[2], c[3]));
        packed = _mm512_permutexvar_epi32(order, packed);
        if (n - i < GROUP)
            memcpy(codes + i, &packed, (size_t)(n - i));
        else
            _mm512_storeu_si512(codes + i, packed);
    }
}
#else
BB_SIMD_INLINE void decode(float *x, const uint8_t *codes, int64_t n, bool is_signed) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) x[i] = bb_adam8_value(codes[i], is_signed);
}

BB_SIMD_INLINE void encode(uint8_t *codes, const float *x, float scale, int64_t n, bool is_signed) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) codes[i] = bb_adam8_code(scale * x[i], is_signed);
}
#endif

/* m, v: decoded and divided by their absmax on entry; in plain units on return. */
static void step(const adam8_block *b, float *m, float *v, const adamw_constants *k) {
    float *p = b->p;
    const float *g = b->g;
    adamw_constants scaled = *k;
    scaled.beta1 *= *b->m_absmax;
    scaled.beta2 *= *b->v_absmax;
    uint32_t m_max = 0, v_max = 0; /* bit patterns, as in bb_simd_absmax */
#pragma omp simd reduction(max : m_max, v_max)
    for (int64_t i = 0; i < b->n; i++) {
        float m1 = m[i], v1 = v[i];
        adamw_moments(g[i], &m1, &v1, &scaled);
        float root_v = k->min_root_v * m1;
        v1 = root_v * root_v > v1 ? root_v * root_v : v1;
        p[i] = adamw_apply(p[i], m1, v1, k);
        m[i] = m1;
        v[i] = v1;
        uint32_t mu = bb_bits_of_f32(m1) & 0x7fffffffu, vu = bb_bits_of_f32(v1) & 0x7fffffffu;
        m_max = mu > m_max ? mu : m_max;
        v_max = vu > v_max ? vu : v_max;
    }
    *b->m_absmax = bb_f32_from_bits(m_max);
    *b->v_absmax = bb_f32_from_bits(v_max);
}

static void adamw8bit(const adam8_block *b, const adamw_constants *k) {
    _Alignas(64) float m[BB_ADAM8_BLOCK], v[BB_ADAM8_BLOCK];
    decode(m, b->m, b->n, true);
    decode(v, b->v, b->n, false);
    step(b, m, v, k);
    encode(b->m, m, bb_adam8_scale(*b->m_absmax), b->n, true);
    encode(b->v, v, bb_adam8_scale(*b->v_absmax), b->n, false);
}

/* ---- n-gram embeddings ------------------------------------------------------------------------------------------------ */

static void adagrad(float *p, const float *g, float *v, int64_t rows, int64_t C, const adagrad_constants *k) {
    for (int64_t r = 0; r < rows; r++, p += C, g += C) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < C; c++) sum += g[c] * g[c];
        if (!(sum > 0)) continue;
        v[r] += sum * k->scale * k->scale / (float)C;
        float factor = k->lr * k->scale / (sqrtf(v[r]) + k->eps);
#pragma omp simd
        for (int64_t c = 0; c < C; c++) p[c] -= factor * g[c];
    }
}
const bb_optimizer_set SET_NAME(bb_optimizer) = {
    .sum_squares = sum_squares, .adamw = adamw, .adamw8bit = adamw8bit, .adagrad = adagrad};
