// SPDX-License-Identifier: MIT
/* The gradient of attention on AMX, in bf16. Scores are computed transposed, with keys as rows, so that p and ds are already the left
 * operands that dv and dk need; dq is summed transposed. Everything is padded with zeros to blocks of 32. */
#include "ops/cpu/attention/attention_amx.h"
#include "ops/cpu/attention/backward_rows.h"

enum {
    QUERIES = 256, /* of a tile; dk and dv pass through the tile registers once per tile */
    KEYS = 128,
    KEY_BLOCKS = KEYS / AMX_SIDE,
    QUERY_BLOCKS = QUERIES / AMX_SIDE,
    AMX_BLOCK = AMX_SIDE * AMX_SIDE
};

/* Scratch of a task. Dp: D rounded up to 32; Tp: Tq rounded up to QUERIES. */
typedef struct amx_buffers {
    uint32_t *q_transposed, *do_transposed; /* (G, Tp / 32, Dp / 2, 32): words of two d, one query per column */
    uint32_t *q_pairs, *do_pairs;           /* (G, Tp / 32, 16, Dp): words of two queries */
    bb_bf16 *k_rows, *v_rows;               /* (KEYS, Dp) */
    bb_bf16 *k_columns;                     /* (Dp, KEYS) */
    bb_bf16 *p, *ds;                        /* (KEYS / 32, QUERIES / 32, 32, 32) */
    uint32_t *ds_pairs;                     /* (QUERIES / 32, KEYS / 32, 16, 32): words of two keys */
    float *s, *dp;                          /* two of (32, 32) */
    float *dk, *dv;                         /* (KEYS, Dp) */
    float *lse, *delta;                     /* (G, Tp) */
    int64_t width;                          /* Dp */
    vf c;                                   /* log2 e / sqrt(D) */
} amx_buffers;

static amx_buffers layout(bb_arena *arena, const bb_attention *a) {
    size_t dp = (size_t)bb_round_up(a->D, AMX_SIDE), rows = (size_t)(a->H / a->Hk * bb_round_up(a->Tq, QUERIES));
    size_t bf16 = sizeof(bb_bf16), f32 = sizeof(float), scores = KEYS * QUERIES * bf16;
    amx_buffers f = {.width = (int64_t)dp, .c = vset1((float)(M_LOG2E / sqrt((double)a->D)))};
    f.q_transposed = bb_arena_alloc(arena, rows * dp * bf16);
    f.do_transposed = bb_arena_alloc(arena, rows * dp * bf16);
    f.q_pairs = bb_arena_alloc(arena, rows * dp * bf16);
    f.do_pairs = bb_arena_alloc(arena, rows * dp * bf16);
    f.k_rows = bb_arena_alloc(arena, KEYS * dp * bf16);
    f.v_rows = bb_arena_alloc(arena, KEYS * dp * bf16);
    f.k_columns = bb_arena_alloc(arena, KEYS * dp * bf16);
    f.p = bb_arena_alloc(arena, scores);
    f.ds = bb_arena_alloc(arena, scores);
    f.ds_pairs = bb_arena_alloc(arena, scores);
    f.s = bb_arena_alloc(arena, 2 * AMX_BLOCK * f32);
    f.dp = bb_arena_alloc(arena, 2 * AMX_BLOCK * f32);
    f.dk = bb_arena_alloc(arena, KEYS * dp * f32);
    f.dv = bb_arena_alloc(arena, KEYS * dp * f32);
    f.lse = bb_arena_alloc(arena, rows * f32);
    f.delta = bb_arena_alloc(arena, rows * f32);
    return f;
}

static size_t bytes(const bb_attention *a) {
    bb_arena measure = {0};
    layout(&measure, a);
    return measure.used;
}

/* A task's dq is (G, Tp / 32, Dp, 32). */
static int64_t dq_ld(int64_t D) { return bb_round_up(D, AMX_SIDE); }

/* ---- packing --------------------------------------------------------------------------------------------------------- */

