// SPDX-License-Identifier: MIT
/* Attention's forward pass over keys and values that are cached as codes, in integers, in the order of forward_set.h. Six-bit codes are
 * converted to int8 first, except by forward_int6_kernels.c. Compiled once for each instruction set. */
#include "ops/cpu/attention/forward_codes.h"

#if defined(__AMX_INT8__)
#include "ops/cpu/attention/forward_codes_amx.h"
#else
#include "ops/cpu/attention/forward_codes_words.h"
#endif

_Static_assert(ROWS % MR == 0, "whole register blocks");

/* Scratch of a thread. */
typedef struct codes_buffers {
    forward_state state;
    code_block block;
    code_operands operands;
    int16_t *query; /* (D rounded up to 64) */
    float *q_scale; /* (STATE_ROWS) */
    float *s;       /* (ROWS, CODES_BLOCK) */
    float *scale;   /* (ROWS), of the weights */
} codes_buffers;

static codes_buffers layout(bb_arena *arena, int64_t D) {
    codes_buffers c = {.block = code_block_layout(arena, D)};
    c.s = bb_arena_alloc(arena, ROWS * CODES_BLOCK * sizeof(float));
    c.scale = bb_arena_alloc(arena, ROWS * sizeof(float));
    c.state = state_layout(arena, D, ROWS);
    c.query = bb_arena_alloc(arena, (size_t)bb_round_up(D, 64) * sizeof(int16_t));
    c.q_scale = bb_arena_alloc(arena, STATE_ROWS * sizeof(float));
    c.operands = code_operands_layout(arena, D);
    return c;
}

static size_t bytes(int64_t D) {
    bb_arena measure = {0};
    (void)layout(&measure, D);
    (void)unit_weights_layout(&measure);
    return measure.used;
}

static void query(cached_q *out, const float *q, int64_t D) { out->scale = quantize_query(out->codes, q, D); }

/* ---- many queries ---------------------------------------------------------------------------------------------------- */

static void tile(const forward_tile *t, void *scratch) {
    bb_arena arena = {scratch, 0};
    const attention_job *j = t->job;
    const bb_attention *a = &j->a;
    codes_buffers c = layout(&arena, a->D);
    const forward_state *s = &c.state;
    int64_t D = a->D, rows = bb_min(a->Tq - t->t0, FORWARD_QUERIES), head = t->h / (a->H / a->Hk);
    int64_t see = t->t0 + a->Tk - a->Tq; /* query m of the tile sees keys 0..m + see */
    state_clear(s);
    products_open();
    for (int64_t m = 0; m < bb_round_up(rows, MR); m++) {
        if (m + PREFETCH_ROWS < rows)
            prefetch_row(j->q + (t->t0 + m + PREFETCH_ROWS) * a->q_stride + t->h * D, (size_t)D * sizeof(float));
        if (m < rows)
            c.q_scale[m] = quantize_query(c.query, j->q + (t->t0 + m) * a->q_stride + t->h * D, D);
        else
            memset(c.query, 0, (size_t)bb_round_up(D, 64) * sizeof *c.query);
        set_query(&c.operands, m, c.query);
    }
    for (int64_t key0 = 0; key0 < see + rows; key0 += CODES_BLOCK) {
        int64_t keys = bb_min(see + rows - key0, CODES_BLOCK);
        load_block(&c.block, j->kv, head, key0, keys, D);
        pack_keys(&c.operands, &c.block);
        pack_values(&c.operands, &c.block);
        for (int64_t m = 0; m < rows; m += ROWS) {
            code_rows r = {c.s, m, bb_min(bb_round_up(rows - m, MR), ROWS), keys, m + see - key0};
            if (r.diagonal + r.rows <= 0) continue;
            scores(&r, &c.operands, c.q_scale, c.block.k_scale);
            for (int64_t i = 0; i < r.rows; i++) {
                int64_t seen = bb_clamp(i + r.diagonal + 1, 0, keys), end = bb_round_up(block_end(&r, i), KEYS_TOGETHER);
                code_softmax x = softmax_codes(weights_of(&r, i), c.s + i * CODES_BLOCK, s->block_sums + i * SUMS,
                                               c.block.v_scale, seen, end);
                set_weights(&c.operands, i, weights_of(&r, i), end);
                s->block_max[i] = x.max;
                c.scale[i] = x.scale;
            }
            state_merge(s, m, r.rows);
            values(&r, &c.operands, s, c.scale);
        }
    }
    products_close();
    state_store(s, t, rows);
}

