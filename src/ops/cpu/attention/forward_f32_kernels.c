// SPDX-License-Identifier: MIT
/* Attention's forward pass in f32, in the order of forward_set.h. Compiled once for each instruction set. */
#include "ops/cpu/attention/f32_product.h"
#include "ops/cpu/attention/forward_softmax.h"

enum {
    WIDE_KEYS = WIDE * VL < 4 * PANEL ? WIDE * VL : 4 * PANEL, /* that a single row takes at a time */
    ROWS = 12 /* queries at a time: their scores stay in the first-level cache */
};

_Static_assert(ROWS % MR == 0 && NC % PANEL == 0, "whole register blocks");
_Static_assert(STATE_ROWS >= FORWARD_QUERIES + MR - 1 && F32_BLOCK % NC == 0, "whole register blocks");

/* Scratch of a thread. */
typedef struct f32_buffers {
    forward_state state;
    float *q; /* (STATE_ROWS, D) */
    float *k; /* panels (D, F32_BLOCK) */
    float *v; /* panels (F32_BLOCK, dp) */
    float *s; /* (ROWS, F32_BLOCK): raw scores, then weights */
} f32_buffers;

/* A block of keys. */
typedef struct key_block {
    const float *k, *v;
    int64_t v_step, v_panel, keys, D;
    float c; /* log2 e / sqrt(D) */
} key_block;

static f32_buffers layout(bb_arena *arena, int64_t D) {
    f32_buffers f = {.state = state_layout(arena, D, ROWS)};
    f.q = bb_arena_alloc(arena, STATE_ROWS * (size_t)D * sizeof(float));
    f.k = bb_arena_alloc(arena, F32_BLOCK * (size_t)D * sizeof(float));
    f.v = bb_arena_alloc(arena, F32_BLOCK * (size_t)f.state.dp * sizeof(float));
    f.s = bb_arena_alloc(arena, ROWS * F32_BLOCK * sizeof(float));
    return f;
}

static size_t bytes(int64_t D) {
    bb_arena measure = {0};
    (void)layout(&measure, D);
    return measure.used;
}

/* ---- products -------------------------------------------------------------------------------------------------------- */

LANES_INLINE void score_block(float *s, operands x, int rows, int nv) {
    vf acc[ACC];
    product(acc, x, rows, nv);
    LANES_EACH(m, rows) LANES_EACH(n, nv) vstore(s + m * F32_BLOCK + n * VL, acc[m * nv + n]);
}

/* Raw scores of MR rows against the keys n .. keys-1 of a register block, and those up to a whole panel; s: rows
 * F32_BLOCK apart. */
LANES_APART void scores(float *s, const float *q, const key_block *x, int64_t n, int64_t keys) {
    operands o = {q, x->D, 1, x->k + n * x->D, PANEL, PANEL * x->D, x->D};
    switch (panels_left(keys - n)) {
    case 1: score_block(s + n, o, MR, NV1); break;
    case 2: score_block(s + n, o, MR, NV2); break;
    case 3: score_block(s + n, o, MR, NV3); break;
    default: score_block(s + n, o, MR, NV); break;
    }
}

/* Replaces the raw scores of the keys that a row sees by their weights, and those up to `padded` by zeros. Returns the maximum. */
LANES_INLINE float softmax(float *s, float *sums, int64_t seen, int64_t padded, float c) {
    vsums total = vsums_zero();
    float max = seen > 0 ? row_max(s, seen) * c : -INFINITY;
    vf scale = vset1(c), minus_max = vset1(-max);
    int64_t j = 0;
    for (; j + SUMS <= seen; j += SUMS) LANES_EACH(i, VECTORS) {
            vf x = vexp2(vfma(vload(s + j + i * VL), scale, minus_max));
            total.v[i] = total.v[i] + x;
            vstore(s + j + i * VL, x);
        }
    for (int i = 0; i < VECTORS && j < seen; i++) {
        vf x = vexp2(vfma(vload(s + j + i * VL), scale, minus_max));
        x = vkeep(x, bb_clamp(seen - j - i * VL, 0, VL), 0.0f);
        total.v[i] = total.v[i] + x;
        vstore(s + j + i * VL, x);
    }
    for (j = bb_round_up(bb_max(seen, 0), SUMS); j < padded; j += VL) vstore(s + j, vset1(0.0f));
    store_sums(sums, &total);
    return max;
}

