// SPDX-License-Identifier: MIT
/* Small batches of queries over keys and values in six bits, which are unpacked in registers for byte products. A query, and
 * the weights of the values, are integers of 14 bits in two parts, x = 128 high + low, so that `vpdpbusd` computes their
 * products with codes; all sums are exact. Codes are biased by 32, and so are the sums, by 32 times the sum of the other
 * factor. Included by attention_forward_tile.h for VNNI only, for processors that also have VBMI. */

#define VBMI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")))
#define VBMI_INLINE VBMI static inline __attribute__((always_inline))

enum { INT6_LIMIT = 127 * 128, INT6_PART = 7 /* bits of the low part */ };

/* A permutation that brings the bytes of two cells at a time together in 64 bits. */
VBMI_INLINE __m512i cell_bytes(void) {
#define CELLS(c) (c), (c) + 16, (c) + 32, (c) + 1, (c) + 17, (c) + 33, 0, 0
    static const uint8_t order[64] = {CELLS(0), CELLS(2), CELLS(4), CELLS(6), CELLS(8), CELLS(10), CELLS(12), CELLS(14)};
#undef CELLS
    return _mm512_loadu_si512(order);
}

/* The codes of a block: those of cell c in bytes 4c .. 4c+3. Reads past the block: more of the cache follows. */
VBMI_INLINE __m512i block_codes(const int8_t *block, __m512i order) {
    const __m512i shifts = _mm512_set1_epi64(0x2a241e18120c0600);
    __m512i x = _mm512_permutexvar_epi8(order, _mm512_loadu_si512(block));
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, x), _mm512_set1_epi8(63));
}

/* q_codes: for each 64 columns the high parts, then the low ones, as bytes in the order of a key's codes. */
VBMI static void int6_query_avx512vbmi(cached_q *out, const float *q, int64_t D) {
    int8_t *parts = (int8_t *)out->q_codes;
    const __m512i half = _mm512_set1_epi16(1 << (INT6_PART - 1)), ones = _mm512_set1_epi16(1);
    __m512i places = _mm512_set1_epi32(0x30201000), sum = _mm512_setzero_si512(); /* byte 4c+j: column 16j+c */
    places = _mm512_add_epi8(places, _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                                        _mm512_set1_epi32(0x01010101)));
    /* 63 * 1.01 * limit * D < 2^31 */
    out->scale = quantize_query(out->q_codes, q, D, D > 1024 ? (float)(INT32_MAX / (128 * D)) : (float)INT6_LIMIT);
    for (int64_t d = 0; d < D; d += 64) {
        __m512i low[2], high[2];
        for (int i = 0; i < 2; i++) {
            __m512i x = _mm512_loadu_si512(out->q_codes + d + 32 * i);
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(x, ones));
            high[i] = _mm512_srai_epi16(_mm512_add_epi16(x, half), INT6_PART);
            low[i] = _mm512_sub_epi16(x, _mm512_slli_epi16(high[i], INT6_PART));
        }
        for (int i = 0; i < 2; i++) {
            __m512i *x = i ? low : high;
            __m512i bytes =
                _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(x[0])), _mm512_cvtepi16_epi8(x[1]), 1);
            _mm512_storeu_si512(parts + 2 * d + 64 * i, _mm512_permutexvar_epi8(places, bytes));
        }
    }
    out->bias = BB_INT6_BIAS * _mm512_reduce_add_epi32(sum);
}

VBMI_INLINE __m512i joined(__m512i high, __m512i low) { return _mm512_add_epi32(_mm512_slli_epi32(high, INT6_PART), low); }

/* s[n,j] = the scaled scores of query n and keys 0 .. keys-1, in units of log2 e, DIRECT_KEYS apart. queries is a constant; so
 * is blocks (per key), unless it is 0. */
