// SPDX-License-Identifier: MIT
/* The backward pass of a tile in int8, for VNNI. Scales of the operands: s, dp: max/127 of each row of q, k, do and v, so that
 * the scores are exactly the forward pass's; dv, dk: max/255 of each key's p and max/127 of its ds in the tile, max/127 of each
 * column of do and q in the tile; dq: max/127 of each query's ds in the tile, max/127 of each column of k in the tile. */

/* An operand indexed by queries: q or do. D4: D rounded up to 4; Dp: D rounded up to VL. */
typedef struct query_side {
    int8_t *rows;          /* (G, Tp, D4) */
    float *row_scale;      /* (G, Tp) */
    int32_t *row_acc_init; /* (G, Tp) */
    __m512i *quads;        /* (G, Tp / QUERIES) panels (QUERIES / 4, Dp) */
    float *column_scale;   /* (G, Tp / QUERIES, Dp) */
} query_side;

/* The scales of n rows of a tile. */
typedef struct tile_scales {
    uint32_t *max_bits; /* (n) or (n, VL), per lane: the bits of the largest magnitude */
    float *scale, *inverse;
} tile_scales;

/* Scratch of a task. */
typedef struct backward_buffers {
    query_side q, d_o;                    /* q's quads are biased by 128 */
    __m512i *k_transposed, *v_transposed; /* panels (D4 / 4, KEYS), biased by 128 */
    float *k_scale, *v_scale;             /* (KEYS) */
    __m512i *k_quads;                     /* panels (KEYS / 4, Dp) */
    float *k_column_scale;                /* (Dp) */
    int32_t *k_acc_init;                  /* (KEYS / 4 + 1, Dp) */
    float *p, *ds;                        /* (KEYS / PANEL, QUERIES, PANEL) */
    tile_scales p_key, ds_key, ds_query;
    __m512i *p_quads, *ds_quads; /* (KEYS / VL, QUERIES / 4): four queries by VL keys */
    int32_t *ds_acc_init;        /* (KEYS): initial accumulators of sums over ds */
    __m512i *ds_rows;            /* (QUERIES / 4, KEYS / VL), biased by 128: bytes_of four queries */
    int8_t *packing;             /* (16, D rounded up to 64) */
    float *dk, *dv, *lse, *delta;
    int64_t keys;
} backward_buffers;

INLINE query_side side_layout(bb_arena *arena, size_t rows, int64_t D) {
    query_side s;
    s.rows = bb_arena_alloc(arena, rows * (size_t)bb_round_up(D, QUAD));
    s.row_scale = bb_arena_alloc(arena, rows * sizeof(float));
    s.row_acc_init = bb_arena_alloc(arena, rows * sizeof(int32_t));
    s.quads = bb_arena_alloc(arena, rows * (size_t)bb_round_up(D, PANEL));
    s.column_scale = bb_arena_alloc(arena, rows / ATTENTION_QUERIES * (size_t)bb_round_up(D, VL) * sizeof(float));
    return s;
}

INLINE tile_scales scales_layout(bb_arena *arena, size_t n, size_t lanes) {
    tile_scales s;
    s.max_bits = bb_arena_alloc(arena, n * lanes * sizeof(uint32_t));
    s.scale = bb_arena_alloc(arena, n * sizeof(float));
    s.inverse = bb_arena_alloc(arena, n * sizeof(float));
    return s;
}

