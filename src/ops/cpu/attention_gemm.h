/* Small matrix products on packed tiles, and the packing, in the vocabulary of attention_simd.h. Included once for each set.
 * Tiles hold whole register blocks: rows padded to MR, columns to VL, both with zeros.
 * SPDX-License-Identifier: MIT */
#ifndef ATTENTION_MR
#define ATTENTION_MR 4  /* rows of a register block; it is NR vectors wide */
#define PANEL (NR * VL) /* columns */

#define block ATTENTION_NAME(block)
#define block_of ATTENTION_NAME(block_of)
#define accumulate ATTENTION_NAME(accumulate)
#define pack_rows ATTENTION_NAME(pack_rows)
#define load_row_words ATTENTION_NAME(load_row_words)
#define store_row_words ATTENTION_NAME(store_row_words)
#define pack_two ATTENTION_NAME(pack_two)
#define pack_pairs ATTENTION_NAME(pack_pairs)
#define pack_transposed ATTENTION_NAME(pack_transposed)
#define transpose16 ATTENTION_NAME(transpose16)

/* What a product does to c: c = ab, c += ab, or c[m,:] = scale[m] c[m,:] + ab. */
enum { PRODUCT_SET, PRODUCT_ADD, PRODUCT_SCALE };

enum { PREFETCH_ROWS = 16 };

/* The D elements at p. Rows lie a whole activation row apart, which no hardware prefetcher foresees. */
static inline void prefetch_row(const bb_bf16 *p, int64_t D) {
    for (int64_t d = 0; d < D; d += 32) __builtin_prefetch(p + d);
}

static inline int64_t clamp_to(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }
static inline int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }
#endif

/* One register block. Word (m, k) of a is at a[m * a_row + k * a_step], of b at b[k * PANEL + n]. nr and mode are constants. */
INLINE void block(float *c, int64_t ldc, const word *a, int64_t a_row, int64_t a_step, const word *b, int64_t steps, int nr,
                  int mode, const float *scale) {
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
        b += PANEL;
    }
    for (int m = 0; m < ATTENTION_MR; m++)
        for (int n = 0; n < nr; n++) vstore(c + m * ldc + n * VL, acc[m][n]);
}

/* The same, for any width 1 <= nr <= NR. */
INLINE void block_of(float *c, int64_t ldc, const word *a, int64_t a_row, int64_t a_step, const word *b, int64_t steps,
                     int64_t nr, int mode, const float *scale) {
    switch (nr) {
    case 1: block(c, ldc, a, a_row, a_step, b, steps, 1, mode, scale); break;
    case 2: block(c, ldc, a, a_row, a_step, b, steps, 2, mode, scale); break;
#if NR > 2
    case 3: block(c, ldc, a, a_row, a_step, b, steps, 3, mode, scale); break;
    case 4: block(c, ldc, a, a_row, a_step, b, steps, 4, mode, scale); break;
#endif
    default: break;
    }
}

/* c (rows, columns) from a (rows, K) and b (K, columns), where only k in [m - upper, m + lower] count for row m, and the rest
 * may be left out. Word (m, k) of a is at a[m / VL * a_panel + m % VL * a_row + k * a_step]; b is in panels of b_steps words.
 * rows % MR == 0, columns % VL == 0; `steps` is K in words. */
INLINE void accumulate(float *c, int64_t ldc, const word *a, int64_t a_panel, int64_t a_row, int64_t a_step, const word *b,
                       int64_t b_steps, int64_t rows, int64_t columns, int64_t steps, int64_t upper, int64_t lower, int mode,
                       const float *scale) {
    for (int64_t n = 0; n < columns; n += PANEL) {
        int64_t nr = clamp_to((columns - n) / VL, 1, NR);
        for (int64_t m = 0; m < rows; m += ATTENTION_MR) {
            int64_t first = clamp_to(m - upper, 0, steps * PER_WORD) / PER_WORD;
            int64_t last = clamp_to(m + lower + ATTENTION_MR + PER_WORD - 1, 0, steps * PER_WORD) / PER_WORD;
            if (first >= last) continue;
            block_of(c + m * ldc + n, ldc, a + m / VL * a_panel + m % VL * a_row + first * a_step, a_row, a_step,
                     b + n * b_steps + first * PANEL, last - first, nr, mode, mode == PRODUCT_SCALE ? scale + m : NULL);
        }
    }
}

/* -- packing: src is (rows, D) bf16 with a row stride; rows up to `padded` become zeros ------------------------------------
 * A right-hand side (K, N) is stored in panels of PANEL columns: word (k, n) at (n / PANEL * steps + k) * PANEL + n % PANEL. */
#if PER_WORD == 2
/* n elements of a row, up to VL words; the rest zero. A masked store is slow on some processors: not where n is enough. */
INLINE wv load_row_words(const bb_bf16 *p, int64_t n) {
    return n >= 2 * VL ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(n > 0 ? (1u << n) - 1 : 0, p);
}
INLINE void store_row_words(word *p, wv x, int64_t n) {
    if (n >= 2 * VL)
        _mm512_storeu_si512(p, x);
    else
        _mm512_mask_storeu_epi16(p, (1u << n) - 1, x);
}