/* Loads 16 rows of 32 elements; only the first `rows` and `n` are valid, the rest become zeros. */
LANES_INLINE void load_square(__m512i x[16], const bb_bf16 *src, int64_t stride, int64_t rows, int64_t n) {
    __mmask32 mask = n >= 32 ? 0xffffffffu : (__mmask32)((1u << n) - 1);
    for (int r = 0; r < 16; r++) x[r] = r < rows ? _mm512_maskz_loadu_epi16(mask, src + r * stride) : _mm512_setzero_si512();
}

/* Interleaves rows 2i and 2i + 1 into words: columns 0..15 in low[i], 16..31 in high[i]. */
LANES_INLINE void pair_rows(__m512i low[8], __m512i high[8], const __m512i x[16]) {
    for (int i = 0; i < 8; i++) bb_pair_rows16(&low[i], &high[i], x[2 * i], x[2 * i + 1]);
}

/* Packs `rows` rows as q_transposed and q_pairs. */
static void pack_queries(uint32_t *transposed, uint32_t *pairs, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t D) {
    int64_t dp = bb_round_up(D, AMX_SIDE), padded = bb_round_up(rows, QUERIES);
    for (int64_t r = 0; r < padded; r += 16)
        for (int64_t d = 0; d < D; d += 32) {
            uint32_t *to = transposed + r / AMX_SIDE * (AMX_SIDE * dp / 2) + d / 2 * AMX_SIDE + r % AMX_SIDE;
            uint32_t *pair = pairs + r / 2 * dp + d;
            __m512i x[16], low[8], high[8];
            for (int64_t i = r + 16; i < r + 32 && i < rows; i++) __builtin_prefetch(src + i * stride + d);
            load_square(x, src + r * stride + d, stride, rows - r, D - d);
            pair_rows(low, high, x);
            for (int i = 0; i < 8; i++, pair += dp) {
                _mm512_storeu_si512(pair, low[i]);
                _mm512_storeu_si512(pair + 16, high[i]);
            }
            bb_transpose16(x);
            for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + i * AMX_SIDE, x[i]);
        }
}

/* Packs `keys` rows, padded to KEYS: as rows and, unless columns is NULL, as columns. */
static void pack_keys(bb_bf16 *rows, bb_bf16 *columns, const bb_bf16 *src, int64_t stride, int64_t keys, int64_t D) {
    int64_t dp = bb_round_up(D, AMX_SIDE);
    for (int64_t r = 0; r < KEYS; r += 32)
        for (int64_t d = 0; d < D; d += 32) {
            __m512i x[16], low[16], high[16];
            for (int half = 0; half < 2; half++) {
                int64_t at = r + 16 * half;
                load_square(x, src + at * stride + d, stride, keys - at, D - d);
                for (int i = 0; i < 16; i++) _mm512_storeu_si512(rows + (at + i) * dp + d, x[i]);
                if (columns) pair_rows(low + 8 * half, high + 8 * half, x);
            }
            if (!columns) continue;
            bb_transpose16(low);
            bb_transpose16(high);
            for (int i = 0; i < 16; i++) {
                _mm512_storeu_si512(columns + (d + i) * KEYS + r, low[i]);
                _mm512_storeu_si512(columns + (d + 16 + i) * KEYS + r, high[i]);
            }
        }
}

/* ---- the pass -------------------------------------------------------------------------------------------------------- */

/* A block of scores whose p and ds are still to be computed, for rows `row` .. 31. */
typedef struct amx_pending {
    const float *s, *dp, *lse, *delta; /* (32, 32) and its queries' values */
    bb_bf16 *p, *ds;
    uint32_t *ds_pairs;
    int64_t row;
    int64_t diagonal; /* query i of the block sees its keys up to i + diagonal */
} amx_pending;

/* low, then high, in bf16. (In assembler: the set's functions are compiled for processors without this instruction.) */
LANES_INLINE __m512i two_bf16(vf low, vf high) {
    __m512i rounded;
    __asm__("vcvtne2ps2bf16 %1, %2, %0" : "=v"(rounded) : "v"(low), "v"(high));
    return rounded;
}

