// SPDX-License-Identifier: MIT
/* The gradient of attention in codes. Scales of the operands: s, dp: max/CODE_MAX of each row of q, k, do and v, so that the scores are
 * exactly the forward pass's; dv, dk: max/WEIGHT_MAX of each key's p and max/CODE_MAX of its ds in the tile, max/CODE_MAX of each column
 * of do and q in the tile; dq: max/CODE_MAX of each query's ds in the tile, max/CODE_MAX of each column of k in the tile. Compiled once
 * for each instruction set. */
#include "ops/cpu/attention/backward_rows.h"
#include "ops/cpu/attention/training_codes.h"

enum { QUERIES = 256, KEYS = 128 /* of a tile */ };

/* An operand indexed by queries: q or do. dp: D rounded up to VL. */
typedef struct query_side {
    packed_rows rows;       /* (G, Tp) */
    packed_columns columns; /* of each tile: (G, Tp / QUERIES) panels (QUERIES / WORD_CODES, dp), scales (dp) */
} query_side;

/* The scales of n rows of a tile. */
typedef struct tile_scales {
    int32_t *max_bits; /* (n) or (n, VL), per lane: the bits of the largest magnitude */
    float *scale, *inverse;
} tile_scales;

/* Scratch of a task. */
typedef struct buffers {
    query_side q, d_o;               /* q's columns are biased */
    vi *k_transposed, *v_transposed; /* panels (row_words, KEYS), biased */
    float *k_scale, *v_scale;        /* (KEYS) */
    packed_columns k;                /* (KEYS) */
    float *p, *ds;                   /* (KEYS / PANEL, QUERIES, PANEL) */
    tile_scales p_key, ds_key, ds_query;
    vi *p_words, *ds_words; /* (KEYS / VL, QUERIES / WORD_CODES): VL keys' words of queries */
    int32_t *ds_initial;    /* (KEYS): initial sums over ds */
    vi *ds_rows;            /* (QUERIES / MR, KEYS / WORD_CODES, MR) words, biased */
    code *packing;
    float *dk, *dv; /* (KEYS, dp) */
    float *lse, *delta;
    int64_t words, dp, keys;
    vf c; /* log2 e / sqrt(D) */
} buffers;

static query_side side_layout(bb_arena *arena, size_t rows, int64_t D, bool is_biased) {
    query_side s = {.columns = {.steps = QUERIES / WORD_CODES, .biased = is_biased}};
    s.rows.codes = bb_arena_alloc(arena, rows * (size_t)row_words(D) * sizeof(int32_t));
    s.rows.scale = bb_arena_alloc(arena, rows * sizeof(float));
    s.rows.initial = bb_arena_alloc(arena, rows * sizeof(int32_t));
    s.columns.words = bb_arena_alloc(arena, rows * (size_t)bb_round_up(D, PANEL) * sizeof(code));
    s.columns.scale = bb_arena_alloc(arena, rows / QUERIES * (size_t)bb_round_up(D, VL) * sizeof(float));
    return s;
}

static tile_scales scales_layout(bb_arena *arena, size_t n, size_t lanes) {
    tile_scales s;
    s.max_bits = bb_arena_alloc(arena, n * lanes * sizeof(int32_t));
    s.scale = bb_arena_alloc(arena, n * sizeof(float));
    s.inverse = bb_arena_alloc(arena, n * sizeof(float));
    return s;
}