/* ---- few queries ----------------------------------------------------------------------------------------------------- */

/* The sums of VL keys' products with the query, from key j on; the last key's again past it. */
LANES_INLINE vi key_sums(const int16_t *q, const code_block *x, int64_t j, bool whole) {
    const int8_t *ahead = prefetch_target(x->k, j * x->width, x->keys * x->width, x->v), *k[VL];
    vi sums[VL];
    LANES_EACH(i, VL) k[i] = x->k + (whole ? j + i : bb_min(j + i, x->keys - 1)) * x->width;
#if defined(__AVX512F__)
    _Pragma("GCC unroll 1") /* hardware prefetching follows loads that advance by a constant stride */
        for (int i = 0; i < VL; i++) {
        vi sum = vizero();
        for (int64_t d = 0; d < x->width; d += 2 * VL) { /* the query is zero past the width */
            if (d % 64 == 0) fetch_line(ahead + i * x->width + d);
            sum = vidot_pairs(sum, viload(q + d), viload_codes(k[i] + d));
        }
        sums[i] = sum;
    }
#else
    LANES_EACH(i, VL) sums[i] = vizero();
    for (int64_t d = 0; d < x->width; d += 2 * VL) {
        vi part = viload(q + d);
        LANES_EACH(i, VL) {
            if (d % 64 == 0) fetch_line(ahead + i * x->width + d);
            sums[i] = vidot_pairs(sums[i], part, viload_codes(k[i] + d));
        }
    }
#endif
    return visum_each(sums);
}

LANES_INLINE void unit_scores(float *s, const cached_q *q, const code_block *x, int64_t keys) {
    int64_t j = 0;
    vf scale = vset1(q->scale);
    for (; j + VL <= keys; j += VL) vstore(s + j, vi_to_f32(key_sums(q->codes, x, j, true)) * (scale * vload(x->k_scale + j)));
    if (j < keys) vstore(s + j, vi_to_f32(key_sums(q->codes, x, j, false)) * (scale * vload(x->k_scale + j)));
}

static void unit(const forward_unit *u, void *scratch) {
    bb_arena arena = {scratch, 0};
    const bb_attention *a = &u->job->a;
    int64_t D = a->D, queries = a->H / a->Hk * a->Tq, keys = bb_min(a->Tk - u->key0, CODES_BLOCK);
    codes_buffers c = layout(&arena, D);
    unit_weights w = unit_weights_layout(&arena);
    load_block(&c.block, u->job->kv, u->head, u->key0, keys, D);
    if (u->next) c.block.next = u->next;
    for (int64_t i = 0; i < queries; i += UNIT_QUERIES) {
        int count = (int)bb_min(queries - i, UNIT_QUERIES);
        for (int n = 0; n < count; n++) {
            int64_t seen = bb_clamp(unit_keys(u, i + n), 0, keys);
            unit_scores(c.s, &u->queries[i + n], &c.block, seen);
            unit_softmax(&w, n, c.s, u->partials + (i + n) * u->partial_stride + bb_round_up(D, 16), &c.block, seen);
        }
        unit_values(u, &w, i, count, &c.block);
    }
}

const bb_codes_set SET_NAME(bb_codes) = {.bytes = bytes, .tile = tile, .query = query, .unit = unit};
