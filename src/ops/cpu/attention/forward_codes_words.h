// SPDX-License-Identifier: MIT
/* Products of many queries with codes, and of their weights with values, as int16: a word is a pair of them, two columns for the
 * scores, two keys for the weighted sums; a panel is 16 columns of words. forward_codes_amx.h has the same functions. */
#ifndef BB_OPS_CPU_FORWARD_CODES_WORDS_H
#define BB_OPS_CPU_FORWARD_CODES_WORDS_H

#include "ops/cpu/attention/forward_codes.h"

/* A register block: MR rows, NV vectors of columns. KEYS_TOGETHER: whose weights are read at a time. */
#if defined(__AVX512F__)
enum { MR = 6, NV = 4 };
#elif defined(__AVX2__)
enum { MR = 4, NV = 2 };
#else
enum { MR = 2, NV = 4 };
#endif
enum { PANEL = 16, NC = NV * VL, ROWS = 12 /* queries at a time */, KEYS_TOGETHER = 2 };

_Static_assert(NC % PANEL == 0 && CODES_BLOCK % NC == 0, "whole register blocks");

/* Keys that the register block of row i sees. */
LANES_INLINE int64_t block_end(const code_rows *r, int64_t i) { return bb_clamp(i / MR * MR + r->diagonal + MR, 0, r->keys); }

typedef struct code_operands {
    int16_t *q;               /* (STATE_ROWS, q_stride) */
    int32_t *k;               /* panels (kw, CODES_BLOCK) */
    int32_t *v;               /* panels (CODES_BLOCK / 2, dp) */
    int64_t q_stride, kw, dp; /* D rounded up to 64; words of a row of codes, in whole vectors; D rounded up to 16 */
} code_operands;

LANES_INLINE code_operands code_operands_layout(bb_arena *arena, int64_t D) {
    code_operands x = {.q_stride = bb_round_up(D, 64), .kw = bb_round_up(bb_kv_width(D) / 2, VL), .dp = bb_round_up(D, PANEL)};
    x.q = bb_arena_alloc(arena, (size_t)(STATE_ROWS * x.q_stride) * sizeof(int16_t));
    x.k = bb_arena_alloc(arena, (size_t)(CODES_BLOCK * x.kw) * sizeof(int32_t));
    x.v = bb_arena_alloc(arena, CODES_BLOCK / 2 * (size_t)bb_round_up(x.dp, NC) * sizeof(int32_t));
    return x;
}

LANES_INLINE void products_open(void) {}
LANES_INLINE void products_close(void) {}

LANES_INLINE void set_query(const code_operands *x, int64_t m, const int16_t *codes) {
    memcpy(x->q + m * x->q_stride, codes, (size_t)x->q_stride * sizeof *codes);
}

/* Prepares the weights of row i of those at hand, up to `keys` keys and KEYS_TOGETHER. */
LANES_INLINE void set_weights(const code_operands *x, int64_t i, const int16_t *weights, int64_t keys) {
    (void)x;
    (void)i;
    (void)weights;
    (void)keys;
}

/* The operands of a product of words. */
typedef struct operands {
    const int16_t *a;
    int64_t a_stride; /* in int16 */
    const int32_t *b;
    int64_t b_panel, words;
} operands;

/* acc = the product of MR rows and NV vectors. */
LANES_INLINE void product(vi acc[MR][NV], operands x) {
    LANES_EACH(m, MR)
    LANES_EACH(n, NV) acc[m][n] = vizero();
    for (int64_t k = 0; k < x.words; k++, x.a += 2, x.b += PANEL) {
        vi right[NV];
        LANES_EACH(n, NV) right[n] = viload(x.b + n / VECTORS * x.b_panel + n % VECTORS * VL);
        LANES_EACH(m, MR) {
            int32_t word;
            memcpy(&word, x.a + m * x.a_stride, sizeof word);
            LANES_EACH(n, NV) acc[m][n] = vidot_pairs(acc[m][n], viset1(word), right[n]);
        }
    }
}