static buffers layout(bb_arena *arena, const bb_attention *a) {
    size_t dp = (size_t)bb_round_up(a->D, VL), tile = (size_t)QUERIES * KEYS;
    size_t rows = (size_t)(a->H / a->Hk * bb_round_up(a->Tq, QUERIES)), key_row = (size_t)row_words(a->D) * sizeof(int32_t);
    buffers f = {.words = row_words(a->D), .dp = (int64_t)dp, .c = vset1((float)(M_LOG2E / sqrt((double)a->D)))};
    f.q = side_layout(arena, rows, a->D, true);
    f.d_o = side_layout(arena, rows, a->D, false);
    f.k_transposed = bb_arena_alloc(arena, KEYS * key_row);
    f.v_transposed = bb_arena_alloc(arena, KEYS * key_row);
    f.k_scale = bb_arena_alloc(arena, KEYS * sizeof(float));
    f.v_scale = bb_arena_alloc(arena, KEYS * sizeof(float));
    f.k.steps = KEYS / WORD_CODES;
    f.k.words = bb_arena_alloc(arena, KEYS * (size_t)bb_round_up(a->D, PANEL) * sizeof(code));
    f.k.scale = bb_arena_alloc(arena, dp * sizeof(float));
    if (CODE_BIAS) f.k.initial = bb_arena_alloc(arena, (KEYS / WORD_CODES + 1) * dp * sizeof(int32_t));
    f.p = bb_arena_alloc(arena, tile * sizeof(float));
    f.ds = bb_arena_alloc(arena, tile * sizeof(float));
    f.p_key = scales_layout(arena, KEYS, 1);
    f.ds_key = scales_layout(arena, KEYS, 1);
    f.ds_query = scales_layout(arena, QUERIES, VL);
    f.p_words = bb_arena_alloc(arena, tile * sizeof(code));
    f.ds_words = bb_arena_alloc(arena, tile * sizeof(code));
    f.ds_initial = bb_arena_alloc(arena, KEYS * sizeof(int32_t));
    f.ds_rows = bb_arena_alloc(arena, tile * sizeof(code));
    f.packing = bb_arena_alloc(arena, packing_bytes(a->D));
    f.dk = bb_arena_alloc(arena, KEYS * dp * sizeof(float));
    f.dv = bb_arena_alloc(arena, KEYS * dp * sizeof(float));
    f.lse = bb_arena_alloc(arena, rows * sizeof(float));
    f.delta = bb_arena_alloc(arena, rows * sizeof(float));
    return f;
}

static size_t bytes(const bb_attention *a) {
    bb_arena measure = {0};
    layout(&measure, a);
    return measure.used;
}

static int64_t dq_ld(int64_t D) { return bb_round_up(D, VL); }

/* ---- packing --------------------------------------------------------------------------------------------------------- */

/* From row `at`, in whole register blocks, on. */
LANES_INLINE packed_rows rows_from(const query_side *s, int64_t at, int64_t words) {
    return (packed_rows){s->rows.codes + at * words * WORD_CODES, s->rows.scale + at, s->rows.initial + at};
}

/* Of tile `at` / QUERIES. */
LANES_INLINE packed_columns columns_from(const query_side *s, int64_t at, int64_t D) {
    packed_columns c = s->columns;
    c.words += at / VL * (bb_round_up(D, PANEL) / WORD_CODES);
    c.scale += at / QUERIES * bb_round_up(D, VL);
    return c;
}

static void pack_side(const query_side *s, int64_t at, act_rows x) {
    int64_t padded = bb_round_up(x.rows, QUERIES);
    pack_rows(rows_from(s, at, row_words(x.D)), x, padded);
    for (int64_t t = 0; t < padded; t += QUERIES) pack_columns(columns_from(s, at + t, x.D), act_from(x, t, QUERIES), QUERIES);
}

static void pack_key_tile(buffers *f, act_rows k, act_rows v) {
    f->keys = k.rows;
    pack_transposed(f->k_transposed, f->k_scale, f->packing, k);
    pack_transposed(f->v_transposed, f->v_scale, f->packing, v);
    pack_columns(f->k, k, bb_round_up(k.rows, WORD_CODES));
}

/* ---- p and ds -------------------------------------------------------------------------------------------------------- */

/* A tile of packed queries, from row `at` on, `rows` of them in whole register blocks; query m sees keys 0 .. m + diagonal. */
typedef struct query_tile {
    int64_t at, rows, diagonal, D;
} query_tile;

/* Index of query m and key n in p and ds. */
LANES_INLINE int64_t tile_at(int64_t m, int64_t n) { return (n / PANEL * QUERIES + m) * PANEL + n % PANEL; }

/* Keys that a register block's last query sees. */
LANES_INLINE int64_t block_end(const buffers *f, const query_tile *t, int64_t m) {
    return bb_clamp(m + t->diagonal + MR, 0, f->keys);
}

/* The vector from key n on with zeros for keys that query m does not see. whole, a constant: it sees all. */
LANES_INLINE vf as_seen(vf x, const buffers *f, int64_t diagonal, int64_t m, int64_t n, bool whole) {
    return whole ? x : vkeep(x, bb_clamp(bb_min(m + diagonal + 1, f->keys) - n, 0, VL), 0.0f);
}

/* The products of the rows of a side, register block m, with the panel of transposed keys or values at n. */
LANES_INLINE void row_products(vi sum[MR][NR], packed_rows side, const vi *transposed, int64_t n, int64_t words, int nr) {
    init_rows(sum, side.initial, nr);
    add_product(sum, (left_words){side.codes, words * (int64_t)sizeof(int32_t), sizeof(int32_t)}, transposed + n / VL * words,
                words, nr, false);
}