/* Two rows of the block. whole: all its queries see all its keys. */
LANES_INLINE void softmax_two_rows(const amx_pending *w, vf c, bool whole) {
    const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                                5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    int64_t r = w->row;
    vf p[2][2], ds[2][2];
    for (int odd = 0; odd < 2; odd++)
        for (int i = 0; i < 2; i++) {
            int64_t at = (r + odd) * AMX_SIDE + i * VL;
            p[odd][i] = vexp2(vfma(vload(w->s + at), c, vset1(0.0f) - vload(w->lse + i * VL)));
            ds[odd][i] = p[odd][i] * (vload(w->dp + at) - vload(w->delta + i * VL));
            if (whole) continue;
            int64_t unseen = bb_clamp(r + odd - w->diagonal - i * VL, 0, VL); /* queries before the first that sees this key */
            __mmask16 seen = (__mmask16)(0xffffu << unseen);
            p[odd][i] = _mm512_maskz_mov_ps(seen, p[odd][i]);
            ds[odd][i] = _mm512_maskz_mov_ps(seen, ds[odd][i]);
        }
    for (int odd = 0; odd < 2; odd++) {
        _mm512_store_si512(w->p + (r + odd) * AMX_SIDE, two_bf16(p[odd][0], p[odd][1]));
        _mm512_store_si512(w->ds + (r + odd) * AMX_SIDE, two_bf16(ds[odd][0], ds[odd][1]));
    }
    for (int i = 0; i < 2; i++)
        _mm512_storeu_si512(w->ds_pairs + r / 2 * AMX_SIDE + i * VL,
                            _mm512_permutexvar_epi16(interleave, two_bf16(ds[0][i], ds[1][i])));
}

/* Up to `count` rows of the block. */
LANES_INLINE void softmax_rows(amx_pending *w, int64_t count, vf c) {
    int64_t end = bb_clamp(w->row + count, 0, AMX_SIDE);
    if (w->diagonal >= AMX_SIDE - 1)
        for (; w->row < end; w->row += 2) softmax_two_rows(w, c, true);
    else
        for (; w->row < end; w->row += 2) softmax_two_rows(w, c, false);
}

/* What is done between products, while the tiles are busy: with each of them `each` rows of `pending`, unless NULL. */
typedef struct amx_meanwhile {
    amx_pending *pending;
    int64_t each;
    vf c;
} amx_meanwhile;

/* c, whose rows are c_stride bytes apart, = or (`add`) += the product over `k_blocks` times 32 elements of k. */
LANES_INLINE void amx_product(bool add, float *c, int64_t c_stride, amx_sides x, int64_t k_blocks, amx_meanwhile meanwhile) {
    const char *a = x.a, *b = x.b;
    amx_init_sums(add, c, c_stride);
    for (int64_t i = 0; i < k_blocks; i++, a += x.a_k_stride, b += x.b_k_stride) {
        BB_AMX_LOAD(6, b, x.b_stride);
        BB_AMX_LOAD(4, a, x.a_stride);
        BB_AMX_BF16(0, 4, 6);
        BB_AMX_LOAD(7, b + BB_AMX_BYTES, x.b_stride);
        BB_AMX_BF16(1, 4, 7);
        BB_AMX_LOAD(5, a + BB_AMX_ROWS * x.a_stride, x.a_stride);
        BB_AMX_BF16(2, 5, 6);
        BB_AMX_BF16(3, 5, 7);
        if (meanwhile.pending) softmax_rows(meanwhile.pending, meanwhile.each, meanwhile.c);
    }
    amx_store_sums(c, c_stride);
}

/* A tile of packed queries: `blocks` blocks from row `packed` on; query i sees the keys of the packed tile up to i + diagonal. */
typedef struct query_tile {
    int64_t packed, blocks, keys, diagonal;
    int64_t last[QUERY_BLOCKS]; /* for each block of queries, the last block of keys it sees; -1 if none */
} query_tile;

