/* Small matrix products on packed tiles, and the packing, in the vocabulary of attention_simd.h. Included once for each set.
 * Tiles hold whole register blocks: rows padded to MR, columns to VL, both with zeros.
 * SPDX-License-Identifier: MIT */
#ifndef ATTENTION_MR
#define ATTENTION_MR 4 /* rows of a register block; it is NR vectors wide */

#define block ATTENTION_NAME(block)
#define block_of ATTENTION_NAME(block_of)
#define accumulate ATTENTION_NAME(accumulate)
#define pack_rows ATTENTION_NAME(pack_rows)
#define pack_pairs ATTENTION_NAME(pack_pairs)
#define pack_transposed ATTENTION_NAME(pack_transposed)
#define transpose16 ATTENTION_NAME(transpose16)
#define delta_row ATTENTION_NAME(delta_row)

/* What a product does to c: c = ab, c += ab, or c[m,:] = scale[m] c[m,:] + ab. */
enum { PRODUCT_SET, PRODUCT_ADD, PRODUCT_SCALE };

static inline int64_t clamp_to(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }
static inline int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }
#endif

/* One register block. Word (m, k) of a is at a[m * a_row + k * a_step], of b at b[k * ldb + n]. nr and mode are constants. */
INLINE void block(float *c, int64_t ldc, const word *a, int64_t a_row, int64_t a_step, const word *b, int64_t ldb,
                  int64_t steps, int nr, int mode, const float *scale) {
    vf acc[ATTENTION_MR][NR];
    for (int m = 0; m < ATTENTION_MR; m++)
        for (int n = 0; n < nr; n++) {
            if (mode == PRODUCT_SET) acc[m][n] = vset1(0.0f);
            if (mode == PRODUCT_ADD) acc[m][n] = vload(c + m * ldc + n * VL);
            if (mode == PRODUCT_SCALE) acc[m][n] = vload(c + m * ldc + n * VL) * vset1(scale[m]);
        }
    for (int64_t k = 0; k < steps; k++) {
        wv right[NR];
        for (int n = 0; n < nr; n++) right[n] = wload(b + n * VL);
        for (int m = 0; m < ATTENTION_MR; m++) {
            wv left = wset1(a[m * a_row]);
            for (int n = 0; n < nr; n++) acc[m][n] = dot(acc[m][n], left, right[n]);
        }
        a += a_step;
        b += ldb;
    }
    for (int m = 0; m < ATTENTION_MR; m++)
        for (int n = 0; n < nr; n++) vstore(c + m * ldc + n * VL, acc[m][n]);
}

/* The same, for any width 1 <= nr <= NR. */
INLINE void block_of(float *c, int64_t ldc, const word *a, int64_t a_row, int64_t a_step, const word *b, int64_t ldb,
                     int64_t steps, int64_t nr, int mode, const float *scale) {
    switch (nr) {
    case 1: block(c, ldc, a, a_row, a_step, b, ldb, steps, 1, mode, scale); break;
    case 2: block(c, ldc, a, a_row, a_step, b, ldb, steps, 2, mode, scale); break;
#if NR > 2
    case 3: block(c, ldc, a, a_row, a_step, b, ldb, steps, 3, mode, scale); break;
    case 4: block(c, ldc, a, a_row, a_step, b, ldb, steps, 4, mode, scale); break;
#endif
    default: break;
    }
}

/* c (rows, columns) from a (rows, K) and b (K, columns), where only k in [first, last) count for row m:
 * first = m - upper rounded down to a register block and a word, last = m + lower + 1 rounded up. rows % MR == 0,
 * columns % VL == 0. `steps` is K in words. */
INLINE void accumulate(float *c, int64_t ldc, const word *a, int64_t a_row, int64_t a_step, const word *b, int64_t ldb,
                       int64_t rows, int64_t columns, int64_t steps, int64_t upper, int64_t lower, int mode,
                       const float *scale) {
    for (int64_t n = 0; n < columns; n += NR * VL) {
        int64_t nr = clamp_to((columns - n) / VL, 1, NR);
        for (int64_t m = 0; m < rows; m += ATTENTION_MR) {
            int64_t first = clamp_to(m - upper, 0, steps * PER_WORD) / PER_WORD;
            int64_t last = clamp_to(m + lower + ATTENTION_MR + PER_WORD - 1, 0, steps * PER_WORD) / PER_WORD;
            if (first >= last) continue;
            block_of(c + m * ldc + n, ldc, a + m * a_row + first * a_step, a_row, a_step, b + first * ldb + n, ldb,
                     last - first, nr, mode, mode == PRODUCT_SCALE ? scale + m : NULL);
        }
    }
}

