// SPDX-License-Identifier: MIT
/* The backward pass of a tile in f32, for the sets without VNNI. */
#ifndef BACKWARD_F32
#define BACKWARD_F32
#define pack_panels ATTENTION_NAME(pack_panels)
#define pack_transposed ATTENTION_NAME(pack_transposed)
#define weights_block ATTENTION_NAME(weights_block)
#define weights ATTENTION_NAME(weights)
#define pack_head ATTENTION_NAME(pack_head)
#endif

/* Dp: D rounded up to VL. */
typedef struct backward_buffers {
    float *q_rows, *do_rows;            /* (G, Tp, D) */
    float *q_panels, *do_panels;        /* (G, Tp / QUERIES) panels (QUERIES, Dp) */
    float *k_transposed, *v_transposed; /* panels (D, KEYS) */
    float *k_panels;                    /* panels (KEYS, Dp) */
    float *p, *ds;                      /* (KEYS / VL, QUERIES, VL) */
    float *ds_rows;                     /* (QUERIES, KEYS) */
    float *s, *dp;                      /* (MR, PANEL) */
    float *dk, *dv, *lse, *delta;
    int64_t keys;
} backward_buffers;

KERNEL backward_buffers backward_layout(bb_arena *arena, const bb_attention *a) {
    size_t d = (size_t)a->D * sizeof(float), dp = (size_t)bb_round_up(a->D, VL) * sizeof(float);
    size_t panels = (size_t)bb_round_up(a->D, PANEL) * sizeof(float);
    size_t rows = (size_t)(a->H / a->Hk * bb_round_up(a->Tq, ATTENTION_QUERIES));
    size_t tile = ATTENTION_QUERIES * ATTENTION_KEYS * sizeof(float);
    backward_buffers f;
    f.q_rows = bb_arena_alloc(arena, rows * d);
    f.do_rows = bb_arena_alloc(arena, rows * d);
    f.q_panels = bb_arena_alloc(arena, rows * panels);
    f.do_panels = bb_arena_alloc(arena, rows * panels);
    f.k_transposed = bb_arena_alloc(arena, d * ATTENTION_KEYS);
    f.v_transposed = bb_arena_alloc(arena, d * ATTENTION_KEYS);
    f.k_panels = bb_arena_alloc(arena, ATTENTION_KEYS * panels);
    f.p = bb_arena_alloc(arena, tile);
    f.ds = bb_arena_alloc(arena, tile);
    f.ds_rows = bb_arena_alloc(arena, tile);
    f.s = bb_arena_alloc(arena, ATTENTION_MR * PANEL * sizeof(float));
    f.dp = bb_arena_alloc(arena, ATTENTION_MR * PANEL * sizeof(float));
    f.dk = bb_arena_alloc(arena, ATTENTION_KEYS * dp);
    f.dv = bb_arena_alloc(arena, ATTENTION_KEYS * dp);
    f.lse = bb_arena_alloc(arena, rows * sizeof(float));
    f.delta = bb_arena_alloc(arena, rows * sizeof(float));
    f.keys = 0;
    return f;
}

/* -- packing: src is (rows, D) bf16 with a row stride; rows up to `padded` are zeroed -------------------------------------- */
/* dst_rows: (padded, D) row by row, or NULL. dst: panels (padded, D); panel_rows: rows of a panel. */
KERNEL void pack_panels(float *dst_rows, float *dst, int64_t panel_rows, const bb_bf16 *src, int64_t stride, int64_t rows,
                        int64_t padded, int64_t D) {
    for (int64_t r = 0; r < padded; r++)
        for (int64_t n = 0; n < D; n += PANEL) {
            int64_t some = r < rows ? bb_clamp(D - n, 0, PANEL) : 0;
            float x[PANEL] = {0};
            for (int64_t i = 0; i < some; i++) x[i] = bb_f32_from_bf16(src[r * stride + n + i]);
            memcpy(dst + n * panel_rows + r * PANEL, x, sizeof x);
            if (dst_rows) memcpy(dst_rows + r * D + n, x, (size_t)bb_clamp(D - n, 0, PANEL) * sizeof *x);
        }
}

/* dst: panels (D, padded): element (d, r) is element d of row r. */
KERNEL void pack_transposed(float *dst, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t padded, int64_t D) {
    for (int64_t r = 0; r < padded; r++)
        for (int64_t d = 0; d < D; d++)
            dst[(r / PANEL * D + d) * PANEL + r % PANEL] = r < rows ? bb_f32_from_bf16(src[r * stride + d]) : 0.0f;
}

/* Packs the rows of a head, tile by tile. */
INLINE void pack_head(float *to_rows, float *to_panels, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t D) {
    for (int64_t t = 0; t < rows; t += ATTENTION_QUERIES)
        pack_panels(to_rows + t * D, to_panels + t * bb_round_up(D, PANEL), ATTENTION_QUERIES, src + t * stride, stride,
                    bb_clamp(rows - t, 0, ATTENTION_QUERIES), ATTENTION_QUERIES, D);
}