VBMI_INLINE void int6_scores(int queries, float *s, const cached_q *q, const cached_rows *rows, int64_t keys, int blocks) {
    const __m512i order = cell_bytes();
    int64_t width = rows->width, size = keys * width, bytes = blocks ? blocks * BB_KV_BLOCK : width;
    const int8_t *k = rows->k;
    for (int64_t j = 0; j < keys; j += 16) {
        __m512i lanes[CACHED_QUERIES][16];
        int64_t count = bb_clamp(keys - j, 0, 16);
        for (int64_t i = 0; i < count; i++, k += width) {
            __m512i high[CACHED_QUERIES], low[CACHED_QUERIES];
            const int8_t *prefetch = prefetch_target(rows->k, (j + i) * width, size, rows->v);
            for (int64_t line = -(j + i) * width & 63; line < bytes; line += 64) fetch_line(prefetch + line);
            for (int n = 0; n < queries; n++) high[n] = low[n] = _mm512_setzero_si512();
            for (int64_t at = 0, d = 0; at < bytes; at += BB_KV_BLOCK, d += 64) {
                __m512i codes = block_codes(k + at, order);
                for (int n = 0; n < queries; n++) {
                    const int16_t *parts = q[n].q_codes + d;
                    high[n] = _mm512_dpbusd_epi32(high[n], codes, _mm512_loadu_si512(parts));
                    low[n] = _mm512_dpbusd_epi32(low[n], codes, _mm512_loadu_si512(parts + 32));
                }
            }
            for (int n = 0; n < queries; n++) lanes[n][i] = joined(high[n], low[n]);
        }
        vf scale = vload_first(rows->k_scale + j, count);
        for (int n = 0; n < queries; n++) {
            for (int64_t i = count; i < 16; i++) lanes[n][i] = _mm512_setzero_si512();
            __m512i sums = _mm512_sub_epi32(sum_lanes(lanes[n]), _mm512_set1_epi32(q[n].bias));
            vstore(s + n * DIRECT_KEYS + j, _mm512_cvtepi32_ps(sums) * (vset1(q[n].scale) * scale));
        }
    }
}

/* The weights of the values, as integers, for all queries and all keys that are read. */
typedef struct int6_weights {
    uint8_t high[CACHED_QUERIES][DIRECT_KEYS], low[CACHED_QUERIES][DIRECT_KEYS];
    float scale[CACHED_QUERIES];
    int32_t bias[CACHED_QUERIES];
} int6_weights;

/* The weights of query n, from the scores of the keys that it sees, which they replace; zeros for the others up to `max_keys`.
 * Returns the largest score; total: the sum of the weights without the values' scales. */
VBMI_INLINE float int6_softmax(int6_weights *w, int n, float *s, float *total, const cached_rows *rows, int64_t keys,
                               int64_t max_keys) {
    float max = row_max(s, keys);
    vf minus_max = vset1(-max), sum = vset1(0.0f), largest = vset1(0.0f), all = vset1(0.0f);
    for (int64_t j = 0; j < keys; j += VL) {
        vf x = vexp2(vload(s + j) + minus_max);
        if (keys - j < VL) x = vkeep(x, keys - j, 0.0f);
        sum = sum + x;
        x = x * vload_first(rows->v_scale + j, bb_clamp(keys - j, 0, VL));
        largest = vmax(largest, x);
        all = all + x;
        vstore(s + j, x);
    }
    float peak = vreduce_max(largest);
    vf inverse = vset1(peak > 0.0f ? (float)INT6_LIMIT / peak : 0.0f);
    __m512i code_sum = _mm512_setzero_si512(), low = _mm512_set1_epi32((1 << INT6_PART) - 1);
    for (int64_t j = 0; j < max_keys; j += VL) {
        __m512i x = _mm512_setzero_si512();
        if (j < keys) x = _mm512_cvtps_epi32(vload(s + j) * inverse);
        code_sum = _mm512_add_epi32(code_sum, x);
        _mm_storeu_si128((__m128i_u *)(w->high[n] + j), _mm512_cvtepi32_epi8(_mm512_srli_epi32(x, INT6_PART)));
        _mm_storeu_si128((__m128i_u *)(w->low[n] + j), _mm512_cvtepi32_epi8(_mm512_and_si512(x, low)));
    }
    w->scale[n] = (peak + 0.0f * vreduce_add(all)) / (float)INT6_LIMIT; /* NaN if an infinity or NaN would be lost */
    w->bias[n] = BB_INT6_BIAS * _mm512_reduce_add_epi32(code_sum);
    *total = vreduce_add(sum);
    return max;
}

VBMI_INLINE __m512i four_weights(const uint8_t *weights) {
    int32_t x;
    memcpy(&x, weights, sizeof x);
    return _mm512_set1_epi32(x);
}

