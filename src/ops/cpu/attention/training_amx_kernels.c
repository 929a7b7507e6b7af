// SPDX-License-Identifier: MIT
/* The forward pass for training over a tile of queries on AMX, with the accuracy of f32: an f32 number is the sum of three
 * bf16 parts, each the leading eight bits of what the previous ones leave. A product is the six products of parts whose ranks
 * sum to at most two; the rest is about as much as f32 rounds away. Everything is padded with zeros to blocks of 32. */
#include "ops/cpu/attention/attention_amx.h"
#include "ops/cpu/attention/training_softmax.h"

enum {
    PARTS = 3,
    KEYS = 128, /* of a packed tile */
    ROWS = 32   /* queries processed against it at a time: their scores stay in the first-level cache */
};

/* Scratch of a task; parts are contiguous. Dp: D rounded up to 32. */
typedef struct split_buffers {
    softmax_state state;
    float *s;     /* two of (ROWS, KEYS): raw scores */
    float *alpha; /* two of (ROWS): 2^(old max - new max) */
    bb_bf16 *q;   /* (PARTS, QUERIES, Dp) */
    uint32_t *k;  /* (PARTS, KEYS / 32, Dp / 2, 32): words of two d, one key per column */
    uint32_t *v;  /* (PARTS, KEYS / 2, Dp): words of two keys */
    bb_bf16 *p;   /* (PARTS, ROWS, KEYS) */
    int64_t dp;
    vf c; /* log2 e / sqrt(D) */
} split_buffers;

static split_buffers layout(bb_arena *arena, int64_t D) {
    split_buffers b = {.dp = bb_round_up(D, AMX_SIDE), .c = vset1((float)(M_LOG2E / sqrt((double)D)))};
    size_t dp = (size_t)b.dp, part = PARTS * sizeof(bb_bf16);
    b.state = softmax_layout(arena, b.dp);
    b.s = bb_arena_alloc(arena, (size_t)2 * ROWS * KEYS * sizeof(float));
    b.alpha = bb_arena_alloc(arena, (size_t)2 * ROWS * sizeof(float));
    b.q = bb_arena_alloc(arena, QUERIES * dp * part);
    b.k = bb_arena_alloc(arena, KEYS * dp * part);
    b.v = bb_arena_alloc(arena, KEYS * dp * part);
    b.p = bb_arena_alloc(arena, ROWS * KEYS * part);
    return b;
}

static size_t bytes(int64_t D) {
    bb_arena measure = {0};
    layout(&measure, D);
    return measure.used;
}

/* ---- parts ----------------------------------------------------------------------------------------------------------- */

/* Splits x and y into parts, one bf16 vector per part: x's then y's, or, if `paired`, words of one of each. Exact. */
LANES_INLINE void split_two(__m512i out[PARTS], vf x, vf y, bool paired) {
    const __m512i one_after_another = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29,
                                                       27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    const __m512i high = _mm512_set1_epi32((int)0xffff0000u);
    for (int i = 0; i < PARTS; i++) {
        __m512i x_bits = _mm512_castps_si512(x), y_bits = _mm512_castps_si512(y), y_high = _mm512_and_si512(y_bits, high);
        out[i] = paired ? _mm512_or_si512(_mm512_srli_epi32(x_bits, 16), y_high)
                        : _mm512_permutex2var_epi16(x_bits, one_after_another, y_bits);
        x = x - _mm512_castsi512_ps(_mm512_and_si512(x_bits, high));
        y = y - _mm512_castsi512_ps(y_high);
    }
}

/* Splits `rows` rows for q; writes padded % 32 == 0 rows. */
static void split_queries(bb_bf16 *dst, const float *src, int64_t stride, int64_t rows, int64_t padded, int64_t D) {
    int64_t dp = bb_round_up(D, AMX_SIDE), part = QUERIES * dp;
    for (int64_t r = 0; r < rows; r++, src += stride) {
        if (r + PREFETCH_ROWS < rows) prefetch_row(src + PREFETCH_ROWS * stride, (size_t)D * sizeof *src);
        for (int64_t d = 0; d < dp; d += 32) {
            __m512i x[PARTS];
            split_two(x, vload_first(src + d, bb_clamp(D - d, 0, VL)), vload_first(src + d + VL, bb_clamp(D - d - VL, 0, VL)),
                      false);
            for (int i = 0; i < PARTS; i++) _mm512_store_si512(dst + i * part + r * dp + d, x[i]);
        }
    }
    for (int i = 0; i < PARTS; i++) memset(dst + i * part + rows * dp, 0, (size_t)((padded - rows) * dp) * sizeof *dst);
}

