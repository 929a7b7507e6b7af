// SPDX-License-Identifier: MIT
/* Rows as integers and their products, for both passes of attention in training: int8 with VNNI (AVX-512 or AVX), int16 with AVX2. A sum of products
 * fits in 32 bits, so it is exact. A word of 32 bits holds WORD_CODES codes: columns of a row, or rows of a column.
 *
 * Eight bits are enough because each scale covers few numbers. Scores and do vT have one per row; sums over queries or keys have one
 * per row of the result and one per column of the other operand, within a tile. So a token that all others attend to, or a query
 * that attends to a single key, does not take bits from the others. p and dS, which are summed in two directions, are quantized
 * twice, once the tile's maxima are known. SageAttention trains like this too, except for do vT (arXiv:2505.11594). AVX2 multiplies
 * int16 at twice the rate of f32, and has more bits to spare; other sets stay in f32, AMX has bf16 at a higher rate.
 * docs/PERFORMANCE.md has the cost.
 *
 * Rows are bf16, or the f32 from which those were rounded; f32 is rounded to bf16 first, so that both passes have the same scores.
 * Rows with values that are not finite get undefined codes; their scale is NaN or infinite. */
#ifndef BB_OPS_CPU_TRAINING_CODES_H
#define BB_OPS_CPU_TRAINING_CODES_H

#include <stdbool.h>

#include "core/math.h"
#include "ops/cpu/vector/lanes.h"

enum { MR = 4 /* rows of a register block; it is NR vectors wide */ };

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
/* One operand of a product is signed; the other is biased by CODE_BIAS, which the initial sums compensate. */
typedef int8_t code;
typedef uint32_t word_lanes
    __attribute__((vector_size(sizeof(vi)))); /* wrap instead of overflowing if numbers are not finite */
enum { WORD_CODES = 4, CODE_MAX = INT8_MAX, WEIGHT_MAX = UINT8_MAX, CODE_BIAS = 128, NR = VL / 4 };

/* dot_words: u is unsigned. bytes_of: x[0..3], interleaved: four of x[0], four of x[1] and so on. */
#if defined(__AVX512VNNI__)
LANES_INLINE vi dot_words(vi sum, vi u, vi s) {
    BB_DOT_BYTES_512(sum, u, s);
    return sum;
}

LANES_INLINE vi bytes_of(const vi x[WORD_CODES], bool is_unsigned) {
    vi low = _mm512_packs_epi32(x[0], x[1]), high = _mm512_packs_epi32(x[2], x[3]);
    return is_unsigned ? _mm512_packus_epi16(low, high) : _mm512_packs_epi16(low, high);
}

LANES_INLINE vi words_of_rows(const vi x[WORD_CODES], bool is_unsigned) {
    const vi order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return _mm512_shuffle_epi8(bytes_of(x, is_unsigned), order);
}

LANES_INLINE void store_weights(code *to, const vi x[WORD_CODES]) {
    vistore(to, _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                                         bytes_of(x, true)));
}

LANES_INLINE void store_codes(code *to, vi x, int64_t n) {
    if (n >= VL) /* a masked store is slow on some processors */
        _mm_storeu_si128((__m128i_u *)to, _mm512_cvtsepi32_epi8(x));
    else
        _mm512_mask_cvtsepi32_storeu_epi8(to, first_lanes(n), x);
}

LANES_INLINE int32_t sum_of(vi x) { return _mm512_reduce_add_epi32(x); }
#else
LANES_INLINE vi dot_words(vi sum, vi u, vi s) {
    BB_DOT_BYTES_256(sum, u, s);
    return sum;
}

LANES_INLINE vi bytes_of(const vi x[WORD_CODES], bool is_unsigned) {
    vi low = _mm256_packs_epi32(x[0], x[1]), high = _mm256_packs_epi32(x[2], x[3]);
    return is_unsigned ? _mm256_packus_epi16(low, high) : _mm256_packs_epi16(low, high);
}

LANES_INLINE vi words_of_rows(const vi x[WORD_CODES], bool is_unsigned) {
    const vi order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return _mm256_shuffle_epi8(bytes_of(x, is_unsigned), order);
}

