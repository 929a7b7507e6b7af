// SPDX-License-Identifier: MIT
/* Keys and values in codes, one scale a row, in the vocabulary of attention_simd.h: for few queries int8 is read in place,
 * once, for many expanded tile by tile. Six bits become int8 first, but where attention_int6_tile.h reads them in place.
 * Included by attention_forward_tile.h, once for each set. */
#ifndef ATTENTION_CODES
#define ATTENTION_CODES
#include "ops/cpu/attention/attention_forward.h"
#include "ops/cpu/attention/kv_int6.h"

#define load_codes ATTENTION_NAME(load_codes)
#define expand_codes ATTENTION_NAME(expand_codes)
#define key_sums ATTENTION_NAME(key_sums)
#define score_keys ATTENTION_NAME(score_keys)
#define weighted_codes ATTENTION_NAME(weighted_codes)
#define codes_ahead ATTENTION_NAME(codes_ahead)
#define fetch_line ATTENTION_NAME(fetch_line)
#define sum_lanes ATTENTION_NAME(sum_lanes)
#define weigh_keys ATTENTION_NAME(weigh_keys)
#define weighted_rows ATTENTION_NAME(weighted_rows)
#define cached_unpack ATTENTION_NAME(cached_unpack)
#define query_steps ATTENTION_NAME(query_steps)
#define cached_query ATTENTION_NAME(cached_query)
#define cached_partial ATTENTION_NAME(cached_partial)

/* Bytes that keys and values are fetched ahead, into the second-level cache. */
enum { CODES_AHEAD = 10240 };

_Static_assert(BB_KV_RUN % ATTENTION_KEYS == 0 && BB_KV_RUN % DIRECT_KEYS == 0, "what is read at a time is in one run");
#endif

/* VL codes as f32. */
#if ATTENTION_SET >= ATTENTION_AVX512
INLINE vf load_codes(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i_u *)p)));
}
#elif ATTENTION_SET == ATTENTION_AVX2
INLINE vf load_codes(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i_u *)p)));
}
#else
INLINE vf load_codes(const int8_t *p) { return (vf){(float)p[0], (float)p[1], (float)p[2], (float)p[3]}; }
#endif

/* Unpacks rows of six bits, the first `keys` <= most of them, to int8; buffer: (2, most, bb_kv_width(D)). */
KERNEL void cached_unpack(cached_rows *rows, int8_t *buffer, int64_t keys, int64_t most, int64_t D) {
    int64_t width = bb_kv_width(D), packed = rows->width;
    int8_t *k = buffer, *v = buffer + most * width;
    for (int64_t j = 0; j < keys; j++)
        for (int64_t d = 0; d < width; d += 64)
            bb_int6_take(k + j * width + d, 16, bb_clamp((width - d) / 16, 0, 4), rows->k + j * packed + d / 64 * BB_KV_BLOCK);
    for (int64_t j = 0; j < keys; j += BB_KV_ROWS)
        for (int64_t d = 0; d < width; d += 16)
            bb_int6_take(v + j * width + d, width, bb_clamp(keys - j, 0, BB_KV_ROWS),
                         rows->v + j * packed + d / 16 * BB_KV_BLOCK);
    *rows = (cached_rows){k, v, rows->k_scale, rows->v_scale, width, rows->next};
}

/* dst (rows, D) = scale[r] * codes[r]. dst has room for a vector more. */
INLINE void expand_codes(float *dst, const int8_t *codes, const float *scale, int64_t width, int64_t rows, int64_t D) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t d = 0; d < D; d += VL) vstore(dst + r * D + d, load_codes(codes + r * width + d) * vset1(scale[r]));
}

/* What lies CODES_AHEAD of place `at` in a block of `size` bytes, or as far into what follows it. It is to be fetched line by
 * line between the products: memory then is never waited for, nor idle. */
INLINE const int8_t *codes_ahead(const int8_t *block, int64_t at, int64_t size, const int8_t *next) {
    int64_t place = at + CODES_AHEAD;
    return place < size ? block + place : next + (place - size);
}
INLINE void fetch_line(const int8_t *line) { __builtin_prefetch(line, 0, 2); }