/* Splits `keys` rows for k; writes blocks of 32. */
static void split_keys(uint32_t *dst, const float *src, int64_t stride, int64_t keys, int64_t D) {
    int64_t dp = bb_round_up(D, AMX_SIDE), part = KEYS * dp / 2;
    for (int64_t r = 0; r < bb_round_up(keys, AMX_SIDE); r += 16) {
        for (int64_t i = r + 16; i < r + 32 && i < keys; i++) prefetch_row(src + i * stride, (size_t)D * sizeof *src);
        for (int64_t d = 0; d < dp; d += 32) {
            uint32_t *to = dst + r / AMX_SIDE * (AMX_SIDE * dp / 2) + d / 2 * AMX_SIDE + r % AMX_SIDE;
            int64_t low = bb_clamp(D - d, 0, VL), high = bb_clamp(D - d - VL, 0, VL);
            __m512i words[PARTS][16];
            for (int i = 0; i < 16; i++) {
                const float *from = src + (r + i) * stride + d;
                bool there = r + i < keys;
                __m512i x[PARTS];
                split_two(x, vload_first(from, there ? low : 0), vload_first(from + VL, there ? high : 0), false);
                for (int j = 0; j < PARTS; j++) words[j][i] = x[j];
            }
            for (int j = 0; j < PARTS; j++) {
                bb_transpose16(words[j]);
                for (int i = 0; i < 16; i++) _mm512_store_si512(to + j * part + i * AMX_SIDE, words[j][i]);
            }
        }
    }
}

/* Splits `keys` rows for v; writes blocks of 32. */
static void split_values(uint32_t *dst, const float *src, int64_t stride, int64_t keys, int64_t D) {
    int64_t dp = bb_round_up(D, AMX_SIDE), part = KEYS / 2 * dp;
    for (int64_t r = 0; r < bb_round_up(keys, AMX_SIDE); r += 2) {
        const float *from = src + r * stride;
        for (int64_t i = r + PREFETCH_ROWS; i < r + PREFETCH_ROWS + 2 && i < keys; i++)
            prefetch_row(src + i * stride, (size_t)D * sizeof *src);
        for (int64_t d = 0; d < dp; d += VL) {
            int64_t n = bb_clamp(D - d, 0, VL);
            __m512i x[PARTS];
            split_two(x, vload_first(from + d, r < keys ? n : 0), vload_first(from + stride + d, r + 1 < keys ? n : 0), true);
            for (int i = 0; i < PARTS; i++) _mm512_store_si512(dst + i * part + r / 2 * dp + d, x[i]);
        }
    }
}

/* ---- the pass -------------------------------------------------------------------------------------------------------- */

/* ROWS rows of queries against a tile of keys. */
typedef struct row_block {
    int64_t row;          /* in the tile of queries */
    int64_t keys;         /* in the tile of keys */
    int64_t diagonal;     /* row m sees keys 0..m + diagonal */
    int64_t blocks;       /* of 32 keys, that any of its rows sees */
    float *s, *alpha;     /* its half of the double buffers */
    int64_t softmax_done; /* rows whose softmax is in p */
    bool first;
} row_block;

