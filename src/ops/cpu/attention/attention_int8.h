// SPDX-License-Identifier: MIT
/* Rows as int8 and their products, with the vector vocabulary of VNNI, for both passes of attention in training. A sum of
 * products fits in 32 bits, so it is exact. One operand of a product is signed; the other is biased by 128, which the initial
 * accumulators compensate. A word is a quad: four columns of a row, or four rows of a column.
 *
 * Rows are bf16, or the f32 from which those were rounded; f32 is rounded to bf16 first, so that both passes have the same
 * scores. Rows with values that are not finite get undefined codes; their scale is NaN or infinite.
 *
 * Eight bits are enough because each scale covers few numbers. Scores and do vT have one per row; sums over queries or keys
 * have one per row of the result and one per column of the other operand, within a tile. So a token that all others attend to,
 * or a query that attends to a single key, does not take bits from the others. p and dS, which are summed in two directions,
 * are quantized twice, once the tile's maxima are known. SageAttention trains like this too, except for do vT
 * (arXiv:2505.11594). Processors without VNNI stay in f32; AMX has bf16 at a higher rate. docs/PERFORMANCE.md has the cost. */

enum { QUAD = 4, U8_BIAS = 128 };

/* Rows of activations, `stride` elements apart. */
typedef struct act_rows {
    const void *at;
    int64_t stride;
    bool f32; /* otherwise bf16; a constant */
} act_rows;

INLINE act_rows act_from(act_rows x, int64_t row) {
    x.at = (const char *)x.at + row * x.stride * (int64_t)(x.f32 ? sizeof(float) : sizeof(bb_bf16));
    return x;
}

/* Columns d..d+VL-1 of row r; only `columns` are valid, the rest become zeros. */
INLINE vf act_columns(act_rows x, int64_t r, int64_t d, int64_t columns) {
    int64_t at = r * x.stride + d;
    if (x.f32)
        return columns >= VL ? vload((const float *)x.at + at)
                             : vload_first((const float *)x.at + at, columns > 0 ? columns : 0);
    return columns >= VL ? vload_bf16((const bb_bf16 *)x.at + at)
                         : vload_bf16_first((const bb_bf16 *)x.at + at, columns > 0 ? columns : 0);
}

INLINE void act_prefetch(act_rows x, int64_t r, int64_t rows, int64_t D) {
    if (r < rows) prefetch_row(act_from(x, r).at, (size_t)D * (x.f32 ? sizeof(float) : sizeof(bb_bf16)));
}

/* -- quantizing ------------------------------------------------------------------------------------------------------------ */
/* As bits, which compare like the numbers, NaN largest. */
INLINE __m512i magnitude(vf x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MAX)); }

/* 1 / scale; 0 if that is out of range. */
INLINE vf inverse_scale(vf scale) {
    return _mm512_maskz_div_ps(_mm512_cmp_ps_mask(scale, vset1(0x1p-120f), _CMP_GT_OQ), vset1(1.0f), scale);
}

INLINE __m512i to_int32(vf x, vf inverse) { return _mm512_cvtps_epi32(x * inverse); }

/* Rounds to bf16 and back; NaN gives any number. */
INLINE vf round_like_kept(vf x) {
    return _mm512_castsi512_ps(_mm512_and_si512(round_to_bf16(x), _mm512_set1_epi32((int)0xffff0000)));
}

/* Bytes of x[0..3], interleaved: four of x[0], four of x[1] and so on. */
INLINE __m512i bytes_of(const __m512i x[QUAD], bool is_unsigned) {
    __m512i low = _mm512_packs_epi32(x[0], x[1]), high = _mm512_packs_epi32(x[2], x[3]);
    return is_unsigned ? _mm512_packus_epi16(low, high) : _mm512_packs_epi16(low, high);
}

/* The quads of four rows. */
INLINE __m512i quads_of(const __m512i x[QUAD], bool is_unsigned) {
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return _mm512_shuffle_epi8(bytes_of(x, is_unsigned), order);
}

INLINE __m512i add_bias(__m512i bytes) { return _mm512_xor_si512(bytes, _mm512_set1_epi8(INT8_MIN)); }

