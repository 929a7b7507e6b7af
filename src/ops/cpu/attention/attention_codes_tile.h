// SPDX-License-Identifier: MIT
/* The forward pass for one tile of queries over keys and values that are cached as codes, in integers: the same results as
 * decoding, at twice the speed of f32. Queries are quantized as by cached_query, so the scores are exactly those of decoding;
 * weights are quantized with scale (their upper bound)/32767. A word is a pair of int16: two columns for the scores, two keys
 * for the weighted sums. Included by attention_forward_tile.h for VNNI only. */

/* Scratch of a task. Dw: D rounded up to 32. */
typedef struct codes_buffers {
    forward_buffers f;        /* s, sum, max, alpha, codes, o: (QUERIES, Dw); the others are unused */
    int16_t *q;               /* (QUERIES, Dw), and space for 32 zeros after the last query */
    float *q_scale;           /* (QUERIES) */
    __m512i *k;               /* panels (Dw / 2, KEYS) of words */
    __m512i *v;               /* panels (KEYS / 2, Dw) of words */
    int16_t *weight;          /* (ROWS, KEYS) */
    float *k_scale, *v_scale; /* (KEYS); v's in units of a weight's scale */
} codes_buffers;

KERNEL codes_buffers codes_layout(bb_arena *arena, int64_t D) {
    size_t dw = (size_t)bb_round_up(D, 32), panels = (size_t)bb_round_up(D, PANEL);
    codes_buffers c = {.f = {.q = NULL}};
    softmax_layout(&c.f, arena, ATTENTION_ROWS, ATTENTION_KEYS, dw);
    c.f.codes = bb_arena_alloc(arena, 2 * ATTENTION_KEYS * (size_t)bb_round_up(D, 16));
    c.q = bb_arena_alloc(arena, (ATTENTION_QUERIES * dw + 32) * sizeof(int16_t));
    c.q_scale = bb_arena_alloc(arena, ATTENTION_QUERIES * sizeof(float));
    c.k = bb_arena_alloc(arena, ATTENTION_KEYS * dw * sizeof(int16_t));
    c.v = bb_arena_alloc(arena, ATTENTION_KEYS * panels * sizeof(int16_t));
    c.weight = bb_arena_alloc(arena, ATTENTION_ROWS * ATTENTION_KEYS * sizeof(int16_t));
    c.k_scale = bb_arena_alloc(arena, ATTENTION_KEYS * sizeof(float));
    c.v_scale = bb_arena_alloc(arena, ATTENTION_KEYS * sizeof(float));
    return c;
}

KERNEL size_t codes_forward_bytes_avx512vnni(int64_t D) {
    bb_arena measure = {0};
    codes_layout(&measure, D);
    return measure.used;
}

/* 32 columns of a row of codes as int16; only `columns` are valid, the rest become zeros. */
INLINE __m512i wide_codes(const int8_t *codes, int64_t columns) {
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(columns >= 32 ? ~0u : columns > 0 ? (1u << columns) - 1 : 0, codes));
}

/* dst: panels (Dw / 2, KEYS): word (d, r) is columns 2d, 2d+1 of row r, 0 past the rows. */
INLINE void pack_code_keys(__m512i *dst, const int8_t *codes, int64_t width, int64_t rows) {
    int64_t words = bb_round_up(width, 32) / 2;
    for (int64_t r = 0; r < rows; r += 16)
        for (int64_t d = 0; d < words; d += 16) {
            __m512i x[16], *to = dst + (r / PANEL * words + d) * NR + r % PANEL / VL;
            for (int64_t i = 0; i < 16; i++)
                x[i] = wide_codes(codes + (r + i) * width + 2 * d, r + i < rows ? width - 2 * d : 0);
            bb_transpose16(x);
            for (int i = 0; i < 16; i++) to[i * NR] = x[i];
        }
}

/* dst: panels (KEYS / 2, Dw): word (r, d) is column d of rows 2r, 2r+1, 0 past the rows. */
INLINE void pack_code_values(__m512i *dst, const int8_t *codes, int64_t width, int64_t rows) {
    for (int64_t r = 0; r < rows; r += 2)
        for (int64_t d = 0; d < width; d += 32) {
            __m512i *to = dst + (d / PANEL * (ATTENTION_KEYS / 2) + r / 2) * NR + d % PANEL / VL;
            __m512i x = wide_codes(codes + r * width + d, width - d);
            __m512i y = wide_codes(codes + (r + 1) * width + d, r + 1 < rows ? width - d : 0);
            bb_pair_rows16(&to[0], &to[1], x, y);
        }
}

