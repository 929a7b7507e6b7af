// SPDX-License-Identifier: MIT
/* AdamW with both moments in 8 bits, block by block (arXiv:2110.02861). */
#include "core/adam8_map.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/optimizer/adamw.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { PREFETCH_BLOCKS = 4 };

/* ---- codes to values, and back ---------------------------------------------------------------------------------------- */

/* decode: x[i] = the value of codes[i]; encode: codes[i] = the code of scale * x[i]. n <= BB_ADAM8_BLOCK; x holds
 * BB_ADAM8_BLOCK elements, all of which may be written. */
typedef struct codec {
    void (*decode)(float *x, const uint8_t *codes, int64_t n, bool is_signed);
    void (*encode)(uint8_t *codes, const float *x, float scale, int64_t n, bool is_signed);
} codec;

BB_SIMD_INLINE void decode_scalar(float *x, const uint8_t *codes, int64_t n, bool is_signed) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) x[i] = bb_adam8_value(codes[i], is_signed);
}

BB_SIMD_INLINE void encode_scalar(uint8_t *codes, const float *x, float scale, int64_t n, bool is_signed) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) codes[i] = bb_adam8_code(scale * x[i], is_signed);
}

/* Instantiated once for the signed map and once for the unsigned one. */
#define CODEC(set, how, target)                                                                                                \
    target static void decode_##set(float *x, const uint8_t *codes, int64_t n, bool is_signed) {                               \
        is_signed ? decode_##how(x, codes, n, true) : decode_##how(x, codes, n, false);                                        \
    }                                                                                                                          \
    target static void encode_##set(uint8_t *codes, const float *x, float scale, int64_t n, bool is_signed) {                  \
        is_signed ? encode_##how(codes, x, scale, n, true) : encode_##how(codes, x, scale, n, false);                          \
    }

CODEC(generic, scalar, )

#ifdef __x86_64__
CODEC(avx2, scalar, __attribute__((target("avx2"))))

/* The same arithmetic in vectors of 16. AVX-512 looks up a decade's constants in a register, where the loops select among them
 * in eight steps; indices wrap modulo 16. */
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))

/* a | (b & sign) */
AVX512 BB_SIMD_INLINE __m512 with_sign_of(__m512 a, __m512 b) {
    const __m512i sign = _mm512_set1_epi32(INT32_MIN);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b), sign, 0xf8));
}