/* Quantizes row r with scale max/127, zeros up to `padded`, a multiple of 4; returns the scale. acc_init, unless NULL: -128
 * times the sum of the codes. */
INLINE float int8_row(int8_t *to, int32_t *acc_init, act_rows x, int64_t r, int64_t D, int64_t padded) {
    __m512i max_bits = _mm512_setzero_si512(), sum = _mm512_setzero_si512();
    for (int64_t d = 0; d < D; d += VL) max_bits = _mm512_max_epu32(max_bits, magnitude(act_columns(x, r, d, D - d)));
    float largest = _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32((int)_mm512_reduce_max_epu32(max_bits))));
    float scale = bb_f32_from_bf16(bb_bf16_from_f32(largest)) / INT8_MAX;
    vf inverse = inverse_scale(vset1(scale));
    for (int64_t d = 0; d < padded; d += VL) {
        vf y = act_columns(x, r, d, D - d);
        __m512i z = to_int32(x.f32 ? round_like_kept(y) : y, inverse);
        sum = _mm512_sub_epi32(sum, z);
        if (padded - d >= VL) /* a masked store is slow on some processors */
            _mm_storeu_si128((__m128i_u *)(to + d), _mm512_cvtsepi32_epi8(z));
        else
            _mm512_mask_cvtsepi32_storeu_epi8(to + d, (__mmask16)((1u << (padded - d)) - 1), z);
    }
    if (acc_init)
        *acc_init = (int32_t)((uint32_t)_mm512_reduce_add_epi32(sum) * U8_BIAS); /* wraps instead of overflowing if
                                                                                            * numbers are not finite */
    return scale;
}

/* -- packing --------------------------------------------------------------------------------------------------------------- */
/* Packs `padded` rows of D rounded up to 4, of which `rows` are valid, as left operands, with their scales and initial
 * accumulators. */
INLINE void pack_int8_rows(int8_t *to, float *scale, int32_t *acc_init, act_rows x, int64_t rows, int64_t padded, int64_t D) {
    int64_t width = bb_round_up(D, QUAD);
    for (int64_t r = 0; r < rows; r++) {
        act_prefetch(x, r + PREFETCH_ROWS, rows, D);
        scale[r] = int8_row(to + r * width, acc_init + r, x, r, D, width);
    }
    memset(to + rows * width, 0, (size_t)((padded - rows) * width));
    memset(scale + rows, 0, (size_t)(padded - rows) * sizeof *scale);
    memset(acc_init + rows, 0, (size_t)(padded - rows) * sizeof *acc_init);
}

/* dst: panels (D / 4, rows), biased by 128: word (d, r) is columns 4d..4d+3 of row r. scale: (rows rounded up to 16).
 * packing: space for 16 rows of D rounded up to 64. */
INLINE void pack_int8_columns(__m512i *dst, float *scale, int8_t *packing, act_rows x, int64_t rows, int64_t D) {
    int64_t width = bb_round_up(D, 64), words = (D + QUAD - 1) / QUAD;
    for (int64_t r = 0; r < rows; r += 16) {
        for (int64_t i = 0; i < 16; i++) {
            act_prefetch(x, r + i + PREFETCH_ROWS, rows, D);
            if (r + i < rows) {
                scale[r + i] = int8_row(packing + i * width, NULL, x, r + i, D, width);
            } else {
                scale[r + i] = 0.0f;
                memset(packing + i * width, 0, (size_t)width);
            }
        }
        for (int64_t d = 0; d < words; d += 16) {
            __m512i y[16], *to = dst + (r / PANEL * words + d) * NR + r % PANEL / VL;
            for (int64_t i = 0; i < 16; i++) y[i] = add_bias(_mm512_loadu_si512(packing + i * width + QUAD * d));
            bb_transpose16(y);
            for (int64_t i = 0; i < bb_clamp(words - d, 0, 16); i++) to[i * NR] = y[i];
        }
    }
}

/* dst: panels (k_steps, Dp): word (r, d) is rows 4r..4r+3 at column d, with scale max/127 of the column in scale. Rows from
 * `rows` up to `padded` are zeros. biased: 128 is added. acc_init, unless NULL: (padded / 4 + 1, Dp), -128 times the columns'
 * sums over the preceding words. */
