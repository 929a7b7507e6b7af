// SPDX-License-Identifier: MIT
/* The functions of forward_codes_words.h on AMX. Queries and weights are in two parts of bytes, x = 256 high + low: the low part of a
 * query is signed, that of a weight is not. Right operands are tiles of 16 rows of 64 bytes, one after another: a row has four
 * columns of 16 keys, or four keys of 16 columns. */
#ifndef BB_OPS_CPU_FORWARD_CODES_AMX_H
#define BB_OPS_CPU_FORWARD_CODES_AMX_H

#include "ops/cpu/attention/forward_codes.h"
#include "ops/cpu/vector/amx.h"

enum { MR = BB_AMX_ROWS, ROWS = 32, KEYS_TOGETHER = BB_AMX_BYTES, TILE_BYTES = BB_AMX_ROWS * BB_AMX_BYTES };

/* Keys that the register block of row i sees. */
LANES_INLINE int64_t block_end(const code_rows *r, int64_t i) { return bb_clamp(i / MR * MR + r->diagonal + MR, 0, r->keys); }

typedef struct code_operands {
    int8_t *q_high, *q_low;  /* (STATE_ROWS, depth) */
    int8_t *k;               /* (CODES_BLOCK / 16, depth / 64) tiles */
    int8_t *v;               /* (dp / 16, CODES_BLOCK / 64) tiles */
    uint8_t *w_high, *w_low; /* (ROWS, CODES_BLOCK) */
    int32_t *sums;           /* (4) tiles */
    int64_t depth, dp;       /* D rounded up to 64, and to 32 */
} code_operands;

LANES_INLINE code_operands code_operands_layout(bb_arena *arena, int64_t D) {
    code_operands x = {.depth = bb_round_up(D, 64), .dp = bb_round_up(D, 32)};
    x.q_high = bb_arena_alloc(arena, (size_t)(STATE_ROWS * x.depth));
    x.q_low = bb_arena_alloc(arena, (size_t)(STATE_ROWS * x.depth));
    x.k = bb_arena_alloc(arena, (size_t)(CODES_BLOCK * x.depth));
    x.v = bb_arena_alloc(arena, (size_t)(CODES_BLOCK * x.dp));
    x.w_high = bb_arena_alloc(arena, ROWS * CODES_BLOCK);
    x.w_low = bb_arena_alloc(arena, ROWS * CODES_BLOCK);
    x.sums = bb_arena_alloc(arena, (size_t)4 * TILE_BYTES);
    return x;
}

LANES_INLINE void products_open(void) { bb_amx_open(); }
LANES_INLINE void products_close(void) { bb_amx_close(); }

LANES_INLINE void set_query(const code_operands *x, int64_t m, const int16_t *codes) {
    for (int64_t d = 0; d < x->depth; d += 32) {
        __m512i y = viload(codes + d), high = _mm512_srai_epi16(_mm512_add_epi16(y, _mm512_set1_epi16(128)), 8);
        _mm256_storeu_si256((__m256i_u *)(x->q_high + m * x->depth + d), _mm512_cvtepi16_epi8(high));
        _mm256_storeu_si256((__m256i_u *)(x->q_low + m * x->depth + d), _mm512_cvtepi16_epi8(y));
    }
}

LANES_INLINE void set_weights(const code_operands *x, int64_t i, const int16_t *weights, int64_t keys) {
    for (int64_t j = 0; j < bb_round_up(keys, KEYS_TOGETHER); j += 32) {
        __m512i y = viload(weights + j);
        _mm256_storeu_si256((__m256i_u *)(x->w_high + i * CODES_BLOCK + j), _mm512_cvtepi16_epi8(_mm512_srli_epi16(y, 8)));
        _mm256_storeu_si256((__m256i_u *)(x->w_low + i * CODES_BLOCK + j), _mm512_cvtepi16_epi8(y));
    }
}

LANES_INLINE void zero_sums(void) {
    BB_AMX_ZERO(0);
    BB_AMX_ZERO(1);
    BB_AMX_ZERO(2);
    BB_AMX_ZERO(3);
}

LANES_INLINE void store_tiles(int32_t *sums) {
    BB_AMX_STORE(0, sums, BB_AMX_BYTES);
    BB_AMX_STORE(1, sums + TILE_BYTES / 4, BB_AMX_BYTES);
    BB_AMX_STORE(2, sums + TILE_BYTES / 2, BB_AMX_BYTES);
    BB_AMX_STORE(3, sums + TILE_BYTES / 4 * 3, BB_AMX_BYTES);
}

/* The sums of row m: 16 columns, from the first tile of right operands or the second. */
LANES_INLINE vf row_sums(const int32_t *sums, int m, int second) {
    const int32_t *high = sums + second * (TILE_BYTES / 4) + m * 16;
    return vi_to_f32(viadd(_mm512_slli_epi32(viload(high), 8), viload(high + TILE_BYTES / 2)));
}

