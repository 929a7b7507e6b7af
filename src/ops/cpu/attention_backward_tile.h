/* The backward pass over a run of key tiles, in the vocabulary of attention_simd.h. Included once for each set.
 *   p = exp(s - lse), dp = do vT, ds = p (dp - delta), delta = rowsum(do o);  dv = pT do, dk = dsT q, dq = ds k
 * SPDX-License-Identifier: MIT */
#ifndef ATTENTION_QUERIES
#define ATTENTION_QUERIES 256 /* a tile */
#define ATTENTION_KEYS 128    /* a tile */

/* All heads' arrays, addressed as bb_attention says. */
typedef struct backward_arrays {
    bb_bf16 *dq, *dk, *dv;
    const bb_bf16 *d_o, *q, *k, *v, *o;
    const float *lse;
    const bb_attention *a;
} backward_arrays;

#define key_tile ATTENTION_NAME(key_tile)
#define backward_buffers ATTENTION_NAME(backward_buffers)
#define carve_backward ATTENTION_NAME(carve_backward)
#define backward_bytes ATTENTION_NAME(backward_bytes)
#define dq_ld ATTENTION_NAME(dq_ld)
#define row_statistics ATTENTION_NAME(row_statistics)
#define weights_block ATTENTION_NAME(weights_block)
#define weights ATTENTION_NAME(weights)
#define store_rows ATTENTION_NAME(store_rows)
#define pack_head_queries ATTENTION_NAME(pack_head_queries)
#define begin_keys ATTENTION_NAME(begin_keys)
#define backward_tile ATTENTION_NAME(backward_tile)
#define backward_keys ATTENTION_NAME(backward_keys)
#define finish_dq ATTENTION_NAME(finish_dq)
#endif

#include "ops/cpu/attention_pack.h"

/* Dp: D rounded up to VL. */
typedef struct key_tile {
    word *k_transposed, *v_transposed; /* panels (D, KEYS) */
    word *k_pairs;                     /* panels (KEYS, Dp), rows paired */
    float *dk, *dv;                    /* (KEYS, Dp) */
    int64_t keys;
} key_tile;

/* Scratch of a task. G: query heads of a KV head; Tp: Tq rounded up to QUERIES. */
typedef struct backward_buffers {
    key_tile tile;
    word *q_rows, *do_rows;   /* (G, Tp, D) */
    word *q_pairs, *do_pairs; /* (G, Tp / QUERIES) panels (QUERIES, Dp), rows paired */
    word *p_pairs, *ds_pairs; /* (KEYS / VL, QUERIES, VL), rows paired */
    word *ds_rows;            /* (QUERIES, KEYS) */
    float *s, *dp;            /* (MR, PANEL) */
    float *lse, *delta;       /* (G, Tp); lse in units of log2 e, past Tq so large that p is 0 */
} backward_buffers;

KERNEL backward_buffers carve_backward(bb_arena *arena, const bb_attention *a) {
    size_t d = (size_t)a->D / PER_WORD * sizeof(word), dp = (size_t)round_up(a->D, VL);
    size_t panels = (size_t)round_up(a->D, PANEL) / PER_WORD * sizeof(word);
    size_t rows = (size_t)(a->H / a->Hk * round_up(a->Tq, ATTENTION_QUERIES));
    backward_buffers f;
    f.tile.k_transposed = bb_arena_take(arena, d * ATTENTION_KEYS);
    f.tile.v_transposed = bb_arena_take(arena, d * ATTENTION_KEYS);
    f.tile.k_pairs = bb_arena_take(arena, ATTENTION_KEYS * panels);
    f.tile.dk = bb_arena_take(arena, ATTENTION_KEYS * dp * sizeof(float));
    f.tile.dv = bb_arena_take(arena, ATTENTION_KEYS * dp * sizeof(float));
    f.q_rows = bb_arena_take(arena, rows * d);
    f.do_rows = bb_arena_take(arena, rows * d);
    f.q_pairs = bb_arena_take(arena, rows * panels);
    f.do_pairs = bb_arena_take(arena, rows * panels);
    f.p_pairs = bb_arena_take(arena, ATTENTION_QUERIES * ATTENTION_KEYS / PER_WORD * sizeof(word));
    f.ds_pairs = bb_arena_take(arena, ATTENTION_QUERIES * ATTENTION_KEYS / PER_WORD * sizeof(word));
    f.ds_rows = bb_arena_take(arena, ATTENTION_QUERIES * ATTENTION_KEYS / PER_WORD * sizeof(word));
    f.s = bb_arena_take(arena, ATTENTION_MR * PANEL * sizeof(float));
    f.dp = bb_arena_take(arena, ATTENTION_MR * PANEL * sizeof(float));
    f.lse = bb_arena_take(arena, rows * sizeof(float));
    f.delta = bb_arena_take(arena, rows * sizeof(float));
    return f;
}

