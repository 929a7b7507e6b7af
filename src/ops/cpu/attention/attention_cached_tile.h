// SPDX-License-Identifier: MIT
/* Keys and values as codes with one scale per row, in the vocabulary of attention_simd.h. For small batches of queries int8 is
 * read in place, once; for larger ones it is expanded tile by tile. Six-bit codes are converted to int8 first, except where
 * attention_int6_tile.h reads them in place. Included by attention_forward_tile.h, once for each set. */
#ifndef ATTENTION_CODES
#define ATTENTION_CODES
#include "ops/cpu/attention/attention_forward.h"
#include "ops/cpu/attention/kv_int6.h"

#define load_codes ATTENTION_NAME(load_codes)
#define expand_codes ATTENTION_NAME(expand_codes)
#define key_sums ATTENTION_NAME(key_sums)
#define score_keys ATTENTION_NAME(score_keys)
#define weighted_codes ATTENTION_NAME(weighted_codes)
#define prefetch_target ATTENTION_NAME(prefetch_target)
#define fetch_line ATTENTION_NAME(fetch_line)
#define sum_lanes ATTENTION_NAME(sum_lanes)
#define softmax_keys ATTENTION_NAME(softmax_keys)
#define weighted_rows ATTENTION_NAME(weighted_rows)
#define cached_unpack ATTENTION_NAME(cached_unpack)
#define quantize_query ATTENTION_NAME(quantize_query)
#define cached_query ATTENTION_NAME(cached_query)
#define cached_partial ATTENTION_NAME(cached_partial)

/* How far ahead keys and values are prefetched, into the second-level cache. */
enum { PREFETCH_BYTES = 10240 };

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

/* Unpacks the first `keys` <= max_keys rows of six-bit codes to int8; buffer: (2, max_keys, bb_kv_width(D)). */
KERNEL void cached_unpack(cached_rows *rows, int8_t *buffer, int64_t keys, int64_t max_keys, int64_t D) {
    int64_t width = bb_kv_width(D), packed = rows->width;
    int8_t *k = buffer, *v = buffer + max_keys * width;
    for (int64_t j = 0; j < keys; j++)
        for (int64_t d = 0; d < width; d += 64)
            bb_int6_load(k + j * width + d, 16, bb_clamp((width - d) / 16, 0, 4), rows->k + j * packed + d / 64 * BB_KV_BLOCK);
    for (int64_t j = 0; j < keys; j += BB_KV_ROWS)
        for (int64_t d = 0; d < width; d += 16)
            bb_int6_load(v + j * width + d, width, bb_clamp(keys - j, 0, BB_KV_ROWS),
                         rows->v + j * packed + d / 16 * BB_KV_BLOCK);
    *rows = (cached_rows){k, v, rows->k_scale, rows->v_scale, width, rows->next};
}

/* dst (rows, D) = scale[r] * codes[r]. dst must have space for one more vector. */
INLINE void expand_codes(float *dst, const int8_t *codes, const float *scale, int64_t width, int64_t rows, int64_t D) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t d = 0; d < D; d += VL) vstore(dst + r * D + d, load_codes(codes + r * width + d) * vset1(scale[r]));
}

/* The address PREFETCH_BYTES after position `at` in a block of `size` bytes, or as far into `next`, which is read afterwards.
 * Prefetching it line by line between the products keeps memory busy without ever waiting for it. */
INLINE const int8_t *prefetch_target(const int8_t *block, int64_t at, int64_t size, const int8_t *next) {
    int64_t place = at + PREFETCH_BYTES;
    return place < size ? block + place : next + (place - size);
}
INLINE void fetch_line(const int8_t *line) { __builtin_prefetch(line, 0, 2); }

#undef KEYS_AT_ONCE
/* sums[j] = sum_d q[d] k[j,d] for `keys` keys, a constant of 1 or KEYS_AT_ONCE; exact. Prefetches as many bytes at
 * `prefetch`. */
