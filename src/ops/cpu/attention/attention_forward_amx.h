// SPDX-License-Identifier: MIT
/* The forward pass for training over a tile of queries on AMX, with the accuracy of f32: an f32 number is the sum of three
 * bf16 parts, each the leading eight bits of what the previous ones leave. A product is the six products of parts whose ranks
 * sum to at most two; the rest is about as much as f32 rounds away. With the vector vocabulary of VNNI. Everything is padded
 * with zeros to blocks of 32. */
#ifndef BB_OPS_CPU_ATTENTION_FORWARD_AMX_H
#define BB_OPS_CPU_ATTENTION_FORWARD_AMX_H

#include "ops/cpu/attention/attention_amx.h"

enum { PARTS = 3, AMX_KEY_BLOCKS = ATTENTION_KEYS / AMX_SIDE };

/* Scratch of a task; parts are contiguous. Dp: D rounded up to 32. */
typedef struct split_buffers {
    forward_buffers f; /* s: two of (ROWS, KEYS); o: (QUERIES, Dp); alpha: two of (ROWS) */
    bb_bf16 *q;        /* (PARTS, QUERIES, Dp) */
    uint32_t *k;       /* (PARTS, KEYS / 32, Dp / 2, 32): words of two d, one key per column */
    uint32_t *v;       /* (PARTS, KEYS / 2, Dp): words of two keys */
    bb_bf16 *p;        /* (PARTS, ROWS, KEYS) */
    int64_t dp;
} split_buffers;

KERNEL split_buffers split_layout(bb_arena *arena, int64_t D) {
    split_buffers b = {.dp = bb_round_up(D, AMX_SIDE)};
    size_t dp = (size_t)b.dp, part = PARTS * sizeof(bb_bf16);
    b.f.s = bb_arena_alloc(arena, (size_t)2 * ATTENTION_ROWS * ATTENTION_KEYS * sizeof(float));
    b.f.o = bb_arena_alloc(arena, ATTENTION_QUERIES * dp * sizeof(float));
    b.f.sum = bb_arena_alloc(arena, ATTENTION_QUERIES * VL * sizeof(float));
    b.f.max = bb_arena_alloc(arena, ATTENTION_QUERIES * sizeof(float));
    b.f.alpha = bb_arena_alloc(arena, (size_t)2 * ATTENTION_ROWS * sizeof(float));
    b.q = bb_arena_alloc(arena, ATTENTION_QUERIES * dp * part);
    b.k = bb_arena_alloc(arena, ATTENTION_KEYS * dp * part);
    b.v = bb_arena_alloc(arena, ATTENTION_KEYS * dp * part);
    b.p = bb_arena_alloc(arena, ATTENTION_ROWS * ATTENTION_KEYS * part);
    return b;
}

KERNEL size_t split_bytes(int64_t D) {
    bb_arena measure = {0};
    split_layout(&measure, D);
    return measure.used;
}

/* ---- parts ----------------------------------------------------------------------------------------------------------- */

