// SPDX-License-Identifier: MIT
/* The backward pass of a tile in int8, for set VNNI. The sides of the products are in steps of
 *   s, dp: the row's largest over 127, of q, k, do and v, so the scores are the forward pass's;
 *   dv, dk: of p and ds, the key's largest in the tile over 255 and 127; of do and q, the column's in the tile over 127;
 *   dq: of ds, the query's largest in the tile over 127; of k, the column's in the tile. */

/* A side of queries: q, or do. D4: D rounded up to 4; Dp: D rounded up to VL. */
typedef struct query_side {
    int8_t *rows;       /* (G, Tp, D4) */
    float *row_step;    /* (G, Tp) */
    int32_t *row_begin; /* (G, Tp) */
    __m512i *quads;     /* (G, Tp / QUERIES) panels (QUERIES / 4, Dp) */
    float *column_step; /* (G, Tp / QUERIES, Dp) */
} query_side;

/* How n numbers of a tile are rounded. */
typedef struct tile_steps {
    uint32_t *most; /* (n) or (n, VL), lane by lane: the largest magnitude */
    float *step, *inverse;
} tile_steps;

/* Scratch of a task. */
typedef struct backward_buffers {
    query_side q, d_o;                    /* q's quads plus 128 */
    __m512i *k_transposed, *v_transposed; /* panels (D4 / 4, KEYS), plus 128 */
    float *k_step, *v_step;               /* (KEYS) */
    __m512i *k_quads;                     /* panels (KEYS / 4, Dp) */
    float *k_column_step;                 /* (Dp) */
    int32_t *k_begin;                     /* (KEYS / 4 + 1, Dp) */
    float *p, *ds;                        /* (KEYS / PANEL, QUERIES, PANEL) */
    tile_steps p_key, ds_key, ds_query;
    __m512i *p_quads, *ds_quads; /* (KEYS / VL, QUERIES / 4): of four queries, VL keys */
    int32_t *ds_begin;           /* (KEYS): where sums with ds begin */
    __m512i *ds_rows;            /* (QUERIES / 4, KEYS / VL), plus 128: bytes_of four queries */
    int8_t *packing;             /* (16, D rounded up to 64) */
    float *dk, *dv, *lse, *delta;
    int64_t keys;
} backward_buffers;

INLINE query_side carve_side(bb_arena *arena, size_t rows, int64_t D) {
    query_side s;
    s.rows = bb_arena_take(arena, rows * (size_t)bb_round_up(D, QUAD));
    s.row_step = bb_arena_take(arena, rows * sizeof(float));
    s.row_begin = bb_arena_take(arena, rows * sizeof(int32_t));
    s.quads = bb_arena_take(arena, rows * (size_t)bb_round_up(D, PANEL));
    s.column_step = bb_arena_take(arena, rows / ATTENTION_QUERIES * (size_t)bb_round_up(D, VL) * sizeof(float));
    return s;
}

INLINE tile_steps carve_steps(bb_arena *arena, size_t n, size_t lanes) {
    tile_steps s;
    s.most = bb_arena_take(arena, n * lanes * sizeof(uint32_t));
    s.step = bb_arena_take(arena, n * sizeof(float));
    s.inverse = bb_arena_take(arena, n * sizeof(float));
    return s;
}