KERNEL size_t backward_bytes(const bb_attention *a) {
    bb_arena measure = {0};
    carve_backward(&measure, a);
    return measure.used;
}

/* Columns of a task's f32 dq: (G, Tp, columns). */
KERNEL int64_t dq_ld(int64_t D) { return round_up(D, VL); }

/* lse and delta of head h of sequence b. */
KERNEL void row_statistics(float *lse, float *delta, const backward_arrays *x, int64_t b, int64_t h) {
    const bb_attention *a = x->a;
    int64_t D = a->D, whole = D / VL * VL;
    for (int64_t t = 0; t < a->Tq; t++) {
        int64_t at = (b * a->Tq + t) * a->o_stride + h * D;
        vf sum = vset1(0.0f);
        if (t + PREFETCH_ROWS < a->Tq) {
            prefetch_row(x->o + at + PREFETCH_ROWS * a->o_stride, (size_t)D * sizeof(bb_bf16));
            prefetch_row(x->d_o + at + PREFETCH_ROWS * a->o_stride, (size_t)D * sizeof(bb_bf16));
        }
        for (int64_t d = 0; d < whole; d += VL) sum = vfma(vload_bf16(x->o + at + d), vload_bf16(x->d_o + at + d), sum);
        if (whole < D)
            sum = vfma(vload_bf16_first(x->o + at + whole, D - whole), vload_bf16_first(x->d_o + at + whole, D - whole), sum);
        delta[t] = vreduce_add(sum);
        lse[t] = x->lse[(b * a->H + h) * a->Tq + t] * (float)M_LOG2E;
    }
    for (int64_t t = a->Tq; t < round_up(a->Tq, ATTENTION_QUERIES); t++) {
        delta[t] = 0.0f;
        lse[t] = 1e30f;
    }
}

/* p and ds from one register block of s and dp, for the queries m.. and nr vectors of keys n..; query r sees keys below
 * min(keys, r + diagonal + 1). whole: all of them are seen. */
INLINE void weights_block(const backward_buffers *f, const float *lse, const float *delta, int64_t m, int64_t n, int64_t nr,
                          int64_t keys, int64_t diagonal, vf c, bool whole) {
    for (int64_t r = 0; r < ATTENTION_MR; r += 2)
        for (int64_t i = 0; i < nr; i++) {
            vf p[2], ds[2];
            for (int odd = 0; odd < 2; odd++) {
                int64_t at = (r + odd) * PANEL + i * VL, row = m + r + odd;
                p[odd] = vexp2(vfma(vload(f->s + at), c, vset1(-lse[row])));
                ds[odd] = p[odd] * (vload(f->dp + at) - vset1(delta[row]));
                if (whole) continue;
                int64_t seen = clamp_to((row + diagonal + 1 < keys ? row + diagonal + 1 : keys) - n - i * VL, 0, VL);
                p[odd] = vkeep(p[odd], seen, 0.0f);
                ds[odd] = vkeep(ds[odd], seen, 0.0f);
            }
            int64_t to = (n / VL + i) * (ATTENTION_QUERIES / PER_WORD * VL) + (m + r) / PER_WORD * VL;
            int64_t row = (m + r) * (ATTENTION_KEYS / PER_WORD) + (n + i * VL) / PER_WORD;
            store_pair(f->p_pairs + to, p[0], p[1]);
            store_pair_and_rows(f->ds_pairs + to, f->ds_rows + row, f->ds_rows + row + ATTENTION_KEYS / PER_WORD, ds[0], ds[1]);
        }
}

/* p and ds of a tile of queries, the first of which are q_rows and so on, and one of keys. A register block of queries is
 * computed as far as its last one sees. */