KERNEL backward_buffers backward_layout(bb_arena *arena, const bb_attention *a) {
    size_t d4 = (size_t)bb_round_up(a->D, QUAD), dp = (size_t)bb_round_up(a->D, VL), tile = ATTENTION_QUERIES * ATTENTION_KEYS;
    size_t rows = (size_t)(a->H / a->Hk * bb_round_up(a->Tq, ATTENTION_QUERIES));
    backward_buffers f;
    f.q = side_layout(arena, rows, a->D);
    f.d_o = side_layout(arena, rows, a->D);
    f.k_transposed = bb_arena_alloc(arena, ATTENTION_KEYS * d4);
    f.v_transposed = bb_arena_alloc(arena, ATTENTION_KEYS * d4);
    f.k_scale = bb_arena_alloc(arena, ATTENTION_KEYS * sizeof(float));
    f.v_scale = bb_arena_alloc(arena, ATTENTION_KEYS * sizeof(float));
    f.k_quads = bb_arena_alloc(arena, ATTENTION_KEYS * (size_t)bb_round_up(a->D, PANEL));
    f.k_column_scale = bb_arena_alloc(arena, dp * sizeof(float));
    f.k_acc_init = bb_arena_alloc(arena, (ATTENTION_KEYS / QUAD + 1) * dp * sizeof(int32_t));
    f.p = bb_arena_alloc(arena, tile * sizeof(float));
    f.ds = bb_arena_alloc(arena, tile * sizeof(float));
    f.p_key = scales_layout(arena, ATTENTION_KEYS, 1);
    f.ds_key = scales_layout(arena, ATTENTION_KEYS, 1);
    f.ds_query = scales_layout(arena, ATTENTION_QUERIES, VL);
    f.p_quads = bb_arena_alloc(arena, tile);
    f.ds_quads = bb_arena_alloc(arena, tile);
    f.ds_acc_init = bb_arena_alloc(arena, ATTENTION_KEYS * sizeof(int32_t));
    f.ds_rows = bb_arena_alloc(arena, tile);
    f.packing = bb_arena_alloc(arena, 16 * (size_t)bb_round_up(a->D, 64));
    f.dk = bb_arena_alloc(arena, ATTENTION_KEYS * dp * sizeof(float));
    f.dv = bb_arena_alloc(arena, ATTENTION_KEYS * dp * sizeof(float));
    f.lse = bb_arena_alloc(arena, rows * sizeof(float));
    f.delta = bb_arena_alloc(arena, rows * sizeof(float));
    f.keys = 0;
    return f;
}

/* -- packing --------------------------------------------------------------------------------------------------------------- */
/* The panels of quads of tile `at` / QUERIES. */
INLINE __m512i *side_quads(const query_side *s, int64_t at, int64_t D) {
    return s->quads + at / VL * (bb_round_up(D, PANEL) / QUAD);
}

INLINE const float *side_column_scale(const query_side *s, int64_t at, int64_t D) {
    return s->column_scale + at / ATTENTION_QUERIES * bb_round_up(D, VL);
}

/* biased: 128 is added to the quads. */
INLINE void pack_side(const query_side *s, int64_t at, act_rows x, int64_t rows, int64_t D, bool biased) {
    int64_t padded = bb_round_up(rows, ATTENTION_QUERIES);
    pack_int8_rows(s->rows + at * bb_round_up(D, QUAD), s->row_scale + at, s->row_acc_init + at, x, rows, padded, D);
    for (int64_t t = 0; t < padded; t += ATTENTION_QUERIES)
        pack_int8_quads(side_quads(s, at + t, D), ATTENTION_QUERIES / QUAD, (float *)side_column_scale(s, at + t, D), NULL,
                        act_from(x, t), bb_clamp(rows - t, 0, ATTENTION_QUERIES), ATTENTION_QUERIES, D, biased);
}

INLINE void pack_query_tile(const backward_buffers *f, int64_t at, const bb_bf16 *q, int64_t q_stride, const bb_bf16 *d_o,
                            int64_t o_stride, int64_t rows, int64_t D) {
    pack_side(&f->q, at, (act_rows){q, q_stride, false}, rows, D, true);
    pack_side(&f->d_o, at, (act_rows){d_o, o_stride, false}, rows, D, false);
}

INLINE void pack_key_tile(backward_buffers *f, const bb_bf16 *k, const bb_bf16 *v, int64_t stride, int64_t keys, int64_t D) {
    const act_rows key_rows = {k, stride, false}, value_rows = {v, stride, false};
    f->keys = keys;
    pack_int8_columns(f->k_transposed, f->k_scale, f->packing, key_rows, keys, D);
    pack_int8_columns(f->v_transposed, f->v_scale, f->packing, value_rows, keys, D);
    pack_int8_quads(f->k_quads, ATTENTION_KEYS / QUAD, f->k_column_scale, f->k_acc_init, key_rows, keys,
                    bb_round_up(keys, QUAD), D, false);
}