/* o = o old + (the weighted sums of `rows` rows) new, or without factors the sums alone. */
LANES_INLINE void sum_block(float *o, int64_t stride, operands x, const float *old_part, const float *new_part, int rows,
                            int nv) {
    vf acc[ACC];
    product(acc, x, rows, nv);
    LANES_EACH(m, rows) LANES_EACH(n, nv) {
        float *to = o + m * stride + n * VL;
        vf y = acc[m * nv + n];
        vstore(to, old_part ? merged(vload(to), y, vset1(old_part[m]), vset1(new_part[m])) : y);
    }
}

/* The operands of the weighted sums of columns n.. over `keys` keys. */
LANES_INLINE operands value_operands(const float *s, const key_block *x, int64_t n, int64_t keys) {
    return (operands){s, F32_BLOCK, 1, x->v + n / PANEL * x->v_panel, x->v_step, x->v_panel, keys};
}

/* The weighted sums of MR rows and a register block of columns, n.. */
LANES_APART void values(float *o, int64_t stride, operands x, const float *old_part, const float *new_part, int64_t n) {
    switch (panels_left(stride - n)) {
    case 1: sum_block(o + n, stride, x, old_part, new_part, MR, NV1); break;
    case 2: sum_block(o + n, stride, x, old_part, new_part, MR, NV2); break;
    case 3: sum_block(o + n, stride, x, old_part, new_part, MR, NV3); break;
    default: sum_block(o + n, stride, x, old_part, new_part, MR, NV); break;
    }
}

/* ---- packing --------------------------------------------------------------------------------------------------------- */

/* dst: panels (D, keys): element (d, r) is element d of row r, 0 past the rows. */
LANES_INLINE void pack_keys(float *dst, const float *src, int64_t stride, int64_t rows, int64_t D) {
    for (int64_t r = 0; r < bb_round_up(rows, PANEL); r += VL) {
        for (int64_t i = r + VL; i < r + 2 * VL && i < rows; i++) prefetch_row(src + i * stride, (size_t)D * sizeof *src);
        for (int64_t d = 0; d < D; d += VL) {
            float *to = dst + (r / PANEL * D + d) * PANEL + r % PANEL;
            int64_t columns = bb_min(D - d, VL);
            vi x[VL];
            for (int i = 0; i < VL; i++)
                x[i] = (vi)(r + i < rows ? vload_first(src + (r + i) * stride + d, columns) : vset1(0.0f));
            vitranspose(x);
            for (int64_t i = 0; i < columns; i++) vistore(to + i * PANEL, x[i]);
        }
    }
}

/* dst: panels (F32_BLOCK, dp), zeros past D; writes only the given rows. */
LANES_INLINE void pack_values(float *dst, const float *src, int64_t stride, int64_t rows, int64_t D) {
    for (int64_t r = 0; r < rows; r++, src += stride) {
        if (r + PREFETCH_ROWS < rows) prefetch_row(src + PREFETCH_ROWS * stride, (size_t)D * sizeof *src);
        for (int64_t d = 0; d < bb_round_up(D, PANEL); d += VL) {
            float *to = dst + (d / PANEL * F32_BLOCK + r) * PANEL + d % PANEL;
            vstore(to, vload_first(src + d, bb_clamp(D - d, 0, VL)));
        }
    }
}