/* Writes the weights of row m of the block to p, in parts, and updates its sum. */
LANES_INLINE void softmax_row(const split_buffers *b, const row_block *x, int64_t m) {
    const int64_t part = ROWS * KEYS;
    const float *s = x->s + m * KEYS;
    bb_bf16 *to = b->p + m * KEYS;
    float *sum = b->state.sum + (x->row + m) * VL;
    vf minus_max = vset1(-b->state.max[x->row + m]), total = vset1(0.0f);
    int64_t seen = bb_clamp(m + x->diagonal + 1, 0, x->keys);
    for (int64_t j = 0; j < x->blocks * AMX_SIDE; j += AMX_SIDE) {
        vf x0 = vexp2(vfma(vload(s + j), b->c, minus_max)), x1 = vexp2(vfma(vload(s + j + VL), b->c, minus_max));
        if (seen < j + AMX_SIDE) {
            x0 = vkeep(x0, bb_clamp(seen - j, 0, VL), 0.0f);
            x1 = vkeep(x1, bb_clamp(seen - j - VL, 0, VL), 0.0f);
        }
        total = total + (x0 + x1);
        __m512i parts[PARTS];
        split_two(parts, x0, x1, false);
        for (int i = 0; i < PARTS; i++) _mm512_store_si512(to + i * part + j, parts[i]);
    }
    vstore(sum, x->first ? total : vfma(vload(sum), vset1(x->alpha[m]), total));
}

LANES_INLINE void softmax_rows(const split_buffers *b, row_block *x, int64_t count) {
    int64_t end = bb_clamp(x->softmax_done + count, 0, ROWS);
    for (; x->softmax_done < end; x->softmax_done++) softmax_row(b, x, x->softmax_done);
}

/* Operands whose parts are a_part and b_part bytes apart, over `k_blocks` times 32 elements of k. With each product of parts `each`
 * rows of `meanwhile` are processed while the tiles are busy. */
typedef struct split_sides {
    amx_sides of;
    int64_t a_part, b_part, k_blocks;
    row_block *meanwhile;
    int64_t each;
} split_sides;

#define LEFT(part)                                                                                                             \
    do {                                                                                                                       \
        BB_AMX_LOAD(4, left + (part)*x->a_part, x->of.a_stride);                                                               \
        BB_AMX_LOAD(5, left + (part)*x->a_part + BB_AMX_ROWS * x->of.a_stride, x->of.a_stride);                                \
    } while (0)
#define RIGHT(part)                                                                                                            \
    do {                                                                                                                       \
        BB_AMX_LOAD(6, right + (part)*x->b_part, x->of.b_stride);                                                              \
        BB_AMX_LOAD(7, right + (part)*x->b_part + BB_AMX_BYTES, x->of.b_stride);                                               \
    } while (0)
#define MULTIPLY()                                                                                                             \
    do {                                                                                                                       \
        BB_AMX_BF16(0, 4, 6);                                                                                                  \
        BB_AMX_BF16(1, 4, 7);                                                                                                  \
        BB_AMX_BF16(2, 5, 6);                                                                                                  \
        BB_AMX_BF16(3, 5, 7);                                                                                                  \
        softmax_rows(b, x->meanwhile, x->each);                                                                                \
    } while (0)

/* c, whose rows are c_stride bytes apart, = or (`add`) += the product, smallest products of parts first. */
LANES_INLINE void split_product(const split_buffers *b, bool add, float *c, int64_t c_stride, const split_sides *x) {
    const char *left = x->of.a, *right = x->of.b;
    amx_init_sums(add, c, c_stride);
    for (int64_t i = 0; i < x->k_blocks; i++, left += x->of.a_k_stride, right += x->of.b_k_stride) {
        LEFT(2);
        RIGHT(0);
        MULTIPLY();
        LEFT(1);
        MULTIPLY();
        RIGHT(1);
        MULTIPLY();
        LEFT(0);
        MULTIPLY();
        RIGHT(2);
        MULTIPLY();
        RIGHT(0);
        MULTIPLY();
    }
    amx_store_sums(c, c_stride);
}
#undef LEFT
#undef RIGHT
#undef MULTIPLY

/* The scores of x, while the softmax rows of `previous` are computed. */
static void split_scores(const split_buffers *b, const row_block *x, row_block *previous) {
    int64_t dp = b->dp, k_blocks = dp / AMX_SIDE, block_bytes = AMX_SIDE * (int64_t)sizeof(float);
    split_sides sides = {.of = {b->q + x->row * dp, b->k, dp * 2, block_bytes, BB_AMX_BYTES, BB_AMX_ROWS * block_bytes},
                         .a_part = QUERIES * dp * 2,
                         .b_part = KEYS * dp * 2,
                         .k_blocks = k_blocks,
                         .meanwhile = previous,
                         .each = bb_ceil_div(ROWS, x->blocks * k_blocks * 6)};
    for (int64_t j = 0; j < x->blocks; j++) {
        sides.of.b = b->k + j * AMX_SIDE * dp / 2;
        split_product(b, false, x->s + j * AMX_SIDE, KEYS * (int64_t)sizeof(float), &sides);
    }
}

