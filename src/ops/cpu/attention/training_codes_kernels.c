// SPDX-License-Identifier: MIT
/* The forward pass in codes, used where a backward pass in codes follows: the scores are exactly those of that pass. Values have scale
 * max/CODE_MAX of their column in the tile of keys; a query's weights in a tile of keys have scale max/WEIGHT_MAX. Compiled once for
 * each instruction set. */
#include "ops/cpu/attention/training_codes.h"

#include "ops/cpu/attention/training_softmax.h"

enum {
    KEYS = 256, /* of a tile: the cost per tile matters more than with slower products */
    ROWS = 16   /* queries processed against it at a time: their scores stay in the first-level cache */
};

/* A tile of keys and values. dp: D rounded up to VL. */
typedef struct packed_keys {
    vi *k;          /* panels (row_words, KEYS), biased */
    float *k_scale; /* (KEYS) */
    vi *v;          /* panels (KEYS / WORD_CODES, dp) */
    float *v_scale; /* (dp) */
} packed_keys;

static packed_keys keys_layout(bb_arena *arena, int64_t D) {
    packed_keys t;
    t.k = bb_arena_alloc(arena, KEYS * (size_t)row_words(D) * sizeof(int32_t));
    t.k_scale = bb_arena_alloc(arena, KEYS * sizeof(float));
    t.v = bb_arena_alloc(arena, KEYS * (size_t)bb_round_up(D, PANEL) * sizeof(code));
    t.v_scale = bb_arena_alloc(arena, (size_t)bb_round_up(D, VL) * sizeof(float));
    return t;
}

static size_t keys_bytes(int64_t D) {
    bb_arena measure = {0};
    keys_layout(&measure, D);
    return measure.used;
}

/* Scratch of a thread. */
typedef struct buffers {
    softmax_state state;
    packed_rows q; /* (QUERIES); scale: times log2 e / sqrt(D) */
    code *packing;
    float *s;            /* (ROWS, KEYS) scores in units of log2 e */
    code *weight;        /* (ROWS, KEYS) */
    float *weight_scale; /* (ROWS) */
    float *alpha, *top;  /* (ROWS): factors of the state; the largest weight in the tile */
    int64_t words;       /* of a row */
} buffers;

static buffers layout(bb_arena *arena, int64_t D) {
    buffers f = {.state = softmax_layout(arena, bb_round_up(D, VL)), .words = row_words(D)};
    f.q.codes = bb_arena_alloc(arena, QUERIES * (size_t)row_words(D) * sizeof(int32_t));
    f.q.scale = bb_arena_alloc(arena, QUERIES * sizeof(float));
    f.q.initial = bb_arena_alloc(arena, QUERIES * sizeof(int32_t));
    f.packing = bb_arena_alloc(arena, packing_bytes(D));
    f.s = bb_arena_alloc(arena, (size_t)ROWS * KEYS * sizeof(float));
    f.weight = bb_arena_alloc(arena, (size_t)ROWS * KEYS * sizeof(code));
    f.weight_scale = bb_arena_alloc(arena, ROWS * sizeof(float));
    f.alpha = bb_arena_alloc(arena, ROWS * sizeof(float));
    f.top = bb_arena_alloc(arena, ROWS * sizeof(float));
    return f;
}

static size_t bytes(int64_t D) {
    bb_arena measure = {0};
    layout(&measure, D);
    return measure.used;
}

/* Queries row0 .. row0+rows-1 of the tile, in whole register blocks, against a tile of keys; query m sees keys 0 .. m + diagonal. */
typedef struct row_group {
    const packed_keys *keys;
    int64_t row0, rows, seen, diagonal; /* seen: keys there are */
    bool first;                         /* no tile of keys came before */
} row_group;

/* Keys that a register block's last query sees. */
LANES_INLINE int64_t block_end(const row_group *g, int64_t m) { return bb_clamp(m / MR * MR + g->diagonal + MR, 0, g->seen); }

/* Scores of the register block at query m and key n. */
LANES_INLINE void scores(const buffers *f, const row_group *g, int64_t m, int64_t n, int nr) {
    vi sum[MR][NR];
    int64_t row = g->row0 + m, row_bytes = f->words * (int64_t)sizeof(int32_t);
    init_rows(sum, f->q.initial + row, nr);
    add_product(sum, (left_words){f->q.codes + row * f->words * WORD_CODES, row_bytes, sizeof(int32_t)},
                g->keys->k + n / VL * f->words, f->words, nr, false);
    LANES_EACH(i, MR)
    LANES_EACH(j, nr)
    vstore(f->s + (m + i) * KEYS + n + j * VL,
           vi_to_f32(sum[i][j]) * (vset1(f->q.scale[row + i]) * vload(g->keys->k_scale + n + j * VL)));
}

/* o = alpha o + weighted sums, for the register block at query m and column d. */
LANES_INLINE void values(const buffers *f, const row_group *g, int64_t m, int64_t d, int nr) {
    vi sum[MR][NR];
    int64_t dp = f->state.dp;
    float *o = f->state.o + (g->row0 + m) * dp + d;
    init_rows(sum, NULL, nr);
    add_product(sum, (left_words){f->weight + m * KEYS, KEYS * sizeof(code), sizeof(int32_t)},
                g->keys->v + d / VL * (KEYS / WORD_CODES), bb_ceil_div(block_end(g, m), WORD_CODES), nr, true);
    LANES_EACH(i, MR) LANES_EACH(j, nr) {
        vf x = vi_to_f32(sum[i][j]) * (vset1(f->weight_scale[m + i]) * vload(g->keys->v_scale + d + j * VL));
        if (!g->first) x = vfma(vload(o + i * dp + j * VL), vset1(f->alpha[m + i]), x);
        vstore(o + i * dp + j * VL, x);
    }
}

