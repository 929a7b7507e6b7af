// SPDX-License-Identifier: MIT
/* The gradient of attention in f32, for processors without products of integers or bf16 that are faster. */
#include "ops/cpu/attention/backward_rows.h"
#include "ops/cpu/attention/f32_product.h"

enum { QUERIES = 192, KEYS = 96, STRIDE = KEYS + 16 /* of a row of p: a power of two would fill few sets of a cache */ };

_Static_assert(QUERIES % MR == 0 && KEYS % MR == 0 && KEYS % PANEL == 0, "whole register blocks");
_Static_assert(STRIDE >= KEYS + MR && STRIDE % VL == 0, "zeros past the keys that a row sees");

/* Scratch of a task. dp: D rounded up to 16; Tp: Tq rounded up to QUERIES. */
typedef struct buffers {
    float *q_rows, *do_rows;            /* (G, Tp, D) */
    float *q_panels, *do_panels;        /* (G, Tp / QUERIES) panels (QUERIES, dp) */
    float *k_transposed, *v_transposed; /* panels (D, KEYS) */
    float *k_panels;                    /* panels (KEYS, dp) */
    float *p, *ds;                      /* (QUERIES, STRIDE): scores and do vT, then p and ds */
    float *dk, *dv;                     /* (KEYS, dp) */
    float *lse, *delta;                 /* (G, Tp) */
    int64_t D, dp, keys;
} buffers;

static buffers layout(bb_arena *arena, const bb_attention *a) {
    buffers f = {.D = a->D, .dp = bb_round_up(a->D, PANEL)};
    size_t rows = (size_t)(a->H / a->Hk * bb_round_up(a->Tq, QUERIES)), element = sizeof(float);
    size_t row = (size_t)f.D * element, padded = (size_t)f.dp * element;
    f.q_rows = bb_arena_alloc(arena, rows * row);
    f.do_rows = bb_arena_alloc(arena, rows * row);
    f.q_panels = bb_arena_alloc(arena, rows * padded);
    f.do_panels = bb_arena_alloc(arena, rows * padded);
    f.k_transposed = bb_arena_alloc(arena, KEYS * row);
    f.v_transposed = bb_arena_alloc(arena, KEYS * row);
    f.k_panels = bb_arena_alloc(arena, KEYS * padded);
    f.p = bb_arena_alloc(arena, (size_t)QUERIES * STRIDE * element);
    f.ds = bb_arena_alloc(arena, (size_t)QUERIES * STRIDE * element);
    f.dk = bb_arena_alloc(arena, KEYS * padded);
    f.dv = bb_arena_alloc(arena, KEYS * padded);
    f.lse = bb_arena_alloc(arena, rows * element);
    f.delta = bb_arena_alloc(arena, rows * element);
    return f;
}

static size_t bytes(const bb_attention *a) {
    bb_arena measure = {0};
    (void)layout(&measure, a);
    return measure.used;
}

static int64_t dq_ld(int64_t D) { return bb_round_up(D, PANEL); }

/* ---- packing --------------------------------------------------------------------------------------------------------- */

/* Rows of bf16, `stride` elements apart. */
typedef struct bf16_rows {
    const bb_bf16 *at;
    int64_t stride, rows, D;
} bf16_rows;

LANES_INLINE vf columns_at(const bf16_rows *x, int64_t r, int64_t d) {
    return r < x->rows ? vload_bf16_first(x->at + r * x->stride + d, bb_clamp(x->D - d, 0, VL)) : vset1(0.0f);
}

/* to_rows: (padded, D), or NULL; panels: (panel_rows, dp). Rows up to `padded` are zeros. */
static void pack_panels(float *to_rows, float *panels, int64_t panel_rows, const bf16_rows *x, int64_t padded) {
    for (int64_t r = 0; r < padded; r++) {
        if (r + PREFETCH_ROWS < x->rows) prefetch_row(x->at + (r + PREFETCH_ROWS) * x->stride, (size_t)x->D * sizeof *x->at);
        for (int64_t d = 0; d < bb_round_up(x->D, PANEL); d += VL) {
            vf y = columns_at(x, r, d);
            vstore(panels + (d / PANEL * panel_rows + r) * PANEL + d % PANEL, y);
            if (to_rows && d < x->D) vstore_first(to_rows + r * x->D + d, y, bb_min(x->D - d, VL));
        }
    }
}