/* sum[m][n]: dot products of `k_words` words of MR rows, a_row bytes apart, with a panel's columns. nr is a constant. */
INLINE void code_block(__m512i sum[ATTENTION_MR][NR], const int16_t *a, int64_t a_row, const __m512i *b, int64_t k_words,
                       int nr) {
    for (int m = 0; m < ATTENTION_MR; m++)
        for (int n = 0; n < nr; n++) sum[m][n] = _mm512_setzero_si512();
    for (int64_t k = 0; k < k_words; k++, a += 2, b += NR) {
        __m512i right[NR];
        for (int n = 0; n < nr; n++) right[n] = b[n];
        for (int m = 0; m < ATTENTION_MR; m++) {
            __m512i left = four_bytes(a + m * a_row);
            for (int n = 0; n < nr; n++) sum[m][n] = dot_pairs(sum[m][n], left, right[n]);
        }
    }
}

/* A block of scores, in units of log2 e; key: the keys' scales. */
INLINE void code_scores(float *s, const int16_t *q, const float *q_scale, int64_t words, const __m512i *k, const float *key,
                        int nr) {
    __m512i sum[ATTENTION_MR][NR];
    code_block(sum, q, 2 * words, k, words, nr);
    for (int m = 0; m < ATTENTION_MR; m++)
        for (int n = 0; n < nr; n++)
            vstore(s + m * ATTENTION_KEYS + n * VL, _mm512_cvtepi32_ps(sum[m][n]) * (vset1(q_scale[m]) * vload(key + n * VL)));
}

/* A block of o = alpha o + scale * weighted sums; if alpha is NULL, o is not read. */
INLINE void code_sums(float *o, int64_t ldo, const int16_t *weight, const __m512i *v, int64_t pairs, float weight_scale,
                      const float *alpha, int nr) {
    __m512i sum[ATTENTION_MR][NR];
    code_block(sum, weight, ATTENTION_KEYS, v, pairs, nr);
    for (int m = 0; m < ATTENTION_MR; m++)
        for (int n = 0; n < nr; n++) {
            vf x = _mm512_cvtepi32_ps(sum[m][n]) * vset1(weight_scale);
            if (alpha) x = vfma(vload(o + m * ldo + n * VL), vset1(alpha[m]), x);
            vstore(o + m * ldo + n * VL, x);
        }
}

/* The weights of `part` rows, times their values' scales, as integers, as far as a register block reads. */
INLINE void round_weights(const codes_buffers *c, int64_t part, int64_t keys, int64_t diagonal) {
    for (int64_t m = 0; m < part; m++) {
        int64_t seen = bb_clamp(m + diagonal + 1 + ATTENTION_MR, 0, bb_round_up(keys, 2));
        for (int64_t j = 0; j < seen; j += VL) {
            vf scaled = vload(c->f.s + m * ATTENTION_KEYS + j) * vload(c->v_scale + j);
            _mm256_storeu_si256((__m256i_u *)(c->weight + m * ATTENTION_KEYS + j),
                                _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(scaled)));
        }
    }
}

/* The scales of a tile's keys, and of its values in units of the weights' scale, which is returned. */
INLINE float tile_scales(const codes_buffers *c, const cached_rows *codes, int64_t keys) {
    vf largest = vset1(0.0f);
    for (int64_t j = 0; j < ATTENTION_KEYS; j += VL) {
        vf scales = vload_first(codes->v_scale + j, bb_clamp(keys - j, 0, VL));
        largest = vmax(largest, scales);
        vstore(c->v_scale + j, scales);
        vstore(c->k_scale + j, vload_first(codes->k_scale + j, bb_clamp(keys - j, 0, VL)));
    }
    float max_weight = vreduce_max(largest);
    vf inverse = vset1(max_weight > 0.0f ? 32767.0f / max_weight : 0.0f);
    for (int64_t j = 0; j < ATTENTION_KEYS; j += VL) vstore(c->v_scale + j, vload(c->v_scale + j) * inverse);
    return max_weight / 32767.0f;
}