/* p of the register block at query m and key n. */
LANES_INLINE void weights_block(const buffers *f, const query_tile *t, int64_t m, int64_t n, int nr, bool whole) {
    vi sum[MR][NR], max_bits[NR];
    int64_t at = t->at + m;
    float *p = f->p + tile_at(m, n);
    row_products(sum, rows_from(&f->q, at, f->words), f->k_transposed, n, f->words, nr);
    LANES_EACH(j, nr) max_bits[j] = viload(f->p_key.max_bits + n + j * VL);
    LANES_EACH(i, MR) {
        vf scale = vset1(f->q.rows.scale[at + i]) * f->c, minus = vset1(-f->lse[at + i]);
        LANES_EACH(j, nr) {
            vf s = vi_to_f32(sum[i][j]) * vload(f->k_scale + n + j * VL);
            vf x = as_seen(vexp2(vfma(s, scale, minus)), f, t->diagonal, m + i, n + j * VL, whole);
            max_bits[j] = vmax_bits(max_bits[j], vabs(x));
            vstore(p + i * PANEL + j * VL, x);
        }
    }
    LANES_EACH(j, nr) vistore(f->p_key.max_bits + n + j * VL, max_bits[j]);
}

/* ds of the same, from p. */
LANES_INLINE void gradients_block(const buffers *f, const query_tile *t, int64_t m, int64_t n, int nr, bool whole) {
    vi sum[MR][NR], max_bits[NR];
    int64_t at = t->at + m;
    const float *p = f->p + tile_at(m, n);
    float *ds = f->ds + tile_at(m, n);
    row_products(sum, rows_from(&f->d_o, at, f->words), f->v_transposed, n, f->words, nr);
    LANES_EACH(j, nr) max_bits[j] = viload(f->ds_key.max_bits + n + j * VL);
    LANES_EACH(i, MR) {
        vf scale = vset1(f->d_o.rows.scale[at + i]), minus = vset1(-f->delta[at + i]);
        vi row_max_bits = viload(f->ds_query.max_bits + (m + i) * VL);
        LANES_EACH(j, nr) {
            vf d_p = vfma(vi_to_f32(sum[i][j]) * vload(f->v_scale + n + j * VL), scale, minus);
            vf x = as_seen(d_p * vload(p + i * PANEL + j * VL), f, t->diagonal, m + i, n + j * VL, whole);
            max_bits[j] = vmax_bits(max_bits[j], vabs(x));
            row_max_bits = vmax_bits(row_max_bits, vabs(x));
            vstore(ds + i * PANEL + j * VL, x);
        }
        vistore(f->ds_query.max_bits + (m + i) * VL, row_max_bits);
    }
    LANES_EACH(j, nr) vistore(f->ds_key.max_bits + n + j * VL, max_bits[j]);
}

/* Computes n scales from the largest magnitudes, which map to the code `max_code`. */
LANES_INLINE void compute_scales(const tile_scales *s, int64_t n, float max_code) {
    for (int64_t i = 0; i < n; i += VL) {
        vf scale = vload((const float *)(const void *)(s->max_bits + i)) * vset1(1.0f / max_code);
        vstore(s->scale + i, scale);
        vstore(s->inverse + i, inverse_of(scale));
    }
}

/* Quantizes nr vectors of the register block at query m and key n. */
LANES_INLINE void round_block(const buffers *f, int64_t m, int64_t n, int nr) {
    LANES_EACH(j, nr) {
        int64_t key = n + j * VL, word = (key / VL * QUERIES + m) / WORD_CODES;
        const float *p = f->p + tile_at(m, key), *ds = f->ds + tile_at(m, key);
        vf p_inverse = vload(f->p_key.inverse + key), ds_inverse = vload(f->ds_key.inverse + key);
        vi x[WORD_CODES], y[MR], initial = viload(f->ds_initial + key);
        LANES_EACH(w, (MR / WORD_CODES)) {
            LANES_EACH(i, WORD_CODES) x[i] = to_codes(vload(p + (w * WORD_CODES + i) * PANEL), p_inverse);
            f->p_words[word + w] = words_of_rows(x, true);
            LANES_EACH(i, WORD_CODES) {
                vf z = vload(ds + (w * WORD_CODES + i) * PANEL);
                x[i] = to_codes(z, ds_inverse);
                y[w * WORD_CODES + i] = to_codes(z, vset1(f->ds_query.inverse[m + w * WORD_CODES + i]));
                initial = add_biases(initial, x[i]);
            }
            f->ds_words[word + w] = words_of_rows(x, false);
        }
        vistore(f->ds_initial + key, initial);
        store_words(f->ds_rows + (m * KEYS + key * MR) / (VL * WORD_CODES), y);
    }
}