/* Computes p and ds. */
static void amx_weights(const amx_buffers *f, const query_tile *t) {
    int64_t dp = f->width, d_blocks = dp / AMX_SIDE, block_words = AMX_SIDE * dp / 2, odd = 0;
    int64_t row_bytes = dp * 2, block_bytes = AMX_SIDE * (int64_t)sizeof(float);
    const float *lse = f->lse + t->packed, *delta = f->delta + t->packed;
    amx_pending previous = {.row = AMX_SIDE}; /* nothing pending */
    const amx_meanwhile meanwhile = {&previous, bb_round_up(16 / d_blocks, 2), f->c};
    for (int64_t i = 0; i < t->blocks; i++) {
        const uint32_t *q = f->q_transposed + t->packed * dp / 2 + i * block_words;
        const uint32_t *d_o = f->do_transposed + t->packed * dp / 2 + i * block_words;
        for (int64_t j = 0; j <= t->last[i]; j++, odd ^= 1) {
            float *s = f->s + odd * AMX_BLOCK, *d_p = f->dp + odd * AMX_BLOCK;
            int64_t row = j * AMX_SIDE * dp, at = (j * QUERY_BLOCKS + i) * AMX_BLOCK;
            amx_product(false, s, block_bytes,
                        (amx_sides){f->k_rows + row, q, row_bytes, block_bytes, BB_AMX_BYTES, BB_AMX_ROWS * block_bytes},
                        d_blocks, meanwhile);
            amx_product(false, d_p, block_bytes,
                        (amx_sides){f->v_rows + row, d_o, row_bytes, block_bytes, BB_AMX_BYTES, BB_AMX_ROWS * block_bytes},
                        d_blocks, meanwhile);
            softmax_rows(&previous, AMX_SIDE, f->c);
            previous = (amx_pending){s,
                                     d_p,
                                     lse + i * AMX_SIDE,
                                     delta + i * AMX_SIDE,
                                     f->p + at,
                                     f->ds + at,
                                     f->ds_pairs + (i * KEY_BLOCKS + j) * (AMX_BLOCK / 2),
                                     0,
                                     (i - j) * AMX_SIDE + t->diagonal};
        }
    }
    softmax_rows(&previous, AMX_SIDE, f->c);
}

/* Accumulates the tile into dk and dv in f, and into dq (blocks, Dp, 32). */
static void amx_tile(const amx_buffers *f, float *dq, query_tile *t) {
    int64_t dp = f->width, block_words = AMX_SIDE * dp / 2, dp_bytes = dp * (int64_t)sizeof(float);
    int64_t key_blocks = bb_ceil_div(t->keys, AMX_SIDE);
    const int64_t block_bytes = AMX_SIDE * (int64_t)sizeof(float), p_bytes = AMX_BLOCK * (int64_t)sizeof(bb_bf16);
    const amx_meanwhile nothing = {.pending = NULL};
    for (int64_t i = 0; i < t->blocks; i++) {
        int64_t sees = i * AMX_SIDE + AMX_SIDE - 1 + t->diagonal;
        t->last[i] = sees < 0 ? -1 : bb_clamp(sees / AMX_SIDE, 0, key_blocks - 1);
    }
    amx_weights(f, t);
    for (int64_t j = 0; j < key_blocks; j++) {
        int64_t first = 0; /* first block of queries that sees these keys; all later ones do too */
        while (first < t->blocks && t->last[first] < j) first++;
        int64_t k_blocks = t->blocks - first, at = (j * QUERY_BLOCKS + first) * AMX_BLOCK;
        if (k_blocks == 0) break;
        for (int64_t d = 0; d < dp; d += AMX_SIDE) {
            int64_t to = j * AMX_SIDE * dp + d, from = (t->packed / AMX_SIDE + first) * block_words + d;
            amx_sides v = {f->p + at, f->do_pairs + from, BB_AMX_BYTES, dp_bytes, p_bytes, block_words * 4};
            amx_sides k = {f->ds + at, f->q_pairs + from, BB_AMX_BYTES, dp_bytes, p_bytes, block_words * 4};
            amx_product(true, f->dv + to, dp_bytes, v, k_blocks, nothing);
            amx_product(true, f->dk + to, dp_bytes, k, k_blocks, nothing);
        }
    }
    for (int64_t i = 0; i < t->blocks; i++)
        for (int64_t d = 0; d < dp; d += AMX_SIDE)
            amx_product(true, dq + (i * dp + d) * AMX_SIDE, block_bytes,
                        (amx_sides){f->k_columns + d * KEYS, f->ds_pairs + i * KEY_BLOCKS * (AMX_BLOCK / 2), KEYS * 2,
                                    block_bytes, BB_AMX_BYTES, p_bytes},
                        t->last[i] + 1, nothing);
}