/* Splits x and y into parts, one bf16 vector per part: x's then y's, or, if `paired`, words of one of each. Exact. */
INLINE void split_two(__m512i out[PARTS], vf x, vf y, bool paired) {
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
KERNEL void split_queries(bb_bf16 *dst, const float *src, int64_t stride, int64_t rows, int64_t padded, int64_t D) {
    int64_t dp = bb_round_up(D, AMX_SIDE), part = ATTENTION_QUERIES * dp;
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
KERNEL void split_keys(uint32_t *dst, const float *src, int64_t stride, int64_t keys, int64_t D) {
    int64_t dp = bb_round_up(D, AMX_SIDE), part = ATTENTION_KEYS * dp / 2;
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
KERNEL void split_values(uint32_t *dst, const float *src, int64_t stride, int64_t keys, int64_t D) {
    int64_t dp = bb_round_up(D, AMX_SIDE), part = ATTENTION_KEYS / 2 * dp;
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
INLINE void softmax_row(const split_buffers *b, const row_block *x, int64_t m, vf c) {
    const int64_t part = ATTENTION_ROWS * ATTENTION_KEYS;
    const float *s = x->s + m * ATTENTION_KEYS;
    bb_bf16 *to = b->p + m * ATTENTION_KEYS;
    float *sum = b->f.sum + (x->row + m) * VL;
    vf minus_max = vset1(-b->f.max[x->row + m]), total = vset1(0.0f);
    int64_t seen = bb_clamp(m + x->diagonal + 1, 0, x->keys);
    for (int64_t j = 0; j < x->blocks * AMX_SIDE; j += AMX_SIDE) {
        vf x0 = vexp2(vfma(vload(s + j), c, minus_max)), x1 = vexp2(vfma(vload(s + j + VL), c, minus_max));
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

INLINE void softmax_rows(const split_buffers *b, row_block *x, int64_t count, vf c) {
    int64_t end = bb_clamp(x->softmax_done + count, 0, ATTENTION_ROWS);
    for (; x->softmax_done < end; x->softmax_done++) softmax_row(b, x, x->softmax_done, c);
}

#define LEFT(part)                                                                                                             \
    do {                                                                                                                       \
        BB_AMX_LOAD(4, a + (part)*a_part, x.a_stride);                                                                         \
        BB_AMX_LOAD(5, a + (part)*a_part + BB_AMX_ROWS * x.a_stride, x.a_stride);                                              \
    } while (0)
#define RIGHT(part)                                                                                                            \
    do {                                                                                                                       \
        BB_AMX_LOAD(6, b + (part)*b_part, x.b_stride);                                                                         \
        BB_AMX_LOAD(7, b + (part)*b_part + BB_AMX_BYTES, x.b_stride);                                                          \
    } while (0)
#define MULTIPLY()                                                                                                             \
    do {                                                                                                                       \
        BB_AMX_BF16(0, 4, 6);                                                                                                  \
        BB_AMX_BF16(1, 4, 7);                                                                                                  \
        BB_AMX_BF16(2, 5, 6);                                                                                                  \
        BB_AMX_BF16(3, 5, 7);                                                                                                  \
        softmax_rows(buffers, meanwhile, each, scale);                                                                         \
    } while (0)

/* c, whose rows are c_stride bytes apart, = or (`add`) += the product over `k_blocks` times 32 elements of k of operands whose
 * parts are a_part and b_part bytes apart, smallest products first. Between them `each` rows of `meanwhile` are processed while
 * the tiles are busy. */
INLINE void split_product(bool add, float *c, int64_t c_stride, amx_sides x, int64_t a_part, int64_t b_part, int64_t k_blocks,
                          const split_buffers *buffers, row_block *meanwhile, int64_t each, vf scale) {
    const char *a = x.a, *b = x.b;
    amx_init_sums(add, c, c_stride);
    for (int64_t i = 0; i < k_blocks; i++, a += x.a_k_stride, b += x.b_k_stride) {
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
KERNEL void split_scores(const split_buffers *b, const row_block *x, row_block *previous, vf c) {
    int64_t dp = b->dp, k_blocks = dp / AMX_SIDE, block_bytes = AMX_SIDE * (int64_t)sizeof(float);
    int64_t each = (ATTENTION_ROWS + x->blocks * k_blocks * 6 - 1) / (x->blocks * k_blocks * 6);
    for (int64_t j = 0; j < x->blocks; j++)
        split_product(false, x->s + j * AMX_SIDE, ATTENTION_KEYS * (int64_t)sizeof(float),
                      (amx_sides){b->q + x->row * dp, b->k + j * AMX_SIDE * dp / 2, dp * 2, block_bytes, BB_AMX_BYTES,
                                  BB_AMX_ROWS * block_bytes},
                      ATTENTION_QUERIES * dp * 2, ATTENTION_KEYS * dp * 2, k_blocks, b, previous, each, c);
}

/* The weighted sums of x's rows. */
KERNEL void split_outputs(const split_buffers *b, row_block *x) {
    int64_t dp = b->dp, o_bytes = dp * (int64_t)sizeof(float), p_bytes = ATTENTION_KEYS * 2;
    float *o = b->f.o + x->row * dp;
    for (int64_t m = 0; m < ATTENTION_ROWS && !x->first; m++) {
        vf alpha = vset1(x->alpha[m]);
        if (x->alpha[m] == 1.0f) continue;
        for (int64_t d = 0; d < dp; d += VL) vstore(o + m * dp + d, vload(o + m * dp + d) * alpha);
    }
    for (int64_t d = 0; d < dp; d += AMX_SIDE)
        split_product(!x->first, o + d, o_bytes,
                      (amx_sides){b->p, b->v + d, p_bytes, o_bytes, BB_AMX_BYTES, BB_AMX_ROWS * o_bytes},
                      ATTENTION_ROWS * p_bytes, ATTENTION_KEYS * dp * 2, x->blocks, b, x, 0, vset1(0.0f));
}

/* Queries t0..t0+QUERIES-1 of head h of sequence b. */
KERNEL void split_tile(const forward_tile *t, void *scratch) {
    const attention_job *job = t->job;
    const bb_attention *a = &job->a;
    int64_t b = t->b, h = t->h, t0 = t->t0;
    bb_arena arena = {scratch, 0};
    split_buffers x = split_layout(&arena, a->D);
    int64_t D = a->D, rows = bb_clamp(a->Tq - t0, 0, ATTENTION_QUERIES);
    int64_t q_row = b * a->Tq + t0, see = t0 + a->Tk - a->Tq; /* query m of the tile sees keys 0..m + see */
    float c = (float)(M_LOG2E / sqrt((double)D));

    split_queries(x.q, job->q + q_row * a->q_stride + h * D, a->q_stride, rows, bb_round_up(rows, AMX_SIDE), D);
    bb_amx_open();
    for (int64_t key0 = 0; key0 < see + rows; key0 += ATTENTION_KEYS) {
        int64_t keys = bb_clamp(see + rows - key0, 0, ATTENTION_KEYS);
        row_block previous = {.softmax_done = ATTENTION_ROWS}; /* nothing pending */
        int64_t at = b * a->kv_batch_stride + key0 * a->kv_stride + h / (a->H / a->Hk) * D;
        split_keys(x.k, job->k + at, a->kv_stride, keys, D);
        split_values(x.v, job->v + at, a->kv_stride, keys, D);
        for (int64_t m = 0; m < rows; m += ATTENTION_ROWS) {
            int64_t diagonal = m + see - key0, odd = m / ATTENTION_ROWS % 2;
            if (diagonal + ATTENTION_ROWS <= 0) continue;
            row_block now = {.row = m, .keys = keys, .diagonal = diagonal, .first = key0 == 0};
            now.blocks = (bb_clamp(diagonal + ATTENTION_ROWS, 0, keys) + AMX_SIDE - 1) / AMX_SIDE;
            now.s = x.f.s + odd * ATTENTION_ROWS * ATTENTION_KEYS;
            now.alpha = x.f.alpha + odd * ATTENTION_ROWS;
            split_scores(&x, &now, &previous, vset1(c));
            if (previous.s) {
                softmax_rows(&x, &previous, ATTENTION_ROWS, vset1(c));
                split_outputs(&x, &previous);
            }
            update_max(x.f.max + m, now.alpha, NULL, now.s, ATTENTION_KEYS, ATTENTION_ROWS, keys, diagonal, c, now.first);
            previous = now;
        }
        if (previous.s) {
            softmax_rows(&x, &previous, ATTENTION_ROWS, vset1(c));
            split_outputs(&x, &previous);
        }
    }
    bb_amx_close();
    store_tile(job->o, job->kept, job->lse, &x.f, x.dp, a, b, h, t0, rows);
}

#endif
