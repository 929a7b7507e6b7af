// SPDX-License-Identifier: MIT
/* Rows as int8 and their products, in the vocabulary of set VNNI: attention where a backward pass follows, both ways. A sum of
 * products fits 32 bits, so it is exact. One side of a product is signed; the other is stored plus 128, which the sums begin
 * with taken off. A word is a quad: four columns of a row, or four rows at a column.
 *
 * Rows are bf16, or the f32 that they were kept from: those are rounded to bf16 first, so that both passes have the same
 * scores. What is not finite becomes any number: its step is NaN or infinite.
 *
 * What makes eight bits enough is that each scale belongs to few numbers. Scores and do vT have one for each row; what is summed
 * over queries or keys has one for each row of the result and each column of the other side, within a tile. So a token that all
 * others attend to, or a query that attends to one key alone, does not take the others' bits. p and dS are rounded twice where
 * they are summed in two directions, once the tile's largest are known. SageAttention trains so as well, but for do vT
 * (arXiv:2505.11594). Processors without VNNI stay in f32; AMX has bf16 at a higher rate. docs/PERFORMANCE.md has the cost. */

enum { QUAD = 4, PLUS = 128 };

/* Rows of activations, `stride` elements apart. */
typedef struct act_rows {
    const void *at;
    int64_t stride;
    bool f32; /* or bf16; a constant */
} act_rows;

INLINE act_rows act_from(act_rows x, int64_t row) {
    x.at = (const char *)x.at + row * x.stride * (int64_t)(x.f32 ? sizeof(float) : sizeof(bb_bf16));
    return x;
}

/* Columns d..d+VL-1 of row r, of which `columns` are there; zeros past them. */
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

/* -- rounding -------------------------------------------------------------------------------------------------------------- */
/* As bits, which order as the numbers do, NaN last. */
INLINE __m512i magnitude(vf x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MAX)); }

/* 1 / step; 0 where that is out of range. */
INLINE vf inverse_steps(vf step) {
    return _mm512_maskz_div_ps(_mm512_cmp_ps_mask(step, vset1(0x1p-120f), _CMP_GT_OQ), vset1(1.0f), step);
}

INLINE __m512i to_int32(vf x, vf inverse) { return _mm512_cvtps_epi32(x * inverse); }

/* To bf16 and back; of NaN any number. */
INLINE vf as_kept(vf x) { return _mm512_castsi512_ps(_mm512_and_si512(round_to_bf16(x), _mm512_set1_epi32((int)0xffff0000))); }

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

INLINE __m512i plus_128(__m512i bytes) { return _mm512_xor_si512(bytes, _mm512_set1_epi8(INT8_MIN)); }

/* Row r in steps of its largest over 127, zeros as far as `padded`, a multiple of 4; the step. begin, unless NULL: -128 times
 * its sum. */
INLINE float int8_row(int8_t *to, int32_t *begin, act_rows x, int64_t r, int64_t D, int64_t padded) {
    __m512i most = _mm512_setzero_si512(), sum = _mm512_setzero_si512();
    for (int64_t d = 0; d < D; d += VL) most = _mm512_max_epu32(most, magnitude(act_columns(x, r, d, D - d)));
    float largest = _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32((int)_mm512_reduce_max_epu32(most))));
    float step = bb_f32_from_bf16(bb_bf16_from_f32(largest)) / INT8_MAX;
    vf inverse = inverse_steps(vset1(step));
    for (int64_t d = 0; d < padded; d += VL) {
        vf y = act_columns(x, r, d, D - d);
        __m512i z = to_int32(x.f32 ? as_kept(y) : y, inverse);
        sum = _mm512_sub_epi32(sum, z);
        if (padded - d >= VL) /* a masked store is slow on some processors */
            _mm_storeu_si128((__m128i_u *)(to + d), _mm512_cvtsepi32_epi8(z));
        else
            _mm512_mask_cvtsepi32_storeu_epi8(to + d, (__mmask16)((1u << (padded - d)) - 1), z);
    }
    if (begin) *begin = (int32_t)((uint32_t)_mm512_reduce_add_epi32(sum) * PLUS); /* of any numbers, too */
    return step;
}

/* -- packing --------------------------------------------------------------------------------------------------------------- */
/* `padded` rows of D rounded up to 4, of which `rows` are there, as left sides; their steps and where sums with them begin. */
INLINE void pack_int8_rows(int8_t *to, float *step, int32_t *begin, act_rows x, int64_t rows, int64_t padded, int64_t D) {
    int64_t width = bb_round_up(D, QUAD);
    for (int64_t r = 0; r < rows; r++) {
        act_prefetch(x, r + PREFETCH_ROWS, rows, D);
        step[r] = int8_row(to + r * width, begin + r, x, r, D, width);
    }
    memset(to + rows * width, 0, (size_t)((padded - rows) * width));
    memset(step + rows, 0, (size_t)(padded - rows) * sizeof *step);
    memset(begin + rows, 0, (size_t)(padded - rows) * sizeof *begin);
}