static void key_tiles(const backward_keys_task *task, void *scratch) {
    const backward_arrays *x = task->x;
    const bb_attention *a = x->a;
    bb_arena arena = {scratch, 0};
    amx_buffers f = layout(&arena, a);
    int64_t D = a->D, G = a->H / a->Hk, dp = f.width, padded = bb_round_up(a->Tq, QUERIES);
    int64_t see = a->Tk - a->Tq, half = padded * dp / 2; /* words per head */
    memset(task->dq, 0, (size_t)(G * padded * dp) * sizeof *task->dq);
    for (int64_t g = 0; g < G; g++) {
        int64_t row = task->b * a->Tq, h = task->head * G + g;
        row_statistics(f.lse + g * padded, f.delta + g * padded, x, task->b, h, padded);
        pack_queries(f.q_transposed + g * half, f.q_pairs + g * half, x->q + row * a->q_stride + h * D, a->q_stride, a->Tq, D);
        pack_queries(f.do_transposed + g * half, f.do_pairs + g * half, x->d_o + row * a->o_stride + h * D, a->o_stride, a->Tq,
                     D);
    }
    bb_amx_open();
    for (int64_t key0 = task->first * KEYS; key0 < task->last * KEYS && key0 < a->Tk; key0 += KEYS) {
        int64_t keys = bb_min(a->Tk - key0, KEYS), at = task->b * a->kv_batch_stride + key0 * a->kv_stride + task->head * D;
        int64_t first = bb_clamp(key0 - see, 0, a->Tq) / QUERIES * QUERIES;
        pack_keys(f.k_rows, f.k_columns, x->k + at, a->kv_stride, keys, D);
        pack_keys(f.v_rows, NULL, x->v + at, a->kv_stride, keys, D);
        memset(f.dk, 0, (size_t)(KEYS * dp) * sizeof *f.dk);
        memset(f.dv, 0, (size_t)(KEYS * dp) * sizeof *f.dv);
        for (int64_t g = 0; g < G; g++)
            for (int64_t q0 = first; q0 < a->Tq; q0 += QUERIES) {
                query_tile tile = {.packed = g * padded + q0,
                                   .blocks = bb_clamp(bb_ceil_div(a->Tq - q0, AMX_SIDE), 1, QUERY_BLOCKS),
                                   .keys = keys,
                                   .diagonal = q0 + see - key0};
                amx_tile(&f, task->dq + tile.packed * dp, &tile);
            }
        store_rows(x->dk + at, a->kv_stride, f.dk, dp, keys, D, (float)(1.0 / sqrt((double)D)));
        store_rows(x->dv + at, a->kv_stride, f.dv, dp, keys, D, 1.0f);
    }
    bb_amx_close();
}

static void finish_dq(const backward_rows_task *task) {
    const backward_arrays *x = task->x;
    const bb_attention *a = x->a;
    const float *parts = task->parts;
    int64_t b = task->b, h = task->h, t = task->t, rows = task->rows, D = a->D, dp = bb_round_up(D, AMX_SIDE);
    vf scale = vset1((float)(1.0 / sqrt((double)D)));
    for (int64_t r = 0; r < rows; r += 16)
        for (int64_t d = 0; d < D; d += 16) {
            const float *from = parts + r / AMX_SIDE * (AMX_SIDE * dp) + d * AMX_SIDE + r % AMX_SIDE;
            bb_bf16 *to = x->dq + (b * a->Tq + t + r) * a->q_stride + h * D + d;
            __m512i y[16];
            for (int i = 0; i < 16; i++) {
                vf sum = vload(from + i * AMX_SIDE);
                for (int64_t part = 1; part < task->count; part++) sum = sum + vload(from + part * task->stride + i * AMX_SIDE);
                y[i] = _mm512_castps_si512(sum * scale);
            }
            bb_transpose16(y);
            for (int i = 0; i < 16 && r + i < rows; i++)
                vstore_bf16(to + i * a->q_stride, _mm512_castsi512_ps(y[i]), bb_clamp(D - d, 0, VL));
        }
}

const bb_backward_set SET_NAME(bb_backward) = {
    .queries = QUERIES, .keys = KEYS, .bytes = bytes, .dq_ld = dq_ld, .key_tiles = key_tiles, .finish_dq = finish_dq};