LANES_INLINE void store_weights(code *to, const vi x[WORD_CODES]) {
    vistore(to, _mm256_permutevar8x32_epi32(bytes_of(x, true), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}

LANES_INLINE void store_codes(code *to, vi x, int64_t n) {
    __m128i pairs = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    __m128i codes = _mm_packs_epi16(pairs, pairs);
    if (n >= VL)
        _mm_storel_epi64((__m128i_u *)(void *)to, codes);
    else
        memcpy(to, &codes, (size_t)n * sizeof *to);
}

LANES_INLINE int32_t sum_of(vi x) {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}
#endif

LANES_INLINE vi biased(vi words) { return words ^ viset1((int32_t)0x80808080); }
LANES_INLINE void store_words(vi *to, const vi x[MR]) { to[0] = biased(bytes_of(x, false)); }
LANES_INLINE vi add_biases(vi sums, vi codes) { return (vi)((word_lanes)sums - ((word_lanes)codes << 7)); }
#else
typedef int16_t code;
/* CODE_MAX: sums of 2,048 products fit. */
enum { WORD_CODES = 2, CODE_MAX = 1023, WEIGHT_MAX = CODE_MAX, CODE_BIAS = 0, NR = 2 };

/* The addition is in assembler: GCC 12 would copy the sums. */
LANES_INLINE vi dot_words(vi sum, vi u, vi s) {
    __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(_mm256_madd_epi16(u, s)));
    return sum;
}
LANES_INLINE vi biased(vi words) { return words; }
LANES_INLINE vi words_of_rows(const vi x[WORD_CODES], bool is_unsigned) {
    (void)is_unsigned;
    return _mm256_blend_epi16(x[0], _mm256_slli_epi32(x[1], 16), 0xaa);
}
LANES_INLINE void store_weights(code *to, const vi x[WORD_CODES]) {
    vistore(to, _mm256_permute4x64_epi64(_mm256_packs_epi32(x[0], x[1]), 0xd8));
}
LANES_INLINE void store_codes(code *to, vi x, int64_t n) {
    __m128i codes = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    if (n >= VL)
        _mm_storeu_si128((__m128i_u *)to, codes);
    else
        memcpy(to, &codes, (size_t)n * sizeof *to);
}
LANES_INLINE void store_words(vi *to, const vi x[MR]) {
    vf a = _mm256_castsi256_ps(_mm256_packs_epi32(x[0], x[1])), b = _mm256_castsi256_ps(_mm256_packs_epi32(x[2], x[3]));
    vi even = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)), odd = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd));
    to[0] = _mm256_permute2x128_si256(even, odd, 0x20);
    to[1] = _mm256_permute2x128_si256(even, odd, 0x31);
}
LANES_INLINE vi add_biases(vi sums, vi codes) {
    (void)codes;
    return sums;
}
LANES_INLINE int32_t sum_of(vi x) {
    (void)x;
    return 0;
}
#endif

/* ---- numbers to codes ------------------------------------------------------------------------------------------------ */

LANES_INLINE vi to_codes(vf x, vf inverse) { return vround(x * inverse); }

#if defined(__AVX512F__)
LANES_INLINE vf inverse_of(vf scale) {
    return _mm512_maskz_div_ps(_mm512_cmp_ps_mask(scale, vset1(0x1p-120f), _CMP_GT_OQ), vset1(1.0f), scale);
}
LANES_INLINE vf round_like_kept(vf x) {
    vi bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), viset1(1));
    bits = viadd(viadd(bits, odd), viset1(0x7fff));
    return _mm512_castsi512_ps(_mm512_and_si512(bits, viset1((int)0xffff0000)));
}
#else
LANES_INLINE vf inverse_of(vf scale) {
    return _mm256_and_ps(_mm256_cmp_ps(scale, vset1(0x1p-120f), _CMP_GT_OQ), vset1(1.0f) / scale);
}
LANES_INLINE vf round_like_kept(vf x) {
    vi bits = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), viset1(1));
    bits = viadd(viadd(bits, odd), viset1(0x7fff));
    return _mm256_castsi256_ps(_mm256_and_si256(bits, viset1((int)0xffff0000)));
}
#endif

enum { PANEL = NR * VL };