/* panels (D, rows rounded up to 16): element (d, r) is element d of row r. */
static void pack_transposed(float *panels, const bf16_rows *x) {
    for (int64_t r = 0; r < bb_round_up(x->rows, PANEL); r += VL)
        for (int64_t d = 0; d < x->D; d += VL) {
            float *to = panels + (r / PANEL * x->D + d) * PANEL + r % PANEL;
            vi y[VL];
            for (int i = 0; i < VL; i++) y[i] = (vi)columns_at(x, r + i, d);
            vitranspose(y);
            for (int64_t i = 0; i < bb_min(x->D - d, VL); i++) vistore(to + i * PANEL, y[i]);
        }
}

/* lse in units of log2 e, and delta, of query head h into row `at` on; and the head's queries and their gradients. */
static void pack_head(const buffers *f, const backward_arrays *x, int64_t b, int64_t h, int64_t at) {
    const bb_attention *a = x->a;
    int64_t D = a->D, q0 = b * a->Tq * a->q_stride + h * D, o0 = b * a->Tq * a->o_stride + h * D;
    row_statistics(f->lse + at, f->delta + at, x, b, h, bb_round_up(a->Tq, QUERIES));
    for (int64_t t = 0; t < a->Tq; t += QUERIES) {
        int64_t rows = bb_min(a->Tq - t, QUERIES), row = at + t;
        const bf16_rows q = {x->q + q0 + t * a->q_stride, a->q_stride, rows, D};
        const bf16_rows d_o = {x->d_o + o0 + t * a->o_stride, a->o_stride, rows, D};
        pack_panels(f->q_rows + row * D, f->q_panels + row * f->dp, QUERIES, &q, QUERIES);
        pack_panels(f->do_rows + row * D, f->do_panels + row * f->dp, QUERIES, &d_o, QUERIES);
    }
}

/* ---- a tile ---------------------------------------------------------------------------------------------------------- */

LANES_INLINE void store_block(float *c, int64_t stride, operands x, bool add, int nv) {
    vf acc[ACC];
    product(acc, x, MR, nv);
    LANES_EACH(m, MR) LANES_EACH(n, nv) {
        float *to = c + m * stride + n * VL;
        vf y = acc[m * nv + n];
        if (add) y = y + vload(to);
        vstore(to, y);
    }
}

/* A register block of c, with the columns that are left, is set. */
LANES_APART void set_block(float *c, int64_t stride, operands x, int64_t left) {
    switch (panels_left(left)) {
    case 1: store_block(c, stride, x, false, NV1); break;
    case 2: store_block(c, stride, x, false, NV2); break;
    case 3: store_block(c, stride, x, false, NV3); break;
    default: store_block(c, stride, x, false, NV); break;
    }
}

/* The same, added to. */
LANES_APART void add_block(float *c, int64_t stride, operands x, int64_t left) {
    switch (panels_left(left)) {
    case 1: store_block(c, stride, x, true, NV1); break;
    case 2: store_block(c, stride, x, true, NV2); break;
    case 3: store_block(c, stride, x, true, NV3); break;
    default: store_block(c, stride, x, true, NV); break;
    }
}

/* The tile at hand: `rows` packed queries, in whole register blocks, from row `at` on; row r sees keys 0..r + diagonal. */
typedef struct query_tile {
    int64_t at, rows, diagonal;
} query_tile;

/* p and ds, with zeros past the keys that a row sees as far as the products read. */
static void weights(const buffers *f, const query_tile *t) {
    int64_t D = f->D;
    vf c = vset1((float)(M_LOG2E / sqrt((double)D)));
    for (int64_t n = 0; n < f->keys; n += NC)
        for (int64_t i = 0; i < t->rows; i += MR) {
            int64_t seen = bb_clamp(i + t->diagonal + MR, 0, f->keys), row = (t->at + i) * D;
            if (n >= seen) continue;
            set_block(f->p + i * STRIDE + n, STRIDE,
                      (operands){f->q_rows + row, D, 1, f->k_transposed + n * D, PANEL, PANEL * D, D}, seen - n);
            set_block(f->ds + i * STRIDE + n, STRIDE,
                      (operands){f->do_rows + row, D, 1, f->v_transposed + n * D, PANEL, PANEL * D, D}, seen - n);
        }
    for (int64_t i = 0; i < t->rows; i++) {
        int64_t seen = bb_clamp(i + t->diagonal + 1, 0, f->keys), j = 0;
        vf minus_lse = vset1(-f->lse[t->at + i]), delta = vset1(f->delta[t->at + i]);
        float *p = f->p + i * STRIDE, *ds = f->ds + i * STRIDE;
        for (; j < seen; j += VL) {
            vf x = vexp2(vfma(vload(p + j), c, minus_lse)), y = x * (vload(ds + j) - delta);
            vstore(p + j, j + VL <= seen ? x : vkeep(x, seen - j, 0.0f));
            vstore(ds + j, j + VL <= seen ? y : vkeep(y, seen - j, 0.0f));
        }
        for (; j < seen + MR; j += VL) {
            vstore(p + j, vset1(0.0f));
            vstore(ds + j, vset1(0.0f));
        }
    }
}