/* y[n] (16 blocks), y_stride apart, = the weighted sums of columns d.. of the values. queries and blocks are constants. */
VBMI_INLINE void int6_values(int queries, float *y, int64_t y_stride, const int6_weights *w, const cached_rows *rows, int64_t d,
                             int64_t keys, int blocks) {
    const __m512i order = cell_bytes();
    int64_t width = BB_KV_ROWS * rows->width, from = d / 16 * BB_KV_BLOCK, size = bb_round_up(keys, BB_KV_ROWS) * rows->width;
    const int8_t *v = rows->v + from;
    __m512i high[16], low[16];
    for (int i = 0; i < queries * blocks; i++) high[i] = low[i] = _mm512_setzero_si512();
    for (int64_t j = 0; j < keys; j += BB_KV_ROWS, v += width) {
        const int8_t *prefetch = prefetch_target(rows->v, v - rows->v, size, rows->next);
        for (int i = 0; i < blocks; i++) {
            if (i % 4 != 3) /* four blocks are three cache lines */
                fetch_line(prefetch + (i - i / 4) * 64);
            __m512i codes = block_codes(v + i * BB_KV_BLOCK, order);
            for (int n = 0; n < queries; n++) {
                high[n * blocks + i] = _mm512_dpbusd_epi32(high[n * blocks + i], codes, four_weights(w->high[n] + j));
                low[n * blocks + i] = _mm512_dpbusd_epi32(low[n * blocks + i], codes, four_weights(w->low[n] + j));
            }
        }
    }
    for (int n = 0; n < queries; n++)
        for (int i = 0; i < blocks; i++) {
            __m512i sum = _mm512_sub_epi32(joined(high[n * blocks + i], low[n * blocks + i]), _mm512_set1_epi32(w->bias[n]));
            vstore(y + n * y_stride + i * VL, _mm512_cvtepi32_ps(sum) * vset1(w->scale[n]));
        }
}

VBMI_INLINE void int6_partials(int queries, float *partial, int64_t stride, const cached_q *q, const cached_rows *rows,
                               const int64_t *keys, int64_t max_keys, int64_t D, void *scratch) {
    float *s = scratch;
    int6_weights *w = (int6_weights *)(void *)(s + CACHED_QUERIES * DIRECT_KEYS);
    int64_t dp = bb_round_up(D, 16), d = 0;
    switch (rows->width / BB_KV_BLOCK) {
    case 1: int6_scores(queries, s, q, rows, max_keys, 1); break;
    case 2: int6_scores(queries, s, q, rows, max_keys, 2); break;
    default: int6_scores(queries, s, q, rows, max_keys, 0); break;
    }
    for (int i = 0; i < queries; i++) {
        float *to = partial + i * stride + dp;
        if (keys[i] > 0) {
            to[0] = int6_softmax(w, i, s + i * DIRECT_KEYS, to + 1, rows, keys[i], max_keys);
        } else {
            to[0] = to[1] = w->scale[i] = 0.0f;
            w->bias[i] = 0;
        }
    }
    if (queries == 1)
        for (; d + 128 <= dp; d += 128) int6_values(queries, partial + d, stride, w, rows, d, max_keys, 8);
    if (queries <= 3)
        for (; d + 64 <= dp; d += 64) int6_values(queries, partial + d, stride, w, rows, d, max_keys, 4);
    for (; d + 32 <= dp; d += 32) int6_values(queries, partial + d, stride, w, rows, d, max_keys, 2);
    for (; d < dp; d += 16) int6_values(queries, partial + d, stride, w, rows, d, max_keys, 1);
}

/* Like cached_partial. */
VBMI static void int6_partial_avx512vbmi(float *partial, int64_t stride, const cached_q *q, int queries,
                                         const cached_rows *rows, const int64_t *keys, int64_t max_keys, int64_t D,
                                         void *scratch) {
    switch (queries) {
    case 1: int6_partials(1, partial, stride, q, rows, keys, max_keys, D, scratch); break;
    case 2: int6_partials(2, partial, stride, q, rows, keys, max_keys, D, scratch); break;
    case 3: int6_partials(3, partial, stride, q, rows, keys, max_keys, D, scratch); break;
    default: int6_partials(CACHED_QUERIES, partial, stride, q, rows, keys, max_keys, D, scratch); break;
    }
}