KERNEL backward_buffers carve_backward(bb_arena *arena, const bb_attention *a) {
    size_t d4 = (size_t)bb_round_up(a->D, QUAD), dp = (size_t)bb_round_up(a->D, VL), tile = ATTENTION_QUERIES * ATTENTION_KEYS;
    size_t rows = (size_t)(a->H / a->Hk * bb_round_up(a->Tq, ATTENTION_QUERIES));
    backward_buffers f;
    f.q = carve_side(arena, rows, a->D);
    f.d_o = carve_side(arena, rows, a->D);
    f.k_transposed = bb_arena_take(arena, ATTENTION_KEYS * d4);
    f.v_transposed = bb_arena_take(arena, ATTENTION_KEYS * d4);
    f.k_step = bb_arena_take(arena, ATTENTION_KEYS * sizeof(float));
    f.v_step = bb_arena_take(arena, ATTENTION_KEYS * sizeof(float));
    f.k_quads = bb_arena_take(arena, ATTENTION_KEYS * (size_t)bb_round_up(a->D, PANEL));
    f.k_column_step = bb_arena_take(arena, dp * sizeof(float));
    f.k_begin = bb_arena_take(arena, (ATTENTION_KEYS / QUAD + 1) * dp * sizeof(int32_t));
    f.p = bb_arena_take(arena, tile * sizeof(float));
    f.ds = bb_arena_take(arena, tile * sizeof(float));
    f.p_key = carve_steps(arena, ATTENTION_KEYS, 1);
    f.ds_key = carve_steps(arena, ATTENTION_KEYS, 1);
    f.ds_query = carve_steps(arena, ATTENTION_QUERIES, VL);
    f.p_quads = bb_arena_take(arena, tile);
    f.ds_quads = bb_arena_take(arena, tile);
    f.ds_begin = bb_arena_take(arena, ATTENTION_KEYS * sizeof(int32_t));
    f.ds_rows = bb_arena_take(arena, tile);
    f.packing = bb_arena_take(arena, 16 * (size_t)bb_round_up(a->D, 64));
    f.dk = bb_arena_take(arena, ATTENTION_KEYS * dp * sizeof(float));
    f.dv = bb_arena_take(arena, ATTENTION_KEYS * dp * sizeof(float));
    f.lse = bb_arena_take(arena, rows * sizeof(float));
    f.delta = bb_arena_take(arena, rows * sizeof(float));
    f.keys = 0;
    return f;
}

/* -- packing --------------------------------------------------------------------------------------------------------------- */
/* Of tile `at` / QUERIES: its panels of quads. */
INLINE __m512i *side_quads(const query_side *s, int64_t at, int64_t D) {
    return s->quads + at / VL * (bb_round_up(D, PANEL) / QUAD);
}

INLINE const float *side_column_step(const query_side *s, int64_t at, int64_t D) {
    return s->column_step + at / ATTENTION_QUERIES * bb_round_up(D, VL);
}

/* plus: 128 is added to the quads. */
INLINE void pack_side(const query_side *s, int64_t at, act_rows x, int64_t rows, int64_t D, bool plus) {
    int64_t padded = bb_round_up(rows, ATTENTION_QUERIES);
    pack_int8_rows(s->rows + at * bb_round_up(D, QUAD), s->row_step + at, s->row_begin + at, x, rows, padded, D);
    for (int64_t t = 0; t < padded; t += ATTENTION_QUERIES)
        pack_int8_quads(side_quads(s, at + t, D), ATTENTION_QUERIES / QUAD, (float *)side_column_step(s, at + t, D), NULL,
                        act_from(x, t), bb_clamp(rows - t, 0, ATTENTION_QUERIES), ATTENTION_QUERIES, D, plus);
}

INLINE void begin_queries(const backward_buffers *f, int64_t at, const bb_bf16 *q, int64_t q_stride, const bb_bf16 *d_o,
                          int64_t o_stride, int64_t rows, int64_t D) {
    pack_side(&f->q, at, (act_rows){q, q_stride, false}, rows, D, true);
    pack_side(&f->d_o, at, (act_rows){d_o, o_stride, false}, rows, D, false);
}

INLINE void begin_keys(backward_buffers *f, const bb_bf16 *k, const bb_bf16 *v, int64_t stride, int64_t keys, int64_t D) {
    const act_rows key_rows = {k, stride, false}, value_rows = {v, stride, false};
    f->keys = keys;
    pack_int8_columns(f->k_transposed, f->k_step, f->packing, key_rows, keys, D);
    pack_int8_columns(f->v_transposed, f->v_step, f->packing, value_rows, keys, D);
    pack_int8_quads(f->k_quads, ATTENTION_KEYS / QUAD, f->k_column_step, f->k_begin, key_rows, keys, bb_round_up(keys, QUAD), D,
                    false);
}

/* -- p and ds -------------------------------------------------------------------------------------------------------------- */
/* Where p and ds have query m and key n. */
INLINE int64_t tile_at(int64_t m, int64_t n) { return (n / PANEL * ATTENTION_QUERIES + m) * PANEL + n % PANEL; }