/* -- p and ds -------------------------------------------------------------------------------------------------------------- */
/* Index of query m and key n in p and ds. */
INLINE int64_t tile_at(int64_t m, int64_t n) { return (n / PANEL * ATTENTION_QUERIES + m) * PANEL + n % PANEL; }

/* Masks the vector from key n on to the keys that query m sees, with zeros for the others. whole, a constant: it sees all. */
INLINE vf as_seen(vf x, const backward_buffers *f, int64_t m, int64_t n, int64_t diagonal, bool whole) {
    return whole ? x : vkeep(x, bb_clamp((m + diagonal + 1 < f->keys ? m + diagonal + 1 : f->keys) - n, 0, VL), 0.0f);
}

/* p of queries m.. and nr vectors of keys from n on; at: index of query m as packed. */
INLINE void weights_block(const backward_buffers *f, int64_t at, int64_t m, int64_t n, int64_t diagonal, int64_t words, vf c,
                          int nr, bool whole) {
    __m512i sum[ATTENTION_MR][NR], max_bits[NR];
    float *p = f->p + tile_at(m, n);
    init_rows(sum, f->q.row_acc_init + at, nr);
    int8_block(sum, f->q.rows + at * words * QUAD, words * QUAD, QUAD, f->k_transposed + n / VL * words, words, nr, false);
    for (int j = 0; j < nr; j++) max_bits[j] = _mm512_load_si512(f->p_key.max_bits + n + j * VL);
    for (int i = 0; i < ATTENTION_MR; i++) {
        vf scale = vset1(f->q.row_scale[at + i]) * c, minus = vset1(-f->lse[at + i]);
        for (int j = 0; j < nr; j++) {
            vf s = _mm512_cvtepi32_ps(sum[i][j]) * vload(f->k_scale + n + j * VL);
            vf x = as_seen(vexp2(vfma(s, scale, minus)), f, m + i, n + j * VL, diagonal, whole);
            max_bits[j] = _mm512_max_epu32(max_bits[j], magnitude(x));
            vstore(p + i * PANEL + j * VL, x);
        }
    }
    for (int j = 0; j < nr; j++) _mm512_store_si512(f->p_key.max_bits + n + j * VL, max_bits[j]);
}

/* ds of the same, from p. */
INLINE void gradients_block(const backward_buffers *f, int64_t at, int64_t m, int64_t n, int64_t diagonal, int64_t words,
                            int nr, bool whole) {
    __m512i sum[ATTENTION_MR][NR], max_bits[NR];
    const float *p = f->p + tile_at(m, n);
    float *ds = f->ds + tile_at(m, n);
    init_rows(sum, f->d_o.row_acc_init + at, nr);
    int8_block(sum, f->d_o.rows + at * words * QUAD, words * QUAD, QUAD, f->v_transposed + n / VL * words, words, nr, false);
    for (int j = 0; j < nr; j++) max_bits[j] = _mm512_load_si512(f->ds_key.max_bits + n + j * VL);
    for (int i = 0; i < ATTENTION_MR; i++) {
        vf scale = vset1(f->d_o.row_scale[at + i]), minus = vset1(-f->delta[at + i]);
        __m512i row_max_bits = _mm512_load_si512(f->ds_query.max_bits + (m + i) * VL);
        for (int j = 0; j < nr; j++) {
            vf d_p = vfma(_mm512_cvtepi32_ps(sum[i][j]) * vload(f->v_scale + n + j * VL), scale, minus);
            vf x = as_seen(d_p * vload(p + i * PANEL + j * VL), f, m + i, n + j * VL, diagonal, whole);
            max_bits[j] = _mm512_max_epu32(max_bits[j], magnitude(x));
            row_max_bits = _mm512_max_epu32(row_max_bits, magnitude(x));
            vstore(ds + i * PANEL + j * VL, x);
        }
        _mm512_store_si512(f->ds_query.max_bits + (m + i) * VL, row_max_bits);
    }
    for (int j = 0; j < nr; j++) _mm512_store_si512(f->ds_key.max_bits + n + j * VL, max_bits[j]);
}