/* The weights 2^(s - max) of the first `seen` scores as codes, zeros past them up to `end`; returns what is added to their sums. */
LANES_INLINE vf row_weights(code *weight, const float *s, float max, float inverse, int64_t seen, int64_t end) {
    vf total = vset1(0.0f), minus_max = vset1(-max);
    for (int64_t j = 0; j < end; j += WORD_CODES * VL) {
        vi x[WORD_CODES];
        LANES_EACH(i, WORD_CODES) {
            vf y = vexp2(vload(s + j + i * VL) + minus_max);
            if (j + (i + 1) * VL > seen) y = vkeep(y, bb_clamp(seen - j - i * VL, 0, VL), 0.0f);
            total = total + y;
            x[i] = to_codes(y, vset1(inverse));
        }
        store_weights(weight + j, x);
    }
    return total;
}

/* The weights of the group's scores; updates sum, max and alpha. */
LANES_INLINE void softmax(const buffers *f, const row_group *g) {
    const softmax_state *state = &f->state;
    const score_rows raw = {f->s, KEYS, g->rows, g->seen, g->diagonal, 1.0f, g->first};
    update_max(state->max + g->row0, f->alpha, f->top, &raw);
    for (int64_t m = 0; m < g->rows; m += VL) {
        vf scale = vload(f->top + m) * vset1(1.0f / WEIGHT_MAX);
        vstore(f->weight_scale + m, scale);
        vstore(f->top + m, inverse_of(scale));
    }
    for (int64_t m = 0; m < g->rows; m++) {
        int64_t seen = bb_clamp(m + g->diagonal + 1, 0, g->seen), end = block_end(g, m);
        const float *s = f->s + m * KEYS;
        float max = state->max[g->row0 + m], *sum = state->sum + (g->row0 + m) * VL;
        vf total;
        if (end == 0) continue;
        if (seen == KEYS)
            total = row_weights(f->weight + m * KEYS, s, max, f->top[m], KEYS, KEYS);
        else
            total = row_weights(f->weight + m * KEYS, s, max, f->top[m], seen, end);
        vstore(sum, g->first ? total : vfma(vload(sum), vset1(f->alpha[m]), total));
    }
}

static void pack_keys(void *to, const forward_tile *t, int64_t key0, void *scratch) {
    const attention_job *job = t->job;
    const bb_attention *a = &job->a;
    bb_arena arena = {scratch, 0}, keys_arena = {to, 0};
    buffers f = layout(&arena, a->D);
    packed_keys packed = keys_layout(&keys_arena, a->D);
    int64_t at = t->b * a->kv_batch_stride + key0 * a->kv_stride + t->h * a->D, keys = bb_min(a->Tk - key0, KEYS);
    const act_rows k = {job->k + at, a->kv_stride, true, keys, a->D}, v = {job->v + at, a->kv_stride, true, keys, a->D};
    pack_transposed(packed.k, packed.k_scale, f.packing, k);
    pack_columns((packed_columns){packed.v, KEYS / WORD_CODES, packed.v_scale, NULL, false}, v, bb_round_up(keys, WORD_CODES));
}

static void tile(const forward_tile *t, const char *packed, void *scratch) {
    const attention_job *job = t->job;
    const bb_attention *a = &job->a;
    bb_arena arena = {scratch, 0};
    buffers f = layout(&arena, a->D);
    int64_t D = a->D, dp = f.state.dp, rows = bb_min(a->Tq - t->t0, QUERIES);
    int64_t see = t->t0 + a->Tk - a->Tq; /* query m of the tile sees keys 0 .. m + see */
    const act_rows q = {job->q + (t->b * a->Tq + t->t0) * a->q_stride + t->h * D, a->q_stride, true, rows, D};
    pack_rows(f.q, q, bb_round_up(rows, MR));
    for (int64_t m = 0; m < rows; m++) f.q.scale[m] *= (float)(M_LOG2E / sqrt((double)D));
    for (int64_t key0 = 0; key0 < see + rows; key0 += KEYS, packed += keys_bytes(D)) {
        bb_arena keys_arena = {(unsigned char *)packed, 0};
        const packed_keys keys = keys_layout(&keys_arena, D);
        row_group g = {.keys = &keys, .seen = bb_min(see + rows - key0, KEYS), .first = key0 == 0};
        for (int64_t m = 0; m < rows; m += ROWS) {
            g.row0 = m;
            g.rows = bb_min(bb_round_up(rows - m, MR), ROWS);
            g.diagonal = m + see - key0;
            if (g.diagonal + g.rows <= 0) continue;
            for (int64_t n = 0; n < g.seen; n += PANEL)
                for (int64_t i = 0; i < g.rows; i += MR) {
                    int64_t left = block_end(&g, i) - n;
                    if (left > 0) WITH_NR(bb_ceil_div(left, VL), scores(&f, &g, i, n, NR_NOW))
                }
            softmax(&f, &g);
            for (int64_t d = 0; d < dp; d += PANEL)
                for (int64_t i = 0; i < g.rows; i += MR)
                    if (block_end(&g, i) > 0) WITH_NR((dp - d) / VL, values(&f, &g, i, d, NR_NOW))
        }
    }
    softmax_store(&f.state, t, rows);
}

const bb_training_set SET_NAME(bb_training) = {
    .queries = QUERIES, .keys = KEYS, .bytes = bytes, .keys_bytes = keys_bytes, .pack_keys = pack_keys, .tile = tile};
