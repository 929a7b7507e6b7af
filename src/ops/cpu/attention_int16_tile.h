/* The forward pass for one tile of queries in pairs of int16, up to twice as fast as f32: over keys and values that are cached
 * as codes, and over rows of f32 where a backward pass follows, whose own products are coarser. A word is a pair: of two
 * columns for the scores, of two keys for the weighted sums. Every sum fits 32 bits, so it is exact.
 *
 * Codes: a query is in steps as cached_query has it, so its scores are exactly decoding's; weights are in steps of what the
 * largest could be over 32767.
 *
 * Rows: queries and keys are in steps of their norm over STEPS_OF_NORM, so |qk| <= |q||k| bounds a score. Values are in steps
 * of their column's largest over VALUE_STEPS, and the weights of a query in a tile sum to no more than WEIGHT_STEPS steps.
 *
 * Included by attention_forward_tile.h for set VNNI alone. SPDX-License-Identifier: MIT */

enum { STEPS_OF_NORM = 46000, VALUE_STEPS = 8191, WEIGHT_STEPS = 262000 };
/* with what rounding adds: half a step a column, or key */
_Static_assert((STEPS_OF_NORM + 256LL) * (STEPS_OF_NORM + 256LL) < INT32_MAX, "a score of up to 2^18 columns fits");
_Static_assert((WEIGHT_STEPS + ATTENTION_KEYS / 2LL) * VALUE_STEPS < INT32_MAX, "a weighted sum fits");

/* Scratch of a task. Dw: D rounded up to 32. */
typedef struct int16_buffers {
    forward_buffers f;        /* s, sum, max, alpha, codes, o: (QUERIES, Dw); the others are not used */
    int16_t *q;               /* (QUERIES, Dw), and room for 32 zeros that a query may end with */
    float *q_scale;           /* (QUERIES), times log2 e / sqrt(D) */
    __m512i *k;               /* panels (Dw / 2, KEYS) of words */
    __m512i *v;               /* panels (KEYS / 2, Dw) of words */
    int16_t *rows;            /* (16, Dw) */
    int16_t *weight;          /* (ROWS, KEYS) */
    float *weight_step;       /* (ROWS) */
    float *top;               /* (ROWS), the largest weight of the tile */
    float *k_scale, *v_scale; /* (KEYS); of codes, v's in steps of a weight */
    float *column_step;       /* (Dw), of v */
} int16_buffers;

KERNEL int16_buffers carve_int16(bb_arena *arena, int64_t D) {
    size_t dw = (size_t)round_up(D, 32), panels = (size_t)round_up(D, PANEL);
    int16_buffers c = {.f = {.q = NULL}};
    c.f.s = bb_arena_take(arena, ATTENTION_ROWS * ATTENTION_KEYS * sizeof(float));
    c.f.o = bb_arena_take(arena, ATTENTION_QUERIES * dw * sizeof(float));
    c.f.sum = bb_arena_take(arena, ATTENTION_QUERIES * VL * sizeof(float));
    c.f.max = bb_arena_take(arena, ATTENTION_QUERIES * sizeof(float));
    c.f.alpha = bb_arena_take(arena, ATTENTION_ROWS * sizeof(float));
    c.f.codes = bb_arena_take(arena, 2 * ATTENTION_KEYS * (size_t)round_up(D, 16));
    c.q = bb_arena_take(arena, (ATTENTION_QUERIES * dw + 32) * sizeof(int16_t));
    c.q_scale = bb_arena_take(arena, ATTENTION_QUERIES * sizeof(float));
    c.k = bb_arena_take(arena, ATTENTION_KEYS * dw * sizeof(int16_t));
    c.v = bb_arena_take(arena, ATTENTION_KEYS * panels * sizeof(int16_t));
    c.weight = bb_arena_take(arena, ATTENTION_ROWS * ATTENTION_KEYS * sizeof(int16_t));
    c.rows = bb_arena_take(arena, 16 * dw * sizeof(int16_t));
    c.weight_step = bb_arena_take(arena, ATTENTION_ROWS * sizeof(float));
    c.top = bb_arena_take(arena, ATTENTION_ROWS * sizeof(float));
    c.k_scale = bb_arena_take(arena, ATTENTION_KEYS * sizeof(float));
    c.v_scale = bb_arena_take(arena, ATTENTION_KEYS * sizeof(float));
    c.column_step = bb_arena_take(arena, dw * sizeof(float));
    return c;
}