#undef KEYS_AT_ONCE
/* sums[j] = sum_d q[d] k[j,d] for `keys` keys, a constant of 1 or KEYS_AT_ONCE; exact. As many bytes are fetched at
 * `ahead`. */
#if ATTENTION_SET >= ATTENTION_AVX512
#define KEYS_AT_ONCE 16
/* Element j: the sum of x[j]'s. */
INLINE __m512i sum_lanes(__m512i x[16]) {
    for (int i = 0; i < 8; i++)
        x[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]), _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]));
    for (int i = 0; i < 4; i++)
        x[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(x[2 * i], x[2 * i + 1]), _mm512_unpackhi_epi64(x[2 * i], x[2 * i + 1]));
    for (int n = 2; n > 0; n--)
        for (int i = 0; i < n; i++)
            x[i] = _mm512_add_epi32(_mm512_shuffle_i32x4(x[2 * i], x[2 * i + 1], 0x88),
                                    _mm512_shuffle_i32x4(x[2 * i], x[2 * i + 1], 0xdd));
    return x[0];
}
INLINE void key_sums(int keys, int32_t *sums, const int16_t *q, const int8_t *k, int64_t width, const int8_t *ahead) {
    __m512i lanes[KEYS_AT_ONCE];
#pragma GCC unroll 1 /* loads that each go on by the same stride are foreseen by the processor */
    for (int j = 0; j < keys; j++, k += width) {
        __m512i sum = _mm512_setzero_si512();
        int64_t d = 0;
        for (; d + 64 <= width; d += 64, ahead += 64) {
            fetch_line(ahead);
            __m512i low = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i_u *)(k + d)));
            __m512i high = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i_u *)(k + d + 32)));
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_loadu_si512(q + d), low));
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_loadu_si512(q + d + 32), high));
        }
        for (; d < width; d += 16) {
            __m512i codes = _mm512_cvtepi8_epi16(_mm256_zextsi128_si256(_mm_loadu_si128((const __m128i_u *)(k + d))));
            __m512i steps = _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i_u *)(q + d)));
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(steps, codes));
        }
        lanes[j] = sum;
    }
    if (keys == KEYS_AT_ONCE)
        _mm512_storeu_si512(sums, sum_lanes(lanes));
    else
        for (int j = 0; j < keys; j++) sums[j] = _mm512_reduce_add_epi32(lanes[j]);
}
#elif ATTENTION_SET == ATTENTION_AVX2
#define KEYS_AT_ONCE 4
INLINE void key_sums(int keys, int32_t *sums, const int16_t *q, const int8_t *k, int64_t width, const int8_t *ahead) {
    __m256i sum[KEYS_AT_ONCE];
    for (int j = 0; j < KEYS_AT_ONCE; j++) sum[j] = _mm256_setzero_si256();
    for (int64_t d = 0; d < width; d += 16) {
        __m256i x = _mm256_loadu_si256((const __m256i_u *)(q + d));
        for (int j = 0; j < keys; j++) {
            if (d % 64 == 0) fetch_line(ahead + d * keys + 64 * j);
            __m256i y = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i_u *)(k + j * width + d)));
            sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(x, y));
        }
    }
    __m256i both = _mm256_hadd_epi32(_mm256_hadd_epi32(sum[0], sum[1]), _mm256_hadd_epi32(sum[2], sum[3]));
    int32_t four[KEYS_AT_ONCE];
    _mm_storeu_si128((__m128i_u *)four, _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)));
    for (int j = 0; j < keys; j++) sums[j] = four[j];
}
#else
#define KEYS_AT_ONCE 4
INLINE void key_sums(int keys, int32_t *sums, const int16_t *q, const int8_t *k, int64_t width, const int8_t *ahead) {
    for (int j = 0; j < keys; j++) {
        int32_t sum = 0;
        for (int64_t d = 0; d < width; d += 64) fetch_line(ahead + j * width + d);
        for (int64_t d = 0; d < width; d++) sum += q[d] * k[j * width + d];
        sums[j] = sum;
    }
}
#endif