/* `call` with NR_NOW standing for n, at most NR, as a constant. */
#define WITH_NR(n, call)                                                                                                       \
    switch (n) {                                                                                                               \
    case 1: {                                                                                                                  \
        enum { NR_NOW = 1 };                                                                                                   \
        call;                                                                                                                  \
        break;                                                                                                                 \
    }                                                                                                                          \
    case 2: {                                                                                                                  \
        enum { NR_NOW = 2 < NR ? 2 : NR };                                                                                     \
        call;                                                                                                                  \
        break;                                                                                                                 \
    }                                                                                                                          \
    case 3: {                                                                                                                  \
        enum { NR_NOW = 3 < NR ? 3 : NR };                                                                                     \
        call;                                                                                                                  \
        break;                                                                                                                 \
    }                                                                                                                          \
    default: {                                                                                                                 \
        enum { NR_NOW = NR };                                                                                                  \
        call;                                                                                                                  \
        break;                                                                                                                 \
    }                                                                                                                          \
    }

/* ---- rows ------------------------------------------------------------------------------------------------------------ */

/* Rows of activations, `stride` elements apart. */
typedef struct act_rows {
    const void *at;
    int64_t stride;
    bool f32; /* otherwise bf16; a constant */
    int64_t rows, D;
} act_rows;

LANES_INLINE act_rows act_from(act_rows x, int64_t row, int64_t rows) {
    x.at = (const char *)x.at + row * x.stride * (int64_t)(x.f32 ? sizeof(float) : sizeof(bb_bf16));
    x.rows = bb_clamp(x.rows - row, 0, rows);
    return x;
}

/* Columns d .. d+VL-1 of row r; zeros past the last row and column. */
LANES_INLINE vf act_columns(act_rows x, int64_t r, int64_t d) {
    int64_t at = r * x.stride + d, columns = r < x.rows ? bb_clamp(x.D - d, 0, VL) : 0;
    if (!x.f32) return vload_bf16_first((const bb_bf16 *)x.at + at, columns);
    return columns == VL ? vload((const float *)x.at + at) : vload_first((const float *)x.at + at, columns);
}

LANES_INLINE void act_prefetch(act_rows x, int64_t r) {
    if (r < x.rows) prefetch_row(act_from(x, r, 1).at, (size_t)x.D * (x.f32 ? sizeof(float) : sizeof(bb_bf16)));
}

/* Words of a row. */
LANES_INLINE int64_t row_words(int64_t D) { return bb_ceil_div(D, WORD_CODES); }

/* Quantizes row r with scale max/CODE_MAX, zeros up to `padded`; returns the scale. initial, unless NULL: minus CODE_BIAS times the
 * sum of the codes. */
LANES_INLINE float quantize_row(code *to, int32_t *initial, act_rows x, int64_t r, int64_t padded) {
    vi max_bits = vizero(), sum = vizero();
    for (int64_t d = 0; d < x.D; d += VL) max_bits = vmax_bits(max_bits, vabs(act_columns(x, r, d)));
    float scale = bb_f32_from_bf16(bb_bf16_from_f32(vreduce_bits(max_bits))) / CODE_MAX;
    vf inverse = inverse_of(vset1(scale));
    for (int64_t d = 0; d < padded; d += VL) {
        vf y = act_columns(x, r, d);
        vi z = to_codes(x.f32 ? round_like_kept(y) : y, inverse);
        sum = add_biases(sum, z);
        store_codes(to + d, z, padded - d);
    }
    if (initial) *initial = sum_of(sum);
    return scale;
}

/* Rows as left operands, padded with zeros to some number: words (rows, row_words), with their scales and initial sums. */
typedef struct packed_rows {
    code *codes;
    float *scale;
    int32_t *initial;
} packed_rows;

LANES_INLINE void pack_rows(packed_rows to, act_rows x, int64_t padded) {
    int64_t width = row_words(x.D) * WORD_CODES;
    for (int64_t r = 0; r < padded; r++) {
        act_prefetch(x, r + PREFETCH_ROWS);
        to.scale[r] = quantize_row(to.codes + r * width, to.initial + r, x, r, width);
    }
}

/* Bytes of room for VL rows in whole vectors. */
LANES_INLINE size_t packing_bytes(int64_t D) { return VL * (size_t)bb_round_up(row_words(D), VL) * sizeof(int32_t); }