#if ATTENTION_SET >= ATTENTION_AVX512
#define KEYS_AT_ONCE 16
/* Element j: the sum of the elements of x[j]. */
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
INLINE void key_sums(int keys, int32_t *sums, const int16_t *q, const int8_t *k, int64_t width, const int8_t *prefetch) {
    __m512i lanes[KEYS_AT_ONCE];
#pragma GCC unroll 1 /* hardware prefetching follows loads that advance by a constant stride */
    for (int j = 0; j < keys; j++, k += width) {
        __m512i sum = _mm512_setzero_si512();
        int64_t d = 0;
        for (; d + 64 <= width; d += 64, prefetch += 64) {
            fetch_line(prefetch);
            __m512i low = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i_u *)(k + d)));
            __m512i high = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i_u *)(k + d + 32)));
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_loadu_si512(q + d), low));
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_loadu_si512(q + d + 32), high));
        }
        for (; d < width; d += 16) {
            __m512i codes = _mm512_cvtepi8_epi16(_mm256_zextsi128_si256(_mm_loadu_si128((const __m128i_u *)(k + d))));
            __m512i q_codes = _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i_u *)(q + d)));
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(q_codes, codes));
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
INLINE void key_sums(int keys, int32_t *sums, const int16_t *q, const int8_t *k, int64_t width, const int8_t *prefetch) {
    __m256i sum[KEYS_AT_ONCE];
    for (int j = 0; j < KEYS_AT_ONCE; j++) sum[j] = _mm256_setzero_si256();
    for (int64_t d = 0; d < width; d += 16) {
        __m256i x = _mm256_loadu_si256((const __m256i_u *)(q + d));
        for (int j = 0; j < keys; j++) {
            if (d % 64 == 0) fetch_line(prefetch + d * keys + 64 * j);
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
INLINE void key_sums(int keys, int32_t *sums, const int16_t *q, const int8_t *k, int64_t width, const int8_t *prefetch) {
    for (int j = 0; j < keys; j++) {
        int32_t sum = 0;
        for (int64_t d = 0; d < width; d += 64) fetch_line(prefetch + j * width + d);
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
        const int8_t *prefetch = prefetch_target(rows->k, j * width, keys * width, rows->v);
        key_sums(KEYS_AT_ONCE, sums, q->q_codes, rows->k + j * width, width, prefetch);
        /* with vector types: GCC 12 converts element by element otherwise */
        ATTENTION_NAME(key_ints) products;
        ATTENTION_NAME(key_floats) scores;
        memcpy(&products, sums, sizeof products);
        memcpy(&scores, rows->k_scale + j, sizeof scores);
        scores = __builtin_convertvector(products, ATTENTION_NAME(key_floats)) * (q->scale * scores);
        memcpy(s + j, &scores, sizeof scores);
    }
    for (; j < keys; j++) {
        int32_t sum;
        key_sums(1, &sum, q->q_codes, rows->k + j * width, width, prefetch_target(rows->k, j * width, keys * width, rows->v));
        s[j] = (float)sum * (q->scale * rows->k_scale[j]);
    }
}

typedef int32_t ATTENTION_NAME(k_words) __attribute__((vector_size(4 * VL)));
typedef int16_t ATTENTION_NAME(q_codes) __attribute__((vector_size(2 * VL)));

/* Quantizes the query with scale max/limit; codes_out: (D rounded up to 64), zeros past D. Returns the scale times log2 e /
 * sqrt(D). */
INLINE float quantize_query(int16_t *codes_out, const float *q, int64_t D, float limit) {
    vf largest = vset1(0.0f);
    for (int64_t d = 0; d < D; d += VL) {
        vf x = vload_first(q + d, bb_clamp(D - d, 0, VL));
        largest = vmax(largest, vmax(x, -x));
    }
    float max_abs = vreduce_max(largest), scale = max_abs / limit, inverse = max_abs > 0.0f ? limit / max_abs : 0.0f;
    for (int64_t d = 0; d < D; d += VL) {
        vf x = vload_first(q + d, bb_clamp(D - d, 0, VL)) * vset1(inverse), to_units = vset1(0x1.8p23f);
        x = (x + to_units) - to_units; /* half to even */
        ATTENTION_NAME(k_words) words = __builtin_convertvector(x, ATTENTION_NAME(k_words));
        ATTENTION_NAME(q_codes) q_codes = __builtin_convertvector(words, ATTENTION_NAME(q_codes));
        memcpy(codes_out + d, &q_codes, sizeof q_codes);
    }
    memset(codes_out + D, 0, (size_t)(bb_round_up(D, 64) - D) * sizeof *codes_out);
    return scale * (float)(M_LOG2E / sqrt((double)D));
}

KERNEL void cached_query(cached_q *out, const float *q, int64_t D) {
    /* 127 * limit * D < 2^31 */
    out->scale = quantize_query(out->q_codes, q, D, D > 512 ? (float)(INT32_MAX / (127 * D)) : 32767.0f);
}

/* The weights of `keys` keys, times their values' scales; total: their sum without these scales. Returns the largest score. */
INLINE float softmax_keys(float *weight, float *s, vf *total, const cached_q *q, const cached_rows *rows, int64_t keys) {
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
        const int8_t *prefetch = prefetch_target(rows->v, j * width + d, size, rows->next);
        for (int i = 0; i < vectors; i += 64 / VL) fetch_line(prefetch + i * VL);
        for (int i = 0; i < vectors; i++) {
            vf codes = load_codes(v + i * VL);
            for (int n = 0; n < queries; n++)
                sum[n * vectors + i] = vfma(vset1(weight[n * DIRECT_KEYS + j]), codes, sum[n * vectors + i]);
        }
    }
    for (int n = 0; n < queries; n++)
        for (int i = 0; i < vectors; i++) vstore(y + n * y_stride + i * VL, sum[n * vectors + i]);
}

/* weighted_codes of all columns, with as many vectors at once as fit in registers. */
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

/* What direct_partial computes, for `queries` <= CACHED_QUERIES queries, in partials `stride` apart: (Dp + 16), the weighted
 * sum, the maximum and the sum of the weights. Query i sees the first keys[i] <= DIRECT_KEYS keys, at most max_keys; the
 * partial of a query that sees none is undefined. Queries do not influence each other. */
KERNEL void cached_partial(float *partial, int64_t stride, const cached_q *q, int queries, const cached_rows *rows,
                           const int64_t *keys, int64_t max_keys, int64_t D, void *scratch) {
    float *s = scratch, *weight = s + DIRECT_KEYS;
    int64_t dp = bb_round_up(D, 16);
    for (int i = 0; i < queries; i++) {
        vf total = vset1(0.0f);
        float *own = weight + i * DIRECT_KEYS;
        partial[i * stride + dp] = keys[i] > 0 ? softmax_keys(own, s, &total, &q[i], rows, keys[i]) : 0.0f;
        partial[i * stride + dp + 1] = vreduce_add(total);
        for (int64_t j = keys[i] > 0 ? keys[i] : 0; j < max_keys; j++) own[j] = 0.0f; /* adds exactly zero */
    }
    switch (queries) {
    case 1: weighted_rows(1, partial, stride, weight, rows, D, max_keys); break;
    case 2: weighted_rows(2, partial, stride, weight, rows, D, max_keys); break;
    case 3: weighted_rows(3, partial, stride, weight, rows, D, max_keys); break;
    default: weighted_rows(CACHED_QUERIES, partial, stride, weight, rows, D, max_keys); break;
    }
}