/* p, ds and their codes. A register block of queries is computed as far as its last query sees. */
static void weights(const buffers *f, const query_tile *t) {
    memset(f->p_key.max_bits, 0, KEYS * sizeof *f->p_key.max_bits);
    memset(f->ds_key.max_bits, 0, KEYS * sizeof *f->ds_key.max_bits);
    memset(f->ds_query.max_bits, 0, (size_t)(bb_round_up(t->rows, VL) * VL) * sizeof *f->ds_query.max_bits);
    memset(f->ds_initial, 0, KEYS * sizeof *f->ds_initial);
    for (int64_t n = 0; n < f->keys; n += PANEL)
        for (int64_t m = 0; m < t->rows; m += MR) {
            int64_t vectors = bb_ceil_div(block_end(f, t, m) - n, VL);
            if (vectors <= 0) continue;
            if (n + PANEL <= f->keys && n + PANEL <= m + t->diagonal + 1) {
                weights_block(f, t, m, n, NR, true);
                gradients_block(f, t, m, n, NR, true);
            } else {
                WITH_NR(vectors, weights_block(f, t, m, n, NR_NOW, false))
                WITH_NR(vectors, gradients_block(f, t, m, n, NR_NOW, false))
            }
        }
    compute_scales(&f->p_key, KEYS, WEIGHT_MAX);
    compute_scales(&f->ds_key, KEYS, CODE_MAX);
    for (int64_t m = 0; m < t->rows; m++) {
        float largest = vreduce_bits(viload(f->ds_query.max_bits + m * VL));
        memcpy(f->ds_query.max_bits + m, &largest, sizeof largest);
    }
    compute_scales(&f->ds_query, t->rows, CODE_MAX);
    for (int64_t n = 0; n < f->keys; n += PANEL)
        for (int64_t m = 0; m < t->rows; m += MR) {
            int64_t vectors = bb_ceil_div(block_end(f, t, m) - n, VL);
            if (vectors > 0) WITH_NR(vectors, round_block(f, m, n, NR_NOW))
        }
}

/* ---- the gradients --------------------------------------------------------------------------------------------------- */

/* A block of c, rows ldc apart, += row_scale column_scale sum. */
LANES_INLINE void add_block(float *c, int64_t ldc, vi sum[MR][NR], const float *row_scale, const float *column_scale, int nr) {
    LANES_EACH(i, MR) LANES_EACH(j, nr) {
        vf x = vi_to_f32(sum[i][j]) * vset1(row_scale[i]);
        vstore(c + i * ldc + j * VL, vfma(x, vload(column_scale + j * VL), vload(c + i * ldc + j * VL)));
    }
}

/* dv or dk, from the words of p or ds and the columns of do or q. */
typedef struct key_sums {
    float *c; /* (KEYS, dp) */
    const vi *words;
    const tile_scales *scales;
    const int32_t *initial; /* NULL: the words are the unsigned operand */
    packed_columns right;
    int64_t dp;
} key_sums;

/* The register block at key m and column d, over steps first .. last-1. from_ds, a constant: the columns are biased. */
LANES_INLINE void keys_block(const key_sums *x, int64_t m, int64_t d, int64_t first, int64_t last, int nr, bool from_ds) {
    enum { STEPS = QUERIES / WORD_CODES };
    vi sum[MR][NR];
    const int32_t *words = (const int32_t *)(const void *)(x->words + m / VL * STEPS + first) + m % VL;
    init_rows(sum, from_ds ? x->initial + m : NULL, nr);
    add_product(sum, (left_words){words, sizeof(int32_t), sizeof(vi)}, x->right.words + d / VL * STEPS + first * NR,
                last - first, nr, !from_ds);
    add_block(x->c + m * x->dp + d, x->dp, sum, x->scales->scale + m, x->right.scale + d, nr);
}

/* The register block of dq at query m and column d, over the words of keys before `last`. */
LANES_INLINE void queries_block(const buffers *f, float *dq, int64_t m, int64_t d, int64_t last, int nr) {
    enum { STEPS = KEYS / WORD_CODES };
    vi sum[MR][NR];
    const int32_t *words = (const int32_t *)(const void *)f->ds_rows + m * STEPS;
    LANES_EACH(i, MR) LANES_EACH(j, nr) sum[i][j] = CODE_BIAS ? viload(f->k.initial + last * f->dp + d + j * VL) : vizero();
    add_product(sum, (left_words){words, sizeof(int32_t), MR * sizeof(int32_t)}, f->k.words + d / VL * STEPS, last, nr, true);
    add_block(dq + m * f->dp + d, f->dp, sum, f->ds_query.scale + m, f->k.scale + d, nr);
}