/* The vector from key n on as far as query m sees it, zeros past that. whole, a constant: it sees all of it. */
INLINE vf as_seen(vf x, const backward_buffers *f, int64_t m, int64_t n, int64_t diagonal, bool whole) {
    return whole ? x : vkeep(x, bb_clamp((m + diagonal + 1 < f->keys ? m + diagonal + 1 : f->keys) - n, 0, VL), 0.0f);
}

/* p of the queries m.. and nr vectors of keys from n on; at: of query m, as packed. */
INLINE void weights_block(const backward_buffers *f, int64_t at, int64_t m, int64_t n, int64_t diagonal, int64_t words, vf c,
                          int nr, bool whole) {
    __m512i sum[ATTENTION_MR][NR], most[NR];
    float *p = f->p + tile_at(m, n);
    begin_rows(sum, f->q.row_begin + at, nr);
    int8_block(sum, f->q.rows + at * words * QUAD, words * QUAD, QUAD, f->k_transposed + n / VL * words, words, nr, false);
    for (int j = 0; j < nr; j++) most[j] = _mm512_load_si512(f->p_key.most + n + j * VL);
    for (int i = 0; i < ATTENTION_MR; i++) {
        vf step = vset1(f->q.row_step[at + i]) * c, minus = vset1(-f->lse[at + i]);
        for (int j = 0; j < nr; j++) {
            vf s = _mm512_cvtepi32_ps(sum[i][j]) * vload(f->k_step + n + j * VL);
            vf x = as_seen(vexp2(vfma(s, step, minus)), f, m + i, n + j * VL, diagonal, whole);
            most[j] = _mm512_max_epu32(most[j], magnitude(x));
            vstore(p + i * PANEL + j * VL, x);
        }
    }
    for (int j = 0; j < nr; j++) _mm512_store_si512(f->p_key.most + n + j * VL, most[j]);
}

/* ds of these, from p. */
INLINE void gradients_block(const backward_buffers *f, int64_t at, int64_t m, int64_t n, int64_t diagonal, int64_t words,
                            int nr, bool whole) {
    __m512i sum[ATTENTION_MR][NR], most[NR];
    const float *p = f->p + tile_at(m, n);
    float *ds = f->ds + tile_at(m, n);
    begin_rows(sum, f->d_o.row_begin + at, nr);
    int8_block(sum, f->d_o.rows + at * words * QUAD, words * QUAD, QUAD, f->v_transposed + n / VL * words, words, nr, false);
    for (int j = 0; j < nr; j++) most[j] = _mm512_load_si512(f->ds_key.most + n + j * VL);
    for (int i = 0; i < ATTENTION_MR; i++) {
        vf step = vset1(f->d_o.row_step[at + i]), minus = vset1(-f->delta[at + i]);
        __m512i most_of_row = _mm512_load_si512(f->ds_query.most + (m + i) * VL);
        for (int j = 0; j < nr; j++) {
            vf d_p = vfma(_mm512_cvtepi32_ps(sum[i][j]) * vload(f->v_step + n + j * VL), step, minus);
            vf x = as_seen(d_p * vload(p + i * PANEL + j * VL), f, m + i, n + j * VL, diagonal, whole);
            most[j] = _mm512_max_epu32(most[j], magnitude(x));
            most_of_row = _mm512_max_epu32(most_of_row, magnitude(x));
            vstore(ds + i * PANEL + j * VL, x);
        }
        _mm512_store_si512(f->ds_query.most + (m + i) * VL, most_of_row);
    }
    for (int j = 0; j < nr; j++) _mm512_store_si512(f->ds_key.most + n + j * VL, most[j]);
}

/* The largest magnitudes have been found: n of them, in so many steps. */
INLINE void find_steps(const tile_steps *s, int64_t n, float steps) {
    for (int64_t i = 0; i < n; i += VL) {
        vf step = _mm512_castsi512_ps(_mm512_load_si512(s->most + i)) * vset1(1.0f / steps);
        vstore(s->step + i, step);
        vstore(s->inverse + i, inverse_steps(step));
    }
}