/* The first `rows` of two rows, zeros for the others: to dst_rows (2, D) when not NULL, and paired to dst, where word d pairs
 * the rows at column d, up to D rounded up to VL. */
INLINE void pack_two(word *dst_rows, word *dst, int64_t steps, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t D) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36,
                                         4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int64_t d = 0; d < D; d += 2 * VL) {
        __m512i x0 = load_row_words(src + d, rows > 0 ? D - d : 0), x1 = load_row_words(src + stride + d, rows > 1 ? D - d : 0);
        word *to = dst + d / PANEL * steps * PANEL + d % PANEL;
        if (dst_rows) {
            store_row_words(dst_rows + d / 2, x0, D - d);
            store_row_words(dst_rows + (D + d) / 2, x1, D - d);
        }
        _mm512_storeu_si512(to, _mm512_permutex2var_epi16(x0, low, x1));
        if (D - d > VL) _mm512_storeu_si512(to + VL, _mm512_permutex2var_epi16(x0, high, x1));
    }
}

/* dst_rows: (padded, D) row by row, or NULL. dst: panels (padded, D), rows paired; steps: words of a panel. padded is even. */
KERNEL void pack_pairs(word *dst_rows, word *dst, int64_t steps, const bb_bf16 *src, int64_t stride, int64_t rows,
                       int64_t padded, int64_t D) {
    for (int64_t r = 0; r < padded; r += 2) {
        if (r + PREFETCH_ROWS + 1 < rows) {
            prefetch_row(src + (r + PREFETCH_ROWS) * stride, D);
            prefetch_row(src + (r + PREFETCH_ROWS + 1) * stride, D);
        }
        pack_two(dst_rows ? dst_rows + r * D / 2 : NULL, dst + r / 2 * PANEL, steps, src + r * stride, stride, rows - r, D);
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

/* dst: panels (D, padded): word (d, r) is the pair 2d, 2d+1 of row r. padded % 16 == 0. */
KERNEL void pack_transposed(word *dst, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t padded, int64_t D) {
    for (int64_t r = 0; r < padded; r += 16) {
        for (int64_t i = r + 16; i < r + 32 && i < rows; i++) prefetch_row(src + i * stride, D);
        for (int64_t d = 0; d < D / 2; d += 16) {
            int64_t words = clamp_to(D / 2 - d, 0, 16);
            __mmask16 mask = (__mmask16)((1u << words) - 1);
            const bb_bf16 *from = src + r * stride + 2 * d;
            word *to = dst + (r / PANEL * (D / 2) + d) * PANEL + r % PANEL;
            __m512i x[16];
            if (r + 16 <= rows)
                for (int i = 0; i < 16; i++, from += stride) x[i] = _mm512_maskz_loadu_epi32(mask, from);
            else
                for (int i = 0; i < 16; i++, from += stride) x[i] = _mm512_maskz_loadu_epi32(r + i < rows ? mask : 0, from);
            transpose16(x);
            if (words == 16)
                for (int64_t i = 0; i < 16; i++) _mm512_storeu_si512(to + i * PANEL, x[i]);
            else
                for (int64_t i = 0; i < words; i++) _mm512_storeu_si512(to + i * PANEL, x[i]);
        }
    }
}
#else
/* dst_rows: (padded, D) row by row, or NULL. dst: panels (padded, D); steps: words of a panel. */
KERNEL void pack_pairs(word *dst_rows, word *dst, int64_t steps, const bb_bf16 *src, int64_t stride, int64_t rows,
                       int64_t padded, int64_t D) {
    for (int64_t r = 0; r < padded; r++)
        for (int64_t n = 0; n < D; n += PANEL) {
            int64_t some = r < rows ? clamp_to(D - n, 0, PANEL) : 0;
            float x[PANEL] = {0};
            for (int64_t i = 0; i < some; i++) x[i] = bb_f32_from_bf16(src[r * stride + n + i]);
            memcpy(dst + n * steps + r * PANEL, x, sizeof x);
            if (dst_rows) memcpy(dst_rows + r * D + n, x, (size_t)clamp_to(D - n, 0, PANEL) * sizeof *x);
        }
}

/* dst: panels (D, padded): element (d, r) is element d of row r. */
KERNEL void pack_transposed(word *dst, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t padded, int64_t D) {
    for (int64_t r = 0; r < padded; r++)
        for (int64_t d = 0; d < D; d++)
            dst[(r / PANEL * D + d) * PANEL + r % PANEL] = r < rows ? bb_f32_from_bf16(src[r * stride + d]) : 0.0f;
}
#endif

/* dst (padded, D) row by row. */
INLINE void pack_rows(word *dst, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t padded, int64_t D) {
    for (int64_t r = 0; r < padded; r++) {
        word *to = dst + r * (D / PER_WORD);
        if (r + PREFETCH_ROWS < rows) prefetch_row(src + (r + PREFETCH_ROWS) * stride, D);
#if PER_WORD == 2
        for (int64_t d = 0; d < D; d += 2 * VL)
            store_row_words(to + d / 2, load_row_words(src + r * stride + d, r < rows ? D - d : 0), D - d);
#else
        for (int64_t d = 0; d < D; d++) to[d] = r < rows ? bb_f32_from_bf16(src[r * stride + d]) : 0.0f;
#endif
    }
}