typedef int32_t ATTENTION_NAME(key_ints) __attribute__((vector_size(4 * KEYS_AT_ONCE)));
typedef float ATTENTION_NAME(key_floats) __attribute__((vector_size(4 * KEYS_AT_ONCE)));

/* s[j] = the scaled scores of keys 0 .. keys-1, in units of log2 e. */
INLINE void score_keys(float *s, const cached_q *q, const cached_rows *rows, int64_t keys) {
    int64_t width = rows->width, j = 0;
    for (; j + KEYS_AT_ONCE <= keys; j += KEYS_AT_ONCE) {
        int32_t sums[KEYS_AT_ONCE];
        const int8_t *ahead = codes_ahead(rows->k, j * width, keys * width, rows->v);
        key_sums(KEYS_AT_ONCE, sums, q->steps, rows->k + j * width, width, ahead);
        /* written as vectors: GCC 12 converts element by element */
        ATTENTION_NAME(key_ints) products;
        ATTENTION_NAME(key_floats) scores;
        memcpy(&products, sums, sizeof products);
        memcpy(&scores, rows->k_scale + j, sizeof scores);
        scores = __builtin_convertvector(products, ATTENTION_NAME(key_floats)) * (q->scale * scores);
        memcpy(s + j, &scores, sizeof scores);
    }
    for (; j < keys; j++) {
        int32_t sum;
        key_sums(1, &sum, q->steps, rows->k + j * width, width, codes_ahead(rows->k, j * width, keys * width, rows->v));
        s[j] = (float)sum * (q->scale * rows->k_scale[j]);
    }
}

typedef int32_t ATTENTION_NAME(step_words) __attribute__((vector_size(4 * VL)));
typedef int16_t ATTENTION_NAME(steps) __attribute__((vector_size(2 * VL)));

/* The query in steps of its largest magnitude over `limit`; steps: (D rounded up to 64), zeros past D. Returns a step times
 * log2 e / sqrt(D). */
INLINE float query_steps(int16_t *steps_out, const float *q, int64_t D, float limit) {
    vf largest = vset1(0.0f);
    for (int64_t d = 0; d < D; d += VL) {
        vf x = vload_first(q + d, bb_clamp(D - d, 0, VL));
        largest = vmax(largest, vmax(x, -x));
    }
    float most = vreduce_max(largest), step = most / limit, inverse = most > 0.0f ? limit / most : 0.0f;
    for (int64_t d = 0; d < D; d += VL) {
        vf x = vload_first(q + d, bb_clamp(D - d, 0, VL)) * vset1(inverse), to_units = vset1(0x1.8p23f);
        x = (x + to_units) - to_units; /* half to even */
        ATTENTION_NAME(step_words) words = __builtin_convertvector(x, ATTENTION_NAME(step_words));
        ATTENTION_NAME(steps) steps = __builtin_convertvector(words, ATTENTION_NAME(steps));
        memcpy(steps_out + d, &steps, sizeof steps);
    }
    memset(steps_out + D, 0, (size_t)(bb_round_up(D, 64) - D) * sizeof *steps_out);
    return step * (float)(M_LOG2E / sqrt((double)D));
}

KERNEL void cached_query(cached_q *out, const float *q, int64_t D) {
    /* 127 * limit * D < 2^31 */
    out->scale = query_steps(out->steps, q, D, D > 512 ? (float)(INT32_MAX / (127 * D)) : 32767.0f);
}

/* The weights of `keys` keys, times their values' scales; total: their sum without. Returns the largest score. */
INLINE float weigh_keys(float *weight, float *s, vf *total, const cached_q *q, const cached_rows *rows, int64_t keys) {
    score_keys(s, q, rows, keys);
    float max = row_max(s, keys);
    vf minus_max = vset1(-max);
    *total = vset1(0.0f);
    for (int64_t j = 0; j < keys; j += VL) {
        vf x = vexp2(vload(s + j) + minus_max), scale = vload_first(rows->v_scale + j, bb_clamp(keys - j, 0, VL));
        if (keys - j < VL) x = vkeep(x, keys - j, 0.0f);
        *total = *total + x;
        vstore(weight + j, x * scale);
    }
    return max;
}