/* The bytes of these, of nr vectors of keys from n on. */
INLINE void round_block(const backward_buffers *f, int64_t m, int64_t n, int nr) {
    for (int j = 0; j < nr; j++, n += VL) {
        const float *p = f->p + tile_at(m, n), *ds = f->ds + tile_at(m, n);
        int64_t quad = n / VL * (ATTENTION_QUERIES / QUAD) + m / QUAD;
        vf p_inverse = vload(f->p_key.inverse + n), ds_inverse = vload(f->ds_key.inverse + n);
        __m512i x[QUAD], y[QUAD], begin = _mm512_load_si512(f->ds_begin + n);
        for (int i = 0; i < QUAD; i++) x[i] = to_int32(vload(p + i * PANEL), p_inverse);
        f->p_quads[quad] = quads_of(x, true);
        for (int i = 0; i < QUAD; i++) {
            vf z = vload(ds + i * PANEL);
            x[i] = to_int32(z, ds_inverse);
            y[i] = to_int32(z, vset1(f->ds_query.inverse[m + i]));
        }
        x[0] = quads_of(x, false);
        f->ds_quads[quad] = x[0];
        _mm512_store_si512(f->ds_begin + n, dot_quads(begin, _mm512_set1_epi8(1), x[0]));
        f->ds_rows[m / QUAD * (ATTENTION_KEYS / VL) + n / VL] = plus_128(bytes_of(y, false));
    }
}

/* p, ds and their bytes, of a tile of queries and one of keys. A register block of queries is computed as far as its last one
 * sees. */
INLINE void weights(const backward_buffers *f, int64_t at, int64_t rows, int64_t diagonal, int64_t D) {
    int64_t keys = f->keys, words = (D + QUAD - 1) / QUAD;
    vf c = vset1((float)(M_LOG2E / sqrt((double)D)));
    memset(f->p_key.most, 0, ATTENTION_KEYS * sizeof *f->p_key.most);
    memset(f->ds_key.most, 0, ATTENTION_KEYS * sizeof *f->ds_key.most);
    memset(f->ds_query.most, 0, (size_t)(bb_round_up(rows, VL) * VL) * sizeof *f->ds_query.most);
    for (int64_t n = 0; n < keys; n += PANEL)
        for (int64_t m = 0; m < rows; m += ATTENTION_MR) {
            int64_t seen = bb_clamp(m + diagonal + ATTENTION_MR, 0, keys) - n;
            if (seen <= 0) continue;
            if (n + PANEL <= keys && n + PANEL <= m + diagonal + 1) {
                weights_block(f, at + m, m, n, diagonal, words, c, NR, true);
                gradients_block(f, at + m, m, n, diagonal, words, NR, true);
            } else {
                WITH_NR((seen + VL - 1) / VL, weights_block(f, at + m, m, n, diagonal, words, c, NR_NOW, false))
                WITH_NR((seen + VL - 1) / VL, gradients_block(f, at + m, m, n, diagonal, words, NR_NOW, false))
            }
        }
    find_steps(&f->p_key, ATTENTION_KEYS, UINT8_MAX);
    find_steps(&f->ds_key, ATTENTION_KEYS, INT8_MAX);
    for (int64_t m = 0; m < rows; m++)
        f->ds_query.most[m] = _mm512_reduce_max_epu32(_mm512_load_si512(f->ds_query.most + m * VL));
    find_steps(&f->ds_query, rows, INT8_MAX);
    memset(f->ds_begin, 0, ATTENTION_KEYS * sizeof *f->ds_begin);
    for (int64_t n = 0; n < keys; n += PANEL)
        for (int64_t m = 0; m < rows; m += ATTENTION_MR) {
            int64_t seen = bb_clamp(m + diagonal + ATTENTION_MR, 0, keys) - n;
            if (seen > 0) WITH_NR((seen + VL - 1) / VL, round_block(f, m, n, NR_NOW))
        }
    for (int64_t n = 0; n < ATTENTION_KEYS; n++) f->ds_begin[n] *= -PLUS;
}