LANES_INLINE void score_block(const code_rows *r, int64_t i, const code_operands *x, const float *q_scale,
                              const float *k_scale) {
    const int8_t *high = x->q_high + (r->row0 + i) * x->depth, *low = x->q_low + (r->row0 + i) * x->depth;
    for (int64_t n = 0; n < block_end(r, i); n += 32) {
        const int8_t *k = x->k + n * x->depth, *next = k + 16 * x->depth;
        zero_sums();
        for (int64_t d = 0; d < x->depth; d += 64) {
            BB_AMX_LOAD(6, k + d * 16, BB_AMX_BYTES);
            BB_AMX_LOAD(7, next + d * 16, BB_AMX_BYTES);
            BB_AMX_LOAD(4, high + d, x->depth);
            BB_AMX_LOAD(5, low + d, x->depth);
            BB_AMX_SIGNED(0, 4, 6);
            BB_AMX_SIGNED(1, 4, 7);
            BB_AMX_SIGNED(2, 5, 6);
            BB_AMX_SIGNED(3, 5, 7);
        }
        store_tiles(x->sums);
        vf scale[2] = {vload(k_scale + n), vload(k_scale + n + 16)};
        for (int m = 0; m < MR; m++) {
            vf q = vset1(q_scale[r->row0 + i + m]);
            float *s = r->s + (i + m) * CODES_BLOCK + n;
            vstore(s, row_sums(x->sums, m, 0) * (q * scale[0]));
            vstore(s + 16, row_sums(x->sums, m, 1) * (q * scale[1]));
        }
    }
}

LANES_INLINE void scores(const code_rows *r, const code_operands *x, const float *q_scale, const float *k_scale) {
    for (int64_t i = 0; i < r->rows; i += MR) score_block(r, i, x, q_scale, k_scale);
}

LANES_INLINE void value_block(const code_rows *r, int64_t i, const code_operands *x, const forward_state *s,
                              const float *scale) {
    const uint8_t *high = x->w_high + i * CODES_BLOCK, *low = x->w_low + i * CODES_BLOCK;
    for (int64_t n = 0; n < s->dp; n += 32) {
        const int8_t *v = x->v + n * CODES_BLOCK, *next = v + 16 * CODES_BLOCK;
        zero_sums();
        for (int64_t j = 0; j < block_end(r, i); j += 64) {
            BB_AMX_LOAD(6, v + j * 16, BB_AMX_BYTES);
            BB_AMX_LOAD(7, next + j * 16, BB_AMX_BYTES);
            BB_AMX_LOAD(4, high + j, CODES_BLOCK);
            BB_AMX_LOAD(5, low + j, CODES_BLOCK);
            BB_AMX_UNSIGNED(0, 4, 6);
            BB_AMX_UNSIGNED(1, 4, 7);
            BB_AMX_UNSIGNED(2, 5, 6);
            BB_AMX_UNSIGNED(3, 5, 7);
        }
        store_tiles(x->sums);
        for (int m = 0; m < MR; m++)
            for (int h = 0; h < 2 && n + 16 * h < s->dp; h++) {
                float *to = s->o + (r->row0 + i + m) * s->dp + n + 16 * h;
                vf y = row_sums(x->sums, m, h) * vset1(scale[i + m]);
                vstore(to, merged(vload(to), y, vset1(s->old_part[i + m]), vset1(s->new_part[i + m])));
            }
    }
}

LANES_INLINE void values(const code_rows *r, const code_operands *x, const forward_state *s, const float *scale) {
    for (int64_t i = 0; i < r->rows; i += MR) value_block(r, i, x, s, scale);
}

/* Columns past the width meet zeros of the queries; rows past the keys are the last key's. */
LANES_INLINE void pack_keys(const code_operands *x, const code_block *from) {
    for (int64_t r = 0; r < bb_round_up(from->keys, 32); r += 16)
        for (int64_t d = 0; d < x->depth; d += 64) {
            int8_t *to = x->k + r * x->depth + d * 16;
            __m512i y[16];
            for (int64_t i = 0; i < 16; i++) y[i] = viload(from->k + bb_min(r + i, from->keys - 1) * from->width + d);
            bb_transpose16(y);
            for (int i = 0; i < 16; i++) vistore(to + i * BB_AMX_BYTES, y[i]);
        }
}

LANES_INLINE void pack_values(const code_operands *x, const code_block *from) {
    for (int64_t r = 0; r < from->keys; r += BB_KV_ROWS)
        for (int64_t d = 0; d < from->width; d += 16)
            vistore(x->v + d * CODES_BLOCK + r / BB_KV_ROWS * BB_AMX_BYTES, viload(from->v + r * from->width + d * BB_KV_ROWS));
}

#endif