INLINE void pack_int8_quads(__m512i *dst, int64_t k_steps, float *scale, int32_t *acc_init, act_rows x, int64_t rows,
                            int64_t padded, int64_t D, bool biased) {
    int64_t dp = bb_round_up(D, VL);
    for (int64_t d = 0; d < D; d += VL) {
        __m512i max_bits = _mm512_setzero_si512(), sum = _mm512_setzero_si512();
        for (int64_t r = 0; r < rows; r++) max_bits = _mm512_max_epu32(max_bits, magnitude(act_columns(x, r, d, D - d)));
        vf column = _mm512_castsi512_ps(max_bits) * vset1(1.0f / INT8_MAX), inverse = inverse_scale(column);
        vstore(scale + d, column);
        for (int64_t r = 0; r < padded; r += QUAD) {
            __m512i y[QUAD];
            for (int i = 0; i < QUAD; i++) y[i] = to_int32(act_columns(x, r + i, d, r + i < rows ? D - d : 0), inverse);
            __m512i words = quads_of(y, false);
            dst[(d / PANEL * k_steps + r / QUAD) * NR + d % PANEL / VL] = biased ? add_bias(words) : words;
            if (!acc_init) continue;
            _mm512_storeu_si512(acc_init + r / QUAD * dp + d, sum);
            for (int i = 0; i < QUAD; i++) sum = _mm512_sub_epi32(sum, _mm512_slli_epi32(y[i], 7));
        }
        if (acc_init) _mm512_storeu_si512(acc_init + padded / QUAD * dp + d, sum);
    }
}

/* -- products -------------------------------------------------------------------------------------------------------------- */
/* sum + the dot products of the bytes of words, lane by lane; u's are unsigned. (In assembler: GCC 12 copies the sums around
 * the intrinsics.) */
INLINE __m512i dot_quads(__m512i sum, __m512i u, __m512i s) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(s));
    return sum;
}

/* sum[m][n] += the dot products of `k_steps` words of row m with a panel's columns. Word k of row m is a_row m + a_k_stride k
 * bytes after a. left_biased: a is the unsigned operand, otherwise b. nr and left_biased are constants. */
INLINE void int8_block(__m512i sum[ATTENTION_MR][NR], const void *a, int64_t a_row, int64_t a_k_stride, const __m512i *b,
                       int64_t k_steps, int nr, bool left_biased) {
    const char *left = a;
    for (int64_t k = 0; k < k_steps; k++, left += a_k_stride, b += NR) {
        __m512i right[NR];
        for (int n = 0; n < nr; n++) right[n] = b[n];
        for (int m = 0; m < ATTENTION_MR; m++) {
            __m512i x = four_bytes(left + m * a_row);
            for (int n = 0; n < nr; n++)
                sum[m][n] = left_biased ? dot_quads(sum[m][n], x, right[n]) : dot_quads(sum[m][n], right[n], x);
        }
    }
}

/* Initializes every sum of row m with acc_init[m], or 0. */
INLINE void init_rows(__m512i sum[ATTENTION_MR][NR], const int32_t *acc_init, int nr) {
    for (int m = 0; m < ATTENTION_MR; m++)
        for (int n = 0; n < nr; n++) sum[m][n] = acc_init ? _mm512_set1_epi32(acc_init[m]) : _mm512_setzero_si512();
}

/* `call` with NR_NOW standing for nr as a constant. */
#define WITH_NR(nr, call)                                                                                                      \
    switch (nr) {                                                                                                              \
    case 1: {                                                                                                                  \
        enum { NR_NOW = 1 };                                                                                                   \
        call;                                                                                                                  \
        break;                                                                                                                 \
    }                                                                                                                          \
    case 2: {                                                                                                                  \
        enum { NR_NOW = 2 };                                                                                                   \
        call;                                                                                                                  \
        break;                                                                                                                 \
    }                                                                                                                          \
    case 3: {                                                                                                                  \
        enum { NR_NOW = 3 };                                                                                                   \
        call;                                                                                                                  \
        break;                                                                                                                 \
    }                                                                                                                          \
    default: {                                                                                                                 \
        enum { NR_NOW = 4 };                                                                                                   \
        call;                                                                                                                  \
        break;                                                                                                                 \
    }                                                                                                                          \
    }