/* dst: panels (row_words, rows), biased: word (w, r) is word w of row r. scale: (rows rounded up to VL). packing: room. */
LANES_INLINE void pack_transposed(vi *dst, float *scale, code *packing, act_rows x) {
    int64_t words = row_words(x.D), width = bb_round_up(words, VL) * WORD_CODES;
    for (int64_t r = 0; r < x.rows; r += VL) {
        for (int64_t i = 0; i < VL; i++) {
            act_prefetch(x, r + i + PREFETCH_ROWS);
            scale[r + i] = quantize_row(packing + i * width, NULL, x, r + i, width);
        }
        for (int64_t w = 0; w < words; w += VL) {
            vi y[VL], *to = dst + (r / PANEL * words + w) * NR + r % PANEL / VL;
            for (int64_t i = 0; i < VL; i++) y[i] = biased(viload(packing + i * width + WORD_CODES * w));
            vitranspose(y);
            for (int64_t i = 0; i < bb_min(words - w, VL); i++) to[i * NR] = y[i];
        }
    }
}

/* Rows as right operands of sums over them: panels (steps, dp): word (s, d) is rows WORD_CODES s .. at column d. scale: max/CODE_MAX
 * of each column. initial, unless NULL: (steps + 1, dp), minus CODE_BIAS times the columns' sums over the preceding words. */
typedef struct packed_columns {
    vi *words;
    int64_t steps;
    float *scale;
    int32_t *initial;
    bool biased;
} packed_columns;

/* Rows from x.rows up to `padded` are zeros. */
LANES_INLINE void pack_columns(packed_columns to, act_rows x, int64_t padded) {
    int64_t dp = bb_round_up(x.D, VL);
    for (int64_t d = 0; d < x.D; d += VL) {
        vi max_bits = vizero(), sum = vizero();
        for (int64_t r = 0; r < x.rows; r++) max_bits = vmax_bits(max_bits, vabs(act_columns(x, r, d)));
        vf scale = (vf)max_bits * vset1(1.0f / CODE_MAX), inverse = inverse_of(scale);
        vstore(to.scale + d, scale);
        for (int64_t r = 0; r < padded; r += WORD_CODES) {
            vi y[WORD_CODES];
            for (int i = 0; i < WORD_CODES; i++) y[i] = to_codes(act_columns(x, r + i, d), inverse);
            vi words = words_of_rows(y, false);
            to.words[(d / PANEL * to.steps + r / WORD_CODES) * NR + d % PANEL / VL] = to.biased ? biased(words) : words;
            if (!to.initial) continue;
            vistore(to.initial + r / WORD_CODES * dp + d, sum);
            for (int i = 0; i < WORD_CODES; i++) sum = add_biases(sum, y[i]);
        }
        if (to.initial) vistore(to.initial + padded / WORD_CODES * dp + d, sum);
    }
}

/* ---- products -------------------------------------------------------------------------------------------------------- */

/* MR rows of words: bytes from row to row, and from word to word. */
typedef struct left_words {
    const void *at;
    int64_t row, step;
} left_words;

/* sum[m][n] += the dot products of `steps` words of row m with a panel's columns. left_unsigned: a is the unsigned operand,
 * otherwise b. nr and left_unsigned are constants. */
LANES_INLINE void add_product(vi sum[MR][NR], left_words a, const vi *b, int64_t steps, int nr, bool left_unsigned) {
    const char *left = a.at;
    for (int64_t k = 0; k < steps; k++, left += a.step, b += NR) {
        vi right[NR];
        LANES_EACH(n, nr) right[n] = b[n];
        LANES_EACH(m, MR) {
            int32_t word;
            memcpy(&word, left + m * a.row, sizeof word);
            vi x = viset1(word);
            LANES_EACH(n, nr) sum[m][n] = left_unsigned ? dot_words(sum[m][n], x, right[n]) : dot_words(sum[m][n], right[n], x);
        }
    }
}

/* Initializes all sums of row m with initial[m], or 0. */
LANES_INLINE void init_rows(vi sum[MR][NR], const int32_t *initial, int nr) {
    LANES_EACH(m, MR) LANES_EACH(n, nr) sum[m][n] = CODE_BIAS && initial ? viset1(initial[m]) : vizero();
}

#endif