/* The `keys` keys and values from key0 on of KV head `head`. */
LANES_INLINE key_block block_at(const f32_buffers *f, const attention_job *j, int64_t b, int64_t head, int64_t key0,
                                int64_t keys) {
    int64_t D = j->a.D, at = b * j->a.kv_batch_stride + key0 * j->a.kv_stride + head * D;
    key_block x = {.k = f->k, .keys = keys, .D = D, .c = (float)(M_LOG2E / sqrt((double)D))};
    if (j->kv) {
        x.k = bb_kv_panels(j->kv, head, D) + key0 * D;
        x.v = bb_kv_values(j->kv, head, D) + key0 * D;
        x.v_step = D;
        x.v_panel = PANEL;
        if (D % PANEL == 0) return x;
        pack_values(f->v, x.v, D, keys, D);
    } else {
        pack_keys(f->k, j->k + at, j->a.kv_stride, keys, D);
        pack_values(f->v, j->v + at, j->a.kv_stride, keys, D);
    }
    x.v = f->v;
    x.v_step = PANEL;
    x.v_panel = F32_BLOCK * PANEL;
    return x;
}

/* ---- many queries ---------------------------------------------------------------------------------------------------- */

static void tile(const forward_tile *t, void *scratch) {
    bb_arena arena = {scratch, 0};
    const attention_job *j = t->job;
    const bb_attention *a = &j->a;
    f32_buffers f = layout(&arena, a->D);
    const forward_state *s = &f.state;
    int64_t D = a->D, dp = s->dp, rows = bb_min(a->Tq - t->t0, FORWARD_QUERIES), head = t->h / (a->H / a->Hk);
    int64_t see = t->t0 + a->Tk - a->Tq; /* query m of the tile sees keys 0..m + see */
    const float *q = j->q + (t->b * a->Tq + t->t0) * a->q_stride + t->h * D;
    state_clear(s);
    for (int64_t m = 0; m < rows; m++) memcpy(f.q + m * D, q + m * a->q_stride, (size_t)D * sizeof *q);
    memset(f.q + rows * D, 0, (size_t)((bb_round_up(rows, MR) - rows) * D) * sizeof *q);
    for (int64_t key0 = 0; key0 < see + rows; key0 += F32_BLOCK) {
        int64_t keys = bb_min(see + rows - key0, F32_BLOCK);
        key_block x = block_at(&f, j, t->b, head, key0, keys);
        for (int64_t m = 0; m < rows; m += ROWS) {
            int64_t part = bb_min(bb_round_up(rows - m, MR), ROWS),
                    diagonal = m + see - key0; /* row i sees keys 0..i + diagonal */
            if (diagonal + part <= 0) continue;
            for (int64_t n = 0; n < keys; n += NC)
                for (int64_t i = 0; i < part; i += MR) {
                    int64_t seen = bb_clamp(i + diagonal + MR, 0, keys);
                    if (n < seen) scores(f.s + i * F32_BLOCK, f.q + (m + i) * D, &x, n, seen);
                }
            for (int64_t i = 0; i < part; i++) {
                int64_t block_end = bb_clamp(i / MR * MR + diagonal + MR, 0, keys); /* as far as its register block reads */
                s->block_max[i] =
                    softmax(f.s + i * F32_BLOCK, s->block_sums + i * SUMS, bb_clamp(i + diagonal + 1, 0, keys), block_end, x.c);
            }
            state_merge(s, m, part);
            for (int64_t n = 0; n < dp; n += NC)
                for (int64_t i = 0; i < part; i += MR) {
                    operands p = value_operands(f.s + i * F32_BLOCK, &x, n, bb_clamp(i + diagonal + MR, 0, keys));
                    values(s->o + (m + i) * dp, dp, p, s->old_part + i, s->new_part + i, n);
                }
        }
    }
    state_store(s, t, rows);
}

/* ---- few queries ----------------------------------------------------------------------------------------------------- */