/* -- the gradients --------------------------------------------------------------------------------------------------------- */
/* A block of c += row_step column_step sum. */
INLINE void add_block(float *c, int64_t ldc, __m512i sum[ATTENTION_MR][NR], const float *row_step, const float *column_step,
                      int nr) {
    for (int i = 0; i < ATTENTION_MR; i++)
        for (int j = 0; j < nr; j++) {
            vf x = _mm512_cvtepi32_ps(sum[i][j]) * vset1(row_step[i]);
            vstore(c + i * ldc + j * VL, vfma(x, vload(column_step + j * VL), vload(c + i * ldc + j * VL)));
        }
}

/* A block of dv, or of dk, whose keys begin at m and columns at d: from the quads of p or ds, and those of do or q. begin:
 * NULL, or where the sums begin; the right side is plus 128 then. */
INLINE void keys_block(float *c, const __m512i *left, const tile_steps *left_steps, const int32_t *begin, const __m512i *right,
                       const float *right_step, int64_t m, int64_t d, int64_t first, int64_t last, int64_t dp, int nr) {
    __m512i sum[ATTENTION_MR][NR];
    const __m512i *quads = left + m / VL * (ATTENTION_QUERIES / QUAD) + first;
    begin_rows(sum, begin ? begin + m : NULL, nr);
    int8_block(sum, (const int32_t *)(const void *)quads + m % VL, sizeof(int32_t), sizeof(__m512i),
               right + d / VL * (ATTENTION_QUERIES / QUAD) + first * NR, last - first, nr, begin == NULL);
    add_block(c + m * dp + d, dp, sum, left_steps->step + m, right_step + d, nr);
}

/* A block of dq, whose queries begin at m and columns at d, from the quads of k before `last`. */
INLINE void queries_block(const backward_buffers *f, float *dq, int64_t m, int64_t d, int64_t last, int64_t dp, int nr) {
    __m512i sum[ATTENTION_MR][NR];
    for (int i = 0; i < ATTENTION_MR; i++)
        for (int j = 0; j < nr; j++) sum[i][j] = _mm512_load_si512(f->k_begin + last * dp + d + j * VL);
    int8_block(sum, f->ds_rows + m / QUAD * (ATTENTION_KEYS / VL), sizeof(int32_t), QUAD * sizeof(int32_t),
               f->k_quads + d / VL * (ATTENTION_KEYS / QUAD), last, nr, true);
    add_block(dq + m * dp + d, dp, sum, f->ds_query.step + m, f->k_column_step + d, nr);
}

KERNEL void backward_tile(const backward_buffers *f, float *dq, int64_t at, int64_t rows, int64_t diagonal, int64_t D) {
    int64_t keys = f->keys, dp = bb_round_up(D, VL), last = rows / QUAD;
    const __m512i *d_o = side_quads(&f->d_o, at, D), *q = side_quads(&f->q, at, D);
    const float *do_step = side_column_step(&f->d_o, at, D), *q_step = side_column_step(&f->q, at, D);
    weights(f, at, rows, diagonal, D);
    for (int64_t d = 0; d < dp; d += PANEL) {
        int64_t nr = (dp - d) / VL;
        for (int64_t m = 0; m < keys; m += ATTENTION_MR) {
            int64_t first = bb_clamp(m - diagonal, 0, rows) / QUAD;
            if (first < last)
                WITH_NR(nr, keys_block(f->dv, f->p_quads, &f->p_key, NULL, d_o, do_step, m, d, first, last, dp, NR_NOW))
        }
        for (int64_t m = 0; m < keys; m += ATTENTION_MR) {
            int64_t first = bb_clamp(m - diagonal, 0, rows) / QUAD;
            if (first < last)
                WITH_NR(nr, keys_block(f->dk, f->ds_quads, &f->ds_key, f->ds_begin, q, q_step, m, d, first, last, dp, NR_NOW))
        }
        for (int64_t m = 0; m < rows; m += ATTENTION_MR) {
            int64_t seen = (bb_clamp(m + diagonal + ATTENTION_MR, 0, keys) + QUAD - 1) / QUAD;
            if (seen > 0) WITH_NR(nr, queries_block(f, dq, m, d, seen, dp, NR_NOW))
        }
    }
}
