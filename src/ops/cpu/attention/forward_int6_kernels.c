// SPDX-License-Identifier: MIT
/* Few queries over keys and values in six bits, which are unpacked in registers: for processors with byte permutations (VBMI) and
 * byte products (VNNI). The results are those of forward_codes_kernels.c. A query is in two parts of bytes, x = 256 high + low, and
 * its products are with codes that are biased by 32, and so are the sums, by 32 times the sum of the query. */
#include "ops/cpu/attention/forward_codes.h"

/* codes: for each 64 columns the high parts, then the low ones, as bytes in the order of a key's codes. */
static void query(cached_q *out, const float *q, int64_t D) {
    int8_t *parts = (int8_t *)out->codes;
    const __m512i half = _mm512_set1_epi16(128), ones = _mm512_set1_epi16(1);
    __m512i places = _mm512_set1_epi32(0x30201000), sum = vizero(); /* byte 4c+j: column 16j+c */
    places = _mm512_add_epi8(places, _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                                        _mm512_set1_epi32(0x01010101)));
    out->scale = quantize_query(out->codes, q, D);
    for (int64_t d = 0; d < D; d += 64) {
        __m512i low[2], high[2];
        for (int i = 0; i < 2; i++) {
            __m512i x = viload(out->codes + d + 32 * i);
            sum = viadd(sum, _mm512_madd_epi16(x, ones));
            high[i] = _mm512_srai_epi16(_mm512_add_epi16(x, half), 8);
            low[i] = _mm512_sub_epi16(x, _mm512_slli_epi16(high[i], 8));
        }
        for (int i = 0; i < 2; i++) {
            __m512i *x = i ? low : high;
            __m512i bytes =
                _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(x[0])), _mm512_cvtepi16_epi8(x[1]), 1);
            vistore(parts + 2 * d + 64 * i, _mm512_permutexvar_epi8(places, bytes));
        }
    }
    out->bias = BB_INT6_BIAS * _mm512_reduce_add_epi32(sum);
}

/* s: of each query and all keys, CODES_BLOCK apart. queries is a constant; so is blocks (per key), unless it is 0. */
LANES_INLINE void key_scores(float *s, const cached_q *q, const code_block *x, int queries, int blocks) {
    int64_t bytes = blocks ? blocks * BB_KV_BLOCK : x->row_bytes, size = x->keys * x->row_bytes;
    const int8_t *k = x->k;
    for (int64_t j = 0; j < x->keys; j += 16) {
        vi lanes[UNIT_QUERIES][16];
        int64_t count = bb_min(x->keys - j, 16);
        for (int64_t i = 0; i < count; i++, k += x->row_bytes) {
            vi high[UNIT_QUERIES], low[UNIT_QUERIES];
            const int8_t *ahead = prefetch_target(x->k, k - x->k, size, x->v);
            for (int64_t line = -(k - x->k) & 63; line < bytes; line += 64) fetch_line(ahead + line);
            LANES_EACH(n, queries) high[n] = low[n] = vizero();
            for (int64_t at = 0, d = 0; at < bytes; at += BB_KV_BLOCK, d += 64) {
                vi codes = bb_int6_block_codes(k + at);
                LANES_EACH(n, queries) {
                    const int16_t *parts = q[n].codes + d;
                    high[n] = _mm512_dpbusd_epi32(high[n], codes, viload(parts));
                    low[n] = _mm512_dpbusd_epi32(low[n], codes, viload(parts + 32));
                }
            }
            LANES_EACH(n, queries) lanes[n][i] = viadd(_mm512_slli_epi32(high[n], 8), low[n]);
        }
        LANES_EACH(n, queries) {
            for (int64_t i = count; i < 16; i++) lanes[n][i] = vizero();
            vi sums = _mm512_sub_epi32(visum_each(lanes[n]), viset1(q[n].bias));
            vstore(s + n * CODES_BLOCK + j, vi_to_f32(sums) * (vset1(q[n].scale) * vload(x->k_scale + j)));
        }
    }
}

LANES_INLINE void scores(float *s, const cached_q *q, const code_block *x, int queries) {
    switch (x->row_bytes / BB_KV_BLOCK) {
    case 1: key_scores(s, q, x, queries, 1); break;
    case 2: key_scores(s, q, x, queries, 2); break;
    default: key_scores(s, q, x, queries, 0); break;
    }
}

static void unit(const forward_unit *u, void *scratch) {
    bb_arena arena = {scratch, 0};
    const bb_attention *a = &u->job->a;
    int64_t D = a->D, queries = a->H / a->Hk * a->Tq, keys = bb_min(a->Tk - u->key0, CODES_BLOCK);
    code_block x = code_block_layout(&arena, D);
    unit_weights w = unit_weights_layout(&arena);
    float *s = bb_arena_alloc(&arena, UNIT_QUERIES * CODES_BLOCK * sizeof(float));
    cached_rows rows = cached_from(u->job->kv, u->head, u->key0, D);
    load_scales(&x, &rows, keys);
    x.k = rows.k;
    x.v = rows.v;
    x.next = u->next ? u->next : rows.v;
    x.row_bytes = rows.row_bytes;
    for (int64_t i = 0; i < queries; i += UNIT_QUERIES) {
        int count = (int)bb_min(queries - i, UNIT_QUERIES);
        const cached_q *q = &u->queries[i];
        switch (count) {
        case 1: scores(s, q, &x, 1); break;
        case 2: scores(s, q, &x, 2); break;
        case 3: scores(s, q, &x, 3); break;
        default: scores(s, q, &x, UNIT_QUERIES); break;
        }
        for (int n = 0; n < count; n++)
            unit_softmax(&w, n, s + n * CODES_BLOCK, u->partials + (i + n) * u->partial_stride + bb_round_up(D, 16), &x,
                         bb_clamp(unit_keys(u, i + n), 0, keys));
        unit_values(u, &w, i, count, &x);
    }
}

const bb_codes_set SET_NAME(bb_int6) = {.query = query, .unit = unit};