/* Computes n scales from the largest magnitudes, which map to the code `max_code`. */
INLINE void compute_scales(const tile_scales *s, int64_t n, float max_code) {
    for (int64_t i = 0; i < n; i += VL) {
        vf scale = _mm512_castsi512_ps(_mm512_load_si512(s->max_bits + i)) * vset1(1.0f / max_code);
        vstore(s->scale + i, scale);
        vstore(s->inverse + i, inverse_scale(scale));
    }
}

/* Quantizes the same, nr vectors of keys from n on, to bytes. */
INLINE void round_block(const backward_buffers *f, int64_t m, int64_t n, int nr) {
    for (int j = 0; j < nr; j++, n += VL) {
        const float *p = f->p + tile_at(m, n), *ds = f->ds + tile_at(m, n);
        int64_t quad = n / VL * (ATTENTION_QUERIES / QUAD) + m / QUAD;
        vf p_inverse = vload(f->p_key.inverse + n), ds_inverse = vload(f->ds_key.inverse + n);
        __m512i x[QUAD], y[QUAD], acc_init = _mm512_load_si512(f->ds_acc_init + n);
        for (int i = 0; i < QUAD; i++) x[i] = to_int32(vload(p + i * PANEL), p_inverse);
        f->p_quads[quad] = quads_of(x, true);
        for (int i = 0; i < QUAD; i++) {
            vf z = vload(ds + i * PANEL);
            x[i] = to_int32(z, ds_inverse);
            y[i] = to_int32(z, vset1(f->ds_query.inverse[m + i]));
        }
        x[0] = quads_of(x, false);
        f->ds_quads[quad] = x[0];
        _mm512_store_si512(f->ds_acc_init + n, dot_quads(acc_init, _mm512_set1_epi8(1), x[0]));
        f->ds_rows[m / QUAD * (ATTENTION_KEYS / VL) + n / VL] = add_bias(bytes_of(y, false));
    }
}

/* p, ds and their bytes for a tile of queries and a tile of keys. A register block of queries is computed as far as its last
 * query sees. */
INLINE void weights(const backward_buffers *f, int64_t at, int64_t rows, int64_t diagonal, int64_t D) {
    int64_t keys = f->keys, words = (D + QUAD - 1) / QUAD;
    vf c = vset1((float)(M_LOG2E / sqrt((double)D)));
    memset(f->p_key.max_bits, 0, ATTENTION_KEYS * sizeof *f->p_key.max_bits);
    memset(f->ds_key.max_bits, 0, ATTENTION_KEYS * sizeof *f->ds_key.max_bits);
    memset(f->ds_query.max_bits, 0, (size_t)(bb_round_up(rows, VL) * VL) * sizeof *f->ds_query.max_bits);
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
    compute_scales(&f->p_key, ATTENTION_KEYS, UINT8_MAX);
    compute_scales(&f->ds_key, ATTENTION_KEYS, INT8_MAX);
    for (int64_t m = 0; m < rows; m++)
        f->ds_query.max_bits[m] = _mm512_reduce_max_epu32(_mm512_load_si512(f->ds_query.max_bits + m * VL));
    compute_scales(&f->ds_query, rows, INT8_MAX);
    memset(f->ds_acc_init, 0, ATTENTION_KEYS * sizeof *f->ds_acc_init);
    for (int64_t n = 0; n < keys; n += PANEL)
        for (int64_t m = 0; m < rows; m += ATTENTION_MR) {
            int64_t seen = bb_clamp(m + diagonal + ATTENTION_MR, 0, keys) - n;
            if (seen > 0) WITH_NR((seen + VL - 1) / VL, round_block(f, m, n, NR_NOW))
        }
    for (int64_t n = 0; n < ATTENTION_KEYS; n++) f->ds_acc_init[n] *= -U8_BIAS;
}