KERNEL size_t int16_bytes_avx512vnni(int64_t D) {
    bb_arena measure = {0};
    carve_int16(&measure, D);
    return measure.used;
}

/* -- packing -------------------------------------------------------------------------------------------------------------- */
/* 32 columns of a row of codes, of which `columns` are there, as int16; zeros past them. */
INLINE __m512i wide_codes(const int8_t *codes, int64_t columns) {
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(columns >= 32 ? ~0u : columns > 0 ? (1u << columns) - 1 : 0, codes));
}

/* VL elements in steps. What is not finite becomes any number: its step is NaN or infinite. */
INLINE __m256i to_steps(vf x, vf inverse) { return _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x * inverse)); }

/* 1 / step; 0 where that is out of range. */
INLINE vf inverse_steps(vf step) {
    return _mm512_maskz_div_ps(_mm512_cmp_ps_mask(step, vset1(0x1p-120f), _CMP_GT_OQ), vset1(1.0f), step);
}

INLINE __m512i magnitude(vf x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MAX)); }

INLINE vf load_columns(const float *row, int64_t columns) {
    return columns >= VL ? vload(row) : vload_first(row, columns > 0 ? columns : 0);
}

/* A query or key as int16, zeros past D; its step, which is not finite where an element is not. */
INLINE float steps_of_norm(int16_t *to, const float *row, int64_t D) {
    vf squares = vset1(0.0f);
    __m512i most = _mm512_setzero_si512(); /* as bits, which order as the numbers do, NaN last */
    for (int64_t d = 0; d < D; d += VL) {
        vf x = load_columns(row + d, D - d);
        squares = vfma(x, x, squares);
        most = _mm512_max_epu32(most, magnitude(x));
    }
    float largest = _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32((int)_mm512_reduce_max_epu32(most))));
    float by_norm = sqrtf(vreduce_add(squares)) / STEPS_OF_NORM, by_largest = largest / INT16_MAX;
    float step = by_largest > by_norm ? by_largest : by_norm;
    vf inverse = inverse_steps(vset1(step));
    for (int64_t d = 0; d < round_up(D, 32); d += VL)
        _mm256_storeu_si256((__m256i_u *)(to + d), to_steps(load_columns(row + d, D - d), inverse));
    return step;
}

/* dst: panels (Dw / 2, KEYS): word (d, r) is columns 2d, 2d+1 of row r, 0 past the rows. */
INLINE void pack_code_keys(__m512i *dst, const int8_t *codes, int64_t width, int64_t rows) {
    int64_t words = round_up(width, 32) / 2;
    for (int64_t r = 0; r < rows; r += 16)
        for (int64_t d = 0; d < words; d += 16) {
            __m512i x[16], *to = dst + (r / PANEL * words + d) * NR + r % PANEL / VL;
            for (int64_t i = 0; i < 16; i++)
                x[i] = wide_codes(codes + (r + i) * width + 2 * d, r + i < rows ? width - 2 * d : 0);
            bb_transpose16(x);
            for (int i = 0; i < 16; i++) to[i * NR] = x[i];
        }
}

/* The same from rows of f32, and c.k_scale. */
INLINE void pack_row_keys(const int16_buffers *c, const float *k, int64_t stride, int64_t rows, int64_t D) {
    int64_t dw = round_up(D, 32);
    for (int64_t r = 0; r < rows; r += 16) {
        for (int64_t i = 0; i < 16; i++) {
            if (r + i + PREFETCH_ROWS < rows) prefetch_row(k + (r + i + PREFETCH_ROWS) * stride, (size_t)D * sizeof *k);
            if (r + i < rows) {
                c->k_scale[r + i] = steps_of_norm(c->rows + i * dw, k + (r + i) * stride, D);
            } else {
                c->k_scale[r + i] = 0.0f;
                memset(c->rows + i * dw, 0, (size_t)dw * sizeof *c->rows);
            }
        }
        for (int64_t d = 0; d < dw / 2; d += 16) {
            __m512i x[16], *to = c->k + (r / PANEL * (dw / 2) + d) * NR + r % PANEL / VL;
            for (int64_t i = 0; i < 16; i++) x[i] = _mm512_loadu_si512(c->rows + i * dw + 2 * d);
            bb_transpose16(x);
            for (int i = 0; i < 16; i++) to[i * NR] = x[i];
        }
    }
}