/* -- packing: src is (rows, D) bf16 with a row stride; rows up to `padded` become zeros ------------------------------------ */
/* dst (padded, D) in words: row r at r * D / PER_WORD. */
KERNEL void pack_rows(word *dst, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t padded, int64_t D) {
    int64_t ld = D / PER_WORD;
    for (int64_t r = 0; r < rows; r++) {
#if PER_WORD == 2
        memcpy(dst + r * ld, src + r * stride, (size_t)D * sizeof *src);
#else
        for (int64_t d = 0; d < D; d++) dst[r * ld + d] = bb_f32_from_bf16(src[r * stride + d]);
#endif
    }
    memset(dst + rows * ld, 0, (size_t)((padded - rows) * ld) * sizeof *dst);
}

#if PER_WORD == 2
/* dst (padded / 2, ld): word (r, d) pairs the rows 2r and 2r+1 at column d. ld = D rounded up to VL. */
KERNEL void pack_pairs(word *dst, int64_t ld, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t padded, int64_t D) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36,
                                         4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int64_t r = 0; r < padded; r += 2) {
        word *to = dst + r / 2 * ld;
        for (int64_t d = 0; d < ld; d += 2 * VL) {
            __mmask32 mask = D - d >= 32 ? 0xffffffffu : (1u << (D - d)) - 1;
            const bb_bf16 *from = src + r * stride + d;
            __m512i x0 = _mm512_maskz_loadu_epi16(r < rows ? mask : 0, from);
            __m512i x1 = _mm512_maskz_loadu_epi16(r + 1 < rows ? mask : 0, from + stride);
            _mm512_storeu_si512(to + d, _mm512_permutex2var_epi16(x0, low, x1));
            if (d + VL < ld) _mm512_storeu_si512(to + d + VL, _mm512_permutex2var_epi16(x0, high, x1));
        }
    }
}

INLINE void transpose16(__m512i x[16]) {
    __m512i t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        x[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        x[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        x[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        x[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(x[i], x[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(x[i], x[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        x[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        x[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        x[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        x[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

/* dst (D / 2, ld): word (d, r) is the pair 2d, 2d+1 of row r. padded % 16 == 0. */
KERNEL void pack_transposed(word *dst, int64_t ld, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t padded,
                            int64_t D) {
    for (int64_t r = 0; r < padded; r += 16)
        for (int64_t d = 0; d < D / 2; d += 16) {
            int64_t words = clamp_to(D / 2 - d, 0, 16);
            __mmask16 mask = (__mmask16)((1u << words) - 1);
            __m512i x[16];
            for (int i = 0; i < 16; i++)
                x[i] = _mm512_maskz_loadu_epi32(r + i < rows ? mask : 0, src + (r + i) * stride + 2 * d);
            transpose16(x);
            for (int64_t i = 0; i < words; i++) _mm512_storeu_si512(dst + (d + i) * ld + r, x[i]);
        }
}
#else
/* dst (padded, ld), columns D..ld-1 zero. */
KERNEL void pack_pairs(word *dst, int64_t ld, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t padded, int64_t D) {
    memset(dst, 0, (size_t)(padded * ld) * sizeof *dst);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t d = 0; d < D; d++) dst[r * ld + d] = bb_f32_from_bf16(src[r * stride + d]);
}

/* dst (D, ld): element (d, r) is element d of row r. */
KERNEL void pack_transposed(word *dst, int64_t ld, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t padded,
                            int64_t D) {
    for (int64_t r = 0; r < padded; r++)
        for (int64_t d = 0; d < D; d++) dst[d * ld + r] = r < rows ? bb_f32_from_bf16(src[r * stride + d]) : 0.0f;
}
#endif