INLINE void weights(const backward_buffers *f, const word *q_rows, const word *do_rows, const float *lse, const float *delta,
                    int64_t rows, int64_t diagonal, int64_t D) {
    vf c = vset1((float)(M_LOG2E / sqrt((double)D)));
    int64_t d = D / PER_WORD, keys = f->tile.keys;
    for (int64_t n = 0; n < keys; n += PANEL)
        for (int64_t m = 0; m < rows; m += ATTENTION_MR) {
            int64_t seen = clamp_to(m + diagonal + ATTENTION_MR, 0, keys) - n;
            if (seen <= 0) continue;
            int64_t nr = clamp_to((seen + VL - 1) / VL, 1, NR);
            block_of(f->s, PANEL, q_rows + m * d, d, 1, f->tile.k_transposed + n * d, d, nr, PRODUCT_SET, NULL);
            block_of(f->dp, PANEL, do_rows + m * d, d, 1, f->tile.v_transposed + n * d, d, nr, PRODUCT_SET, NULL);
            if (n + PANEL <= keys && n + PANEL <= m + diagonal + 1)
                weights_block(f, lse, delta, m, n, NR, keys, diagonal, c, true);
            else
                weights_block(f, lse, delta, m, n, nr, keys, diagonal, c, false);
        }
}

/* y (rows, D) bf16 of stride = scale x (rows, ld). */
INLINE void store_rows(bb_bf16 *y, int64_t stride, const float *x, int64_t ld, float scale, int64_t rows, int64_t D) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t d = 0; d < D; d += VL)
            store_bf16(y + r * stride + d, vload(x + r * ld + d) * vset1(scale), clamp_to(D - d, 0, VL));
}

/* All queries of a head: `rows` of them, src, tile by tile as buffers has them. */
INLINE void pack_head_queries(word *to_rows, word *to_pairs, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t D) {
    for (int64_t t = 0; t < rows; t += ATTENTION_QUERIES)
        pack_pairs(to_rows + t * (D / PER_WORD), to_pairs + t * (round_up(D, PANEL) / PER_WORD), ATTENTION_QUERIES / PER_WORD,
                   src + t * stride, stride, clamp_to(rows - t, 0, ATTENTION_QUERIES), ATTENTION_QUERIES, D);
}

/* Packs a tile of keys and values; its gradients are 0. */
INLINE void begin_keys(key_tile *tile, const bb_bf16 *k, const bb_bf16 *v, int64_t stride, int64_t keys, int64_t D) {
    size_t bytes = (size_t)(round_up(keys, ATTENTION_MR) * round_up(D, VL)) * sizeof *tile->dk;
    tile->keys = keys;
    pack_transposed(tile->k_transposed, k, stride, keys, round_up(keys, 16), D);
    pack_transposed(tile->v_transposed, v, stride, keys, round_up(keys, 16), D);
    pack_pairs(NULL, tile->k_pairs, ATTENTION_KEYS / PER_WORD, k, stride, keys, round_up(keys, 2), D);
    memset(tile->dk, 0, bytes);
    memset(tile->dv, 0, bytes);
}

/* What `rows` queries, packed from at_query on, add to the tile's dk and dv, and to dq (rows, Dp). Query r of them sees keys up
 * to r + diagonal. */
INLINE void backward_tile(const backward_buffers *f, float *dq, int64_t at_query, int64_t rows, int64_t diagonal, int64_t D) {
    const key_tile *tile = &f->tile;
    int64_t at = at_query * (D / PER_WORD), pairs_at = at_query * (round_up(D, PANEL) / PER_WORD), ld = round_up(D, VL);
    int64_t key_rows = round_up(tile->keys, ATTENTION_MR), key_steps = (tile->keys + PER_WORD - 1) / PER_WORD;
    const int64_t pair_panel = ATTENTION_QUERIES / PER_WORD * VL, row_panel = VL * (ATTENTION_KEYS / PER_WORD);
    weights(f, f->q_rows + at, f->do_rows + at, f->lse + at_query, f->delta + at_query, rows, diagonal, D);
    accumulate(tile->dv, ld, f->p_pairs, pair_panel, 1, VL, f->do_pairs + pairs_at, ATTENTION_QUERIES / PER_WORD, key_rows, ld,
               rows / PER_WORD, diagonal, ATTENTION_QUERIES, PRODUCT_ADD, NULL);
    accumulate(tile->dk, ld, f->ds_pairs, pair_panel, 1, VL, f->q_pairs + pairs_at, ATTENTION_QUERIES / PER_WORD, key_rows, ld,
               rows / PER_WORD, diagonal, ATTENTION_QUERIES, PRODUCT_ADD, NULL);
    accumulate(dq, ld, f->ds_rows, row_panel, ATTENTION_KEYS / PER_WORD, 1, tile->k_pairs, ATTENTION_KEYS / PER_WORD, rows, ld,
               key_steps, ATTENTION_QUERIES, diagonal, PRODUCT_ADD, NULL);
}