/* The weighted sums of x's rows. */
static void split_outputs(const split_buffers *b, row_block *x) {
    int64_t dp = b->dp, o_bytes = dp * (int64_t)sizeof(float), p_bytes = KEYS * 2;
    float *o = b->state.o + x->row * dp;
    for (int64_t m = 0; m < ROWS && !x->first; m++) {
        vf alpha = vset1(x->alpha[m]);
        if (x->alpha[m] == 1.0f) continue;
        for (int64_t d = 0; d < dp; d += VL) vstore(o + m * dp + d, vload(o + m * dp + d) * alpha);
    }
    split_sides sides = {.of = {b->p, b->v, p_bytes, o_bytes, BB_AMX_BYTES, BB_AMX_ROWS * o_bytes},
                         .a_part = ROWS * p_bytes,
                         .b_part = KEYS * dp * 2,
                         .k_blocks = x->blocks,
                         .meanwhile = x};
    for (int64_t d = 0; d < dp; d += AMX_SIDE) {
        sides.of.b = b->v + d;
        split_product(b, !x->first, o + d, o_bytes, &sides);
    }
}

/* What is left of a block's softmax, and its outputs. */
static void finish_block(const split_buffers *b, row_block *x) {
    if (!x->s) return;
    softmax_rows(b, x, ROWS);
    split_outputs(b, x);
}

static void tile(const forward_tile *t, const char *packed, void *scratch) {
    (void)packed;
    const attention_job *job = t->job;
    const bb_attention *a = &job->a;
    bb_arena arena = {scratch, 0};
    split_buffers x = layout(&arena, a->D);
    int64_t D = a->D, rows = bb_min(a->Tq - t->t0, QUERIES);
    int64_t see = t->t0 + a->Tk - a->Tq; /* query m of the tile sees keys 0..m + see */
    const float *q = job->q + (t->b * a->Tq + t->t0) * a->q_stride + t->h * D;
    split_queries(x.q, q, a->q_stride, rows, bb_round_up(rows, AMX_SIDE), D);
    bb_amx_open();
    for (int64_t key0 = 0; key0 < see + rows; key0 += KEYS) {
        int64_t keys = bb_min(see + rows - key0, KEYS);
        row_block previous = {.softmax_done = ROWS}; /* nothing pending */
        int64_t at = t->b * a->kv_batch_stride + key0 * a->kv_stride + t->h / (a->H / a->Hk) * D;
        split_keys(x.k, job->k + at, a->kv_stride, keys, D);
        split_values(x.v, job->v + at, a->kv_stride, keys, D);
        for (int64_t m = 0; m < rows; m += ROWS) {
            int64_t diagonal = m + see - key0, odd = m / ROWS % 2;
            if (diagonal + ROWS <= 0) continue;
            row_block now = {.row = m, .keys = keys, .diagonal = diagonal, .first = key0 == 0};
            now.blocks = bb_ceil_div(bb_clamp(diagonal + ROWS, 0, keys), AMX_SIDE);
            now.s = x.s + odd * ROWS * KEYS;
            now.alpha = x.alpha + odd * ROWS;
            split_scores(&x, &now, &previous);
            finish_block(&x, &previous);
            const score_rows raw = {now.s, KEYS, ROWS, keys, diagonal, (float)(M_LOG2E / sqrt((double)D)), now.first};
            update_max(x.state.max + m, now.alpha, NULL, &raw);
            previous = now;
        }
        finish_block(&x, &previous);
    }
    bb_amx_close();
    softmax_store(&x.state, t, rows);
}

const bb_training_set SET_NAME(bb_training) = {.queries = QUERIES, .bytes = bytes, .tile = tile};