/* Like forward_tile. */
KERNEL void codes_forward_tile_avx512vnni(float *o, const float *q, const bb_kv_layer *kv, const bb_attention *a, int64_t h,
                                          int64_t t0, void *scratch) {
    bb_arena arena = {scratch, 0};
    int64_t D = a->D, dw = bb_round_up(D, 32), rows = bb_clamp(a->Tq - t0, 0, ATTENTION_QUERIES);
    int64_t see = t0 + a->Tk - a->Tq; /* query m of the tile sees keys 0..m + see */
    codes_buffers c = codes_layout(&arena, D);
    for (int64_t m = 0; m < bb_round_up(rows, ATTENTION_MR); m++) {
        cached_q row = {.q_codes = c.q + m * dw};
        if (m < rows)
            cached_query(&row, q + (t0 + m) * a->q_stride + h * D, D);
        else
            memset(row.q_codes, 0, (size_t)dw * sizeof *row.q_codes);
        c.q_scale[m] = row.scale;
    }
    for (int64_t key0 = 0; key0 < see + rows; key0 += ATTENTION_KEYS) {
        int64_t keys = bb_clamp(see + rows - key0, 0, ATTENTION_KEYS);
        cached_rows codes = cached_from(kv, h / (a->H / a->Hk), key0, D);
        if (kv->type == BB_KV_INT6) cached_unpack(&codes, c.f.codes, keys, ATTENTION_KEYS, D);
        float weight_scale = tile_scales(&c, &codes, keys);
        pack_code_keys(c.k, codes.k, codes.width, keys);
        pack_code_values(c.v, codes.v, codes.width, keys);
        for (int64_t m = 0; m < rows; m += ATTENTION_ROWS) {
            int64_t part = bb_clamp(bb_round_up(rows - m, ATTENTION_MR), 0, ATTENTION_ROWS), diagonal = m + see - key0;
            if (diagonal + part <= 0) continue;
            for (int64_t n = 0; n < keys; n += PANEL)
                for (int64_t i = 0; i < part; i += ATTENTION_MR) {
                    int64_t seen = bb_clamp(i + diagonal + ATTENTION_MR, 0, keys) - n;
                    const int16_t *left = c.q + (m + i) * dw;
                    const __m512i *right = c.k + n / VL * (dw / 2);
                    float *s = c.f.s + i * ATTENTION_KEYS + n;
                    if (seen <= 0) continue;
                    switch (bb_clamp((seen + VL - 1) / VL, 1, NR)) {
                    case 1: code_scores(s, left, c.q_scale + m + i, dw / 2, right, c.k_scale + n, 1); break;
                    case 2: code_scores(s, left, c.q_scale + m + i, dw / 2, right, c.k_scale + n, 2); break;
                    case 3: code_scores(s, left, c.q_scale + m + i, dw / 2, right, c.k_scale + n, 3); break;
                    default: code_scores(s, left, c.q_scale + m + i, dw / 2, right, c.k_scale + n, 4); break;
                    }
                }
            softmax(&c.f, m, part, keys, diagonal, 1.0f, key0 == 0);
            round_weights(&c, part, keys, diagonal);
            for (int64_t n = 0; n < dw; n += PANEL)
                for (int64_t i = 0; i < part; i += ATTENTION_MR) {
                    int64_t pairs = (bb_clamp(i + diagonal + ATTENTION_MR, 0, keys) + 1) / 2;
                    const int16_t *left = c.weight + i * ATTENTION_KEYS;
                    const __m512i *right = c.v + n / VL * (ATTENTION_KEYS / 2);
                    const float *alpha = key0 == 0 ? NULL : c.f.alpha + i;
                    float *to = c.f.o + (m + i) * dw + n;
                    if (pairs <= 0) continue;
                    if (dw - n >= PANEL)
                        code_sums(to, dw, left, right, pairs, weight_scale, alpha, 4);
                    else
                        code_sums(to, dw, left, right, pairs, weight_scale, alpha, 2);
                }
        }
    }
    store_tile(o, NULL, NULL, &c.f, dw, a, 0, h, t0, rows);
}