/* y[i] (vectors * VL), y_stride apart, = sum_j weight[i,j] codes[j,d..] for `queries` rows i of weights, DIRECT_KEYS apart.
 * queries and vectors are constants. */
INLINE void weighted_codes(int queries, float *y, int64_t y_stride, const float *weight, const cached_rows *rows, int64_t d,
                           int64_t keys, int vectors) {
    int64_t width = rows->width, size = keys * width;
    const int8_t *v = rows->v + d;
    vf sum[CACHED_QUERIES * 8];
    for (int i = 0; i < queries * vectors; i++) sum[i] = vset1(0.0f);
    for (int64_t j = 0; j < keys; j++, v += width) {
        const int8_t *ahead = codes_ahead(rows->v, j * width + d, size, rows->next);
        for (int i = 0; i < vectors; i += 64 / VL) fetch_line(ahead + i * VL);
        for (int i = 0; i < vectors; i++) {
            vf codes = load_codes(v + i * VL);
            for (int n = 0; n < queries; n++)
                sum[n * vectors + i] = vfma(vset1(weight[n * DIRECT_KEYS + j]), codes, sum[n * vectors + i]);
        }
    }
    for (int n = 0; n < queries; n++)
        for (int i = 0; i < vectors; i++) vstore(y + n * y_stride + i * VL, sum[n * vectors + i]);
}

/* weighted_codes of all columns: as many vectors at once as there are registers for. */
INLINE void weighted_rows(int queries, float *y, int64_t y_stride, const float *weight, const cached_rows *rows, int64_t D,
                          int64_t keys) {
    int64_t dp = bb_round_up(D, 16), d = 0;
    if (queries == 1)
        for (; d + 8 * VL <= dp; d += 8 * VL) weighted_codes(queries, y + d, y_stride, weight, rows, d, keys, 8);
    if (queries == 1 || VL == 16)
        for (; d + 4 * VL <= dp; d += 4 * VL) weighted_codes(queries, y + d, y_stride, weight, rows, d, keys, 4);
    for (; d + 2 * VL <= dp; d += 2 * VL) weighted_codes(queries, y + d, y_stride, weight, rows, d, keys, 2);
    for (; d < dp; d += VL) weighted_codes(queries, y + d, y_stride, weight, rows, d, keys, 1);
}

/* For each of `queries` <= CACHED_QUERIES queries what direct_partial gives, in partials `stride` apart: (Dp + 16), the
 * weighted sum, the maximum and the sum of the weights. Query i sees the first keys[i] <= DIRECT_KEYS keys, most of them
 * `most`; where that is none its partial is left as it is or overwritten. What one gets does not depend on the others. */
KERNEL void cached_partial(float *partial, int64_t stride, const cached_q *q, int queries, const cached_rows *rows,
                           const int64_t *keys, int64_t most, int64_t D, void *scratch) {
    float *s = scratch, *weight = s + DIRECT_KEYS;
    int64_t dp = bb_round_up(D, 16);
    for (int i = 0; i < queries; i++) {
        vf total = vset1(0.0f);
        float *own = weight + i * DIRECT_KEYS;
        partial[i * stride + dp] = keys[i] > 0 ? weigh_keys(own, s, &total, &q[i], rows, keys[i]) : 0.0f;
        partial[i * stride + dp + 1] = vreduce_add(total);
        for (int64_t j = keys[i] > 0 ? keys[i] : 0; j < most; j++) own[j] = 0.0f; /* adds nothing, exactly */
    }
    switch (queries) {
    case 1: weighted_rows(1, partial, stride, weight, rows, D, most); break;
    case 2: weighted_rows(2, partial, stride, weight, rows, D, most); break;
    case 3: weighted_rows(3, partial, stride, weight, rows, D, most); break;
    default: weighted_rows(CACHED_QUERIES, partial, stride, weight, rows, D, most); break;
    }
}