/* dst: panels (D / 4, rows), plus 128: word (d, r) is columns 4d..4d+3 of row r. step: (rows rounded up to 16). packing: room
 * for 16 rows of D rounded up to 64. */
INLINE void pack_int8_columns(__m512i *dst, float *step, int8_t *packing, act_rows x, int64_t rows, int64_t D) {
    int64_t width = bb_round_up(D, 64), words = (D + QUAD - 1) / QUAD;
    for (int64_t r = 0; r < rows; r += 16) {
        for (int64_t i = 0; i < 16; i++) {
            act_prefetch(x, r + i + PREFETCH_ROWS, rows, D);
            if (r + i < rows) {
                step[r + i] = int8_row(packing + i * width, NULL, x, r + i, D, width);
            } else {
                step[r + i] = 0.0f;
                memset(packing + i * width, 0, (size_t)width);
            }
        }
        for (int64_t d = 0; d < words; d += 16) {
            __m512i y[16], *to = dst + (r / PANEL * words + d) * NR + r % PANEL / VL;
            for (int64_t i = 0; i < 16; i++) y[i] = plus_128(_mm512_loadu_si512(packing + i * width + QUAD * d));
            bb_transpose16(y);
            for (int64_t i = 0; i < bb_clamp(words - d, 0, 16); i++) to[i * NR] = y[i];
        }
    }
}

/* dst: panels (steps, Dp): word (r, d) is rows 4r..4r+3 at column d, in steps of the column's largest over 127: step. Rows are
 * zeros from `rows` up to `padded`. plus: 128 is added. begin, unless NULL: (padded / 4 + 1, Dp), -128 times the columns' sums
 * over the words before. */
INLINE void pack_int8_quads(__m512i *dst, int64_t steps, float *step, int32_t *begin, act_rows x, int64_t rows, int64_t padded,
                            int64_t D, bool plus) {
    int64_t dp = bb_round_up(D, VL);
    for (int64_t d = 0; d < D; d += VL) {
        __m512i most = _mm512_setzero_si512(), sum = _mm512_setzero_si512();
        for (int64_t r = 0; r < rows; r++) most = _mm512_max_epu32(most, magnitude(act_columns(x, r, d, D - d)));
        vf column = _mm512_castsi512_ps(most) * vset1(1.0f / INT8_MAX), inverse = inverse_steps(column);
        vstore(step + d, column);
        for (int64_t r = 0; r < padded; r += QUAD) {
            __m512i y[QUAD];
            for (int i = 0; i < QUAD; i++) y[i] = to_int32(act_columns(x, r + i, d, r + i < rows ? D - d : 0), inverse);
            __m512i words = quads_of(y, false);
            dst[(d / PANEL * steps + r / QUAD) * NR + d % PANEL / VL] = plus ? plus_128(words) : words;
            if (!begin) continue;
            _mm512_storeu_si512(begin + r / QUAD * dp + d, sum);
            for (int i = 0; i < QUAD; i++) sum = _mm512_sub_epi32(sum, _mm512_slli_epi32(y[i], 7));
        }
        if (begin) _mm512_storeu_si512(begin + padded / QUAD * dp + d, sum);
    }
}

/* -- products -------------------------------------------------------------------------------------------------------------- */
/* sum + the dot products of the bytes of words, lane by lane; u's are unsigned. (Assembler: GCC 12 copies the sums around the
 * intrinsics.) */
INLINE __m512i dot_quads(__m512i sum, __m512i u, __m512i s) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(s));
    return sum;
}

/* sum[m][n] += the dot products of `steps` words of row m with a panel's columns. Word k of row m is a_row m + a_step k bytes
 * after a. left_plus: a's side is unsigned, otherwise b's. nr and left_plus are constants. */
INLINE void int8_block(__m512i sum[ATTENTION_MR][NR], const void *a, int64_t a_row, int64_t a_step, const __m512i *b,
                       int64_t steps, int nr, bool left_plus) {
    const char *left = a;
    for (int64_t k = 0; k < steps; k++, left += a_step, b += NR) {
        __m512i right[NR];
        for (int n = 0; n < nr; n++) right[n] = b[n];
        for (int m = 0; m < ATTENTION_MR; m++) {
            __m512i x = four_bytes(left + m * a_row);
            for (int n = 0; n < nr; n++)
                sum[m][n] = left_plus ? dot_quads(sum[m][n], x, right[n]) : dot_quads(sum[m][n], right[n], x);
        }
    }
}

/* Every sum of row m begins with begin[m], or 0. */
INLINE void begin_rows(__m512i sum[ATTENTION_MR][NR], const int32_t *begin, int nr) {
    for (int m = 0; m < ATTENTION_MR; m++)
        for (int n = 0; n < nr; n++) sum[m][n] = begin ? _mm512_set1_epi32(begin[m]) : _mm512_setzero_si512();
}

/* `call`, in which NR_NOW is nr as a constant. */
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