INLINE void pack_query_tile(const backward_buffers *f, int64_t at, const bb_bf16 *q, int64_t q_stride, const bb_bf16 *d_o,
                            int64_t o_stride, int64_t rows, int64_t D) {
    pack_head(f->q_rows + at * D, f->q_panels + at * bb_round_up(D, PANEL), q, q_stride, rows, D);
    pack_head(f->do_rows + at * D, f->do_panels + at * bb_round_up(D, PANEL), d_o, o_stride, rows, D);
}

INLINE void pack_key_tile(backward_buffers *f, const bb_bf16 *k, const bb_bf16 *v, int64_t stride, int64_t keys, int64_t D) {
    f->keys = keys;
    pack_transposed(f->k_transposed, k, stride, keys, bb_round_up(keys, 16), D);
    pack_transposed(f->v_transposed, v, stride, keys, bb_round_up(keys, 16), D);
    pack_panels(NULL, f->k_panels, ATTENTION_KEYS, k, stride, keys, keys, D);
}

/* -- a tile -----------------------------------------------------------------------------------------------------------------
 */
/* Computes p and ds from one register block of s and dp, for queries m.. and nr vectors of keys n..; query r sees keys below
 * min(keys, r + diagonal + 1). whole: all of them are seen. */
INLINE void weights_block(const backward_buffers *f, const float *lse, const float *delta, int64_t m, int64_t n, int64_t nr,
                          int64_t keys, int64_t diagonal, vf c, bool whole) {
    for (int64_t row = m; row < m + ATTENTION_MR; row++)
        for (int64_t i = 0; i < nr; i++) {
            int64_t at = (row - m) * PANEL + i * VL, to = ((n / VL + i) * ATTENTION_QUERIES + row) * VL;
            vf p = vexp2(vfma(vload(f->s + at), c, vset1(-lse[row])));
            vf ds = p * (vload(f->dp + at) - vset1(delta[row]));
            if (!whole) {
                int64_t seen = bb_clamp((row + diagonal + 1 < keys ? row + diagonal + 1 : keys) - n - i * VL, 0, VL);
                p = vkeep(p, seen, 0.0f);
                ds = vkeep(ds, seen, 0.0f);
            }
            vstore(f->p + to, p);
            vstore(f->ds + to, ds);
            vstore(f->ds_rows + row * ATTENTION_KEYS + n + i * VL, ds);
        }
}

/* Computes p and ds of a tile of queries (the first at q_rows etc.) and a tile of keys. A register block of queries is computed
 * as far as its last query sees. */
INLINE void weights(const backward_buffers *f, const float *q_rows, const float *do_rows, const float *lse, const float *delta,
                    int64_t rows, int64_t diagonal, int64_t D) {
    vf c = vset1((float)(M_LOG2E / sqrt((double)D)));
    int64_t keys = f->keys;
    for (int64_t n = 0; n < keys; n += PANEL)
        for (int64_t m = 0; m < rows; m += ATTENTION_MR) {
            int64_t seen = bb_clamp(m + diagonal + ATTENTION_MR, 0, keys) - n;
            if (seen <= 0) continue;
            int64_t nr = bb_clamp((seen + VL - 1) / VL, 1, NR);
            block_of(f->s, PANEL, q_rows + m * D, D, 1, f->k_transposed + n * D, D, nr, PRODUCT_SET, NULL);
            block_of(f->dp, PANEL, do_rows + m * D, D, 1, f->v_transposed + n * D, D, nr, PRODUCT_SET, NULL);
            if (n + PANEL <= keys && n + PANEL <= m + diagonal + 1)
                weights_block(f, lse, delta, m, n, NR, keys, diagonal, c, true);
            else
                weights_block(f, lse, delta, m, n, nr, keys, diagonal, c, false);
        }
}

INLINE void backward_tile(const backward_buffers *f, float *dq, int64_t at, int64_t rows, int64_t diagonal, int64_t D) {
    int64_t panels = at * bb_round_up(D, PANEL), ld = bb_round_up(D, VL), key_rows = bb_round_up(f->keys, ATTENTION_MR);
    const int64_t panel = ATTENTION_QUERIES * VL;
    weights(f, f->q_rows + at * D, f->do_rows + at * D, f->lse + at, f->delta + at, rows, diagonal, D);
    accumulate(f->dv, ld, f->p, panel, 1, VL, f->do_panels + panels, ATTENTION_QUERIES, key_rows, ld, rows, diagonal,
               ATTENTION_QUERIES, PRODUCT_ADD, NULL);
    accumulate(f->dk, ld, f->ds, panel, 1, VL, f->q_panels + panels, ATTENTION_QUERIES, key_rows, ld, rows, diagonal,
               ATTENTION_QUERIES, PRODUCT_ADD, NULL);
    accumulate(dq, ld, f->ds_rows, VL * ATTENTION_KEYS, ATTENTION_KEYS, 1, f->k_panels, ATTENTION_KEYS, rows, ld, f->keys,
               ATTENTION_QUERIES, diagonal, PRODUCT_ADD, NULL);
}