/* -- the gradients --------------------------------------------------------------------------------------------------------- */
/* A block of c += row_scale column_scale sum. */
INLINE void add_block(float *c, int64_t ldc, __m512i sum[ATTENTION_MR][NR], const float *row_scale, const float *column_scale,
                      int nr) {
    for (int i = 0; i < ATTENTION_MR; i++)
        for (int j = 0; j < nr; j++) {
            vf x = _mm512_cvtepi32_ps(sum[i][j]) * vset1(row_scale[i]);
            vstore(c + i * ldc + j * VL, vfma(x, vload(column_scale + j * VL), vload(c + i * ldc + j * VL)));
        }
}

/* A block of dv or dk, with keys from m and columns from d: from the quads of p or ds and those of do or q. acc_init: NULL, or
 * the initial accumulators if the right operand is biased. */
INLINE void keys_block(float *c, const __m512i *left, const tile_scales *left_scales, const int32_t *acc_init,
                       const __m512i *right, const float *right_scale, int64_t m, int64_t d, int64_t first, int64_t last,
                       int64_t dp, int nr) {
    __m512i sum[ATTENTION_MR][NR];
    const __m512i *quads = left + m / VL * (ATTENTION_QUERIES / QUAD) + first;
    init_rows(sum, acc_init ? acc_init + m : NULL, nr);
    int8_block(sum, (const int32_t *)(const void *)quads + m % VL, sizeof(int32_t), sizeof(__m512i),
               right + d / VL * (ATTENTION_QUERIES / QUAD) + first * NR, last - first, nr, acc_init == NULL);
    add_block(c + m * dp + d, dp, sum, left_scales->scale + m, right_scale + d, nr);
}

/* A block of dq, with queries from m and columns from d, from the quads of k before `last`. */
INLINE void queries_block(const backward_buffers *f, float *dq, int64_t m, int64_t d, int64_t last, int64_t dp, int nr) {
    __m512i sum[ATTENTION_MR][NR];
    for (int i = 0; i < ATTENTION_MR; i++)
        for (int j = 0; j < nr; j++) sum[i][j] = _mm512_load_si512(f->k_acc_init + last * dp + d + j * VL);
    int8_block(sum, f->ds_rows + m / QUAD * (ATTENTION_KEYS / VL), sizeof(int32_t), QUAD * sizeof(int32_t),
               f->k_quads + d / VL * (ATTENTION_KEYS / QUAD), last, nr, true);
    add_block(dq + m * dp + d, dp, sum, f->ds_query.scale + m, f->k_column_scale + d, nr);
}

KERNEL void backward_tile(const backward_buffers *f, float *dq, int64_t at, int64_t rows, int64_t diagonal, int64_t D) {
    int64_t keys = f->keys, dp = bb_round_up(D, VL), last = rows / QUAD;
    const __m512i *d_o = side_quads(&f->d_o, at, D), *q = side_quads(&f->q, at, D);
    const float *do_scale = side_column_scale(&f->d_o, at, D), *q_scale = side_column_scale(&f->q, at, D);
    weights(f, at, rows, diagonal, D);
    for (int64_t d = 0; d < dp; d += PANEL) {
        int64_t nr = (dp - d) / VL;
        for (int64_t m = 0; m < keys; m += ATTENTION_MR) {
            int64_t first = bb_clamp(m - diagonal, 0, rows) / QUAD;
            if (first < last)
                WITH_NR(nr, keys_block(f->dv, f->p_quads, &f->p_key, NULL, d_o, do_scale, m, d, first, last, dp, NR_NOW))
        }
        for (int64_t m = 0; m < keys; m += ATTENTION_MR) {
            int64_t first = bb_clamp(m - diagonal, 0, rows) / QUAD;
            if (first < last)
                WITH_NR(nr,
                        keys_block(f->dk, f->ds_quads, &f->ds_key, f->ds_acc_init, q, q_scale, m, d, first, last, dp, NR_NOW))
        }
        for (int64_t m = 0; m < rows; m += ATTENTION_MR) {
            int64_t seen = (bb_clamp(m + diagonal + ATTENTION_MR, 0, keys) + QUAD - 1) / QUAD;
            if (seen > 0) WITH_NR(nr, queries_block(f, dq, m, d, seen, dp, NR_NOW))
        }
    }
}