/* `count` <= MR of the unit's queries, from query i on. */
static void unit_rows(const forward_unit *u, const f32_buffers *f, const key_block *x, int64_t i, int64_t count) {
    const attention_job *j = u->job;
    const bb_attention *a = &j->a;
    int64_t D = a->D, dp = f->state.dp, most = 0, d = 0;
    float *partial = u->partials + i * u->partial_stride, *o = f->state.o;
    for (int64_t m = 0; m < count; m++) {
        int64_t row = (i + m) % a->Tq, h = u->head * (a->H / a->Hk) + (i + m) / a->Tq;
        memcpy(f->q + m * D, j->q + row * a->q_stride + h * D, (size_t)D * sizeof(float));
        most = bb_max(most, bb_min(unit_keys(u, i + m), x->keys));
    }
    if (most == 0) return;
    if (count == 1)
        for (int64_t n = 0; n < most; n += WIDE_KEYS) {
            operands p = {f->q, D, 1, x->k + n * D, PANEL, PANEL * D, D};
            if (most - n > WIDE_KEYS - PANEL)
                score_block(f->s + n, p, 1, WIDE_KEYS / VL);
            else
                for (int64_t k = n; k < most; k += NC) scores(f->s, f->q, x, k, most);
        }
    else
        for (int64_t n = 0; n < most; n += NC) scores(f->s, f->q, x, n, most);
    for (int64_t m = 0; m < count; m++) {
        float *tail = partial + m * u->partial_stride + dp;
        tail[PARTIAL_MAX] = softmax(f->s + m * F32_BLOCK, tail, bb_clamp(unit_keys(u, i + m), 0, x->keys), most, x->c);
    }
    if (count == 1) {
        for (; d + WIDE * VL <= dp; d += WIDE * VL)
            sum_block(partial + d, dp, value_operands(f->s, x, d, most), NULL, NULL, 1, WIDE);
        for (; d + NC <= dp; d += NC) sum_block(partial + d, dp, value_operands(f->s, x, d, most), NULL, NULL, 1, NV);
        for (; d < dp; d += PANEL) sum_block(partial + d, dp, value_operands(f->s, x, d, most), NULL, NULL, 1, VECTORS);
        return;
    }
    for (; d < dp; d += NC) values(o, dp, value_operands(f->s, x, d, most), NULL, NULL, d);
    for (int64_t m = 0; m < count; m++) memcpy(partial + m * u->partial_stride, o + m * dp, (size_t)dp * sizeof *o);
}

static void unit(const forward_unit *u, void *scratch) {
    bb_arena arena = {scratch, 0};
    const bb_attention *a = &u->job->a;
    f32_buffers f = layout(&arena, a->D);
    int64_t queries = a->H / a->Hk * a->Tq, keys = bb_min(a->Tk - u->key0, F32_BLOCK);
    key_block x = block_at(&f, u->job, 0, u->head, u->key0, keys);
    if (queries % MR > 0) { /* rows that nobody reads are computed, too */
        memset(f.q, 0, MR * (size_t)a->D * sizeof *f.q);
        memset(f.s, 0, MR * F32_BLOCK * sizeof *f.s);
    }
    for (int64_t i = 0; i < queries; i += MR) unit_rows(u, &f, &x, i, bb_min(queries - i, MR));
}

static void merge(float *o, float *partials, int64_t count, int64_t D) {
    int64_t dp = bb_round_up(D, 16), width = partial_width(D);
    vf max = vset1(-INFINITY);
    for (int64_t i = 0; i < count; i++) {
        float *tail = partials + i * width + dp, old_part[VL], new_part[VL];
        vf old_factor, new_factor;
        max = merge_factors(&old_factor, &new_factor, max, vset1(tail[PARTIAL_MAX]));
        vstore(old_part, old_factor);
        vstore(new_part, new_factor);
        tail[PARTIAL_OLD] = old_part[0];
        tail[PARTIAL_NEW] = new_part[0];
    }
    float sums[SUMS] = {0}, factor = 1.0f;
    for (int64_t d = dp; d >= 0; d -= SUMS) /* the partial sums, which stand last, first */
        LANES_EACH(n, VECTORS) {
            int64_t at = d + n * VL;
            vf x = vset1(0.0f);
            for (int64_t i = 0; i < count; i++) {
                const float *from = partials + i * width;
                x = merged(x, vload(from + at), vset1(from[dp + PARTIAL_OLD]), vset1(from[dp + PARTIAL_NEW]));
            }
            if (d == dp) {
                vstore(sums + n * VL, x);
                if (n == VECTORS - 1) factor = one_over_sum(sums);
            } else if (at < D) {
                vstore_first(o + at, x * vset1(factor), bb_min(D - at, VL));
            }
        }
}

const bb_f32_set SET_NAME(bb_f32) = {.bytes = bytes, .tile = tile, .unit = unit, .merge = merge};