LANES_APART void score_block(const code_rows *r, int64_t i, int64_t n, const code_operands *x, const float *q_scale,
                             const float *k_scale) {
    int64_t row = r->row0 + i;
    vi acc[MR][NV];
    product(acc, (operands){x->q + row * x->q_stride, x->q_stride, x->k + n * x->kw, PANEL * x->kw, x->dp / 2});
    LANES_EACH(m, MR) LANES_EACH(v, NV) {
        vf scale = vset1(q_scale[row + m]) * vload(k_scale + n + v * VL);
        vstore(r->s + (i + m) * CODES_BLOCK + n + v * VL, vi_to_f32(acc[m][v]) * scale);
    }
}

/* Scores of the rows at hand, as far as each register block of them sees. */
LANES_INLINE void scores(const code_rows *r, const code_operands *x, const float *q_scale, const float *k_scale) {
    for (int64_t n = 0; n < r->keys; n += NC)
        for (int64_t i = 0; i < r->rows; i += MR)
            if (n < block_end(r, i)) score_block(r, i, n, x, q_scale, k_scale);
}

LANES_APART void value_block(const code_rows *r, int64_t i, int64_t n, const code_operands *x, const forward_state *s,
                             const float *scale) {
    vi acc[MR][NV];
    product(acc, (operands){weights_of(r, i), WEIGHTS_STRIDE, x->v + n / PANEL * (CODES_BLOCK / 2) * PANEL,
                            CODES_BLOCK / 2 * PANEL, bb_ceil_div(block_end(r, i), 2)});
    LANES_EACH(m, MR) LANES_EACH(v, NV) {
        float *to = s->o + (r->row0 + i + m) * s->dp + n + v * VL;
        if (n + v * VL >= s->dp) continue;
        vf y = vi_to_f32(acc[m][v]) * vset1(scale[i + m]);
        vstore(to, merged(vload(to), y, vset1(s->old_part[i + m]), vset1(s->new_part[i + m])));
    }
}

/* Merges the weighted sums of the rows at hand into the state. */
LANES_INLINE void values(const code_rows *r, const code_operands *x, const forward_state *s, const float *scale) {
    for (int64_t n = 0; n < s->dp; n += NC)
        for (int64_t i = 0; i < r->rows; i += MR)
            if (block_end(r, i) > 0) value_block(r, i, n, x, s, scale);
}

/* Word (w, r) of a panel is columns 2w, 2w+1 of row r. Columns past the width meet zeros of the queries; rows past the keys are the
 * last key's. */
LANES_INLINE void pack_keys(const code_operands *x, const code_block *from) {
    for (int64_t r = 0; r < bb_round_up(from->keys, NC); r += VL)
        for (int64_t w = 0; w < x->kw; w += VL) {
            int32_t *to = x->k + (r / PANEL * x->kw + w) * PANEL + r % PANEL;
            vi y[VL];
            for (int64_t i = 0; i < VL; i++) y[i] = viload_codes(from->k + bb_min(r + i, from->keys - 1) * from->width + 2 * w);
            vitranspose(y);
            for (int i = 0; i < VL; i++) vistore(to + i * PANEL, y[i]);
        }
}

/* Word (r, d) of a panel is column d of rows 2r, 2r+1. */
LANES_INLINE void pack_values(const code_operands *x, const code_block *from) {
    for (int64_t r = 0; r < from->keys; r += BB_KV_ROWS)
        for (int64_t d = 0; d < from->width; d += VL) {
            int32_t *to = x->v + (d / PANEL * (CODES_BLOCK / 2) + r / 2) * PANEL + d % PANEL;
            const int8_t *quads = from->v + r * from->width + d * BB_KV_ROWS;
            vi first, second;
            visplit_words(&first, &second, viload_codes(quads), viload_codes(quads + 2 * VL));
            vistore(to, first);
            vistore(to + PANEL, second);
        }
}

#endif