static void backward_tile(const buffers *f, float *dq, const query_tile *t) {
    int64_t dp = f->dp, last = t->rows / WORD_CODES;
    const key_sums dv = {f->dv, f->p_words, &f->p_key, NULL, columns_from(&f->d_o, t->at, t->D), dp};
    const key_sums dk = {f->dk, f->ds_words, &f->ds_key, f->ds_initial, columns_from(&f->q, t->at, t->D), dp};
    weights(f, t);
    for (int64_t d = 0; d < dp; d += PANEL) {
        int64_t vectors = (dp - d) / VL;
        for (int64_t m = 0; m < f->keys; m += MR) {
            int64_t first = bb_clamp(m - t->diagonal, 0, t->rows) / WORD_CODES;
            if (first < last) WITH_NR(vectors, keys_block(&dv, m, d, first, last, NR_NOW, false))
        }
        for (int64_t m = 0; m < f->keys; m += MR) {
            int64_t first = bb_clamp(m - t->diagonal, 0, t->rows) / WORD_CODES;
            if (first < last) WITH_NR(vectors, keys_block(&dk, m, d, first, last, NR_NOW, true))
        }
        for (int64_t m = 0; m < t->rows; m += MR) {
            int64_t seen = bb_ceil_div(block_end(f, t, m), WORD_CODES);
            if (seen > 0) WITH_NR(vectors, queries_block(f, dq, m, d, seen, NR_NOW))
        }
    }
}

static void key_tiles(const backward_keys_task *task, void *scratch) {
    const backward_arrays *x = task->x;
    const bb_attention *a = x->a;
    bb_arena arena = {scratch, 0};
    buffers f = layout(&arena, a);
    int64_t D = a->D, G = a->H / a->Hk, padded = bb_round_up(a->Tq, QUERIES);
    int64_t see = a->Tk - a->Tq; /* query t sees keys 0 .. t + see */
    memset(task->dq, 0, (size_t)(G * padded * f.dp) * sizeof *task->dq);
    for (int64_t g = 0; g < G; g++) {
        int64_t h = task->head * G + g, row = task->b * a->Tq;
        row_statistics(f.lse + g * padded, f.delta + g * padded, x, task->b, h, padded);
        pack_side(&f.q, g * padded, (act_rows){x->q + row * a->q_stride + h * D, a->q_stride, false, a->Tq, D});
        pack_side(&f.d_o, g * padded, (act_rows){x->d_o + row * a->o_stride + h * D, a->o_stride, false, a->Tq, D});
    }
    for (int64_t key0 = task->first * KEYS; key0 < task->last * KEYS && key0 < a->Tk; key0 += KEYS) {
        int64_t keys = bb_min(a->Tk - key0, KEYS), at = task->b * a->kv_batch_stride + key0 * a->kv_stride + task->head * D;
        int64_t first = bb_clamp(key0 - see, 0, a->Tq) / QUERIES * QUERIES;
        pack_key_tile(&f, (act_rows){x->k + at, a->kv_stride, false, keys, D},
                      (act_rows){x->v + at, a->kv_stride, false, keys, D});
        memset(f.dk, 0, (size_t)(KEYS * f.dp) * sizeof *f.dk);
        memset(f.dv, 0, (size_t)(KEYS * f.dp) * sizeof *f.dv);
        for (int64_t g = 0; g < G; g++)
            for (int64_t q0 = first; q0 < a->Tq; q0 += QUERIES) {
                const query_tile tile = {g * padded + q0, bb_round_up(bb_min(a->Tq - q0, QUERIES), MR), q0 + see - key0, D};
                backward_tile(&f, task->dq + tile.at * f.dp, &tile);
            }
        store_rows(x->dk + at, a->kv_stride, f.dk, f.dp, keys, D, (float)(1.0 / sqrt((double)D)));
        store_rows(x->dv + at, a->kv_stride, f.dv, f.dp, keys, D, 1.0f);
    }
}

static void finish_dq(const backward_rows_task *t) { sum_dq(t, dq_ld(t->x->a->D)); }

const bb_backward_set SET_NAME(bb_backward) = {
    .queries = QUERIES, .keys = KEYS, .bytes = bytes, .dq_ld = dq_ld, .key_tiles = key_tiles, .finish_dq = finish_dq};