/* Words d..d+31 of rows r, r+1 of panels (KEYS / 2, Dw): x and y are these rows' columns. */
INLINE void store_word_pairs(__m512i *panels, int64_t r, int64_t d, __m512i x, __m512i y) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36,
                                         4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    __m512i *to = panels + (d / PANEL * (ATTENTION_KEYS / 2) + r / 2) * NR + d % PANEL / VL;
    to[0] = _mm512_permutex2var_epi16(x, low, y);
    to[1] = _mm512_permutex2var_epi16(x, high, y);
}

/* dst: panels (KEYS / 2, Dw): word (r, d) is column d of rows 2r, 2r+1, 0 past the rows. */
INLINE void pack_code_values(__m512i *dst, const int8_t *codes, int64_t width, int64_t rows) {
    for (int64_t r = 0; r < rows; r += 2)
        for (int64_t d = 0; d < width; d += 32)
            store_word_pairs(dst, r, d, wide_codes(codes + r * width + d, width - d),
                             wide_codes(codes + (r + 1) * width + d, r + 1 < rows ? width - d : 0));
}

/* The same from rows of f32, and c.column_step. */
INLINE void pack_row_values(const int16_buffers *c, const float *v, int64_t stride, int64_t rows, int64_t D) {
    for (int64_t d = 0; d < D; d += 32) {
        __m512i most[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
        vf inverse[2];
        for (int64_t r = 0; r < rows; r++) {
            if (r + PREFETCH_ROWS < rows) prefetch_row(v + (r + PREFETCH_ROWS) * stride + d, 32 * sizeof *v);
            for (int i = 0; i < 2; i++)
                most[i] = _mm512_max_epu32(most[i], magnitude(load_columns(v + r * stride + d + i * VL, D - d - i * VL)));
        }
        for (int i = 0; i < 2; i++) {
            vf step = _mm512_castsi512_ps(most[i]) * vset1(1.0f / VALUE_STEPS);
            inverse[i] = inverse_steps(step);
            vstore(c->column_step + d + i * VL, step);
        }
        for (int64_t r = 0; r < rows; r += 2) {
            __m512i pair[2];
            for (int64_t odd = 0; odd < 2; odd++) {
                int64_t columns = r + odd < rows ? D - d : 0;
                const float *from = v + (r + odd) * stride + d;
                __m256i low = to_steps(load_columns(from, columns), inverse[0]);
                __m256i high = to_steps(load_columns(from + VL, columns - VL), inverse[1]);
                pair[odd] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
            }
            store_word_pairs(c->v, r, d, pair[0], pair[1]);
        }
    }
}

/* -- products ------------------------------------------------------------------------------------------------------------- */
/* sum[m][n]: the dot products of `steps` words of MR rows, a_row bytes apart, with a panel's columns. nr is a constant. */
INLINE void int16_block(__m512i sum[ATTENTION_MR][NR], const int16_t *a, int64_t a_row, const __m512i *b, int64_t steps,
                        int nr) {
    for (int m = 0; m < ATTENTION_MR; m++)
        for (int n = 0; n < nr; n++) sum[m][n] = _mm512_setzero_si512();
    for (int64_t k = 0; k < steps; k++, a += 2, b += NR) {
        __m512i right[NR];
        for (int n = 0; n < nr; n++) right[n] = b[n];
        for (int m = 0; m < ATTENTION_MR; m++) {
            __m512i left = four_bytes(a + m * a_row);
            for (int n = 0; n < nr; n++) sum[m][n] = dot_pairs(sum[m][n], left, right[n]);
        }
    }
}

/* A block of scores, in units of log2 e; key: the keys' scales. */
INLINE void int16_scores(float *s, const int16_t *q, const float *q_scale, int64_t words, const __m512i *k, const float *key,
                         int nr) {
    __m512i sum[ATTENTION_MR][NR];
    int16_block(sum, q, 2 * words, k, words, nr);
    for (int m = 0; m < ATTENTION_MR; m++)
        for (int n = 0; n < nr; n++)
            vstore(s + m * ATTENTION_KEYS + n * VL, _mm512_cvtepi32_ps(sum[m][n]) * (vset1(q_scale[m]) * vload(key + n * VL)));
}

/* A block of o = alpha o + weighted sums, whose units are a row's step times column[n]; column NULL: times 1. alpha NULL: o is
 * not read. */
INLINE void int16_sums(float *o, int64_t ldo, const int16_t *weight, const __m512i *v, int64_t pairs, const float *step,
                       const float *column, const float *alpha, int nr) {
    __m512i sum[ATTENTION_MR][NR];
    int16_block(sum, weight, ATTENTION_KEYS, v, pairs, nr);
    for (int m = 0; m < ATTENTION_MR; m++)
        for (int n = 0; n < nr; n++) {
            vf x = _mm512_cvtepi32_ps(sum[m][n]) * vset1(step[m]);
            if (column) x = x * vload(column + n * VL);
            if (alpha) x = vfma(vload(o + m * ldo + n * VL), vset1(alpha[m]), x);
            vstore(o + m * ldo + n * VL, x);
        }
}

/* -- weights -------------------------------------------------------------------------------------------------------------- */
/* The weights of `part` rows, times their values' scales, as integers; as far as a register block reads. */
INLINE void round_weights(const int16_buffers *c, int64_t part, int64_t keys, int64_t diagonal) {
    for (int64_t m = 0; m < part; m++) {
        int64_t seen = clamp_to(m + diagonal + 1 + ATTENTION_MR, 0, round_up(keys, 2));
        for (int64_t j = 0; j < seen; j += VL)
            _mm256_storeu_si256((__m256i_u *)(c->weight + m * ATTENTION_KEYS + j),
                                to_steps(vload(c->f.s + m * ATTENTION_KEYS + j), vload(c->v_scale + j)));
    }
}

/* The scales of a tile's keys; of its values in units of a weight's step, which is set. */
INLINE void tile_scales(const int16_buffers *c, const cached_rows *codes, int64_t keys) {
    vf largest = vset1(0.0f);
    for (int64_t j = 0; j < ATTENTION_KEYS; j += VL) {
        vf scales = vload_first(codes->v_scale + j, clamp_to(keys - j, 0, VL));
        largest = vmax(largest, scales);
        vstore(c->v_scale + j, scales);
        vstore(c->k_scale + j, vload_first(codes->k_scale + j, clamp_to(keys - j, 0, VL)));
    }
    float most = vreduce_max(largest);
    vf inverse = vset1(most > 0.0f ? INT16_MAX / most : 0.0f);
    for (int64_t j = 0; j < ATTENTION_KEYS; j += VL) vstore(c->v_scale + j, vload(c->v_scale + j) * inverse);
    for (int64_t m = 0; m < ATTENTION_ROWS; m++) c->weight_step[m] = most / INT16_MAX;
}

/* The weights 2^(s - max) of the first `seen` of `count` vectors of scores, as integers, zeros past them; what is added to
 * their sums. top: the largest of them. */
INLINE vf row_weights(int16_t *weight, float *weight_step, const float *s, float max, float top, int64_t seen, int64_t count) {
    vf x[ATTENTION_KEYS / VL], total = vset1(0.0f), minus_max = vset1(-max);
    for (int64_t j = 0; j < count; j++) {
        x[j] = vexp2(vload(s + j * VL) + minus_max);
        if ((j + 1) * VL > seen) x[j] = vkeep(x[j], clamp_to(seen - j * VL, 0, VL), 0.0f);
        total = total + x[j];
    }
    float by_sum = WEIGHT_STEPS / vreduce_add(total), by_top = INT16_MAX / top, inverse = by_top < by_sum ? by_top : by_sum;
    inverse = inverse < 1e30f ? inverse : 1e30f; /* the tile weighs nothing */
    *weight_step = inverse;
    for (int64_t j = 0; j < count; j++) _mm256_storeu_si256((__m256i_u *)(weight + j * VL), to_steps(x[j], vset1(inverse)));
    return total;
}

/* What softmax and round_weights do, for rows: each row's weights in steps of its own. */
INLINE void rows_softmax(const int16_buffers *c, int64_t row0, int64_t part, int64_t keys, int64_t diagonal, bool first) {
    const forward_buffers *f = &c->f;
    update_max(f->max + row0, f->alpha, c->top, f->s, part, keys, diagonal, 1.0f, first);
    for (int64_t m = 0; m < part; m++) {
        int64_t seen = clamp_to(m + diagonal + 1, 0, keys);
        int64_t read = (clamp_to(m / ATTENTION_MR * ATTENTION_MR + diagonal + ATTENTION_MR, 0, keys) + VL - 1) / VL;
        const float *s = f->s + m * ATTENTION_KEYS;
        float max = f->max[row0 + m], *sum = f->sum + (row0 + m) * VL;
        int16_t *weight = c->weight + m * ATTENTION_KEYS;
        vf total;
        if (read == 0) continue;
        if (seen == ATTENTION_KEYS)
            total = row_weights(weight, c->weight_step + m, s, max, c->top[m], ATTENTION_KEYS, ATTENTION_KEYS / VL);
        else
            total = row_weights(weight, c->weight_step + m, s, max, c->top[m], seen, read);
        vstore(sum, first ? total : vfma(vload(sum), vset1(f->alpha[m]), total));
    }
    for (int64_t m = 0; m < part; m += VL) vstore(c->weight_step + m, vset1(1.0f) / vload(c->weight_step + m));
}

/* -- a tile --------------------------------------------------------------------------------------------------------------- */
/* c.f.s: the scores of `part` queries from m on, which see keys 0..i + diagonal, in units of log2 e. */
INLINE void tile_scores(const int16_buffers *c, int64_t m, int64_t part, int64_t keys, int64_t diagonal, int64_t dw) {
    for (int64_t n = 0; n < keys; n += PANEL)
        for (int64_t i = 0; i < part; i += ATTENTION_MR) {
            int64_t seen = clamp_to(i + diagonal + ATTENTION_MR, 0, keys) - n;
            const int16_t *left = c->q + (m + i) * dw;
            const __m512i *right = c->k + n / VL * (dw / 2);
            float *s = c->f.s + i * ATTENTION_KEYS + n;
            if (seen <= 0) continue;
            switch (clamp_to((seen + VL - 1) / VL, 1, NR)) {
            case 1: int16_scores(s, left, c->q_scale + m + i, dw / 2, right, c->k_scale + n, 1); break;
            case 2: int16_scores(s, left, c->q_scale + m + i, dw / 2, right, c->k_scale + n, 2); break;
            case 3: int16_scores(s, left, c->q_scale + m + i, dw / 2, right, c->k_scale + n, 3); break;
            default: int16_scores(s, left, c->q_scale + m + i, dw / 2, right, c->k_scale + n, 4); break;
            }
        }
}

/* c.f.o of these queries brought up to date with their weights of the tile. by_column, a constant: c.column_step counts. */
INLINE void tile_sums(const int16_buffers *c, int64_t m, int64_t part, int64_t keys, int64_t diagonal, int64_t dw, bool first,
                      bool by_column) {
    for (int64_t n = 0; n < dw; n += PANEL)
        for (int64_t i = 0; i < part; i += ATTENTION_MR) {
            int64_t pairs = (clamp_to(i + diagonal + ATTENTION_MR, 0, keys) + 1) / 2;
            const int16_t *left = c->weight + i * ATTENTION_KEYS;
            const __m512i *right = c->v + n / VL * (ATTENTION_KEYS / 2);
            const float *alpha = first ? NULL : c->f.alpha + i, *step = c->weight_step + i;
            const float *column = by_column ? c->column_step + n : NULL;
            float *to = c->f.o + (m + i) * dw + n;
            if (pairs <= 0) continue;
            if (dw - n >= PANEL)
                int16_sums(to, dw, left, right, pairs, step, column, alpha, 4);
            else
                int16_sums(to, dw, left, right, pairs, step, column, alpha, 2);
        }
}

/* A share of the rows of the next tile of keys and values, `next` of them, into the second-level cache: that of the queries
 * from m on, of `rows`. */
INLINE void fetch_next(const float *k, const float *v, int64_t stride, int64_t next, int64_t m, int64_t rows, int64_t D) {
    int64_t end = clamp_to(m + ATTENTION_ROWS, 0, rows) * next / rows;
    for (int64_t r = m * next / rows; r < end; r++)
        for (int64_t d = 0; d < D; d += VL) {
            __builtin_prefetch(k + r * stride + d, 0, 2);
            __builtin_prefetch(v + r * stride + d, 0, 2);
        }
}

/* As forward_tile; whether kv is NULL is a constant. */
INLINE void int16_tile(float *o, bb_bf16 *kept, float *lse, const float *q, const float *k, const float *v, const bb_kv *kv,
                       const bb_attention *a, int64_t b, int64_t h, int64_t t0, void *scratch) {
    bb_arena arena = {scratch, 0};
    int64_t D = a->D, dw = round_up(D, 32), rows = clamp_to(a->Tq - t0, 0, ATTENTION_QUERIES);
    int64_t see = t0 + a->Tk - a->Tq; /* query m of the tile sees keys 0..m + see */
    int16_buffers c = carve_int16(&arena, D);
    for (int64_t m = 0; m < round_up(rows, ATTENTION_MR); m++) {
        const float *row = q + (b * a->Tq + t0 + m) * a->q_stride + h * D;
        cached_q query = {.steps = c.q + m * dw};
        if (m >= rows)
            memset(query.steps, 0, (size_t)dw * sizeof *query.steps);
        else if (kv)
            cached_query(&query, row, D);
        else
            query.scale = steps_of_norm(query.steps, row, D) * (float)(M_LOG2E / sqrt((double)D));
        c.q_scale[m] = query.scale;
    }
    for (int64_t key0 = 0; key0 < see + rows; key0 += ATTENTION_KEYS) {
        int64_t keys = clamp_to(see + rows - key0, 0, ATTENTION_KEYS), head = h / (a->H / a->Hk);
        int64_t at = b * a->kv_batch_stride + key0 * a->kv_stride + head * D;
        if (kv) {
            cached_rows codes = cached_from(kv, head, key0, D);
            if (kv->type == BB_KV_INT6) cached_whole(&codes, c.f.codes, keys, ATTENTION_KEYS, D);
            tile_scales(&c, &codes, keys);
            pack_code_keys(c.k, codes.k, codes.width, keys);
            pack_code_values(c.v, codes.v, codes.width, keys);
        } else {
            pack_row_keys(&c, k + at, a->kv_stride, keys, D);
            pack_row_values(&c, v + at, a->kv_stride, keys, D);
        }
        for (int64_t m = 0; m < rows; m += ATTENTION_ROWS) {
            int64_t part = clamp_to(round_up(rows - m, ATTENTION_MR), 0, ATTENTION_ROWS), diagonal = m + see - key0;
            if (!kv)
                fetch_next(k + at + keys * a->kv_stride, v + at + keys * a->kv_stride, a->kv_stride,
                           clamp_to(see + rows - key0 - keys, 0, ATTENTION_KEYS), m, rows, D);
            if (diagonal + part <= 0) continue;
            tile_scores(&c, m, part, keys, diagonal, dw);
            if (kv) {
                softmax(&c.f, m, part, keys, diagonal, 1.0f, key0 == 0);
                round_weights(&c, part, keys, diagonal);
            } else {
                rows_softmax(&c, m, part, keys, diagonal, key0 == 0);
            }
            tile_sums(&c, m, part, keys, diagonal, dw, key0 == 0, kv == NULL);
        }
    }
    store_tile(o, kept, lse, &c.f, dw, a, b, h, t0, rows);
}

KERNEL void codes_tile_avx512vnni(float *o, const float *q, const bb_kv *kv, const bb_attention *a, int64_t h, int64_t t0,
                                  void *scratch) {
    int16_tile(o, NULL, NULL, q, NULL, NULL, kv, a, 0, h, t0, scratch);
}

KERNEL void rows_tile_avx512vnni(float *o, bb_bf16 *kept, float *lse, const float *q, const float *k, const float *v,
                                 const bb_attention *a, int64_t b, int64_t h, int64_t t0, void *scratch) {
    int16_tile(o, kept, lse, q, k, v, NULL, a, b, h, t0, scratch);
}