/* dk and dv of the key tiles first..last-1 of KV head `head` of sequence b, from all its query heads, and what these tiles give
 * to dq: (G, Tp, dq_ld(D)) f32, without the 1/sqrt(D). */
KERNEL void backward_keys(const backward_arrays *x, int64_t b, int64_t head, int64_t first, int64_t last, float *dq,
                          void *scratch) {
    const bb_attention *a = x->a;
    bb_arena arena = {scratch, 0};
    backward_buffers f = carve_backward(&arena, a);
    int64_t D = a->D, G = a->H / a->Hk, ld = round_up(D, VL), padded = round_up(a->Tq, ATTENTION_QUERIES);
    int64_t see = a->Tk - a->Tq; /* query t sees keys 0..t + see */
    float scale = (float)(1.0 / sqrt((double)D));
    int64_t row_words = D / PER_WORD, panel_words = round_up(D, PANEL) / PER_WORD;

    memset(dq, 0, (size_t)(G * padded * ld) * sizeof *dq);
    for (int64_t g = 0; g < G; g++) {
        int64_t at = b * a->Tq * a->q_stride + (head * G + g) * D, d_o_at = b * a->Tq * a->o_stride + (head * G + g) * D;
        row_statistics(f.lse + g * padded, f.delta + g * padded, x, b, head * G + g);
        pack_head_queries(f.q_rows + g * padded * row_words, f.q_pairs + g * padded * panel_words, x->q + at, a->q_stride,
                          a->Tq, D);
        pack_head_queries(f.do_rows + g * padded * row_words, f.do_pairs + g * padded * panel_words, x->d_o + d_o_at,
                          a->o_stride, a->Tq, D);
    }

    for (int64_t key0 = first * ATTENTION_KEYS; key0 < last * ATTENTION_KEYS && key0 < a->Tk; key0 += ATTENTION_KEYS) {
        int64_t keys = clamp_to(a->Tk - key0, 0, ATTENTION_KEYS), at = b * a->kv_batch_stride + key0 * a->kv_stride + head * D;
        int64_t t_first = clamp_to(key0 - see, 0, a->Tq) / ATTENTION_QUERIES * ATTENTION_QUERIES;
        begin_keys(&f.tile, x->k + at, x->v + at, a->kv_stride, keys, D);
        for (int64_t g = 0; g < G; g++)
            for (int64_t t = t_first; t < a->Tq; t += ATTENTION_QUERIES) {
                int64_t rows = round_up(clamp_to(a->Tq - t, 0, ATTENTION_QUERIES), ATTENTION_MR), at_query = g * padded + t;
                backward_tile(&f, dq + at_query * ld, at_query, rows, t + see - key0, D);
            }
        store_rows(x->dk + at, a->kv_stride, f.tile.dk, ld, scale, keys, D);
        store_rows(x->dv + at, a->kv_stride, f.tile.dv, ld, 1.0f, keys, D);
    }
}

/* dq of rows t..t+rows-1 of head h of sequence b: the sum of `count` parts, in their order, stride elements apart; destroys the
 * first. parts: at these rows of the first. */
KERNEL void finish_dq(const backward_arrays *x, int64_t b, int64_t h, int64_t t, int64_t rows, float *parts, int64_t count,
                      int64_t stride) {
    int64_t ld = round_up(x->a->D, VL);
    for (int64_t i = 1; i < count; i++)
        for (int64_t j = 0; j < rows * ld; j += VL) vstore(parts + j, vload(parts + j) + vload(parts + i * stride + j));
    store_rows(x->dq + (b * x->a->Tq + t) * x->a->q_stride + h * x->a->D, x->a->q_stride, parts, ld,
               (float)(1.0 / sqrt((double)x->a->D)), rows, x->a->D);
}