AVX512 BB_SIMD_INLINE __m512 values(__m128i codes, bool is_signed) {
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
AVX512 BB_SIMD_INLINE __m512i codes_of(__m512 x, bool is_signed) {
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

AVX512 BB_SIMD_INLINE void decode_vector(float *x, const uint8_t *codes, int64_t n, bool is_signed) {
    uint8_t last[GROUP] = {0};
    for (int64_t i = 0; i < n; i += GROUP) {
        const uint8_t *group = codes + i;
        if (n - i < GROUP) group = memcpy(last, group, (size_t)(n - i));
        for (int j = 0; j < GROUP; j += 16)
            _mm512_storeu_ps(x + i + j, values(_mm_loadu_si128((const void *)(group + j)), is_signed));
    }
}

AVX512 BB_SIMD_INLINE void encode_vector(uint8_t *codes, const float *x, float scale, int64_t n, bool is_signed) {
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

CODEC(avx512, vector, AVX512)
#endif

static const codec codecs[] = {
#ifdef __x86_64__
    [BB_SIMD_AVX512] = {decode_avx512, encode_avx512},
    [BB_SIMD_AVX2] = {decode_avx2, encode_avx2},
#endif
    [BB_SIMD_GENERIC] = {decode_generic, encode_generic},
};

/* ---- the step --------------------------------------------------------------------------------------------------------- */

/* m, v: decoded and divided by their absmax on entry; in plain units on return. */
BB_SIMD_INLINE void step_block_body(float *p, const float *g, float *m, float *v, float *m_absmax, float *v_absmax, int64_t n,
                                    const adamw_constants *k) {
    adamw_constants scaled = *k;
    scaled.beta1 *= *m_absmax;
    scaled.beta2 *= *v_absmax;
    uint32_t m_max = 0, v_max = 0; /* bit patterns, as in bb_simd_absmax */
#pragma omp simd reduction(max : m_max, v_max)
    for (int64_t i = 0; i < n; i++) {
        float mi = m[i], vi = v[i];
        adamw_moments(g[i], &mi, &vi, &scaled);
        float root_v = k->min_root_v * mi;
        vi = root_v * root_v > vi ? root_v * root_v : vi;
        p[i] = adamw_apply(p[i], mi, vi, k);
        m[i] = mi;
        v[i] = vi;
        uint32_t mu = bb_bits_of_f32(mi) & 0x7fffffffu, vu = bb_bits_of_f32(vi) & 0x7fffffffu;
        m_max = mu > m_max ? mu : m_max;
        v_max = vu > v_max ? vu : v_max;
    }
    *m_absmax = bb_f32_from_bits(m_max);
    *v_absmax = bb_f32_from_bits(v_max);
}

BB_SIMD_VARIANTS(step_block,
                 (float *p, const float *g, float *m, float *v, float *m_absmax, float *v_absmax, int64_t n,
                  const adamw_constants *k),
                 (p, g, m, v, m_absmax, v_absmax, n, k))

/* Prefetches a whole block, so that its computation need not wait for memory: hardware prefetching does not reach far
 * enough. */
static inline void prefetch(const float *p, const float *g, const uint8_t *m, const uint8_t *v) {
    enum { LINE = 64, FLOATS = LINE / sizeof(float) };
    for (int i = 0; i < BB_ADAM8_BLOCK; i += FLOATS) {
        __builtin_prefetch(p + i, 1);
        __builtin_prefetch(g + i, 0);
    }
    for (int i = 0; i < BB_ADAM8_BLOCK; i += LINE) {
        __builtin_prefetch(m + i, 1);
        __builtin_prefetch(v + i, 1);
    }
}

void bb_cpu_adamw8bit_init(bb_device *dev, bb_adam8_state s, int64_t n) {
    (void)dev;
    size_t absmax_bytes = (size_t)((n + BB_ADAM8_BLOCK - 1) / BB_ADAM8_BLOCK) * sizeof(float);
    memset(s.m, bb_adam8_code(0, true), (size_t)n);
    memset(s.v, bb_adam8_code(0, false), (size_t)n);
    memset(s.m_absmax, 0, absmax_bytes);
    memset(s.v_absmax, 0, absmax_bytes);
}

void bb_cpu_adamw8bit_step(bb_device *dev, float *p, const float *g, bb_adam8_state s, int64_t n, const bb_adamw *h) {
    step_block_kernel *step_block = step_block_for(bb_cpu_of(dev)->kernels.simd);
    codec c = codecs[bb_cpu_of(dev)->kernels.simd];
    adamw_constants k = adamw_prepare(h);
    int64_t blocks = (n + BB_ADAM8_BLOCK - 1) / BB_ADAM8_BLOCK, ahead = PREFETCH_BLOCKS * BB_ADAM8_BLOCK;
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (n >= BB_SIMD_SERIAL)
    for (int64_t b = 0; b < blocks; b++) {
        _Alignas(64) float m[BB_ADAM8_BLOCK], v[BB_ADAM8_BLOCK];
        int64_t at = b * BB_ADAM8_BLOCK, count = n - at < BB_ADAM8_BLOCK ? n - at : BB_ADAM8_BLOCK;
        if (at + ahead + BB_ADAM8_BLOCK <= n) prefetch(p + at + ahead, g + at + ahead, s.m + at + ahead, s.v + at + ahead);
        c.decode(m, s.m + at, count, true);
        c.decode(v, s.v + at, count, false);
        step_block(p + at, g + at, m, v, &s.m_absmax[b], &s.v_absmax[b], count, &k);
        c.encode(s.m + at, m, bb_adam8_scale(s.m_absmax[b]), count, true);
        c.encode(s.v + at, v, bb_adam8_scale(s.v_absmax[b]), count, false);
    }
}