static void backward_tile(const buffers *f, float *dq, const query_tile *t) {
    int64_t dp = f->dp;
    weights(f, t);
    for (int64_t n = 0; n < dp; n += NC) {
        const float *d_o = f->do_panels + t->at * dp + n * QUERIES, *q = f->q_panels + t->at * dp + n * QUERIES;
        for (int64_t m = 0; m < f->keys; m += MR) {
            int64_t first = bb_clamp(m - t->diagonal, 0, t->rows), queries = t->rows - first, from = first * STRIDE + m;
            if (queries == 0) continue;
            add_block(f->dv + m * dp + n, dp,
                      (operands){f->p + from, 1, STRIDE, d_o + first * PANEL, PANEL, QUERIES * PANEL, queries}, dp - n);
            add_block(f->dk + m * dp + n, dp,
                      (operands){f->ds + from, 1, STRIDE, q + first * PANEL, PANEL, QUERIES * PANEL, queries}, dp - n);
        }
        for (int64_t i = 0; i < t->rows; i += MR) {
            int64_t keys = bb_clamp(i + t->diagonal + MR, 0, f->keys);
            operands x = {f->ds + i * STRIDE, STRIDE, 1, f->k_panels + n * KEYS, PANEL, KEYS * PANEL, keys};
            if (keys > 0) add_block(dq + i * dp + n, dp, x, dp - n);
        }
    }
}

static void key_tiles(const backward_keys_task *t, void *scratch) {
    const backward_arrays *x = t->x;
    const bb_attention *a = x->a;
    bb_arena arena = {scratch, 0};
    buffers f = layout(&arena, a);
    int64_t D = a->D, G = a->H / a->Hk, padded = bb_round_up(a->Tq, QUERIES);
    int64_t see = a->Tk - a->Tq; /* query t sees keys 0..t + see */
    float scale = (float)(1.0 / sqrt((double)D));

    memset(t->dq, 0, (size_t)(G * padded * f.dp) * sizeof *t->dq);
    for (int64_t g = 0; g < G; g++) pack_head(&f, x, t->b, t->head * G + g, g * padded);
    for (int64_t key0 = t->first * KEYS; key0 < t->last * KEYS && key0 < a->Tk; key0 += KEYS) {
        int64_t at = t->b * a->kv_batch_stride + key0 * a->kv_stride + t->head * D, keys = bb_min(a->Tk - key0, KEYS);
        int64_t first = bb_clamp(key0 - see, 0, a->Tq) / QUERIES * QUERIES;
        const bf16_rows k = {x->k + at, a->kv_stride, keys, D}, v = {x->v + at, a->kv_stride, keys, D};
        f.keys = keys;
        pack_transposed(f.k_transposed, &k);
        pack_transposed(f.v_transposed, &v);
        pack_panels(NULL, f.k_panels, KEYS, &k, keys);
        memset(f.dk, 0, (size_t)(KEYS * f.dp) * sizeof *f.dk);
        memset(f.dv, 0, (size_t)(KEYS * f.dp) * sizeof *f.dv);
        for (int64_t g = 0; g < G; g++)
            for (int64_t q0 = first; q0 < a->Tq; q0 += QUERIES) {
                const query_tile tile = {g * padded + q0, bb_round_up(bb_min(a->Tq - q0, QUERIES), MR), q0 + see - key0};
                backward_tile(&f, t->dq + tile.at * f.dp, &tile);
            }
        store_rows(x->dk + at, a->kv_stride, f.dk, f.dp, keys, D, scale);
        store_rows(x->dv + at, a->kv_stride, f.dv, f.dp, keys, D, 1.0f);
    }
}

static void finish_dq(const backward_rows_task *t) { sum_dq(t, dq_ld(t->x->a->D)); }

const bb_backward_set SET_NAME(bb_backward) = {
    .queries = QUERIES, .keys = KEYS, .bytes = bytes, .dq_ld = dq_ld, .key_tiles = key_tiles, .finish_dq = finish_dq};
